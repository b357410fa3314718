//! What operators say: which nodes are being drained, which tokens were given out. Each change with its audit row and
//! its events, all or nothing.

use model::{
    Digest, NodeId, Timestamp, TokenName,
    access::{Grant, Issued},
    event::Event,
    node::Drain,
};

use crate::{
    Store, audit,
    audit::AuditEntry,
    backend::{Arg, Row, Tx, args},
    error::StoreError,
    event,
    event::encode,
    idempotency,
    idempotency::Idempotency,
    meta,
};

/// What goes with a change.
#[derive(Debug, Clone)]
pub struct Told {
    pub at: Timestamp,
    pub audit: AuditEntry,
    pub events: Vec<Event>,
    /// Kept when the change is made.
    pub answer: Option<Idempotency>,
}

const DRAINS: &str = "SELECT id, content FROM nodes";
const PUT_DRAIN: &str = "INSERT INTO nodes (id, content) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING";
const END_DRAIN: &str = "DELETE FROM nodes WHERE id = $1";
const TOKENS: &str = "SELECT digest, content FROM tokens ORDER BY name";
const PUT_TOKEN: &str =
    "INSERT INTO tokens (name, digest, content) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
const REVOKE: &str = "DELETE FROM tokens WHERE name = $1";

fn issued(mut row: Row) -> Result<Issued, StoreError> {
    let digest: Digest = row.parse("the digest of a token")?;
    Ok(Issued { digest, grant: row.json("a token")? })
}

impl Store {
    /// Nodes that are being drained.
    pub async fn drains(&self) -> Result<Vec<(NodeId, Drain)>, StoreError> {
        let rows = self.0.backend.read().await?.all(DRAINS, vec![]).await?;
        rows.into_iter().map(|mut row| Ok((row.parse("the id of a node")?, row.json("a drain")?))).collect()
    }

    /// Begins a drain; `false` when it was begun before, and then nothing is written.
    pub async fn begin_drain(&self, node: NodeId, drain: Drain, told: Told) -> Result<bool, StoreError> {
        let content = encode(&drain)?;
        self.change(told, PUT_DRAIN, args![node.as_str(), content]).await
    }

    /// Ends a drain; `false` when there was none.
    pub async fn end_drain(&self, node: NodeId, told: Told) -> Result<bool, StoreError> {
        self.change(told, END_DRAIN, args![node.as_str()]).await
    }

    /// Every token that was given out and not revoked, expired ones too. One that cannot be read opens nothing.
    pub async fn tokens(&self) -> Result<Vec<Issued>, StoreError> {
        let rows = self.0.backend.read().await?.all(TOKENS, vec![]).await?;
        let readable =
            |row| issued(row).inspect_err(|error| tracing::warn!(%error, "a token is passed over"));
        Ok(rows.into_iter().filter_map(|row| readable(row).ok()).collect())
    }

    /// Records a token by its digest; `false` when the name is taken.
    pub async fn put_token(&self, digest: Digest, grant: &Grant, told: Told) -> Result<bool, StoreError> {
        let content = encode(grant)?;
        self.change(told, PUT_TOKEN, args![grant.name.as_str(), &digest, content]).await
    }

    /// Forgets a token; `false` when there is none of that name.
    pub async fn revoke_token(&self, name: &TokenName, told: Told) -> Result<bool, StoreError> {
        self.change(told, REVOKE, args![name.as_str()]).await
    }

    /// What was done that changes no record: its audit row and events alone.
    pub async fn note(&self, told: Told) -> Result<(), StoreError> {
        self.write(told, None).await.map(drop)
    }

    async fn change(&self, told: Told, sql: &'static str, args: Vec<Arg>) -> Result<bool, StoreError> {
        self.write(told, Some((sql, args))).await
    }

    async fn write(&self, told: Told, change: Option<(&'static str, Vec<Arg>)>) -> Result<bool, StoreError> {
        let store = self.clone();
        Self::finish(async move {
            let mut tx: Tx = store.0.backend.write().await?;
            if let Some((sql, args)) = change
                && tx.execute(sql, args).await? == 0
            {
                return Ok(false);
            }
            audit::append(&mut tx, told.at, &[told.audit]).await?;
            event::append(&mut tx, told.at, &told.events).await?;
            if let Some(answer) = &told.answer {
                idempotency::keep(&mut tx, told.at, answer).await?;
            }
            meta::note_time(&mut tx, told.at).await?;
            let latest = meta::counter(&mut tx, "event_seq").await?;
            tx.commit().await?;
            store.0.feed.events_until(latest);
            Ok(true)
        })
        .await
    }
}
