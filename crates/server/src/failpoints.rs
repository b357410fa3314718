//! Points at which a test may end this process, as a kill would: `FAILPOINTS=phase.starting.after_commit=return`. For
//! each phase that a plan lets a deployment reach: `before` the commit, `after_commit`, and `after_effect` when the
//! assignments and routes are handed out. Not built into releases.

use model::plan::Plan;

#[cfg(feature = "failpoints")]
pub fn at(plan: &Plan, point: &str) {
    for deployment in plan.decisions.iter().flat_map(|decision| &decision.deployments) {
        fail::eval(&format!("phase.{}.{point}", deployment.phase), |_| -> () { std::process::abort() });
    }
}

#[cfg(not(feature = "failpoints"))]
pub fn at(_: &Plan, _: &str) {}

/// Reads the points from the environment, once.
#[cfg(feature = "failpoints")]
pub fn arm() {
    // Dropping the scenario would disarm the points again.
    std::mem::forget(fail::FailScenario::setup());
}

#[cfg(not(feature = "failpoints"))]
pub fn arm() {}
