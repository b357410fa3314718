//! The durable truth: records, plans, journal, events, audit. What it has acknowledged survives a kill and a power
//! loss; what it cannot read it says so, and never calls absent.
//!
//! Owns: the database, its schema, what must hold between rows. Refuses to know: what should happen. It persists
//! rows and encoded values, and checks who may write them: by term, by parent, by expected intent.
//!
//! Every query is written once, in SQL that both dialects take; see `backend`.

mod artifact;
mod audit;
mod backend;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod deployment;
mod error;
mod event;
mod feed;
mod idempotency;
mod intent;
mod journal;
mod lock;
mod meta;
mod operators;
mod plan;
mod prune;
mod release;
mod restore;
mod service;
#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc};

use backend::Backend;
use feed::Feed;
use model::ClusterId;

pub use audit::{AuditEntry, AuditError, AuditRecord};
pub use error::{CommitError, OpenError, Refusal, StoreError, Version};
pub use event::EventFilter;
pub use feed::Changed;
pub use idempotency::{Idempotency, Stored};
pub use intent::{Expected, IntentCommit, IntentOutcome, ServiceIntent};
pub use journal::{JournalEntry, JournalLine, Journalled};
pub use lock::{DataLock, LockError};
pub use meta::Counters;
pub use operators::Told;
pub use plan::Committed;
pub use prune::{Pruned, Retention};
pub use restore::Raise;
pub use service::{Floor, Loaded, ServiceRow};

/// A handle on the store; clones share it.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    backend: Backend,
    cluster: ClusterId,
    feed: Feed,
}

impl Store {
    /// Opens the SQLite store at `path`, made and migrated where needed. The caller holds the [`DataLock`].
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        let backend = Backend::open_sqlite(path).await?;
        let failed = |source| OpenError::Store { path: path.into(), source };
        let cluster = meta::cluster_id(&backend).await.map_err(failed)?;
        let latest = event::latest(&backend).await.map_err(failed)?;
        Ok(Self(Arc::new(Inner { backend, cluster, feed: Feed::new(latest) })))
    }

    /// Copies the store as it is at one moment into a new file.
    pub async fn backup_to(&self, path: &Path) -> Result<(), StoreError> {
        self.0.backend.backup_to(path).await
    }

    /// Waits for what is under way and closes every connection. The store needs no close to be whole.
    pub async fn close(&self) {
        self.0.backend.close().await;
    }

    /// Lets the file grow by a few pages only, as on a disk that is nearly full.
    #[cfg(test)]
    async fn limit_pages_for_test(&self) {
        let Backend::Sqlite(database) = &self.0.backend;
        database.limit_pages_for_test().await;
    }

    /// Runs a write to its end even when the caller goes away: a dropped request must not leave a commit that
    /// nobody announces.
    async fn finish<T, E>(work: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        match tokio::spawn(work).await {
            Ok(result) => result,
            Err(error) => Err(StoreError::Failed { cause: format!("a write did not end: {error}") }.into()),
        }
    }
}
