//! A program that fetches or builds, run to its end: what it says line by line, bounded in time and in length.
//!
//! It has a process group of its own, which ends when nobody waits for it any more.

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{io::AsyncReadExt, net::unix::pipe, process::Command, time::timeout};

use crate::cli::text;

/// Lines that are kept for the message of a failure.
const LAST: usize = 20;
/// Of a line that is kept, in characters.
const MAX_LAST: usize = 200;
/// What a pipe holds.
const PIPE: usize = 64 << 10;
/// A longer line is told in pieces.
const MAX_LINE: usize = 4096;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{program} cannot be started: {source}")]
    Start { program: String, source: io::Error },
    #[error("{program} did not end within {} s", .within.as_secs())]
    Late { program: String, within: Duration, last: Vec<String> },
    #[error("{program} ended with {}", how(.status))]
    Failed { program: String, status: ExitStatus, last: Vec<String> },
}

impl Error {
    /// Whether the program is not installed.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Start { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// The last lines that it said, escaped for a terminal.
    pub fn last(&self) -> &[String] {
        match self {
            Self::Start { .. } => &[],
            Self::Late { last, .. } | Self::Failed { last, .. } => last,
        }
    }
}

fn how(status: &ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Ends a process group unless its leader has been waited for.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Runs `command`, called `program` in messages, and tells each line of its output, escaped for a terminal. What it
/// leaves running in the background is neither waited for nor ended.
pub async fn run(
    program: &str,
    mut command: Command,
    within: Duration,
    tell: &mut (dyn FnMut(&str) + Send),
) -> Result<(), Error> {
    let start = |source| Error::Start { program: program.into(), source };
    let (reader, writer) = io::pipe().map_err(start)?;
    command.stdin(Stdio::null()).stdout(writer.try_clone().map_err(start)?).stderr(writer);
    command.process_group(0);
    let mut child = command.spawn().map_err(start)?;
    // The command holds the ends that the child writes to.
    drop(command);
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let mut output = pipe::Receiver::from_owned_fd(OwnedFd::from(reader)).map_err(start)?;
    let mut lines = Lines::new(tell);
    let ended = timeout(within, async {
        let mut chunk = [0; 8192];
        loop {
            tokio::select! {
                biased;
                ended = child.wait() => {
                    // What it wrote itself is in the pipe; what it has left behind may write for ever.
                    for _ in 0..PIPE / chunk.len() {
                        match output.try_read(&mut chunk) {
                            Ok(n @ 1..) => lines.take(&chunk[..n]),
                            Ok(0) | Err(_) => break,
                        }
                    }
                    return ended;
                }
                read = output.read(&mut chunk) => match read {
                    Ok(0) | Err(_) => return child.wait().await,
                    Ok(n) => lines.take(&chunk[..n]),
                },
            }
        }
    });
    let ended = ended.await;
    lines.end();
    let program = program.to_owned();
    match ended {
        Err(_) => Err(Error::Late { program, within, last: lines.last.into() }),
        Ok(Err(source)) => Err(Error::Start { program, source }),
        Ok(Ok(status)) => {
            group.0 = None;
            if status.success() {
                return Ok(());
            }
            Err(Error::Failed { program, status, last: lines.last.into() })
        }
    }
}

/// As much of a line as can be read at a glance.
fn shortened(line: String) -> String {
    match line.char_indices().nth(MAX_LAST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Bytes as they come, told as lines.
struct Lines<'a> {
    tell: &'a mut (dyn FnMut(&str) + Send),
    begun: Vec<u8>,
    last: VecDeque<String>,
}

impl<'a> Lines<'a> {
    fn new(tell: &'a mut (dyn FnMut(&str) + Send)) -> Self {
        Self { tell, begun: Vec::new(), last: VecDeque::new() }
    }

    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                // A program that draws its progress over the same line again.
                b'\n' | b'\r' => self.end(),
                byte => {
                    self.begun.push(*byte);
                    if self.begun.len() >= MAX_LINE {
                        self.end();
                    }
                }
            }
        }
    }

    fn end(&mut self) {
        if self.begun.is_empty() {
            return;
        }
        let line = text::log_line(&std::mem::take(&mut self.begun));
        (self.tell)(&line);
        if self.last.len() == LAST {
            self.last.pop_front();
        }
        self.last.push_back(shortened(line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    async fn told(script: &str, within: Duration) -> (Result<(), Error>, Vec<String>) {
        let mut lines = Vec::new();
        let ended = run("it", sh(script), within, &mut |line| lines.push(line.to_owned())).await;
        (ended, lines)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn what_it_says_is_told_in_order_escaped_and_in_pieces() {
        let (ended, lines) = told("echo a; echo b >&2; printf '\\033[31mc'; exit 0", LONG).await;
        assert!(ended.is_ok());
        assert_eq!(lines, ["a", "b", "\\x1b[31mc"]);
        let (_, lines) = told("head -c 10000 /dev/zero | tr '\\0' x", LONG).await;
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [4096, 4096, 1808]);
    }

    #[tokio::test]
    async fn a_failure_says_how_and_the_last_lines() {
        let (ended, _) = told("for i in $(seq 30); do echo line $i; done; exit 3", LONG).await;
        let error = ended.unwrap_err();
        assert_eq!(error.to_string(), "it ended with exit code 3");
        assert_eq!((error.last().len(), error.last()[0].as_str()), (20, "line 11"));
        let absent = run("it", Command::new("/no/such"), LONG, &mut |_| {}).await.unwrap_err();
        assert!(absent.is_absence());
    }

    #[tokio::test]
    async fn what_does_not_end_is_ended_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", file.display());
        let mut silent = |_: &str| {};
        let running = run("it", sh(&script), LONG, &mut silent);
        let written = async {
            loop {
                match std::fs::read_to_string(&file) {
                    Ok(pid) if pid.ends_with('\n') => return pid.trim().parse::<i32>().unwrap(),
                    _ => tokio::task::yield_now().await,
                }
            }
        };
        let sleeper = tokio::select! { ended = running => panic!("{ended:?}"), pid = written => pid };
        let gone = async {
            let stat = format!("/proc/{sleeper}/stat");
            // One that nobody has waited for yet is dead as well.
            while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, gone).await.unwrap();
        let (late, _) = told("echo begun; sleep 600", Duration::from_millis(300)).await;
        assert!(matches!(&late, Err(Error::Late { last, .. }) if last == &["begun"]), "{late:?}");
    }

    #[tokio::test]
    async fn what_it_leaves_behind_is_not_waited_for() {
        let (ended, lines) = told("sleep 600 & echo $!", LONG).await;
        assert!(ended.is_ok());
        // Nor one that says more than anybody can read.
        let (ended, chatty) = told("yes & echo $! > /dev/stderr; sleep 0.1", LONG).await;
        assert!(ended.is_ok());
        let chatty = chatty.iter().find_map(|line| line.parse().ok()).unwrap();
        rustix::process::kill_process(Pid::from_raw(chatty).unwrap(), Signal::KILL).unwrap();
        let left = Pid::from_raw(lines[0].parse().unwrap()).unwrap();
        rustix::process::kill_process(left, Signal::KILL).unwrap();
    }
}
