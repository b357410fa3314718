//! What the agent wants done outside of itself, and the ends of its processes.

use model::{Millis, observation::ExitStatus};

use super::{Event, Out, Play};
use crate::{
    edge::Request,
    machine::EndReason,
    node::{Agent, Around},
    story::Link,
};

impl Play<'_> {
    pub(super) fn node(&mut self, act: impl FnOnce(&mut Agent, &mut Around<'_>)) {
        let mut out = Vec::new();
        let mut around = Around {
            machine: &mut self.machine,
            truth: &mut self.truth,
            now: self.now,
            rng: &mut self.rng,
            out: &mut out,
        };
        act(&mut self.agent, &mut around);
        for out in out {
            self.carry_out(out);
        }
    }

    fn carry_out(&mut self, out: Out) {
        match out {
            Out::At(at, event) => self.at(at, event),
            Out::NodeSays(observation) => self.send(Link::NodeToServer, &Event::NodeSays(observation)),
            Out::Endpoint(event) => {
                let boot = self.edge.boot;
                self.after(Millis(1), Event::Endpoint { boot, event });
            }
            Out::Told { pid, reason } => self.told_to_end(pid, reason),
            Out::Trace(line) => self.told(line),
        }
    }

    fn told_to_end(&mut self, pid: u32, reason: EndReason) {
        let Some(process) = self.machine.processes.get(&pid) else { return };
        let id = process.id.clone();
        if self.strangers.contains(&pid) {
            self.truth.fail("I13", self.now, format!("a stranger with the marks of {id} was told to end"));
        }
        // One that was misrouted is told of as such.
        let of_this = |request: &&Request| request.pid == pid && request.instance == id;
        let requests = self.edge.requests.values().filter(of_this).count();
        if reason == EndReason::Removed && requests > 0 {
            self.truth.ended_with_requests(self.now, &id, requests);
        }
    }

    pub(super) fn dies(&mut self, pid: u32, by_hand: bool) {
        let now = self.now;
        let Some(process) = self.machine.processes.get_mut(&pid).filter(|process| process.alive) else {
            return;
        };
        process.alive = false;
        let (id, told) = (process.id.clone(), process.told_to_end);
        let worked = process.answers_at.is_some_and(|at| at <= now);
        self.told(format!("{id} pid {pid} ends"));
        if by_hand || (told.is_none() && worked) || told == Some(EndReason::Unhealthy) {
            self.truth.disturbed(now, &id.service);
        }
        self.edge.requests.retain(|_, request| request.pid != pid);
        let status = if by_hand { ExitStatus::Signal(9) } else { ExitStatus::Code(1) };
        self.node(|agent, around| agent.exited(pid, status, around));
        self.machine.processes.remove(&pid);
    }
}
