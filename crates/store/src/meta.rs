//! What the store knows of the whole cluster: its id, who leads it, how far its counters are.

use std::io::Read;

use model::{ClusterId, Generation, Holder, RouteRevision, Term, Timestamp};

use crate::{
    Store,
    backend::{Backend, Tx, args},
    error::{CommitError, StoreError},
};

/// How far the cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Of the latest committed plan.
    pub generation: Generation,
    pub route_revision: RouteRevision,
    pub term: Term,
}

const NAME_CLUSTER: &str =
    "INSERT INTO meta (name, value) VALUES ('cluster_id', $1) ON CONFLICT (name) DO NOTHING";
const READ_CLUSTER: &str = "SELECT value FROM meta WHERE name = 'cluster_id'";
const RAISE_TERM: &str = "INSERT INTO leader_term (scope, term, holder) VALUES ('cluster', $1 + 1, $2) \
     ON CONFLICT (scope) DO UPDATE SET holder = excluded.holder, \
     term = CASE WHEN leader_term.term < excluded.term THEN excluded.term ELSE leader_term.term + 1 END \
     RETURNING term";
const READ_TERM: &str = "SELECT term, holder FROM leader_term WHERE scope = 'cluster'";
/// A write and not a mere read, so that a new leader's term and a commit of the old one exclude each other in
/// every dialect.
const HOLD_TERM: &str =
    "UPDATE leader_term SET term = term WHERE scope = 'cluster' AND term = $1 AND holder = $2";
const READ_COUNTER: &str = "SELECT value FROM counters WHERE name = $1";
const RAISE_COUNTER: &str = "UPDATE counters SET value = $2 WHERE name = $1 AND value < $2";
const NEXT_OF_COUNTER: &str = "UPDATE counters SET value = value + $2 WHERE name = $1 RETURNING value";
const STEP_COUNTER: &str = "UPDATE counters SET value = $2 WHERE name = $1 AND value = $2 - 1";

pub(crate) async fn cluster_id(backend: &Backend) -> Result<ClusterId, StoreError> {
    let mut tx = backend.write().await?;
    tx.execute(NAME_CLUSTER, args![random_id()?]).await?;
    let mut row = tx.one(READ_CLUSTER, vec![]).await?.ok_or_else(|| missing("cluster id"))?;
    tx.commit().await?;
    row.parse("the cluster id")
}

fn random_id() -> Result<String, StoreError> {
    let failed = |e: std::io::Error| StoreError::Failed { cause: format!("/dev/urandom: {e}") };
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes)).map_err(failed)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn missing(what: &str) -> StoreError {
    StoreError::unreadable(what, "its row is missing")
}

pub(crate) async fn counter(tx: &mut Tx, name: &'static str) -> Result<u64, StoreError> {
    tx.one(READ_COUNTER, args![name]).await?.ok_or_else(|| missing(name))?.int()
}

/// Takes the next `count` numbers of a counter and gives the last of them.
pub(crate) async fn take_next(tx: &mut Tx, name: &'static str, count: u64) -> Result<u64, StoreError> {
    tx.one(NEXT_OF_COUNTER, args![name, count]).await?.ok_or_else(|| missing(name))?.int()
}

pub(crate) async fn raise(tx: &mut Tx, name: &'static str, to: u64) -> Result<(), StoreError> {
    tx.execute(RAISE_COUNTER, args![name, to]).await.map(drop)
}

/// Sets a counter to `to` when that is the next number, else says which would be.
pub(crate) async fn step(tx: &mut Tx, name: &'static str, to: u64) -> Result<Result<(), u64>, StoreError> {
    match tx.execute(STEP_COUNTER, args![name, to]).await? {
        0 => Ok(Err(counter(tx, name).await? + 1)),
        _ => Ok(Ok(())),
    }
}

pub(crate) async fn note_time(tx: &mut Tx, at: Timestamp) -> Result<(), StoreError> {
    raise(tx, "max_time", at.0).await
}

async fn held_term(tx: &mut Tx) -> Result<Option<(Term, Holder)>, StoreError> {
    match tx.one(READ_TERM, vec![]).await? {
        Some(mut row) => Ok(Some((Term(row.int()?), row.parse("the holder of the term")?))),
        None => Ok(None),
    }
}

/// Goes on only while `holder` holds `term`, until the transaction has ended.
pub(crate) async fn fence(tx: &mut Tx, term: Term, holder: &Holder) -> Result<(), CommitError> {
    if tx.execute(HOLD_TERM, args![term, holder]).await? == 1 {
        return Ok(());
    }
    Err(CommitError::StaleTerm { asked: (term, holder.clone()), held: held_term(tx).await? })
}

impl Store {
    /// Made at random when the store was.
    pub fn cluster_id(&self) -> &ClusterId {
        &self.0.cluster
    }

    /// Begins a new term: higher than every earlier one and than `seen`, the highest that any node has accepted,
    /// which is ahead of us after a backup was restored.
    pub async fn acquire_term(&self, holder: &Holder, seen: Term) -> Result<Term, StoreError> {
        let (store, holder) = (self.clone(), holder.clone());
        Self::finish(async move {
            let mut tx = store.0.backend.write().await?;
            let mut row =
                tx.one(RAISE_TERM, args![seen, &holder]).await?.ok_or_else(|| missing("the term"))?;
            tx.commit().await?;
            Ok(Term(row.int()?))
        })
        .await
    }

    pub async fn counters(&self) -> Result<Counters, StoreError> {
        let mut tx = self.0.backend.read().await?;
        Ok(Counters {
            generation: Generation(counter(&mut tx, "generation").await?),
            route_revision: RouteRevision(counter(&mut tx, "route_revision").await?),
            term: held_term(&mut tx).await?.map_or(Term(0), |(term, _)| term),
        })
    }

    /// The latest time of any commit, from which a clock goes on after a restart.
    pub async fn max_time(&self) -> Result<Timestamp, StoreError> {
        let mut tx = self.0.backend.read().await?;
        Ok(Timestamp(counter(&mut tx, "max_time").await?))
    }

    /// Notes a time that no commit has carried.
    pub async fn note_time(&self, at: Timestamp) -> Result<(), StoreError> {
        let store = self.clone();
        Self::finish(async move {
            let mut tx = store.0.backend.write().await?;
            note_time(&mut tx, at).await?;
            tx.commit().await
        })
        .await
    }
}
