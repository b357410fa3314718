//! What no plan may contain, whatever the planner thought. Every plan is linted before it is committed, in tests and
//! in production.

use std::collections::BTreeSet;

use model::{
    InstanceId, ServiceKey,
    deployment::next,
    instance::{Placement, RetireReason, Stage},
    node::NodeState,
    observation::State,
    plan::{Decision, Plan},
};

use crate::{
    plan::{
        order::{takes_down_first, wanted},
        work::count,
    },
    world::{Cluster, Snapshot, World},
};

/// Removals without an intent that names them, beyond which a pass stops and asks (I14): the larger of both.
const BLAST_COUNT: u32 = 3;
const BLAST_PERCENT: u32 = 20;

#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum Objection {
    #[error(
        "{removals} of {running} instances would go without an intent that names them; `setpoint reconcile --confirm` carries it out"
    )]
    Blast { removals: u32, running: u32 },
    #[error("{0}: decided about a service that cannot be read")]
    UnknownService(ServiceKey),
    #[error("{0}: it would be taken from its node while it still has routes")]
    StillRouted(InstanceId),
    #[error("{0}: it would be taken from its node before the edges confirmed that it is out of the routes")]
    NotDrained(InstanceId),
    #[error("{0}: its placement is forgotten before its node confirmed that it is gone")]
    Forgotten(InstanceId),
    #[error("{0}: an instance changed its release, its node or its slot")]
    Mutated(InstanceId),
    #[error("{0}: a stage went back")]
    StageWentBack(InstanceId),
    #[error("{0}: an incarnation is used again")]
    ReusedIncarnation(InstanceId),
    #[error("{service}: {live} instances would live, at most {limit} may")]
    TooMany { service: ServiceKey, live: u32, limit: u32 },
    #[error("{0}: routed although it is not ready")]
    UnreadyRouted(InstanceId),
    #[error("{service}: deployment #{number} took an illegal step")]
    IllegalDeployment { service: ServiceKey, number: u64 },
    #[error("{0}: more than one deployment is open")]
    TwoOpen(ServiceKey),
}

/// All objections to a plan; none, and it may be committed.
pub fn lint(snapshot: &Snapshot, plan: &Plan) -> Vec<Objection> {
    let mut objections: Vec<Objection> = plan
        .decisions
        .iter()
        .filter_map(|decision| Some((snapshot.worlds.get(&decision.key)?, decision)))
        .flat_map(|(world, decision)| one(world, decision))
        .collect();
    objections.extend(blast(snapshot, plan));
    objections
}

/// Objections to one service's decision.
pub fn one(world: &World, decision: &Decision) -> Vec<Objection> {
    let mut objections = Vec::new();
    if world.service.is_unknown() {
        objections.push(Objection::UnknownService(world.key.clone()));
    }
    for before in world.plan.placements.values() {
        objections.extend(placement(world, before, decision));
    }
    objections.extend(new_placements(world, decision));
    objections.extend(routes(world, decision));
    objections.extend(too_many(world, decision));
    objections.extend(deployments(world, decision));
    objections
}

fn placement(world: &World, before: &Placement, decision: &Decision) -> Option<Objection> {
    let id = before.id.clone();
    let Some(after) = decision.plan.placements.get(&before.id) else {
        let confirmed = matches!(before.stage, Stage::Removing { .. }) && world.is_gone(&id);
        return (!confirmed).then_some(Objection::Forgotten(id));
    };
    if (&before.node, before.release, &before.deployment) != (&after.node, after.release, &after.deployment) {
        return Some(Objection::Mutated(id));
    }
    match (&before.stage, &after.stage) {
        (Stage::Retiring { .. }, Stage::Run | Stage::Kept)
        | (Stage::Removing { .. }, Stage::Run | Stage::Kept | Stage::Retiring { .. }) => {
            Some(Objection::StageWentBack(id))
        }
        // A lost node answers no request whatever the routes say.
        (Stage::Run | Stage::Kept, Stage::Removing { why: RetireReason::NodeLost, .. }) => None,
        (Stage::Run | Stage::Kept, Stage::Removing { .. }) if was_routed(world, &id) => {
            Some(Objection::StillRouted(id))
        }
        (Stage::Retiring { revision, .. }, Stage::Removing { .. }) => {
            let heard = world.edges.values().filter(|edge| !edge.silent);
            let cut = matches!(&before.stage, Stage::Retiring { since, .. }
                if since.0 > 0 && !drain_is_open(world, *since, decision));
            let drained =
                heard.into_iter().all(|e| e.served >= *revision && !e.in_flight.contains_key(&before.id));
            (!drained && !cut).then_some(Objection::NotDrained(id))
        }
        _ => None,
    }
}

/// Whether the drain time still runs, by the time at which the decision was made.
fn drain_is_open(world: &World, since: model::Timestamp, decision: &Decision) -> bool {
    let drain = world.service.known().map(|s| s.spec.deploy.drain).unwrap_or_default();
    let decided = decision.plan.placements.values().filter_map(|p| match p.stage {
        Stage::Removing { since, .. } => Some(since),
        Stage::Run | Stage::Kept | Stage::Retiring { .. } => None,
    });
    decided.max().is_none_or(|now| now < since + drain)
}

fn was_routed(world: &World, id: &InstanceId) -> bool {
    world.plan.route.as_ref().is_some_and(|route| route.backend.instances().contains(id))
}

fn new_placements(world: &World, decision: &Decision) -> Vec<Objection> {
    decision
        .plan
        .placements
        .values()
        .filter(|p| !world.plan.placements.contains_key(&p.id))
        .filter(|p| p.id.incarnation < world.plan.next_incarnation)
        .map(|p| Objection::ReusedIncarnation(p.id.clone()))
        .collect()
}

