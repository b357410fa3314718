//! Ends a process in order: it is asked, given time, then killed with its whole group.

use std::time::Duration;

use model::spec::{Signal, StopPolicy};

use super::live::Handle;

/// After SIGKILL the kernel needs no more than this, unless it hangs in a disk.
const KILL_BOUND: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
#[error("process {pid} does not end, not even by SIGKILL: it hangs in the kernel (`cat /proc/{pid}/stack`)")]
pub struct Unkillable {
    pub pid: u32,
}

pub async fn stop(mut process: Handle, policy: &StopPolicy) -> Result<(), Unkillable> {
    // A process that is gone takes no signal, and that is what we want.
    let _ = process.signal(number(policy.signal.unwrap_or(Signal::Term)));
    if tokio::time::timeout(policy.grace.as_duration(), process.ended()).await.is_ok() {
        return Ok(());
    }
    let _ = sys::pidfd::kill_group(&process.identity);
    let _ = process.signal(libc::SIGKILL);
    let killed = tokio::time::timeout(KILL_BOUND, process.ended()).await;
    killed.map_err(|_| Unkillable { pid: process.identity.pid })
}

pub fn number(signal: Signal) -> i32 {
    match signal {
        Signal::Term => libc::SIGTERM,
        Signal::Int => libc::SIGINT,
        Signal::Quit => libc::SIGQUIT,
        Signal::Hup => libc::SIGHUP,
        Signal::Usr1 => libc::SIGUSR1,
        Signal::Usr2 => libc::SIGUSR2,
        Signal::Kill => libc::SIGKILL,
    }
}
