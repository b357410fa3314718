//! The agent: a ledger that outlives it, a memory that does not, and the real `step` between them.

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
    BootId, ClusterId, InstanceId, Millis, NodeId, ServiceKey, Timestamp,
    assignment::{Assigned, Assignment},
    instance::Attempts,
    observation::{Exit, Observation},
    spec::Workload,
};
use rand::rngs::StdRng;

use crate::{machine::Machine, play::Out, shape::name, truth::Truth};

/// A sign of life, and the look that finds what no event told of.
const HEARTBEAT: Millis = Millis(1_000);
/// After its start the agent has looked at everything.
const FIRST_LOOK: Millis = Millis(40);
/// Few, so that a port that is free is soon somebody else's.
const PORTS: std::ops::Range<u16> = 31_000..31_012;

pub struct Agent {
    pub ledger: Ledger,
    memory: Option<Memory>,
    epoch: u64,
    boot: u64,
    operations: u64,
    told: u64,
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
    pub installed: bool,
    pub attempts: Attempts,
    pub port: Option<u16>,
    pub pid: Option<u32>,
    pub started: Option<Timestamp>,
    pub ready: bool,
    pub last_exit: Option<Exit>,
    /// `current` has been switched to it, so that a `current` elsewhere is drift.
    pub switched: bool,
}

struct Memory {
    since: Timestamp,
    health: BTreeMap<InstanceId, Health>,
    busy: BTreeMap<InstanceId, Doing>,
    steps: BTreeMap<InstanceId, Step>,
    sent: Option<(Timestamp, Arc<Observation>)>,
    next_look: Option<Timestamp>,
}

#[derive(Clone)]
struct Doing {
    serial: u64,
    busy: Busy,
    attempts: Attempts,
    /// Goes on when its process has ended.
    awaits_end: bool,
}

/// What the agent may touch and where it notes what it did.
pub struct Around<'a> {
    pub machine: &'a mut Machine,
    pub truth: &'a mut Truth,
    pub now: Timestamp,
    pub rng: &'a mut StdRng,
    pub out: &'a mut Vec<Out>,
}

pub fn node_id() -> NodeId {
    name("local")
}

pub fn cluster_id() -> ClusterId {
    name("cluster01")
}

impl Agent {
    pub fn new() -> Self {
        Self { ledger: Ledger::default(), memory: None, epoch: 0, boot: 0, operations: 0, told: 0 }
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

    fn boot_id(&self) -> BootId {
        name(&format!("boot-{}", self.boot))
    }

    /// Takes an assignment, or refuses it.
    pub fn offered(&mut self, assignment: Arc<Assignment>, around: &mut Around<'_>) {
        if self.memory.is_none() || ledger::is_for(&cluster_id(), &node_id(), &assignment).is_err() {
            return;
        }
        let held = self.ledger.accepted.clone();
        let (cluster, node) = (cluster_id(), node_id());
        let holds = held.as_ref().map(|held| Held { cluster: &cluster, node: &node, stamp: &held.stamp });
        let same = || held.as_ref().is_some_and(|held| **held == *assignment);
        if let Ok(Accepted::Newer) = ledger::accept(holds, &assignment, same) {
            around.truth.accepted(around.now, &assignment.stamp);
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
    entry.port.map(|port| format!("127.0.0.1:{port}"))
}
