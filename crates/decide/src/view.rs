//! The view that whoever plans keeps: worlds put together from stored rows, observations and edge reports. A world is
//! replaced only when its content changes, so that the same pointer means the same content and an unchanged world costs
//! a pass nothing.
//!
//! Owns: what is looked at again after which news, and what of it is due. Refuses to know: where news come from.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use model::{
    EdgeId, Generation, InstanceId, Millis, NodeId, RouteRevision, ServiceKey, Timestamp,
    instance::Stage,
    node::{Drain, Node, NodeState},
    observation::Observation,
    plan::{Plan, Report},
    route::EdgeReport,
};

use crate::{
    monitor::{self, Outcome},
    world::{Cluster, EDGE_LOST_AFTER, Snapshot, World},
};

/// What the last pass found about a service: its reasons, and until when they hold.
#[derive(Debug, Clone)]
pub struct Latest {
    pub at: Timestamp,
    pub report: Report,
    /// The world that was planned; the same pointer needs no new plan before `report.holds_until`. `None`: what was decided
    /// is not known to be committed.
    world: Option<Arc<World>>,
}

#[derive(Debug)]
pub struct View {
    pub snapshot: Snapshot,
    observations: BTreeMap<NodeId, Arc<Observation>>,
    edges: BTreeMap<EdgeId, EdgeReport>,
    latest: BTreeMap<ServiceKey, Latest>,
    /// Services of which something may have changed since they were planned.
    dirty: BTreeSet<ServiceKey>,
    drains: BTreeMap<NodeId, Drain>,
    /// Deployments that have ended since it was asked last, with the time that they took.
    ended: Vec<(Outcome, Millis)>,
    /// A node that has not reported for this long may do anything by now: what it said is no longer taken for true (I20).
    stale_after: Millis,
    /// Nodes that do not take what they are assigned, and why.
    refusals: BTreeMap<NodeId, String>,
}

impl View {
    pub fn new(snapshot: Snapshot, stale_after: Millis) -> Self {
        Self {
            snapshot,
            observations: BTreeMap::new(),
            edges: BTreeMap::new(),
            latest: BTreeMap::new(),
            dirty: BTreeSet::new(),
            drains: BTreeMap::new(),
            ended: Vec::new(),
            stale_after,
            refusals: BTreeMap::new(),
        }
    }

    /// Takes in whether a node took its assignment; `Some`: why not.
    pub fn set_refusal(&mut self, node: &NodeId, why: Option<String>) {
        match why {
            Some(why) => self.refusals.insert(node.clone(), why),
            None => self.refusals.remove(node),
        };
        self.look_again(self.snapshot.worlds.keys().cloned().collect());
    }

    pub fn refusals(&self) -> &BTreeMap<NodeId, String> {
        &self.refusals
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
        self.all_dirty();
    }

    /// Nodes that have told nothing for long are silent until they tell again; `began`: when this view did.
    pub fn note_silence(&mut self, began: Timestamp) {
        let now = self.snapshot.now;
        let mut changed = false;
        for node in self.snapshot.cluster.nodes.values_mut() {
            let heard = self.observations.get(&node.id).map_or(began, |told| told.at);
            let is_fresh = self.observations.contains_key(&node.id) && now.since(heard) <= self.stale_after;
            let drained = self.drains.contains_key(&node.id);
            let state = match node.state {
                state @ NodeState::Lost { .. } => state,
                NodeState::Up | NodeState::Draining | NodeState::Silent { .. } if !is_fresh => {
                    NodeState::Silent { since: heard }
                }
                NodeState::Up | NodeState::Draining | NodeState::Silent { .. } if drained => {
                    NodeState::Draining
                }
                NodeState::Up | NodeState::Draining | NodeState::Silent { .. } => NodeState::Up,
            };
            changed |= state != node.state;
            node.state = state;
        }
        if changed {
            self.all_dirty();
        }
    }

    fn all_dirty(&mut self) {
        self.dirty.extend(self.snapshot.worlds.keys().cloned());
    }

