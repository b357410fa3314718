//! The engine's way of being asked, of telling, and of going away.

use model::Millis;
use rand::Rng;

use super::{Event, Play};
use crate::{
    engine::{Answer, Call, ContainerId, Daemon, Manner},
    node::Happens,
};

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
            Daemon::Up => {
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
            Daemon::Up => {}
        }
        let refuses = self.hosts[node].engine.is(Manner::Refuses, self.now)
            && matches!(call, Call::Create(_) | Call::Start(_) | Call::Stop(..) | Call::Remove(_))
            && self.rng.random_bool(0.5);
        let (answer, takes) = if refuses {
            (Answer::Refused, Millis(1))
        } else {
            self.act(node, |host, around| host.engine.perform(&call, around))
        };
        // What takes longer than the asker waits is given up by it.
        let answer = if takes > call.bound() { Answer::Away } else { answer };
        if answers {
            let says = Happens::EngineSays { epoch, ticket, answer };
            self.later(node, takes.min(call.bound()), says);
        }
    }

    /// An event, to whoever listens: late, twice, or lost.
    pub(super) fn engine_tells(&mut self, node: usize, container: ContainerId) {
        let host = &self.hosts[node];
        let Some(epoch) = host.agent.hears_engine().filter(|_| host.engine.daemon == Daemon::Up) else {
            return;
        };
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
            self.later(node, delay, Happens::EngineNews { epoch, container });
        }
    }

    pub(super) fn engine_hangs(&mut self, node: usize, lasts: Millis) {
        if self.hosts[node].engine.daemon == Daemon::Up {
            self.hosts[node].engine.daemon = Daemon::Hangs;
            self.later(node, lasts, Happens::EngineGoesOn);
        }
    }

    /// It has read what was sent to it meanwhile, and does it, whoever has given up on it.
    pub(super) fn engine_goes_on(&mut self, node: usize) {
        if self.hosts[node].engine.daemon != Daemon::Hangs {
            return;
        }
        self.hosts[node].engine.daemon = Daemon::Up;
        for call in std::mem::take(&mut self.hosts[node].engine.unread) {
            self.act(node, |host, around| host.engine.perform(&call, around));
        }
    }

    pub(super) fn engine_ends(&mut self, node: usize, down: Millis, with_its_containers: bool) {
        let engine = &mut self.hosts[node].engine;
        engine.daemon = Daemon::Down;
        engine.boot += 1;
        engine.unread.clear();
        if with_its_containers {
            let pids: Vec<u32> = engine.containers.values().filter_map(|container| container.pid()).collect();
            for pid in pids {
                self.strangers.remove(&pid);
                self.dies(node, pid, true);
            }
        }
        self.node(node, |agent, around| agent.engine_cut(around));
        self.later(node, down, Happens::EngineUp);
    }

    pub(super) fn engine_up(&mut self, node: usize) {
        let engine = &mut self.hosts[node].engine;
        if engine.daemon == Daemon::Down {
            engine.daemon = Daemon::Up;
        }
    }
}
