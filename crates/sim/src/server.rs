//! The server: a snapshot in memory, the real planner, and nothing that outlives it but what the store has.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use decide::{
    compose,
    intent::{self, Outcome},
    lint::{self, Objection},
    plan::{self, Scope},
    view::{self, View},
    world::{Snapshot, World, not_heard},
};
use model::{
    EdgeId, Holder, InstanceId, Knowledge, Millis, NodeId, ServiceKey, Timestamp,
    assignment::{Assignment, Stamp},
    instance::{Placement, Stage},
    plan::{Decision, Plan},
    route::RouteTable,
    service::Owner,
    spec::{Kind, Order, Port, Strategy},
};

use crate::{
    node::cluster_id,
    shape::{Shape, name},
    store::{Refused, Store},
    story::Ask,
};

/// An observation older than this says nothing about now.
pub const STALE_AFTER: Millis = Millis(10_000);
/// The periodic pass, which also sends everything again.
pub const PERIOD: Millis = Millis(1_000);

#[derive(Default)]
pub struct Server {
    pub memory: Option<Memory>,
    pub epoch: u64,
}

pub struct Memory {
    pub view: View,
    since: Timestamp,
    /// What the last pass took away without knowing what it was.
    pub blind: Option<InstanceId>,
    /// Services that the last plan held.
    held: Option<BTreeSet<ServiceKey>>,
    pub next_pass: Option<Timestamp>,
    pub holds_until: Option<Timestamp>,
    /// The next pass looks at everything.
    pub full: bool,
}

/// What a pass came to.
pub enum Passed {
    Nothing,
    Committed(Plan),
    Refused(Refused),
    Objected(Vec<Objection>),
    /// A full pass decides about what no event told of.
    Missed(ServiceKey),
}

impl Server {
    /// Loads everything; a new term begins.
    pub fn start(
        &mut self,
        store: &mut Store,
        nodes: Vec<NodeId>,
        edges: Vec<EdgeId>,
        unreadable: &BTreeSet<ServiceKey>,
        now: Timestamp,
    ) {
        self.epoch += 1;
        let holder: Holder = name(&format!("h{}-{}", self.epoch, now.0));
        let term = store.lead(holder.clone());
        let cluster = view::cluster(store.generation, store.revision, nodes);
        let snapshot = Snapshot { now, term, holder, cluster, worlds: BTreeMap::new() };
        let mut view = View::new(snapshot, STALE_AFTER);
        for edge in edges {
            view.hear(not_heard(edge, name("unheard"), now));
        }
        let memory = Memory {
            view,
            since: now,
            blind: None,
            held: None,
            next_pass: None,
            holds_until: None,
            full: false,
        };
        let memory = self.memory.insert(memory);
        memory.view.set_drains(store.drains.clone());
        memory.reload(store, unreadable);
    }

    pub fn crash(&mut self) {
        self.memory = None;
        self.epoch += 1;
    }
}

impl Memory {
    /// Takes in what the store holds, as far as it can be read.
    pub fn reload(&mut self, store: &Store, unreadable: &BTreeSet<ServiceKey>) {
        let gone = |key: &&ServiceKey| store.rows.get(*key).is_none_or(|row| row.world.service.is_absent());
        for key in self.view.snapshot.worlds.keys().filter(gone).cloned().collect::<Vec<_>>() {
            self.view.forget(&key);
        }
        for (key, stored) in store.worlds() {
            self.take(&key, stored, unreadable);
        }
        self.view.at(store.generation, store.revision);
        self.view.count();
    }

    fn take_stored(&mut self, store: &Store, key: &ServiceKey, unreadable: &BTreeSet<ServiceKey>) {
        let world = store.world(key);
        match world.service.is_absent() {
            true => self.view.forget(key),
            false => self.take(key, world, unreadable),
        }
    }

