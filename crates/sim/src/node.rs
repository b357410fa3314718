//! The agent: a ledger that outlives it, a memory that does not, and the real `step` between them.

use std::{collections::BTreeMap, sync::Arc};

use decide::{
    health::Health,
    ledger::{self, Accepted, Held},
    node::{Busy, Install, Local, Operation, Run, Step, step},
};
use model::{
    BootId, ClusterId, InstanceId, Millis, NodeId, ServiceKey, Timestamp,
    assignment::{Assigned, Assignment},
    instance::Attempts,
    observation::{Exit, ExitStatus, InstanceReport, Observation},
    route::{EndpointEvent, EndpointHealth},
    spec::{Port, Workload},
};
use rand::{Rng, rngs::StdRng};

use crate::{
    machine::{EndReason, Machine},
    play::{Event, Out},
    shape::{Character, STOP_GRACE, name},
    truth::Truth,
};

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

    fn look_at(&mut self, at: Timestamp, around: &mut Around<'_>) {
        let Some(memory) = &mut self.memory else { return };
        if memory.next_look.is_none_or(|next| at < next) {
            memory.next_look = Some(at);
            around.out.push(Out::At(at, Event::NodeLook { epoch: self.epoch }));
        }
    }

    /// Looks at everything, does what is to be done, and tells.
    pub fn look(&mut self, epoch: u64, around: &mut Around<'_>) {
        let due = |m: &Memory| m.next_look.is_some_and(|at| at <= around.now);
        if epoch != self.epoch || !self.memory.as_ref().is_some_and(due) {
            return;
        }
        if let Some(memory) = &mut self.memory {
            memory.next_look = None;
        }
        self.enter_new(around);
        let ids: Vec<InstanceId> = self.ledger.entries.keys().cloned().collect();
        let mut wake = around.now + HEARTBEAT;
        for id in ids {
            if let Some(at) = self.look_at_one(&id, around) {
                wake = wake.min(at);
            }
        }
        self.tell(around);
        let soonest = around.now + Millis(1);
        self.look_at(wake.max(soonest), around);
    }

    /// What is assigned for the first time, and what a lost ledger had: the assignment counts as its entry.
    fn enter_new(&mut self, around: &mut Around<'_>) {
        let Some(accepted) = self.ledger.accepted.clone() else { return };
        for (id, assigned) in &accepted.instances {
            if let Some(entry) = self.ledger.entries.get_mut(id) {
                entry.assigned = Arc::clone(assigned);
                continue;
            }
            let pid = around.machine.marked(id);
            let process = pid.and_then(|pid| around.machine.processes.get(&pid));
            // A process found alive shows that it was installed; without one its port is to be given anew.
            let whole = around.machine.folders.get(&folder(assigned)).is_some_and(|folder| folder.complete);
            let is_site = matches!(assigned.content.workload, Workload::Site(_));
            let entry = Entry {
                assigned: Arc::clone(assigned),
                installed: if is_site { whole } else { process.is_some() },
                attempts: assigned.attempts.clone(),
                port: process.and_then(|process| process.port),
                started: process.map(|process| process.started),
                pid,
                ready: false,
                last_exit: None,
                switched: false,
            };
            self.ledger.entries.insert(id.clone(), entry);
        }
    }

    /// Decides one instance and begins what is to be done. Returns when it wants to be asked again.
    fn look_at_one(&mut self, id: &InstanceId, around: &mut Around<'_>) -> Option<Timestamp> {
        let accepted = self.ledger.accepted.clone()?;
        // What is held goes on by the assignment that it had.
        let held = || self.ledger.entries.get(id).map(|entry| Arc::clone(&entry.assigned));
        let is_held = accepted.held.contains(&id.service);
        let assigned = accepted.instances.get(id).cloned().or_else(|| held().filter(|_| is_held));
        let probed = self.watch(id, around);
        let local = self.local(id, around.machine)?;
        let next = step(assigned.as_deref(), &local, around.now);
        let wake = next.wake_at;
        let operation = next.operation.clone();
        self.memory.as_mut()?.steps.insert(id.clone(), next);
        if operation != Operation::Nothing {
            around.out.push(Out::Trace(format!("node {operation:?} {id}")));
            around.truth.operated(&id.service);
            self.begin(id, operation, around);
        }
        [wake, probed].into_iter().flatten().min()
    }

    /// What the agent knows of a process: its end, or its health by probes.
    fn watch(&mut self, id: &InstanceId, around: &mut Around<'_>) -> Option<Timestamp> {
        let entry = self.ledger.entries.get_mut(id)?;
        let memory = self.memory.as_mut()?;
        let pid = entry.pid?;
        if !around.machine.is_alive(pid) {
            // It ended while nobody watched.
            entry.pid = None;
            entry.ready = false;
            entry.last_exit = Some(Exit { at: around.now, status: ExitStatus::Unknown });
            memory.health.remove(id);
            return None;
        }
        let spec = &entry.assigned.content.health;
        let began = entry.started.unwrap_or(around.now);
        let mut health =
            memory.health.remove(id).unwrap_or_else(|| Health::adopted(spec, began, entry.ready, around.now));
        let answers = around.machine.processes.get(&pid).is_some_and(|p| p.answers(around.now));
        let (due, mut next) = health.due(spec, around.now);
        for due in due {
            let result = if answers { Ok(()) } else { Err("503 from /healthz".to_owned()) };
            health = health.after(spec, &due.purposes, result, around.now);
            next = health.due(spec, around.now).1;
        }
        let ready = health.ready && health.live;
        if ready && !entry.ready {
            around.out.extend(endpoint(entry, EndpointHealth::Ready));
        }
        entry.ready = ready;
        memory.health.insert(id.clone(), health);
        next
    }

    fn local(&self, id: &InstanceId, machine: &Machine) -> Option<Local> {
        let entry = self.ledger.entries.get(id)?;
        let memory = self.memory.as_ref()?;
        let run = match (entry.pid, &entry.last_exit) {
            (Some(_), _) => Run::Alive { health: memory.health.get(id)?.clone() },
            (None, Some(exit)) => Run::Ended { started: entry.started, exit: exit.clone() },
            (None, None) => Run::NotStarted,
        };
        Some(Local {
            id: id.clone(),
            install: if entry.installed { Install::Whole } else { Install::Absent },
            run,
            attempts: entry.attempts.clone(),
            drifted: is_drifted(entry, machine),
            current: shows(entry, machine),
            busy: memory.busy.get(id).map(|doing| doing.busy),
            away: None,
        })
    }

    fn begin(&mut self, id: &InstanceId, operation: Operation, around: &mut Around<'_>) {
        let now = around.now;
        let (busy, attempts) = match operation {
            Operation::Nothing => return,
            Operation::Install { attempts } => (Busy::Installing, attempts),
            Operation::Update => (Busy::Updating, Attempts::default()),
            Operation::Restart { attempts } => (Busy::Starting, attempts),
            Operation::Delete => (Busy::Stopping { since: now }, Attempts::default()),
        };
        let Some(entry) = self.ledger.entries.get_mut(id) else { return };
        if busy == Busy::Starting {
            // Written down before the start, so that a crash in between costs an attempt and not the count.
            entry.attempts = attempts.clone();
        }
        let reason = match busy {
            Busy::Stopping { .. } => Some(EndReason::Removed),
            Busy::Starting => Some(EndReason::Unhealthy),
            Busy::Installing | Busy::Updating => None,
        };
        let living = entry.pid.filter(|pid| around.machine.is_alive(*pid));
        let awaits_end = reason.is_some() && living.is_some();
        if let (Some(reason), Some(pid)) = (reason, living) {
            tell_to_end(pid, reason, around);
        }
        self.operations += 1;
        let serial = self.operations;
        let takes = match busy {
            Busy::Installing => Millis(around.rng.random_range(20..500)),
            Busy::Updating => Millis(around.rng.random_range(5..60)),
            Busy::Starting | Busy::Stopping { .. } => Millis(around.rng.random_range(2..20)),
        };
        if let Some(memory) = &mut self.memory {
            memory.busy.insert(id.clone(), Doing { serial, busy, attempts, awaits_end });
        }
        if busy == Busy::Installing
            && let Some(entry) = self.ledger.entries.get(id)
        {
            around.machine.folders.entry(folder(&entry.assigned)).or_default();
        }
        if !awaits_end {
            around
                .out
                .push(Out::At(now + takes, Event::NodeDone { epoch: self.epoch, id: id.clone(), serial }));
        }
    }

    /// An operation is through.
    pub fn done(&mut self, epoch: u64, id: &InstanceId, serial: u64, around: &mut Around<'_>) {
        if epoch != self.epoch {
            return;
        }
        let Some(memory) = &mut self.memory else { return };
        let Some(doing) = memory.busy.get(id).filter(|doing| doing.serial == serial).cloned() else { return };
        memory.busy.remove(id);
        match doing.busy {
            Busy::Installing => self.installed(id, doing.attempts, around),
            Busy::Updating => self.updated(id, around),
            Busy::Starting => self.started(id, around),
            Busy::Stopping { .. } => self.deleted(id, around),
        }
        self.look_at(around.now, around);
    }

    fn installed(&mut self, id: &InstanceId, attempts: Attempts, around: &mut Around<'_>) {
        let port = self.free_port(around);
        let Some(entry) = self.ledger.entries.get_mut(id) else { return };
        around
            .machine
            .folders
            .insert(folder(&entry.assigned), crate::machine::Folder { complete: true, damaged: false });
        entry.installed = true;
        entry.attempts = attempts;
        entry.port = entry.port.or(match entry.assigned.content.port {
            Some(Port::Fixed(port)) => Some(port),
            Some(Port::Dynamic) => Some(port),
            None => None,
        });
    }

    /// Not that of another entry, nor one that somebody listens on.
    fn free_port(&self, around: &mut Around<'_>) -> u16 {
        let count = PORTS.end - PORTS.start;
        let from = around.rng.random_range(0..count);
        (0..count)
            .map(|n| PORTS.start + (from + n) % count)
            .find(|port| {
                let ours = self.ledger.entries.values().any(|entry| entry.port == Some(*port));
                !ours && around.machine.listener(*port).is_none()
            })
            .unwrap_or(PORTS.end)
    }

    fn updated(&mut self, id: &InstanceId, around: &mut Around<'_>) {
        let Some(entry) = self.ledger.entries.get_mut(id) else { return };
        let path = folder(&entry.assigned);
        around
            .machine
            .folders
            .insert(path.clone(), crate::machine::Folder { complete: true, damaged: false });
        if entry.assigned.current {
            around.machine.links.insert(id.service.clone(), path);
            entry.switched = true;
        }
    }

    fn started(&mut self, id: &InstanceId, around: &mut Around<'_>) {
        let Some(entry) = self.ledger.entries.get_mut(id) else { return };
        if let Some(port) = entry.port
            && let Some((_, other)) = around.machine.listener(port)
        {
            around.truth.port_taken(around.now, id, port, &other.id);
        }
        let character = Character::of(&entry.assigned.content);
        let pid = around.machine.spawn(
            id.clone(),
            entry.assigned.release,
            character,
            entry.port,
            around.now,
            around.rng,
        );
        entry.pid = Some(pid);
        entry.started = Some(around.now);
        entry.last_exit = None;
        entry.ready = false;
        if let Some(memory) = &mut self.memory {
            memory.health.insert(id.clone(), Health::new(&entry.assigned.content.health, around.now));
        }
        if let Some(at) = around.machine.processes.get(&pid).and_then(|process| process.dies_at) {
            around.out.push(Out::At(at, Event::Dies { pid }));
        }
        around.truth.started(around.now, id, &entry.assigned);
        around.out.push(Out::Trace(format!("start {id} pid {pid}")));
    }

    fn deleted(&mut self, id: &InstanceId, around: &mut Around<'_>) {
        let Some(entry) = self.ledger.entries.remove(id) else { return };
        let path = folder(&entry.assigned);
        // The link first: it never points to what is not there. With the last folder goes its name too, wherever a hand
        // has pointed it.
        let is_last = !self.ledger.entries.keys().any(|other| other.service == id.service);
        if is_last || around.machine.links.get(&id.service) == Some(&path) {
            around.machine.links.remove(&id.service);
        }
        around.machine.folders.remove(&path);
        if let Some(memory) = &mut self.memory {
            memory.health.remove(id);
            memory.steps.remove(id);
        }
    }

    /// A process ended while the agent watched.
    pub fn exited(&mut self, pid: u32, status: ExitStatus, around: &mut Around<'_>) {
        let now = around.now;
        let Some(memory) = &mut self.memory else { return };
        let found = self.ledger.entries.iter_mut().find(|(_, entry)| entry.pid == Some(pid));
        let Some((id, entry)) = found else { return };
        entry.pid = None;
        entry.ready = false;
        entry.last_exit = Some(Exit { at: now, status });
        memory.health.remove(id);
        around.out.extend(endpoint(entry, EndpointHealth::Down));
        if let Some(doing) = memory.busy.get_mut(id).filter(|doing| doing.awaits_end) {
            doing.awaits_end = false;
            let done = Event::NodeDone { epoch: self.epoch, id: id.clone(), serial: doing.serial };
            around.out.push(Out::At(now + Millis(3), done));
        }
        self.look_at(now, around);
    }

    /// Somebody changed something by hand, and the watch saw it.
    pub fn nudge(&mut self, around: &mut Around<'_>) {
        self.look_at(around.now, around);
    }

    fn tell(&mut self, around: &mut Around<'_>) {
        let now = around.now;
        let boot = self.boot_id();
        self.told += 1;
        let Some(memory) = &mut self.memory else { return };
        let complete = now.since(memory.since) >= FIRST_LOOK;
        if !complete {
            around.out.push(Out::At(memory.since + FIRST_LOOK, Event::NodeLook { epoch: self.epoch }));
            memory.next_look = Some(memory.since + FIRST_LOOK);
        }
        let known = self.ledger.entries.iter().filter_map(|(id, entry)| {
            let report = report(id, entry, memory.steps.get(id)?, around.machine);
            Some((id.clone(), Arc::new(report)))
        });
        // A first look that has not come far.
        let seen = known.take(if complete { usize::MAX } else { 1 });
        let observation = Observation {
            node: node_id(),
            boot,
            sequence: now.0 * 1_000 + self.told % 1_000,
            at: now,
            accepted: self.ledger.accepted.as_ref().map(|accepted| accepted.stamp.clone()),
            instances: seen.collect(),
            strangers: Vec::new(),
            complete,
        };
        let is_new = memory.sent.as_ref().is_none_or(|(at, sent)| {
            now.since(*at) >= HEARTBEAT
                || (sent.instances != observation.instances
                    || sent.accepted != observation.accepted
                    || sent.complete != observation.complete)
        });
        if is_new {
            let observation = Arc::new(observation);
            memory.sent = Some((now, Arc::clone(&observation)));
            around.out.push(Out::NodeSays(observation));
        }
    }
}

