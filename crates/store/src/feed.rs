//! Says in this process that something has changed. A hint only: what changed is read from the store.

use std::sync::Arc;

use model::ServiceKey;
use tokio::sync::{broadcast, watch};

use crate::Store;

/// Commits that a receiver may fall behind before it is told to reload everything.
const CAPACITY: usize = 1024;

/// The services that one commit touched, and which half of their parent moved.
#[derive(Debug, Clone)]
pub enum Changed {
    Intents(Arc<[ServiceKey]>),
    Plans(Arc<[ServiceKey]>),
}

#[derive(Debug)]
pub(crate) struct Feed {
    events: watch::Sender<u64>,
    changes: broadcast::Sender<Changed>,
}

impl Feed {
    pub(crate) fn new(latest_event: u64) -> Self {
        Self { events: watch::Sender::new(latest_event), changes: broadcast::Sender::new(CAPACITY) }
    }

    /// Two commits may announce themselves in the other order; the sequence only rises.
    pub(crate) fn events_until(&self, seq: u64) {
        self.events.send_if_modified(|latest| {
            let newer = seq > *latest;
            *latest = seq.max(*latest);
            newer
        });
    }

    pub(crate) fn changed(&self, changed: Changed) {
        // Nobody listening is no error: the store is the truth, this is a hint.
        let _ = self.changes.send(changed);
    }
}

impl Store {
    /// The sequence of the latest event; changes when there are new ones.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.feed.events.subscribe()
    }

    /// The services that change from now on. A receiver told that it lagged loads everything again.
    pub fn changes(&self) -> broadcast::Receiver<Changed> {
        self.0.feed.changes.subscribe()
    }
}
