//! A child behind its gate, with real processes.

#![expect(clippy::unwrap_used, reason = "a test's helpers end the test")]

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use sys::{Credentials, Ended, Identity, Limit, PidFd, Spawn, SpawnError, Stage, proc, spawn::Memory};

fn shell(script: &str, dir: &Path) -> Spawn {
    let output = OpenOptions::new().append(true).create(true).open(dir.join("out")).unwrap();
    Spawn {
        program: "/bin/sh".into(),
        argv: ["sh", "-c", script].map(Into::into).into(),
        env: vec![("GREETING".into(), "hello".into())],
        cwd: dir.into(),
        output: output.into(),
        user: None,
        limits: vec![],
        umask: 0o022,
    }
}

fn output(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("out")).unwrap()
}

/// Waits for a state, with a bound.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_released_child_runs_with_its_own_surroundings_and_its_exit_is_seen() {
    for memory in [Memory::Copied, Memory::Shared] {
        let dir = tempfile::tempdir().unwrap();
        let script = "echo $GREETING from $(pwd); env | grep -c .; ls /proc/self/fd; echo err >&2; exit 7";
        let gated = shell(script, dir.path()).spawn_with(memory).unwrap();
        let own_group = || proc::stat(gated.pid()).unwrap().unwrap().group == gated.pid();
        until("it has a group of its own", own_group);
        assert!(output(dir.path()).is_empty(), "nothing runs before the gate opens");
        let pidfd = gated.release().unwrap();
        assert_eq!(pidfd.reap_blocking().unwrap(), Some(Ended::Code(7)));
        let said = output(dir.path());
        assert!(said.starts_with(&format!("hello from {}\n", dir.path().display())), "{said}");
        // `ls` has 0, 1, 2 and the folder that it reads.
        assert!(said.contains("\n0\n1\n2\n3\nerr\n"), "{said}");
    }
}

#[test]
fn what_cannot_run_is_a_typed_error_and_leaves_no_process() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text");
    std::fs::write(&text, "#!/bin/sh\n").unwrap();
    type Case = (fn(&mut Spawn, PathBuf), Stage, i32);
    let cases: [Case; 4] = [
        (|s, _| s.program = "/nonexistent".into(), Stage::Exec, libc::ENOENT),
        (|s, text| s.program = text, Stage::Exec, libc::EACCES),
        (|s, _| s.cwd = "/nonexistent".into(), Stage::Cwd, libc::ENOENT),
        (|s, text| s.cwd = text, Stage::Cwd, libc::ENOTDIR),
    ];
    for (change, stage, errno) in cases {
        let mut spawn = shell("true", dir.path());
        change(&mut spawn, text.clone());
        let gated = spawn.spawn().unwrap();
        let pid = gated.pid();
        match gated.release() {
            Err(SpawnError::Child { stage: at, error }) => {
                assert_eq!((at, error.raw_os_error()), (stage, Some(errno)));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(proc::stat(pid).unwrap(), None, "reaped");
    }
}

#[test]
fn a_child_that_is_not_released_runs_nothing_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let gated = shell("echo ran", dir.path()).spawn().unwrap();
    let pid = gated.pid();
    drop(gated);
    assert_eq!(proc::stat(pid).unwrap(), None);
    assert_eq!(output(dir.path()), "");
}

/// Not a test of its own: the parent that the next test kills.
#[test]
fn parent_with_a_gated_child() {
    let Some(dir) = std::env::var_os("SETPOINT_TEST_GATED") else { return };
    let gated = shell("echo ran", Path::new(&dir)).spawn().unwrap();
    eprintln!("pid {}", gated.pid());
    std::thread::park();
}

#[test]
fn a_parent_killed_before_the_release_leaves_no_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["parent_with_a_gated_child", "--exact", "--nocapture"])
        .env("SETPOINT_TEST_GATED", dir.path())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(parent.stderr.take().unwrap()).lines().map_while(Result::ok);
    let pid: u32 = lines.find_map(|l| l.strip_prefix("pid ")?.parse().ok()).unwrap();
    assert!(proc::stat(pid).unwrap().is_some());
    parent.kill().unwrap();
    parent.wait().unwrap();
    until("the child is gone", || proc::stat(pid).unwrap().is_none_or(|s| s.zombie));
    assert_eq!(output(dir.path()), "", "it never ran");
}

