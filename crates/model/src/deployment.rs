//! One attempt to make a service run a release, and its lifecycle in one function: `next`.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{DeploymentId, ReleaseDigest, ServiceKey, Timestamp, release::Release};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    pub id: DeploymentId,
    pub service: ServiceKey,
    /// Counts the service's deployments from 1; never reused.
    pub number: u64,
    pub release: ReleaseDigest,
    /// The service's target before this deployment: what an automatic rollback goes back to.
    pub previous: Option<ReleaseDigest>,
    pub cause: Cause,
    pub phase: Phase,
    pub started_at: Timestamp,
    pub phase_updated_at: Timestamp,
    /// When the outcome came.
    pub ended_at: Option<Timestamp>,
    /// The reason of the outcome, or what it waits for.
    pub message: String,
    /// `failed_phase`, `error`, `files_copied`, `total_files`, `source_commit` …, where known.
    pub metadata: BTreeMap<String, serde_json::Value>,
}

impl Deployment {
    /// Applies an event. An illegal one changes nothing.
    pub fn advance(&mut self, event: Event, now: Timestamp) -> Result<(), IllegalTransition> {
        let phase = next(self.phase, event)?;
        if phase != self.phase {
            if phase == Phase::Failed {
                self.metadata.insert("failed_phase".into(), self.phase.to_string().into());
            }
            if matches!(phase, Phase::Failed | Phase::Cancelled) {
                self.metadata.insert("failed_progress".into(), self.phase.progress().into());
            }
            self.phase = phase;
            self.phase_updated_at = now;
            if phase.is_ended() && self.ended_at.is_none() {
                self.ended_at = Some(now);
            }
        }
        Ok(())
    }

    /// Keeps which commit its content is made from, where it was fetched.
    pub fn note_source(&mut self, release: &Release) {
        let Some(origin) = release.origin() else { return };
        self.metadata.insert("source_commit".into(), origin.commit.clone().into());
        self.metadata.insert("source_url".into(), origin.repository.url.clone().into());
        if let Some(reference) = &origin.repository.reference {
            self.metadata.insert("source_ref".into(), reference.clone().into());
        }
    }

    /// 5 to 100. A failed or cancelled deployment keeps the value of the phase that it left.
    pub fn progress(&self) -> u8 {
        match self.phase {
            Phase::Failed | Phase::Cancelled => self
                .metadata
                .get("failed_progress")
                .and_then(serde_json::Value::as_u64)
                .and_then(|p| u8::try_from(p).ok())
                .unwrap_or(0),
            phase => phase.progress(),
        }
    }
}

/// Why a deployment exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    Apply,
    Deploy,
    /// A user asked for an earlier release.
    Rollback,
    /// A deployment failed or was cancelled, and this one restores what was before. Shown as `rollback`,
    /// and never itself rolled back.
    Restore,
    Git,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Apply => "apply",
            Self::Deploy => "deploy",
            Self::Rollback | Self::Restore => "rollback",
            Self::Git => "git",
        })
    }
}

/// Where a deployment is. Up to `HealthCheck` it is open; from `Active` on it has its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Queued,
    PullingSource,
    Building,
    CopyingFiles,
    CreatingSymlinks,
    Starting,
    UpdatingRoutes,
    HealthCheck,
    Active,
    Failed,
    Cancelled,
    Superseded,
    RolledBack,
}

impl Phase {
    pub const OPEN: [Self; 8] = [
        Self::Queued,
        Self::PullingSource,
        Self::Building,
        Self::CopyingFiles,
        Self::CreatingSymlinks,
        Self::Starting,
        Self::UpdatingRoutes,
        Self::HealthCheck,
    ];
    pub const ALL: [Self; 13] = [
        Self::Queued,
        Self::PullingSource,
        Self::Building,
        Self::CopyingFiles,
        Self::CreatingSymlinks,
        Self::Starting,
        Self::UpdatingRoutes,
        Self::HealthCheck,
        Self::Active,
        Self::Failed,
        Self::Cancelled,
        Self::Superseded,
        Self::RolledBack,
    ];

    pub fn is_open(self) -> bool {
        self < Self::Active
    }

