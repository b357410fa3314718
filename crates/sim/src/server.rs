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
    world::{Cluster, Snapshot, World, not_heard},
};
use model::{
    EdgeId, Generation, Holder, InstanceId, Knowledge, Millis, NodeId, RouteRevision, ServiceKey, Term,
    Timestamp,
    assignment::{Assignment, Stamp},
    instance::{Placement, Stage},
    node::{Node, NodeState},
    observation::Observation,
    plan::{Decision, Plan},
    route::{EdgeReport, RouteTable},
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
    term: Term,
    holder: Holder,
    generation: Generation,
    revision: RouteRevision,
    worlds: BTreeMap<ServiceKey, World>,
    observations: BTreeMap<NodeId, Arc<Observation>>,
    edges: BTreeMap<EdgeId, EdgeReport>,
    /// All that there are.
    nodes: Vec<NodeId>,
    since: Timestamp,
    /// What the last pass took away without knowing what it was.
    pub blind: Option<InstanceId>,
    /// Services that the last plan held.
    held: Option<BTreeSet<ServiceKey>>,
    pub next_pass: Option<Timestamp>,
    pub holds_until: Option<Timestamp>,
}

/// What a pass came to.
pub enum Passed {
    Nothing,
    Committed(Plan),
    Refused(Refused),
    Objected(Vec<Objection>),
}

impl Server {
    /// Loads everything; a new term begins.
    pub fn start(&mut self, store: &mut Store, nodes: Vec<NodeId>, edges: Vec<EdgeId>, now: Timestamp) {
        self.epoch += 1;
        let holder: Holder = name(&format!("h{}-{}", self.epoch, now.0));
        let term = store.lead(holder.clone());
        self.memory = Some(Memory {
            term,
            holder,
            generation: store.generation,
            revision: store.revision,
            worlds: store.worlds(),
            observations: BTreeMap::new(),
            edges: edges
                .into_iter()
                .map(|edge| (edge.clone(), not_heard(edge, name("unheard"), now)))
                .collect(),
            nodes,
            since: now,
            blind: None,
            held: None,
            next_pass: None,
            holds_until: None,
        });
    }

    pub fn crash(&mut self) {
        self.memory = None;
        self.epoch += 1;
    }
}

impl Memory {
    pub fn reload(&mut self, store: &Store) {
        self.worlds = store.worlds();
        self.generation = store.generation;
        self.revision = store.revision;
    }

    /// A newer observation; an older one that comes late is dropped.
    pub fn observe(&mut self, observation: Arc<Observation>) -> bool {
        let before = self.observations.get(&observation.node);
        let newer = before.is_none_or(|before| before.sequence < observation.sequence);
        if newer {
            self.observations.insert(observation.node.clone(), observation);
        }
        newer
    }

    pub fn hear(&mut self, report: EdgeReport) -> bool {
        let newer = self.edges.get(&report.edge).is_none_or(|before| before.at < report.at);
        if newer {
            self.edges.insert(report.edge.clone(), report);
        }
        newer
    }

    pub fn snapshot(&self, unreadable: &BTreeSet<ServiceKey>, now: Timestamp) -> Snapshot {
        let fresh = self.observations.values().filter(|seen| now.since(seen.at) <= STALE_AFTER);
        let observations: BTreeMap<NodeId, Arc<Observation>> =
            fresh.map(|seen| (seen.node.clone(), Arc::clone(seen))).collect();
        let worlds = self.worlds.iter().map(|(key, world)| {
            let mut world = world.clone();
            world.see(&observations);
            world.hear(self.edges.values(), now);
            if unreadable.contains(key) {
                let cause = "row 7 holds no JSON".into();
                world.service = Knowledge::Unknown { since: now, cause };
            }
            (key.clone(), Arc::new(world))
        });
        Snapshot {
            now,
            term: self.term,
            holder: self.holder.clone(),
            cluster: self.cluster(&observations),
            worlds: worlds.collect(),
        }
    }

