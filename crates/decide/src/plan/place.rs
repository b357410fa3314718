//! Step 5: where new instances go. Filters say what they rejected; the score is an ordered struct whose field order
//! is the policy.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    InstanceId, NodeId, Slot,
    instance::{Attempts, Placement, Stage},
    node::{Node, NodeState},
    plan::StepReport,
    reason::{Change, PlaceReason, Waiting},
    spec::Port,
};

use super::{
    classify::{Class, Readiness},
    work::Work,
};

/// Least is best.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    /// Spread a service before anything else.
    of_this_service: u32,
    load: u32,
    /// Only so that equal nodes have an order.
    node: NodeId,
}

pub fn step(work: &mut Work<'_>) -> StepReport {
    let mut report = StepReport::default();
    let Some(release) = work.target() else { return report };
    if let Some(port) = work.fixed_port()
        && work.wanted() < work.service.wanted_replicas()
    {
        let (wanted, nodes) = (work.service.wanted_replicas(), work.nodes());
        report.waiting.push(Waiting::PortForOne { port, wanted, nodes });
    }
    let because = because(work);
    for _ in 0..work.starts {
        match best_node(work) {
            Ok(node) => report.changed.push(place(work, release, node, because)),
            Err(waiting) => {
                report.waiting.push(waiting);
                break;
            }
        }
    }
    report
}

fn because(work: &Work<'_>) -> PlaceReason {
    let outdated = work.outdated();
    match work.open() {
        Some(_) => PlaceReason::Rollout,
        None if outdated.is_empty() => PlaceReason::Missing,
        None if outdated.iter().all(|(placement, _)| work.moves(placement)) => PlaceReason::NodeDrained,
        None => PlaceReason::Rollout,
    }
}

/// Whether some node would take an instance that leaves this one; if none, what each was rejected for.
pub fn elsewhere(work: &Work<'_>, leaving: &NodeId) -> Result<(), Vec<String>> {
    let mut rejected = Vec::new();
    for node in work.cluster.nodes.values().filter(|node| node.id != *leaving) {
        match refusal(work, node) {
            None => return Ok(()),
            Some(refusal) => rejected.push(format!("{} {refusal}", node.id)),
        }
    }
    Err(rejected)
}

fn place(work: &mut Work<'_>, release: model::ReleaseDigest, node: NodeId, because: PlaceReason) -> Change {
    let slot = free_slot(work);
    let id = InstanceId { service: work.world.key.clone(), slot, incarnation: work.next_incarnation() };
    let deployment = work.each_deployment().filter(|d| d.release == release).max_by_key(|d| d.number);
    let deployment = deployment.map(|d| d.id.clone());
    let placement = Placement {
        id: id.clone(),
        node: node.clone(),
        release,
        // Without a record of the deployment the id is derived from the instance, so that its folder is its own.
        deployment: deployment
            .unwrap_or_else(|| model::DeploymentId::derive(&id.service, id.incarnation.0, work.now)),
        restart_epoch: work.service.restart_epoch,
        created_at: work.now,
        stage: Stage::Run,
        attempts: inherited(work, slot, release),
    };
    work.plan.placements.insert(id.clone(), placement);
    work.classes.insert(id.clone(), Class::Current(Readiness::Coming));
    Change::Placed { instance: id, node, release, because }
}

/// The lowest ordinal that no instance of the target has.
fn free_slot(work: &Work<'_>) -> Slot {
    let taken: BTreeSet<Slot> = work.current().iter().map(|(p, _)| p.id.slot).collect();
    (0..).map(Slot).find(|slot| !taken.contains(slot)).unwrap_or_default()
}

/// What the slot has already spent on this release (I15); a new epoch begins anew, because somebody asked for it.
fn inherited(work: &Work<'_>, slot: Slot, release: model::ReleaseDigest) -> Attempts {
    let epoch = work.service.restart_epoch;
    let standing = work
        .placements()
        .filter(|p| p.id.slot == slot && p.release == release && p.restart_epoch == epoch)
        .map(|p| &p.attempts);
    let gone = work.plan.spent.get(&slot).filter(|s| s.release == release && s.restart_epoch == epoch);
    standing
        .chain(gone.map(|spent| &spent.attempts))
        .fold(Attempts::default(), |most, attempts| most.floor(attempts))
}

fn best_node(work: &Work<'_>) -> Result<NodeId, Waiting> {
    let mut rejected: BTreeMap<String, u32> = BTreeMap::new();
    let mut best: Option<Score> = None;
    for node in work.cluster.nodes.values() {
        match refusal(work, node) {
            Some(Refusal::Told(waiting)) if work.cluster.nodes.len() == 1 => return Err(waiting),
            Some(refusal) => *rejected.entry(refusal.to_string()).or_default() += 1,
            None => {
                let score = score(work, node);
                best = Some(match best {
                    Some(best) => best.min(score),
                    None => score,
                });
            }
        }
    }
    let considered = u32::try_from(work.cluster.nodes.len()).unwrap_or(u32::MAX);
    let rejected = rejected.into_iter().map(|(why, n)| format!("{n} of {considered} {why}")).collect();
    best.map(|score| score.node).ok_or(Waiting::NoNode { considered, rejected })
}

fn score(work: &Work<'_>, node: &Node) -> Score {
    let of_this_service =
        super::work::count(work.placements().filter(|p| p.node == node.id && p.stage.is_run()));
    Score {
        of_this_service,
        load: work.cluster.load.get(&node.id).copied().unwrap_or(0),
        node: node.id.clone(),
    }
}

enum Refusal {
    Because(&'static str),
    Told(Waiting),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Because(why) => f.write_str(why),
            Self::Told(waiting) => waiting.fmt(f),
        }
    }
}

fn refusal(work: &Work<'_>, node: &Node) -> Option<Refusal> {
    match node.state {
        NodeState::Up => {}
        NodeState::Draining => return Some(Refusal::Because("is being drained")),
        NodeState::Silent { .. } => return Some(Refusal::Because("is silent")),
        NodeState::Lost { .. } => return Some(Refusal::Because("is lost")),
    }
    let fixed = work.fixed_port()?;
    let holder = work.placements().find(|p| p.node == node.id && holds_port(work, p, fixed))?;
    Some(Refusal::Told(Waiting::PortTaken { port: fixed, node: node.id.clone(), by: holder.id.clone() }))
}

/// A port is free when the node has confirmed that its holder is gone.
fn holds_port(work: &Work<'_>, placement: &Placement, port: u16) -> bool {
    work.release(&placement.release).is_some_and(|release| release.port == Some(Port::Fixed(port)))
}
