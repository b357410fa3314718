//! Step 3: what the nodes found different. Their nodes put it back, by the mode that the assignment carries; here
//! it is told. So is what cannot be put back.

use model::{plan::StepReport, reason::Waiting, spec::DriftMode};

use super::work::Work;

/// Paths told per service in a report; the whole list is in the observation.
const TOLD: usize = 20;

pub fn step(work: &mut Work<'_>) -> StepReport {
    // Whatever the mode: nobody puts it back, and what needs it is not started.
    let lost: Vec<_> = work.world.lost().collect();
    let corrected = match work.service.spec.drift.mode {
        DriftMode::Correct => true,
        DriftMode::Warn => false,
        DriftMode::Off => return StepReport { changed: Vec::new(), waiting: lost },
    };
    let differing = work
        .placements()
        .filter_map(|p| work.world.report(&p.id))
        .flat_map(|report| report.drift.iter().map(|drift| (report.id.clone(), drift.path.clone())))
        .take(TOLD)
        .map(|(instance, path)| Waiting::Drift { instance, path, corrected });
    StepReport { changed: Vec::new(), waiting: lost.into_iter().chain(differing).collect() }
}
