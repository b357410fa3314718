//! A folder for programs that outlive the call that started them, and the certainty that they end: with the value
//! that holds it, with the test's process when that is killed, or with the whole run of tests that shares it.

use std::{
    fs::{self, File},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};

use super::programs;
use crate::wait;

/// Grounds at once on one machine; as many as there are ranges of addresses.
const PLACES: u16 = 64;
/// From the end of the owner until nothing is left.
const GONE_WITHIN: Duration = Duration::from_secs(120);

const REAPER: &str = include_str!("reaper.sh");

/// When what runs on a ground ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Owner {
    /// The value, or at the latest this process.
    Value,
    /// Another process.
    Process(u32),
}

/// A folder with a number that nobody else on this machine has now.
#[derive(Debug)]
pub(super) struct Ground {
    pub folder: PathBuf,
    pub number: u16,
    reaper: Option<Child>,
}

impl Ground {
    pub fn claim(owner: Owner) -> Self {
        let home = std::env::temp_dir();
        let claim = |number| {
            let lock = open(&home.join(format!("setpoint-ground-{number}.lock")));
            flock(&lock, FlockOperation::NonBlockingLockExclusive).ok().map(|()| (number, lock))
        };
        let (number, lock) = (0..PLACES).find_map(claim).expect("a free place for one more engine");
        let ground = Self { folder: home.join(format!("setpoint-ground-{number}")), number, reaper: None };
        // Whoever was here before may have been killed together with its reaper.
        if ground.folder.exists() {
            let status = ground.reaper("now").stdin(Stdio::null()).status().unwrap();
            assert!(status.success(), "{} cannot be cleared", ground.folder.display());
        }
        fs::create_dir_all(&ground.folder).unwrap();
        ground.watched(owner, lock)
    }

    fn watched(mut self, owner: Owner, lock: File) -> Self {
        let mut command = match owner {
            Owner::Value => self.reaper("stdin"),
            Owner::Process(pid) => self.reaper(&pid.to_string()),
        };
        let stdin = if matches!(owner, Owner::Value) { Stdio::piped() } else { Stdio::null() };
        let child = command.stdin(stdin).stdout(lock).spawn().unwrap();
        // One that is owned by another process is nobody's business here any more.
        self.reaper = matches!(owner, Owner::Value).then_some(child);
        self
    }

    fn reaper(&self, owner: &str) -> Command {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("sh");
        command.args(["-c", REAPER, "reaper"]).arg(&self.folder).args([
            &self.cgroup(),
            owner,
            &self.subnet(),
        ]);
        command.arg(self.bridges()).env("PATH", programs::path()).stderr(Stdio::null());
        // A signal to the test's process group must not end what cleans up after it.
        command.process_group(0);
        command
    }

    /// 256 networks of 253 containers each: what tests leave on an engine that they share stays until the run ends.
    /// The range belongs to no machine and to no private network, but to carriers between them.
    pub fn subnet(&self) -> String {
        format!("100.{}.0.0/16", self.second())
    }

    /// What the addresses of its bridges begin with.
    fn bridges(&self) -> String {
        format!(" 100.{}.", self.second())
    }

    fn second(&self) -> u16 {
        64 + self.number
    }

    /// Packets between containers of one network count as forwarded where the kernel filters bridges too; and
    /// another engine on this machine may have closed that way for all but its own.
    pub fn let_pass(&self) {
        let filtered = fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables");
        if !filtered.is_ok_and(|text| text.trim() == "1") {
            return;
        }
        let rule = |verb: &str| {
            let mut command = Command::new("iptables");
            command.args(["-w", verb, "FORWARD", "-s", &self.subnet(), "-d", &self.subnet(), "-j", "ACCEPT"]);
            command.env("PATH", programs::path()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let _ = rule("-C") || rule("-I");
    }

    pub fn cgroup(&self) -> String {
        // Of one length: no name is the beginning of another.
        format!("setpoint-ground-{:02}", self.number)
    }

    /// Ends it now and waits until nothing is left.
    pub fn clear(&mut self) -> Result<(), String> {
        let Some(mut reaper) = self.reaper.take() else { return Ok(()) };
        drop(reaper.stdin.take());
        match wait::within(GONE_WITHIN, || reaper.try_wait().ok().flatten()) {
            Some(status) if status.success() => Ok(()),
            other => Err(format!("{} was not cleared: {other:?}", self.folder.display())),
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let cleared = self.clear();
        if let Err(trouble) = cleared
            && !std::thread::panicking()
        {
            panic!("{trouble}");
        }
    }
}

fn open(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// The process that this test is one of several of: the runner that starts one process for each test, otherwise this
/// process itself.
pub(super) fn run() -> u32 {
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    match std::env::var_os("NEXTEST") {
        Some(_) => u32::try_from(parent).unwrap(),
        None => std::process::id(),
    }
}

/// Text that all tests of a run share: the first one makes it while the others wait. `good` says whether what an
/// earlier test left can still be used.
pub(super) fn once_per_run(
    name: &str,
    good: impl Fn(&str) -> bool,
    make: impl FnOnce(u32) -> String,
) -> String {
    let owner = run();
    // A pid returns some day; with its start time it does not.
    let began = start_time(owner);
    let path = std::env::temp_dir().join(format!("setpoint-{name}-{owner}-{began}"));
    forget_dead(name);
    let mut file = open(&path);
    flock(&file, FlockOperation::LockExclusive).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    if text.is_empty() || !good(&text) {
        text = make(owner);
        file.set_len(0).unwrap();
        file.rewind().unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
    text
}

/// Notes of runs that have ended.
fn forget_dead(name: &str) {
    let prefix = format!("setpoint-{name}-");
    for entry in fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let file = entry.file_name();
        let Some(rest) = file.to_str().and_then(|file| file.strip_prefix(&prefix)) else { continue };
        let Some((pid, began)) = rest.split_once('-') else { continue };
        if pid.parse().is_ok_and(|pid| start_time(pid) != began) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Field 22 of /proc/PID/stat; empty for a process that is not there.
fn start_time(pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_whitespace().nth(19).unwrap_or("").to_owned()
}
