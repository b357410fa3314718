//! What the agent knows of containers: only what their engine has said of each of them, and what the kernel says of
//! their ends. Lists and events say where to look, never what is gone.

use std::collections::BTreeSet;

use decide::{health::Health, node::Run};
use model::{
    InstanceId, Millis, Timestamp,
    observation::{Exit, ExitStatus},
    route::EndpointHealth,
    spec::Workload,
};

use super::{Agent, Around, Entry, tell::endpoint};
use crate::{
    engine::{Answer, Call, ContainerId, Seen, State},
    play::Out,
};

/// Between two full lists, which find what no event told of.
const LIST_EVERY: Millis = Millis(6_000);
/// An engine that hangs cuts no stream; it is asked whether it is there.
const SILENCE: Millis = Millis(4_000);
const RETRY: Millis = Millis(400);

/// What the ledger knows of a container. It is what makes it ours.
#[derive(Debug, Clone)]
pub struct Record {
    /// `None` before a creation was answered.
    pub id: Option<ContainerId>,
    /// Of one creation, until it is answered; written down before the engine is asked.
    pub nonce: u64,
    pub name: String,
    pub started: Option<u64>,
}

/// What is known of one container.
pub(super) struct Contained {
    pub run: Known,
    looking: bool,
    look_again: bool,
    glance: Option<(State, String)>,
    /// Paused or renamed by somebody.
    pub drifted: bool,
}

pub(super) enum Known {
    NotStarted,
    Alive { pid: u32 },
    Ended,
    Unknown { since: Timestamp },
}

/// What is known of the engine as a whole.
#[derive(Default)]
pub(super) struct View {
    listening: bool,
    /// Since when it does not answer; before its first answer, since the agent's start.
    pub away: Option<Timestamp>,
    listing: bool,
    list_again: bool,
    next_list: Option<Timestamp>,
    next_ping: Option<Timestamp>,
    pinging: bool,
    /// The stream of events is open.
    pub stream: bool,
}

/// Whom an answer is for.
pub(super) enum Asked {
    Ping,
    List,
    Look { id: InstanceId, container: ContainerId },
    Job { id: InstanceId, serial: u64 },
}

pub(super) fn is_container(entry: &Entry) -> bool {
    matches!(entry.assigned.content.workload, Workload::Container(_))
}

impl Contained {
    pub(super) fn pid(&self) -> Option<u32> {
        match self.run {
            Known::Alive { pid } => Some(pid),
            Known::NotStarted | Known::Ended | Known::Unknown { .. } => None,
        }
    }

    fn run(&self, entry: &Entry, health: Option<&Health>) -> Option<Run> {
        Some(match &self.run {
            Known::NotStarted => Run::NotStarted,
            Known::Alive { .. } => Run::Alive { health: health?.clone() },
            Known::Ended => Run::Ended { started: entry.started, exit: entry.last_exit.clone()? },
            Known::Unknown { since } => Run::Unknown { since: *since },
        })
    }
}

impl Agent {
    pub(super) fn ask(&mut self, asked: Asked, call: Call, around: &mut Around<'_>) {
        let Some(memory) = &mut self.memory else { return };
        self.tickets += 1;
        memory.asked.insert(self.tickets, asked);
        around.out.push(Out::Ask { epoch: self.epoch, ticket: self.tickets, call });
    }

    pub fn engine_says(&mut self, epoch: u64, ticket: u64, answer: Answer, around: &mut Around<'_>) {
        if epoch != self.epoch {
            return;
        }
        let Some(asked) = self.memory.as_mut().and_then(|memory| memory.asked.remove(&ticket)) else {
            return;
        };
        match asked {
            Asked::Ping => self.pong(&answer, around),
            Asked::List => self.listed(answer, around),
            Asked::Look { id, container } => self.looked_at(&id, container, answer, around),
            Asked::Job { id, serial } => self.job_goes_on(&id, serial, answer, around),
        }
        self.look_at(around.now, around);
    }

