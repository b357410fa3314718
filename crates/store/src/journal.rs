//! The journal: which world the planner saw of a service, what it decided and why, so that it can be explained
//! and replayed. Equal worlds are stored once.

use model::{
    Digest, ServiceKey, Timestamp,
    plan::{Decision, Report, ServicePlan},
};

use crate::{
    Store,
    backend::{Row, Tx, args},
    error::StoreError,
    event::encode,
    meta,
};

/// Cheap enough for every commit; worlds shrink to about a fifth.
const LEVEL: i32 = 1;
/// No world is larger; a damaged one must not fill the memory.
const MAX_WORLD: usize = 256 << 20;

/// One pass over one service, to be written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    pub key: ServiceKey,
    pub at: Timestamp,
    pub world_digest: Digest,
    /// The world, encoded; the store does not look into it.
    pub world: Vec<u8>,
    /// `None` when nothing was decided.
    pub decision: Option<Decision>,
    pub report: Report,
}

/// A recorded pass without its world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalLine {
    pub seq: u64,
    pub key: ServiceKey,
    pub at: Timestamp,
    pub world_digest: Digest,
    pub decision: Option<Decision>,
    pub report: Report,
}

/// A recorded pass with all that a replay needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journalled {
    pub line: JournalLine,
    pub world: Vec<u8>,
}

/// An entry as it is written.
pub(crate) struct Packed {
    key: ServiceKey,
    at: Timestamp,
    world_digest: Digest,
    world: Vec<u8>,
    decision: Option<String>,
    report: String,
}

macro_rules! select_lines {
    ($rest:literal) => {
        concat!("SELECT seq, service, at, world, decision, report FROM journal ", $rest)
    };
}
const INSERT: &str =
    "INSERT INTO journal (seq, service, at, world, decision, report) VALUES ($1, $2, $3, $4, $5, $6)";
const INSERT_WORLD: &str =
    "INSERT INTO worlds (digest, content) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING";
const READ: &str = select_lines!("WHERE seq = $1");
const READ_WORLD: &str = "SELECT content FROM worlds WHERE digest = $1";
const LATEST: &str = select_lines!("WHERE service = $1 ORDER BY seq DESC LIMIT 1");
const HISTORY: &str = select_lines!("WHERE service = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3");
const LAST_DECISION: &str =
    "SELECT decision FROM journal WHERE service = $1 AND decision IS NOT NULL ORDER BY seq DESC LIMIT 1";

pub(crate) fn pack(entries: Vec<JournalEntry>) -> Result<Vec<Packed>, StoreError> {
    entries.into_iter().map(pack_one).collect()
}

fn pack_one(entry: JournalEntry) -> Result<Packed, StoreError> {
    let JournalEntry { key, at, world_digest, world, decision, report } = entry;
    let failed =
        |error: std::io::Error| StoreError::Failed { cause: format!("cannot compress a world: {error}") };
    let world = zstd::bulk::compress(&world, LEVEL).map_err(failed)?;
    let decision = decision.as_ref().map(encode).transpose()?;
    Ok(Packed { key, at, world_digest, world, decision, report: encode(&report)? })
}

/// Appends in the caller's transaction; gives the sequence of the last line, if any.
pub(crate) async fn append(tx: &mut Tx, entries: &[Packed]) -> Result<Option<u64>, StoreError> {
    let count = entries.len() as u64;
    if count == 0 {
        return Ok(None);
    }
    let last = meta::take_next(tx, "journal_seq", count).await?;
    for (seq, entry) in (last - count + 1..).zip(entries) {
        let Packed { key, at, world_digest, world, decision, report } = entry;
        tx.execute(INSERT_WORLD, args![world_digest, world.clone()]).await?;
        let row = args![seq, key, *at, world_digest, decision.clone(), report.as_str()];
        tx.execute(INSERT, row).await?;
    }
    Ok(Some(last))
}

fn line(mut row: Row) -> Result<JournalLine, StoreError> {
    let seq = row.int()?;
    let unreadable = |error: serde_json::Error| StoreError::damaged(format!("journal line {seq}"), &error);
    Ok(JournalLine {
        seq,
        key: row.parse("the service of a journal line")?,
        at: Timestamp(row.int()?),
        world_digest: row.parse("the world of a journal line")?,
        decision: row
            .maybe_text()?
            .map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(unreadable)?,
        report: row.json("the report of a journal line")?,
    })
}

/// The plan of a service as it was last decided, where that was written down and can be read.
pub(crate) async fn last_plan(tx: &mut Tx, key: &str) -> Result<Option<ServicePlan>, StoreError> {
    let Some(mut row) = tx.one(LAST_DECISION, args![key]).await? else { return Ok(None) };
    let decision: Result<Decision, StoreError> = row.json("a decision of the journal");
    Ok(decision.ok().filter(|decision| !decision.purge).map(|decision| decision.plan))
}

async fn world(tx: &mut Tx, digest: &Digest) -> Result<Vec<u8>, StoreError> {
    let subject = || format!("world {}", digest.short());
    let row = tx.one(READ_WORLD, args![digest]).await?;
    let packed = row.ok_or_else(|| StoreError::unreadable(subject(), "it is missing"))?.bytes()?;
    let unpack = zstd::stream::read::Decoder::new(packed.as_slice()).and_then(|decoder| {
        let mut world = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(decoder, MAX_WORLD as u64), &mut world)?;
        Ok(world)
    });
    unpack.map_err(|error| StoreError::unreadable(subject(), error))
}

impl Store {
    /// Writes down a pass that decided nothing, but whose report is new. Gives its sequence.
    pub async fn append_journal(&self, entry: JournalEntry) -> Result<u64, StoreError> {
        let store = self.clone();
        Self::finish(async move {
            let packed = pack(vec![entry])?;
            let mut tx = store.0.backend.write().await?;
            let seq = append(&mut tx, &packed).await?;
            for entry in &packed {
                meta::note_time(&mut tx, entry.at).await?;
            }
            tx.commit().await?;
            Ok(seq.unwrap_or_default())
        })
        .await
    }

    pub async fn journal_latest(&self, key: &ServiceKey) -> Result<Option<JournalLine>, StoreError> {
        self.0.backend.read().await?.one(LATEST, args![key]).await?.map(line).transpose()
    }

    /// One pass with its world, or `None` when it was never recorded or is no longer kept.
    pub async fn journal(&self, seq: u64) -> Result<Option<Journalled>, StoreError> {
        let mut tx = self.0.backend.read().await?;
        let Some(row) = tx.one(READ, args![seq]).await? else { return Ok(None) };
        let line = line(row)?;
        let world = world(&mut tx, &line.world_digest).await?;
        Ok(Some(Journalled { line, world }))
    }

    /// At most `limit` passes of a service, newest first, those before `before` when it is given. One that cannot be
    /// read is left out and logged: the others still explain.
    pub async fn journal_of(
        &self,
        key: &ServiceKey,
        limit: u32,
        before: Option<u64>,
    ) -> Result<Vec<JournalLine>, StoreError> {
        let mut tx = self.0.backend.read().await?;
        let rows = tx.all(HISTORY, args![key, before.unwrap_or(u64::MAX), u64::from(limit)]).await?;
        let readable = |row| line(row).inspect_err(|error| tracing::warn!(%error, %key, "left out"));
        Ok(rows.into_iter().filter_map(|row| readable(row).ok()).collect())
    }
}
