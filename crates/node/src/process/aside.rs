//! A command beside a process: with its env, in its folder, as its user, in a process group that ends with it.

use std::{io, os::unix::process::CommandExt, process::Stdio};

use tokio::process::{Child, Command};

use crate::probe::Target;

/// Why it could not be run.
#[derive(Debug)]
pub enum Failure {
    /// There is no such program, or it may not be run. A sentence.
    Program(String),
    Spawn(io::Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Program(message) => f.write_str(message),
            Self::Spawn(error) => write!(f, "it cannot be run: {error}"),
        }
    }
}

/// What reads and writes for the command.
pub struct Streams {
    pub stdin: Stdio,
    pub stdout: Stdio,
    pub stderr: Stdio,
}

/// Dropped, the whole group goes, not the command alone.
pub struct Aside {
    pub child: Child,
    _group: Option<Group>,
}

/// `words` are a program and its arguments.
pub fn spawn(target: &Target, words: &[String], streams: Streams) -> Result<Aside, Failure> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(Failure::Program("no command is given".into()));
    };
    let path = super::lookup::program(program, target.env.get("PATH").map(String::as_str))
        .map_err(|error| Failure::Program(error.to_string()))?;
    let mut command = std::process::Command::new(path);
    command
        .args(arguments)
        .env_clear()
        .envs(&target.env)
        .current_dir(&target.cwd)
        .stdin(streams.stdin)
        .stdout(streams.stdout)
        .stderr(streams.stderr)
        .process_group(0);
    if let Some((uid, gid)) = target.user {
        command.gid(gid).uid(uid);
    }
    let child = Command::from(command).spawn().map_err(Failure::Spawn)?;
    let group = child.id().and_then(Group::of);
    Ok(Aside { child, _group: group })
}

/// By its leader, as it was started: what has its number later is somebody else's.
struct Group(sys::Identity);

impl Group {
    /// Of a child that nobody has waited for: its number is its own.
    fn of(pid: u32) -> Option<Self> {
        let stat = sys::proc::stat(pid).ok()??;
        Some(Self(sys::Identity { pid, start: stat.start }))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // With or without its leader.
        let _ = sys::pidfd::kill_group(&self.0);
    }
}
