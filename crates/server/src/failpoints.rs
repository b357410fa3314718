//! Points at which a test may end this process, as a kill would: `FAILPOINTS=phase.starting.after_commit`. For
//! each phase that a plan lets a deployment reach: `before` the commit, `after_commit`, and `after_effect` when the
//! assignments and routes are handed out. For each that an intent does (`queued`, `cancelled`): the same, with
//! `after_effect` when the next pass has been asked for. Not built into releases.

use std::collections::BTreeMap;

use model::{ServiceKey, deployment::Phase, plan::Report};

#[cfg(feature = "failpoints")]
pub fn at(reports: &BTreeMap<ServiceKey, Report>, point: &str) {
    use model::reason::Change;
    for change in reports.values().flat_map(decide::plan::changes) {
        // Also a phase that is left again within the same plan is a boundary.
        if let Change::PhaseReached { phase, .. } | Change::DeploymentEnded { phase, .. } = change {
            reached(*phase, point);
        }
    }
}

#[cfg(not(feature = "failpoints"))]
pub fn at(_: &BTreeMap<ServiceKey, Report>, _: &str) {}

#[cfg(feature = "failpoints")]
pub fn intended(phases: &[Phase], point: &str) {
    phases.iter().for_each(|phase| reached(*phase, point));
}

#[cfg(not(feature = "failpoints"))]
pub fn intended(_: &[Phase], _: &str) {}

#[cfg(feature = "failpoints")]
fn reached(phase: Phase, point: &str) {
    let point = format!("phase.{phase}.{point}");
    let armed = std::env::var("FAILPOINTS").unwrap_or_default();
    if armed.split(';').any(|armed| armed == point) {
        std::process::abort();
    }
}