    pub fn is_ended(self) -> bool {
        !self.is_open()
    }

    /// Progress in percent as shown; an outcome that lost its phase shows none.
    pub fn progress(self) -> u8 {
        match self {
            Self::Queued => 5,
            Self::PullingSource => 10,
            Self::Building => 30,
            Self::CopyingFiles => 50,
            Self::CreatingSymlinks => 70,
            Self::Starting => 80,
            Self::UpdatingRoutes => 90,
            Self::HealthCheck => 95,
            Self::Active | Self::Superseded | Self::RolledBack => 100,
            Self::Failed | Self::Cancelled => 0,
        }
    }

    /// The coarse word of `setpoint deployments`: all of the work before `active` is `building`.
    pub fn status(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::PullingSource
            | Self::Building
            | Self::CopyingFiles
            | Self::CreatingSymlinks
            | Self::Starting
            | Self::UpdatingRoutes
            | Self::HealthCheck => "building",
            Self::Active => "active",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
            Self::RolledBack => "rolled_back",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queued => "queued",
            Self::PullingSource => "pulling_source",
            Self::Building => "building",
            Self::CopyingFiles => "copying_files",
            Self::CreatingSymlinks => "creating_symlinks",
            Self::Starting => "starting",
            Self::UpdatingRoutes => "updating_routes",
            Self::HealthCheck => "health_check",
            Self::Active => "active",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
            Self::RolledBack => "rolled_back",
        })
    }
}

/// What may happen to a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The work has reached this open phase.
    Reached(Phase),
    Succeeded,
    Failed,
    Cancelled,
    /// Another deployment of the service became active.
    Superseded,
    /// A user's rollback to an earlier release became active.
    RolledBack,
}

#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
#[error("a deployment that is {from} cannot take {event:?}")]
pub struct IllegalTransition {
    pub from: Phase,
    pub event: Event,
}

/// Every legal transition. Phases only advance, and may be passed over; what is observed again is no step;
/// an outcome comes once, and only `active` is left, to `superseded` or `rolled_back`.
pub fn next(from: Phase, event: Event) -> Result<Phase, IllegalTransition> {
    match (from, event) {
        (from, Event::Reached(to)) if from.is_open() && to.is_open() && to >= from => Ok(to),
        (from, Event::Succeeded) if from.is_open() => Ok(Phase::Active),
        (from, Event::Failed) if from.is_open() => Ok(Phase::Failed),
        (from, Event::Cancelled) if from.is_open() => Ok(Phase::Cancelled),
        (Phase::Active, Event::Superseded) => Ok(Phase::Superseded),
        (Phase::Active, Event::RolledBack) => Ok(Phase::RolledBack),
        (from, event) => Err(IllegalTransition { from, event }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> Vec<Event> {
        let reached = Phase::ALL.into_iter().map(Event::Reached);
        reached
            .chain([Event::Succeeded, Event::Failed, Event::Cancelled, Event::Superseded, Event::RolledBack])
            .collect()
    }

    #[test]
    fn an_outcome_comes_once_and_only_active_is_left() {
        for from in Phase::ALL.into_iter().filter(|p| p.is_ended()) {
            for event in events() {
                let left = next(from, event).is_ok();
                let may_leave =
                    from == Phase::Active && matches!(event, Event::Superseded | Event::RolledBack);
                assert_eq!(left, may_leave, "{from} {event:?}");
            }
        }
    }

    #[test]
    fn phases_never_go_back_and_every_open_phase_can_end() {
        for from in Phase::OPEN {
            for to in Phase::ALL {
                assert_eq!(
                    next(from, Event::Reached(to)).is_ok(),
                    to.is_open() && to >= from,
                    "{from} → {to}"
                );
            }
            assert_eq!(next(from, Event::Failed), Ok(Phase::Failed));
            assert_eq!(next(from, Event::Cancelled), Ok(Phase::Cancelled));
        }
    }

    #[test]
    fn progress_rises_with_the_phase() {
        assert!(Phase::OPEN.windows(2).all(|w| w[0].progress() < w[1].progress()));
    }
}
