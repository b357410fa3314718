//! A command that was asked for inside a container, and its end.

use std::time::{Duration, Instant};

use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use sys::{Identity, PidFd};

use super::{
    engine::{Engine, Error, QUESTION},
    probe::Inside,
    watch,
};

/// An engine may close a command's output a moment before it knows how the command ended.
const KNOWN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Between looks at what does not end, or is not begun: the first minute, and later.
const SELDOM: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];
const FIRST: Duration = Duration::from_secs(60);
/// What an engine has not begun by then it never will.
const NEVER: Duration = Duration::from_secs(600);

/// A command that the engine was asked for. An engine lets it run on when nobody listens, so it is ended, where its
/// process is seen from here, as soon as nobody holds this value any more.
#[derive(Debug)]
pub struct Asked {
    inside: Inside,
    id: String,
    /// Whether anything of it may run that nobody else sees to.
    open: bool,
}

impl Asked {
    pub async fn create(inside: &Inside, options: CreateExecOptions<String>) -> Result<Self, Error> {
        let client = inside.engine.client().await?;
        let made = inside.engine.within(QUESTION, client.create_exec(&inside.container, options)).await?;
        Ok(Self { inside: inside.clone(), id: made.id, open: false })
    }

    /// The engine's name for it.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub async fn start(&mut self, options: StartExecOptions) -> Result<StartExecResults, Error> {
        let client = self.inside.engine.client().await?;
        // From here on the engine may begin it, whether or not it answers.
        self.open = true;
        let started = self.inside.engine.within(QUESTION, client.start_exec(&self.id, Some(options))).await;
        if let Err(Error::NotFound(_) | Error::Conflict(_)) = &started {
            self.open = false;
        }
        started
    }

    /// How it ended, once its output has; `None`: the engine does not tell.
    pub async fn exit_status(&mut self) -> Result<Option<i32>, Error> {
        let client = self.inside.engine.client().await?;
        let mut ended = None;
        let mut pause = LOOK_EVERY;
        loop {
            let asked = client.inspect_exec(&self.id);
            let seen = self.inside.engine.within(QUESTION, asked).await?;
            // It may have closed its output and go on.
            if seen.running != Some(true) {
                if let Some(code) = seen.exit_code {
                    self.open = false;
                    return Ok(i32::try_from(code).ok());
                }
                if ended.get_or_insert_with(Instant::now).elapsed() > KNOWN {
                    return Ok(None);
                }
                pause = LOOK_EVERY;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(SELDOM[0]);
        }
    }

    pub async fn look(&self) -> Seen {
        look(&self.inside.engine, &self.id).await
    }

    /// How long its process has run; `None`: it is not seen from here.
    pub fn age(&self, pid: u32) -> Option<Duration> {
        let process = Process::of(pid, &self.inside.container)?;
        Some(sys::clock::boottime().saturating_sub(sys::proc::since_boot(process.identity.start)))
    }

    /// Ends it, and waits for that as long as a question may take: the next one is not begun beside it.
    pub async fn end(mut self) {
        if self.open && self.inside.pid.is_some() {
            let ending = tokio::spawn(end(self.inside.clone(), self.id.clone()));
            self.open = false;
            let _ = tokio::time::timeout(QUESTION, ending).await;
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if self.open
            && self.inside.pid.is_some()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(end(self.inside.clone(), self.id.clone()));
        }
    }
}

/// An engine under load begins a command long after it was asked to, also one that nobody waits for any more: it is
/// looked at until nothing of it can run.
async fn end(inside: Inside, id: String) {
    let began = Instant::now();
    let mut process: Option<Process> = None;
    let mut pause = LOOK_EVERY;
    loop {
        match look(&inside.engine, &id).await {
            Seen::Ended(_) => return,
            Seen::Gone => {
                // An engine that was restarted has forgotten it, and it may live.
                process.inspect(Process::kill);
                return;
            }
            Seen::NotBegun | Seen::Untold if process.is_none() && began.elapsed() > NEVER => return,
            Seen::NotBegun | Seen::Untold => {}
            Seen::Runs(pid) => {
                // It enters its container a moment after it is there.
                process = process.or_else(|| Process::of(pid, &inside.container)).inspect(Process::kill);
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(SELDOM[usize::from(began.elapsed() > FIRST)]);
    }
}

/// What an engine tells of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It may have been asked to begin it, and may yet.
    NotBegun,
    /// Its process, by the number that the engine's machine gives it.
    Runs(u32),
    Ended(i64),
    /// The engine knows no such command: it went with its container, or the engine was restarted.
    Gone,
    /// The engine does not answer, or not in a way that tells.
    Untold,
}

async fn look(engine: &Engine, id: &str) -> Seen {
    let Ok(client) = engine.client().await else { return Seen::Untold };
    match engine.within(QUESTION, client.inspect_exec(id)).await {
        // It is said to run from when its start was asked for, and has a process later.
        Ok(seen) if seen.running == Some(true) => {
            let pid = seen.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
            pid.map_or(Seen::NotBegun, Seen::Runs)
        }
        Ok(seen) => seen.exit_code.map_or(Seen::NotBegun, Seen::Ended),
        Err(Error::NotFound(_)) => Seen::Gone,
        Err(_) => Seen::Untold,
    }
}

/// A command's first process, as it is seen from here.
#[derive(Debug)]
struct Process {
    handle: PidFd,
    identity: Identity,
    /// It leads a process group.
    leads: bool,
}

impl Process {
    fn of(pid: u32, container: &str) -> Option<Self> {
        let handle = watch::of_container(pid, container)?;
        let stat = sys::proc::stat(pid).ok()??;
        Some(Self { handle, identity: Identity { pid, start: stat.start }, leads: stat.group == pid })
    }

    /// With what it has started, unless that has left its group.
    fn kill(&self) {
        let _ = match self.leads {
            true => sys::pidfd::kill_group(&self.identity).map(drop),
            false => self.handle.signal(libc::SIGKILL),
        };
    }
}
