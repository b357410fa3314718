//! A world small enough to tell stories in: the records, the nodes and the edges of one machine or a few, driven
//! by the real deciders. Owns: how a pass goes round. Refuses to know: what is being told or checked.

pub mod edge;
pub mod node;
pub mod spec;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use decide::{
    compose, intent,
    lint::{self, Objection},
    plan::{self, Scope},
    world::{Cluster, Snapshot, World},
};
use model::{
    ClusterId, EdgeId, Generation, Holder, InstanceId, Knowledge, Millis, NodeId, RouteRevision, ServiceKey,
    Term, Timestamp,
    assignment::Stamp,
    node::{Node, NodeState},
    observation::Observation,
    plan::{Plan, Report},
    release::Release,
    route::{EdgeReport, RouteTable},
};

/// Where every story begins.
pub const BEGINNING: Timestamp = Timestamp(1_000_000_000);

pub struct Bench {
    pub now: Timestamp,
    pub worlds: BTreeMap<ServiceKey, World>,
    pub generation: Generation,
    pub revision: RouteRevision,
    pub nodes: BTreeMap<NodeId, node::Fake>,
    pub edges: BTreeMap<EdgeId, edge::Fake>,
    /// What names of images stand for now.
    pub images: intent::Images,
    pub unreadable: BTreeSet<ServiceKey>,
    /// As the last pass stored them.
    pub reports: BTreeMap<ServiceKey, Report>,
}

/// What one pass did.
pub struct Pass {
    pub plan: Plan,
    pub reports: BTreeMap<ServiceKey, Report>,
    pub objections: Vec<Objection>,
}

impl Bench {
    pub fn new() -> Self {
        let edge: EdgeId = "local".parse().unwrap();
        Self {
            now: BEGINNING,
            worlds: BTreeMap::new(),
            generation: Generation(0),
            revision: RouteRevision(0),
            nodes: BTreeMap::new(),
            edges: [(edge.clone(), edge::Fake::new(edge))].into(),
            images: intent::Images::new(),
            unreadable: BTreeSet::new(),
            reports: BTreeMap::new(),
        }
    }

    pub fn add_node(&mut self, name: &str) {
        let id: NodeId = name.parse().unwrap();
        self.nodes.insert(id.clone(), node::Fake::new(id));
    }

    pub fn world(&mut self, key: &ServiceKey) -> &mut World {
        self.worlds.entry(key.clone()).or_insert_with(|| World::absent(key.clone()))
    }

    /// Records an intent, and says what it says.
    pub fn intend(&mut self, key: &ServiceKey, result: Result<intent::Outcome, intent::Refused>) -> String {
        match result {
            Err(refused) => format!("refused: {refused}"),
            Ok(intent::Outcome::Unchanged { message }) => format!("unchanged: {message}"),
            Ok(intent::Outcome::Changed(intent)) => {
                self.world(key).record(&intent);
                intent.message
            }
        }
    }

    pub fn snapshot(&self) -> Snapshot {
        let observations: BTreeMap<NodeId, Arc<Observation>> = self
            .nodes
            .values()
            .filter_map(|node| Some((node.id.clone(), Arc::new(node.heard.clone()?))))
            .collect();
        let edges: Vec<EdgeReport> = self.edges.values().filter_map(|edge| edge.heard.clone()).collect();
        let worlds: BTreeMap<ServiceKey, Arc<World>> = self
            .worlds
            .iter()
            .map(|(key, world)| {
                let mut world = world.clone();
                world.see(&observations);
                world.hear(&edges, self.now);
                world.refuse(&self.refusals());
                if self.unreadable.contains(key) {
                    let cause = "row 7 holds no JSON".into();
                    world.service = Knowledge::Unknown { since: self.now, cause };
                }
                (key.clone(), Arc::new(world))
            })
            .collect();
        Snapshot { now: self.now, term: Term(1), holder: holder(), cluster: self.cluster(), worlds }
    }

    fn refusals(&self) -> BTreeMap<NodeId, String> {
        let refuses = |node: &node::Fake| Some((node.id.clone(), node.refuses.clone()?));
        self.nodes.values().filter_map(refuses).collect()
    }

    fn cluster(&self) -> Cluster {
        let placements = || self.worlds.values().flat_map(|world| world.plan.placements.values());
        let mut load = BTreeMap::new();
        for placement in placements() {
            *load.entry(placement.node.clone()).or_default() += 1;
        }
        let running = placements().filter(|p| p.stage.is_run()).count();
        let nodes = self.nodes.values().map(|node| {
            (node.id.clone(), Node { id: node.id.clone(), state: node.state, reserved_ports: Vec::new() })
        });
        Cluster {
            generation: self.generation,
            route_revision: self.revision,
            nodes: nodes.collect(),
            load,
            running: u32::try_from(running).unwrap(),
        }
    }

