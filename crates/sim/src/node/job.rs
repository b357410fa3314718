//! Operations on containers: one call of the engine at a time. Each step finds out first what is there, so that it may
//! be repeated after any interruption, and after an answer that never came.

use decide::{health::Health, node::Busy, planted::Bug};
use model::{InstanceId, Millis, spec::Port};
use rand::Rng;

use super::{
    Agent, Around, Happens,
    container::{Asked, Known, Record},
};
use crate::{
    ends::{End, Whose},
    engine::{Answer, Call, ContainerId, Labels, Order, Seen, State},
    machine::EndReason,
    play::Out,
    shape::Character,
};

/// After something could not be done, before it is tried again.
const PAUSE: Millis = Millis(500);

/// What was asked last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asking {
    Find,
    Create,
    WhoHasTheName,
    Stop,
    Start {
        id: ContainerId,
    },
    See,
    /// One that can no longer be started goes, and is made anew.
    ClearAway {
        another_port: bool,
    },
    Remove,
    Repair,
    /// It was given up, for now.
    Pause,
}

impl Agent {
    /// The first call of an operation.
    pub(super) fn begin_job(&mut self, id: &InstanceId, busy: Busy, around: &mut Around<'_>) {
        let record = self.ledger.entries.get(id).and_then(|entry| entry.record.clone());
        let alive = self
            .memory
            .as_ref()
            .and_then(|m| m.held.get(id))
            .is_some_and(|held| matches!(held.run, Known::Alive { .. }));
        let container = record.as_ref().and_then(|record| record.id);
        match (busy, container) {
            (Busy::Starting, Some(container)) if alive => {
                self.job_asks(id, Asking::Stop, Call::Stop(container, EndReason::Unhealthy), around);
            }
            (Busy::Starting, Some(container)) => {
                self.job_asks(id, Asking::Start { id: container }, Call::Start(container), around);
            }
            (Busy::Updating, Some(container)) => {
                let name = record.map(|record| record.name).unwrap_or_default();
                self.job_asks(id, Asking::Repair, Call::Repair(container, name), around);
            }
            (Busy::Updating, None) => self.give_up(id, around),
            (Busy::Installing | Busy::Starting, _) => self.find(id, around),
            // Nothing was ever asked of an engine.
            (Busy::Stopping { .. }, _) if record.is_none() => self.finish(id, around),
            (Busy::Stopping { .. }, _) => self.find(id, around),
        }
    }

    fn job_asks(&mut self, id: &InstanceId, asking: Asking, call: Call, around: &mut Around<'_>) {
        let Some(doing) = self.memory.as_mut().and_then(|memory| memory.busy.get_mut(id)) else { return };
        doing.asking = Some(asking);
        let serial = doing.serial;
        self.ask(Asked::Job { id: id.clone(), serial }, call, around);
    }

    /// By the engine's id, by the nonce of a creation that was never answered, or, without a ledger, by the label: then the
    /// assignment counts as one.
    fn find(&mut self, id: &InstanceId, around: &mut Around<'_>) {
        let Some(entry) = self.ledger.entries.get(id) else { return };
        let call = match &entry.record {
            Some(Record { id: Some(container), .. }) => Call::Inspect(*container),
            // The planted bug that the simulator must find: what was not answered was not done.
            Some(_) if Bug::CreateBeside.is_planted() => return self.create(id, around),
            Some(Record { nonce, .. }) => Call::OfNonce(*nonce),
            None if entry.made_before => return self.create(id, around),
            None => Call::OfInstance(id.clone()),
        };
        self.job_asks(id, Asking::Find, call, around);
    }

    pub(super) fn job_goes_on(
        &mut self,
        id: &InstanceId,
        serial: u64,
        answer: Answer,
        around: &mut Around<'_>,
    ) {
        let doing = self.memory.as_ref().and_then(|memory| memory.busy.get(id));
        let Some(doing) = doing.filter(|doing| doing.serial == serial) else { return };
        let (busy, Some(asking)) = (doing.busy, doing.asking.clone()) else { return };
        match (asking, answer) {
            (_, Answer::Away) => self.away_in_job(id, around),
            (Asking::Find, Answer::Seen(seen)) => self.found(id, busy, &seen, around),
            (Asking::Find, Answer::Listed(listed)) => match listed.as_slice() {
                [] => self.not_there(id, busy, around),
                [one] => self.found(id, busy, one, around),
                // Which one is ours cannot be told, and that is not "none".
                _ => self.fail(id, busy, "several containers say to be it", around),
            },
            (Asking::Find, Answer::NotFound) => self.not_there(id, busy, around),
            (Asking::Create, Answer::Created(container)) => self.made(id, busy, container, around),
            (Asking::Create, Answer::NameTaken) => {
                let name = self.record_name(id);
                self.job_asks(id, Asking::WhoHasTheName, Call::Named(name), around);
            }
            (Asking::WhoHasTheName, Answer::Seen(seen)) => {
                let entry = self.ledger.entries.get_mut(id);
                let Some(record) = entry.and_then(|entry| entry.record.as_mut()) else { return };
                if seen.labels.nonce == record.nonce {
                    return self.found(id, busy, &seen, around);
                }
                record.name.push('-');
                self.create(id, around);
            }
            (Asking::WhoHasTheName, Answer::NotFound) => self.create(id, around),
            (Asking::Stop, Answer::Done | Answer::NotFound) => self.stopped(id, busy, around),
            (Asking::Start { id: container }, Answer::Done) => {
                self.job_asks(id, Asking::See, Call::Inspect(container), around);
            }
            (Asking::Start { id: container }, Answer::PortTaken) => {
                let asking = Asking::ClearAway { another_port: true };
                self.job_asks(id, asking, Call::Remove(container), around);
            }
            (Asking::Start { id: container }, Answer::NotFound) => {
                let asking = Asking::ClearAway { another_port: false };
                self.job_asks(id, asking, Call::Remove(container), around);
            }
            (Asking::See, Answer::Seen(seen)) => self.launched(id, &seen, around),
            (Asking::ClearAway { another_port }, Answer::Done | Answer::NotFound) => {
                self.cleared(id, another_port, around);
            }
            (Asking::Remove, Answer::Done | Answer::NotFound) => self.finish(id, around),
            (Asking::Repair, Answer::Seen(seen)) => {
                self.end_job(id);
                self.take_look(id, &seen, around);
                self.look_again(id, around);
            }
            (_, _) => self.fail(id, busy, "the engine refuses", around),
        }
    }