    /// From the first container on the engine is listened to; what is due is asked. Returns when to come again.
    pub(super) fn mind_engine(&mut self, around: &mut Around<'_>) -> Option<Timestamp> {
        let now = around.now;
        let memory = self.memory.as_mut()?;
        if !memory.engine.listening {
            if !self.ledger.entries.values().any(is_container) {
                return None;
            }
            memory.engine =
                View { listening: true, away: Some(now), next_ping: Some(now), ..View::default() };
        }
        if memory.engine.next_ping.is_some_and(|at| at <= now) && !memory.engine.pinging {
            memory.engine.pinging = true;
            memory.engine.next_ping = Some(now + SILENCE);
            self.ask(Asked::Ping, Call::Ping, around);
        }
        if self.memory.as_ref()?.engine.next_list.is_some_and(|at| at <= now) {
            self.list(around);
        }
        let engine = &self.memory.as_ref()?.engine;
        [engine.next_ping.filter(|_| !engine.pinging), engine.next_list].into_iter().flatten().min()
    }

    /// Its stream is open before anything is listed, so that nothing falls between.
    fn pong(&mut self, answer: &Answer, around: &mut Around<'_>) {
        let now = around.now;
        let Some(memory) = &mut self.memory else { return };
        memory.engine.pinging = false;
        if !matches!(answer, Answer::Done) {
            memory.engine.next_ping = Some(now + RETRY);
            return self.engine_away(around);
        }
        memory.engine.next_ping = Some(now + SILENCE);
        if memory.engine.away.is_some() || !memory.engine.stream {
            memory.engine.stream = true;
            for held in memory.held.values_mut() {
                held.glance = None;
            }
            self.list(around);
        }
    }

    pub(super) fn engine_away(&mut self, around: &mut Around<'_>) {
        let Some(memory) = &mut self.memory else { return };
        memory.engine.away.get_or_insert(around.now);
        let soon = around.now + RETRY;
        memory.engine.next_ping = Some(memory.engine.next_ping.map_or(soon, |at| at.min(soon)));
        self.look_at(soon, around);
    }

    /// The engine went, and its stream of events with it.
    pub fn engine_cut(&mut self, around: &mut Around<'_>) {
        let Some(memory) = &mut self.memory else { return };
        if std::mem::take(&mut memory.engine.stream) {
            self.engine_away(around);
        }
        self.look_at(around.now, around);
    }

    /// Those that the ledger names.
    pub fn containers(&self) -> BTreeSet<ContainerId> {
        self.ledger.entries.values().filter_map(|entry| entry.record.as_ref()?.id).collect()
    }

    pub fn hears_engine(&self) -> Option<u64> {
        self.memory.as_ref().filter(|memory| memory.engine.stream).map(|_| self.epoch)
    }

    /// Something happened to a container: a word to look, and no more.
    pub fn engine_news(&mut self, epoch: u64, container: ContainerId, around: &mut Around<'_>) {
        if epoch != self.epoch {
            return;
        }
        let of_record = |entry: &Entry| entry.record.as_ref().and_then(|record| record.id) == Some(container);
        let found = self.ledger.entries.iter().find(|(_, entry)| of_record(entry)).map(|(id, _)| id.clone());
        if let Some(id) = found {
            self.look_at_container(&id, around);
        }
        self.look_at(around.now, around);
    }

    fn list(&mut self, around: &mut Around<'_>) {
        let Some(memory) = &mut self.memory else { return };
        memory.engine.next_list = Some(around.now + LIST_EVERY);
        if std::mem::replace(&mut memory.engine.listing, true) {
            memory.engine.list_again = true;
            return;
        }
        self.ask(Asked::List, Call::List, around);
    }

    fn listed(&mut self, answer: Answer, around: &mut Around<'_>) {
        let Some(memory) = &mut self.memory else { return };
        memory.engine.listing = false;
        let again = std::mem::take(&mut memory.engine.list_again);
        match answer {
            Answer::Listed(listed) => {
                memory.engine.away = None;
                let ids: Vec<InstanceId> = memory.held.keys().cloned().collect();
                for id in ids {
                    self.glance(&id, &listed, around);
                }
            }
            Answer::Away => self.engine_away(around),
            _ => {}
        }
        if again {
            self.list(around);
        }
    }

