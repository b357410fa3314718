//! What the planner has decided, as it is stored and committed.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    Generation, Holder, Incarnation, InstanceId, IntentSeq, PlanSeq, ReleaseDigest, RouteRevision,
    ServiceKey, Slot, Term, Timestamp,
    deployment::Deployment,
    event::Event,
    instance::{Attempts, Placement},
    reason::{Change, Waiting},
    route::ServiceRoute,
    service::Service,
};

/// The plan of one service: durable, and with the intent all that the next plan needs beside observations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePlan {
    pub seq: PlanSeq,
    /// The service's generation that this plan has taken in: a new policy is a new plan, even when nothing moves.
    #[serde(default)]
    pub generation: Generation,
    pub placements: BTreeMap<InstanceId, Placement>,
    /// Its part of the route table; `None` when it has no domains.
    pub route: Option<Arc<ServiceRoute>>,
    /// For a site: the instance that `current` and the route show. Moves only by the switch.
    pub current: Option<InstanceId>,
    pub next_incarnation: Incarnation,
    pub rollout: Rollout,
    /// Of all its instances, those that are gone among them.
    #[serde(default, skip_serializing_if = "Restarts::is_empty")]
    pub restarts: Restarts,
    /// What instances of the target that are gone had spent of their attempts: the next in the same slot goes on with it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub spent: BTreeMap<Slot, Spent>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    pub release: ReleaseDigest,
    pub restart_epoch: u64,
    pub attempts: Attempts,
}

/// Restarts of a service's instances over its life. Kept with the plan, so that neither a restart of Setpoint nor a new
/// release makes a service look calm that is not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarts {
    pub total: u64,
    /// Of the last day, oldest first. What is close together is one entry, so that a service that never stops dying
    /// does not make its plan grow.
    pub recent: Vec<RestartsAt>,
}

impl Restarts {
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }
}

/// So many restarts, the last of them at this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartsAt {
    pub at: Timestamp,
    pub count: u64,
}

/// How far the work of the open deployment has come, so that "no progress" and "held" outlive the planner.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Grows with each step forward of the open deployment; never shrinks within one.
    pub progress: u64,
    pub progressed_at: Timestamp,
    /// Since when the whole has been the target, ready and served without interruption.
    pub held_since: Option<Timestamp>,
}

/// One pass: what changes, committed whole or per service only onto its parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub term: Term,
    pub holder: Holder,
    pub at: Timestamp,
    /// Generation of every node's assignment once this plan is committed: one more than before.
    pub generation: Generation,
    /// Revision of the route table once this plan is committed; its decisions' changed routes carry it.
    pub route_revision: RouteRevision,
    pub decisions: Vec<Decision>,
}

/// What a pass changes of one service. Each value is whole: it replaces what is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    pub key: ServiceKey,
    pub parent: Parent,
    pub plan: ServicePlan,
    /// The record with a moved target, where the planner restores the previous release.
    pub service: Option<Service>,
    /// Deployments that began, advanced or got their outcome.
    pub deployments: Vec<Deployment>,
    pub events: Vec<Event>,
    /// Deleted, and every node has confirmed: the record goes, its counters stay.
    pub purge: bool,
}

/// The decision's ground: it is void when either has moved. Observations are not part of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    pub intent: IntentSeq,
    pub plan: PlanSeq,
}

/// Why the pass did what it did to one service, step by step. Stored, and printed unchanged by `explain`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
pub struct Report {
    pub classify: StepReport,
    pub lost: StepReport,
    pub drift: StepReport,
    pub rollout: StepReport,
    pub place: StepReport,
    pub routes: StepReport,
    pub retire: StepReport,
    /// With an unchanged world, the next pass before this time decides the same.
    pub holds_until: Option<Timestamp>,
}

/// What one step changed and what it waits for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
pub struct StepReport {
    pub changed: Vec<Change>,
    pub waiting: Vec<Waiting>,
}

impl Report {
    /// The steps in their order, with the names that people read. Destructured, so that a new step cannot be
    /// forgotten here.
    pub fn steps(&self) -> [(&'static str, &StepReport); 7] {
        let Self { classify, lost, drift, rollout, place, routes, retire, holds_until: _ } = self;
        [
            ("classify", classify),
            ("lost", lost),
            ("drift", drift),
            ("rollout", rollout),
            ("place", place),
            ("routes", routes),
            ("retire", retire),
        ]
    }

    /// The same of a plan that was not recorded: nothing of it has changed anything.
    pub fn not_committed(&self, cause: &str) -> Self {
        let waits = |step: &StepReport| StepReport { changed: Vec::new(), waiting: step.waiting.clone() };
        let Self { classify, lost, drift, rollout, place, routes, retire, holds_until } = self;
        let mut classify = waits(classify);
        classify.waiting.insert(0, Waiting::NotCommitted { cause: cause.into() });
        Self {
            classify,
            lost: waits(lost),
            drift: waits(drift),
            rollout: waits(rollout),
            place: waits(place),
            routes: waits(routes),
            retire: waits(retire),
            holds_until: *holds_until,
        }
    }

    pub fn is_at_rest(&self) -> bool {
        self.steps().iter().all(|(_, step)| step.changed.is_empty() && step.waiting.is_empty())
    }
}