/// What is newly routed is ready and runs.
fn routes(world: &World, decision: &Decision) -> Vec<Objection> {
    let Some(route) = &decision.plan.route else { return Vec::new() };
    let before: BTreeSet<&InstanceId> =
        world.plan.route.iter().flat_map(|route| route.backend.instances()).collect();
    let ready = |id: &InstanceId| {
        world.report(id).is_some_and(|seen| seen.ready && matches!(seen.state, State::Running))
            && decision.plan.placements.get(id).is_some_and(|p| p.stage.is_run())
    };
    route
        .backend
        .instances()
        .into_iter()
        .filter(|id| !before.contains(id) && !ready(id))
        .map(|id| Objection::UnreadyRouted(id.clone()))
        .collect()
}

/// I17: never more than the replicas, the surge, and what is on its way out. Only a pass that adds is to blame. Folders
/// of a site count by themselves: they run nothing, and lie beside what the service ran before.
fn too_many(world: &World, decision: &Decision) -> Option<Objection> {
    [true, false].into_iter().find_map(|runs| too_many_of(world, decision, runs))
}

fn too_many_of(world: &World, decision: &Decision, runs: bool) -> Option<Objection> {
    let service = decision.service.as_ref().or(world.service.known())?;
    let of_these = |p: &Placement| {
        let release = world.releases.get(&p.release);
        release.is_none_or(|release| release.workload.kind().runs()) == runs
    };
    let live = |placements: &std::collections::BTreeMap<InstanceId, Placement>| {
        count(placements.values().filter(|p| p.stage.is_run() && of_these(p)))
    };
    let (before, after) = (live(&world.plan.placements), live(&decision.plan.placements));
    let limit = service.wanted_replicas().max(1) + service.spec.deploy.parallelism.max(1);
    (after > before && after > limit).then(|| Objection::TooMany {
        service: world.key.clone(),
        live: after,
        limit,
    })
}

fn deployments(world: &World, decision: &Decision) -> Vec<Objection> {
    let mut objections = Vec::new();
    for after in &decision.deployments {
        let Some(before) = world.deployments.iter().find(|d| d.id == after.id) else { continue };
        let legal = before.phase == after.phase
            || [
                model::deployment::Event::Reached(after.phase),
                model::deployment::Event::Succeeded,
                model::deployment::Event::Failed,
                model::deployment::Event::Cancelled,
                model::deployment::Event::Superseded,
                model::deployment::Event::RolledBack,
            ]
            .into_iter()
            .any(|event| next(before.phase, event) == Ok(after.phase));
        if !legal {
            objections
                .push(Objection::IllegalDeployment { service: world.key.clone(), number: after.number });
        }
    }
    let open = world.after(decision).deployments.iter().filter(|d| d.phase.is_open()).count();
    if open > 1 {
        objections.push(Objection::TwoOpen(world.key.clone()));
    }
    objections
}

/// Counts what would stop serving although no record names it and nothing ready has taken its place.
fn blast(snapshot: &Snapshot, plan: &Plan) -> Option<Objection> {
    let removals = plan
        .decisions
        .iter()
        .filter_map(|decision| Some((snapshot.worlds.get(&decision.key)?, decision)))
        .map(|(world, decision)| unnamed_removals(world, decision, &snapshot.cluster))
        .sum::<u32>();
    let running = snapshot.cluster.running;
    let limit = BLAST_COUNT.max(running.saturating_mul(BLAST_PERCENT) / 100);
    (removals > limit).then_some(Objection::Blast { removals, running })
}

/// The reason beside a removal is the planner's own word. What counts is how many the record wants, and how many of those
/// that may serve now are left of them. What is on a lost node counts by itself: it may serve all the same.
fn unnamed_removals(world: &World, decision: &Decision, cluster: &Cluster) -> u32 {
    let Some(service) = decision.service.as_ref().or(world.service.known()) else { return 0 };
    let target = service.target.and_then(|target| world.releases.get(&target));
    let target = target.map(|release| &**release);
    let (goes_first, wanted) = (takes_down_first(service, target), wanted(service, target));
    let stands = |p: &&Placement| match goes_first {
        // Only what is outdated is declared to go, and what is on a node that an operator drains.
        true => {
            let drained = cluster.nodes.get(&p.node).is_some_and(|node| node.state == NodeState::Draining);
            Some(p.release) == service.target && p.restart_epoch == service.restart_epoch && !drained
        }
        false => true,
    };
    let may_serve = |p: &&Placement| p.stage.is_run() && may_serve(world, &p.id);
    let before = world.plan.placements.values().filter(may_serve).filter(stands);
    let left = decision.plan.placements.values().filter(may_serve).filter(stands).filter(|p| {
        // What is new has yet to show that it serves.
        world.plan.placements.contains_key(&p.id)
    });
    let missing = count(before).min(wanted).saturating_sub(count(left));
    let lost = decision.plan.placements.values().filter(|after| {
        let ran = world.plan.placements.get(&after.id).is_some_and(|before| before.stage.is_run());
        let lost = matches!(
            after.stage,
            Stage::Retiring { why: RetireReason::NodeLost, .. }
                | Stage::Removing { why: RetireReason::NodeLost, .. }
        );
        ran && lost
    });
    missing.max(count(lost))
}

/// Of what nothing is known, what has routes may serve, and where there are none, everything that lives.
fn may_serve(world: &World, id: &InstanceId) -> bool {
    match world.report(id) {
        Some(seen) => seen.ready,
        None if world.is_gone(id) => false,
        None => match &world.plan.route {
            Some(_) => was_routed(world, id) || world.plan.current.as_ref() == Some(id),
            None => true,
        },
    }
}
