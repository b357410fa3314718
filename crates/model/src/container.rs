//! A container as declared: all that its engine is told, but what every instance has of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::{
    Bytes, ClusterId, InstanceId, ProjectName,
    id::InvalidId,
    image::{ImagePin, ImageRef},
    spec::Template,
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    pub image: ImageRef,
    /// What `image` stood for when the release was made; `None` in a declaration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<ImagePin>,
    /// Instead of the image's own; `${NAME}` not yet replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<Template>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<Template>>,
    /// Inside; absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// `name`, `uid` or `uid:gid`, as the image knows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where it listens, inside. With the host's network it is the machine's port, and `spec.port` says which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default)]
    pub network: Network,
    #[serde(default)]
    pub volumes: Vec<Mount>,
    /// Folders in memory: absolute path inside, and its size at the most.
    #[serde(default)]
    pub tmpfs: BTreeMap<String, Option<Bytes>>,
    /// Nothing but volumes and `tmpfs` can be written.
    #[serde(default)]
    pub read_only: bool,
    #[serde(default)]
    pub capabilities: Capabilities,
    #[serde(default)]
    pub log: LogLimit,
}

impl Container {
    pub fn new(image: ImageRef) -> Self {
        Self {
            image,
            pin: None,
            entrypoint: None,
            command: None,
            workdir: None,
            user: None,
            port: None,
            network: Network::default(),
            volumes: Vec::new(),
            tmpfs: BTreeMap::new(),
            read_only: false,
            capabilities: Capabilities::default(),
            log: LogLimit::default(),
        }
    }

    /// Whether a volume that an engine calls so is one of a project's that this mounts.
    pub fn mounts(&self, project: &ProjectName, engines: &str) -> bool {
        self.volumes.iter().any(|mount| match &mount.source {
            MountSource::Volume(name) => engines
                .strip_prefix(&format!("{project}.{name}."))
                .is_some_and(|mark| !mark.is_empty() && !mark.contains('.')),
            MountSource::Bind(_) => false,
        })
    }

    /// What an engine finds the image by: no tag, so that a tag that moves changes nothing.
    pub fn pinned_name(&self) -> Option<String> {
        match self.pin? {
            ImagePin::Registry(digest) => Some(format!("{}@{digest}", self.image.repository())),
            ImagePin::Local(id) => Some(id.to_string()),
        }
    }
}

/// What a container can reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// The project's own: its services reach each other by name.
    #[default]
    Project,
    /// The machine's. It takes a setting of the server.
    Host,
    None,
}

/// Something from outside of the container that is seen inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    pub source: MountSource,
    /// Absolute, inside.
    pub target: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// Of the project: it outlives every container, and goes only when asked for.
    Volume(VolumeName),
    /// An absolute path of the machine. It takes a setting of the server.
    Bind(String),
}

/// Lower case letters, digits, `-`, `_` and `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeName(String);

impl VolumeName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for VolumeName {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let head = s.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let tail = s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
        if head && tail && s.len() <= 63 {
            return Ok(Self(s.into()));
        }
        let expected = "use 1 to 63 of a-z, 0-9, -, _ and ., beginning with a letter or digit";
        Err(InvalidId { what: "volume", text: s.into(), expected })
    }
}

/// What is kept of the engine's usual powers, beside the few that nearly every image needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    #[serde(default)]
    pub add: BTreeSet<Capability>,
    #[serde(default)]
    pub drop: BTreeSet<Capability>,
}

impl Capabilities {
    /// Kept unless dropped: what images need to begin as root, take a port below 1024 and become a user of their own.
    pub const KEPT: [&str; 7] =
        ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"];
    /// May be added by everybody: engines give them to every container unless told otherwise.
    pub const USUAL: [&str; 14] = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ];

    /// All that a container has.
    pub fn effective(&self) -> BTreeSet<&str> {
        let kept = Self::KEPT.into_iter().filter(|kept| !self.drop.iter().any(|drop| drop.as_str() == *kept));
        kept.chain(self.add.iter().map(Capability::as_str)).collect()
    }

    /// Powers over the machine itself: they take a setting of the server.
    pub fn unusual(&self) -> impl Iterator<Item = &Capability> {
        self.add.iter().filter(|add| !Self::USUAL.contains(&add.as_str()))
    }
}

/// A capability of Linux without `CAP_`, in capitals: `NET_ADMIN`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability(String);

