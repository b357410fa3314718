//! What a connection's reader and its requests tell each other about an upgrade: until a request that asked for
//! one is answered, nobody knows what the bytes behind it are.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Upgraded,
    NotUpgraded,
}

#[derive(Debug, Default)]
pub struct Decision(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    outcome: Option<Outcome>,
    reader: Option<Waker>,
    surplus: bool,
}

impl Decision {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn decide(&self, outcome: Outcome) {
        let reader = {
            let mut inner = self.lock();
            inner.outcome = Some(outcome);
            inner.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// For the reader: the outcome, taken out.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<Outcome> {
        let mut inner = self.lock();
        match inner.outcome.take() {
            Some(outcome) => {
                inner.surplus = false;
                Poll::Ready(outcome)
            }
            None => {
                inner.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Bytes came together with a request to upgrade, not waiting for the answer.
    pub fn note_surplus(&self) {
        self.lock().surplus = true;
    }

    pub fn has_surplus(&self) -> bool {
        self.lock().surplus
    }
}