    /// What looks as it did needs no closer look; what is not in the list has one.
    fn glance(&mut self, id: &InstanceId, listed: &[Seen], around: &mut Around<'_>) {
        let Some(memory) = &mut self.memory else { return };
        let (Some(held), Some(entry)) = (memory.held.get_mut(id), self.ledger.entries.get(id)) else {
            return;
        };
        let container = entry.record.as_ref().and_then(|record| record.id);
        let found = listed.iter().find(|seen| Some(seen.id) == container);
        let glance = found.map(|seen| (seen.state, seen.name.clone()));
        let unknown = matches!(held.run, Known::Unknown { .. });
        if unknown || glance.is_none() || glance != held.glance {
            held.glance = glance;
            self.look_at_container(id, around);
        }
    }

    /// One look at a time; what is asked for meanwhile comes after.
    pub(super) fn look_at_container(&mut self, id: &InstanceId, around: &mut Around<'_>) {
        let Some(memory) = &mut self.memory else { return };
        let busy = memory.busy.contains_key(id);
        let (Some(held), Some(entry)) = (memory.held.get_mut(id), self.ledger.entries.get(id)) else {
            return;
        };
        if busy || held.looking {
            held.look_again = true;
            return;
        }
        held.look_again = false;
        match entry.record.as_ref().and_then(|record| record.id) {
            None => self.container_gone(id, around),
            Some(container) => {
                held.looking = true;
                self.ask(Asked::Look { id: id.clone(), container }, Call::Inspect(container), around);
            }
        }
    }

    fn looked_at(&mut self, id: &InstanceId, asked: ContainerId, answer: Answer, around: &mut Around<'_>) {
        let Some(memory) = &mut self.memory else { return };
        let busy = memory.busy.contains_key(id);
        let (Some(held), Some(entry)) = (memory.held.get_mut(id), self.ledger.entries.get(id)) else {
            return;
        };
        held.looking = false;
        let about_another = entry.record.as_ref().and_then(|record| record.id) != Some(asked);
        match answer {
            // What is being done there says how it is.
            _ if busy => {}
            Answer::Seen(_) | Answer::NotFound if about_another => held.look_again = true,
            Answer::Seen(seen) => self.take_look(id, &seen, around),
            Answer::NotFound => self.container_gone(id, around),
            Answer::Away => self.engine_away(around),
            _ => {}
        }
        self.look_again(id, around);
    }

    pub(super) fn look_again(&mut self, id: &InstanceId, around: &mut Around<'_>) {
        let again = self.memory.as_ref().and_then(|m| m.held.get(id)).is_some_and(|held| held.look_again);
        if again {
            self.look_at_container(id, around);
        }
    }

    pub(super) fn take_look(&mut self, id: &InstanceId, seen: &Seen, around: &mut Around<'_>) {
        let Some(memory) = &mut self.memory else { return };
        let (Some(held), Some(entry)) = (memory.held.get_mut(id), self.ledger.entries.get(id)) else {
            return;
        };
        let Some(record) = &entry.record else { return };
        held.glance = Some((seen.state, seen.name.clone()));
        held.drifted = matches!(seen.state, State::Paused { .. }) || seen.name != record.name;
        let of_this_run = record.started.is_none_or(|started| started == seen.started);
        match seen.state {
            State::Running { pid } | State::Paused { pid } => {
                let known = matches!(held.run, Known::Alive { .. }) && record.started == Some(seen.started);
                if !known {
                    self.adopt_run(id, seen, pid, around);
                }
            }
            State::Created => {
                if let Known::Unknown { .. } | Known::Alive { .. } = held.run {
                    held.run = Known::NotStarted;
                }
            }
            State::Ended { status } => match held.run {
                // Looked at before it was started anew.
                Known::Alive { .. } if !of_this_run => {}
                Known::Alive { .. } | Known::Unknown { .. } => self.run_ended(id, Some(status), around),
                Known::NotStarted | Known::Ended => {}
            },
        }
    }

