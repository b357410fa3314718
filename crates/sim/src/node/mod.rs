//! The agent: a ledger that outlives it, a memory that does not, and the real `step` between them.

mod container;
mod job;
mod look;
mod tell;
mod work;

use std::{collections::BTreeMap, sync::Arc};

use decide::{
    health::Health,
    ledger::{self, Accepted, Held},
    node::{Busy, Step},
};
use model::{
    BootId, ClusterId, InstanceId, Millis, NodeId, ReleaseDigest, ServiceKey, Timestamp,
    assignment::{Assigned, Assignment},
    instance::Attempts,
    observation::{Exit, Observation},
    spec::Workload,
};
use rand::rngs::StdRng;

pub use container::Record;
use container::{Asked, Contained, View};
use job::Asking;
pub use work::tell_to_end;

use crate::{
    engine::{Answer, Call, ContainerId},
    machine::Machine,
    play::Out,
    shape::name,
    truth::Truth,
};

/// A sign of life, and the look that finds what no event told of.
const HEARTBEAT: Millis = Millis(1_000);
/// After its start the agent has looked at everything.
const FIRST_LOOK: Millis = Millis(40);
/// Few, so that a port that is free is soon somebody else's; more than a machine ever has instances.
const PORTS: std::ops::Range<u16> = 31_000..31_040;

pub struct Agent {
    pub id: NodeId,
    pub ledger: Ledger,
    /// The first processes of containers are in this kernel, so that it tells their ends.
    sees_processes: bool,
    memory: Option<Memory>,
    epoch: u64,
    boot: u64,
    operations: u64,
    tickets: u64,
    told: u64,
}

/// What comes to an agent, or to its machine and engine.
#[derive(Debug, Clone)]
pub enum Happens {
    Up,
    Look {
        epoch: u64,
    },
    Done {
        epoch: u64,
        id: InstanceId,
        serial: u64,
    },
    Offered(Arc<Assignment>),
    Dies {
        pid: u32,
    },
    EngineUp,
    EngineGoesOn,
    /// It has ended its containers.
    EngineGoes {
        boot: u64,
        down: Millis,
    },
    /// The call is carried out now; nobody is told if its answer is lost.
    EngineDoes {
        epoch: u64,
        ticket: u64,
        call: Call,
        answers: bool,
    },
    EngineSays {
        epoch: u64,
        ticket: u64,
        answer: Answer,
    },
    EngineNews {
        epoch: u64,
        boot: u64,
        container: ContainerId,
        /// The run that it was asked to end.
        ends: Option<u64>,
    },
}

#[derive(Default)]
pub struct Ledger {
    /// Written down durably before anything is done by it.
    pub accepted: Option<Arc<Assignment>>,
    pub entries: BTreeMap<InstanceId, Entry>,
}

/// What must be remembered of an instance beyond the agent's life.
pub struct Entry {
    pub assigned: Arc<Assigned>,
    /// Where it is reached.
    pub node: NodeId,
    pub installed: bool,
    pub attempts: Attempts,
    /// The last one counted was for an install; its start is yet to come.
    pub granted: bool,
    pub port: Option<u16>,
    pub pid: Option<u32>,
    pub started: Option<Timestamp>,
    pub ready: bool,
    pub last_exit: Option<Exit>,
    /// Those of a container shortly before it.
    pub ends_before: Vec<Exit>,
    /// The run of a container whose end that is.
    pub ended_run: Option<u64>,
    /// `current` has been switched to it, so that a `current` elsewhere is drift.
    pub switched: bool,
    pub record: Option<Record>,
    /// It had a container before, so that one that merely bears its label is none.
    pub made_before: bool,
    /// It could not be made or started.
    pub failed: Option<(Timestamp, String)>,
}

struct Memory {
    since: Timestamp,
    health: BTreeMap<InstanceId, Health>,
    busy: BTreeMap<InstanceId, Doing>,
    steps: BTreeMap<InstanceId, Step>,
    sent: Option<(Timestamp, Arc<Observation>)>,
    next_look: Option<Timestamp>,
    held: BTreeMap<InstanceId, Contained>,
    engine: View,
    asked: BTreeMap<u64, Asked>,
}

#[derive(Clone)]
struct Doing {
    serial: u64,
    busy: Busy,
    /// Goes on when its process has ended.
    awaits_end: bool,
    /// What was asked of the engine last.
    asking: Option<Asking>,
}

