//! The desired record of a service: what was declared and what was intended since.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Generation, IntentSeq, ReleaseDigest, ServiceKey, Timestamp, spec::ServiceSpec};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub key: ServiceKey,
    /// Rises with each change of `spec`.
    pub generation: Generation,
    /// Rises with each recorded intent, a change of `spec` among them; half of a plan's parent.
    pub intent_seq: IntentSeq,
    pub owner: Owner,
    /// As last applied. What runs is `target`, which `deploy` and `rollback` move without touching this.
    pub spec: ServiceSpec,
    /// The release that the service shall run; `None` until there is something to run.
    pub target: Option<ReleaseDigest>,
    /// `scale` owns the number of replicas from the moment it is used.
    pub scale: Option<u32>,
    pub stopped: bool,
    /// Instances that were created in an earlier epoch are replaced.
    pub restart_epoch: u64,
    /// Set by `delete`: everything goes, and the record when every node has said so.
    pub deleted: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Service {
    /// Replicas that shall run now.
    pub fn wanted_replicas(&self) -> u32 {
        if self.stopped || self.deleted.is_some() || self.target.is_none() {
            0
        } else {
            self.declared_replicas()
        }
    }

    /// Replicas when it runs: by `scale`, else by the declaration.
    pub fn declared_replicas(&self) -> u32 {
        self.scale.unwrap_or(self.spec.replicas)
    }
}

/// Who may change a service's spec. A write by another is refused and names the owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    Api,
    Git { url: String },
    ControlPlane { url: String },
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api => f.write_str("api"),
            Self::Git { url } => write!(f, "git {url}"),
            Self::ControlPlane { url } => write!(f, "control plane {url}"),
        }
    }
}
