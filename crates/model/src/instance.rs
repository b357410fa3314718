//! An instance as planned: one placement of a release in a slot at a node.

use serde::{Deserialize, Serialize};

use crate::{DeploymentId, Generation, InstanceId, NodeId, ReleaseDigest, RouteRevision, Timestamp};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    pub id: InstanceId,
    pub node: NodeId,
    pub release: ReleaseDigest,
    /// The deployment that created it: names a site's folder.
    pub deployment: DeploymentId,
    pub restart_epoch: u64,
    pub created_at: Timestamp,
    pub stage: Stage,
    /// Restarts that the node has reported, as a floor that a lost ledger cannot undercut.
    pub attempts: Attempts,
}

/// What the planner wants of an instance. It only advances, but for a kept site that is taken up again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Shall run; takes traffic as soon as it is ready.
    Run,
    /// A site's earlier folder, whole on the disk for a rollback, served by nobody.
    Kept,
    /// Out of the routes since this revision; runs on until every edge has served that revision and nothing is
    /// in flight, or until the drain time is over.
    Retiring { revision: RouteRevision, since: Timestamp, why: RetireReason },
    /// No longer assigned; gone when the node says so having accepted this assignment generation or a later one.
    Removing { generation: Generation, since: Timestamp, why: RetireReason },
}

impl Stage {
    /// Whether the node's assignment contains it.
    pub fn is_assigned(&self) -> bool {
        match self {
            Self::Run | Self::Kept | Self::Retiring { .. } => true,
            Self::Removing { .. } => false,
        }
    }

    pub fn is_run(&self) -> bool {
        matches!(self, Self::Run)
    }
}

/// Why an instance goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetireReason {
    /// A newer release, or a newer restart epoch, has taken its place.
    Replaced,
    /// The service was scaled down.
    ScaledDown,
    Stopped,
    Deleted,
    /// Its release was given up before it took over.
    Abandoned,
    /// More kept releases than `retain`.
    Expired,
    /// Its node is lost.
    NodeLost,
    /// Its node is being drained, and another one has taken its place.
    NodeDrained,
}

/// Restarts in one `(slot, release, epoch)`, oldest first; bounded by the restart policy's `attempts`, or by what the
/// alert asks about where that is more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    /// When each counted restart was decided.
    pub at: Vec<Timestamp>,
    /// Runs in a row that ended within a second of their start.
    pub fast_crashes: u32,
    /// All restarts of the instance's life, for people.
    pub total: u64,
    /// When those were made, of the newest, that spent no attempt: what ended the run before was no doing of the workload's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub free: Vec<Timestamp>,
}

impl Attempts {
    /// The stricter of both: what either side remembers counts.
    #[must_use]
    pub fn floor(&self, other: &Self) -> Self {
        // What was given back is known later than that it was counted.
        let last = |times: &[Timestamp]| times.last().copied();
        let age = |attempts: &Self| (attempts.total, last(&attempts.free), last(&attempts.at));
        if age(self) >= age(other) { self.clone() } else { other.clone() }
    }
}
