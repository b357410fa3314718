//! Step 4: how the target takes over. New ones come before old ones go, as far as the strategy says; what is
//! wanted less goes; what failed is given up.

use model::{
    InstanceId,
    deployment::Phase,
    instance::{Placement, RetireReason, Stage},
    plan::StepReport,
    reason::{Change, Waiting},
    spec::{Kind, Order, Strategy},
};

use super::{
    classify::{Class, Readiness},
    deployment,
    work::{Work, count},
};

pub fn step(work: &mut Work<'_>) -> StepReport {
    let mut report = StepReport::default();
    deployment::step(work, &mut report);
    // The target may have moved: what was current may now be outdated.
    super::classify::reclassify(work);
    if let Some(deployment) = work.paused_by()
        && work.wanted() > 0
    {
        report.waiting.push(Waiting::Paused { deployment });
        // Beside a site's folder runs what was there before, as many as are declared.
        let declared = work.wanted().max(work.service.wanted_replicas());
        shed_surplus(work, declared + work.service.spec.deploy.parallelism, &mut report);
        return report;
    }
    if work.target().is_none() && work.service.deleted.is_none() && !work.service.stopped {
        report.waiting.push(Waiting::NoRelease);
    }
    match work.kind() {
        Kind::Site => site(work, &mut report),
        Kind::Process | Kind::Container => replicas(work, &mut report),
    }
    report
}

/// Why something goes that is not wanted at all.
fn unwanted(work: &Work<'_>) -> RetireReason {
    if work.service.deleted.is_some() {
        RetireReason::Deleted
    } else if work.service.stopped {
        RetireReason::Stopped
    } else if work.target().is_none() {
        RetireReason::Abandoned
    } else {
        RetireReason::ScaledDown
    }
}

/// Instances that live and die, by the strategy.
fn replicas(work: &mut Work<'_>, report: &mut StepReport) {
    // More than wanted, of the target itself: what is not ready first, then the oldest.
    shed_current(work, report);
    let wanted = work.wanted();
    for id in outdated_to_go(work, wanted) {
        let why = if wanted == 0 { unwanted(work) } else { outdated_by(work, &id) };
        report.changed.extend(work.retire(&id, why));
    }
    for (placement, _) in work.outdated() {
        report.waiting.push(Waiting::Successor { instance: placement.id.clone() });
    }
    work.starts = starts(work, report);
}

/// Which instances of another release or epoch go now. What is unknown may be all that serves, or nothing: it neither
/// counts nor goes, until nothing is wanted or enough of the target is ready.
fn outdated_to_go(work: &Work<'_>, wanted: u32) -> Vec<InstanceId> {
    let deploy = &work.service.spec.deploy;
    let ready = work.ready_current();
    let all = work.outdated();
    let known = known(all.clone());
    let outdated = count(known.iter());
    match (deploy.strategy, work.order()) {
        _ if wanted == 0 => first_to_go(all, u32::MAX),
        // Nothing new can come anywhere, so nothing that serves goes first.
        (Strategy::Recreate, _) | (Strategy::Rolling, Order::StopFirst)
            if ready < wanted && !work.has_open_node() =>
        {
            Vec::new()
        }
        (Strategy::Recreate, _) => first_to_go(all, u32::MAX),
        (Strategy::Rolling, Order::StartFirst) if ready >= wanted => first_to_go(all, u32::MAX),
        (Strategy::Rolling, Order::StartFirst) => {
            first_to_go(known, outdated.saturating_sub(wanted.saturating_sub(ready)))
        }
        // An edge that does not know the newest ones yet would lose one old one after the other.
        (Strategy::Rolling, Order::StopFirst) if work.is_edge_behind() => Vec::new(),
        (Strategy::Rolling, Order::StopFirst) => {
            let unserved = wanted.saturating_sub(outdated + ready);
            first_to_go(known, outdated.min(deploy.parallelism.saturating_sub(unserved)))
        }
    }
}

