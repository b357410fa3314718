//! Bugs in the production code that the simulator must find, one at a time. Without the feature `planted` there is none.

#[cfg(feature = "planted")]
use std::sync::atomic::{AtomicU8, Ordering};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// A node takes whatever assignment comes.
    AcceptStale = 1,
    /// No observation is read as an empty one.
    UnknownIsEmpty,
    /// A restart of Setpoint begins the count of attempts anew.
    BudgetReset,
    /// An instance is stopped before the route is out.
    StopBeforeRouteOut,
    /// What was not answered was not done: an agent makes another container beside the first.
    CreateBeside,
    /// What ends with its engine costs an attempt.
    CountOutage,
}

impl Bug {
    pub const ALL: [Self; 6] = [
        Self::AcceptStale,
        Self::UnknownIsEmpty,
        Self::BudgetReset,
        Self::StopBeforeRouteOut,
        Self::CreateBeside,
        Self::CountOutage,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::AcceptStale => "accept-stale",
            Self::UnknownIsEmpty => "unknown-is-empty",
            Self::BudgetReset => "budget-reset",
            Self::StopBeforeRouteOut => "stop-before-route-out",
            Self::CreateBeside => "create-beside",
            Self::CountOutage => "count-outage",
        }
    }

    #[cfg(feature = "planted")]
    pub fn is_planted(self) -> bool {
        PLANTED.load(Ordering::Relaxed) == self as u8
    }

    #[cfg(not(feature = "planted"))]
    pub fn is_planted(self) -> bool {
        false
    }
}

#[cfg(feature = "planted")]
static PLANTED: AtomicU8 = AtomicU8::new(0);

/// The production code is as it should be again.
#[cfg(feature = "planted")]
pub fn unplant() {
    PLANTED.store(0, Ordering::Relaxed);
}

/// For the whole process, in the place of the one before.
#[cfg(feature = "planted")]
pub fn plant(bug: Bug) {
    PLANTED.store(bug as u8, Ordering::Relaxed);
}