    pub fn drain_of(&self, node: &NodeId) -> Option<&Drain> {
        self.drains.get(node)
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

    /// Deployments that have ended since this was asked last.
    pub fn take_ended(&mut self) -> Vec<(Outcome, Millis)> {
        std::mem::take(&mut self.ended)
    }

    pub fn forget(&mut self, key: &ServiceKey) {
        self.snapshot.worlds.remove(key);
        self.latest.remove(key);
        self.dirty.remove(key);
    }

    /// Puts a world in, with what nodes and edges say of it now.
    pub fn put(&mut self, mut world: World) {
        world.see(&self.fresh());
        world.hear(self.edges.values(), self.snapshot.now);
        world.refuse(&self.refusals);
        let before = self.snapshot.worlds.get(&world.key);
        if before.is_none_or(|before| **before != world) {
            self.replace(world);
        }
    }

    fn replace(&mut self, world: World) {
        if let Some(before) = self.snapshot.worlds.get(&world.key) {
            self.ended.extend(monitor::ended(before, &world));
        }
        self.dirty.insert(world.key.clone());
        self.snapshot.worlds.insert(world.key.clone(), Arc::new(world));
    }

    fn fresh(&self) -> BTreeMap<NodeId, Arc<Observation>> {
        let now = self.snapshot.now;
        let fresh = self.observations.iter().filter(|(_, told)| now.since(told.at) <= self.stale_after);
        fresh.map(|(node, told)| (node.clone(), Arc::clone(told))).collect()
    }

    /// Services whose declaration cannot be read.
    pub fn held(&self) -> BTreeSet<ServiceKey> {
        self.worlds().filter(|world| world.service.is_unknown()).map(|world| world.key.clone()).collect()
    }

    /// Takes in a node's observation; only services of which an instance is told otherwise are looked at again. An older one
    /// that comes late says nothing.
    pub fn observe(&mut self, observation: Arc<Observation>) {
        let before = self.observations.get(&observation.node);
        if before.is_some_and(|before| before.sequence >= observation.sequence) {
            return;
        }
        let before = self.observations.insert(observation.node.clone(), Arc::clone(&observation));
        let changed: BTreeSet<ServiceKey> = match &before {
            Some(before) if before.complete == observation.complete => {
                let mut keys = told_otherwise(before, &observation);
                if before.accepted != observation.accepted {
                    keys.extend(self.removing(&observation.node));
                }
                if (&before.lost_volumes, &before.engine) != (&observation.lost_volumes, &observation.engine)
                {
                    keys.extend(self.snapshot.worlds.keys().cloned());
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

    /// Takes in an edge's report. An older one that comes late says nothing.
    pub fn hear(&mut self, report: EdgeReport) {
        let before = self.edges.get(&report.edge);
        if before.is_some_and(|before| before.at > report.at) {
            return;
        }
        let is_new = before.is_none();
        self.edges.insert(report.edge.clone(), report);
        let concerned = self.awaiting_edges(is_new);
        self.look_again(concerned);
    }

    /// An edge that has long been lost is forgotten, so that it holds nothing up for ever.
    pub fn forget_lost_edges(&mut self) {
        let now = self.snapshot.now;
        let lost = |report: &EdgeReport| now.since(report.at).0 > 6 * EDGE_LOST_AFTER.0;
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
        let fresh = self.fresh();
        for key in keys {
            let Some(world) = self.snapshot.worlds.get(&key) else { continue };
            let seen = world.seen_in(&fresh);
            let edges = world.heard_from(self.edges.values(), self.snapshot.now);
            let refused = world.refused_in(&self.refusals);
            let lost_volumes = world.lost_volumes_in(&fresh);
            let engines_away = world.engines_away_in(&fresh);
            if (&seen, &edges, &refused, &lost_volumes, &engines_away)
                != (&world.seen, &world.edges, &world.refused, &world.lost_volumes, &world.engines_away)
            {
                let world = World { seen, edges, refused, lost_volumes, engines_away, ..(**world).clone() };
                self.replace(world);
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
            latest.world.as_ref().is_some_and(|planned| Arc::ptr_eq(planned, world))
                && latest.report.holds_until.is_none_or(|until| now < until)
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

    /// Notes what a pass found. What it decided is due until that is committed. Returns whether the reasons are new.
    pub fn note(&mut self, key: &ServiceKey, report: Report, decided: bool) -> bool {
        let Some(world) = self.snapshot.worlds.get(key) else { return false };
        let world = (!decided).then(|| Arc::clone(world));
        let latest = Latest { at: self.snapshot.now, report, world };
        let before = self.latest.get(key);
        let is_new = before.is_none_or(|before| before.report.steps() != latest.report.steps());
        self.latest.insert(key.clone(), latest);
        is_new
    }

    /// Takes in a committed decision. It is looked at again: what it changed may lead on.
    pub fn committed(&mut self, plan: &Plan) {
        self.at(plan.generation, plan.route_revision);
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

    /// What was committed last.
    pub fn at(&mut self, generation: Generation, routes: RouteRevision) {
        self.snapshot.cluster.generation = generation;
        self.snapshot.cluster.route_revision = routes;
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

/// A cluster of these nodes, all of them up, as it was committed last.
pub fn cluster(generation: Generation, route_revision: RouteRevision, nodes: Vec<NodeId>) -> Cluster {
    let node = |id: NodeId| Node { id, state: NodeState::Up, reserved_ports: Vec::new() };
    Cluster {
        generation,
        route_revision,
        nodes: nodes.into_iter().map(|id| (id.clone(), node(id))).collect(),
        load: BTreeMap::new(),
        running: 0,
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
