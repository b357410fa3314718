//! Operations: what is begun, and what has become of it.

use decide::{
    health::Health,
    node::{Busy, Operation},
};
use model::{InstanceId, Millis, instance::Attempts, route::EndpointHealth, spec::Port};
use rand::Rng;

use super::{Agent, Around, Doing, Happens, PORTS, container::is_container, folder, tell::endpoint};
use crate::{
    machine::{EndReason, Folder},
    play::Out,
    shape::{Character, STOP_GRACE},
};

impl Agent {
    pub(super) fn begin(&mut self, id: &InstanceId, operation: Operation, around: &mut Around<'_>) {
        let now = around.now;
        let (busy, attempts, granted) = match operation {
            Operation::Nothing => return,
            Operation::Install { attempts, granted } => (Busy::Installing, attempts, granted),
            Operation::Update => (Busy::Updating, Attempts::default(), false),
            Operation::Restart { attempts } => (Busy::Starting, attempts, false),
            Operation::Delete => (Busy::Stopping { since: now }, Attempts::default(), false),
        };
        if let Busy::Stopping { .. } = busy {
            around.out.push(Out::Removes(id.clone()));
        }
        let Some(entry) = self.ledger.entries.get_mut(id) else { return };
        match busy {
            // Written down before it is begun, so that a crash in between costs an attempt and not the count.
            Busy::Installing | Busy::Starting => (entry.attempts, entry.granted) = (attempts, granted),
            Busy::Updating | Busy::Stopping { .. } => {}
        }
        if is_container(entry) {
            return self.begin_with_engine(id, busy, around);
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
            memory.busy.insert(id.clone(), Doing { serial, busy, awaits_end, asking: None });
        }
        if busy == Busy::Installing
            && let Some(entry) = self.ledger.entries.get(id)
        {
            around.machine.folders.entry(folder(&entry.assigned)).or_default();
        }
        if !awaits_end {
            around
                .out
                .push(Out::At(now + takes, Happens::Done { epoch: self.epoch, id: id.clone(), serial }));
        }
    }

    fn begin_with_engine(&mut self, id: &InstanceId, busy: Busy, around: &mut Around<'_>) {
        self.operations += 1;
        let doing = Doing { serial: self.operations, busy, awaits_end: false, asking: None };
        if let Some(memory) = &mut self.memory {
            memory.busy.insert(id.clone(), doing);
        }
        if matches!(busy, Busy::Starting | Busy::Stopping { .. })
            && let Some(entry) = self.ledger.entries.get_mut(id)
            && std::mem::take(&mut entry.ready)
        {
            around.out.extend(endpoint(entry, EndpointHealth::Down));
        }
        if busy == Busy::Installing
            && let Some(entry) = self.ledger.entries.get(id)
        {
            around.machine.folders.entry(folder(&entry.assigned)).or_default();
        }
        self.begin_job(id, busy, around);
    }

    /// An operation is through.
    pub fn done(&mut self, epoch: u64, id: &InstanceId, serial: u64, around: &mut Around<'_>) {
        if epoch != self.epoch {
            return;
        }
        let Some(memory) = &mut self.memory else { return };
        let Some(doing) = memory.busy.get(id).filter(|doing| doing.serial == serial).cloned() else { return };
        memory.busy.remove(id);
        if doing.asking.is_some() {
            self.look_again(id, around);
            return self.look_at(around.now, around);
        }
        match doing.busy {
            Busy::Installing => self.installed(id, around),
            Busy::Updating => self.updated(id, around),
            Busy::Starting => self.started(id, around),
            Busy::Stopping { .. } => self.deleted(id, around),
        }
        self.look_at(around.now, around);
    }

    fn installed(&mut self, id: &InstanceId, around: &mut Around<'_>) {
        let port = self.free_port(around);
        let Some(entry) = self.ledger.entries.get_mut(id) else { return };
        around.machine.folders.insert(folder(&entry.assigned), Folder { complete: true, damaged: false });
        entry.installed = true;
        entry.port = entry.port.or(match entry.assigned.content.port {
            Some(Port::Fixed(port)) => Some(port),
            Some(Port::Dynamic) => Some(port),
            None => None,
        });
    }

    /// Not that of another entry, nor one that somebody listens on.
    pub(super) fn free_port(&self, around: &mut Around<'_>) -> u16 {
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
        around.machine.folders.insert(path.clone(), Folder { complete: true, damaged: false });
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
        entry.ready = false;
        if let Some(memory) = &mut self.memory {
            memory.health.insert(id.clone(), Health::new(&entry.assigned.content.health, around.now));
        }
        if let Some(at) = around.machine.processes.get(&pid).and_then(|process| process.dies_at) {
            around.out.push(Out::At(at, Happens::Dies { pid }));
        }
        around.truth.started(around.now, id, entry.assigned.release);
        around.out.push(Out::Trace(format!("start {id} pid {pid}")));
    }

    pub(super) fn deleted(&mut self, id: &InstanceId, around: &mut Around<'_>) {
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
            memory.held.remove(id);
        }
    }
}

/// SIGTERM now and SIGKILL after the grace.
pub fn tell_to_end(pid: u32, reason: EndReason, around: &mut Around<'_>) -> Millis {
    let Some(process) = around.machine.processes.get_mut(&pid) else { return Millis(1) };
    process.told_to_end.get_or_insert(reason);
    let deaf = process.character == Character::Stubborn;
    let ends = if deaf { STOP_GRACE } else { Millis(around.rng.random_range(2..120)) };
    around.out.push(Out::Told { pid, reason });
    around.out.push(Out::At(around.now + ends, Happens::Dies { pid }));
    ends
}