    fn record_name(&self, id: &InstanceId) -> String {
        let record = self.ledger.entries.get(id).and_then(|entry| entry.record.as_ref());
        record.map_or_else(|| id.to_string(), |record| record.name.clone())
    }

    fn found(&mut self, id: &InstanceId, busy: Busy, seen: &Seen, around: &mut Around<'_>) {
        let Some(entry) = self.ledger.entries.get_mut(id) else { return };
        entry.port = seen.port;
        let record = entry.record.get_or_insert_with(|| Record {
            id: None,
            nonce: seen.labels.nonce,
            name: seen.name.clone(),
            started: None,
        });
        record.id = Some(seen.id);
        self.go_on_with(id, busy, seen.id, around);
    }

    fn go_on_with(&mut self, id: &InstanceId, busy: Busy, container: ContainerId, around: &mut Around<'_>) {
        match busy {
            Busy::Installing => self.finish(id, around),
            Busy::Starting => {
                self.job_asks(id, Asking::Start { id: container }, Call::Start(container), around)
            }
            Busy::Stopping { .. } => {
                self.job_asks(id, Asking::Stop, Call::Stop(container, EndReason::Removed), around);
            }
            Busy::Updating => self.give_up(id, around),
        }
    }

    fn not_there(&mut self, id: &InstanceId, busy: Busy, around: &mut Around<'_>) {
        let Some(entry) = self.ledger.entries.get_mut(id) else { return };
        // It was there once: what bears its nonce now is a copy.
        if entry.record.as_ref().is_some_and(|record| record.id.is_some()) {
            entry.record = None;
        }
        match busy {
            Busy::Stopping { .. } => self.finish(id, around),
            Busy::Installing | Busy::Starting | Busy::Updating => self.create(id, around),
        }
    }

    /// The nonce is in the ledger before the engine is asked.
    fn create(&mut self, id: &InstanceId, around: &mut Around<'_>) {
        let port = self.free_port(around);
        let Some(entry) = self.ledger.entries.get_mut(id) else { return };
        if Bug::CreateBeside.is_planted()
            && let Some(record) = &mut entry.record
        {
            record.name.push('-');
        }
        let assigned = entry.assigned.clone();
        entry.port = match assigned.content.port {
            Some(Port::Fixed(port)) => Some(port),
            Some(Port::Dynamic) => Some(entry.port.unwrap_or(port)),
            None => None,
        };
        let record = entry.record.get_or_insert_with(|| Record {
            id: None,
            nonce: around.rng.random(),
            name: id.to_string(),
            started: None,
        });
        let order = Order {
            name: record.name.clone(),
            labels: Labels { instance: id.clone(), nonce: record.nonce },
            release: assigned.release,
            character: Character::of(&assigned.content),
            port: entry.port,
        };
        self.job_asks(id, Asking::Create, Call::Create(Box::new(order)), around);
    }

    fn made(&mut self, id: &InstanceId, busy: Busy, container: ContainerId, around: &mut Around<'_>) {
        let record = self.ledger.entries.get_mut(id).and_then(|entry| entry.record.as_mut());
        if let Some(record) = record {
            record.id = Some(container);
        }
        self.go_on_with(id, busy, container, around);
    }

    fn stopped(&mut self, id: &InstanceId, busy: Busy, around: &mut Around<'_>) {
        let record = self.ledger.entries.get(id).and_then(|entry| entry.record.as_ref());
        let Some(container) = record.and_then(|record| record.id) else { return };
        match busy {
            Busy::Stopping { .. } => self.job_asks(id, Asking::Remove, Call::Remove(container), around),
            Busy::Installing | Busy::Starting | Busy::Updating => {
                self.job_asks(id, Asking::Start { id: container }, Call::Start(container), around);
            }
        }
    }

