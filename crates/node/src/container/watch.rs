//! What an engine says by itself, and the end of a container's first process, which the kernel says before the engine.
//!
//! Events only say where to look: what is lost of them is found by the next full list.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use bollard::{
    models::{EventMessage, EventMessageTypeEnum as Type},
    query_parameters::{EventsOptionsBuilder, WaitContainerOptionsBuilder},
};
use futures_util::StreamExt;
use model::{
    Timestamp,
    observation::{Exit, ExitStatus},
};
use sys::PidFd;
use tokio::{
    sync::{Notify, mpsc},
    task::AbortHandle,
};

use super::{
    ask,
    deeds::{Deed, Of},
    engine::{Engine, Error},
    look::{Seen, exit_status},
    names, notes,
};

/// Between looks whether an engine that is away is back; doubled up to the second.
const RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_secs(2);
/// While its stream is silent it is asked whether it is there: one that hangs cuts no stream.
const SILENCE: Duration = Duration::from_secs(10);
/// Between two events that an engine tells from memory.
const AT_ONCE: Duration = Duration::from_millis(30);
/// So many it remembers at most.
const REMEMBERED: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    Away {
        cause: String,
    },
    /// Connected, and from now on told of everything. What happened before is to be looked for.
    Back,
    Container {
        id: String,
        what: What,
        deed: Option<Deed>,
    },
    /// An image was removed or lost its name.
    Images {
        deed: Option<Deed>,
    },
    /// A volume was made, or removed at this time.
    Volume {
        name: String,
        removed: Option<Timestamp>,
    },
}

impl News {
    /// It says by what something was done, which nothing else tells.
    fn is_deed(&self) -> bool {
        match self {
            Self::Container { deed, .. } | Self::Images { deed } => deed.is_some(),
            Self::Volume { removed, .. } => removed.is_some(),
            Self::Away { .. } | Self::Back => false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Its first process ended. How, the engine says when it is asked: an event may be about a run before this one.
    Ended,
    /// Something about it is to be looked at.
    Changed,
    /// Nothing is to be looked at: what comes of it is told by itself.
    Asked,
    /// Somebody made one with labels like ours: of which installation and for which instance, it says.
    Made { cluster: String, instance: String },
}

/// Tells news of the engine for as long as somebody listens. `doubt` asks it to make sure at once.
///
/// What was heard last is noted in the node's folder `data`, so that what was done before a restart of the node is told too.
pub async fn run(engine: Arc<Engine>, data: PathBuf, doubt: Arc<Notify>, tell: mpsc::Sender<News>) {
    let mut heard = Heard::read(data);
    let mut pause = RETRY;
    loop {
        if let Err(error) = follow(&engine, &doubt, &tell, &mut pause, &mut heard).await {
            engine.forget();
            let cause = error.to_string();
            if tell.send(News::Away { cause }).await.is_err() {
                return;
            }
        }
        if tell.is_closed() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_RETRY);
    }
}

/// Up to which event the engine has been heard, by its own clock.
#[derive(Debug)]
struct Heard {
    data: PathBuf,
    nanos: Option<i64>,
}

impl Heard {
    fn read(data: PathBuf) -> Self {
        let nanos = notes::heard(&data).unwrap_or_else(|error| {
            tracing::warn!(%error, "what was done to containers before is not told");
            None
        });
        Self { data, nanos }
    }

