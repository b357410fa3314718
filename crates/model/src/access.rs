//! Who may do what: roles, and what a token grants.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Digest, ProjectName, Timestamp, TokenName, id::InvalidId};

/// Each may do all that the one before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Declares and deploys: whoever may, runs code.
    Deployer,
    /// Deletes, drains nodes, asks for passes.
    Operator,
    /// Gives out tokens, takes backups, reads who asked for what.
    Admin,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Deployer, Self::Operator, Self::Admin];

    pub fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Deployer => "deployer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Role {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|role| role.word() == text).ok_or_else(|| InvalidId {
            what: "role",
            text: text.into(),
            expected: "use viewer, deployer, operator or admin",
        })
    }
}

/// What a token was given out for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub name: TokenName,
    pub role: Role,
    /// One project alone; `None`: all, and what belongs to none.
    pub project: Option<ProjectName>,
    pub created_at: Timestamp,
    pub created_by: String,
    pub expires_at: Option<Timestamp>,
}

/// A grant and the digest of the token that stands for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    pub digest: Digest,
    pub grant: Grant,
}
