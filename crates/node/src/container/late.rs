//! Containers that an engine was asked for, that nobody saw, and that nobody wants any more: made late, they are removed.

use std::path::Path;

use model::Timestamp;

use super::{
    ask::{self, Listed},
    engine::{Engine, Error},
    notes,
};
use crate::ledger;

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    #[error(transparent)]
    Engine(#[from] Error),
}

/// Takes those that have come from the list: they are ours, and no stranger's.
pub fn take(data: &Path, listed: &mut Vec<Listed>, now: Timestamp) -> Vec<Listed> {
    match notes::late(data, now) {
        Ok(late) if late.is_empty() => Vec::new(),
        Ok(late) => listed.extract_if(.., |found| late.contains(&found.nonce)).collect(),
        Err(error) => {
            tracing::warn!(%error, "containers that are made late are not removed");
            Vec::new()
        }
    }
}

/// One that stays is found again by the next list.
pub async fn remove(engine: &Engine, data: &Path, late: Vec<Listed>, now: Timestamp) {
    for found in late {
        match remove_one(engine, data, &found, now).await {
            Ok(()) => tracing::info!(container = found.name, "made late and wanted no more: removed"),
            Err(error) => tracing::warn!(container = found.name, %error, "made late, and not removed yet"),
        }
    }
}

async fn remove_one(engine: &Engine, data: &Path, found: &Listed, now: Timestamp) -> Result<(), Failure> {
    // Wanted again meanwhile.
    if !notes::late(data, now)?.contains(&found.nonce) {
        return Ok(());
    }
    ask::remove(engine, &found.id).await?;
    Ok(notes::forget_late(data, &found.nonce)?)
}
