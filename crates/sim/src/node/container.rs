//! What the agent knows of containers: only what their engine has said of each of them, and what the kernel says of
//! their ends. Lists and events say where to look, never what is gone.

use std::collections::BTreeSet;

use decide::{
    health::Health,
    node::Run,
    outage::{self, Outage},
};
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

/// Why a run ended that an engine was asked to end.
const STOP: &str = "engine: stop";

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
    /// Since when its engine has told nothing of it, if only that would tell its end.
    pub untold: Option<Timestamp>,
    /// Its engine has not been asked since the agent's start.
    pub unasked: bool,
    /// When the kernel said that its run has ended.
    pub ended_at: Option<Timestamp>,
    /// The run that somebody had the engine end, as far as it has told.
    asked_to_end: Option<u64>,
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
    /// The last time that it answered nothing at all.
    pub outage: Option<Outage>,
    /// When it began, as it said first after the agent's start.
    began: Option<Timestamp>,
    listing: bool,
    list_again: bool,
    next_list: Option<Timestamp>,
    next_ping: Option<Timestamp>,
    pinging: bool,
    /// The stream of events is open.
    pub stream: bool,
}

impl View {
    pub(super) fn is_known(&self) -> bool {
        self.began.is_some() && self.away.is_none()
    }
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
        let Answer::Here { began } = answer else {
            memory.engine.next_ping = Some(now + RETRY);
            return self.engine_gone(around);
        };
        if memory.engine.began.is_none() {
            memory.engine.began = Some(*began);
            let outage = Outage::until(*began);
            memory.engine.outage.get_or_insert(outage);
            self.give_back_attempts(outage, now);
        }
        let Some(memory) = &mut self.memory else { return };
        memory.engine.next_ping = Some(now + SILENCE);
        if memory.engine.away.is_some() || !memory.engine.stream {
            memory.engine.stream = true;
            for held in memory.held.values_mut() {
                held.glance = None;
            }
            self.list(around);
        }
    }

    /// It answers nothing at all: what ended meanwhile has ended with it.
    fn engine_gone(&mut self, around: &mut Around<'_>) {
        self.engine_away(around);
        let now = around.now;
        let Some(memory) = &mut self.memory else { return };
        if memory.engine.outage.is_some_and(|outage| outage.until.is_none()) {
            return;
        }
        let outage = Outage { since: memory.engine.away.unwrap_or(now), until: None };
        memory.engine.outage = Some(outage);
        self.give_back_attempts(outage, now);
    }

    fn give_back_attempts(&mut self, outage: Outage, now: Timestamp) {
        for entry in self.ledger.entries.values_mut().filter(|entry| is_container(entry)) {
            let (policy, ends) = (&entry.assigned.restart, entry.ends_before.iter().chain(&entry.last_exit));
            if let Some(attempts) = outage.gives_back(policy, &entry.attempts, ends, now) {
                entry.attempts = attempts;
            }
        }
    }

    pub(super) fn engine_away(&mut self, around: &mut Around<'_>) {
        let Some(memory) = &mut self.memory else { return };
        memory.engine.away.get_or_insert(around.now);
        // Events may be missed from now on.
        for held in memory.held.values_mut() {
            held.asked_to_end = None;
        }
        let soon = around.now + RETRY;
        memory.engine.next_ping = Some(memory.engine.next_ping.map_or(soon, |at| at.min(soon)));
        self.look_at(soon, around);
    }

    /// The engine went, and its stream of events with it.
    pub fn engine_cut(&mut self, around: &mut Around<'_>) {
        let Some(memory) = &mut self.memory else { return };
        if std::mem::take(&mut memory.engine.stream) {
            self.engine_gone(around);
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

    /// Something happened to a container: a word to look, and no more, unless it says why a run `ends`.
    pub fn engine_news(
        &mut self,
        epoch: u64,
        container: ContainerId,
        ends: Option<u64>,
        around: &mut Around<'_>,
    ) {
        if epoch != self.epoch {
            return;
        }
        let of_record = |entry: &Entry| entry.record.as_ref().and_then(|record| record.id) == Some(container);
        let found = self.ledger.entries.iter().find(|(_, entry)| of_record(entry)).map(|(id, _)| id.clone());
        if let Some(id) = found {
            if let Some(run) = ends {
                self.note_deed(&id, run);
            }
            self.look_at_container(&id, around);
        }
        self.look_at(around.now, around);
    }

    /// It comes before the end that it is about, or after.
    fn note_deed(&mut self, id: &InstanceId, run: u64) {
        let held = self.memory.as_mut().and_then(|memory| memory.held.get_mut(id));
        if let Some(held) = held {
            held.asked_to_end = Some(run);
            self.lay_end_to_deed(id);
        }
    }

    fn lay_end_to_deed(&mut self, id: &InstanceId) {
        let held = self.memory.as_ref().and_then(|memory| memory.held.get(id));
        let (Some(held), Some(entry)) = (held, self.ledger.entries.get_mut(id)) else { return };
        if held.asked_to_end.is_some() && held.asked_to_end == entry.ended_run {
            entry.last_exit = entry.last_exit.take().map(|exit| Exit { why: Some(STOP.into()), ..exit });
        }
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
                if let Some(since) = memory.engine.away.take() {
                    if let Some(outage) = memory.engine.outage.as_mut().filter(|o| o.until.is_none()) {
                        outage.until = Some(around.now);
                    }
                    let unseen = |held: &&mut Contained| !self.sees_processes && held.pid().is_some();
                    for held in memory.held.values_mut().filter(unseen) {
                        held.untold = Some(since);
                    }
                }
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
        held.untold = None;
        let about_another = entry.record.as_ref().and_then(|record| record.id) != Some(asked);
        match answer {
            // What is being done there says how it is.
            _ if busy => {}
            Answer::Seen(_) | Answer::NotFound if about_another => held.look_again = true,
            Answer::Seen(seen) => self.take_look(id, &seen, around),
            Answer::NotFound => self.container_gone(id, around),
            Answer::Away => {
                // The kernel says that it has ended, and the engine says nothing.
                if held.ended_at.is_some() {
                    held.run = Known::Unknown { since: around.now };
                }
                self.engine_away(around);
            }
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
        let (Some(held), Some(entry)) = (memory.held.get_mut(id), self.ledger.entries.get_mut(id)) else {
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
            State::Ended { status, at } => match held.run {
                // Looked at before it was started anew.
                Known::Alive { .. } if !of_this_run => {}
                Known::Alive { .. } => {
                    let at = held.ended_at.unwrap_or(at);
                    self.run_ended(id, Some(Exit { at, status, why: None }), around);
                }
                // Whether it ended with its engine is known once that has been listed, and then it is looked at again.
                Known::Unknown { .. } if memory.engine.away.is_some() => {}
                Known::Unknown { .. } => {
                    // A start that nobody heard of was made, and what was counted for it is spent.
                    entry.granted &= of_this_run;
                    let exit = Exit { at: held.ended_at.unwrap_or(at), status, why: None };
                    let exit = match memory.engine.began.filter(|_| held.unasked) {
                        Some(began) => outage::lay_unwatched(exit, Some(seen.began), at, began),
                        None => exit,
                    };
                    self.ended_unseen(id, Some(exit), around);
                }
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
        entry.granted = false;
        held.run = Known::Alive { pid };
        held.ended_at = None;
        held.unasked = false;
        memory.health.insert(id.clone(), health);
        // It may have ended between the engine's word and now: the kernel says so at once.
        if self.sees_processes && !around.machine.is_alive(pid) {
            self.process_ended(id, around);
        }
    }

    /// It ended while nobody watched. `None`: nobody knows how.
    fn ended_unseen(&mut self, id: &InstanceId, exit: Option<Exit>, around: &mut Around<'_>) {
        let Some(entry) = self.ledger.entries.get(id) else { return };
        let run = entry.record.as_ref().and_then(|record| record.started);
        let is_told = run.is_some() && entry.ended_run == run;
        let told = entry.last_exit.clone().filter(|_| is_told);
        self.run_ended(id, told.or(exit), around);
    }

    fn run_ended(&mut self, id: &InstanceId, exit: Option<Exit>, around: &mut Around<'_>) {
        let Some(memory) = &mut self.memory else { return };
        let (Some(held), Some(entry)) = (memory.held.get_mut(id), self.ledger.entries.get_mut(id)) else {
            return;
        };
        memory.health.remove(id);
        around.out.extend(endpoint(entry, EndpointHealth::Down));
        entry.ready = false;
        if entry.started.is_none() && exit.is_none() {
            held.run = Known::NotStarted;
            return;
        }
        let at = held.ended_at.take().unwrap_or(around.now);
        let unknown = Exit { at, status: ExitStatus::Unknown, why: None };
        let mut exit = exit.unwrap_or(unknown);
        let run = entry.record.as_ref().and_then(|record| record.started);
        // Found after its engine had gone, it lacks the engine's word for it.
        if entry.ended_run != run
            && let Some(outage) = memory.engine.outage
        {
            exit = outage.lay(exit);
        }
        if entry.ended_run != run {
            outage::keep_end(&mut entry.ends_before, entry.last_exit.take(), exit.at);
        }
        entry.last_exit = Some(exit);
        entry.ended_run = run;
        held.run = Known::Ended;
        held.unasked = false;
        self.lay_end_to_deed(id);
    }

    /// Somebody removed it, and another is made in its place: by a nonce of its own, because copies bear the old one.
    fn container_gone(&mut self, id: &InstanceId, around: &mut Around<'_>) {
        let Some(memory) = &mut self.memory else { return };
        let Some(held) = memory.held.get_mut(id) else { return };
        held.drifted = false;
        let ended = matches!(held.run, Known::Alive { .. } | Known::Unknown { .. });
        if ended {
            self.ended_unseen(id, None, around);
        }
        let entry = self.ledger.entries.get_mut(id);
        if let Some(entry) = entry.filter(|e| e.record.as_ref().is_some_and(|record| record.id.is_some())) {
            entry.record = None;
            entry.made_before = true;
        }
    }

    /// The kernel says that the first process of a container has ended; the engine is asked how.
    pub(super) fn process_ended(&mut self, id: &InstanceId, around: &mut Around<'_>) {
        let Some(memory) = &mut self.memory else { return };
        if let Some(entry) = self.ledger.entries.get_mut(id) {
            around.out.extend(endpoint(entry, EndpointHealth::Down));
        }
        if let Some(held) = memory.held.get_mut(id) {
            held.ended_at = Some(around.now);
            // One that does not answer says nothing of it either.
            if memory.engine.away.is_some() {
                held.run = Known::Unknown { since: around.now };
            }
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
        let held = Contained {
            run,
            looking: false,
            look_again: false,
            glance: None,
            drifted: false,
            untold: None,
            unasked: true,
            ended_at: None,
            asked_to_end: None,
        };
        memory.held.insert(id.clone(), held);
    }

    pub(super) fn container_run(&self, id: &InstanceId) -> Option<Run> {
        let memory = self.memory.as_ref()?;
        memory.held.get(id)?.run(self.ledger.entries.get(id)?, memory.health.get(id))
    }
}
