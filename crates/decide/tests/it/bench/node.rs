//! A node whose runtime is instant: an operation that `step` asks for is done at once.

use std::{collections::BTreeMap, sync::Arc};

use decide::{
    health::{Health, Purpose},
    node::{Install, Local, Operation, Run, Step, step},
};
use model::{
    InstanceId, Millis, NodeId, ReleaseDigest, Timestamp,
    assignment::{Assigned, Assignment},
    drift::Drift,
    instance::Attempts,
    node::NodeState,
    observation::{Engine, Exit, ExitStatus, InstanceReport, Observation},
    release::Release,
    spec::{Port, Workload},
};

use super::spec::{Behaviour, behaviour};

pub struct Fake {
    pub id: NodeId,
    pub state: NodeState,
    /// Assignments arrive and observations leave.
    pub reachable: bool,
    /// Why it takes nothing.
    pub refuses: Option<String>,
    /// What it says of its container engine.
    pub engine: Option<Engine>,
    pub assignment: Option<Assignment>,
    pub instances: BTreeMap<InstanceId, Instance>,
    pub heard: Option<Observation>,
    pub wake_at: Option<Timestamp>,
    /// How long what runs takes to end once it is asked to.
    pub ending: Millis,
    sequence: u64,
    ports: u16,
}

/// One instance on the disk and among the processes.
pub struct Instance {
    pub local: Local,
    /// As it was assigned last.
    pub assigned: Arc<Assigned>,
    pub release: ReleaseDigest,
    pub content: Arc<Release>,
    pub folder: Option<String>,
    pub address: Option<String>,
    pub starts: Vec<Timestamp>,
    pub last: Option<Step>,
    /// How the last run ended, also while the next one lives.
    pub last_exit: Option<Exit>,
    /// When it is gone, once it was asked to end.
    gone_at: Option<Timestamp>,
}

impl Fake {
    pub fn new(id: NodeId) -> Self {
        Self {
            id,
            state: NodeState::Up,
            reachable: true,
            refuses: None,
            engine: None,
            assignment: None,
            instances: BTreeMap::new(),
            heard: None,
            wake_at: None,
            ending: Millis::ZERO,
            sequence: 0,
            ports: 31_000,
        }
    }

    pub fn offer(&mut self, assignment: Assignment) {
        let held = self.assignment.as_ref().map(|held| decide::ledger::Held {
            cluster: &held.cluster,
            node: &held.node,
            stamp: &held.stamp,
        });
        let same = || self.assignment.as_ref() == Some(&assignment);
        match decide::ledger::accept(held, &assignment, same) {
            Ok(decide::ledger::Accepted::Newer) => self.assignment = Some(assignment),
            Ok(decide::ledger::Accepted::Again) | Err(_) => {}
        }
    }

    /// Does what is to be done until nothing is.
    pub fn work(&mut self, now: Timestamp) {
        let Some(assignment) = self.assignment.clone() else { return };
        self.wake_at = None;
        for assigned in assignment.instances.values() {
            let next_port = &mut self.ports;
            let new = || Instance::new(assigned, next_port);
            self.instances.entry(assigned.id.clone()).or_insert_with(new).assigned = Arc::clone(assigned);
        }
        let ids: Vec<InstanceId> = self.instances.keys().cloned().collect();
        for id in ids {
            // What is held goes on by the assignment that it had.
            let held = self.instances.get(&id).map(|instance| Arc::clone(&instance.assigned));
            let held = held.filter(|_| assignment.held.contains(&id.service));
            let assigned = assignment.instances.get(&id).cloned().or(held);
            self.settle(&id, assigned.as_deref(), now);
        }
    }

    fn settle(&mut self, id: &InstanceId, assigned: Option<&Assigned>, now: Timestamp) {
        for _ in 0..20 {
            let Some(instance) = self.instances.get_mut(id) else { return };
            let next = step(assigned, &instance.local, now);
            let operation = next.operation.clone();
            self.wake_at = [self.wake_at, next.wake_at].into_iter().flatten().min();
            instance.last = Some(next);
            match operation {
                Operation::Nothing => return,
                Operation::Delete => {
                    let gone_at = *instance.gone_at.get_or_insert(now + self.ending);
                    if gone_at > now {
                        self.wake_at = [self.wake_at, Some(gone_at)].into_iter().flatten().min();
                        return;
                    }
                    self.instances.remove(id);
                    return;
                }
                Operation::Install { attempts, granted } => {
                    instance.local.granted = granted;
                    instance.install(attempts, now);
                }
                Operation::Update => {
                    instance.local.drifted = false;
                    instance.local.current = assigned.is_some_and(|a| a.current);
                    if instance.local.current {
                        self.point_current_at(id);
                    }
                }
                Operation::Restart { attempts } => {
                    instance.local.granted = false;
                    instance.restart(attempts, now);
                }
            }
        }
        panic!("{id} finds no rest on its node");
    }

    fn point_current_at(&mut self, id: &InstanceId) {
        for (other, instance) in &mut self.instances {
            instance.local.current = other == id && instance.local.current;
        }
    }

