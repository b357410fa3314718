//! What is no longer needed goes: old journal lines, events and answers, releases beyond `retain`, and contents that
//! no release reaches. Kept is what can be reached, never what is young or much.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use model::{Digest, Millis};
use store::{Retention, StoreError};

use crate::{backup, control::Shared};

const EVERY: Duration = Duration::from_secs(600);
/// An upload may wait this long for the apply that names it.
const UPLOAD_GRACE: Millis = Millis::mins(60);

pub(crate) async fn run(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(EVERY);
    loop {
        tick.tick().await;
        if let Err(error) = sweep(&shared).await {
            tracing::warn!(%error, "cleaning up failed; it is tried again in {EVERY:?}");
        }
    }
}

/// Releases beyond `retain` go, from the store and from memory.
pub(crate) async fn forget(shared: &Shared) -> Result<(), StoreError> {
    let pruned = shared.store.prune((shared.clock)(), &Retention::default()).await?;
    for key in &pruned.services {
        shared.reload(key).await?;
    }
    Ok(())
}

async fn sweep(shared: &Shared) -> Result<(), StoreError> {
    forget(shared).await?;
    let now = (shared.clock)();
    let _nothing_is_taken_in = shared.intake.write().await;
    for digest in shared.store.artifacts_unused(now - UPLOAD_GRACE).await? {
        shared.store.delete_artifact(&digest).await?;
    }
    let mut keep: BTreeSet<Digest> = backup::contents(&shared.store).await?.into_keys().collect();
    keep.extend(shared.pinned());
    let blobs = shared.blobs.clone();
    match tokio::task::spawn_blocking(move || blobs.gc(&keep, false)).await {
        Ok(Ok(0)) | Err(_) => {}
        Ok(Ok(bytes)) => tracing::info!(bytes, "contents that no release reaches were removed"),
        Ok(Err(error)) => tracing::warn!(%error, "contents were not collected"),
    }
    Ok(())
}
