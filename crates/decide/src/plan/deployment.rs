//! The open deployment: how far it has come, whether it succeeded or failed, and what follows from that.

use std::collections::BTreeMap;

use model::{
    DeploymentId, Timestamp,
    deployment::{Cause, Deployment, Event, Phase},
    observation::State,
    plan::{Rollout, StepReport},
    reason::{Change, Waiting},
    spec::{Kind, OnFailure},
};

use super::{classify::Readiness, work::Work};
use crate::world::EDGE_LOST_AFTER;

/// Advances the open deployment by what is seen, before anything is changed in this pass.
pub fn step(work: &mut Work<'_>, report: &mut StepReport) {
    let Some(open) = work.open().cloned() else {
        work.plan.rollout = Rollout::default();
        return;
    };
    note_progress(work, &open);
    if let Some(error) = failure(work, &open) {
        fail(work, open, error, report);
    } else if succeeded(work, report) {
        succeed(work, open, report);
    } else {
        let phase = phase(work).max(open.phase);
        reach(work, open, phase, report);
    }
}

/// Steps forward are counted and timed; going back does not count, so flapping is no progress.
fn note_progress(work: &mut Work<'_>, open: &Deployment) {
    let rollout = &work.plan.rollout;
    let score = score(work);
    // A rollout that is older than the deployment belongs to an earlier one.
    let fresh = rollout.progressed_at < open.started_at;
    if fresh || score > rollout.progress {
        let held_since = if fresh { None } else { rollout.held_since };
        work.plan.rollout = Rollout { progress: score, progressed_at: work.now, held_since };
    }
}

fn score(work: &Work<'_>) -> u64 {
    let of = |instance| match work.world.report(instance) {
        None => 1,
        Some(seen) => {
            // One layer may take longer than a deadline: that its bytes come is progress.
            let copied = seen.copied.map_or(0, |copied| copied.files + (copied.bytes >> 20));
            let state = match seen.state {
                State::Installing => 2,
                State::Starting => 3,
                State::Running => 4,
                State::BackingOff { .. }
                | State::Failed { .. }
                | State::Stopping { .. }
                | State::Unknown { .. } => 1,
            };
            (state + 4 * u64::from(seen.ready)) * 1_000_000 + copied.min(999_999)
        }
    };
    let revision = work.plan.route.as_ref().map(|route| route.revision);
    // That edges come to serve it is progress, too: the first may report late.
    let served = work.world.edges.values().any(|edge| !edge.silent && Some(edge.served) >= revision);
    work.current().iter().map(|(placement, _)| of(&placement.id)).sum::<u64>() + u64::from(served)
}

fn failure(work: &mut Work<'_>, open: &Deployment) -> Option<String> {
    let failed = work.current().into_iter().find(|(_, readiness)| *readiness == Readiness::Failed);
    if let Some((placement, _)) = failed {
        let why = work.world.report(&placement.id).map(|seen| seen.message.clone()).unwrap_or_default();
        return Some(format!("{} failed: {why}", placement.id));
    }
    if Some(open.release) != work.target() {
        return Some("its release is no longer the target".into());
    }
    let deadline = work.service.spec.deploy.deadline;
    let mut fails_at = work.plan.rollout.progressed_at + deadline;
    // What nobody has told of may long have come further, as after Setpoint was away: it has its time once more.
    if work.current().iter().any(|(_, readiness)| *readiness == Readiness::Unknown) {
        fails_at = fails_at + deadline;
    }
    // Whether there is an edge at all is waited for before anything is held.
    if work.world.edges.is_empty() && work.plan.route.is_some() {
        fails_at = fails_at + EDGE_LOST_AFTER;
    }
    // At its goal, however late: it is held from now on.
    if work.plan.rollout.held_since.is_none() && is_whole(work) {
        return None;
    }
    if let Some(since) = work.plan.rollout.held_since {
        // What is held has its time to hold; what begins again and again never comes to the end of it.
        if work.now >= held_from(work, since) + hold(work) {
            return None;
        }
        fails_at = fails_at + hold(work);
    }
    if work.now >= fails_at {
        let why = what_stands_still(work).map(|why| format!("; {why}")).unwrap_or_default();
        return Some(format!("no progress within {deadline}{why}"));
    }
    work.wake(fails_at);
    None
}

/// The node that refuses it, the instance that holds a deployment up and what it says or how it keeps ending, or the edge
/// that does.
fn what_stands_still(work: &Work<'_>) -> Option<String> {
    if let Some(refusal) = work.world.refusals().next() {
        return Some(refusal.to_string());
    }
    let current = work.current();
    let seen = |placement: &model::instance::Placement| work.world.report(&placement.id);
    let waiting = current.iter().find(|(_, readiness)| *readiness != Readiness::Ready);
    if let Some(told) = waiting.and_then(|(p, _)| seen(p)).filter(|told| !told.message.is_empty()) {
        return Some(format!("{}: {}", told.id, told.message));
    }
    if let Some(route) = &work.plan.route
        && waiting.is_none()
        && let Some(edge) = work.edges_behind(route.revision).first()
    {
        return Some(format!("edge {edge} reports and does not serve route revision {}", route.revision));
    }
    let (told, exit) = current
        .iter()
        .find_map(|(p, _)| seen(p).and_then(|told| told.last_exit.as_ref().map(|exit| (told, exit))))?;
    let restarts = told.attempts.total;
    Some(format!("{} was restarted {restarts} times; the last time it ended with {exit}", told.id))
}

