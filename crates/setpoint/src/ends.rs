//! The signals that ask a command to end.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C, SIGTERM, and the end of the terminal unless whoever started us said that it is to be outlived (`nohup`).
pub struct Ends {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

impl Ends {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            // To listen for it would take the place of what was said.
            hangup: (!sys::proc::ignores(SignalKind::hangup().as_raw_value()))
                .then(|| signal(SignalKind::hangup()))
                .transpose()?,
        })
    }

    /// Which one came.
    pub async fn wait(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            () = hung_up(&mut self.hangup) => SignalKind::hangup(),
        }
    }
}

async fn hung_up(hangup: &mut Option<Signal>) {
    match hangup {
        Some(hangup) => drop(hangup.recv().await),
        None => std::future::pending().await,
    }
}
