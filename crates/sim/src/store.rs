//! The store, as far as a simulation needs it: records, intents and plans committed onto what they were decided
//! from, fenced by term and holder. Nothing that it has taken is ever lost.

use std::{collections::BTreeMap, sync::Arc};

use decide::{intent::Intent, world::World};
use model::{
    Generation, Holder, IntentSeq, Knowledge, NodeId, RouteRevision, ServiceKey, Term,
    instance::Placement,
    node::Drain,
    plan::{Decision, Plan},
};

#[derive(Debug, Default)]
pub struct Store {
    pub rows: BTreeMap<ServiceKey, Row>,
    pub generation: Generation,
    pub revision: RouteRevision,
    pub term: Term,
    pub drains: BTreeMap<NodeId, Drain>,
    pub holder: Option<Holder>,
    /// Whether the next commit's answer is lost, and whether it was made.
    pub next_unknown: Option<bool>,
}

/// A service's row outlives its record, for the counters.
#[derive(Debug, Clone)]
pub struct Row {
    pub world: World,
    pub intent: IntentSeq,
    pub generation: Generation,
}

impl Row {
    /// Whether something of it runs; a site has a folder.
    pub fn runs(&self, placement: &Placement) -> bool {
        let release = self.world.releases.get(&placement.release);
        release.is_none_or(|release| release.workload.kind().runs())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// What it was decided from has moved, or somebody else leads.
    Conflict,
    /// No answer came.
    Unknown,
}

impl Store {
    /// A new holder begins a new term.
    pub fn lead(&mut self, holder: Holder) -> Term {
        self.term = self.term.next();
        self.holder = Some(holder);
        self.term
    }

    pub fn world(&self, key: &ServiceKey) -> World {
        self.rows.get(key).map_or_else(|| World::absent(key.clone()), |row| row.world.clone())
    }

    /// The services that there are.
    pub fn worlds(&self) -> BTreeMap<ServiceKey, World> {
        let there = self.rows.iter().filter(|(_, row)| !row.world.service.is_absent());
        there.map(|(key, row)| (key.clone(), row.world.clone())).collect()
    }

    pub fn commit_intent(
        &mut self,
        key: &ServiceKey,
        seen: Option<IntentSeq>,
        intent: &Intent,
    ) -> Result<(), Refused> {
        let stored = self.world(key);
        if stored.service.known().map(|service| service.intent_seq) != seen {
            return Err(Refused::Conflict);
        }
        if self.next_unknown == Some(false) {
            self.next_unknown = None;
            return Err(Refused::Unknown);
        }
        let row = self.rows.entry(key.clone()).or_insert_with(|| Row {
            world: World::absent(key.clone()),
            intent: IntentSeq(0),
            generation: Generation(0),
        });
        let mut service = intent.service.clone();
        service.intent_seq = service.intent_seq.max(row.intent.next());
        service.generation = service.generation.max(row.generation);
        row.intent = service.intent_seq;
        row.generation = service.generation;
        let world = &mut row.world;
        world.service = Knowledge::Known(service);
        world.releases.extend(intent.releases.iter().map(|r| (r.digest(), Arc::new(r.clone()))));
        for deployment in &intent.deployments {
            world.next_deployment = world.next_deployment.max(deployment.number + 1);
            match world.deployments.iter_mut().find(|d| d.id == deployment.id) {
                Some(stored) => *stored = deployment.clone(),
                None => world.deployments.push(deployment.clone()),
            }
        }
        self.answer()
    }

    pub fn commit_plan(&mut self, plan: &Plan) -> Result<(), Refused> {
        let leads = (self.term, self.holder.as_ref()) == (plan.term, Some(&plan.holder));
        let next = plan.generation == self.generation.next() && plan.route_revision >= self.revision;
        let stands = |d: &Decision| self.rows.get(&d.key).is_some_and(|row| row.world.parent() == d.parent);
        if !leads || !next || !plan.decisions.iter().all(stands) {
            return Err(Refused::Conflict);
        }
        if self.next_unknown == Some(false) {
            self.next_unknown = None;
            return Err(Refused::Unknown);
        }
        self.generation = plan.generation;
        self.revision = plan.route_revision;
        for decision in &plan.decisions {
            if let Some(row) = self.rows.get_mut(&decision.key) {
                row.world = row.world.after(decision);
                if let Some(service) = row.world.service.known() {
                    row.intent = row.intent.max(service.intent_seq);
                    row.generation = row.generation.max(service.generation);
                }
            }
        }
        self.answer()
    }

    fn answer(&mut self) -> Result<(), Refused> {
        match self.next_unknown.take() {
            Some(_) => Err(Refused::Unknown),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use store::{
        Expected, ServiceIntent, ServiceRow,
        conformance::commits::{self, Commits},
    };

    use super::*;

    impl Commits for Store {
        async fn lead(&mut self, holder: &Holder) -> Term {
            Self::lead(self, holder.clone())
        }

        async fn commit_intent(&mut self, intent: ServiceIntent) -> Result<(), String> {
            let ServiceIntent { expected, service, releases, deployments } = intent;
            let seen = match expected {
                Expected::Absent => None,
                Expected::Intent(seq) => Some(seq),
            };
            let key = service.key.clone();
            let intent = Intent { service, releases, deployments, events: vec![], message: String::new() };
            Self::commit_intent(self, &key, seen, &intent).map_err(|refused| format!("{refused:?}"))
        }

        async fn commit_plan(&mut self, plan: Plan) -> Result<(), String> {
            Self::commit_plan(self, &plan).map_err(|refused| format!("{refused:?}"))
        }

        async fn load(&mut self, key: &ServiceKey) -> Option<ServiceRow> {
            let World { service, plan, releases, deployments, next_deployment, .. } = self.world(key);
            let Knowledge::Known(service) = service else { return None };
            Some(ServiceRow { service, plan, releases, deployments, next_deployment_number: next_deployment })
        }

        async fn latest(&mut self) -> (Generation, RouteRevision) {
            (self.generation, self.revision)
        }
    }

    #[test]
    fn the_model_keeps_what_deciders_stand_on() {
        let all = pin!(commits::run_all(async || Store::default()));
        // It never waits.
        assert_eq!(all.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(()));
    }
}
