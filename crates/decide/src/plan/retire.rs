//! Step 7: what leaves. Out of the routes first; stopped when every edge serves that, and nothing is in flight or
//! the drain time is over; forgotten when its node says that it is gone.

use model::{
    EdgeId, InstanceId, RouteRevision, Timestamp,
    instance::{Attempts, Placement, RetireReason, Stage},
    plan::{Spent, StepReport},
    reason::{Change, Drained, Waiting},
};

use super::work::Work;
use crate::world::EDGE_LOST_AFTER;

pub fn step(work: &mut Work<'_>) -> StepReport {
    let mut report = StepReport::default();
    expire_kept(work, &mut report);
    forget_spent(work);
    let leaving: Vec<(InstanceId, Stage)> =
        work.placements().map(|p| (p.id.clone(), p.stage.clone())).collect();
    for (id, stage) in leaving {
        match stage {
            Stage::Run | Stage::Kept => {}
            // What the edges report is kept of what was retiring before this pass: of the others nothing is known yet.
            Stage::Retiring { .. } if was_running(work, &id) => {}
            Stage::Retiring { revision, since, why } => retiring(work, id, revision, since, why, &mut report),
            Stage::Removing { .. } if work.world.is_gone(&id) => {
                if let Some(gone) = work.plan.placements.remove(&id) {
                    keep_spent(work, gone);
                }
                report.changed.push(Change::Gone { instance: id });
            }
            Stage::Removing { .. } => report.waiting.push(Waiting::NodeConfirms { instance: id }),
        }
    }
    if work.is_purged() {
        report.changed.push(Change::Purged);
    }
    report
}

/// What was spent on another release, before somebody asked for a restart, or of what is not wanted at all, is over.
fn forget_spent(work: &mut Work<'_>) {
    let (wanted, target, epoch) = (work.wanted(), work.target(), work.service.restart_epoch);
    work.plan
        .spent
        .retain(|_, spent| wanted > 0 && Some(spent.release) == target && spent.restart_epoch == epoch);
}

/// A slot's attempts outlive its instance, so that what keeps dying is not calmer for having moved.
fn keep_spent(work: &mut Work<'_>, gone: Placement) {
    let Placement { release, restart_epoch, attempts, .. } = gone;
    if attempts.total == 0 || Some(release) != work.target() || restart_epoch != work.service.restart_epoch {
        return;
    }
    let fresh = Spent { release, restart_epoch, attempts: Attempts::default() };
    let spent = work.plan.spent.entry(gone.id.slot).or_insert(fresh);
    spent.attempts = spent.attempts.floor(&attempts);
}

fn was_running(work: &Work<'_>, id: &InstanceId) -> bool {
    work.world.plan.placements.get(id).is_some_and(|before| !matches!(before.stage, Stage::Retiring { .. }))
}

fn retiring(
    work: &mut Work<'_>,
    id: InstanceId,
    revision: RouteRevision,
    since: Timestamp,
    why: RetireReason,
    report: &mut StepReport,
) {
    let until = since + work.service.spec.deploy.drain;
    let behind = work.edges_behind(revision);
    let given_up = given_up(work, since, why);
    match drained(work, &id, &behind, until, given_up) {
        Some(drained) => report.changed.extend(work.withdraw(&id, why, drained)),
        None if behind.is_empty() => {
            let in_flight = in_flight(work, &id);
            let next = if work.now < until { until } else { until + EDGE_LOST_AFTER };
            work.wake(next);
            report.waiting.push(Waiting::Drain { instance: id, in_flight, until });
        }
        None => {
            if let Some(at) = given_up {
                work.wake(at);
            }
            report.waiting.push(Waiting::EdgesBehind { instance: id, edges: behind, until: given_up });
        }
    }
}

fn in_flight(work: &Work<'_>, id: &InstanceId) -> u64 {
    work.world.edges.values().filter(|e| !e.silent).filter_map(|edge| edge.in_flight.get(id)).sum()
}

/// Whether and how its last requests have ended.
fn drained(
    work: &Work<'_>,
    id: &InstanceId,
    behind: &[EdgeId],
    until: Timestamp,
    given_up: Option<Timestamp>,
) -> Option<Drained> {
    let edges = &work.world.edges;
    // After a restart no edge has reported yet: that is not the same as nothing in flight.
    if edges.is_empty() {
        return (work.now >= until + EDGE_LOST_AFTER).then_some(Drained::EdgeSilent);
    }
    if !behind.is_empty() {
        return given_up.is_some_and(|at| work.now >= at).then_some(Drained::EdgeBehind);
    }
    match in_flight(work, id) {
        // A silent one counts as lost, yet may still be at its last requests.
        0 if edges.values().all(|edge| !edge.silent) => Some(Drained::Empty),
        0 if work.now >= until => Some(Drained::EdgeSilent),
        in_flight if work.now >= until => Some(Drained::Cut { in_flight }),
        _ => None,
    }
}

/// When it is stopped although an edge that reports still routes to it. Where its successors serve, never: the edge
/// knows none of them, and would be left with nothing (I6). The deployment's own deadline ends the wait for it.
fn given_up(work: &Work<'_>, since: Timestamp, why: RetireReason) -> Option<Timestamp> {
    let deploy = &work.service.spec.deploy;
    let soon = since + deploy.drain + EDGE_LOST_AFTER;
    // Nobody wants it served, or it was declared to go before its successors come.
    if work.wanted() == 0 || work.takes_down_first() {
        return Some(soon);
    }
    match why {
        // No deployment has a deadline for it, so it has the same one; what stays is most likely routed to already.
        RetireReason::ScaledDown | RetireReason::NodeDrained => Some(soon.max(since + deploy.deadline)),
        RetireReason::Replaced
        | RetireReason::Abandoned
        | RetireReason::Expired
        | RetireReason::Stopped
        | RetireReason::Deleted
        | RetireReason::NodeLost => None,
    }
}

/// Of a site's kept folders the newest `retain` stay.
fn expire_kept(work: &mut Work<'_>, report: &mut StepReport) {
    let mut kept: Vec<(Timestamp, InstanceId)> = work
        .placements()
        .filter(|p| matches!(p.stage, Stage::Kept))
        .map(|p| (p.created_at, p.id.clone()))
        .collect();
    kept.sort();
    // With the service goes all that was kept of it, whatever kind it has become since.
    let (surplus, why) = if work.service.deleted.is_some() {
        (kept.len(), RetireReason::Deleted)
    } else {
        (kept.len().saturating_sub(work.service.spec.retain as usize), RetireReason::Expired)
    };
    for (_, id) in kept.into_iter().take(surplus) {
        report.changed.extend(work.retire(&id, why));
    }
}
