//! Looking: what the agent finds of each instance, what the real `step` makes of it, and when it looks again.

use std::sync::Arc;

use decide::{
    health::Health,
    node::{Busy, Install, Local, Operation, Run, step},
};
use model::{
    InstanceId, Millis, Timestamp,
    observation::{Exit, ExitStatus},
    route::EndpointHealth,
    spec::Workload,
};

use super::{
    Agent, Around, Entry, HEARTBEAT, Happens, Memory, container::is_container, folder, is_drifted, shows,
    tell::endpoint,
};
use crate::{
    ends::{End, Whose},
    machine::Machine,
    play::Out,
};

impl Agent {
    pub(super) fn look_at(&mut self, at: Timestamp, around: &mut Around<'_>) {
        let Some(memory) = &mut self.memory else { return };
        if memory.next_look.is_none_or(|next| at < next) {
            memory.next_look = Some(at);
            around.out.push(Out::At(at, Happens::Look { epoch: self.epoch }));
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
        let minded = self.mind_engine(around);
        let ids: Vec<InstanceId> = self.ledger.entries.keys().cloned().collect();
        let mut wake = minded.map_or(around.now + HEARTBEAT, |at| at.min(around.now + HEARTBEAT));
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
                node: self.id.clone(),
                installed: if is_site { whole } else { process.is_some() },
                attempts: assigned.attempts.clone(),
                granted: false,
                port: process.and_then(|process| process.port),
                started: process.map(|process| process.started),
                pid,
                ready: false,
                last_exit: None,
                ends_before: Vec::new(),
                ended_run: None,
                switched: false,
                record: None,
                made_before: false,
                failed: None,
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
        self.hold(id, around.now);
        let probed = self.watch(id, around);
        let local = self.local(id, around.machine)?;
        let next = step(assigned.as_deref(), &local, around.now);
        let wake = next.wake_at;
        let operation = next.operation.clone();
        self.memory.as_mut()?.steps.insert(id.clone(), next);
        if operation != Operation::Nothing {
            around.out.push(Out::Trace(format!("node {operation:?} {id}")));
            around.truth.operated(&id.service);
            // Unless it has ended already.
            let lives = around.machine.live().any(|(_, process)| process.id == *id && !process.stranger);
            if let (Operation::Restart { .. }, Run::Alive { .. }, true) = (&operation, &local.run, lives) {
                let unhealthy = End::new(around.now, &self.id, Whose::Workload);
                let release = self.ledger.entries.get(id)?.assigned.release;
                around.truth.ends.ended(around.now, id, release, unhealthy);
            }
            self.begin(id, operation, around);
        }
        [wake, probed].into_iter().flatten().min()
    }

    /// What the agent knows of a process: its end, or its health by probes.
    fn watch(&mut self, id: &InstanceId, around: &mut Around<'_>) -> Option<Timestamp> {
        let contained = self.container_pid(id);
        let entry = self.ledger.entries.get_mut(id)?;
        let memory = self.memory.as_mut()?;
        let pid = entry.pid.or(contained)?;
        if contained.is_none() && !around.machine.is_alive(pid) {
            // It ended while nobody watched.
            entry.pid = None;
            entry.ready = false;
            entry.last_exit = Some(Exit { at: around.now, status: ExitStatus::Unknown, why: None });
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
        // What is being ended answers its probes until it does.
        let ends = memory.busy.get(id).is_some_and(|doing| match doing.busy {
            Busy::Starting | Busy::Stopping { .. } => true,
            Busy::Installing | Busy::Updating => false,
        });
        let ready = health.ready && health.live && !ends;
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
            _ if is_container(entry) => self.container_run(id)?,
            (Some(_), _) => Run::Alive { health: memory.health.get(id)?.clone() },
            (None, Some(exit)) => Run::Ended { started: entry.started, exit: exit.clone() },
            (None, None) => Run::NotStarted,
        };
        Some(Local {
            id: id.clone(),
            install: match &entry.failed {
                Some((at, message)) => Install::Failed { at: *at, message: message.clone() },
                None if entry.installed => Install::Whole,
                None => Install::Absent,
            },
            run,
            attempts: entry.attempts.clone(),
            granted: entry.granted,
            drifted: is_drifted(entry, machine) || memory.held.get(id).is_some_and(|held| held.drifted),
            current: shows(entry, machine),
            busy: memory.busy.get(id).map(|doing| doing.busy),
            away: memory
                .engine
                .away
                .or(memory.held.get(id).and_then(|held| held.untold))
                .filter(|_| is_container(entry)),
            outage: memory.engine.outage.filter(|_| is_container(entry)),
            off_network: false,
            unstarted: None,
            rests_until: None,
        })
    }

    /// A process ended while the agent watched.
    pub fn exited(&mut self, pid: u32, status: ExitStatus, around: &mut Around<'_>) {
        let now = around.now;
        if let Some(id) = self.container_of(pid) {
            self.process_ended(&id, around);
            return self.look_at(now, around);
        }
        let Some(memory) = &mut self.memory else { return };
        let found = self.ledger.entries.iter_mut().find(|(_, entry)| entry.pid == Some(pid));
        let Some((id, entry)) = found else { return };
        entry.pid = None;
        entry.ready = false;
        entry.last_exit = Some(Exit { at: now, status, why: None });
        memory.health.remove(id);
        around.out.extend(endpoint(entry, EndpointHealth::Down));
        if let Some(doing) = memory.busy.get_mut(id).filter(|doing| doing.awaits_end) {
            doing.awaits_end = false;
            let done = Happens::Done { epoch: self.epoch, id: id.clone(), serial: doing.serial };
            around.out.push(Out::At(now + Millis(3), done));
        }
        self.look_at(now, around);
    }
}
