//! What /proc says about a process.

use std::{io, time::Duration};

/// Tells a process from every other one of the same boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub pid: u32,
    /// Field 22 of /proc/PID/stat: clock ticks between the boot and its start.
    pub start: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub start: u64,
    /// It has ended and waits for its parent to notice.
    pub zombie: bool,
    pub group: u32,
    /// Processor time, its own and that of children it has waited for, in clock ticks.
    pub ticks: u64,
    /// Resident memory in pages, what it shares with others among it.
    pub pages: u64,
}

/// `None`: there is no such process.
pub fn stat(pid: u32) -> io::Result<Option<Stat>> {
    let text = match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(text) => text,
        // ESRCH: it went away between open and read.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    parse(&text)
        .map(Some)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat")))
}

/// The name in parentheses may hold anything, parentheses and spaces too: fields count from the last `)`.
fn parse(text: &[u8]) -> Option<Stat> {
    let after = text.iter().rposition(|b| *b == b')')? + 1;
    let mut fields = std::str::from_utf8(text.get(after..)?).ok()?.split_ascii_whitespace();
    let state = fields.next()?;
    let group = fields.nth(1)?.parse().ok()?;
    // Fields 14 to 17 (utime, stime, cutime, cstime); state was field 3 and group 5.
    let mut ticks: u64 = fields.nth(8)?.parse().ok()?;
    for _ in 0..3 {
        ticks = ticks.saturating_add(fields.next()?.parse().ok()?);
    }
    // Field 22, and 24.
    let start = fields.nth(4)?.parse().ok()?;
    let pages = fields.nth(1)?.parse().unwrap_or_default();
    Some(Stat { start, group, zombie: matches!(state, "Z" | "X" | "x"), ticks, pages })
}

/// Whether this process was started with a signal ignored, or ignores it by now.
pub fn ignores(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask =
        status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    let bit = u32::try_from(signal - 1).ok().and_then(|bit| 1_u64.checked_shl(bit));
    mask.zip(bit).is_some_and(|(mask, bit)| mask & bit != 0)
}

/// How long a clock tick is, in seconds.
pub fn tick() -> f64 {
    1.0 / f64::from(u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100))
}

/// From the boot to so many clock ticks after it, as a process's start is told.
pub fn since_boot(ticks: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_millis(ticks.saturating_mul(1000) / per_second)
}

/// How large a page is, in bytes.
pub fn page() -> u64 {
    rustix::param::page_size() as u64
}

/// All processes that can be seen now.
pub fn pids() -> io::Result<impl Iterator<Item = u32>> {
    Ok(std::fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_moves_no_field() {
        let text = b"42 (a) R (x) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 9 11 0";
        assert_eq!(
            parse(text),
            Some(Stat { start: 777, group: 42, zombie: false, ticks: 5 + 6 + 7 + 8, pages: 11 })
        );
        assert_eq!(parse(b"42 (a"), None);
    }

    #[test]
    fn our_own_process_is_there_and_pid_zero_is_not() {
        let stat = stat(std::process::id()).unwrap().unwrap();
        assert!(stat.start > 0 && !stat.zombie && stat.pages > 0);
        assert_eq!(super::stat(0).unwrap(), None);
    }
}
