//! What really runs, read from /proc: the truth that Setpoint's own reports are compared with.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, Signal, kill_process};

/// A process that some Setpoint started as an instance, or a child of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    pub pid: u32,
    /// Value of SETPOINT_INSTANCE.
    pub instance: String,
    pub cwd: PathBuf,
}

/// Live processes with an instance's environment whose folder or environment lies below `root`.
pub fn workloads(root: &Path) -> Vec<Workload> {
    let entries = fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut found: Vec<Workload> = pids.filter_map(|pid| workload(pid, root)).collect();
    found.sort();
    found
}

fn workload(pid: u32, root: &Path) -> Option<Workload> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let cwd = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    let mut variables = environ.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let instance = variables.find_map(|v| v.strip_prefix("SETPOINT_INSTANCE=").map(str::to_owned))?;
    let named = String::from_utf8_lossy(&environ).contains(root.to_str()?);
    (cwd.starts_with(root) || named).then_some(Workload { pid, instance, cwd })
}

/// Live processes with this among their arguments.
pub fn with_argument(argument: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let has = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes())
    };
    let mut found: Vec<u32> = pids.filter(has).collect();
    found.sort();
    found
}

/// Whether there is such a process and it is more than a zombie.
pub fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    !state.is_some_and(|state| state.starts_with(['Z', 'X']))
}

/// Whether every thread stands still after a SIGSTOP.
pub fn is_stopped(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    let mut stats = threads.flatten().map(|thread| fs::read_to_string(thread.path().join("stat")));
    stats.all(|stat| {
        stat.is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" T")))
    })
}

/// Sends SIGKILL. A process that has gone already is as good.
pub fn kill9(pid: u32) {
    signal(pid, Signal::KILL);
}

pub fn terminate(pid: u32) {
    signal(pid, Signal::TERM);
}

/// As Ctrl-C does.
pub fn interrupt(pid: u32) {
    signal(pid, Signal::INT);
}

/// As the end of a terminal does.
pub fn hang_up(pid: u32) {
    signal(pid, Signal::HUP);
}

pub fn stop(pid: u32) {
    signal(pid, Signal::STOP);
}

pub fn go_on(pid: u32) {
    signal(pid, Signal::CONT);
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}
