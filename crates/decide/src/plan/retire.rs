//! Step 7: what leaves. Out of the routes first; stopped when every edge serves that and nothing is in flight, or
//! when the drain time is over; forgotten when its node says that it is gone.

use model::{
    InstanceId, RouteRevision, Timestamp,
    instance::{RetireReason, Stage},
    plan::StepReport,
    reason::{Change, Drained, Waiting},
};

use super::work::Work;
use crate::world::EDGE_LOST_AFTER;

pub fn step(work: &mut Work<'_>) -> StepReport {
    let mut report = StepReport::default();
    expire_kept(work, &mut report);
    let leaving: Vec<(InstanceId, Stage)> =
        work.placements().map(|p| (p.id.clone(), p.stage.clone())).collect();
    for (id, stage) in leaving {
        match stage {
            Stage::Run | Stage::Kept => {}
            // What the edges report is kept of what was retiring before this pass: of the others nothing is known yet.
            Stage::Retiring { .. } if was_running(work, &id) => {}
            Stage::Retiring { revision, since, why } => retiring(work, id, revision, since, why, &mut report),
            Stage::Removing { .. } if work.world.is_gone(&id) => {
                work.plan.placements.remove(&id);
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
    match drained(work, &id, revision, until) {
        Some(drained) => report.changed.extend(work.withdraw(&id, why, drained)),
        None => {
            let in_flight = in_flight(work, &id);
            let next = if work.now < until { until } else { until + EDGE_LOST_AFTER };
            work.wake(next);
            report.waiting.push(Waiting::Drain { instance: id, in_flight, until });
        }
    }
}

fn in_flight(work: &Work<'_>, id: &InstanceId) -> u64 {
    work.world.edges.values().filter(|e| !e.silent).filter_map(|edge| edge.in_flight.get(id)).sum()
}

/// Whether and how its last requests have ended.
fn drained(work: &Work<'_>, id: &InstanceId, revision: RouteRevision, until: Timestamp) -> Option<Drained> {
    let heard: Vec<_> = work.world.edges.values().filter(|edge| !edge.silent).collect();
    let routed_out = heard.iter().all(|edge| edge.served >= revision);
    let in_flight = in_flight(work, id);
    // After a restart no edge has reported yet: that is not the same as nothing in flight.
    if heard.is_empty() && work.world.edges.is_empty() {
        return (work.now >= until + EDGE_LOST_AFTER).then_some(Drained::EdgeSilent);
    }
    let silent = heard.len() < work.world.edges.len();
    match (routed_out, in_flight) {
        // It counts as lost, yet may still be at its last requests.
        (true, 0) if silent && work.now >= until => Some(Drained::EdgeSilent),
        (true, 0) if !silent => Some(Drained::Empty),
        (true, in_flight) if work.now >= until => Some(Drained::Cut { in_flight }),
        // An edge that reports and yet never serves the new table must not hold a deployment for ever.
        (false, in_flight) if work.now >= until + EDGE_LOST_AFTER => Some(Drained::Cut { in_flight }),
        (true | false, _) => None,
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
    let surplus = kept.len().saturating_sub(work.service.spec.retain as usize);
    for (_, id) in kept.into_iter().take(surplus) {
        report.changed.extend(work.retire(&id, RetireReason::Expired));
    }
}
