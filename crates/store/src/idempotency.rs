//! Answers already given, by the key that the caller chose: a repeated request gets the same answer and has no
//! second effect.

use model::{Digest, Timestamp};

use crate::{
    Store,
    backend::{Tx, args},
    error::StoreError,
};

/// An answer to keep, in the transaction of its effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// Who sent the key: equal keys of two actors are two keys.
    pub scope: String,
    pub key: String,
    pub body_digest: Digest,
    pub status: u16,
    pub response: String,
}

/// An answer that was kept. Another body under the same key is the caller's mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub body_digest: Digest,
    pub status: u16,
    pub response: String,
}

const INSERT: &str = "INSERT INTO idempotency (scope, key, at, body_digest, status, response) \
     VALUES ($1, $2, $3, $4, $5, $6)";
const READ: &str = "SELECT body_digest, status, response FROM idempotency WHERE scope = $1 AND key = $2";

pub(crate) async fn find(tx: &mut Tx, scope: &str, key: &str) -> Result<Option<Stored>, StoreError> {
    let Some(mut row) = tx.one(READ, args![scope, key]).await? else { return Ok(None) };
    let body_digest = row.parse("the digest of a kept request")?;
    let status = u16::try_from(row.int()?).map_err(|error| StoreError::unreadable("a kept status", error))?;
    Ok(Some(Stored { body_digest, status, response: row.text()? }))
}

pub(crate) async fn keep(tx: &mut Tx, at: Timestamp, answer: &Idempotency) -> Result<(), StoreError> {
    let Idempotency { scope, key, body_digest, status, response } = answer;
    let (scope, key, response) = (scope.as_str(), key.as_str(), response.as_str());
    tx.execute(INSERT, args![scope, key, at, body_digest, u64::from(*status), response]).await.map(drop)
}

impl Store {
    /// Keeps the answer to a request whose effect is its own record, or none at all.
    pub async fn keep_answer(&self, answer: Idempotency, at: Timestamp) -> Result<(), StoreError> {
        let store = self.clone();
        Self::finish(async move {
            let mut tx = store.0.backend.write().await?;
            keep(&mut tx, at, &answer).await?;
            tx.commit().await
        })
        .await
    }

    pub async fn idempotent(&self, scope: &str, key: &str) -> Result<Option<Stored>, StoreError> {
        find(&mut self.0.backend.read().await?, scope, key).await
    }
}
