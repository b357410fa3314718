//! A plan in the making: the world as it is, and the next plan as far as the steps have come.

use std::collections::BTreeMap;

use model::{
    DeploymentId, EdgeId, Generation, Incarnation, InstanceId, NodeId, ReleaseDigest, RouteRevision,
    Timestamp,
    deployment::Deployment,
    instance::{Placement, RetireReason, Stage},
    node::NodeState,
    plan::{Decision, Report, ServicePlan},
    reason::Change,
    release::Release,
    service::Service,
    spec::{Kind, Order},
};

use super::{
    classify::{Class, Readiness},
    events, order, place,
};
use crate::{
    planted::Bug,
    world::{Cluster, World},
};

pub struct Work<'a> {
    pub world: &'a World,
    pub cluster: &'a Cluster,
    pub now: Timestamp,
    pub service: Service,
    pub plan: ServicePlan,
    pub classes: BTreeMap<InstanceId, Class>,
    /// New instances that `rollout` asks `place` for.
    pub starts: u32,
    /// Deployments that this pass changed or began.
    pub deployments: BTreeMap<DeploymentId, Deployment>,
    pub wake_at: Option<Timestamp>,
}

impl<'a> Work<'a> {
    pub fn new(world: &'a World, service: &Service, cluster: &'a Cluster, now: Timestamp) -> Self {
        Self {
            world,
            cluster,
            now,
            service: service.clone(),
            plan: ServicePlan { generation: service.generation, ..world.plan.clone() },
            classes: BTreeMap::new(),
            starts: 0,
            deployments: BTreeMap::new(),
            wake_at: None,
        }
    }

    /// Asks to be looked at again at this time; one that has come would hide those that are still to come.
    pub fn wake(&mut self, at: Timestamp) {
        if at <= self.now {
            return;
        }
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    pub fn next_revision(&self) -> RouteRevision {
        self.cluster.route_revision.next()
    }

    pub fn next_generation(&self) -> Generation {
        self.cluster.generation.next()
    }

    pub fn target(&self) -> Option<ReleaseDigest> {
        self.service.target
    }

    pub fn release(&self, digest: &ReleaseDigest) -> Option<&'a Release> {
        self.world.releases.get(digest).map(|release| &**release)
    }

