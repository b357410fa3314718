//! A container engine: it does what it is told, says so late or never, and is not the only one who acts on its
//! containers.
//!
//! Owns: containers and the engine's manners. Refuses to know: whose they should be; that is written in ledgers.

use std::collections::BTreeMap;

use model::{InstanceId, Millis, ReleaseDigest, Timestamp, observation::ExitStatus};
use rand::{Rng, rngs::StdRng};

use crate::{
    machine::EndReason,
    node::{Around, Happens, tell_to_end},
    play::Out,
    shape::Character,
};

pub type ContainerId = u64;

/// How long a question may take before whoever asks gives up, and how long work may.
pub const QUESTION: Millis = Millis(1_000);
pub const WORK: Millis = Millis(3_500);

/// That it answers again is known to its agent within this time.
const KNOWN_WITHIN: Millis = Millis(3_000);

#[derive(Default)]
pub struct Engine {
    pub containers: BTreeMap<ContainerId, Container>,
    pub daemon: Daemon,
    /// A stream of events ends with it.
    pub boot: u64,
    troubles: Vec<(Manner, Timestamp)>,
    began: Timestamp,
    /// It was killed, and left its containers alive that it will end when it is back.
    pub ends_first: bool,
    /// When it last began to answer as it should.
    back: Option<Timestamp>,
    /// Asked while it hung. It has read them all when it goes on, though nobody waits for the answers.
    pub unread: Vec<Call>,
    next: ContainerId,
    runs: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Daemon {
    #[default]
    Up,
    /// Told to end: it ends its containers first, and answers until it is done.
    Ending,
    Hangs,
    Down,
}

#[derive(Debug, Clone)]
pub struct Container {
    pub name: String,
    pub labels: Labels,
    pub release: ReleaseDigest,
    pub character: Character,
    pub port: Option<u16>,
    pub state: State,
    /// Which of all starts its present or last run was.
    pub started: u64,
    pub began: Timestamp,
    pub maker: Maker,
}

/// Anybody can give a container labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    pub instance: InstanceId,
    pub nonce: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Created,
    Running { pid: u32 },
    Paused { pid: u32 },
    Ended { status: ExitStatus, at: Timestamp },
}

/// The truth of whose it is; the engine does not know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    Agent,
    /// A ledger that named it is lost.
    Forgotten,
    Hand,
}

/// What an engine does for a while.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Manner {
    /// It does what it is told, and the answer is lost.
    Unanswered,
    /// It refuses, and does nothing.
    Refuses,
    /// Its list of all lacks some.
    PartialLists,
    NewsLate,
    NewsTwice,
    NewsLost,
}

impl Manner {
    pub const ALL: [Self; 6] = [
        Self::Unanswered,
        Self::Refuses,
        Self::PartialLists,
        Self::NewsLate,
        Self::NewsTwice,
        Self::NewsLost,
    ];
}

#[derive(Debug, Clone)]
pub enum Call {
    Ping,
    /// All that bear the cluster's mark.
    List,
    OfInstance(InstanceId),
    OfNonce(u64),
    Named(String),
    Inspect(ContainerId),
    Create(Box<Order>),
    Start(ContainerId),
    Stop(ContainerId, EndReason),
    Remove(ContainerId),
    /// Unpauses it and gives it its name back.
    Repair(ContainerId, String),
}

#[derive(Debug, Clone)]
pub struct Order {
    pub name: String,
    pub labels: Labels,
    pub release: ReleaseDigest,
    pub character: Character,
    pub port: Option<u16>,
}

#[derive(Debug, Clone)]
pub enum Answer {
    Done,
    /// It answers, and says by what it remembers when it began.
    Here {
        began: Timestamp,
    },
    Created(ContainerId),
    Listed(Vec<Seen>),
    Seen(Seen),
    NotFound,
    NameTaken,
    PortTaken,
    Refused,
    /// None came. What was asked may have been done.
    Away,
}

/// A container as the engine describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub id: ContainerId,
    pub name: String,
    pub labels: Labels,
    pub state: State,
    pub started: u64,
    pub began: Timestamp,
    pub port: Option<u16>,
}

impl Call {
    pub fn bound(&self) -> Millis {
        match self {
            Self::Ping
            | Self::List
            | Self::OfInstance(_)
            | Self::OfNonce(_)
            | Self::Named(_)
            | Self::Inspect(_)
            | Self::Repair(..) => QUESTION,
            Self::Create(_) | Self::Start(_) | Self::Stop(..) | Self::Remove(_) => WORK,
        }
    }
}

