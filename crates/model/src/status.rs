//! The state of a service in one word, as `status` prints it, and its health, as an operator asks for it.

use std::fmt;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// Exactly the target: nothing terminating, no open deployment.
    Converged,
    Progressing,
    /// It serves, with fewer ready than declared, or the declared release failed.
    Degraded,
    /// Nothing serves.
    Failed,
    Stopped,
    Unknown,
}

impl fmt::Display for ServiceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Converged => "converged",
            Self::Progressing => "progressing",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Unknown => "unknown",
        })
    }
}

/// Whether somebody has to look at it. Ordered from calm to grave, so that the worst of many is their maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceHealth {
    /// Nothing shall run, by request or because nothing has been deployed.
    Stopped,
    /// It does what is declared; a deployment that goes on beside what serves changes nothing about that.
    Healthy,
    /// It serves, and something about it is not as it should be; or it comes up for the first time.
    Degraded,
    /// It cannot be told.
    Unknown,
    /// Nothing serves.
    Unhealthy,
}

impl ServiceHealth {
    pub const ALL: [Self; 5] = [Self::Stopped, Self::Healthy, Self::Degraded, Self::Unknown, Self::Unhealthy];

    pub fn word(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unknown => "unknown",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl fmt::Display for ServiceHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