#[test]
fn children_inherit_no_descriptor_and_no_ignored_signal() {
    let dir = tempfile::tempdir().unwrap();
    // Inheritable on purpose, as a careless library leaves it.
    let careless = File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&careless, rustix::io::FdFlags::empty()).unwrap();
    // Read by the shell itself: while it starts another program it blocks every signal for a moment.
    let masks =
        "while read -r line; do case $line in SigIgn*|SigBlk*) echo \"$line\";; esac; done </proc/$$/status";
    let pidfd = shell(&format!("ls /proc/$$/fd; {masks}"), dir.path()).spawn().unwrap().release().unwrap();
    assert_eq!(pidfd.reap_blocking().unwrap(), Some(Ended::Code(0)));
    let said = output(dir.path());
    assert!(said.starts_with("0\n1\n2\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"), "{said}");
}

#[test]
fn limits_and_another_user_are_the_childs_own() {
    let dir = tempfile::tempdir().unwrap();
    if !rustix::process::geteuid().is_root() {
        return; // Another user needs root.
    }
    let mut spawn = shell("id -u; id -g; id -G; ulimit -n; ulimit -d", dir.path());
    spawn.user = Some(Credentials { uid: 65534, gid: 65534, groups: vec![65534, 100] });
    spawn.limits = vec![Limit::Files { soft: 123, hard: 123 }, Limit::Data(64 << 20)];
    let pidfd = spawn.spawn().unwrap().release().unwrap();
    assert_eq!(pidfd.reap_blocking().unwrap(), Some(Ended::Code(0)));
    assert_eq!(output(dir.path()), "65534\n65534\n65534 100\n123\n65536\n");
    assert!(rustix::process::geteuid().is_root(), "ours is unchanged");
}

#[test]
fn a_group_is_killed_by_its_leaders_identity_only() {
    let dir = tempfile::tempdir().unwrap();
    let gated = shell("sleep 1000 & echo $!; exec sleep 1000", dir.path()).spawn().unwrap();
    let pid = gated.pid();
    let start = proc::stat(pid).unwrap().unwrap().start;
    let pidfd = gated.release().unwrap();
    until("it says its child", || output(dir.path()).ends_with('\n'));
    let second: u32 = output(dir.path()).trim().parse().unwrap();
    assert!(!sys::pidfd::kill_group(&Identity { pid, start: start + 1 }).unwrap(), "another one's pid");
    assert!(proc::stat(second).unwrap().is_some_and(|s| !s.zombie));
    assert_eq!(pidfd.peek().unwrap(), None);
    assert!(sys::pidfd::kill_group(&Identity { pid, start }).unwrap());
    assert_eq!(pidfd.reap_blocking().unwrap(), Some(Ended::Signal(libc::SIGKILL)));
    until("both are gone", || proc::stat(second).unwrap().is_none_or(|s| s.zombie));
}

#[test]
fn the_end_of_a_foreign_process_is_seen_and_its_status_is_unknown() {
    let mut child = Command::new("/bin/sh")
        .args(["-c", "read x; exec sleep 1000 & echo $!"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdin.take());
    let mut said = String::new();
    // The shell ends and its sleep becomes somebody else's child; the pipe stays open with it, so one line is read.
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
    child.wait().unwrap();
    let pid: u32 = said.trim().parse().unwrap();
    let foreign = PidFd::open(pid).unwrap();
    assert_eq!(foreign.peek().unwrap(), None);
    foreign.signal(libc::SIGKILL).unwrap();
    until("its end is seen", || foreign.reap().unwrap() == Some(Ended::Unknown));
}

#[test]
fn many_children_at_once_all_run() {
    let dir = tempfile::tempdir().unwrap();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let dir = dir.path().to_owned();
            std::thread::spawn(move || {
                for _ in 0..50 {
                    let pidfd = shell("echo x", &dir).spawn().unwrap().release().unwrap();
                    assert_eq!(pidfd.reap_blocking().unwrap(), Some(Ended::Code(0)));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    let mut said = String::new();
    File::open(dir.path().join("out")).unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said.lines().count(), 200);
}
