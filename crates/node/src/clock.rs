//! The node's time, as an argument: tests and the binary give it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::Timestamp;

pub trait Clock: Send + Sync + std::fmt::Debug {
    fn now(&self) -> Timestamp;
}

/// Starts at the wall clock, advances with CLOCK_BOOTTIME and never goes back.
#[derive(Debug, Clone, Copy)]
pub struct BootClock {
    wall_at_boot: Duration,
}

impl BootClock {
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall_at_boot: wall.saturating_sub(sys::clock::boottime()) }
    }
}

impl Clock for BootClock {
    fn now(&self) -> Timestamp {
        let now = self.wall_at_boot + sys::clock::boottime();
        Timestamp(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
    }
}