    /// What says by whom something was done is asked for again if nobody heard it; of all else any number may be lost.
    fn note(&mut self, nanos: i64, is_deed: bool) {
        self.nanos = Some(nanos);
        if is_deed && let Err(error) = notes::note_heard(&self.data, nanos) {
            tracing::warn!(%error, "after a restart some of what was done to containers is told again");
        }
    }
}

async fn follow(
    engine: &Engine,
    doubt: &Notify,
    tell: &mpsc::Sender<News>,
    pause: &mut Duration,
    heard: &mut Heard,
) -> Result<(), Error> {
    let client = engine.client().await?;
    let mut options = EventsOptionsBuilder::default().filters(&filters());
    if let Some(last) = heard.nanos {
        // An engine remembers its newest events: they say when what was done meanwhile was done.
        options = options.since(&after(last));
    }
    let options = options.build();
    let mut events = Box::pin(client.events(Some(options)));
    // The stream is open before anything is listed, so that nothing falls between. It answers nothing before the first
    // event, so it is polled while the ping is under way.
    let mut first = None;
    tokio::select! {
        event = events.next() => first = Some(event),
        pong = engine.ping() => pong?,
    }
    *pause = RETRY;
    if let Some(event) = first
        && !pass_on(engine, event, tell, heard).await?
    {
        return Ok(());
    }
    if heard.nanos.is_none() {
        heard.note(now(), true);
    } else {
        // What it remembers comes at once: what was done meanwhile is known before it is looked what became of it.
        for _ in 0..REMEMBERED {
            let Ok(event) = tokio::time::timeout(AT_ONCE, events.next()).await else { break };
            if !pass_on(engine, event, tell, heard).await? {
                return Ok(());
            }
        }
    }
    if tell.send(News::Back).await.is_err() {
        return Ok(());
    }
    loop {
        let event = tokio::select! {
            next = events.next() => next,
            () = doubt.notified() => { engine.ping().await?; tell_back(tell).await; continue }
            () = tokio::time::sleep(SILENCE) => { engine.ping().await?; continue }
        };
        if !pass_on(engine, event, tell, heard).await? {
            return Ok(());
        }
    }
}

/// False: nobody listens any more.
async fn pass_on(
    engine: &Engine,
    event: Option<Result<EventMessage, bollard::errors::Error>>,
    tell: &mpsc::Sender<News>,
    heard: &mut Heard,
) -> Result<bool, Error> {
    let event = event.ok_or_else(|| engine.away("it ended its stream of events"))?;
    let event = event.map_err(|error| engine.error(error))?;
    let news = news(&event);
    let is_deed = news.as_ref().is_some_and(News::is_deed);
    if let Some(news) = news
        && tell.send(news).await.is_err()
    {
        return Ok(false);
    }
    if let Some(nanos) = event.time_nano {
        heard.note(nanos, is_deed);
    }
    Ok(true)
}

fn now() -> i64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or_default()
}

/// As an engine takes a time: the nanosecond after this one.
fn after(nanos: i64) -> String {
    let next = nanos + 1;
    format!("{}.{:09}", next / 1_000_000_000, next % 1_000_000_000)
}

/// Somebody doubted it, and it answers: what was given up meanwhile is looked at again.
async fn tell_back(tell: &mpsc::Sender<News>) {
    let _ = tell.send(News::Back).await;
}

fn filters() -> HashMap<&'static str, Vec<&'static str>> {
    // Commands run inside for probes make events of their own; they are not wanted.
    let events = vec![
        "create",
        "start",
        "die",
        "oom",
        "destroy",
        "pause",
        "unpause",
        "kill",
        "stop",
        "restart",
        "rename",
        "update",
        "health_status",
        "connect",
        "disconnect",
        "delete",
        "untag",
    ];
    HashMap::from([("type", vec!["container", "network", "image", "volume"]), ("event", events)])
}

fn news(event: &EventMessage) -> Option<News> {
    let actor = event.actor.as_ref()?;
    let attribute = |name: &str| actor.attributes.as_ref().and_then(|all| all.get(name)).map(String::as_str);
    let (typ, action) = (event.typ?, event.action.as_deref()?);
    let of = Of::of_event(typ, action, attribute("signal"));
    let deed = of.zip(time(event)).map(|(of, at)| Deed { action: action.to_owned(), at, of });
    if typ == Type::IMAGE {
        return matches!(action, "delete" | "untag").then_some(News::Images { deed });
    }
    let container = |id: &str, what| Some(News::Container { id: id.to_owned(), what, deed });
    match typ {
        Type::CONTAINER => match action {
            "die" => container(actor.id.as_deref()?, What::Ended),
            "kill" | "stop" | "restart" | "oom" => container(actor.id.as_deref()?, What::Asked),
            "create" => {
                let cluster = attribute(names::CLUSTER)?.to_owned();
                let instance = attribute(names::INSTANCE).unwrap_or_default().to_owned();
                container(actor.id.as_deref()?, What::Made { cluster, instance })
            }
            _ => container(actor.id.as_deref()?, What::Changed),
        },
        Type::NETWORK => container(attribute("container")?, What::Changed),
        Type::VOLUME => {
            let name = actor.id.clone().unwrap_or_default();
            let removed = time(event).filter(|_| action == "destroy");
            matches!(action, "create" | "destroy").then_some(News::Volume { name, removed })
        }
        _ => None,
    }
}

pub(super) fn time(event: &EventMessage) -> Option<Timestamp> {
    let millis = event.time_nano.map(|nanos| nanos / 1_000_000).or(event.time.map(|secs| secs * 1000))?;
    u64::try_from(millis).ok().map(Timestamp)
}

/// A container that runs. Dropped, it is watched no longer; it lives on.
#[derive(Debug)]
pub struct Watched {
    pub container: String,
    pub run: u64,
    watcher: Option<AbortHandle>,
}