    fn cleared(&mut self, id: &InstanceId, another_port: bool, around: &mut Around<'_>) {
        let Some(entry) = self.ledger.entries.get_mut(id) else { return };
        entry.record = None;
        entry.made_before = true;
        if another_port {
            // Not an attempt: nothing ran.
            entry.port = None;
            self.set_run(id, Known::NotStarted);
            return self.give_up(id, around);
        }
        self.create(id, around);
    }

    fn launched(&mut self, id: &InstanceId, seen: &Seen, around: &mut Around<'_>) {
        let (Some(entry), Some(memory)) = (self.ledger.entries.get_mut(id), &mut self.memory) else { return };
        if let Some(record) = &mut entry.record {
            record.started = Some(seen.started);
        }
        entry.failed = None;
        entry.started = Some(around.now);
        entry.ready = false;
        if let Some(held) = memory.held.get_mut(id) {
            held.ended_at = None;
            held.unasked = false;
            held.run = match seen.state {
                State::Running { pid } | State::Paused { pid } => Known::Alive { pid },
                State::Created | State::Ended { .. } => Known::Unknown { since: around.now },
            };
        }
        memory.health.insert(id.clone(), Health::new(&entry.assigned.content.health, around.now));
        self.end_job(id);
        // It may be over already.
        self.take_look(id, seen, around);
        let unseen = self.container_pid(id).is_some_and(|pid| !around.machine.is_alive(pid));
        if unseen && self.sees_processes {
            self.process_ended(id, around);
        }
        self.look_again(id, around);
    }

    pub(super) fn container_pid(&self, id: &InstanceId) -> Option<u32> {
        self.memory.as_ref()?.held.get(id)?.pid()
    }

    fn set_run(&mut self, id: &InstanceId, run: Known) {
        if let Some(held) = self.memory.as_mut().and_then(|memory| memory.held.get_mut(id)) {
            held.run = run;
        }
    }

    fn busy(&self, id: &InstanceId) -> Option<Busy> {
        self.memory.as_ref()?.busy.get(id).map(|doing| doing.busy)
    }

    fn end_job(&mut self, id: &InstanceId) {
        if let Some(memory) = &mut self.memory {
            memory.busy.remove(id);
        }
    }

    /// Installed or deleted.
    fn finish(&mut self, id: &InstanceId, around: &mut Around<'_>) {
        let Some(doing) = self.memory.as_mut().and_then(|memory| memory.busy.remove(id)) else { return };
        match doing.busy {
            Busy::Installing => self.container_installed(id, around),
            Busy::Stopping { .. } => self.deleted(id, around),
            Busy::Starting | Busy::Updating => {}
        }
        self.look_at(around.now, around);
    }

    fn container_installed(&mut self, id: &InstanceId, around: &mut Around<'_>) {
        let Some(entry) = self.ledger.entries.get_mut(id) else { return };
        self::complete_folder(entry, around);
        entry.installed = true;
        entry.failed = None;
        // With its ledger lost it may live already.
        self.set_run(id, Known::Unknown { since: around.now });
        self.look_at_container(id, around);
    }

    /// What it was asked may have been done.
    fn away_in_job(&mut self, id: &InstanceId, around: &mut Around<'_>) {
        let starts = self.busy(id) == Some(Busy::Starting);
        self.end_job(id);
        if let Some(entry) = self.ledger.entries.get_mut(id) {
            // Unless it was done, what was counted has not been tried.
            entry.granted |= starts;
            if entry.installed {
                self.set_run(id, Known::Unknown { since: around.now });
            }
        }
        self.engine_away(around);
        self.look_again(id, around);
    }

    fn fail(&mut self, id: &InstanceId, busy: Busy, why: &str, around: &mut Around<'_>) {
        let now = around.now;
        around.out.push(Out::Trace(format!("{busy:?} of {id}: {why}")));
        match busy {
            Busy::Installing | Busy::Starting => {
                if let Some(entry) = self.ledger.entries.get_mut(id) {
                    entry.failed = Some((now, why.into()));
                    let failed = End::new(now, &self.id, Whose::Workload);
                    around.truth.ends.ended(now, id, entry.assigned.release, failed);
                }
                // What did not end lives on.
                self.set_run(id, Known::Unknown { since: now });
                self.end_job(id);
                self.look_at_container(id, around);
            }
            Busy::Updating | Busy::Stopping { .. } => self.give_up(id, around),
        }
    }

    /// Until it is tried again.
    fn give_up(&mut self, id: &InstanceId, around: &mut Around<'_>) {
        let Some(doing) = self.memory.as_mut().and_then(|memory| memory.busy.get_mut(id)) else { return };
        doing.asking = Some(Asking::Pause);
        let done = Happens::Done { epoch: self.epoch, id: id.clone(), serial: doing.serial };
        around.out.push(Out::At(around.now + PAUSE, done));
    }
}

fn complete_folder(entry: &super::Entry, around: &mut Around<'_>) {
    let folder = crate::machine::Folder { complete: true, damaged: false };
    around.machine.folders.insert(super::folder(&entry.assigned), folder);
}
