//! Step 3: what the nodes found different. Their nodes put it back, by the mode that the assignment carries; here
//! it is told.

use model::{plan::StepReport, reason::Waiting, spec::DriftMode};

use super::work::Work;

/// Paths told per service in a report; the whole list is in the observation.
const TOLD: usize = 20;

pub fn step(work: &mut Work<'_>) -> StepReport {
    let corrected = match work.service.spec.drift.mode {
        DriftMode::Correct => true,
        DriftMode::Warn => false,
        DriftMode::Off => return StepReport::default(),
    };
    let waiting = work
        .placements()
        .filter_map(|p| work.world.report(&p.id))
        .flat_map(|report| report.drift.iter().map(|drift| (report.id.clone(), drift.path.clone())))
        .take(TOLD)
        .map(|(instance, path)| Waiting::Drift { instance, path, corrected })
        .collect();
    StepReport { changed: Vec::new(), waiting }
}