/// SIGTERM now and SIGKILL after the grace.
fn tell_to_end(pid: u32, reason: EndReason, around: &mut Around<'_>) {
    let Some(process) = around.machine.processes.get_mut(&pid) else { return };
    process.told_to_end.get_or_insert(reason);
    let deaf = process.character == Character::Stubborn;
    let ends = if deaf { STOP_GRACE } else { Millis(around.rng.random_range(2..120)) };
    around.out.push(Out::Told { pid, reason });
    around.out.push(Out::At(around.now + ends, Event::Dies { pid }));
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

fn endpoint(entry: &Entry, health: EndpointHealth) -> Option<Out> {
    let instance = entry.assigned.id.clone();
    Some(Out::Endpoint(EndpointEvent { instance, address: address(entry)?, health }))
}

fn report(id: &InstanceId, entry: &Entry, step: &Step, machine: &Machine) -> InstanceReport {
    InstanceReport {
        id: id.clone(),
        release: entry.assigned.release,
        state: step.state.clone(),
        ready: step.ready && (is_site(entry) || entry.ready),
        ready_since: Timestamp::ZERO,
        pid: entry.pid,
        container: None,
        address: address(entry),
        folder: is_site(entry).then(|| folder(&entry.assigned)),
        current: shows(entry, machine),
        started_at: entry.started,
        attempts: entry.attempts.clone(),
        last_exit: entry.last_exit.clone(),
        message: step.message.clone(),
        last_lines: Vec::new(),
        copied: None,
        drift: Vec::new(),
    }
}
