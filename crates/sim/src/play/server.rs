//! The server's life: it starts, makes a pass, publishes what it has committed, and crashes.

use std::sync::Arc;

use decide::view::View;
use model::{Millis, Timestamp};

use super::{Event, Play};
use crate::{
    node::Happens,
    server::{PERIOD, Passed},
    story::Link,
};

impl Play<'_> {
    pub(super) fn server_up(&mut self) {
        if self.server.memory.is_some() {
            return;
        }
        let nodes = self.hosts.iter().map(|host| host.agent.id.clone()).collect();
        let edges = self.edges.iter().map(crate::edge::Edge::id).collect();
        self.server.start(&mut self.store, nodes, edges, &self.unreadable, self.now);
        self.told(format!("server up, term {}", self.store.term));
        let epoch = self.server.epoch;
        self.after(Millis(0), Event::ServerTick { epoch });
    }

    pub(super) fn server_crash(&mut self, down: Millis) {
        self.told("server crashes".into());
        self.server.crash();
        self.after(down, Event::ServerUp);
    }

    pub(super) fn server_tick(&mut self, epoch: u64) {
        if self.server.memory.is_some() && self.server.epoch == epoch {
            if let Some(memory) = &mut self.server.memory {
                memory.full = true;
            }
            self.look();
            self.publish();
            self.after(PERIOD, Event::ServerTick { epoch });
        }
    }

    /// News reach the server; a sign of life that says nothing new costs no pass.
    pub(super) fn server_told(&mut self, news: impl FnOnce(&mut View)) {
        let now = self.now;
        if self.server.memory.as_mut().is_some_and(|memory| memory.told(now, news)) {
            self.look();
        }
    }

    /// The server reads its store again.
    pub(super) fn server_reads(&mut self) {
        let now = self.now;
        if let Some(memory) = &mut self.server.memory {
            memory.view.snapshot.now = now;
            memory.reload(&self.store, &self.unreadable);
            self.look();
        }
    }

    /// A pass soon; a burst of changes is one.
    pub(super) fn look(&mut self) {
        self.look_at(self.now + Millis(1));
    }

    fn look_at(&mut self, at: Timestamp) {
        let Some(memory) = &mut self.server.memory else { return };
        if memory.next_pass.is_none_or(|next| at < next) {
            memory.next_pass = Some(at);
            let epoch = self.server.epoch;
            self.at(at, Event::ServerPass { epoch });
        }
    }

    pub(super) fn server_pass(&mut self, epoch: u64) {
        let Some(memory) = &mut self.server.memory else { return };
        if self.server.epoch != epoch || memory.next_pass.is_none_or(|at| at > self.now) {
            return;
        }
        memory.next_pass = None;
        if let Some((false, _)) = self.crash_at_commit {
            self.store.next_unknown = Some(false);
        }
        let passed = memory.pass(&mut self.store, &self.unreadable, self.now, self.options.linted);
        let holds_until = memory.holds_until;
        if let Some(id) = memory.blind.take() {
            self.truth.fail("I14", self.now, format!("{id} is taken away although nobody knows what it is"));
        }
        match passed {
            Passed::Nothing => {
                if let Some(at) = holds_until {
                    self.look_at(at);
                }
                if matches!(self.crash_at_commit, Some((false, _))) {
                    self.store.next_unknown = None;
                }
                return;
            }
            Passed::Objected(objections) => {
                for objection in objections {
                    self.truth.fail("LINT", self.now, objection.to_string());
                }
                return;
            }
            Passed::Missed(key) => {
                let message = format!("{key} was to be decided about, and no event had told of it");
                return self.truth.fail("SCOPE", self.now, message);
            }
            Passed::Refused(refused) => self.told(format!("commit {refused:?}")),
            Passed::Committed(plan) => {
                for decision in &plan.decisions {
                    self.told(format!("plan {} {} {:?}", plan.generation, decision.key, events(decision)));
                }
            }
        }
        self.truth.recorded(self.now, &self.store);
        if let Some((_, down)) = self.crash_at_commit.take() {
            self.server_crash(down);
            return;
        }
        self.publish();
        self.look();
    }

    fn publish(&mut self) {
        let Some(memory) = &self.server.memory else { return };
        let ids: Vec<_> = self.hosts.iter().map(|host| &host.agent.id).collect();
        let (assignments, table) = memory.messages(&ids);
        for (node, assignment) in assignments.into_iter().enumerate() {
            let what = Happens::Offered(Arc::new(assignment));
            self.send(Link::ServerToNode(node), &Event::AtNode { node, what });
        }
        let table = Arc::new(table);
        for edge in 0..self.edges.len() {
            self.send(Link::ServerToEdge(edge), &Event::ToEdge { edge, table: Arc::clone(&table) });
        }
    }
}

fn events(decision: &model::plan::Decision) -> Vec<String> {
    decision.events.iter().map(|event| event.message.clone()).collect()
}
