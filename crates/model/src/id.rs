//! Names and ids as types of their own, parsed at the border by one function each.

use std::{fmt, str::FromStr};

use data_encoding::BASE32_NOPAD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Digest, Timestamp};

/// Why a piece of text is no name or id. `expected` says what would be accepted.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("`{}` is not {} {what}: {expected}", printable(.text), article(.what))]
pub struct InvalidId {
    pub what: &'static str,
    pub text: String,
    pub expected: &'static str,
}

fn article(what: &str) -> &'static str {
    if what.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" }
}

/// Text from outside, made safe to print in one line: control characters escaped, length bounded.
pub fn printable(text: &str) -> String {
    let mut out: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        out.push('…');
    }
    out
}

fn is_dns_label(s: &str) -> bool {
    (1..=63).contains(&s.len())
        && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !s.starts_with('-')
        && !s.ends_with('-')
}

const DNS_LABEL: &str = "use 1 to 63 of a-z, 0-9 and -, not beginning or ending with -";

/// Text newtypes: one `FromStr` validates for code, JSON and YAML alike.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $valid:expr, $expected:expr) => {
        $(#[$doc])*
        #[derive(Clone, Eq, JsonSchema)]
        #[schemars(transparent)]
        pub struct $name(#[schemars(with = "String")] std::sync::Arc<str>);

        // Keys of every map: most that are compared are the same text, and one pointer.
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                std::sync::Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                match std::sync::Arc::ptr_eq(&self.0, &other.0) {
                    true => std::cmp::Ordering::Equal,
                    false => self.0.cmp(&other.0),
                }
            }
        }

        impl std::hash::Hash for $name {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                self.0.hash(state);
            }
        }

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                let valid: fn(&str) -> bool = $valid;
                if valid(s) {
                    Ok(Self(s.into()))
                } else {
                    Err(InvalidId { what: $what, text: s.into(), expected: $expected })
                }
            }
        }

        crate::text::serde_as_text!($name);
    };
}

/// Number newtypes; `next` is the only arithmetic that they need.
macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $repr:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(pub $repr);

        impl $name {
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

text_id!(
    /// A namespace that owns services.
    ProjectName, "project name", is_dns_label, DNS_LABEL
);
text_id!(
    /// What a token is called; never the token itself.
    TokenName, "token name", is_dns_label, DNS_LABEL
);
text_id!(
    /// A service's name, unique in its project.
    ServiceName, "service name", is_dns_label, DNS_LABEL
);
text_id!(
    /// A machine that runs instances. The node of one machine is `local`.
    NodeId, "node id", is_dns_label, DNS_LABEL
);
text_id!(
    /// A proxy. The edge in the same process is `local`.
    EdgeId, "edge id", is_dns_label, DNS_LABEL
);
text_id!(
    /// One installation of Setpoint, made at random when its data folder is; part of every claim of ownership.
    ClusterId, "cluster id", |s| (8..=64).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphanumeric()),
    "8 to 64 letters and digits"
);
text_id!(
    /// The kernel's id of the running boot, from /proc/sys/kernel/random/boot_id.
    BootId, "boot id", |s| (1..=64).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'),
    "1 to 64 letters, digits and -"
);
text_id!(
    /// One acquisition of leadership: a fresh random id each time.
    Holder, "holder", |s| (1..=64).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'),
    "1 to 64 letters, digits and -"
);
text_id!(
    /// One attempt to make a service run a release; names the folder `deployment-<id>` of a site.
    DeploymentId, "deployment id", |s| (1..=40).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()),
    "1 to 40 of a-z and 0-9; `setpoint deployments SERVICE` lists them"
);

impl DeploymentId {
    /// The id of a service's deployment: derived, so that the planner needs no randomness.
    pub fn derive(service: &ServiceKey, number: u64, at: Timestamp) -> Self {
        let digest = Digest::of_bytes(format!("{service}#{number}@{}", at.0).as_bytes());
        let id = BASE32_NOPAD.encode(&digest.as_bytes()[..8]).to_ascii_lowercase();
        Self(id[..12].into())
    }
}