impl Container {
    pub fn pid(&self) -> Option<u32> {
        match self.state {
            State::Running { pid } | State::Paused { pid } => Some(pid),
            State::Created | State::Ended { .. } => None,
        }
    }
}

impl Engine {
    pub fn trouble(&mut self, manner: Manner, until: Timestamp) {
        self.troubles.push((manner, until));
    }

    pub fn heal(&mut self, now: Timestamp) {
        self.troubles.clear();
        self.back = Some(now);
    }

    /// Whether one that asks it from now on can tell by its beginning that an end was its own.
    pub fn explains(&self, ended: Timestamp) -> bool {
        self.daemon == Daemon::Down || ended <= self.began
    }

    pub fn begins(&mut self, now: Timestamp) {
        self.began = now;
        self.answers(now);
    }

    /// It answers from now on.
    pub fn answers(&mut self, now: Timestamp) {
        self.daemon = Daemon::Up;
        self.back = Some(now);
    }

    pub fn is_up(&self) -> bool {
        matches!(self.daemon, Daemon::Up | Daemon::Ending)
    }

    /// It does what it is told and says so.
    pub fn is_sound(&self, now: Timestamp) -> bool {
        self.daemon == Daemon::Up && !self.is_troubled(now)
    }

    /// Something is lost of what is said to it or by it.
    pub fn is_troubled(&self, now: Timestamp) -> bool {
        self.troubled_until() >= now
    }

    fn troubled_until(&self) -> Timestamp {
        self.troubles.iter().map(|(_, until)| *until).max().unwrap_or(Timestamp::ZERO)
    }

    /// Whether its agent may take it for away: it is, or was so shortly before.
    pub fn may_seem_away(&self, now: Timestamp) -> bool {
        let since = self.troubled_until().max(self.back.unwrap_or(Timestamp::ZERO));
        self.daemon != Daemon::Up || since + KNOWN_WITHIN > now
    }

    pub fn is(&self, manner: Manner, now: Timestamp) -> bool {
        self.troubles.iter().any(|(other, until)| *other == manner && *until > now)
    }

    /// With the ledger goes whose they were. What was asked and not read is asked by nobody.
    pub fn forgotten(&mut self) {
        self.unread.clear();
        for container in self.containers.values_mut().filter(|c| c.maker == Maker::Agent) {
            container.maker = Maker::Forgotten;
        }
    }

    fn seen(&self, id: ContainerId) -> Answer {
        self.containers.get(&id).map_or(Answer::NotFound, |found| Answer::Seen(describe(id, found)))
    }

    fn listed(&self, wanted: impl Fn(&Container) -> bool) -> Answer {
        let found = self.containers.iter().filter(|(_, container)| wanted(container));
        Answer::Listed(found.map(|(id, container)| describe(*id, container)).collect())
    }

    /// The list of all, whole or not.
    fn list(&self, now: Timestamp, rng: &mut StdRng) -> Answer {
        let partial = self.is(Manner::PartialLists, now);
        let Answer::Listed(mut all) = self.listed(|_| true) else { return Answer::Refused };
        all.retain(|_| !partial || rng.random_bool(0.5));
        Answer::Listed(all)
    }

    /// Does what it is told, and says how long that takes.
    pub fn perform(&mut self, call: &Call, around: &mut Around<'_>) -> (Answer, Millis) {
        let at_once = Millis(1);
        match call {
            Call::Ping => (Answer::Here { began: self.began }, at_once),
            Call::List => (self.list(around.now, around.rng), at_once),
            Call::OfInstance(id) => (self.listed(|c| c.labels.instance == *id), at_once),
            Call::OfNonce(nonce) => (self.listed(|c| c.labels.nonce == *nonce), at_once),
            Call::Named(name) => {
                let found = self.containers.iter().find(|(_, c)| c.name == *name).map(|(id, _)| *id);
                (found.map_or(Answer::NotFound, |id| self.seen(id)), at_once)
            }
            Call::Inspect(id) => (self.seen(*id), at_once),
            Call::Create(order) => (self.create(order, around), at_once),
            Call::Start(id) => (self.start(*id, around), at_once),
            Call::Stop(id, reason) => self.stop(*id, *reason, around),
            Call::Remove(id) => (self.remove(*id, around), at_once),
            Call::Repair(id, name) => (self.repair(*id, name, around), at_once),
        }
    }

