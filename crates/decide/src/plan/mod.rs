//! The planner: from declared services and what is seen of them to assignments and routes. A table of contents
//! of six steps; each says what it changed and what it waits for.
//!
//! Level-triggered: what is decided depends on the world alone, never on which event led here. The same world and
//! time give the same plan, byte for byte.

mod classify;
mod deployment;
pub use deployment::begin;
pub(crate) mod drift;
mod events;
mod lost;
pub(crate) mod order;
mod place;
mod retire;
mod rollout;
mod routes;
pub(crate) mod work;

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Knowledge, ServiceKey, Timestamp,
    plan::{Decision, Plan, Report, StepReport},
    reason::{Change, Waiting},
};

use crate::world::{Cluster, Snapshot, World};
use work::Work;

/// Which services a pass looks at.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    All,
    /// The others are known to be unchanged, and their decisions still hold.
    Only(&'a BTreeSet<ServiceKey>),
}

/// One pass. Services of which nothing changes have a report and no decision.
pub fn plan(snapshot: &Snapshot, scope: Scope<'_>) -> (Plan, BTreeMap<ServiceKey, Report>) {
    let (mut decisions, mut reports) = (Vec::new(), BTreeMap::new());
    let mut plan_one = |world: &World| {
        let (decision, report) = plan_service(world, &snapshot.cluster, snapshot.now);
        decisions.extend(decision);
        reports.insert(world.key.clone(), report);
    };
    match scope {
        Scope::All => snapshot.worlds.values().for_each(|world| plan_one(world)),
        Scope::Only(keys) => {
            keys.iter().filter_map(|key| snapshot.worlds.get(key)).for_each(|world| plan_one(world))
        }
    }
    let rerouted = decisions.iter().any(|d| reroutes(d, snapshot));
    let plan = Plan {
        term: snapshot.term,
        holder: snapshot.holder.clone(),
        at: snapshot.now,
        generation: snapshot.cluster.generation.next(),
        route_revision: if rerouted {
            snapshot.cluster.route_revision.next()
        } else {
            snapshot.cluster.route_revision
        },
        decisions,
    };
    (plan, reports)
}

fn reroutes(decision: &Decision, snapshot: &Snapshot) -> bool {
    snapshot.worlds.get(&decision.key).is_some_and(|world| world.plan.route != decision.plan.route)
}

/// Plans one service. Pure: also what a replay calls.
pub fn plan_service(world: &World, cluster: &Cluster, now: Timestamp) -> (Option<Decision>, Report) {
    let service = match &world.service {
        Knowledge::Known(service) => service,
        Knowledge::Absent => return (None, Report::default()),
        Knowledge::Unknown { cause, .. } => return (None, unknown(cause)),
    };
    let mut work = Work::new(world, service, cluster, now);
    let classify = classify::step(&mut work);
    let lost = lost::step(&mut work);
    let drift = drift::step(&mut work);
    let rollout = rollout::step(&mut work);
    let place = place::step(&mut work);
    let routes = routes::step(&mut work);
    let retire = retire::step(&mut work);
    let report = Report { classify, lost, drift, rollout, place, routes, retire, holds_until: work.wake_at };
    (work.into_decision(&report), report)
}

/// Nothing is decided about what cannot be read.
fn unknown(cause: &str) -> Report {
    let waiting = vec![Waiting::ServiceUnknown { cause: cause.into() }];
    Report { classify: StepReport { changed: Vec::new(), waiting }, ..Report::default() }
}

/// All that a report changed, in the order of the steps.
pub fn changes(report: &Report) -> impl Iterator<Item = &Change> {
    report.steps().into_iter().flat_map(|(_, step)| step.changed.iter())
}

/// All that a report waits for, in the order of the steps.
pub fn waits(report: &Report) -> impl Iterator<Item = &Waiting> {
    report.steps().into_iter().flat_map(|(_, step)| step.waiting.iter())
}