impl Capability {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Capability {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let name = s.to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        if KNOWN.contains(&name) {
            return Ok(Self(name.into()));
        }
        let expected = "write one of `man 7 capabilities`, such as NET_ADMIN; ALL is not one";
        Err(InvalidId { what: "capability", text: s.into(), expected })
    }
}

/// Linux 6.
const KNOWN: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// The engine's own bound on what it keeps of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLimit {
    pub max_size: Bytes,
    pub max_files: u32,
}

impl Default for LogLimit {
    fn default() -> Self {
        Self { max_size: Bytes(10 << 20), max_files: 3 }
    }
}

/// Enough of a cluster's id to keep two installations on one engine apart.
pub fn cluster_mark(cluster: &ClusterId) -> &str {
    let text = cluster.as_str();
    text.get(..6).unwrap_or(text)
}

/// What an engine calls a project's network: `demo.5f1c2a`.
pub fn network_name(cluster: &ClusterId, project: &ProjectName) -> String {
    format!("{project}.{}", cluster_mark(cluster))
}

/// What an engine calls a project's volume: `demo.data.5f1c2a`.
pub fn volume_name(cluster: &ClusterId, project: &ProjectName, name: &VolumeName) -> String {
    format!("{project}.{name}.{}", cluster_mark(cluster))
}

/// What one instance keeps where its image declares a volume and its service does not, the `nth` of these.
pub fn own_volume_name(cluster: &ClusterId, id: &InstanceId, nth: usize) -> String {
    format!("{id}.v{nth}.{}", cluster_mark(cluster))
}

/// Whose such a volume is; `None`: it is of another kind.
pub fn owner_of_volume(name: &str) -> Option<InstanceId> {
    let (rest, _mark) = name.rsplit_once('.')?;
    let (id, nth) = rest.rsplit_once(".v")?;
    nth.parse::<usize>().ok()?;
    id.parse().ok()
}

crate::text::serde_as_text!(VolumeName, Capability);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_of_an_instances_own_says_whose_it_is() {
        let cluster: ClusterId = "5f1c2a9988".parse().unwrap();
        let id: InstanceId = "demo.web.0.3".parse().unwrap();
        assert_eq!(owner_of_volume(&own_volume_name(&cluster, &id, 1)), Some(id));
        assert_eq!(owner_of_volume("demo.data.5f1c2a"), None);
        assert_eq!(owner_of_volume("demo.v1.5f1c2a"), None, "a declared one may be called so");
    }

    #[test]
    fn few_powers_are_kept_and_others_are_asked_for() {
        let set = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        let plain = Capabilities::default();
        assert_eq!(plain.effective(), Capabilities::KEPT.into_iter().collect());
        let asked = Capabilities { add: set(&["net_admin", "CAP_NET_RAW"]), drop: set(&["chown"]) };
        assert!(!asked.effective().contains("CHOWN") && asked.effective().contains("NET_ADMIN"));
        assert_eq!(asked.unusual().map(Capability::as_str).collect::<Vec<_>>(), ["NET_ADMIN"]);
        for bad in ["ALL", "", "NET ADMIN", "FLY"] {
            assert!(bad.parse::<Capability>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_volume_is_known_by_its_engines_name_of_it() {
        let mut container = Container::new("acme/web:1".parse().unwrap());
        let mount = |source| Mount { source, target: "/data".into(), read_only: false };
        container.volumes.push(mount(MountSource::Volume("data".parse().unwrap())));
        container.volumes.push(mount(MountSource::Bind("/srv".into())));
        let (cluster, project) = ("5f1c2a9988".parse().unwrap(), "demo".parse().unwrap());
        let named = |name: &str| volume_name(&cluster, &project, &name.parse().unwrap());
        assert!(container.mounts(&project, &named("data")));
        for other in ["data.old", "dat", "other"] {
            assert!(!container.mounts(&project, &named(other)), "{other}");
        }
        assert!(!container.mounts(&"demo2".parse().unwrap(), &named("data")));
    }

    #[test]
    fn a_pinned_image_is_found_without_its_tag() {
        let digest = crate::Digest::of_bytes(b"x");
        let mut container = Container::new("acme/web:1".parse().unwrap());
        assert_eq!(container.pinned_name(), None);
        container.pin = Some(ImagePin::Registry(digest));
        assert_eq!(container.pinned_name(), Some(format!("acme/web@{digest}")));
        container.pin = Some(ImagePin::Local(digest));
        assert_eq!(container.pinned_name(), Some(digest.to_string()));
    }
}
