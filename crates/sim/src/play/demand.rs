//! What must hold: after every step, and once the faults have healed.

use decide::status;
use model::ServiceKey;

use super::{AUDIT, BEGINNING, CONVERGES_WITHIN, Event, LOOKED_AT_EACH, Play, RESTS_FOR};
use crate::{engine::Maker, story::HEALS, truth::Seen};

impl Play<'_> {
    pub(super) fn examine(&mut self) {
        let mut truth = std::mem::take(&mut self.truth);
        self.mended();
        truth.examine(self.now, &self.seen());
        self.truth = truth;
    }

    /// What a hand has damaged is put back once the link leads to a whole folder again.
    fn mended(&mut self) {
        let hosts = &self.hosts;
        self.by_hand.retain(|service| {
            hosts.iter().map(|host| &host.machine).any(|machine| {
                let link = machine.links.get(service);
                link.is_some_and(|link| machine.folders.get(link).is_none_or(|f| !f.complete || f.damaged))
            })
        });
    }

    fn seen(&self) -> Seen<'_> {
        Seen {
            store: &self.store,
            hosts: &self.hosts,
            edges: &self.edges,
            shapes: &self.story.shapes,
            by_hand: &self.by_hand,
        }
    }

    pub(super) fn audit(&mut self) {
        self.after(AUDIT, Event::Audit);
        let mut truth = std::mem::take(&mut self.truth);
        for host in &self.hosts {
            truth.kept(self.now, host);
            truth.budgets(self.now, host);
        }
        // What the server says is a snapshot of everything, too dear for each step. It may be untrue for a while, and no
        // untruth that lasts that long falls between two looks.
        if let Some(memory) = &mut self.server.memory
            && self.edges.iter().all(|edge| edge.up)
        {
            memory.look_at_everything(self.now);
            let worlds = memory.view.snapshot.worlds.clone();
            for (key, world) in &worlds {
                truth.said(self.now, &status::summary(world, self.now), key, &self.seen());
            }
        }
        self.truth = truth;
    }

    /// I5, I7, I12: a bounded time after the faults have healed, everything has ended well.
    pub(super) fn demand_convergence(&mut self) {
        let mut wrong = Vec::new();
        for shape in &self.story.shapes {
            let key = shape.key.clone();
            wrong.extend(self.unended(&key));
            if self.seen().can_converge(&key) && !self.seen().is_converged(&key, self.now) {
                wrong.push(("I16", format!("{key} has not converged: {}", self.state_of(&key))));
            }
            wrong.extend(self.left_behind(&key));
        }
        wrong.extend(self.left_over());
        for pid in &self.strangers {
            if !self.hosts.iter().any(|host| host.machine.is_alive(*pid)) {
                wrong.push(("I13", format!("the stranger {pid} is gone")));
            }
        }
        if let Some((invariant, message)) = wrong.into_iter().next() {
            if self.now < BEGINNING + HEALS + CONVERGES_WITHIN {
                return self.after(LOOKED_AT_EACH, Event::Converged);
            }
            self.truth.fail(invariant, self.now, message);
        }
        self.after(RESTS_FOR, Event::Rested);
        for key in self.restful() {
            let counted = self.counted(&key);
            self.at_rest.insert(key, counted);
        }
    }

    fn unended(&self, key: &ServiceKey) -> Option<(&'static str, String)> {
        let open = self.store.rows.get(key)?.world.open_deployment()?;
        Some(("I7", format!("{key} #{} is still {}: {}", open.number, open.phase, self.state_of(key))))
    }

    /// I12: of a deleted service nothing is left.
    fn left_behind(&self, key: &ServiceKey) -> Option<(&'static str, String)> {
        let deleted = match self.store.rows.get(key)?.world.service.known() {
            Some(service) => service.deleted.is_some(),
            None => true,
        };
        let site = format!("/sites/{}/", key.name);
        let work = format!("/instances/{}.{}.", key.project, key.name);
        let machines = || self.hosts.iter().map(|host| &host.machine);
        let folders = machines()
            .any(|m| m.folders.keys().any(|path| path.starts_with(&site) || path.starts_with(&work)));
        let processes = machines().any(|m| m.live().any(|(_, p)| p.id.service == *key && !p.stranger));
        let link = machines().any(|machine| machine.links.contains_key(key));
        let route = self.edges.iter().any(|edge| edge.table.services.contains_key(key));
        let placed = !self.store.rows.get(key)?.world.plan.placements.is_empty();
        let left = folders || processes || link || route || placed;
        let what = format!(
            "{key} is deleted; left: folders {folders}, processes {processes}, link {link}, route {route}, placed {placed}"
        );
        (deleted && left).then_some(("I12", what))
    }

    /// I12: every container that was made is in a ledger, or gone.
    fn left_over(&self) -> Option<(&'static str, String)> {
        let left = self.hosts.iter().find_map(|host| {
            let known = host.agent.containers();
            let unknown = host
                .engine
                .containers
                .iter()
                .find(|(id, container)| container.maker == Maker::Agent && !known.contains(id));
            unknown.map(|(_, container)| container.name.clone())
        });
        left.map(|name| ("I12", format!("the container {name} is in no ledger")))
    }

    fn state_of(&self, key: &ServiceKey) -> String {
        let Some(memory) = &self.server.memory else { return "the server is down".into() };
        let snapshot = &memory.view.snapshot;
        let Some(world) = snapshot.worlds.get(key) else { return "no such service".into() };
        let summary = status::summary(world, self.now);
        let (_, report) = decide::plan::plan_service(world, &snapshot.cluster, self.now);
        let waits: Vec<String> = decide::plan::waits(&report).map(ToString::to_string).collect();
        format!("{} {} {waits:?}", summary.state, summary.message)
    }

    fn restful(&self) -> Vec<ServiceKey> {
        let keys = self.story.shapes.iter().map(|shape| shape.key.clone());
        keys.filter(|key| self.seen().can_converge(key)).collect()
    }

    fn counted(&self, key: &ServiceKey) -> (u64, u64) {
        let commits = self.store.rows.get(key).map_or(0, |row| row.world.plan.seq.0);
        (commits, self.truth.operations_of(key))
    }

    /// I16: at rest means at rest.
    pub(super) fn demand_rest(&mut self) {
        for (key, before) in self.at_rest.clone() {
            let now = self.counted(&key);
            if now != before {
                let message = format!("{key} was at rest and went from {before:?} to {now:?}");
                self.truth.fail("I16", self.now, message);
            }
        }
        self.over = true;
    }
}
