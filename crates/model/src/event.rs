//! What happened, for people and scripts: one line each, in one sequence.

use serde::{Deserialize, Serialize};

use crate::{DeploymentId, InstanceId, ServiceKey, Timestamp};

/// An event before the store has given it its sequence and time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub kind: Kind,
    pub service: Option<ServiceKey>,
    pub instance: Option<InstanceId>,
    pub deployment: Option<DeploymentId>,
    pub message: String,
}

/// A recorded event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    pub seq: u64,
    pub at: Timestamp,
    #[serde(flatten)]
    pub event: Event,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $word:literal),* $(,)?) => {
        /// The kinds of events; scripts match on these words.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Kind {
            $($(#[$doc])* #[serde(rename = $word)] $variant),*
        }

        impl Kind {
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }
    };
}

kinds! {
    ServiceApplied = "service.applied",
    ServiceScaled = "service.scaled",
    ServiceStopped = "service.stopped",
    ServiceStarted = "service.started",
    ServiceRestarted = "service.restarted",
    ServiceDeleted = "service.deleted",
    ServicePurged = "service.purged",
    ServiceQuarantined = "service.quarantined",
    DeploymentQueued = "deployment.queued",
    DeploymentPhase = "deployment.phase",
    DeploymentActive = "deployment.active",
    DeploymentFailed = "deployment.failed",
    DeploymentCancelled = "deployment.cancelled",
    DeploymentSuperseded = "deployment.superseded",
    DeploymentRolledBack = "deployment.rolled_back",
    InstancePlaced = "instance.placed",
    InstanceStarted = "instance.started",
    InstanceReady = "instance.ready",
    InstanceUnready = "instance.unready",
    InstanceExited = "instance.exited",
    InstanceFailed = "instance.failed",
    InstanceAdopted = "instance.adopted",
    InstanceRetired = "instance.retired",
    InstanceStopped = "instance.stopped",
    InstanceGone = "instance.gone",
    DriftFound = "drift.found",
    DriftCorrected = "drift.corrected",
    RestartAlert = "alert.restarts",
    StrangerFound = "stranger.found",
    /// A volume with data was removed by somebody.
    VolumeLost = "volume.lost",
    VolumeBack = "volume.back",
    /// A container engine does not answer.
    EngineAway = "engine.away",
    EngineBack = "engine.back",
    /// Things that nothing reaches were removed.
    Collected = "gc.collected",
    NodeDraining = "node.draining",
    NodeUndrained = "node.undrained",
    LeaderElected = "leader.elected",
    PassPaused = "pass.paused",
    PassSummary = "pass.summary",
}
