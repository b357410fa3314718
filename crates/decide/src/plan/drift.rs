//! Step 3: what the nodes found different, what of it cannot be put back, and what they cannot give. Their nodes put
//! the rest back, by the mode that the assignment carries; here all of it is told.

use model::{
    drift::{Drift, RUNNING_PATH},
    observation::{InstanceReport, State},
    plan::StepReport,
    reason::Waiting,
    spec::DriftMode,
};

use super::work::Work;

/// Paths told per service in a report; the whole list is in the observation.
const TOLD: usize = 20;

pub fn step(work: &mut Work<'_>) -> StepReport {
    // Whatever the mode: nobody puts it back, and what needs it is not started.
    let mut waiting: Vec<Waiting> = work.world.lost().collect();
    waiting.extend(without(work));
    waiting.extend(drifts(work));
    StepReport { changed: Vec::new(), waiting }
}

/// What was declared and its node cannot give.
fn without(work: &Work<'_>) -> Vec<Waiting> {
    let seen = work.placements().filter_map(|p| work.world.report(&p.id));
    let lacks = seen.filter_map(|report| Some((report.id.clone(), report.without.clone()?)));
    lacks.take(TOLD).map(|(instance, cause)| Waiting::Without { instance, cause }).collect()
}

fn drifts(work: &Work<'_>) -> Vec<Waiting> {
    let corrected = match work.service.spec.drift.mode {
        DriftMode::Correct => true,
        DriftMode::Warn => false,
        DriftMode::Off => return Vec::new(),
    };
    work.placements()
        .filter_map(|p| work.world.report(&p.id))
        .flat_map(|report| report.drift.iter().map(|drift| waiting(report, drift, corrected)))
        .take(TOLD)
        .collect()
}

/// The one sentence about what differs, also where the service's state is told.
pub fn waiting(report: &InstanceReport, drift: &Drift, corrected: bool) -> Waiting {
    let path = drift.path.clone();
    let stuck = drift.stuck.clone().or_else(|| what_it_waits_for(report, drift));
    Waiting::Drift { instance: report.id.clone(), path, corrected, stuck }
}

/// What does not run is put back by being started: what holds that up, its node tells of the instance.
fn what_it_waits_for(report: &InstanceReport, drift: &Drift) -> Option<String> {
    let waits = match report.state {
        State::Failed { .. } | State::Installing | State::Starting => !report.message.is_empty(),
        State::Running | State::BackingOff { .. } | State::Stopping { .. } | State::Unknown { .. } => false,
    };
    (waits && drift.path == RUNNING_PATH).then(|| report.message.clone())
}