    /// What a pass would do.
    pub fn plan(&self) -> Pass {
        let snapshot = self.snapshot();
        let (plan, reports) = plan::plan(&snapshot, Scope::All);
        let objections = lint::lint(&snapshot, &plan);
        Pass { plan, reports, objections }
    }

    /// One pass, as the server makes it: plan, lint, commit, publish; then nodes and edges do their part.
    pub fn pass(&mut self) -> Pass {
        self.observe();
        let pass = self.plan();
        if pass.objections.is_empty() {
            self.commit(&pass.plan);
        }
        self.reports.extend(pass.reports.clone());
        self.publish();
        self.observe();
        pass
    }

    fn commit(&mut self, plan: &Plan) {
        if plan.decisions.is_empty() {
            return;
        }
        self.generation = plan.generation;
        self.revision = plan.route_revision;
        for decision in &plan.decisions {
            let world = &self.worlds[&decision.key];
            assert_eq!(world.parent(), decision.parent, "committed onto its parent");
            let next = world.after(decision);
            self.worlds.insert(decision.key.clone(), next);
        }
    }

    pub fn publish(&mut self) {
        let snapshot = self.snapshot();
        let worlds = || snapshot.worlds.values().map(|world| &**world);
        let stamp = Stamp { term: snapshot.term, holder: holder(), generation: self.generation };
        for node in self.nodes.values_mut().filter(|node| node.reachable && node.refuses.is_none()) {
            node.offer(compose::assignment(&cluster_id(), &node.id, stamp.clone(), worlds()));
        }
        let table: RouteTable = compose::route_table(self.revision, worlds());
        for edge in self.edges.values_mut() {
            edge.offer(&table);
        }
    }

    pub fn observe(&mut self) {
        let now = self.now;
        for node in self.nodes.values_mut() {
            node.work(now);
            node.report(now);
        }
        for edge in self.edges.values_mut() {
            edge.report(now);
        }
    }

    /// When somebody wants to be asked again, at the earliest.
    pub fn wake_at(&self) -> Option<Timestamp> {
        let planner = self.reports.values().filter_map(|report| report.holds_until);
        let nodes = self.nodes.values().filter_map(|node| node.wake_at);
        planner.chain(nodes).filter(|at| *at > self.now).min()
    }

    pub fn tick(&mut self, by: Millis) {
        self.now = self.now + by;
        self.observe();
    }

    /// `web.0` or `web.0.3`; of several in a slot the newest that shall run.
    pub fn instance(&self, name: &str) -> Option<InstanceId> {
        let parts: Vec<&str> = name.split('.').collect();
        let key: ServiceKey = parts.first()?.parse().ok()?;
        let slot: u32 = parts.get(1)?.parse().ok()?;
        let incarnation: Option<u64> = parts.get(2).and_then(|n| n.parse().ok());
        let placements = self.worlds.get(&key)?.plan.placements.values();
        placements
            .filter(|p| p.id.slot.0 == slot && incarnation.is_none_or(|n| p.id.incarnation.0 == n))
            .max_by_key(|p| (p.stage.is_run(), p.id.incarnation))
            .map(|p| p.id.clone())
    }

    pub fn local(&mut self, id: &InstanceId) -> Option<&mut node::Instance> {
        self.nodes.values_mut().find_map(|node| node.instances.get_mut(id))
    }

    pub fn set_node(&mut self, name: &str, state: NodeState) {
        self.nodes.get_mut(&name.parse::<NodeId>().unwrap()).unwrap().state = state;
    }
}

pub trait Record {
    fn record(&mut self, intent: &intent::Intent);
}

impl Record for World {
    /// What the store does with an intent.
    fn record(&mut self, intent: &intent::Intent) {
        self.service = Knowledge::Known(intent.service.clone());
        let releases = intent.releases.iter();
        self.releases.extend(releases.map(|r: &Release| (r.digest(), Arc::new(r.clone()))));
        for deployment in &intent.deployments {
            self.next_deployment = self.next_deployment.max(deployment.number + 1);
            match self.deployments.iter_mut().find(|d| d.id == deployment.id) {
                Some(stored) => *stored = deployment.clone(),
                None => self.deployments.push(deployment.clone()),
            }
        }
    }
}

pub fn holder() -> Holder {
    "holder".parse().unwrap()
}

pub fn cluster_id() -> ClusterId {
    "cluster01".parse().unwrap()
}
