//! The releases that a service keeps. Immutable: a digest names one content for ever.

use model::{Digest, ReleaseDigest, ServiceKey, release::Release};

use crate::{
    Store,
    backend::{Row, Tx, args},
    error::{CommitError, Refusal, StoreError},
    event::encode,
};

const INSERT: &str = "INSERT INTO releases (service, digest, artifact, content) VALUES ($1, $2, $3, $4) \
     ON CONFLICT (service, digest) DO NOTHING";
const READ: &str = "SELECT digest, content FROM releases WHERE service = $1 AND digest = $2";
const ARTIFACT: &str = "SELECT digest FROM artifacts WHERE digest = $1";
const EXISTS: &str = "SELECT digest FROM releases WHERE service = $1 AND digest = $2";
const FORGET: &str = "DELETE FROM releases WHERE service = $1 AND digest = $2";
const FORGET_ALL: &str = "DELETE FROM releases WHERE service = $1";

/// Keeps a release. Its artifact must be stored: a release that could never run is none.
pub(crate) async fn put(tx: &mut Tx, key: &ServiceKey, release: &Release) -> Result<(), CommitError> {
    let artifact = release.artifact();
    if let Some(artifact) = artifact
        && tx.one(ARTIFACT, args![&artifact]).await?.is_none()
    {
        return Err(CommitError::Refused { key: key.clone(), why: Refusal::MissingArtifact { artifact } });
    }
    let content = encode(release)?;
    let digest = Digest::of_bytes(content.as_bytes());
    let artifact = artifact.map(|digest| digest.to_string());
    tx.execute(INSERT, args![key, &digest, artifact, content]).await?;
    Ok(())
}

pub(crate) async fn require(
    tx: &mut Tx,
    key: &ServiceKey,
    release: ReleaseDigest,
) -> Result<(), CommitError> {
    match tx.one(EXISTS, args![key, &release]).await? {
        Some(_) => Ok(()),
        None => Err(CommitError::Refused { key: key.clone(), why: Refusal::MissingRelease { release } }),
    }
}

pub(crate) async fn forget(tx: &mut Tx, key: &ServiceKey, release: ReleaseDigest) -> Result<u64, StoreError> {
    tx.execute(FORGET, args![key, &release]).await
}

pub(crate) async fn forget_all(tx: &mut Tx, key: &ServiceKey) -> Result<(), StoreError> {
    tx.execute(FORGET_ALL, args![key]).await.map(drop)
}

/// Reads digest and content; content that no longer has its digest is damaged.
pub(crate) fn read(row: &mut Row) -> Result<(ReleaseDigest, Release), StoreError> {
    let digest: ReleaseDigest = row.parse("the digest of a release")?;
    let subject = || format!("release {}", digest.short());
    let content = row.text()?;
    if Digest::of_bytes(content.as_bytes()) != digest {
        return Err(StoreError::unreadable(subject(), "its content does not have its digest"));
    }
    let release = serde_json::from_str(&content).map_err(|error| StoreError::damaged(subject(), &error))?;
    Ok((digest, release))
}

impl Store {
    pub async fn release(
        &self,
        key: &ServiceKey,
        digest: &ReleaseDigest,
    ) -> Result<Option<Release>, StoreError> {
        let mut tx = self.0.backend.read().await?;
        match tx.one(READ, args![key, digest]).await? {
            Some(mut row) => Ok(Some(read(&mut row)?.1)),
            None => Ok(None),
        }
    }
}
