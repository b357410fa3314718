//! A process held by a descriptor: it cannot be mistaken for a later one with the same pid.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, pidfd_send_signal, waitid,
};

/// Readable (as poll means it) as soon as the process has ended.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

/// How a process ended, as far as we may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Code(i32),
    Signal(i32),
    /// It is not our child, so nobody tells us.
    Unknown,
}

impl PidFd {
    /// Takes hold of a running process. The caller must compare its start time *afterwards*: only then is the held
    /// process known to be the one meant.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self(pidfd_open(pid, PidfdFlags::NONBLOCK)?))
    }

    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    pub fn signal(&self, signal: i32) -> io::Result<()> {
        let signal = Signal::from_named_raw(signal).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(pidfd_send_signal(&self.0, signal)?)
    }

    /// How it ended; `None` while it runs. The process stays a zombie, so its pid and group stay taken.
    pub fn peek(&self) -> io::Result<Option<Ended>> {
        self.wait(WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT)
    }

    /// As `peek`, and frees its pid.
    pub fn reap(&self) -> io::Result<Option<Ended>> {
        self.wait(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    /// Waits for its end and frees its pid.
    pub fn reap_blocking(&self) -> io::Result<Option<Ended>> {
        self.wait(WaitIdOptions::EXITED)
    }

    fn wait(&self, options: WaitIdOptions) -> io::Result<Option<Ended>> {
        loop {
            match waitid(WaitId::PidFd(self.0.as_fd()), options) {
                Ok(None) => return Ok(None),
                Ok(Some(status)) => {
                    return Ok(Some(match (status.exit_status(), status.terminating_signal()) {
                        (Some(code), _) => Ended::Code(code),
                        (None, Some(signal)) => Ended::Signal(signal),
                        (None, None) => Ended::Unknown,
                    }));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CHILD) => return self.wait_for_a_foreign_one(),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Not our child: the descriptor is readable once it has ended, and that is all that can be known.
    fn wait_for_a_foreign_one(&self) -> io::Result<Option<Ended>> {
        let mut fds = [rustix::event::PollFd::new(&self.0, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let readable = rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&now)))?;
        Ok((readable > 0).then_some(Ended::Unknown))
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::os::fd::AsRawFd for PidFd {
    fn as_raw_fd(&self) -> i32 {
        std::os::fd::AsRawFd::as_raw_fd(&self.0)
    }
}

/// Kills what is left of the process group that `leader` led. A pid that another process has taken since is left
/// alone. Whether there was anyone to kill.
pub fn kill_group(leader: &crate::Identity) -> io::Result<bool> {
    match crate::proc::stat(leader.pid)? {
        Some(stat) if stat.start != leader.start => return Ok(false),
        Some(_) | None => {}
    }
    let Some(group) = i32::try_from(leader.pid).ok().and_then(Pid::from_raw) else { return Ok(false) };
    match kill_process_group(group, Signal::KILL) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether anything is left of the group that this process led, zombies among it. Asked after the leader has been
/// reaped: before, it is a member itself.
pub fn group_exists(leader: &crate::Identity) -> bool {
    let group = i32::try_from(leader.pid).ok().and_then(Pid::from_raw);
    group.is_some_and(|group| rustix::process::test_kill_process_group(group).is_ok())
}
