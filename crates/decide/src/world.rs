//! What the planner looks at: one world per service, and a few sums over the cluster.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    BootId, Digest, EdgeId, Generation, Holder, InstanceId, Knowledge, NodeId, ReleaseDigest, RouteRevision,
    ServiceKey, Term, Timestamp,
    deployment::Deployment,
    instance::{Placement, Stage},
    node::Node,
    observation::{EngineAway, InstanceReport, LostVolume, Observation},
    plan::{Decision, Parent, ServicePlan},
    reason::Waiting,
    release::Release,
    route::EdgeReport,
    service::Service,
    spec::Workload,
};
use serde::{Deserialize, Serialize};

use crate::planted::Bug;

/// An edge that has not reported for this long counts as lost.
pub const EDGE_LOST_AFTER: model::Millis = model::Millis::secs(10);

/// All of it at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub now: Timestamp,
    pub term: Term,
    pub holder: Holder,
    pub cluster: Cluster,
    pub worlds: BTreeMap<ServiceKey, Arc<World>>,
}

/// Small sums over all services.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// As committed last; a plan's own is one more.
    pub generation: Generation,
    pub route_revision: RouteRevision,
    pub nodes: BTreeMap<NodeId, Node>,
    /// Instances placed at each node, for balance.
    pub load: BTreeMap<NodeId, u32>,
    /// Instances that run anywhere, for the guard against blasts.
    pub running: u32,
}

/// One service: what was intended, what was planned, what is seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct World {
    pub key: ServiceKey,
    pub service: Knowledge<Service>,
    pub plan: ServicePlan,
    /// Every release that the service keeps.
    pub releases: BTreeMap<ReleaseDigest, Arc<Release>>,
    /// The open one, the active one, and the newest ones.
    pub deployments: Vec<Deployment>,
    pub next_deployment: u64,
    /// Per placement; what is missing here is unknown.
    pub seen: BTreeMap<InstanceId, Knowledge<Arc<InstanceReport>>>,
    pub edges: BTreeMap<EdgeId, EdgeView>,
    /// Nodes that have something of this service and do not take what they are assigned, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<NodeId, String>,
    /// Volumes that it declares and that somebody removed, by the node that held them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lost_volumes: BTreeMap<NodeId, Vec<LostVolume>>,
    /// Nodes that have containers of this service and whose engine does not answer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub engines_away: BTreeMap<NodeId, EngineAway>,
}

/// An edge as one service needs it. Clamped, so that another service's traffic changes nothing here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeView {
    /// At most the newest revision that this service waits for.
    pub served: RouteRevision,
    pub silent: bool,
    /// Of this service's retiring instances alone; what is missing has none.
    pub in_flight: BTreeMap<InstanceId, u64>,
}

impl World {
    /// Of a service that was never declared.
    pub fn absent(key: ServiceKey) -> Self {
        Self {
            key,
            service: Knowledge::Absent,
            plan: ServicePlan::default(),
            releases: BTreeMap::new(),
            deployments: Vec::new(),
            next_deployment: 1,
            seen: BTreeMap::new(),
            edges: BTreeMap::new(),
            refused: BTreeMap::new(),
            lost_volumes: BTreeMap::new(),
            engines_away: BTreeMap::new(),
        }
    }

    pub fn digest(&self) -> Digest {
        Digest::of_value(self)
    }

    pub fn parent(&self) -> Parent {
        Parent { intent: self.service.known().map(|s| s.intent_seq).unwrap_or_default(), plan: self.plan.seq }
    }

    pub fn report(&self, id: &InstanceId) -> Option<&InstanceReport> {
        self.seen.get(id).and_then(Knowledge::known).map(|report| &**report)
    }

    /// Not told of, or told that it cannot be told.
    pub fn is_unknown(&self, id: &InstanceId) -> bool {
        self.seen.get(id).is_none_or(Knowledge::is_unknown)
            || self.report(id).is_some_and(|report| report.state.is_unknown())
    }

    pub fn is_gone(&self, id: &InstanceId) -> bool {
        self.seen.get(id).is_some_and(Knowledge::is_absent)
    }

    pub fn open_deployment(&self) -> Option<&Deployment> {
        self.deployments.iter().find(|d| d.phase.is_open())
    }

