//! The snapshot in memory: worlds put together from stored rows, observations and edge reports. A world is replaced
//! only when its content changes, so that the same pointer means the same content and an unchanged world costs a
//! pass nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use decide::{
    monitor::{self, Outcome},
    world::{Cluster, Snapshot, World},
};
use model::{
    EdgeId, Holder, InstanceId, Knowledge, Millis, NodeId, ServiceKey, Term, Timestamp,
    instance::Stage,
    node::{Drain, Node, NodeState},
    observation::Observation,
    plan::{Report, ServicePlan},
    route::EdgeReport,
};
use store::{Counters, Floor, Loaded, ServiceRow};

use crate::counting::{self, Histogram};

/// A node that has not reported for this long may do anything by now: what it said is no longer taken for true (I20).
const STALE_AFTER: Millis = Millis::secs(20);

/// What the last pass found about a service: its reasons, and until when they hold.
#[derive(Debug, Clone)]
pub struct Latest {
    pub at: Timestamp,
    pub report: Report,
    /// The world that was planned; the same pointer needs no new plan before `report.holds_until`.
    world: Arc<World>,
}

#[derive(Debug)]
pub struct Brain {
    pub snapshot: Snapshot,
    observations: BTreeMap<NodeId, Arc<Observation>>,
    edges: BTreeMap<EdgeId, EdgeReport>,
    latest: BTreeMap<ServiceKey, Latest>,
    /// Services of which something may have changed since they were planned.
    dirty: BTreeSet<ServiceKey>,
    /// Deployments that have ended since the start, by how, with the time that they took.
    ended: BTreeMap<Outcome, Histogram>,
    drains: BTreeMap<NodeId, Drain>,
    /// Nodes that do not take what they are assigned, and why.
    refusals: BTreeMap<NodeId, String>,
    /// Some row does not even say whose it is: nothing may be published, because something would be missing.
    pub incomplete: Option<String>,
}

impl Brain {
    pub fn new(term: Term, holder: Holder, counters: Counters, nodes: Vec<NodeId>, now: Timestamp) -> Self {
        let nodes = nodes
            .into_iter()
            .map(|id| (id.clone(), Node { id, state: NodeState::Up, reserved_ports: Vec::new() }))
            .collect();
        let cluster = Cluster {
            generation: counters.generation,
            route_revision: counters.route_revision,
            nodes,
            load: BTreeMap::new(),
            running: 0,
        };
        Self {
            snapshot: Snapshot { now, term, holder, cluster, worlds: BTreeMap::new() },
            observations: BTreeMap::new(),
            edges: BTreeMap::new(),
            latest: BTreeMap::new(),
            dirty: BTreeSet::new(),
            ended: Outcome::ALL.map(|outcome| (outcome, Histogram::new(counting::DEPLOYMENTS))).into(),
            drains: BTreeMap::new(),
            refusals: BTreeMap::new(),
            incomplete: None,
        }
    }

    /// Takes in which nodes are being drained. What is decided about any service may stand on that.
    pub fn set_drains(&mut self, drains: BTreeMap<NodeId, Drain>) {
        for node in self.snapshot.cluster.nodes.values_mut() {
            node.state = match (node.state, drains.contains_key(&node.id)) {
                (NodeState::Up | NodeState::Draining, true) => NodeState::Draining,
                (NodeState::Up | NodeState::Draining, false) => NodeState::Up,
                (state @ (NodeState::Silent { .. } | NodeState::Lost { .. }), _) => state,
            };
        }
        self.drains = drains;
        self.dirty.extend(self.snapshot.worlds.keys().cloned());
    }

    pub fn drain_of(&self, node: &NodeId) -> Option<&Drain> {
        self.drains.get(node)
    }

    /// Takes in whether a node took its assignment; `Some`: why not.
    pub fn set_refusal(&mut self, node: &NodeId, why: Option<String>) {
        match why {
            Some(why) => self.refusals.insert(node.clone(), why),
            None => self.refusals.remove(node),
        };
    }

    pub fn refusal(&self, node: &NodeId) -> Option<&String> {
        self.refusals.get(node)
    }

    pub fn refusals(&self) -> impl Iterator<Item = (&NodeId, &String)> {
        self.refusals.iter()
    }

    pub fn world(&self, key: &ServiceKey) -> Option<&Arc<World>> {
        self.snapshot.worlds.get(key)
    }

    pub fn worlds(&self) -> impl Iterator<Item = &Arc<World>> {
        self.snapshot.worlds.values()
    }

    pub fn latest(&self, key: &ServiceKey) -> Option<&Latest> {
        self.latest.get(key)
    }

    pub fn observation(&self, node: &NodeId) -> Option<&Arc<Observation>> {
        self.observations.get(node)
    }

    pub fn observations(&self) -> impl Iterator<Item = &Arc<Observation>> {
        self.observations.values()
    }

