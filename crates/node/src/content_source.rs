//! Where the node learns what an artifact consists of. Its contents are in the folder of blobs.

use model::{ArtifactDigest, artifact::Artifact};

/// Blocks; called where that is allowed.
pub trait ContentSource: Send + Sync + std::fmt::Debug {
    fn artifact(&self, digest: &ArtifactDigest) -> Result<Artifact, Unavailable>;
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("artifact {}: {why}", digest.short())]
pub struct Unavailable {
    pub digest: ArtifactDigest,
    pub why: String,
}