    pub fn active_deployment(&self) -> Option<&Deployment> {
        self.deployments.iter().find(|d| d.phase == model::deployment::Phase::Active)
    }

    pub fn latest_deployment(&self) -> Option<&Deployment> {
        self.deployments.iter().max_by_key(|d| d.number)
    }

    /// The newest attempt that somebody asked for; a restoration is our own doing.
    pub fn latest_intended(&self) -> Option<&Deployment> {
        self.deployments
            .iter()
            .filter(|d| d.cause != model::deployment::Cause::Restore)
            .max_by_key(|d| d.number)
    }

    /// The newest deployment of a release: what an instance of it belongs to.
    pub fn deployment_of(&self, release: &ReleaseDigest) -> Option<&Deployment> {
        self.deployments.iter().filter(|d| d.release == *release).max_by_key(|d| d.number)
    }

    /// The world once a decision is committed. The store, the server and the simulator agree through this.
    #[must_use]
    pub fn after(&self, decision: &Decision) -> Self {
        let mut next = self.clone();
        next.plan = decision.plan.clone();
        if decision.purge {
            next.service = Knowledge::Absent;
            next.releases.clear();
            next.deployments.clear();
            return next;
        }
        if let Some(service) = &decision.service {
            next.service = Knowledge::Known(service.clone());
        }
        for deployment in &decision.deployments {
            match next.deployments.iter_mut().find(|d| d.id == deployment.id) {
                Some(stored) => *stored = deployment.clone(),
                None => {
                    next.next_deployment = next.next_deployment.max(deployment.number + 1);
                    next.deployments.push(deployment.clone());
                }
            }
        }
        next
    }

    /// Takes over what the nodes see of this service's placements.
    pub fn see(&mut self, observations: &BTreeMap<NodeId, Arc<Observation>>) {
        self.seen = self.seen_in(observations);
        self.lost_volumes = self.lost_volumes_in(observations);
        self.engines_away = self.engines_away_in(observations);
    }

    pub(crate) fn engines_away_in(
        &self,
        observations: &BTreeMap<NodeId, Arc<Observation>>,
    ) -> BTreeMap<NodeId, EngineAway> {
        let is_container =
            |release: &ReleaseDigest| self.releases.get(release).is_some_and(|r| r.image().is_some());
        let held = self.plan.placements.values().filter(|placement| is_container(&placement.release));
        held.filter_map(|placement| {
            let away = observations.get(&placement.node)?.engine.as_ref()?.away()?;
            Some((placement.node.clone(), away.clone()))
        })
        .collect()
    }

    /// Whose engine does not answer, in the planner's words.
    pub fn without_engine(&self) -> impl Iterator<Item = Waiting> {
        self.engines_away
            .iter()
            .map(|(node, away)| Waiting::EngineAway { node: node.clone(), away: away.clone() })
    }

    pub(crate) fn lost_volumes_in(
        &self,
        observations: &BTreeMap<NodeId, Arc<Observation>>,
    ) -> BTreeMap<NodeId, Vec<LostVolume>> {
        let Some(Workload::Container(container)) = self.service.known().map(|service| &service.spec.workload)
        else {
            return BTreeMap::new();
        };
        let mounts = |lost: &&LostVolume| container.mounts(&self.key.project, &lost.name);
        let of = |told: &Observation| told.lost_volumes.iter().filter(mounts).cloned().collect::<Vec<_>>();
        let all = observations.iter().map(|(node, told)| (node.clone(), of(told)));
        all.filter(|(_, lost)| !lost.is_empty()).collect()
    }

    /// The volumes that it declares and that somebody removed, in the planner's words.
    pub fn lost(&self) -> impl Iterator<Item = Waiting> {
        let each = self.lost_volumes.iter().flat_map(|(node, lost)| lost.iter().map(move |one| (node, one)));
        each.map(|(node, volume)| Waiting::VolumeLost { node: node.clone(), volume: volume.clone() })
    }

    pub(crate) fn seen_in(
        &self,
        observations: &BTreeMap<NodeId, Arc<Observation>>,
    ) -> BTreeMap<InstanceId, Knowledge<Arc<InstanceReport>>> {
        self.plan
            .placements
            .values()
            .map(|placement| (placement.id.clone(), seen(placement, observations.get(&placement.node))))
            .collect()
    }