    pub fn edges(&self) -> impl Iterator<Item = &EdgeReport> {
        self.edges.values()
    }

    /// Takes in what the store holds of one service; `None`: nothing.
    pub fn take_row(&mut self, key: &ServiceKey, loaded: Option<Loaded>) {
        match loaded {
            None => self.forget(key),
            Some(Loaded::Read(row)) => self.put(world_of(*row)),
            Some(Loaded::Unreadable { cause, plan, .. }) => self.quarantine(key, cause, plan),
            Some(Loaded::Nameless { text, cause }) => self.incomplete = Some(format!("{text}: {cause}")),
        }
    }

    fn forget(&mut self, key: &ServiceKey) {
        self.snapshot.worlds.remove(key);
        self.latest.remove(key);
        self.dirty.remove(key);
    }

    /// It is there and cannot be read: what is known of it stays, and nothing is decided.
    fn quarantine(&mut self, key: &ServiceKey, cause: String, plan: Option<Box<ServicePlan>>) {
        let since = self.snapshot.now;
        let mut world = match self.snapshot.worlds.get(key) {
            Some(world) => (**world).clone(),
            None => {
                World { plan: plan.map(|plan| *plan).unwrap_or_default(), ..absent(key, Floor::default()) }
            }
        };
        world.service = Knowledge::Unknown { since, cause };
        self.put(world);
    }

    /// Puts a world in, with what nodes and edges say of it now.
    pub fn put(&mut self, mut world: World) {
        world.see(&self.fresh());
        world.hear(self.edges.values(), self.snapshot.now);
        let key = world.key.clone();
        let before = self.snapshot.worlds.get(&key);
        if before.is_none_or(|before| **before != world) {
            let ended = before.map(|before| monitor::ended(before, &world)).unwrap_or_default();
            self.count_ended(&ended);
            self.snapshot.worlds.insert(key.clone(), Arc::new(world));
            self.dirty.insert(key);
        }
    }

    fn count_ended(&mut self, ended: &[(Outcome, Millis)]) {
        for (outcome, took) in ended {
            let counted = self.ended.entry(*outcome).or_insert_with(|| Histogram::new(counting::DEPLOYMENTS));
            counted.observe(took.as_duration());
        }
    }

    pub fn ended(&self) -> &BTreeMap<Outcome, Histogram> {
        &self.ended
    }

    fn fresh(&self) -> BTreeMap<NodeId, Arc<Observation>> {
        let now = self.snapshot.now;
        let fresh = self.observations.iter().filter(|(_, told)| now.since(told.at) <= STALE_AFTER);
        fresh.map(|(node, told)| (node.clone(), Arc::clone(told))).collect()
    }

    /// Services whose declaration cannot be read.
    pub fn held(&self) -> BTreeSet<ServiceKey> {
        self.worlds().filter(|world| world.service.is_unknown()).map(|world| world.key.clone()).collect()
    }

    /// Takes in a node's observation; only services of which an instance is told otherwise are looked at again.
    pub fn observe(&mut self, observation: Arc<Observation>) {
        let before = self.observations.insert(observation.node.clone(), Arc::clone(&observation));
        let changed: BTreeSet<ServiceKey> = match &before {
            Some(before) if before.complete == observation.complete => {
                let mut keys = told_otherwise(before, &observation);
                if before.accepted != observation.accepted {
                    keys.extend(self.removing(&observation.node));
                }
                keys
            }
            Some(_) | None => self.snapshot.worlds.keys().cloned().collect(),
        };
        self.look_again(changed);
    }

    /// Services that wait for a node to confirm a removal.
    fn removing(&self, node: &NodeId) -> Vec<ServiceKey> {
        let waits = |world: &&Arc<World>| {
            world
                .plan
                .placements
                .values()
                .any(|p| p.node == *node && matches!(p.stage, Stage::Removing { .. }))
        };
        self.snapshot.worlds.values().filter(waits).map(|world| world.key.clone()).collect()
    }

    /// Takes in an edge's report.
    pub fn hear(&mut self, report: EdgeReport) {
        let is_new = !self.edges.contains_key(&report.edge);
        self.edges.insert(report.edge.clone(), report);
        let concerned = self.awaiting_edges(is_new);
        self.look_again(concerned);
    }

    /// An edge that has long been lost is forgotten, so that it holds nothing up for ever.
    pub fn forget_lost_edges(&mut self) {
        let now = self.snapshot.now;
        let lost = |report: &EdgeReport| now.since(report.at).0 > 6 * decide::world::EDGE_LOST_AFTER.0;
        self.edges.retain(|_, report| !lost(report));
        let concerned = self.awaiting_edges(false);
        self.look_again(concerned);
    }