fn known(mut candidates: Candidates<'_>) -> Candidates<'_> {
    candidates.retain(|(_, readiness)| *readiness != Readiness::Unknown);
    candidates
}

/// Why an instance of another release or epoch goes.
fn outdated_by(work: &Work<'_>, id: &InstanceId) -> RetireReason {
    if work.plan.placements.get(id).is_some_and(|p| Some(p.release) == work.target() && work.moves(p)) {
        return RetireReason::NodeDrained;
    }
    let release = work.plan.placements.get(id).map(|p| p.release);
    let newest = work.each_deployment().filter(|d| Some(d.release) == release).max_by_key(|d| d.number);
    match newest.map(|d| d.phase) {
        Some(Phase::Failed | Phase::Cancelled) => RetireReason::Abandoned,
        Some(_) | None => RetireReason::Replaced,
    }
}

/// How many new instances may come now.
fn starts(work: &Work<'_>, report: &mut StepReport) -> u32 {
    let wanted = work.wanted();
    let current = work.current();
    let missing = wanted.saturating_sub(count(current.iter()));
    if missing == 0 {
        return 0;
    }
    let (live, parallelism) = (work.live(), work.service.spec.deploy.parallelism);
    let others = live.saturating_sub(count(current.iter()));
    // What was told to end holds nobody up, as long as no more are at it than there shall be replicas.
    let (running, limit) = (live - work.ending().min(wanted), wanted + parallelism);
    let coming = count(current.iter().filter(|(_, readiness)| *readiness != Readiness::Ready));
    let allowed = match (work.service.spec.deploy.strategy, work.order()) {
        (Strategy::Recreate, _) if others > 0 => {
            report.waiting.push(Waiting::Predecessors { left: others });
            return 0;
        }
        (Strategy::Recreate, _) => missing,
        (Strategy::Rolling, Order::StopFirst) => wanted.saturating_sub(live),
        // Nothing to protect: all at once.
        (Strategy::Rolling, Order::StartFirst) if others == 0 => missing,
        (Strategy::Rolling, Order::StartFirst) => {
            limit.saturating_sub(running).min(parallelism.saturating_sub(coming))
        }
    };
    if allowed < missing {
        report.waiting.push(match work.order() {
            Order::StartFirst => Waiting::Surge { running, limit },
            Order::StopFirst => Waiting::Predecessors { left: others },
        });
    }
    missing.min(allowed)
}

fn shed_current(work: &mut Work<'_>, report: &mut StepReport) {
    let surplus = count(work.current().iter()).saturating_sub(work.wanted());
    let why = unwanted(work);
    for id in surplus_to_go(work.current(), surplus, work.wanted()) {
        report.changed.extend(work.retire(&id, why));
    }
}

/// While paused: what is more than even a rollout would run.
fn shed_surplus(work: &mut Work<'_>, limit: u32, report: &mut StepReport) {
    let running: Vec<_> = work.current().into_iter().chain(work.outdated()).collect();
    let surplus = count(running.iter()).saturating_sub(limit);
    for id in surplus_to_go(running, surplus, work.wanted()) {
        report.changed.extend(work.retire(&id, RetireReason::ScaledDown));
    }
}

/// Which one to spare is only known of what is known; and what is known to be ready goes only while enough of it is left:
/// what is unknown may not serve.
fn surplus_to_go(candidates: Candidates<'_>, surplus: u32, wanted: u32) -> Vec<InstanceId> {
    if wanted == 0 {
        return first_to_go(candidates, surplus);
    }
    let known = known(candidates);
    let ready = count(known.iter().filter(|(_, readiness)| *readiness == Readiness::Ready));
    let unready = count(known.iter()) - ready;
    first_to_go(known, surplus.min(unready + ready.saturating_sub(wanted)))
}

type Candidates<'a> = Vec<(&'a Placement, Readiness)>;

/// What is not ready first, then the oldest. What is unknown goes last: it may be all that serves.
fn first_to_go(mut candidates: Candidates<'_>, n: u32) -> Vec<InstanceId> {
    let rank = |readiness: Readiness| match readiness {
        Readiness::Failed => 0,
        Readiness::Coming => 1,
        Readiness::Ready => 2,
        Readiness::Unknown => 3,
    };
    candidates.sort_by_key(|(p, readiness)| (rank(*readiness), p.created_at, p.id.incarnation));
    candidates.into_iter().take(n as usize).map(|(p, _)| p.id.clone()).collect()
}

