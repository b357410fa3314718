//! Up: what a node sees, whole.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    BootId, InstanceId, NodeId, ReleaseDigest, ServiceKey, Timestamp, assignment::Stamp, drift::Drift,
    instance::Attempts,
};

/// A node's complete observation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    pub node: NodeId,
    pub boot: BootId,
    /// Rises with each observation of a node, across restarts.
    pub sequence: u64,
    pub at: Timestamp,
    /// The newest assignment that the node has accepted, durably.
    pub accepted: Option<Stamp>,
    pub instances: BTreeMap<InstanceId, Arc<InstanceReport>>,
    /// What bears our marks and is in no ledger: reported, never removed.
    pub strangers: Vec<Stranger>,
    /// Volumes that held data of ours and are gone: told until they are back, and never made anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost_volumes: Vec<LostVolume>,
    /// The node's container engine; `None` where no container is or was held, and no engine is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// False while the node has not yet looked at everything it holds: what is missing is then unknown.
    pub complete: bool,
}

/// One instance as its node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceReport {
    pub id: InstanceId,
    pub release: ReleaseDigest,
    pub state: State,
    /// Passes its readiness check (for a site: whole and checked).
    pub ready: bool,
    /// Since when `ready` has its value.
    pub ready_since: Timestamp,
    pub pid: Option<u32>,
    /// The id by which an engine knows its container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// `host:port` where it listens, from `Install` on.
    pub address: Option<String>,
    /// For a site: the absolute folder with its files.
    pub folder: Option<String>,
    /// For a site: `current` (and `webroot`) point here.
    pub current: bool,
    pub started_at: Option<Timestamp>,
    pub attempts: Attempts,
    pub last_exit: Option<Exit>,
    /// Why it is as it is, in one sentence; never a secret.
    pub message: String,
    /// What was declared and cannot be given to it here, in one sentence; it runs all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without: Option<String>,
    /// The end of its output, when it keeps dying.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_lines: Vec<String>,
    /// Files placed and to be placed, while it is being installed.
    pub copied: Option<Copied>,
    pub drift: Vec<Drift>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Of a container: layers.
    pub files: u64,
    pub total: u64,
    /// Of an image that is being fetched: bytes fetched and bytes unpacked.
    #[serde(default)]
    pub bytes: u64,
}

/// What an instance does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its files are being placed.
    Installing,
    /// Its process lives and has not yet passed its startup check.
    Starting,
    /// Its process lives (for a site: its folder is whole).
    Running,
    /// It died and will be started again at this time.
    BackingOff { until: Timestamp },
    /// It will not be started again before this time; `None`: not without a new intent.
    Failed { until: Option<Timestamp> },
    /// It was asked to end.
    Stopping { since: Timestamp },
    /// The node cannot tell.
    Unknown { since: Timestamp },
}

impl State {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Installing => "installing",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::BackingOff { .. } => "backing_off",
            Self::Failed { .. } => "failed",
            Self::Stopping { .. } => "stopping",
            Self::Unknown { .. } => "unknown",
        }
    }

    pub fn is_failed(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }

    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub at: Timestamp,
    pub status: ExitStatus,
    /// What ended it, where somebody told: `engine: stop`, or the kernel for want of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Before what an engine was asked, where that is told as the reason of something: `engine: stop`.
pub const BY_ENGINE: &str = "engine: ";

impl Exit {
    /// An engine was asked for it, or ended with what it held.
    pub fn is_by_engine(&self) -> bool {
        self.why.as_ref().is_some_and(|why| why.starts_with(BY_ENGINE))
    }
}

/// As it is said after "it ended with".
impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.status.fmt(f)?;
        match &self.why {
            Some(why) => write!(f, " ({why})"),
            None => Ok(()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    Code(i32),
    Signal(i32),
    /// It ended while nobody watched. Never read as success.
    Unknown,
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("an unknown exit status"),
        }
    }
}

/// Something with our marks that no ledger knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stranger {
    pub what: String,
    pub message: String,
    /// Whose it says to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceKey>,
}

/// A container engine, as its node finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    Answers,
    Away(EngineAway),
}

impl Engine {
    pub fn away(&self) -> Option<&EngineAway> {
        match self {
            Self::Answers => None,
            Self::Away(away) => Some(away),
        }
    }
}

/// An engine that does not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineAway {
    pub since: Timestamp,
    /// Why, and what to do; a whole sentence.
    pub cause: String,
}

/// A volume that somebody removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostVolume {
    /// As its engine called it.
    pub name: String,
    pub since: Timestamp,
    /// What did it, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// The one sentence about it, wherever it is told.
impl fmt::Display for LostVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, since, by } = self;
        write!(f, "the volume {name} is gone since {since}")?;
        if let Some(by) = by {
            write!(f, " by {by}")?;
        }
        write!(
            f,
            ", and is not made anew empty: restore it, or, if its data may be lost, `docker volume create {name}`"
        )
    }
}