    fn take(&mut self, key: &ServiceKey, mut stored: World, unreadable: &BTreeSet<ServiceKey>) {
        if unreadable.contains(key) {
            let since = match self.view.world(key).map(|world| &world.service) {
                Some(Knowledge::Unknown { since, .. }) => *since,
                Some(Knowledge::Absent | Knowledge::Known(_)) | None => self.view.snapshot.now,
            };
            stored.service = Knowledge::Unknown { since, cause: "row 7 holds no JSON".into() };
        }
        self.view.put(stored);
    }

    /// Returns whether it tells anything new.
    pub fn told(&mut self, now: Timestamp, news: impl FnOnce(&mut View)) -> bool {
        self.view.snapshot.now = now;
        news(&mut self.view);
        self.view.has_news()
    }

    /// Time has passed for everything.
    pub fn look_at_everything(&mut self, now: Timestamp) {
        self.view.snapshot.now = now;
        self.view.note_silence(self.since);
        self.view.forget_lost_edges();
        self.view.look_at_everything();
    }

    /// Load, plan, lint, commit.
    pub fn pass(
        &mut self,
        store: &mut Store,
        unreadable: &BTreeSet<ServiceKey>,
        now: Timestamp,
        linted: bool,
    ) -> Passed {
        self.view.snapshot.now = now;
        let full = std::mem::take(&mut self.full);
        if full {
            self.look_at_everything(now);
        }
        let due = self.view.due();
        let snapshot = &self.view.snapshot;
        let (mut plan, reports) = plan::plan(snapshot, Scope::Only(&due));
        if full {
            let (whole, _) = plan::plan(snapshot, Scope::All);
            if let Some(missed) = whole.decisions.iter().find(|decision| !due.contains(&decision.key)) {
                return Passed::Missed(missed.key.clone());
            }
        }
        let held = self.view.held();
        // What is held is part of both messages, and a message never changes under one generation or revision.
        for (key, report) in reports {
            let decided = plan.decisions.iter().any(|decision| decision.key == key);
            self.view.note(&key, report, decided);
        }
        self.holds_until = self.view.next_wake();
        let snapshot = &self.view.snapshot;
        let rehold = self.held.replace(held.clone()).is_some_and(|before| before != held);
        if rehold {
            plan.route_revision = snapshot.cluster.route_revision.next();
        } else if plan.decisions.is_empty() {
            return Passed::Nothing;
        }
        let objections = lint::lint(snapshot, &plan);
        if linted && !objections.is_empty() {
            return Passed::Objected(objections);
        }
        self.blind = plan.decisions.iter().find_map(|decision| self.blind_to(decision, unreadable, now));
        match store.commit_plan(&plan) {
            Ok(()) => {
                self.view.committed(&plan);
                Passed::Committed(plan)
            }
            Err(refused) => {
                // Not known to be published: the next plan says it again.
                self.held = Some(BTreeSet::new()).filter(|_| !held.is_empty());
                self.reload(store, unreadable);
                Passed::Refused(refused)
            }
        }
    }

