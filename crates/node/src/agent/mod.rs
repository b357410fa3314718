//! One task owns the node's state. Whatever happens comes to it as an event; for the instances that it touches,
//! `decide::node::step` says what to do, a task of its own does it, and its end is an event again.

mod adopt;
mod apply;
mod compare;
mod container_job;
mod containers;
mod deeds;
mod ending;
mod engine;
mod hints;
mod job;
mod logs;
mod operate;
mod outcome;
mod probing;
mod sessions;
mod strangers;
mod tell;
mod volumes;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use content::Blobs;
use decide::health::Purpose;
use model::{
    InstanceId, Timestamp,
    assignment::{Assignment, Stamp},
    observation::{Copied, Exit, Stranger},
    spec::Check,
};
use sys::PidFd;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

use self::containers::{Look, Repair};
pub use self::logs::LogSource;
pub use self::tell::{EndpointSink, Outside};
use crate::{
    clock::Clock,
    config::Config,
    container::{
        Engine, Record, Seen, ask::Listed, collect::Marked, engine::Error as EngineError, look::Machine,
        registry::Progress, watch::News,
    },
    content_source::ContentSource,
    instance::{Instance, Run},
    logs::Kept,
    probe::Target,
    process::{
        orphans::Orphan,
        ports::Ports,
        start::{self, Prepared, Surroundings},
    },
    publish::Publisher,
    session::{self, Measured},
    site,
    timers::Timers,
    watching::Watching,
};

/// Events waiting for the agent. Senders wait when it is full.
const QUEUE: usize = 4096;
/// Events taken before anything else is looked at.
const BATCH: usize = 256;
/// So many files are looked at in passing; more of them are worth a thread.
const FEW_LOOKS: usize = 64;
/// Operations on files at once: more would only make the disk seek.
const FILE_OPERATIONS: usize = 4;

/// What callers ask for.
pub enum Command {
    Apply(Arc<Assignment>, oneshot::Sender<()>),
    Look(oneshot::Sender<()>),
    Log(InstanceId, oneshot::Sender<Option<LogSource>>),
    /// Where a command for an instance runs.
    Inside(InstanceId, oneshot::Sender<Result<Target, session::Error>>),
    /// Which of these instances run, and as what.
    Running(Vec<InstanceId>, oneshot::Sender<Vec<Measured>>),
    Shutdown(Workloads, oneshot::Sender<()>),
}

/// What becomes of the workloads when the node ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workloads {
    /// They are ended in order; the next start of Setpoint starts them without counting an attempt.
    Stop,
    /// They run on and are adopted at the next start.
    Keep,
}

/// What happened.
pub(crate) enum Event {
    Ended {
        id: InstanceId,
        run: u64,
        exit: Exit,
    },
    Probed {
        id: InstanceId,
        run: u64,
        check: Check,
        purposes: Vec<Purpose>,
        result: Result<(), String>,
        at: Timestamp,
    },
    /// A probe could not be made, and is tried again.
    NotProbed {
        id: InstanceId,
        run: u64,
        check: Check,
        message: String,
    },
    Copied {
        id: InstanceId,
        copied: Copied,
    },
    Done {
        id: InstanceId,
        outcome: Outcome,
    },
    Compared {
        id: InstanceId,
        view: Result<site::View, String>,
    },
    /// These paths may have changed.
    Hint {
        paths: Vec<PathBuf>,
        everything: bool,
    },
    /// So many bytes were taken off the front of an output file.
    LogCut {
        id: InstanceId,
        bytes: u64,
    },
    FilesLooked {
        changed: Vec<InstanceId>,
    },
    /// A pull goes on.
    Pulled {
        id: InstanceId,
        copied: Copied,
        progress: Progress,
    },
    Engine(News),
    Machine(Machine),
    /// When the engine began, if it can tell.
    EngineBegan(Option<Timestamp>),
    /// All containers with our marks.
    Listed(Result<Vec<Listed>, EngineError>),
    LookedAt {
        id: InstanceId,
        /// The container that was asked about.
        container: Option<String>,
        look: Result<Option<Box<Look>>, EngineError>,
    },
    /// Its first process ended, and its engine does not say how.
    Lost {
        id: InstanceId,
        run: u64,
        cause: String,
    },
    /// The volumes with data of ours that are not there.
    VolumesLooked(Result<BTreeSet<String>, String>),
    /// The networks and volumes with our marks that are in no ledger.
    StrangeThings(Result<Vec<Marked>, String>),
    LogsLooked,
    /// What a container said last before this run ended.
    LastLines {
        id: InstanceId,
        run: u64,
        lines: Vec<String>,
    },
}

/// How an operation ended. Failures are sentences for people.
pub(crate) enum Outcome {
    Installed(Result<Option<site::View>, String>),
    Updated(Result<site::View, String>),
    Repaired(Repair),
    Made(Result<Box<Record>, StartFailure>),
    Started(Result<Launched, StartFailure>),
    Deleted(Result<(), String>),
    /// Ended because the node ends.
    Stopped(Result<(), String>),
}

