//! Events in one sequence, for people, scripts and streams.

use std::collections::BTreeMap;

use model::{
    DeploymentId, ServiceKey, Timestamp,
    event::{Event, Kind, Recorded},
};

use crate::{
    Store,
    backend::{Backend, Row, Tx, args},
    error::StoreError,
    meta,
};

/// Which events to read. The default is all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    pub service: Option<ServiceKey>,
}

const INSERT: &str = "INSERT INTO events (seq, at, service, kind, content) VALUES ($1, $2, $3, $4, $5)";
const AFTER: &str = "SELECT seq, at, content FROM events WHERE seq > $1 ORDER BY seq LIMIT $2";
const AFTER_OF: &str =
    "SELECT seq, at, content FROM events WHERE service = $3 AND seq > $1 ORDER BY seq LIMIT $2";
/// The newest of one kind for each declared service, each found by the index and not by reading those before it.
pub(crate) const NEWEST: &str = "SELECT e.seq, e.at, e.content FROM services s JOIN events e ON e.seq = \
     (SELECT MAX(k.seq) FROM events k WHERE k.service = s.key AND k.kind = $1) WHERE s.service IS NOT NULL";
/// Not by an index: it is asked for when the deployment itself is gone.
const NAMING: &str = "SELECT seq, at, content FROM events WHERE content LIKE $1 ORDER BY seq LIMIT $2";
/// A deployment has a few dozen at most.
const NAMED: u64 = 1000;

/// Appends in the caller's transaction; gives the sequence of the last one, if any.
pub(crate) async fn append(tx: &mut Tx, at: Timestamp, events: &[Event]) -> Result<Option<u64>, StoreError> {
    let count = events.len() as u64;
    if count == 0 {
        return Ok(None);
    }
    let last = meta::take_next(tx, "event_seq", count).await?;
    for (seq, event) in (last - count + 1..).zip(events) {
        let service = event.service.as_ref().map(ToString::to_string);
        tx.execute(INSERT, args![seq, at, service, event.kind.word(), encode(event)?]).await?;
    }
    Ok(Some(last))
}

/// A value's JSON. That it has one is a property of our types; if not, nothing is written.
pub(crate) fn encode<T: serde::Serialize + ?Sized>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::Failed { cause: format!("cannot encode: {error}") })
}

fn recorded(mut row: Row) -> Result<Recorded, StoreError> {
    Ok(Recorded { seq: row.int()?, at: Timestamp(row.int()?), event: row.json("an event")? })
}

pub(crate) async fn latest(backend: &Backend) -> Result<u64, StoreError> {
    meta::counter(&mut backend.read().await?, "event_seq").await
}

impl Store {
    pub async fn latest_event_seq(&self) -> Result<u64, StoreError> {
        latest(&self.0.backend).await
    }

    /// At most `limit` events after `seq`, oldest first. One that cannot be read is left out and logged: it must
    /// not stop the stream.
    pub async fn events_after(
        &self,
        seq: u64,
        filter: &EventFilter,
        limit: u32,
    ) -> Result<Vec<Recorded>, StoreError> {
        let mut tx = self.0.backend.read().await?;
        let rows = match &filter.service {
            None => tx.all(AFTER, args![seq, u64::from(limit)]).await?,
            Some(key) => tx.all(AFTER_OF, args![seq, u64::from(limit), key]).await?,
        };
        let readable =
            |row| recorded(row).inspect_err(|error| tracing::warn!(%error, after = seq, "event left out"));
        Ok(rows.into_iter().filter_map(|row| readable(row).ok()).collect())
    }

    /// The newest event of these kinds for each declared service, since a service of its name was last purged. One that
    /// cannot be read gives way to another kind's.
    pub async fn newest_events(&self, kinds: &[Kind]) -> Result<Vec<Recorded>, StoreError> {
        let mut tx = self.0.backend.read().await?;
        let mut newest: BTreeMap<ServiceKey, Recorded> = BTreeMap::new();
        for kind in kinds.iter().chain([&Kind::ServicePurged]) {
            for row in tx.all(NEWEST, args![kind.word()]).await? {
                let Ok(found) = recorded(row) else { continue };
                let Some(service) = found.event.service.clone() else { continue };
                let known = newest.get(&service).map_or(0, |known| known.seq);
                if found.seq > known {
                    newest.insert(service, found);
                }
            }
        }
        Ok(newest.into_values().filter(|found| found.event.kind != Kind::ServicePurged).collect())
    }

    /// What happened to a deployment, oldest first; also when it has gone with its service.
    pub async fn events_of_deployment(&self, id: &DeploymentId) -> Result<Vec<Recorded>, StoreError> {
        let mut tx = self.0.backend.read().await?;
        let rows = tx.all(NAMING, args![format!("%\"{id}\"%"), NAMED]).await?;
        let events = rows.into_iter().filter_map(|row| recorded(row).ok());
        Ok(events.filter(|recorded| recorded.event.deployment.as_ref() == Some(id)).collect())
    }

    /// Records events that belong to no other commit. Gives the sequence of the latest event.
    pub async fn append_events(&self, events: Vec<Event>, at: Timestamp) -> Result<u64, StoreError> {
        let store = self.clone();
        Self::finish(async move {
            let mut tx = store.0.backend.write().await?;
            let last = append(&mut tx, at, &events).await?;
            meta::note_time(&mut tx, at).await?;
            let latest = meta::counter(&mut tx, "event_seq").await?;
            tx.commit().await?;
            if last.is_some() {
                store.0.feed.events_until(latest);
            }
            Ok(latest)
        })
        .await
    }
}