/// All of the target, ready, served by every edge, nothing else in the routes.
fn is_whole(work: &mut Work<'_>) -> bool {
    is_whole_without_edges(work) && edges_serve(work)
}

fn is_whole_without_edges(work: &Work<'_>) -> bool {
    work.ready_current() >= work.wanted()
        && work.outdated().is_empty()
        && switched(work)
        && routes_are_the_target(work)
}

/// Whole, and held long enough.
fn succeeded(work: &mut Work<'_>, report: &mut StepReport) -> bool {
    if !is_whole(work) {
        work.plan.rollout.held_since = None;
        if is_whole_without_edges(work) && work.plan.route.is_some() && work.world.edges.is_empty() {
            report.waiting.push(Waiting::EdgeReports { until: edge_reports_until(work) });
        }
        return false;
    }
    let since = held_from(work, work.plan.rollout.held_since.unwrap_or(work.now));
    work.plan.rollout.held_since = Some(since);
    let until = since + hold(work);
    if work.now < until {
        work.wake(until);
        report.waiting.push(Waiting::Held { until });
    }
    work.now >= until
}

/// How long the whole must serve before it counts.
fn hold(work: &Work<'_>) -> model::Millis {
    match work.kind() {
        Kind::Site => model::Millis::ZERO,
        Kind::Process | Kind::Container if work.wanted() == 0 => model::Millis::ZERO,
        Kind::Process | Kind::Container => work.service.spec.deploy.min_healthy,
    }
}

/// A run that began later begins the hold anew, also when nobody saw the instance unready in between.
fn held_from(work: &Work<'_>, since: Timestamp) -> Timestamp {
    let begun = |id| work.world.report(id).and_then(|seen| seen.started_at).filter(|at| *at <= work.now);
    work.current().iter().filter_map(|(placement, _)| begun(&placement.id)).fold(since, Timestamp::max)
}

/// A site's `current` shows the target.
fn switched(work: &Work<'_>) -> bool {
    work.kind() != Kind::Site
        || work.wanted() == 0
        || work.current().iter().any(|(p, _)| {
            work.plan.current.as_ref() == Some(&p.id)
                && work.world.report(&p.id).is_some_and(|seen| seen.current)
        })
}

fn routes_are_the_target(work: &Work<'_>) -> bool {
    let declares =
        work.target().and_then(|t| work.release(&t)).is_some_and(|release| !release.domains.is_empty());
    match &work.plan.route {
        None => !declares,
        Some(route) => {
            let routed = route.backend.instances();
            let current = work.current();
            let all_current = routed.iter().all(|id| current.iter().any(|(p, _)| &p.id == *id));
            let enough = routed.len() >= work.wanted() as usize;
            let same =
                work.target().and_then(|t| work.release(&t)).is_some_and(|r| r.domains == route.domains);
            all_current && enough && same
        }
    }
}

/// Where no edge has reported yet, as after a restart, each has its time to do so; then there is none.
fn edges_serve(work: &mut Work<'_>) -> bool {
    let Some(route) = &work.plan.route else { return true };
    if work.world.edges.is_empty() {
        let none_is_there = edge_reports_until(work);
        work.wake(none_is_there);
        return work.now >= none_is_there;
    }
    work.world.edges.values().all(|edge| edge.silent || edge.served >= route.revision)
}

fn edge_reports_until(work: &Work<'_>) -> Timestamp {
    work.plan.rollout.progressed_at + EDGE_LOST_AFTER
}

/// Where the work stands, read off what is seen.
fn phase(work: &Work<'_>) -> Phase {
    let current = work.current();
    let ready = work.ready_current();
    let any_state = |wanted: fn(&State) -> bool| {
        current.iter().filter_map(|(p, _)| work.world.report(&p.id)).any(|seen| wanted(&seen.state))
    };
    if work.plan.rollout.held_since.is_some() && work.kind().runs() {
        Phase::HealthCheck
    } else if ready > 0 {
        Phase::UpdatingRoutes
    } else if any_state(|s| matches!(s, State::Starting | State::Running | State::BackingOff { .. })) {
        match work.kind() {
            Kind::Site => Phase::CreatingSymlinks,
            Kind::Process | Kind::Container => Phase::Starting,
        }
    } else {
        Phase::CopyingFiles
    }
}

/// Enters every phase on the way that this kind of service has, so that none is missing in the history.
fn reach(work: &mut Work<'_>, mut open: Deployment, to: Phase, report: &mut StepReport) {
    let before = open.clone();
    note_copied(work, &mut open);
    let kind = work.kind();
    let passed_over = |phase: Phase| match phase {
        Phase::PullingSource | Phase::Building => true,
        Phase::CreatingSymlinks => kind.runs(),
        Phase::Starting | Phase::HealthCheck => kind == Kind::Site,
        _ => false,
    };
    for phase in Phase::OPEN.into_iter().filter(|p| *p > before.phase && *p <= to && !passed_over(*p)) {
        if open.advance(Event::Reached(phase), work.now).is_ok() {
            report.changed.push(Change::PhaseReached { deployment: open.id.clone(), phase });
        }
    }
    if open != before {
        work.deployments.insert(open.id.clone(), open);
    }
}

