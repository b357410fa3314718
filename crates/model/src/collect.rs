//! What a node holds beside its instances, and what of it is removed: images, networks and volumes of an engine.

use serde::{Deserialize, Serialize};

/// Everything of ours on one node, whole. What we did not bring there is not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    pub held: Vec<Held>,
}

/// Whether the bytes of volumes are told. Measuring them walks through their files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    Measured,
    LeftOut,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Held {
    pub kind: Kind,
    /// As the engine knows it.
    pub name: String,
    pub bytes: u64,
    /// Something there uses it now, also somebody else's container.
    pub used: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// That we fetched: nobody had it there before.
    Image,
    Network,
    Volume,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Network => "network",
            Self::Volume => "volume",
        }
    }
}

/// What somebody asks to be collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Asked {
    /// Say what would go, and leave it.
    pub dry_run: bool,
    /// Also volumes that no service declares any more, with what is in them.
    pub volumes: bool,
}

/// One thing that went, or would go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    pub kind: Kind,
    pub name: String,
    pub bytes: u64,
    /// Why it could not be removed; `None`: it is gone.
    pub kept_because: Option<String>,
}
