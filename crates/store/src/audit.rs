//! Who asked for what: append-only, each row bound to the one before by a hash, so that tampering shows.

use model::{Digest, Timestamp};
use serde::Serialize;

use crate::{
    Store,
    backend::{Row, Tx, args},
    error::StoreError,
    event::encode,
    meta,
};

/// One mutation, recorded in its own transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    pub actor: String,
    pub action: String,
    pub subject: String,
    pub detail: serde_json::Value,
}

#[derive(Debug, Clone, PartialEq)]
pub struct AuditRecord {
    pub seq: u64,
    pub at: Timestamp,
    pub entry: AuditEntry,
    /// Of the row before.
    pub prev: Digest,
    pub hash: Digest,
}

#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error(
        "the audit trail is broken at row {seq}: {why}. Compare it with a backup: someone or something changed it"
    )]
    ChainBroken { seq: u64, why: &'static str },
    #[error(transparent)]
    Store(#[from] StoreError),
}

const INSERT: &str = "INSERT INTO audit (seq, at, actor, action, subject, detail, prev, hash) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
const AFTER: &str = "SELECT seq, at, actor, action, subject, detail, prev, hash FROM audit \
     WHERE seq > $1 ORDER BY seq LIMIT $2";
const ALL: &str = "SELECT seq, at, actor, action, subject, detail, prev, hash FROM audit ORDER BY seq";
const READ_HEAD: &str = "SELECT value FROM meta WHERE name = 'audit_head'";
const WRITE_HEAD: &str = "INSERT INTO meta (name, value) VALUES ('audit_head', $1) \
     ON CONFLICT (name) DO UPDATE SET value = excluded.value";

/// What the hash covers: everything of the row and the hash before it.
#[derive(Debug, Serialize)]
struct Content<'a> {
    seq: u64,
    at: Timestamp,
    actor: &'a str,
    action: &'a str,
    subject: &'a str,
    detail: &'a str,
    prev: Digest,
}

/// A row as stored: `detail` stays text, since the hash is over what is stored.
struct Line {
    seq: u64,
    at: Timestamp,
    actor: String,
    action: String,
    subject: String,
    detail: String,
    prev: Digest,
    hash: Digest,
}

impl Line {
    fn read(mut row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            seq: row.int()?,
            at: Timestamp(row.int()?),
            actor: row.text()?,
            action: row.text()?,
            subject: row.text()?,
            detail: row.text()?,
            prev: row.parse("an audit hash")?,
            hash: row.parse("an audit hash")?,
        })
    }

    fn expected_hash(&self) -> Digest {
        let Self { seq, at, actor, action, subject, detail, prev, hash: _ } = self;
        Digest::of_value(&Content { seq: *seq, at: *at, actor, action, subject, detail, prev: *prev })
    }

    fn record(self) -> Result<AuditRecord, StoreError> {
        let detail = serde_json::from_str(&self.detail)
            .map_err(|error| StoreError::damaged(format!("audit row {}", self.seq), &error))?;
        let Self { seq, at, actor, action, subject, detail: _, prev, hash } = self;
        Ok(AuditRecord { seq, at, entry: AuditEntry { actor, action, subject, detail }, prev, hash })
    }
}

async fn head(tx: &mut Tx) -> Result<Digest, StoreError> {
    match tx.one(READ_HEAD, vec![]).await? {
        Some(mut row) => row.parse("the head of the audit trail"),
        None => Ok(Digest::from_array([0; 32])),
    }
}

/// Appends in the transaction of the mutation itself.
pub(crate) async fn append(tx: &mut Tx, at: Timestamp, entries: &[AuditEntry]) -> Result<(), StoreError> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut prev = head(tx).await?;
    for AuditEntry { actor, action, subject, detail } in entries {
        let seq = meta::take_next(tx, "audit_seq", 1).await?;
        let detail = encode(detail)?;
        let hash = Digest::of_value(&Content { seq, at, actor, action, subject, detail: &detail, prev });
        let (actor, action, subject) = (actor.as_str(), action.as_str(), subject.as_str());
        tx.execute(INSERT, args![seq, at, actor, action, subject, detail, &prev, &hash]).await?;
        prev = hash;
    }
    tx.execute(WRITE_HEAD, args![&prev]).await.map(drop)
}

/// Follows the chain row by row.
struct Chain {
    seq: u64,
    hash: Digest,
    broken: Option<(u64, &'static str)>,
}

impl Chain {
    fn follow(&mut self, row: Row) {
        if self.broken.is_some() {
            return;
        }
        let next = self.seq + 1;
        match Line::read(row) {
            Err(_) => self.broken = Some((next, "it cannot be read")),
            Ok(line) if line.seq != next => self.broken = Some((next, "it is missing")),
            Ok(line) if line.prev != self.hash => {
                self.broken = Some((next, "it does not follow the row before"))
            }
            Ok(line) if line.hash != line.expected_hash() => {
                self.broken = Some((next, "its content was changed"))
            }
            Ok(line) => (self.seq, self.hash) = (line.seq, line.hash),
        }
    }
}

impl Store {
    /// At most `limit` rows after `seq`, oldest first.
    pub async fn audit_after(&self, seq: u64, limit: u32) -> Result<Vec<AuditRecord>, StoreError> {
        let mut tx = self.0.backend.read().await?;
        let rows = tx.all(AFTER, args![seq, u64::from(limit)]).await?;
        rows.into_iter().map(|row| Line::read(row)?.record()).collect()
    }

    /// Follows the whole chain up to its recorded head; gives the number of rows.
    pub async fn verify_audit(&self) -> Result<u64, AuditError> {
        let mut tx = self.0.backend.read().await?;
        let mut chain = Chain { seq: 0, hash: Digest::from_array([0; 32]), broken: None };
        tx.each(ALL, vec![], |row| {
            chain.follow(row);
            Ok(())
        })
        .await?;
        let (last, head) = (meta::counter(&mut tx, "audit_seq").await?, head(&mut tx).await?);
        match chain.broken {
            Some((seq, why)) => Err(AuditError::ChainBroken { seq, why }),
            None if chain.seq != last || chain.hash != head => {
                Err(AuditError::ChainBroken { seq: chain.seq + 1, why: "the rows from here on are missing" })
            }
            None => Ok(chain.seq),
        }
    }
}