fn note_copied(work: &Work<'_>, open: &mut Deployment) {
    let container = work.current().into_iter().find_map(|(p, _)| work.world.report(&p.id)?.container.clone());
    if let Some(container) = container {
        open.metadata.insert("container_id".into(), container.into());
    }
    let copied = work.current().into_iter().filter_map(|(p, _)| work.world.report(&p.id)?.copied).next_back();
    if let Some(copied) = copied {
        open.metadata.insert("files_copied".into(), copied.files.into());
        open.metadata.insert("total_files".into(), copied.total.into());
    }
}

fn end(
    work: &mut Work<'_>,
    mut deployment: Deployment,
    event: Event,
    message: String,
    report: &mut StepReport,
) {
    if deployment.advance(event, work.now).is_ok() {
        deployment.message.clone_from(&message);
        let (id, phase) = (deployment.id.clone(), deployment.phase);
        report.changed.push(Change::DeploymentEnded { deployment: id.clone(), phase, message });
        work.deployments.insert(id, deployment);
    }
}

fn succeed(work: &mut Work<'_>, mut open: Deployment, report: &mut StepReport) {
    let last = match work.kind() {
        Kind::Site => Phase::UpdatingRoutes,
        Kind::Process | Kind::Container => Phase::HealthCheck,
    };
    reach(work, open.clone(), last, report);
    open = work.deployments.get(&open.id).cloned().unwrap_or(open);
    // Whose release is the one gone back to was not rolled back: what was begun after it is, and ended as cancelled.
    let left = |active: &Deployment| match open.cause {
        Cause::Rollback if active.release != open.release => Event::RolledBack,
        Cause::Rollback | Cause::Apply | Cause::Deploy | Cause::Restore | Cause::Git => Event::Superseded,
    };
    let active: Vec<Deployment> =
        work.each_deployment().filter(|d| d.phase == Phase::Active && d.id != open.id).cloned().collect();
    for deployment in active {
        let message = format!("#{} took its place", open.number);
        let event = left(&deployment);
        end(work, deployment, event, message, report);
    }
    end(work, open, Event::Succeeded, String::new(), report);
    work.plan.rollout = Rollout::default();
}

fn fail(work: &mut Work<'_>, mut open: Deployment, error: String, report: &mut StepReport) {
    note_copied(work, &mut open);
    note_last_lines(work, &mut open);
    open.metadata.insert("error".into(), error.clone().into());
    let failed = open.clone();
    end(work, open, Event::Failed, error, report);
    work.plan.rollout = Rollout::default();
    if let Some(restore) = restoration(work, &failed) {
        report.changed.push(Change::Restored {
            deployment: restore.id.clone(),
            release: restore.release,
            failed: failed.id,
        });
        work.service.target = Some(restore.release);
        work.service.intent_seq = work.service.intent_seq.next();
        work.deployments.insert(restore.id.clone(), restore);
    }
}

/// What died said something last; it is kept beyond the instance.
fn note_last_lines(work: &Work<'_>, open: &mut Deployment) {
    let current = work.current();
    let mut reports = current.iter().filter_map(|(placement, _)| work.world.report(&placement.id));
    if let Some(told) = reports.find(|told| !told.last_lines.is_empty()) {
        open.metadata.insert("output".into(), told.last_lines.clone().into());
        open.metadata.insert("output_of".into(), told.id.to_string().into());
    }
}

/// The deployment that brings the previous release back; none where that is not wanted, not possible, or where what
/// failed was itself a going back.
fn restoration(work: &Work<'_>, failed: &Deployment) -> Option<Deployment> {
    let allowed = work.service.spec.deploy.on_failure == OnFailure::Rollback;
    let goes_back = matches!(failed.cause, Cause::Rollback | Cause::Restore);
    let previous = failed.previous.filter(|previous| *previous != failed.release)?;
    let release = work.release(&previous)?;
    if !allowed || goes_back {
        return None;
    }
    let mut restore = begin(
        &work.world.key,
        work.world.next_deployment,
        previous,
        None,
        Cause::Restore,
        format!("#{} failed", failed.number),
        work.now,
    );
    restore.note_source(release);
    Some(restore)
}

/// A deployment at its beginning.
pub fn begin(
    service: &model::ServiceKey,
    number: u64,
    release: model::ReleaseDigest,
    previous: Option<model::ReleaseDigest>,
    cause: Cause,
    message: String,
    now: Timestamp,
) -> Deployment {
    Deployment {
        id: DeploymentId::derive(service, number, now),
        service: service.clone(),
        number,
        release,
        previous,
        cause,
        phase: Phase::Queued,
        started_at: now,
        phase_updated_at: now,
        ended_at: None,
        message,
        metadata: BTreeMap::new(),
    }
}
