//! What happened, in numbers: what passes came to, and how deployments ended.

use std::{fmt, ops::AddAssign};

use model::{
    Millis,
    deployment::{Deployment, Phase},
    event::Kind,
    plan::Plan,
};
use serde::{Deserialize, Serialize};

use crate::world::{Snapshot, World};

/// What a pass came to, with what the nodes did by themselves since the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Services that were looked at.
    pub checked: u64,
    /// Differences found.
    pub drift: u64,
    /// Differences that are no longer there.
    pub repaired: u64,
    pub restarted: u64,
    /// Instances that are gone, confirmed by their nodes.
    pub removed: u64,
    /// Services not looked at, because nothing of them had changed, or because they cannot be read.
    pub skipped: u64,
    /// Deployments and instances that failed, and passes that were not carried out.
    pub failed: u64,
}

impl Tally {
    pub fn note(&mut self, kind: Kind) {
        match kind {
            Kind::DriftFound => self.drift += 1,
            Kind::DriftCorrected => self.repaired += 1,
            Kind::InstanceGone => self.removed += 1,
            Kind::InstanceFailed | Kind::DeploymentFailed => self.failed += 1,
            Kind::ServiceApplied
            | Kind::ServiceScaled
            | Kind::ServiceStopped
            | Kind::ServiceStarted
            | Kind::ServiceRestarted
            | Kind::ServiceDeleted
            | Kind::ServicePurged
            | Kind::ServiceQuarantined
            | Kind::DeploymentQueued
            | Kind::DeploymentPhase
            | Kind::DeploymentActive
            | Kind::DeploymentCancelled
            | Kind::DeploymentSuperseded
            | Kind::DeploymentRolledBack
            | Kind::InstancePlaced
            | Kind::InstanceStarted
            | Kind::InstanceReady
            | Kind::InstanceUnready
            | Kind::InstanceExited
            | Kind::InstanceAdopted
            | Kind::InstanceRetired
            | Kind::InstanceStopped
            | Kind::RestartAlert
            | Kind::StrangerFound
            | Kind::VolumeLost
            | Kind::VolumeBack
            | Kind::EngineAway
            | Kind::EngineBack
            | Kind::Collected
            | Kind::NodeDraining
            | Kind::NodeUndrained
            | Kind::LeaderElected
            | Kind::PassPaused
            | Kind::PassSummary => {}
        }
    }

    /// Whether anything happened that somebody may want to read about. Looking is not.
    pub fn has_news(&self) -> bool {
        let Self { checked: _, drift, repaired, restarted, removed, skipped: _, failed } = *self;
        drift + repaired + restarted + removed + failed > 0
    }
}

/// What happened adds up; how much was looked at is that of the broadest pass.
impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        let Self { checked, drift, repaired, restarted, removed, skipped, failed } = other;
        if checked >= self.checked {
            (self.checked, self.skipped) = (checked, skipped);
        }
        self.drift += drift;
        self.repaired += repaired;
        self.restarted += restarted;
        self.removed += removed;
        self.failed += failed;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { checked, drift, repaired, restarted, removed, skipped, failed } = self;
        write!(
            f,
            "{checked} checked, {drift} drift, {repaired} repaired, {restarted} restarted, {removed} removed, \
             {skipped} skipped, {failed} failed"
        )
    }
}

/// What a plan does, as far as it is counted, from the snapshot that it was made of.
pub fn tally(plan: &Plan, before: &Snapshot) -> Tally {
    let mut tally = Tally::default();
    for decision in &plan.decisions {
        decision.events.iter().for_each(|event| tally.note(event.kind));
        let noted = before.worlds.get(&decision.key).map_or(0, |world| world.plan.restarts.total);
        tally.restarted += decision.plan.restarts.total.saturating_sub(noted);
    }
    tally
}

/// How a deployment ended, as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Active,
    Failed,
    Cancelled,
    /// A newer one came before it was through.
    Superseded,
}

impl Outcome {
    pub const ALL: [Self; 4] = [Self::Active, Self::Failed, Self::Cancelled, Self::Superseded];

    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
        }
    }
}

/// Deployments that were open and have their outcome, with the time from their beginning to it.
pub fn ended(before: &World, after: &World) -> Vec<(Outcome, Millis)> {
    let ended = |open: &Deployment| {
        let now = after.deployments.iter().find(|deployment| deployment.id == open.id)?;
        let outcome = match now.phase {
            Phase::Active | Phase::RolledBack => Outcome::Active,
            Phase::Failed => Outcome::Failed,
            Phase::Cancelled => Outcome::Cancelled,
            Phase::Superseded => Outcome::Superseded,
            Phase::Queued
            | Phase::PullingSource
            | Phase::Building
            | Phase::CopyingFiles
            | Phase::CreatingSymlinks
            | Phase::Starting
            | Phase::UpdatingRoutes
            | Phase::HealthCheck => return None,
        };
        Some((outcome, now.ended_at?.since(now.started_at)))
    };
    before.deployments.iter().filter(|d| d.phase.is_open()).filter_map(ended).collect()
}

/// From the beginning to the outcome, on average, of the known deployments that became active; zero without any.
pub fn average_deployment<'a>(worlds: impl IntoIterator<Item = &'a World>) -> Millis {
    let became_active =
        |d: &&Deployment| matches!(d.phase, Phase::Active | Phase::Superseded | Phase::RolledBack);
    let took: Vec<u64> = worlds
        .into_iter()
        .flat_map(|world| world.deployments.iter().filter(became_active))
        .filter_map(|deployment| Some(deployment.ended_at?.since(deployment.started_at).0))
        .collect();
    Millis(took.iter().sum::<u64>().checked_div(took.len() as u64).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_is_no_news_and_what_happened_is() {
        let looked = Tally { checked: 50, skipped: 2, ..Tally::default() };
        assert!(!looked.has_news());
        let mut tally = looked;
        for kind in [Kind::DriftFound, Kind::DriftCorrected, Kind::InstanceGone, Kind::InstanceReady] {
            tally.note(kind);
        }
        assert!(tally.has_news());
        tally += Tally { checked: 1, skipped: 51, restarted: 3, failed: 1, ..Tally::default() };
        assert_eq!(
            tally.to_string(),
            "50 checked, 1 drift, 1 repaired, 3 restarted, 1 removed, 2 skipped, 1 failed"
        );
    }
}
