//! Taking in a site's content: an archive becomes an artifact, durable before it is acknowledged.

use std::io::Read;

use content::intake;
use model::{ArtifactDigest, artifact::Artifact};
use store::StoreError;

use crate::Control;

#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error(transparent)]
    Refused(#[from] intake::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the upload was interrupted: {0}")]
    Interrupted(String),
}

impl Control {
    /// Reads an archive (tar, tar.gz, tar.zst or zip, told by its first bytes) to its end. When this returns, the
    /// artifact survives a power loss.
    pub async fn upload(
        &self,
        mut archive: impl Read + Send + 'static,
    ) -> Result<(ArtifactDigest, Artifact), UploadError> {
        let _taking_in = self.0.intake.read().await;
        let blobs = self.blobs().clone();
        let reading = tokio::task::spawn_blocking(move || {
            intake::from_archive(&blobs, &mut archive, None, &mut |_| {})
        });
        let artifact = reading.await.map_err(|error| UploadError::Interrupted(error.to_string()))??;
        let digest = self.store().put_artifact(&artifact, self.now()).await?;
        Ok((digest, artifact))
    }
}