    fn create(&mut self, order: &Order, around: &mut Around<'_>) -> Answer {
        if self.containers.values().any(|container| container.name == order.name) {
            return Answer::NameTaken;
        }
        around.out.push(Out::Trace(format!("engine makes {} nonce {}", order.name, order.labels.nonce)));
        let id = self.add(Container {
            name: order.name.clone(),
            labels: order.labels.clone(),
            release: order.release,
            character: order.character,
            port: order.port,
            state: State::Created,
            started: 0,
            began: around.now,
            maker: Maker::Agent,
        });
        around.out.push(Out::News(id));
        Answer::Created(id)
    }

    pub fn add(&mut self, container: Container) -> ContainerId {
        self.next += 1;
        self.containers.insert(self.next, container);
        self.next
    }

    fn start(&mut self, id: ContainerId, around: &mut Around<'_>) -> Answer {
        let Some(container) = self.containers.get(&id) else { return Answer::NotFound };
        if container.pid().is_some() {
            return Answer::Done;
        }
        if container.port.is_some_and(|port| around.machine.listener(port).is_some()) {
            return Answer::PortTaken;
        }
        let (instance, release, maker) =
            (container.labels.instance.clone(), container.release, container.maker);
        around.truth.owned(around.now, &instance, maker, "started");
        around.truth.started(around.now, &instance, release);
        self.run(id, around);
        Answer::Done
    }

    /// Begins a run, whoever wants it.
    pub fn run(&mut self, id: ContainerId, around: &mut Around<'_>) -> Option<u32> {
        self.runs += 1;
        let runs = self.runs;
        let container = self.containers.get_mut(&id)?;
        let (instance, release, character) =
            (container.labels.instance.clone(), container.release, container.character);
        let pid = around.machine.spawn(instance, release, character, container.port, around.now, around.rng);
        let process = around.machine.processes.get_mut(&pid)?;
        process.container = Some(id);
        let dies_at = process.dies_at;
        container.state = State::Running { pid };
        container.started = runs;
        container.began = around.now;
        around.out.push(Out::Trace(format!("engine starts {} pid {pid}", container.name)));
        around.out.push(Out::News(id));
        around.out.extend(dies_at.map(|at| Out::At(at, Happens::Dies { pid })));
        Some(pid)
    }

    fn stop(&mut self, id: ContainerId, reason: EndReason, around: &mut Around<'_>) -> (Answer, Millis) {
        let Some(container) = self.containers.get(&id) else { return (Answer::NotFound, Millis(1)) };
        let Some(pid) = container.pid() else { return (Answer::Done, Millis(1)) };
        around.truth.owned(around.now, &container.labels.instance, container.maker, "stopped");
        (Answer::Done, Millis(tell_to_end(pid, reason, around).0 + 2))
    }

    fn remove(&mut self, id: ContainerId, around: &mut Around<'_>) -> Answer {
        let Some(container) = self.containers.remove(&id) else { return Answer::NotFound };
        around.truth.owned(around.now, &container.labels.instance, container.maker, "removed");
        around.out.push(Out::Trace(format!("engine removes {}", container.name)));
        if let Some(pid) = container.pid() {
            if let Some(process) = around.machine.processes.get_mut(&pid) {
                process.told_to_end.get_or_insert(EndReason::Removed);
            }
            around.out.push(Out::Told { pid, reason: EndReason::Removed });
            around.out.push(Out::At(around.now, Happens::Dies { pid }));
        }
        around.out.push(Out::News(id));
        Answer::Done
    }

    fn repair(&mut self, id: ContainerId, name: &str, around: &mut Around<'_>) -> Answer {
        let taken = self.containers.iter().any(|(other, c)| *other != id && c.name == name);
        let Some(container) = self.containers.get_mut(&id) else { return Answer::NotFound };
        around.truth.owned(around.now, &container.labels.instance, container.maker, "repaired");
        if let State::Paused { pid } = container.state {
            container.state = State::Running { pid };
            if let Some(process) = around.machine.processes.get_mut(&pid) {
                process.frozen = false;
            }
        }
        if taken {
            return Answer::NameTaken;
        }
        container.name = name.into();
        self.seen(id)
    }

    /// The first process of a container has ended.
    pub fn ended(&mut self, id: ContainerId, pid: u32, status: ExitStatus, at: Timestamp) {
        if let Some(container) = self.containers.get_mut(&id).filter(|c| c.pid() == Some(pid)) {
            container.state = State::Ended { status, at };
        }
    }
}

fn describe(id: ContainerId, container: &Container) -> Seen {
    Seen {
        id,
        name: container.name.clone(),
        labels: container.labels.clone(),
        state: container.state,
        started: container.started,
        began: container.began,
        port: container.port,
    }
}
