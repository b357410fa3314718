//! Time that goes on during suspend, and the id of the running boot.

use std::{io, time::Duration};

/// Time since the machine booted, suspend included. `Instant` stops in suspend, so deadlines are not made of it.
pub fn boottime() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (secs, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0));
    Duration::new(secs, nanos)
}

/// The kernel's id of this boot: pids and start times mean nothing beyond it.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_rises_and_the_boot_has_an_id() {
        let before = boottime();
        assert!(boottime() >= before && before > Duration::ZERO);
        assert_eq!(boot_id().unwrap().len(), 36);
    }
}