    /// Takes over what the edges report, as far as it matters to this service.
    pub fn hear<'a>(&mut self, edges: impl IntoIterator<Item = &'a EdgeReport>, now: Timestamp) {
        self.edges = self.heard_from(edges, now);
    }

    pub(crate) fn heard_from<'a>(
        &self,
        edges: impl IntoIterator<Item = &'a EdgeReport>,
        now: Timestamp,
    ) -> BTreeMap<EdgeId, EdgeView> {
        let needed = self.needed_revision();
        let retiring: Vec<InstanceId> = self
            .plan
            .placements
            .values()
            .filter(|p| matches!(p.stage, Stage::Retiring { .. }))
            .map(|p| p.id.clone())
            .collect();
        edges
            .into_iter()
            .map(|report| {
                let in_flight = retiring
                    .iter()
                    .filter_map(|id| report.in_flight.get(id).map(|n| (id.clone(), *n)))
                    .filter(|(_, n)| *n > 0)
                    .collect();
                let view = EdgeView {
                    served: report.served.min(needed),
                    silent: now.since(report.at) > EDGE_LOST_AFTER,
                    in_flight,
                };
                (report.edge.clone(), view)
            })
            .collect()
    }

    /// Takes over which of its nodes do not take what they are assigned.
    pub fn refuse(&mut self, refusals: &BTreeMap<NodeId, String>) {
        self.refused = self.refused_in(refusals);
    }

    pub(crate) fn refused_in(&self, refusals: &BTreeMap<NodeId, String>) -> BTreeMap<NodeId, String> {
        let nodes = self.plan.placements.values().map(|placement| &placement.node);
        nodes.filter_map(|node| Some((node.clone(), refusals.get(node)?.clone()))).collect()
    }

    /// That a node does not take what it is assigned, in the planner's words.
    pub fn refusal(&self, node: &NodeId) -> Option<Waiting> {
        let cause = self.refused.get(node)?.clone();
        Some(Waiting::NodeRefuses { node: node.clone(), cause })
    }

    pub fn refusals(&self) -> impl Iterator<Item = Waiting> {
        self.refused.keys().filter_map(|node| self.refusal(node))
    }

    /// The newest route revision that this service waits for.
    fn needed_revision(&self) -> RouteRevision {
        let routes = self.plan.route.iter().map(|route| route.revision);
        let retiring = self.plan.placements.values().filter_map(|p| match p.stage {
            Stage::Retiring { revision, .. } => Some(revision),
            Stage::Run | Stage::Kept | Stage::Removing { .. } => None,
        });
        routes.chain(retiring).max().unwrap_or_default()
    }
}

/// What a server says of an edge that it knows of by its records and has not heard since it began: it serves nothing new, and
/// counts as lost once it has been silent for its time. Left out, it would count as one with nothing in flight.
pub fn not_heard(edge: EdgeId, boot: BootId, began: Timestamp) -> EdgeReport {
    EdgeReport { edge, boot, at: began, served: RouteRevision(0), in_flight: BTreeMap::new() }
}

/// What a node's observation says about a placement. Silence of an incomplete observation, or of one from before
/// the removal was accepted, is not absence (I14).
fn seen(placement: &Placement, observation: Option<&Arc<Observation>>) -> Knowledge<Arc<InstanceReport>> {
    // The planted bug that the simulator must find: no observation read as an empty one.
    if Bug::UnknownIsEmpty.is_planted() && observation.is_none() {
        return Knowledge::Absent;
    }
    let unknown = |cause: &str| Knowledge::Unknown { since: placement.created_at, cause: cause.into() };
    let Some(observation) = observation else { return unknown("its node has not reported yet") };
    if let Some(report) = observation.instances.get(&placement.id) {
        return Knowledge::Known(Arc::clone(report));
    }
    if !observation.complete {
        return unknown("its node has not looked at everything yet");
    }
    match &placement.stage {
        Stage::Removing { generation, .. } => match &observation.accepted {
            Some(stamp) if stamp.generation >= *generation => Knowledge::Absent,
            Some(_) | None => unknown("its node has not accepted the removal yet"),
        },
        Stage::Run | Stage::Kept | Stage::Retiring { .. } => Knowledge::Absent,
    }
}
