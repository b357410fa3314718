//! What a site is made of: a list of files with their hashes. Content-addressed, so that equal folders are
//! one artifact and any damage is visible.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{ArtifactDigest, Digest, id::InvalidId};

/// Limits of one artifact, unpacked.
pub const MAX_ARTIFACT_BYTES: u64 = 1 << 30;
pub const MAX_ARTIFACT_FILES: usize = 200_000;

/// The files of an artifact. Directories exist because files are in them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    pub files: BTreeMap<RelPath, File>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

impl Artifact {
    pub fn digest(&self) -> ArtifactDigest {
        Digest::of_value(self)
    }

    /// What lies at the top, each name once: the entries that `webroot` links.
    pub fn top_entries(&self) -> impl Iterator<Item = &str> {
        let tops: std::collections::BTreeSet<&str> = self.files.keys().map(RelPath::top).collect();
        tops.into_iter()
    }

    pub fn total_bytes(&self) -> u64 {
        self.files.values().map(|file| file.size).sum()
    }
}

/// A relative path below a folder: `/`-separated, no `.` or `..`, no backslash, no control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(std::sync::Arc<str>);

impl RelPath {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first component, which is the entry that `webroot` links.
    pub fn top(&self) -> &str {
        self.0.split('/').next().unwrap_or(&self.0)
    }
}

impl AsRef<std::path::Path> for RelPath {
    fn as_ref(&self) -> &std::path::Path {
        self.0.as_ref().as_ref()
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl FromStr for RelPath {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let component = |c: &str| !c.is_empty() && c != "." && c != ".." && c.len() <= 255;
        let ok = (1..=4096).contains(&s.len())
            && !s.contains(['\\', '\0'])
            && !s.chars().any(char::is_control)
            && s.split('/').all(component);
        if ok {
            Ok(Self(s.into()))
        } else {
            Err(InvalidId {
                what: "relative path",
                text: s.into(),
                expected: "use names separated by /, without .., backslashes or control characters",
            })
        }
    }
}

crate::text::serde_as_text!(RelPath);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_their_folder() {
        for good in ["index.html", "a/b/c.css", "..a", "a b", "ü.html", ".well-known/x"] {
            assert!(good.parse::<RelPath>().is_ok(), "{good}");
        }
        for bad in ["", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a\\b", "a\0", "a\nb"] {
            assert!(bad.parse::<RelPath>().is_err(), "{bad:?}");
        }
    }
}
