//! Setpoint's one clock in this process: begins at the wall clock, or where the store's last commit left it when
//! that is later, and goes on with CLOCK_BOOTTIME. A step of the wall clock moves nothing.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use model::Timestamp;

#[derive(Debug, Clone, Copy)]
pub struct Clock {
    began: Duration,
    began_boottime: Duration,
}

impl Clock {
    pub fn start(not_before: Timestamp) -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let floor = Duration::from_millis(not_before.0);
        Self { began: wall.max(floor), began_boottime: sys::clock::boottime() }
    }

    pub fn for_server(self) -> server::Clock {
        Arc::new(move || node::Clock::now(&self))
    }
}

impl node::Clock for Clock {
    fn now(&self) -> Timestamp {
        let passed = sys::clock::boottime().saturating_sub(self.began_boottime);
        Timestamp(u64::try_from((self.began + passed).as_millis()).unwrap_or(u64::MAX))
    }
}
