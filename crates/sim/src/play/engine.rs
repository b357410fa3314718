//! The engine's way of being asked, of telling, and of going away.

use model::Millis;
use rand::Rng;

use super::{Event, Play};
use crate::{
    engine::{Answer, Call, Container, ContainerId, Daemon, Manner},
    machine::EndReason,
    node::Happens,
    shape::{Character, STOP_GRACE},
    story::Ending,
};

/// Between the last word of an engine that was told to end, and its end.
const LAST_WORDS: Millis = Millis(5);

impl Play<'_> {
    fn later(&mut self, node: usize, delay: Millis, what: Happens) {
        self.after(delay, Event::AtNode { node, what });
    }

    pub(super) fn ask_engine(&mut self, node: usize, epoch: u64, ticket: u64, call: Call) {
        let engine = &self.hosts[node].engine;
        let refused = Happens::EngineSays { epoch, ticket, answer: Answer::Away };
        match engine.daemon {
            // Nobody listens there.
            Daemon::Down => self.later(node, Millis(1), refused),
            Daemon::Hangs => {
                let bound = call.bound();
                self.hosts[node].engine.unread.push(call);
                self.later(node, bound, refused);
            }
            Daemon::Up | Daemon::Ending => {
                let unanswered = engine.is(Manner::Unanswered, self.now) && self.rng.random_bool(0.5);
                if unanswered {
                    self.later(node, call.bound(), refused);
                }
                let takes = match call {
                    Call::Create(_) | Call::Start(_) => Millis(self.rng.random_range(5..300)),
                    _ => Millis(self.rng.random_range(1..15)),
                };
                let does = Happens::EngineDoes { epoch, ticket, call, answers: !unanswered };
                self.later(node, takes, does);
            }
        }
    }

    pub(super) fn engine_does(&mut self, node: usize, epoch: u64, ticket: u64, call: Call, answers: bool) {
        let away = Happens::EngineSays { epoch, ticket, answer: Answer::Away };
        match self.hosts[node].engine.daemon {
            Daemon::Down => return self.later(node, Millis(1), away),
            Daemon::Hangs => {
                let bound = call.bound();
                self.hosts[node].engine.unread.push(call);
                return self.later(node, bound, away);
            }
            Daemon::Up | Daemon::Ending => {}
        }
        let refuses = self.hosts[node].engine.is(Manner::Refuses, self.now)
            && matches!(call, Call::Create(_) | Call::Start(_) | Call::Stop(..) | Call::Remove(_))
            && self.rng.random_bool(0.5);
        let (answer, takes) = if refuses {
            (Answer::Refused, Millis(1))
        } else {
            self.act(node, |host, around| host.engine.perform(&call, around))
        };
        if let Call::Start(id) = call {
            self.end_what_is_started(node, id);
        }
        // What takes longer than the asker waits is given up by it.
        let answer = if takes > call.bound() { Answer::Away } else { answer };
        if answers {
            let says = Happens::EngineSays { epoch, ticket, answer };
            self.later(node, takes.min(call.bound()), says);
        }
    }

    /// Something happened to a container.
    pub(super) fn engine_tells(&mut self, node: usize, container: ContainerId) {
        self.engine_event(node, container, None);
    }

    /// It was asked to end a run, by somebody else than the agent.
    pub(super) fn engine_tells_of_deed(&mut self, node: usize, container: ContainerId, run: u64) {
        self.engine_event(node, container, Some(run));
    }

    /// An event, to whoever listens: late, twice, or lost.
    fn engine_event(&mut self, node: usize, container: ContainerId, ends: Option<u64>) {
        let host = &self.hosts[node];
        let Some(epoch) = host.agent.hears_engine().filter(|_| host.engine.is_up()) else { return };
        let boot = host.engine.boot;
        let is = |manner| host.engine.is(manner, self.now);
        let (lost, late, twice) = (is(Manner::NewsLost), is(Manner::NewsLate), is(Manner::NewsTwice));
        if lost {
            return;
        }
        let mut delays = vec![Millis(if late { self.rng.random_range(100..5_000) } else { 2 })];
        if twice {
            delays.push(Millis(self.rng.random_range(2..5_000)));
        }
        for delay in delays {
            self.later(node, delay, Happens::EngineNews { epoch, boot, container, ends });
        }
    }

    pub(super) fn engine_hangs(&mut self, node: usize, lasts: Millis) {
        if self.hosts[node].engine.daemon == Daemon::Up {
            self.hosts[node].engine.daemon = Daemon::Hangs;
            self.truth.ends.engine_goes(self.now, &self.hosts[node].agent.id);
            self.later(node, lasts, Happens::EngineGoesOn);
        }
    }

    /// It has read what was sent to it meanwhile, and does it, whoever has given up on it.
    pub(super) fn engine_goes_on(&mut self, node: usize) {
        if self.hosts[node].engine.daemon != Daemon::Hangs {
            return;
        }
        self.hosts[node].engine.answers(self.now);
        for call in std::mem::take(&mut self.hosts[node].engine.unread) {
            self.act(node, |host, around| host.engine.perform(&call, around));
        }
    }

    pub(super) fn engine_ends(&mut self, node: usize, down: Millis, ending: Ending) {
        match ending {
            Ending::InOrder if self.hosts[node].engine.daemon == Daemon::Up => self.engine_stops(node, down),
            Ending::InOrder | Ending::TakesThem => self.engine_goes(node, down, true),
            Ending::LeavesThem => self.engine_goes(node, down, false),
            Ending::EndsThemLater => {
                self.engine_goes(node, down, false);
                self.hosts[node].engine.ends_first = true;
            }
        }
    }

    /// It ends each of its containers within its grace.
    fn engine_stops(&mut self, node: usize, down: Millis) {
        let is_told = self.tells_all(node);
        let engine = &mut self.hosts[node].engine;
        engine.daemon = Daemon::Ending;
        let boot = engine.boot;
        let running: Vec<(ContainerId, u64, u32)> = engine
            .containers
            .iter()
            .filter_map(|(id, container)| Some((*id, container.started, container.pid()?)))
            .collect();
        let mut longest = Millis::ZERO;
        for (id, run, pid) in running {
            longest = longest.max(self.end_by_engine(node, (id, run, pid), is_told));
        }
        self.later(node, Millis(longest.0 + LAST_WORDS.0), Happens::EngineGoes { boot, down });
    }

    /// Told first, and done within its grace.
    fn end_by_engine(
        &mut self,
        node: usize,
        (id, run, pid): (ContainerId, u64, u32),
        is_told: bool,
    ) -> Millis {
        self.engine_tells_of_deed(node, id, run);
        let ends = self.told_by_engine(node, pid, is_told);
        self.later(node, ends, Happens::Dies { pid });
        ends
    }

    /// An engine that is about to end does what it is asked, and ends that as well.
    fn end_what_is_started(&mut self, node: usize, id: ContainerId) {
        let engine = &self.hosts[node].engine;
        let started = engine.containers.get(&id).filter(|_| engine.daemon == Daemon::Ending);
        let Some((run, pid)) = started.and_then(|container| Some((container.started, container.pid()?)))
        else {
            return;
        };
        let is_told = self.tells_all(node);
        self.end_by_engine(node, (id, run, pid), is_told);
    }

    /// Whether all that it says is heard.
    fn tells_all(&self, node: usize) -> bool {
        let host = &self.hosts[node];
        host.agent.hears_engine().is_some() && host.engine.is_up() && !host.engine.is_troubled(self.now)
    }

    /// When it will have ended.
    fn told_by_engine(&mut self, node: usize, pid: u32, is_told: bool) -> Millis {
        self.strangers.remove(&pid);
        let at_most_soon = Millis(self.rng.random_range(2..120));
        let Some(process) = self.hosts[node].machine.processes.get_mut(&pid) else { return Millis::ZERO };
        process.told_to_end.get_or_insert(EndReason::WithEngine { is_told });
        if process.character == Character::Stubborn { STOP_GRACE } else { at_most_soon }
    }

    /// It has ended its containers. What was started meanwhile ends with it.
    pub(super) fn engine_stopped(&mut self, node: usize, boot: u64, down: Millis) {
        if self.hosts[node].engine.boot == boot {
            self.engine_goes(node, down, true);
        }
    }

    fn engine_goes(&mut self, node: usize, down: Millis, with_its_containers: bool) {
        self.truth.ends.engine_goes(self.now, &self.hosts[node].agent.id);
        let engine = &mut self.hosts[node].engine;
        engine.daemon = Daemon::Down;
        engine.boot += 1;
        engine.unread.clear();
        engine.ends_first = false;
        if with_its_containers {
            self.end_all(node);
        }
        self.node(node, |agent, around| agent.engine_cut(around));
        self.later(node, down, Happens::EngineUp);
    }

    fn end_all(&mut self, node: usize) {
        let containers = self.hosts[node].engine.containers.values();
        for pid in containers.filter_map(Container::pid).collect::<Vec<u32>>() {
            self.told_by_engine(node, pid, true);
            self.dies(node, pid, true);
        }
    }

    pub(super) fn engine_up(&mut self, node: usize) {
        if self.hosts[node].engine.daemon != Daemon::Down {
            return;
        }
        let ends_first = std::mem::take(&mut self.hosts[node].engine.ends_first);
        if ends_first {
            self.end_all(node);
        }
        self.hosts[node].engine.begins(self.now);
    }
}
