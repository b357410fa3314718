//! Step 1: what each placement is. An ordered list of rules; the first that fits tells its story.

use model::{
    instance::{Placement, Stage},
    observation::State,
    plan::StepReport,
    reason::{Change, Waiting},
    spec::Kind,
};

use super::work::Work;
use crate::{
    monitor::{self, Alert},
    retry,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Of the target release and epoch.
    Current(Readiness),
    /// Of another release or an earlier epoch, or at a node that is being drained while another would take it.
    Outdated(Readiness),
    /// A site's earlier folder.
    Kept,
    /// On its way out.
    Leaving,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readiness {
    /// Its node has not told of it, or cannot tell. Neither there nor gone.
    Unknown,
    /// It has spent its attempts.
    Failed,
    /// It is on its way, or between two runs.
    Coming,
    Ready,
}

pub fn step(work: &mut Work<'_>) -> StepReport {
    let mut report = StepReport::default();
    work.classes = work.plan.placements.values().map(|p| (p.id.clone(), classify(work, p))).collect();
    for placement in work.plan.placements.values() {
        report.waiting.extend(waiting(work, placement));
    }
    note_attempts(work, &mut report);
    report
}

/// Takes the nodes' counts over as a floor; what is restarted too often is told once, when it becomes so.
fn note_attempts(work: &mut Work<'_>, report: &mut StepReport) {
    let (world, now) = (work.world, work.now);
    for placement in work.plan.placements.values_mut() {
        let Some(seen) = world.report(&placement.id) else { continue };
        let floor = placement.attempts.floor(&seen.attempts);
        if floor == placement.attempts {
            continue;
        }
        let instance = placement.id.clone();
        report.changed.push(Change::AttemptsNoted { instance: instance.clone(), total: floor.total });
        if retry::recent_restarts(&placement.attempts, now) <= retry::ALERT_RESTARTS {
            let alert = Alert::of(&instance, &floor, Some(seen), now);
            report.changed.extend(alert.iter().map(Alert::change));
        }
        monitor::note_restarts(&mut work.plan.restarts, &placement.attempts, &floor, now);
        placement.attempts = floor;
    }
}

fn classify(work: &Work<'_>, placement: &Placement) -> Class {
    let is_target = Some(placement.release) == work.target();
    let is_epoch = work.kind() == Kind::Site || placement.restart_epoch >= work.service.restart_epoch;
    match placement.stage {
        Stage::Retiring { .. } | Stage::Removing { .. } => Class::Leaving,
        Stage::Kept => Class::Kept,
        // One that has nowhere to go stays what it is: a drain stops nothing that cannot be replaced.
        Stage::Run if is_target && is_epoch && work.moves(placement) => {
            Class::Outdated(readiness(work, placement))
        }
        Stage::Run if is_target && is_epoch => Class::Current(readiness(work, placement)),
        Stage::Run => Class::Outdated(readiness(work, placement)),
    }
}

fn readiness(work: &Work<'_>, placement: &Placement) -> Readiness {
    if work.world.is_unknown(&placement.id) {
        return Readiness::Unknown;
    }
    let Some(report) = work.world.report(&placement.id) else { return Readiness::Coming };
    match report.state {
        State::Running if report.ready => Readiness::Ready,
        State::Failed { .. } => Readiness::Failed,
        State::Installing
        | State::Starting
        | State::Running
        | State::BackingOff { .. }
        | State::Stopping { .. }
        | State::Unknown { .. } => Readiness::Coming,
    }
}

/// Why an instance that shall run does not.
fn waiting(work: &Work<'_>, placement: &Placement) -> Option<Waiting> {
    let instance = placement.id.clone();
    let readiness = match work.classes.get(&placement.id)? {
        Class::Current(readiness) | Class::Outdated(readiness) => *readiness,
        Class::Kept | Class::Leaving => return None,
    };
    if readiness == Readiness::Unknown {
        return Some(Waiting::InstanceUnknown { instance });
    }
    let Some(report) = work.world.report(&placement.id) else {
        return Some(Waiting::Installing { instance });
    };
    match (&report.state, readiness) {
        (_, Readiness::Ready) => None,
        (State::Installing, _) => Some(Waiting::Installing { instance }),
        (State::BackingOff { until }, _) => Some(Waiting::BackingOff { instance, until: *until }),
        (State::Failed { until }, _) => Some(Waiting::AttemptsSpent { instance, until: *until }),
        _ => Some(Waiting::NotReady { instance, message: report.message.clone() }),
    }
}

/// Once the target has moved within a pass.
pub fn reclassify(work: &mut Work<'_>) {
    work.classes = work.plan.placements.values().map(|p| (p.id.clone(), classify(work, p))).collect();
}
