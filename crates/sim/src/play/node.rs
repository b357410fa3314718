//! What comes to a node, what its agent wants done outside of itself, and the ends of its processes.

use model::{Millis, observation::ExitStatus};

use super::{Event, Host, Out, Play};
use crate::{
    edge::Request,
    ends::{End, Whose},
    engine::ContainerId,
    machine::EndReason,
    node::{Around, Happens},
    story::Link,
};

impl Play<'_> {
    pub(super) fn node(&mut self, node: usize, act: impl FnOnce(&mut super::Agent, &mut Around<'_>)) {
        self.act(node, |host, around| act(host.agent, around));
    }

    /// Something acts on a node. Its machine is lent to what acts.
    pub(super) fn act<T>(&mut self, node: usize, act: impl FnOnce(&mut Lent<'_>, &mut Around<'_>) -> T) -> T {
        let mut out = Vec::new();
        let Host { agent, machine, engine } = &mut self.hosts[node];
        let mut around =
            Around { machine, truth: &mut self.truth, now: self.now, rng: &mut self.rng, out: &mut out };
        let acted = act(&mut Lent { agent, engine }, &mut around);
        for out in out {
            self.carry_out(node, out);
        }
        acted
    }

    pub(super) fn at_node(&mut self, node: usize, what: Happens) {
        match what {
            Happens::Up => self.node_up(node),
            Happens::Look { epoch } => self.node(node, |agent, around| agent.look(epoch, around)),
            Happens::Done { epoch, id, serial } => {
                self.node(node, |agent, around| agent.done(epoch, &id, serial, around));
            }
            Happens::Offered(assignment) => {
                self.node(node, |agent, around| agent.offered(assignment, around));
            }
            Happens::Dies { pid } => self.dies(node, pid, false),
            Happens::EngineUp => self.engine_up(node),
            Happens::EngineGoesOn => self.engine_goes_on(node),
            Happens::EngineDoes { epoch, ticket, call, answers } => {
                self.engine_does(node, epoch, ticket, call, answers);
            }
            Happens::EngineSays { epoch, ticket, answer } => {
                self.node(node, |agent, around| agent.engine_says(epoch, ticket, answer, around));
            }
            Happens::EngineGoes { boot, down } => self.engine_stopped(node, boot, down),
            // The stream of events ends with the engine.
            Happens::EngineNews { boot, .. } if boot != self.hosts[node].engine.boot => {}
            Happens::EngineNews { epoch, container, ends, .. } => {
                self.node(node, |agent, around| agent.engine_news(epoch, container, ends, around));
            }
        }
    }

    fn carry_out(&mut self, node: usize, out: Out) {
        match out {
            Out::At(at, what) => self.at(at, Event::AtNode { node, what }),
            Out::Ask { epoch, ticket, call } => self.ask_engine(node, epoch, ticket, call),
            Out::News(container) => self.engine_tells(node, container),
            Out::Removes(id) => self.truth.removes(self.now, &id, &self.store),
            Out::NodeSays(observation) => {
                self.send(Link::NodeToServer(node), &Event::NodeSays(observation));
            }
            // To the edge on the same machine.
            Out::Endpoint(event) => {
                if let Some(edge) = self.edges.get(node) {
                    let boot = edge.boot;
                    self.after(Millis(1), Event::Endpoint { edge: node, boot, event });
                }
            }
            Out::Told { pid, reason } => self.told_to_end(node, pid, reason),
            Out::Trace(line) => self.told(line),
        }
    }

    fn told_to_end(&mut self, node: usize, pid: u32, reason: EndReason) {
        let Some(process) = self.hosts[node].machine.processes.get(&pid) else { return };
        let id = process.id.clone();
        if process.stranger {
            self.truth.fail("I13", self.now, format!("a stranger with the marks of {id} was told to end"));
        }
        // One that was misrouted is told of as such.
        let of_this = |request: &&Request| request.pid == pid && request.instance == id;
        let requests = self.edges.iter().flat_map(|edge| edge.requests.values()).filter(of_this).count();
        if reason == EndReason::Removed && requests > 0 {
            self.truth.ended_with_requests(self.now, &id, requests);
        }
    }

    pub(super) fn dies(&mut self, node: usize, pid: u32, by_hand: bool) {
        let now = self.now;
        let process = self.hosts[node].machine.processes.get_mut(&pid);
        let Some(process) = process.filter(|process| process.alive) else { return };
        process.alive = false;
        let (id, release) = (process.id.clone(), process.release);
        let (told, container) = (process.told_to_end, process.container);
        let worked = process.answers_at.is_some_and(|at| at <= now);
        self.told(format!("{id} pid {pid} ends"));
        match told {
            Some(EndReason::Removed) if !by_hand => {}
            None if !by_hand && !worked => {}
            Some(_) | None => self.truth.disturbed(now, &id.service),
        }
        for edge in &mut self.edges {
            edge.requests.retain(|_, request| request.pid != pid);
        }
        let status = if by_hand { ExitStatus::Signal(9) } else { ExitStatus::Code(1) };
        if let Some(whose) = self.whose_end(node, told, container, by_hand) {
            let end = End::new(now, &self.hosts[node].agent.id, whose);
            self.truth.ends.ended(now, &id, release, end);
        }
        if let Some(container) = container {
            self.hosts[node].engine.ended(container, pid, status, now);
            self.engine_tells(node, container);
        }
        self.node(node, |agent, around| agent.exited(pid, status, around));
        self.hosts[node].machine.processes.remove(&pid);
    }
}

impl Play<'_> {
    fn node_up(&mut self, node: usize) {
        let Host { agent, engine, .. } = &self.hosts[node];
        if !agent.is_up() {
            self.truth.ends.agent_begins(&agent.id, engine);
            self.node(node, |agent, around| agent.start(around));
        }
    }

    /// Whose doing an end is that a restart may follow.
    fn whose_end(
        &self,
        node: usize,
        told: Option<EndReason>,
        container: Option<ContainerId>,
        by_hand: bool,
    ) -> Option<Whose> {
        let Host { agent, engine, .. } = &self.hosts[node];
        // Before anybody looks the engine may go as well.
        let may_seem_away = engine.may_seem_away(self.now) || !agent.is_up();
        match told {
            // What is unhealthy is counted when that is decided.
            Some(EndReason::Removed | EndReason::Unhealthy) => None,
            // Whoever was away finds out.
            Some(EndReason::WithEngine { is_told }) if is_told || !agent.is_up() => Some(Whose::Engine),
            Some(EndReason::WithEngine { .. }) => Some(Whose::Unclear),
            // A hand has an engine end what it holds, which is what an engine does that is stopped.
            None if container.is_some() && (by_hand || may_seem_away) => Some(Whose::Unclear),
            None => Some(Whose::Workload),
        }
    }
}

/// A node without its machine.
pub(super) struct Lent<'a> {
    pub agent: &'a mut super::Agent,
    pub engine: &'a mut crate::engine::Engine,
}