    fn target_release(&self) -> Option<&'a Release> {
        self.target().and_then(|target| self.release(&target))
    }

    pub fn kind(&self) -> Kind {
        order::kind(&self.service, self.target_release())
    }

    /// Instances that shall run: a fixed port is there once at each node, and where a restoration brings one back for
    /// more, as many run as can.
    pub fn wanted(&self) -> u32 {
        let wanted = order::wanted(&self.service, self.target_release());
        if self.fixed_port().is_some() { wanted.min(self.nodes()) } else { wanted }
    }

    /// Whether it has something that runs; a site has a folder.
    pub fn runs(&self, placement: &Placement) -> bool {
        self.release(&placement.release).is_some_and(|release| release.workload.kind().runs())
    }

    /// Nodes that may have an instance. A silent one may have it still; without any, what is wanted is not less.
    pub fn nodes(&self) -> u32 {
        let lost = |state: NodeState| matches!(state, NodeState::Lost { .. });
        count(self.cluster.nodes.values().filter(|node| !lost(node.state))).max(1)
    }

    pub fn fixed_port(&self) -> Option<u16> {
        order::fixed_port(self.target_release())
    }

    pub fn order(&self) -> Order {
        order::order(&self.service, self.target_release())
    }

    /// Whether old ones go before new ones are ready.
    pub fn takes_down_first(&self) -> bool {
        order::takes_down_first(&self.service, self.target_release())
    }

    /// Edges that report and serve an older route table than this one.
    pub fn edges_behind(&self, revision: RouteRevision) -> Vec<EdgeId> {
        let behind = self.world.edges.iter().filter(|(_, edge)| !edge.silent && edge.served < revision);
        behind.map(|(id, _)| id.clone()).collect()
    }

    /// Whether an edge that reports does not serve the routes that were decided last.
    pub fn is_edge_behind(&self) -> bool {
        self.plan.route.as_ref().is_some_and(|route| !self.edges_behind(route.revision).is_empty())
    }

    /// The open deployment, as this pass has it.
    pub fn open(&self) -> Option<&Deployment> {
        self.each_deployment().find(|d| d.phase.is_open())
    }

    pub fn each_deployment(&self) -> impl Iterator<Item = &Deployment> {
        let unchanged = self.world.deployments.iter().filter(|d| !self.deployments.contains_key(&d.id));
        self.deployments.values().chain(unchanged)
    }

    /// The target's newest deployment failed, and nobody has asked for anything since: everything stays.
    pub fn paused_by(&self) -> Option<DeploymentId> {
        if self.open().is_some() {
            return None;
        }
        let target = self.target()?;
        let newest = self.each_deployment().filter(|d| d.release == target).max_by_key(|d| d.number)?;
        (newest.phase == model::deployment::Phase::Failed).then(|| newest.id.clone())
    }

    pub fn placements(&self) -> impl Iterator<Item = &Placement> {
        self.plan.placements.values()
    }

    /// Instances that shall run and are of the target release and epoch.
    pub fn current(&self) -> Vec<(&Placement, Readiness)> {
        self.of_class(|class| match class {
            Class::Current(readiness) => Some(readiness),
            Class::Outdated(_) | Class::Kept | Class::Leaving => None,
        })
    }

    /// Instances that run something else.
    pub fn outdated(&self) -> Vec<(&Placement, Readiness)> {
        self.of_class(|class| match class {
            Class::Outdated(readiness) => Some(readiness),
            Class::Current(_) | Class::Kept | Class::Leaving => None,
        })
    }

    fn of_class(&self, pick: impl Fn(Class) -> Option<Readiness>) -> Vec<(&Placement, Readiness)> {
        self.plan
            .placements
            .values()
            .filter_map(|p| self.classes.get(&p.id).copied().and_then(&pick).map(|readiness| (p, readiness)))
            .collect()
    }

    pub fn ready_current(&self) -> u32 {
        count(self.current().iter().filter(|(_, readiness)| *readiness == Readiness::Ready))
    }

    /// Whether it is to leave its node, and another one would take it.
    pub fn moves(&self, placement: &Placement) -> bool {
        self.is_draining(&placement.node) && place::elsewhere(self, &placement.node).is_ok()
    }

    pub fn is_draining(&self, node: &NodeId) -> bool {
        self.cluster.nodes.get(node).is_some_and(|node| node.state == NodeState::Draining)
    }

    /// Whether any node takes new instances at all.
    pub fn has_open_node(&self) -> bool {
        self.cluster.nodes.values().any(|node| node.state == NodeState::Up)
    }

    /// Everything that may still have a process, those on their way out among them. What a lost node had is replaced
    /// before the node can confirm anything.
    pub fn live(&self) -> u32 {
        count(self.placements().filter(|p| match p.stage {
            Stage::Run | Stage::Retiring { .. } => true,
            Stage::Removing { why, .. } => why != RetireReason::NodeLost,
            Stage::Kept => false,
        }))
    }

    /// Those of them that were told to end: they serve nothing any more.
    pub fn ending(&self) -> u32 {
        count(
            self.placements()
                .filter(|p| matches!(p.stage, Stage::Removing { why, .. } if why != RetireReason::NodeLost)),
        )
    }

    /// Takes an instance out of the routes, to be stopped once nothing is in flight. Without routes there is nothing
    /// to wait for.
    pub fn retire(&mut self, id: &InstanceId, why: RetireReason) -> Option<Change> {
        let routed =
            self.world.plan.route.as_ref().is_some_and(|route| route.backend.instances().contains(id));
        let revision = match &self.plan.route {
            Some(_) if routed => self.next_revision(),
            // It took requests until it was found not ready, and may still be at them.
            Some(route) => route.revision,
            // The same after a release without domains has taken the routes away.
            None if self.has_domains(id) => self.cluster.route_revision,
            None => return self.withdraw(id, why, model::reason::Drained::Unrouted),
        };
        // The planted bug that the simulator must find: a stop before the route is out.
        if Bug::StopBeforeRouteOut.is_planted() {
            return self.withdraw(id, why, model::reason::Drained::Empty);
        }
        let now = self.now;
        let placement = self.plan.placements.get_mut(id)?;
        placement.stage = Stage::Retiring { revision, since: now, why };
        self.classes.insert(id.clone(), Class::Leaving);
        Some(Change::RoutedOut { instance: id.clone(), revision, because: why })
    }

    fn has_domains(&self, id: &InstanceId) -> bool {
        let release = self.plan.placements.get(id).and_then(|placement| self.release(&placement.release));
        release.is_some_and(|release| !release.domains.is_empty())
    }

    /// Takes an instance out of the assignment: its node ends it.
    pub fn withdraw(
        &mut self,
        id: &InstanceId,
        why: RetireReason,
        drained: model::reason::Drained,
    ) -> Option<Change> {
        let stage = Stage::Removing { generation: self.next_generation(), since: self.now, why };
        self.plan.placements.get_mut(id)?.stage = stage;
        self.classes.insert(id.clone(), Class::Leaving);
        Some(Change::Withdrawn { instance: id.clone(), drained })
    }

    pub fn next_incarnation(&mut self) -> Incarnation {
        let next = self.plan.next_incarnation;
        self.plan.next_incarnation = next.next();
        next
    }

    /// Deleted, confirmed by every node, and out of the route table, so that its going has a revision of its own.
    pub fn is_purged(&self) -> bool {
        self.service.deleted.is_some() && self.plan.placements.is_empty() && self.plan.route.is_none()
    }

    /// The decision, if anything changed.
    pub fn into_decision(mut self, report: &Report) -> Option<Decision> {
        let purge = self.is_purged();
        let moved = Some(&self.service) != self.world.service.known();
        let unchanged = self.plan == self.world.plan && !moved && self.deployments.is_empty() && !purge;
        if unchanged {
            return None;
        }
        self.plan.seq = self.world.plan.seq.next();
        Some(Decision {
            key: self.world.key.clone(),
            parent: self.world.parent(),
            events: events::of(&self.world.key, report),
            plan: self.plan,
            service: moved.then_some(self.service),
            deployments: self.deployments.into_values().collect(),
            purge,
        })
    }
}

pub fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}