/// A site is one folder. The new one is made whole beside the old one, or beside what ran before the service became a
/// site; then `current` and the routes switch in one plan, and an old folder is kept.
fn site(work: &mut Work<'_>, report: &mut StepReport) {
    if work.wanted() == 0 {
        return unwanted_site(work, report);
    }
    let current: Vec<(InstanceId, Readiness)> =
        work.current().into_iter().map(|(p, readiness)| (p.id.clone(), readiness)).collect();
    match current.first() {
        None => bring_site(work, report),
        Some((id, Readiness::Ready)) => switch(work, id.clone(), report),
        Some((id, _)) => report.waiting.push(Waiting::SiteSwitch { instance: id.clone() }),
    }
    let is_shown = matches!(current.first(), Some((_, Readiness::Ready)));
    for (id, why) in outdated_beside_site(work, is_shown) {
        report.changed.extend(work.retire(&id, why));
    }
    for (placement, _) in work.outdated().into_iter().filter(|(placement, _)| work.runs(placement)) {
        report.waiting.push(Waiting::Successor { instance: placement.id.clone() });
    }
}

/// A folder that was given up before it was ever shown goes at once. What ran before takes the requests until the site
/// is shown; of it, what is more than declared goes before, as in any rollout.
fn outdated_beside_site(work: &Work<'_>, is_shown: bool) -> Vec<(InstanceId, RetireReason)> {
    let (running, folders): (Vec<_>, Vec<_>) =
        work.outdated().into_iter().partition(|(placement, _)| work.runs(placement));
    let shown = work.plan.current.as_ref();
    let abandoned = first_to_go(folders, u32::MAX).into_iter().filter(|id| Some(id) != shown);
    let replaced = if is_shown {
        first_to_go(running, u32::MAX)
    } else {
        let known = known(running);
        let surplus = count(known.iter()).saturating_sub(work.service.wanted_replicas());
        first_to_go(known, surplus)
    };
    let replaced = replaced.into_iter().map(|id| (id.clone(), outdated_by(work, &id)));
    abandoned.map(|id| (id, RetireReason::Abandoned)).chain(replaced).collect()
}

/// A stopped site is served by nobody, and its folder stays: started again, it has the same name and is there.
fn unwanted_site(work: &mut Work<'_>, report: &mut StepReport) {
    let why = unwanted(work);
    if why == RetireReason::Stopped
        && let Some(shown) = work.plan.current.take()
    {
        keep(work, shown, report);
    }
    let going: Vec<InstanceId> =
        work.placements().filter(|p| p.stage.is_run()).map(|p| p.id.clone()).collect();
    for id in going {
        report.changed.extend(work.retire(&id, why));
    }
    work.plan.current = None;
}

/// A kept folder with the target's content is taken up again; otherwise a new one is made.
fn bring_site(work: &mut Work<'_>, report: &mut StepReport) {
    let Some(target) = work.target() else { return };
    let kept = work
        .placements()
        .filter(|p| matches!(p.stage, Stage::Kept) && p.release == target && !work.is_draining(&p.node))
        .max_by_key(|p| p.id.incarnation)
        .map(|p| p.id.clone());
    match kept {
        None => work.starts = 1,
        Some(id) => {
            if let Some(placement) = work.plan.placements.get_mut(&id) {
                placement.stage = Stage::Run;
                work.classes.insert(id.clone(), Class::Current(Readiness::Coming));
                report.changed.push(Change::TakenUp { instance: id, release: target });
            }
        }
    }
}

fn switch(work: &mut Work<'_>, to: InstanceId, report: &mut StepReport) {
    if work.plan.current.as_ref() == Some(&to) {
        return;
    }
    if let Some(before) = work.plan.current.replace(to) {
        keep(work, before, report);
    }
}

fn keep(work: &mut Work<'_>, id: InstanceId, report: &mut StepReport) {
    if let Some(placement) = work.plan.placements.get_mut(&id)
        && placement.stage.is_run()
    {
        placement.stage = Stage::Kept;
        work.classes.insert(id.clone(), Class::Kept);
        report.changed.push(Change::Kept { instance: id });
    }
}