    /// It runs, and not by a start of ours that we know of: after our own absence, or because somebody started it.
    fn adopt_run(&mut self, id: &InstanceId, seen: &Seen, pid: u32, around: &mut Around<'_>) {
        let now = around.now;
        let Some(memory) = &mut self.memory else { return };
        let (Some(held), Some(entry)) = (memory.held.get_mut(id), self.ledger.entries.get_mut(id)) else {
            return;
        };
        let Some(record) = &mut entry.record else { return };
        let same = record.started == Some(seen.started);
        record.started = Some(seen.started);
        let spec = &entry.assigned.content.health;
        let began = entry.started.filter(|_| same).unwrap_or(now);
        let health =
            if same { Health::adopted(spec, began, entry.ready, now) } else { Health::new(spec, began) };
        entry.started = Some(began);
        entry.ready = health.ready;
        held.run = Known::Alive { pid };
        memory.health.insert(id.clone(), health);
        // It may have ended between the engine's word and now: the kernel says so at once.
        if self.sees_processes && !around.machine.is_alive(pid) {
            self.process_ended(id, around);
        }
    }

    /// `None`: nobody knows how.
    fn run_ended(&mut self, id: &InstanceId, status: Option<ExitStatus>, around: &mut Around<'_>) {
        let Some(memory) = &mut self.memory else { return };
        let (Some(held), Some(entry)) = (memory.held.get_mut(id), self.ledger.entries.get_mut(id)) else {
            return;
        };
        memory.health.remove(id);
        around.out.extend(endpoint(entry, EndpointHealth::Down));
        entry.ready = false;
        if entry.started.is_none() && status.is_none() {
            held.run = Known::NotStarted;
            return;
        }
        let exit = Exit { at: around.now, status: status.unwrap_or(ExitStatus::Unknown), why: None };
        entry.last_exit = Some(exit);
        held.run = Known::Ended;
    }

    /// Somebody removed it, and another is made in its place: by a nonce of its own, because copies bear the old one.
    fn container_gone(&mut self, id: &InstanceId, around: &mut Around<'_>) {
        let Some(memory) = &mut self.memory else { return };
        let (Some(held), Some(entry)) = (memory.held.get_mut(id), self.ledger.entries.get_mut(id)) else {
            return;
        };
        if entry.record.as_ref().is_some_and(|record| record.id.is_some()) {
            entry.record = None;
            entry.made_before = true;
        }
        held.drifted = false;
        match held.run {
            Known::Alive { .. } | Known::Unknown { .. } => self.run_ended(id, None, around),
            Known::NotStarted | Known::Ended => {}
        }
    }

    /// The kernel says that the first process of a container has ended; the engine is asked how.
    pub(super) fn process_ended(&mut self, id: &InstanceId, around: &mut Around<'_>) {
        let Some(memory) = &mut self.memory else { return };
        if let Some(entry) = self.ledger.entries.get_mut(id) {
            around.out.extend(endpoint(entry, EndpointHealth::Down));
        }
        // One that does not answer says nothing of it either.
        if memory.engine.away.is_some()
            && let Some(held) = memory.held.get_mut(id)
        {
            held.run = Known::Unknown { since: around.now };
        }
        self.look_at_container(id, around);
    }

    /// Which instance's container has this first process, as far as the kernel tells.
    pub(super) fn container_of(&self, pid: u32) -> Option<InstanceId> {
        let memory = self.memory.as_ref().filter(|_| self.sees_processes)?;
        let alive = |held: &Contained| matches!(held.run, Known::Alive { pid: other } if other == pid);
        memory.held.iter().find(|(_, held)| alive(held)).map(|(id, _)| id.clone())
    }

    /// After a start of the agent nothing is known of a container before its engine has been asked.
    pub(super) fn hold(&mut self, id: &InstanceId, now: Timestamp) {
        let (Some(memory), Some(entry)) = (&mut self.memory, self.ledger.entries.get(id)) else { return };
        if !is_container(entry) || memory.held.contains_key(id) {
            return;
        }
        // Nothing is asked of an engine: there is nothing to be unknown.
        let run = match (&entry.record, &entry.last_exit) {
            (Some(_), _) => Known::Unknown { since: now },
            // Somebody removed it. Its next start is no first one.
            (None, Some(_)) => Known::Ended,
            (None, None) => Known::NotStarted,
        };
        let held = Contained { run, looking: false, look_again: false, glance: None, drifted: false };
        memory.held.insert(id.clone(), held);
    }

    pub(super) fn container_run(&self, id: &InstanceId) -> Option<Run> {
        let memory = self.memory.as_ref()?;
        memory.held.get(id)?.run(self.ledger.entries.get(id)?, memory.health.get(id))
    }
}