    pub fn report(&mut self, now: Timestamp) {
        if !self.reachable {
            return;
        }
        self.sequence += 1;
        self.heard = Some(Observation {
            node: self.id.clone(),
            boot: "boot".parse().unwrap(),
            sequence: self.sequence,
            at: now,
            accepted: self.assignment.as_ref().map(|a| a.stamp.clone()),
            instances: self
                .instances
                .iter()
                .filter_map(|(id, i)| Some((id.clone(), Arc::new(i.report(id)?))))
                .collect(),
            strangers: Vec::new(),
            lost_volumes: Vec::new(),
            engine: self.engine.clone(),
            complete: true,
        });
    }
}

impl Instance {
    fn new(assigned: &Arc<Assigned>, next_port: &mut u16) -> Self {
        let port = match assigned.content.port {
            Some(Port::Fixed(port)) => Some(port),
            Some(Port::Dynamic) => {
                *next_port += 1;
                Some(*next_port)
            }
            None => None,
        };
        let folder = match assigned.content.workload {
            Workload::Site(_) => {
                Some(format!("/sites/{}/deployment-{}", assigned.id.service.name, assigned.deployment))
            }
            Workload::Process(_) | Workload::Container(_) => None,
        };
        Self {
            local: Local {
                id: assigned.id.clone(),
                install: Install::Absent,
                run: Run::NotStarted,
                attempts: Attempts::default(),
                granted: false,
                drifted: false,
                current: false,
                busy: None,
                away: None,
                outage: None,
                off_network: false,
                unstarted: None,
                rests_until: None,
            },
            assigned: Arc::clone(assigned),
            release: assigned.release,
            content: Arc::clone(&assigned.content),
            folder,
            address: port.map(|port| format!("127.0.0.1:{port}")),
            starts: Vec::new(),
            last: None,
            last_exit: None,
            gone_at: None,
        }
    }

    fn install(&mut self, attempts: Attempts, now: Timestamp) {
        self.local.attempts = attempts;
        self.local.install = match behaviour(&self.content) {
            Behaviour::CannotInstall => {
                Install::Failed { at: now, message: "its artifact cannot be read".into() }
            }
            Behaviour::Good | Behaviour::Manual | Behaviour::Crashes => Install::Whole,
        };
    }

    fn restart(&mut self, attempts: Attempts, now: Timestamp) {
        self.local.attempts = attempts;
        self.starts.push(now);
        self.local.run = Run::Alive { health: Health::new(&self.content.health, now) };
        match behaviour(&self.content) {
            Behaviour::Crashes => self.die(ExitStatus::Code(1), now),
            Behaviour::Good => self.probe(Ok(()), now),
            Behaviour::Manual | Behaviour::CannotInstall => {}
        }
    }

    pub fn die(&mut self, status: ExitStatus, now: Timestamp) {
        let started = match &self.local.run {
            Run::Alive { health } => Some(health.began),
            Run::NotStarted | Run::Ended { .. } | Run::Unknown { .. } => None,
        };
        let exit = Exit { at: now, status, why: None };
        self.last_exit = Some(exit.clone());
        self.local.run = Run::Ended { started, exit };
    }

    /// A verdict of all probes at once.
    pub fn probe(&mut self, result: Result<(), String>, now: Timestamp) {
        if let Run::Alive { health } = &self.local.run {
            let purposes = [Purpose::Startup, Purpose::Readiness, Purpose::Liveness];
            let purposes = if result.is_ok() { &purposes[..] } else { &purposes[1..2] };
            let mut next = health.clone();
            for _ in 0..3 {
                next = next.after(&self.content.health, purposes, result.clone(), now);
            }
            self.local.run = Run::Alive { health: next };
        }
    }

    fn report(&self, id: &InstanceId) -> Option<InstanceReport> {
        let step = self.last.as_ref()?;
        let (started_at, since) = match &self.local.run {
            Run::Alive { health } => (Some(health.began), health.ready_since),
            Run::Ended { started, exit } => (*started, exit.at),
            Run::NotStarted => (None, Timestamp::ZERO),
            Run::Unknown { since } => (None, *since),
        };
        Some(InstanceReport {
            id: id.clone(),
            release: self.release,
            state: step.state.clone(),
            ready: step.ready,
            ready_since: since,
            pid: matches!(self.local.run, Run::Alive { .. }).then_some(4711),
            container: None,
            address: self.address.clone(),
            folder: self.folder.clone(),
            current: self.local.current,
            started_at,
            attempts: self.local.attempts.clone(),
            last_exit: self.last_exit.clone(),
            message: step.message.clone(),
            without: None,
            last_lines: Vec::new(),
            copied: None,
            drift: if self.local.drifted { vec![drift()] } else { Vec::new() },
        })
    }
}

fn drift() -> Drift {
    Drift {
        path: "site/index.html".into(),
        declared: Some("v1".into()),
        observed: Some("another".into()),
        since: Timestamp::ZERO,
        by: None,
        stuck: None,
    }
}