/// What the agent may touch and where it notes what it did.
pub struct Around<'a> {
    pub machine: &'a mut Machine,
    pub truth: &'a mut Truth,
    pub now: Timestamp,
    pub rng: &'a mut StdRng,
    pub out: &'a mut Vec<Out>,
}

pub fn cluster_id() -> ClusterId {
    name("cluster01")
}

impl Agent {
    pub fn new(id: NodeId, sees_processes: bool) -> Self {
        Self {
            id,
            ledger: Ledger::default(),
            sees_processes,
            memory: None,
            epoch: 0,
            boot: 0,
            operations: 0,
            tickets: 0,
            told: 0,
        }
    }

    /// It is up, and the kernel tells it of the ends of containers.
    pub fn sees_processes(&self) -> bool {
        self.sees_processes && self.is_up()
    }

    /// It has been asked, and answers.
    pub fn knows_engine(&self) -> bool {
        self.memory.as_ref().is_some_and(|memory| memory.engine.is_known())
    }

    pub fn is_up(&self) -> bool {
        self.memory.is_some()
    }

    pub fn start(&mut self, around: &mut Around<'_>) {
        self.epoch += 1;
        self.memory = Some(Memory {
            since: around.now,
            health: BTreeMap::new(),
            busy: BTreeMap::new(),
            steps: BTreeMap::new(),
            sent: None,
            next_look: None,
            held: BTreeMap::new(),
            engine: View::default(),
            asked: BTreeMap::new(),
        });
        self.look_at(around.now, around);
    }

    /// Its memory is gone; the ledger and the processes live on.
    pub fn crash(&mut self) {
        self.memory = None;
        self.epoch += 1;
    }

    pub fn reboot(&mut self) {
        self.crash();
        self.boot += 1;
    }

    pub fn lose_ledger(&mut self) {
        self.crash();
        self.ledger = Ledger::default();
    }

    pub fn starts_under_way(&self) -> Vec<(InstanceId, ReleaseDigest)> {
        let busy = self.memory.iter().flat_map(|memory| &memory.busy);
        let starts = busy.filter(|(_, doing)| doing.busy == Busy::Starting);
        let release = |id| Some(self.ledger.entries.get(id)?.assigned.release);
        starts.filter_map(|(id, _)| Some((id.clone(), release(id)?))).collect()
    }

    fn boot_id(&self) -> BootId {
        name(&format!("boot-{}", self.boot))
    }

    /// Takes an assignment, or refuses it.
    pub fn offered(&mut self, assignment: Arc<Assignment>, around: &mut Around<'_>) {
        if self.memory.is_none() || ledger::is_for(&cluster_id(), &self.id, &assignment).is_err() {
            return;
        }
        let held = self.ledger.accepted.clone();
        let (cluster, node) = (cluster_id(), self.id.clone());
        let holds = held.as_ref().map(|held| Held { cluster: &cluster, node: &node, stamp: &held.stamp });
        let same = || held.as_ref().is_some_and(|held| **held == *assignment);
        if let Ok(Accepted::Newer) = ledger::accept(holds, &assignment, same) {
            around.truth.accepted(around.now, &self.id, &assignment.stamp);
            self.ledger.accepted = Some(assignment);
            self.look_at(around.now, around);
        }
    }

    pub fn nudge(&mut self, around: &mut Around<'_>) {
        self.look_at(around.now, around);
    }
}

pub fn folder(assigned: &Assigned) -> String {
    let InstanceId { service: ServiceKey { name, .. }, .. } = &assigned.id;
    match assigned.content.workload {
        Workload::Site(_) => format!("/sites/{name}/deployment-{}", assigned.deployment),
        Workload::Process(_) | Workload::Container(_) => format!("/instances/{}", assigned.id),
    }
}

fn is_site(entry: &Entry) -> bool {
    matches!(entry.assigned.content.workload, Workload::Site(_))
}

fn shows(entry: &Entry, machine: &Machine) -> bool {
    is_site(entry) && machine.links.get(&entry.assigned.id.service) == Some(&folder(&entry.assigned))
}

fn is_drifted(entry: &Entry, machine: &Machine) -> bool {
    let whole = machine.folders.get(&folder(&entry.assigned)).is_some_and(|f| f.complete && !f.damaged);
    let link_moved = entry.assigned.current && entry.switched && !shows(entry, machine);
    is_site(entry) && entry.installed && (!whole || link_moved)
}

fn address(entry: &Entry) -> Option<String> {
    entry.port.map(|port| format!("{}:{port}", entry.node))
}
