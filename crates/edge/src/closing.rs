//! The end of the server, as connections see it.

use tokio::sync::watch;

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Open,
    /// Finish the request in flight and close.
    Gracefully,
    /// The time for that is over.
    Now,
}

/// What a connection watches.
#[derive(Debug, Clone)]
pub struct Closing(watch::Receiver<Stage>);

impl Closing {
    pub fn begin() -> (watch::Sender<Stage>, Self) {
        let (sender, receiver) = watch::channel(Stage::Open);
        (sender, Self(receiver))
    }

    /// Returns when the end has come at least this far. A server that is gone has come all the way.
    pub async fn reaches(&self, stage: Stage) {
        let _ = self.0.clone().wait_for(|now| *now >= stage).await;
    }
}
