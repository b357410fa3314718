//! Requests in flight on one instance: the count behind *drained*.
//!
//! A request counts itself in *before* it makes sure that the table it was routed by is still the served one
//! (see `state::State::admit`), so that no report can say 0 while a request that chose this instance is about
//! to count itself.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};

use model::InstanceId;
use tokio::sync::watch;

#[derive(Debug)]
pub struct Flight {
    pub instance: InstanceId,
    count: AtomicU64,
    /// Not in the served table.
    retired: AtomicBool,
    /// Subtracted by an endpoint event.
    down: AtomicBool,
    changed: watch::Sender<u64>,
}

impl Flight {
    pub fn new(instance: InstanceId, changed: watch::Sender<u64>) -> Self {
        Self {
            instance,
            count: AtomicU64::new(0),
            retired: AtomicBool::new(false),
            down: AtomicBool::new(false),
            changed,
        }
    }

    pub fn count(&self) -> u64 {
        self.count.load(SeqCst)
    }

    pub fn is_retired(&self) -> bool {
        self.retired.load(SeqCst)
    }

    pub fn set_retired(&self, retired: bool) {
        self.retired.store(retired, SeqCst);
    }

    pub fn is_down(&self) -> bool {
        self.down.load(SeqCst)
    }

    pub fn set_down(&self, down: bool) {
        self.down.store(down, SeqCst);
    }
}

/// One request in flight; dropping it counts it out.
#[derive(Debug)]
pub struct Ticket(Arc<Flight>);

impl Ticket {
    pub fn take(flight: &Arc<Flight>) -> Self {
        flight.count.fetch_add(1, SeqCst);
        Self(flight.clone())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Count first, then look: `publish` marks first, then counts. One of the two sees the other.
        let before = self.0.count.fetch_sub(1, SeqCst);
        if before == 1 && self.0.is_retired() {
            self.0.changed.send_modify(|n| *n += 1);
        }
    }
}
