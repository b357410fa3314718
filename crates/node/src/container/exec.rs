//! A command that was asked for inside a container, and its end.

use std::time::Duration;

use bollard::exec::CreateExecOptions;

use super::{
    engine::{Engine, Error, QUESTION},
    probe::Inside,
    watch,
};

/// An engine may close a command's output a moment before it knows how the command ended.
const KNOWN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Of an engine that does not answer.
const LATER: Duration = Duration::from_secs(1);

/// A command that the engine was asked for. An engine lets it run on when nobody listens, so it is ended, where its
/// process is seen from here, as soon as nobody holds this value any more.
#[derive(Debug)]
pub struct Asked {
    inside: Inside,
    id: String,
    /// Nothing of it can run, or somebody sees to that.
    settled: bool,
}

impl Asked {
    /// It begins once it is started by its `id`.
    pub async fn create(inside: &Inside, options: CreateExecOptions<String>) -> Result<Self, Error> {
        let client = inside.engine.client().await?;
        let made = inside.engine.within(QUESTION, client.create_exec(&inside.container, options)).await?;
        Ok(Self { inside: inside.clone(), id: made.id, settled: false })
    }

    /// The engine's name for it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How it ended, once its output has; `None`: the engine does not tell.
    pub async fn exit_status(&mut self) -> Result<Option<i32>, Error> {
        let (engine, id) = (&self.inside.engine, &self.id);
        let client = engine.client().await?;
        let known = async {
            loop {
                let seen = engine.within(QUESTION, client.inspect_exec(id)).await?;
                if seen.running != Some(true)
                    && let Some(code) = seen.exit_code
                {
                    return Ok(i32::try_from(code).ok());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let status = tokio::time::timeout(KNOWN, known).await.unwrap_or(Ok(None));
        self.settled = matches!(status, Ok(Some(_)));
        status
    }

    /// Ends it, and waits for that as long as a question may take: the next one is not begun beside it. What was seen
    /// of it first.
    pub async fn end(mut self) -> Seen {
        let first = look(&self.inside.engine, &self.id).await;
        if self.inside.pid.is_some() {
            let ending = tokio::spawn(end(self.inside.clone(), self.id.clone(), first));
            self.settled = true;
            let _ = tokio::time::timeout(QUESTION, ending).await;
        }
        first
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.settled
            && self.inside.pid.is_some()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(end(self.inside.clone(), self.id.clone(), Seen::NotBegun));
        }
    }
}

/// An engine under load begins a command long after it was asked to, also one that nobody waits for any more: it is
/// looked at until nothing of it can run.
async fn end(inside: Inside, id: String, mut seen: Seen) {
    loop {
        let pause = match seen {
            Seen::Ended(_) | Seen::Gone => return,
            Seen::NotBegun => LOOK_EVERY,
            Seen::Untold => LATER,
            Seen::Runs(pid) => {
                // It enters its container a moment after it is there.
                if let Some(process) = pid.and_then(|pid| watch::of_container(pid, &inside.container)) {
                    let _ = process.signal(libc::SIGKILL);
                }
                LOOK_EVERY
            }
        };
        tokio::time::sleep(pause).await;
        seen = look(&inside.engine, &id).await;
    }
}

/// What an engine tells of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It has been asked to begin it, and may yet.
    NotBegun,
    /// Its process, by the engine's number.
    Runs(Option<u32>),
    Ended(i64),
    /// It went with its container.
    Gone,
    /// The engine does not answer.
    Untold,
}

async fn look(engine: &Engine, id: &str) -> Seen {
    let Ok(client) = engine.client().await else { return Seen::Untold };
    match engine.within(QUESTION, client.inspect_exec(id)).await {
        Ok(seen) if seen.running == Some(true) => {
            Seen::Runs(seen.pid.and_then(|pid| u32::try_from(pid).ok()))
        }
        Ok(seen) => seen.exit_code.map_or(Seen::NotBegun, Seen::Ended),
        Err(error) if error.is_away() => Seen::Untold,
        Err(_) => Seen::Gone,
    }
}
