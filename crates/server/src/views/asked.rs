//! Bodies of requests. A field that is not known is refused.

use model::{ArtifactDigest, DeploymentId, Millis, ProjectName, ServiceKey, TokenName, access::Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Declared;

/// Body of `POST /apply` and `POST /plan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Apply {
    pub services: Vec<Declared>,
    /// Projects of which everything else is deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prune: Vec<ProjectName>,
}

/// Body of `POST /services/{project}/{name}/deploy`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deploy {
    /// As `POST /artifacts` gave it; without it what is declared is deployed again.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub artifact: Option<ArtifactDigest>,
    /// For a container, instead of the declared one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub image: Option<model::image::ImageRef>,
}

/// Body of `POST /gc`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Collect {
    /// Say what would go, and leave it.
    pub dry_run: bool,
    /// Also volumes that no service declares any more, with what is in them.
    pub volumes: bool,
}

/// Body of `POST /services/{project}/{name}/rollback`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The deployment to go back to; without it the one that was active before.
    #[serde(default)]
    pub to: Option<DeploymentId>,
}

/// Body of `POST /services/{project}/{name}/scale`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    pub replicas: u64,
}

/// Body of `POST /reconcile`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reconcile {
    /// Only for a dry run: this service alone.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub service: Option<ServiceKey>,
    /// Carry out a pass that removes much.
    #[serde(default)]
    pub confirm: bool,
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /tokens`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    pub name: TokenName,
    /// The least that will do; `viewer` when left out.
    #[serde(default = "viewer")]
    pub role: Role,
    #[serde(default)]
    pub project: Option<ProjectName>,
    /// A duration such as `30d`; left out: it stays until it is revoked.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub expires_in: Option<Millis>,
}

fn viewer() -> Role {
    Role::Viewer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_refuse_what_they_do_not_know() {
        assert!(serde_json::from_str::<Scale>(r#"{"replicas":2,"replica":3}"#).is_err());
        assert!(serde_json::from_str::<Apply>(r#"{"services":[],"force":true}"#).is_err());
        assert!(serde_json::from_str::<Deploy>("{}").is_ok());
    }
}
