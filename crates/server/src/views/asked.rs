//! Bodies of requests. A field that is not known is refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use model::{
    ArtifactDigest, DeploymentId, Millis, ProjectName, ServiceKey, TokenName, access::Role, source::Origin,
    spec::MAX_REPLICAS,
};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::Declared;

/// Body of `POST /apply` and `POST /plan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Apply {
    pub services: Vec<Declared>,
    /// Projects of which everything else is deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prune: Vec<ProjectName>,
    /// For a plan: the top-level names of contents that have not been uploaded, by their digests.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, Vec<String>>")]
    pub entries: BTreeMap<ArtifactDigest, BTreeSet<String>>,
}

/// Body of `POST /services/{project}/{name}/deploy`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deploy {
    /// As `POST /artifacts` gave it; without it what is declared is deployed again.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub artifact: Option<ArtifactDigest>,
    /// The commit that the artifact was made from, where it was fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub origin: Option<Origin>,
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
    #[serde(deserialize_with = "replicas")]
    pub replicas: u64,
}

/// What is no such number is refused with the range, whatever it is instead.
fn replicas<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    struct Number;

    impl de::Visitor<'_> for Number {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a whole number from 0 to {MAX_REPLICAS}")
        }

        fn visit_u64<E>(self, number: u64) -> Result<u64, E> {
            Ok(number)
        }
    }

    deserializer.deserialize_u64(Number)
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
    #[serde(default, deserialize_with = "some_time")]
    #[schemars(with = "Option<String>")]
    pub expires_in: Option<Millis>,
}

fn some_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Millis>, D::Error> {
    match Option::<Millis>::deserialize(deserializer)? {
        Some(Millis::ZERO) => Err(de::Error::custom(
            "a token that is to expire at once opens nothing: name a time, such as `30d`",
        )),
        time => Ok(time),
    }
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
