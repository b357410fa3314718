//! Points at which a test may end this process, as a kill would: `FAILPOINTS=phase.starting.after_commit=return`. For
//! each phase that a plan lets a deployment reach: `before` the commit, `after_commit`, and `after_effect` when the
//! assignments and routes are handed out. Not built into releases.

use std::collections::BTreeMap;

use model::{ServiceKey, plan::Report};

#[cfg(feature = "failpoints")]
pub fn at(reports: &BTreeMap<ServiceKey, Report>, point: &str) {
    use model::reason::Change;
    for change in reports.values().flat_map(decide::plan::changes) {
        // Also a phase that is left again within the same plan is a boundary.
        if let Change::PhaseReached { phase, .. } | Change::DeploymentEnded { phase, .. } = change {
            fail::eval(&format!("phase.{phase}.{point}"), |_| -> () { std::process::abort() });
        }
    }
}

#[cfg(not(feature = "failpoints"))]
pub fn at(_: &BTreeMap<ServiceKey, Report>, _: &str) {}

/// Reads the points from the environment, once.
#[cfg(feature = "failpoints")]
pub fn arm() {
    // Dropping the scenario would disarm the points again.
    std::mem::forget(fail::FailScenario::setup());
}

#[cfg(not(feature = "failpoints"))]
pub fn arm() {}