    fn cluster(&self, fresh: &BTreeMap<NodeId, Arc<Observation>>) -> Cluster {
        let mut load = BTreeMap::new();
        let placed = self.worlds.values().flat_map(|w| w.plan.placements.values());
        for placement in placed.filter(|p| p.stage.is_run()) {
            *load.entry(placement.node.clone()).or_default() += 1;
        }
        let running =
            self.worlds.values().flat_map(|w| w.plan.placements.values()).filter(|p| p.stage.is_run());
        let running = u32::try_from(running.count()).unwrap_or(u32::MAX);
        let nodes = self.nodes.iter().map(|id| {
            let heard = self.observations.get(id).map_or(self.since, |seen| seen.at);
            let silent = NodeState::Silent { since: heard };
            let state = if fresh.contains_key(id) { NodeState::Up } else { silent };
            (id.clone(), Node { id: id.clone(), state, reserved_ports: Vec::new() })
        });
        Cluster {
            generation: self.generation,
            route_revision: self.revision,
            nodes: nodes.collect(),
            load,
            running,
        }
    }

    /// Load, plan, lint, commit.
    pub fn pass(
        &mut self,
        store: &mut Store,
        unreadable: &BTreeSet<ServiceKey>,
        now: Timestamp,
        linted: bool,
    ) -> Passed {
        let snapshot = self.snapshot(unreadable, now);
        let (mut plan, reports) = plan::plan(&snapshot, Scope::All);
        self.holds_until = reports.values().filter_map(|report| report.holds_until).min();
        let held: BTreeSet<ServiceKey> =
            snapshot.worlds.values().filter(|w| w.service.is_unknown()).map(|w| w.key.clone()).collect();
        // What is held is part of both messages, and a message never changes under one generation or revision.
        let rehold = self.held.replace(held.clone()).is_some_and(|before| before != held);
        if rehold {
            plan.route_revision = snapshot.cluster.route_revision.next();
        } else if plan.decisions.is_empty() {
            return Passed::Nothing;
        }
        let objections = lint::lint(&snapshot, &plan);
        if linted && !objections.is_empty() {
            return Passed::Objected(objections);
        }
        self.blind = plan.decisions.iter().find_map(|decision| self.blind_to(decision, unreadable, now));
        match store.commit_plan(&plan) {
            Ok(()) => {
                self.reload(store);
                Passed::Committed(plan)
            }
            Err(refused) => {
                // Not known to be published: the next plan says it again.
                self.held = Some(BTreeSet::new()).filter(|_| !held.is_empty());
                self.reload(store);
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
        let world = self.worlds.get(&decision.key)?;
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
            || service.spec.kind() == Kind::Site;
        let wanted = service.wanted_replicas();
        let told = |p: &Placement| {
            let seen = self.observations.get(&p.node).filter(|seen| now.since(seen.at) <= STALE_AFTER)?;
            seen.instances.get(&p.id)
        };
        let whole = |p: &Placement| {
            let seen = self.observations.get(&p.node).filter(|seen| now.since(seen.at) <= STALE_AFTER);
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

    pub fn messages(
        &self,
        nodes: &[&NodeId],
        unreadable: &BTreeSet<ServiceKey>,
        now: Timestamp,
    ) -> (Vec<Assignment>, RouteTable) {
        let snapshot = self.snapshot(unreadable, now);
        let worlds = || snapshot.worlds.values().map(|world| &**world);
        let stamp = Stamp { term: self.term, holder: self.holder.clone(), generation: self.generation };
        let assignment = |node: &&NodeId| compose::assignment(&cluster_id(), node, stamp.clone(), worlds());
        (nodes.iter().map(assignment).collect(), compose::route_table(self.revision, worlds()))
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
        let key = shape.key();
        let mut world = self.worlds.get(&key).cloned().unwrap_or_else(|| store.world(&key));
        if unreadable.contains(&key) {
            world.service = Knowledge::Unknown { since: now, cause: "row 7 holds no JSON".into() };
        }
        let result = decided(&world, shape, ask, now);
        let intent = match result {
            Err(refused) => return format!("refused {}", refused.code()),
            Ok(Outcome::Unchanged { message }) => return format!("unchanged {message}"),
            Ok(Outcome::Changed(intent)) => intent,
        };
        let seen = world.service.known().map(|service| service.intent_seq);
        let committed = store.commit_intent(&key, seen, &intent);
        self.reload(store);
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