/// Something that runs.
#[derive(Debug)]
pub(crate) enum Launched {
    Process { pidfd: PidFd, identity: sys::Identity, prepared: Arc<Prepared>, began: Timestamp },
    Container(Box<Started>),
}

/// A container that was started, as it was seen right after.
#[derive(Debug)]
pub(crate) struct Started {
    pub record: Record,
    pub seen: Seen,
    pub began: Timestamp,
}

#[derive(Debug)]
pub(crate) struct StartFailure {
    pub message: String,
    pub kind: FailureKind,
    /// What the ledger holds of the container, as far as it came.
    pub record: Option<Box<Record>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// It counts as an attempt.
    Ordinary,
    /// The engine does not answer: nothing is known, and nothing counts.
    Away,
    /// Somebody else holds its port.
    PortTaken,
    /// Something else is in the way, and no fault of its own: it is waited for.
    Prevented,
    /// A volume that had data is not there: it is waited for.
    VolumeGone,
    /// What ran before could not be ended: it lives on.
    LivesOn,
}

impl StartFailure {
    pub(crate) fn ordinary(message: String) -> Self {
        Self { message, kind: FailureKind::Ordinary, record: None }
    }
}

impl From<start::Error> for StartFailure {
    fn from(error: start::Error) -> Self {
        Self::ordinary(error.to_string())
    }
}

/// What tasks need of the node; shared and unchanging.
#[derive(Debug)]
pub(crate) struct Context {
    pub config: Config,
    pub clock: Arc<dyn Clock>,
    pub content: Arc<dyn ContentSource>,
    pub blobs: Blobs,
    pub surroundings: Surroundings,
    pub outside: Outside,
    pub kept: Kept,
    pub files: Semaphore,
    pub engine: Arc<Engine>,
    /// Rung when an operation found the engine away.
    pub doubt: Arc<Notify>,
    pub events: mpsc::Sender<Event>,
}

impl Context {
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn instances(&self) -> PathBuf {
        self.config.data.join("instances")
    }
}

pub(crate) struct Agent {
    cx: Arc<Context>,
    instances: BTreeMap<InstanceId, Instance>,
    /// Folders that no assignment is known to cover: reported, never removed.
    unclaimed: BTreeMap<InstanceId, Stranger>,
    strange: Vec<Stranger>,
    strangers: strangers::Strangers,
    /// Whose each container is, by the id that its engine knows.
    containers: BTreeMap<String, InstanceId>,
    engine: engine::View,
    /// Processes whose ledger was lost: taken over when an assignment names them.
    orphans: BTreeMap<InstanceId, Orphan>,
    accepted: Option<Stamp>,
    timers: Timers,
    ports: Ports,
    publisher: Publisher,
    watching: Watching,
    /// Which sites a watched folder belongs to.
    places: BTreeMap<PathBuf, BTreeSet<InstanceId>>,
    log_cuts: BTreeMap<InstanceId, u64>,
    looking_at_files: bool,
    /// Some process may have rendered files to be looked at.
    rendered: bool,
    file_looks: Arc<compare::Looks>,
    looking_at_logs: bool,
    /// Some output grew by a multiple of its limit between two looks.
    writes_fast: bool,
    /// Instance folders whose claim was written and may not be on the disk yet.
    unsynced: BTreeSet<PathBuf>,
    syncing: Arc<std::sync::atomic::AtomicBool>,
    events: mpsc::Receiver<Event>,
    commands: mpsc::Receiver<Command>,
    ending: Option<(Workloads, oneshot::Sender<()>)>,
}