    fn awaiting_edges(&self, all: bool) -> BTreeSet<ServiceKey> {
        let waits = |world: &World| {
            let retiring = world.plan.placements.values().any(|p| matches!(p.stage, Stage::Retiring { .. }));
            let behind = world.plan.route.as_ref().is_some_and(|route| {
                world.edges.is_empty() || world.edges.values().any(|e| e.silent || e.served < route.revision)
            });
            all || retiring || behind
        };
        self.snapshot.worlds.values().filter(|w| waits(w)).map(|w| w.key.clone()).collect()
    }

    fn look_again(&mut self, keys: BTreeSet<ServiceKey>) {
        for key in keys {
            if let Some(world) = self.snapshot.worlds.get(&key) {
                let world = (**world).clone();
                self.put(world);
            }
        }
    }

    /// Whether something has changed since it was planned.
    pub fn has_news(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// What must be planned now: what has changed, and what no longer holds.
    pub fn due(&mut self) -> BTreeSet<ServiceKey> {
        let now = self.snapshot.now;
        let mut due = std::mem::take(&mut self.dirty);
        due.extend(
            self.snapshot
                .worlds
                .iter()
                .filter(|(key, world)| !self.holds(key, world, now))
                .map(|(k, _)| k.clone()),
        );
        due
    }

    fn holds(&self, key: &ServiceKey, world: &Arc<World>, now: Timestamp) -> bool {
        self.latest.get(key).is_some_and(|latest| {
            Arc::ptr_eq(&latest.world, world) && latest.report.holds_until.is_none_or(|until| now < until)
        })
    }

    /// Puts every world together anew from what is known; one that comes out the same keeps its pointer.
    pub fn look_at_everything(&mut self) {
        let keys = self.snapshot.worlds.keys().cloned().collect();
        self.look_again(keys);
        self.count();
    }

    /// The earliest time at which a decision no longer holds.
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.latest.values().filter_map(|latest| latest.report.holds_until).min()
    }

    /// Notes what a pass found. Returns whether the reasons are new.
    pub fn note(&mut self, key: &ServiceKey, report: Report) -> bool {
        let Some(world) = self.snapshot.worlds.get(key) else { return false };
        let latest = Latest { at: self.snapshot.now, report, world: Arc::clone(world) };
        match self.latest.insert(key.clone(), latest.clone()) {
            None => true,
            Some(before) => before.report.steps() != latest.report.steps(),
        }
    }

    /// Takes in a committed decision. It is looked at again: what it changed may lead on.
    pub fn committed(&mut self, plan: &model::plan::Plan) {
        self.snapshot.cluster.generation = plan.generation;
        self.snapshot.cluster.route_revision = plan.route_revision;
        for decision in &plan.decisions {
            if decision.purge {
                self.forget(&decision.key);
            } else if let Some(world) = self.snapshot.worlds.get(&decision.key) {
                let world = world.after(decision);
                self.put(world);
            }
        }
        self.count();
    }

    pub fn count(&mut self) {
        let mut load: BTreeMap<NodeId, u32> = BTreeMap::new();
        for placement in self.snapshot.worlds.values().flat_map(|world| world.plan.placements.values()) {
            if placement.stage.is_run() {
                *load.entry(placement.node.clone()).or_default() += 1;
            }
        }
        self.snapshot.cluster.running = load.values().sum();
        self.snapshot.cluster.load = load;
    }
}

/// Instances that the newer observation tells otherwise, by their services. Equal reports are the same pointer.
fn told_otherwise(before: &Observation, after: &Observation) -> BTreeSet<ServiceKey> {
    let changed = |id: &InstanceId| match (before.instances.get(id), after.instances.get(id)) {
        (Some(before), Some(after)) => !Arc::ptr_eq(before, after) && before != after,
        (None, None) => false,
        (Some(_), None) | (None, Some(_)) => true,
    };
    before
        .instances
        .keys()
        .chain(after.instances.keys())
        .filter(|id| changed(id))
        .map(|id| id.service.clone())
        .collect()
}

fn world_of(row: ServiceRow) -> World {
    World {
        key: row.service.key.clone(),
        service: Knowledge::Known(row.service),
        plan: row.plan,
        releases: row.releases,
        deployments: row.deployments,
        next_deployment: row.next_deployment_number,
        seen: BTreeMap::new(),
        edges: BTreeMap::new(),
    }
}

/// The world of a service that is not declared (any more): its counters go on.
pub fn absent(key: &ServiceKey, floor: Floor) -> World {
    World {
        key: key.clone(),
        service: Knowledge::Absent,
        plan: ServicePlan {
            seq: floor.plan,
            next_incarnation: floor.next_incarnation,
            ..ServicePlan::default()
        },
        releases: BTreeMap::new(),
        deployments: Vec::new(),
        next_deployment: floor.next_deployment_number,
        seen: BTreeMap::new(),
        edges: BTreeMap::new(),
    }
}