impl Watched {
    /// `first` is called the moment the kernel says that the first process ended, and tells the time; `then` once the engine
    /// has said how, or that it does not answer.
    pub fn watch<Then: Future<Output = ()> + Send + 'static>(
        engine: Arc<Engine>,
        run: u64,
        seen: &Seen,
        first: impl FnOnce() -> Timestamp + Send + 'static,
        then: impl FnOnce(Result<Exit, Error>) -> Then + Send + 'static,
    ) -> Self {
        let container = seen.id.clone();
        let process = seen.pid.and_then(|pid| open(pid, &container));
        let limited = seen.limits.memory > 0;
        let watcher = process.map(|pidfd| {
            let id = container.clone();
            let watching = tokio::spawn(async move {
                if pidfd.readable().await.is_err() {
                    return std::future::pending().await;
                }
                let at = first();
                // For as long as it lives, what asks about its end takes no room.
                let ended = Box::pin(ended(&engine, &id, limited, at)).await;
                then(ended).await;
            });
            watching.abort_handle()
        });
        Self { container, run, watcher }
    }

    /// Whether its end is told by the kernel, whatever becomes of the engine.
    pub fn is_seen(&self) -> bool {
        self.watcher.is_some()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(watcher) = &self.watcher {
            watcher.abort();
        }
    }
}

/// The process, if it is certainly the container's: on another machine, or behind another kernel, the number means
/// somebody else. Opened first, compared after.
pub fn of_container(pid: u32, container: &str) -> Option<PidFd> {
    let pidfd = PidFd::open(pid).ok()?;
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    groups.contains(container).then_some(pidfd)
}

/// The same, to be waited for.
fn open(pid: u32, container: &str) -> Option<tokio::io::unix::AsyncFd<Arc<PidFd>>> {
    sys::ready::pidfd(Arc::new(of_container(pid, container)?)).ok()
}

/// Waits for the engine to have noticed. What had a limit of memory is asked whether that ended it: the next start
/// makes an engine forget. One that does not know it yet says so by an event.
async fn ended(engine: &Engine, container: &str, limited: bool, at: Timestamp) -> Result<Exit, Error> {
    let status = exit(engine, container).await?;
    let asked = limited && !matches!(status, ExitStatus::Code(0) | ExitStatus::Unknown);
    let seen = if asked { ask::inspect(engine, container).await.ok().flatten() } else { None };
    Ok(Exit { at, status, why: seen.and_then(|seen| seen.why_ended()) })
}

async fn exit(engine: &Engine, container: &str) -> Result<ExitStatus, Error> {
    const NOTICED: Duration = Duration::from_secs(30);
    let client = engine.client().await?;
    let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
    let mut waiting = Box::pin(client.wait_container(container, Some(options)));
    let answer = async {
        match waiting.next().await {
            Some(Ok(answer)) => Ok(answer.status_code),
            // Any other end than 0 is an error to the library.
            Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => Ok(code),
            Some(Err(error)) => Err(error),
            None => Err(bollard::errors::Error::RequestTimeoutError),
        }
    };
    match engine.within(NOTICED, answer).await {
        Ok(code) => Ok(i32::try_from(code).map_or(ExitStatus::Unknown, exit_status)),
        Err(Error::NotFound(_)) => Ok(ExitStatus::Unknown),
        Err(Error::Refused { .. } | Error::Conflict(_)) => Ok(ExitStatus::Unknown),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;

    use super::*;

    fn event(typ: Type, action: &str, id: &str, attributes: &[(&str, &str)]) -> EventMessage {
        let attributes = attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        EventMessage {
            typ: Some(typ),
            action: Some(action.into()),
            actor: Some(EventActor { id: Some(id.into()), attributes: Some(attributes) }),
            ..EventMessage::default()
        }
    }

    #[test]
    fn each_event_says_where_to_look() {
        let container = |what| Some(News::Container { id: "c".into(), what, deed: None });
        for (event, expected) in [
            (event(Type::CONTAINER, "die", "c", &[("exitCode", "137")]), container(What::Ended)),
            (event(Type::CONTAINER, "health_status: healthy", "c", &[]), container(What::Changed)),
            (
                event(
                    Type::CONTAINER,
                    "create",
                    "c",
                    &[("setpoint.cluster", "x"), ("setpoint.instance", "i")],
                ),
                container(What::Made { cluster: "x".into(), instance: "i".into() }),
            ),
            (event(Type::CONTAINER, "create", "c", &[]), None),
            (event(Type::NETWORK, "disconnect", "n", &[("container", "c")]), container(What::Changed)),
            (event(Type::IMAGE, "untag", "i", &[]), Some(News::Images { deed: None })),
            (
                event(Type::VOLUME, "destroy", "v", &[]),
                Some(News::Volume { name: "v".into(), removed: None }),
            ),
            (event(Type::VOLUME, "mount", "v", &[]), None),
        ] {
            assert_eq!(news(&event), expected);
        }
    }

    #[test]
    fn a_process_that_is_not_the_containers_is_not_watched() {
        assert!(open(std::process::id(), "no-such-container").is_none());
    }
}