impl Agent {
    /// Whether something of ours lives already, or may.
    pub fn holds_living(&self) -> bool {
        let lives = |instance: &Instance| match &instance.run {
            Run::Alive { .. } => true,
            // Of a container that was never made there is nothing that could.
            Run::Unknown { .. } => instance.record().is_none_or(|record| record.id.is_some()),
            Run::NotStarted | Run::Ended { .. } => false,
        };
        self.instances.values().any(lives)
    }

    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// Runs until it is shut down or nobody holds the node any more. Workloads live on unless told otherwise.
    pub async fn run(mut self) {
        self.name_former_webroots();
        self.listen_to_known_engine();
        let mut full = every(self.cx.config.check_interval);
        let mut files = every(self.cx.config.files_interval);
        let mut logs = every(self.cx.config.logs.interval);
        let mut life = every(self.cx.config.sign_of_life);
        loop {
            self.ring_timers();
            self.judge_completeness();
            if self.publisher.wait().is_some_and(|wait| wait.is_zero()) {
                self.publisher.publish(self.cx.now());
            }
            if self.is_over() {
                break;
            }
            if std::mem::take(&mut self.writes_fast) {
                logs.reset_after(self.cx.config.logs.interval / 10);
            }
            let wake = self.wake_in();
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => self.take_events(event),
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => break,
                },
                () = tokio::time::sleep(wake) => {}
                _ = full.tick() => self.full_pass(),
                _ = files.tick(), if self.rendered || !self.unsynced.is_empty() => {
                    self.look_at_files();
                    self.sync_ledger();
                }
                _ = logs.tick() => self.look_at_logs(),
                _ = life.tick() => self.publisher.touch(),
            }
        }
        self.end();
    }

    fn take_events(&mut self, first: Event) {
        self.handle(first);
        for _ in 1..BATCH {
            match self.events.try_recv() {
                Ok(event) => self.handle(event),
                Err(_) => break,
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Ended { id, run, exit } => self.ended(&id, run, exit),
            Event::Probed { id, run, check, purposes, result, at } => {
                self.probed(&id, run, &check, &purposes, result, at);
            }
            Event::NotProbed { id, run, check, message } => self.not_probed(&id, run, check, message),
            Event::Copied { id, copied } => self.copied(&id, copied),
            Event::Done { id, outcome } => self.done(&id, outcome),
            Event::Compared { id, view } => self.compared(&id, view),
            Event::Hint { paths, everything } => self.hinted(&paths, everything),
            Event::LogCut { id, bytes } => {
                self.writes_fast |= bytes > 2 * self.cx.config.logs.bytes;
                *self.log_cuts.entry(id).or_default() += bytes;
            }
            Event::FilesLooked { changed } => self.files_looked(&changed),
            Event::VolumesLooked(missing) => self.volumes_looked(missing),
            Event::StrangeThings(found) => self.strange_things(found),
            Event::LogsLooked => self.looking_at_logs = false,
            Event::Pulled { id, copied, progress } => self.pulled(&id, copied, &progress),
            Event::Engine(news) => self.engine_news(news),
            Event::Machine(machine) => self.engine.machine = machine,
            Event::EngineBegan(began) => self.engine_began(began),
            Event::Listed(listed) => self.listed(listed),
            Event::LookedAt { id, container, look } => self.looked_at(&id, container.as_deref(), look),
            Event::Lost { id, run, cause } => self.lost(&id, run, cause),
            Event::LastLines { id, run, lines } => self.last_lines_told(&id, run, lines),
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Apply(assignment, done) => {
                self.apply(&assignment);
                let _ = done.send(());
            }
            Command::Look(done) => {
                self.look_closely();
                self.full_pass();
                let _ = done.send(());
            }
            Command::Log(id, answer) => {
                let _ = answer.send(self.log_source(&id));
            }
            Command::Inside(id, answer) => {
                let _ = answer.send(self.inside(&id));
            }
            Command::Running(ids, answer) => {
                let _ = answer.send(ids.iter().filter_map(|id| self.measured(id)).collect());
            }
            Command::Shutdown(workloads, done) => self.shut_down(workloads, done),
        }
    }

    fn ring_timers(&mut self) {
        let now = self.cx.now();
        while let Some(id) = self.timers.pop(now) {
            self.touch(&id);
        }
    }

    fn wake_in(&self) -> Duration {
        let now = self.cx.now();
        let timer = self.timers.next().map(|at| at.since(now).as_duration());
        let longest = Duration::from_secs(60);
        timer.into_iter().chain(self.publisher.wait()).min().unwrap_or(longest).min(longest)
    }

    /// Asks what to do about one instance, says how it is, and begins what is to be done.
    fn touch(&mut self, id: &InstanceId) {
        let now = self.cx.now();
        let Some(instance) = self.instances.get_mut(id) else { return };
        if self.ending.is_some() {
            return Self::rest(&self.cx, instance, &mut self.publisher, now);
        }
        let step = instance.step(now);
        let look = instance.next_network_look();
        let later = look.filter(|at| *at > now);
        let wakes = [step.wake_at, Self::probe(&self.cx, instance, now), instance.next_repair(now), later];
        let wake = wakes.into_iter().flatten().min();
        instance.wake_at = wake;
        self.timers.set(id, wake);
        Self::tell(&self.cx, instance, &step, &mut self.publisher, now);
        if look.is_some() && later.is_none() {
            instance.looks_for_network(now);
            self.look_at_container(id, false);
        }
        self.operate(id, step.operation, now);
    }

    /// While the node ends, nothing more is begun; what is there is still told.
    fn rest(cx: &Context, instance: &mut Instance, publisher: &mut Publisher, now: Timestamp) {
        let step = instance.step(now);
        Self::tell(cx, instance, &step, publisher, now);
    }

    /// Incomplete until every instance of the ledger has been looked at once.
    fn judge_completeness(&mut self) {
        if !self.publisher.is_complete()
            && self.instances.values().all(|i| i.site.is_none() || i.check.done || i.busy.is_some())
        {
            self.publisher.complete(true);
        }
    }

    fn full_pass(&mut self) {
        self.read_unknown_again();
        self.list_containers();
        let ids: Vec<_> = self.instances.keys().cloned().collect();
        for id in &ids {
            // Containers are looked at where the list shows something new.
            if self.instances.get(id).is_some_and(|instance| instance.held.is_none()) {
                self.compare(id, &[], true);
            }
            self.touch(id);
        }
        self.publisher.touch();
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}
