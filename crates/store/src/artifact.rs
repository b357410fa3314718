//! Artifacts: the list of files of each. The files themselves are another part's.

use std::collections::BTreeSet;

use model::{ArtifactDigest, Timestamp, artifact::Artifact};

use crate::{
    Store,
    backend::{Row, args},
    error::StoreError,
    event::encode,
    meta,
};

/// Stored again, it counts as new: whoever uploads it now is about to use it.
const INSERT: &str = "INSERT INTO artifacts (digest, at, content) VALUES ($1, $2, $3) \
     ON CONFLICT (digest) DO UPDATE SET at = excluded.at";
const READ: &str = "SELECT content FROM artifacts WHERE digest = $1";
const IN_USE: &str = "SELECT DISTINCT artifact FROM releases WHERE artifact IS NOT NULL";
const UNUSED: &str = "SELECT digest FROM artifacts WHERE at < $1 \
     AND NOT EXISTS (SELECT 1 FROM releases WHERE releases.artifact = artifacts.digest)";
const DELETE: &str = "DELETE FROM artifacts WHERE digest = $1 \
     AND NOT EXISTS (SELECT 1 FROM releases WHERE releases.artifact = artifacts.digest)";

fn digests(rows: Vec<Row>) -> Result<BTreeSet<ArtifactDigest>, StoreError> {
    rows.into_iter().map(|mut row| row.parse("the digest of an artifact")).collect()
}

impl Store {
    /// Records an artifact whose files are durable already. Gives its digest.
    pub async fn put_artifact(
        &self,
        artifact: &Artifact,
        at: Timestamp,
    ) -> Result<ArtifactDigest, StoreError> {
        let (store, content, digest) = (self.clone(), encode(artifact)?, artifact.digest());
        Self::finish(async move {
            let mut tx = store.0.backend.write().await?;
            tx.execute(INSERT, args![&digest, at, content]).await?;
            meta::note_time(&mut tx, at).await?;
            tx.commit().await?;
            Ok(digest)
        })
        .await
    }

    pub async fn artifact(&self, digest: &ArtifactDigest) -> Result<Option<Artifact>, StoreError> {
        let mut tx = self.0.backend.read().await?;
        let row = tx.one(READ, args![digest]).await?;
        row.map(|mut row| row.json("an artifact")).transpose()
    }

    /// Every artifact that a kept release needs, also of a service that cannot be read.
    pub async fn artifacts_in_use(&self) -> Result<BTreeSet<ArtifactDigest>, StoreError> {
        digests(self.0.backend.read().await?.all(IN_USE, vec![]).await?)
    }

    /// Artifacts stored before `before` that no kept release needs.
    pub async fn artifacts_unused(&self, before: Timestamp) -> Result<BTreeSet<ArtifactDigest>, StoreError> {
        digests(self.0.backend.read().await?.all(UNUSED, args![before]).await?)
    }

    /// Forgets an artifact unless a kept release needs it; says whether it did.
    pub async fn delete_artifact(&self, digest: &ArtifactDigest) -> Result<bool, StoreError> {
        let (store, digest) = (self.clone(), *digest);
        Self::finish(async move {
            let mut tx = store.0.backend.write().await?;
            let deleted = tx.execute(DELETE, args![&digest]).await?;
            tx.commit().await?;
            Ok(deleted > 0)
        })
        .await
    }
}