    /// I14: an instance that the decision takes away although its service cannot be read, or although nobody has told of it
    /// and too few of the target are known to be ready. What nobody wants, or is declared to go first, may go unseen.
    fn blind_to(
        &self,
        decision: &Decision,
        unreadable: &BTreeSet<ServiceKey>,
        now: Timestamp,
    ) -> Option<InstanceId> {
        let world = self.view.world(&decision.key)?;
        let before = |id: &InstanceId| world.plan.placements.get(id).is_some_and(|p| p.stage.is_run());
        let mut gone = decision.plan.placements.values().filter(|p| !p.stage.is_assigned() || is_retiring(p));
        if unreadable.contains(&decision.key) {
            return gone.find(|p| before(&p.id)).map(|p| p.id.clone());
        }
        let service = decision.service.as_ref().or(world.service.known())?;
        let deploy = &service.spec.deploy;
        let first = deploy.strategy == Strategy::Recreate
            || deploy.order == Order::StopFirst
            || matches!(service.spec.port, Some(Port::Fixed(_)))
            || service.spec.kind() == Kind::Site
            || service
                .target
                .and_then(|target| world.releases.get(&target))
                .is_some_and(|release| release.workload.kind() == Kind::Site);
        let wanted = service.wanted_replicas();
        let told = |p: &Placement| {
            let seen = self.view.observation(&p.node).filter(|seen| now.since(seen.at) <= STALE_AFTER)?;
            seen.instances.get(&p.id)
        };
        let whole = |p: &Placement| {
            let seen = self.view.observation(&p.node).filter(|seen| now.since(seen.at) <= STALE_AFTER);
            seen.is_some_and(|seen| seen.complete)
        };
        let ready = world.plan.placements.values().filter(|p| {
            p.stage.is_run()
                && Some(p.release) == service.target
                && told(p).is_some_and(|report| report.ready)
        });
        if first || wanted == 0 || ready.count() >= wanted as usize {
            return None;
        }
        gone.find(|p| before(&p.id) && told(p).is_none() && !whole(p)).map(|p| p.id.clone())
    }

    pub fn messages(&self, nodes: &[&NodeId]) -> (Vec<Assignment>, RouteTable) {
        let Snapshot { term, holder, cluster, .. } = &self.view.snapshot;
        let worlds = || self.view.worlds().map(|world| &**world);
        let stamp = Stamp { term: *term, holder: holder.clone(), generation: cluster.generation };
        let assignment = |node: &&NodeId| compose::assignment(&cluster_id(), node, stamp.clone(), worlds());
        let table = compose::route_table(cluster.route_revision, worlds());
        (nodes.iter().map(assignment).collect(), table)
    }

    /// A user asks; the answer is durable before it is given.
    pub fn ask(
        &mut self,
        store: &mut Store,
        unreadable: &BTreeSet<ServiceKey>,
        shape: &Shape,
        ask: Ask,
        now: Timestamp,
    ) -> String {
        let key = shape.key.clone();
        self.view.snapshot.now = now;
        self.take_stored(store, &key, unreadable);
        let world = self.view.world(&key).map_or_else(|| Arc::new(store.world(&key)), Arc::clone);
        let result = decided(&world, shape, ask, now);
        let intent = match result {
            Err(refused) => return format!("refused {}", refused.code()),
            Ok(Outcome::Unchanged { message }) => return format!("unchanged {message}"),
            Ok(Outcome::Changed(intent)) => intent,
        };
        let seen = world.service.known().map(|service| service.intent_seq);
        let committed = store.commit_intent(&key, seen, &intent);
        self.take_stored(store, &key, unreadable);
        match committed {
            Ok(()) => intent.message,
            Err(refused) => format!("{refused:?}"),
        }
    }
}

fn is_retiring(placement: &Placement) -> bool {
    matches!(placement.stage, Stage::Retiring { .. })
}

fn decided(world: &World, shape: &Shape, ask: Ask, now: Timestamp) -> Result<Outcome, intent::Refused> {
    match ask {
        Ask::Apply { version, character, policy } => {
            intent::apply(world, &shape.spec(version, character, policy), &Owner::Api, &shape.images(), now)
        }
        Ask::Deploy => intent::deploy(world, &intent::Content::Declared, &shape.images(), now),
        Ask::Rollback => intent::rollback(world, None, now),
        Ask::Cancel => match world.open_deployment() {
            Some(open) => intent::cancel(world, &open.id.clone(), now),
            None => Ok(Outcome::Unchanged { message: "nothing is open".into() }),
        },
        Ask::Scale(replicas) => intent::scale(world, replicas.into(), now),
        Ask::Stop => intent::stop(world, now),
        Ask::Start => intent::start(world, now),
        Ask::Restart => intent::restart(world, now),
        Ask::Delete => intent::delete(world, &Owner::Api, now),
    }
}