number_id!(
    /// A leadership period; strictly increasing. `(term, holder)` fences every effect.
    Term, u64
);
number_id!(
    /// Rises with each change of a service's spec, and with each change of a node's assignment.
    Generation, u64
);
number_id!(
    /// Rises with each recorded intent of a service: apply, deploy, scale, stop …
    IntentSeq, u64
);
number_id!(
    /// Rises with each committed plan of a service.
    PlanSeq, u64
);
number_id!(
    /// Rises with each change of the route table.
    RouteRevision, u64
);
number_id!(
    /// The ordinal place of an instance in its service, from 0.
    Slot, u32
);
number_id!(
    /// Distinguishes instances in one slot; never reused within a service.
    Incarnation, u64
);

/// Digest of a release's whole content.
pub type ReleaseDigest = Digest;
/// Digest of an artifact's manifest: paths, modes and content digests.
pub type ArtifactDigest = Digest;

/// A service's full name, `project/service`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    pub project: ProjectName,
    pub name: ServiceName,
}

impl ServiceKey {
    pub fn new(project: ProjectName, name: ServiceName) -> Self {
        Self { project, name }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.name)
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for ServiceKey {
    type Err = InvalidId;

    /// `project/service`, or `service` alone for the project `default`.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let (project, name) = s.split_once('/').unwrap_or(("default", s));
        Ok(Self { project: project.parse()?, name: name.parse()? })
    }
}

/// One placement of a release in a slot at a node; kept across restarts in place, never reused.
/// Written `project.service.slot.incarnation`, which is also the name of its folder on the node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId {
    pub service: ServiceKey,
    pub slot: Slot,
    pub incarnation: Incarnation,
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, slot, incarnation } = self;
        write!(f, "{}.{}.{slot}.{incarnation}", service.project, service.name)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for InstanceId {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidId {
            what: "instance id",
            text: s.into(),
            expected: "write project.service.slot.incarnation, as `setpoint status SERVICE` shows it",
        };
        let mut parts = s.split('.');
        let mut part = || parts.next().ok_or_else(invalid);
        let id = Self {
            service: ServiceKey { project: part()?.parse()?, name: part()?.parse()? },
            slot: Slot(part()?.parse().map_err(|_| invalid())?),
            incarnation: Incarnation(part()?.parse().map_err(|_| invalid())?),
        };
        // Compared as text, so that `0.07` and `0.7` are not two names of one folder.
        if id.to_string() == s { Ok(id) } else { Err(invalid()) }
    }
}

crate::text::serde_as_text!(ServiceKey, InstanceId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "api", "web-1", "0", &"x".repeat(63)] {
            assert!(good.parse::<ServiceName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-x",
            "x-",
            ".",
            "..",
            "../x",
            "a/b",
            "A",
            "a_b",
            "a\0",
            "a\n",
            "ａ",
            "а",
            "\u{202e}a",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_instance_id_survives_its_text_form_and_has_only_one() {
        let id: InstanceId = "default.api.0.7".parse().unwrap();
        assert_eq!(id.to_string(), "default.api.0.7");
        for bad in
            ["default.api.0", "default.api.0.07", "default.api.+0.7", "default.api.0.7.1", "api.0.7", ""]
        {
            assert!(bad.parse::<InstanceId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_service_without_a_project_is_in_default() {
        assert_eq!("api".parse::<ServiceKey>().unwrap().to_string(), "default/api");
        assert_eq!("demo/api".parse::<ServiceKey>().unwrap().to_string(), "demo/api");
    }

    #[test]
    fn hostile_text_is_escaped_in_errors() {
        let error = "\u{1b}[31mred\n".parse::<ServiceName>().unwrap_err().to_string();
        assert!(!error.contains('\u{1b}') && !error.contains('\n'), "{error}");
    }
}
