//! Unknown is a value. What could not be read is neither there nor gone, and nothing may be removed on
//! the strength of it.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// What we know about something outside of us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Knowledge<T> {
    /// Looked, and it is certainly not there.
    Absent,
    /// Could not look, or what was read cannot be trusted.
    Unknown { since: Timestamp, cause: String },
    /// The last confirmed value.
    Known(T),
}

impl<T> Knowledge<T> {
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Absent | Self::Unknown { .. } => None,
        }
    }

    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }

    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}
