//! Cleaning up nodes: what is held there against what can be reached. Decided in `decide::collect`; asked for by people,
//! on schedule, and when a disk fills up.

use std::{fmt, sync::Arc, time::Duration};

use decide::collect::{self, Reachable, Schedule};
use futures_util::future::BoxFuture;
use model::{
    Millis, Timestamp,
    collect::{Asked, Collected, Held, Inventory, Sizes},
    event::{Event, Kind},
};

use crate::{Control, janitor};

/// One node's things, for whoever decides about them.
pub trait Collect: Send + Sync + fmt::Debug {
    /// `None`: the node has no engine and never had one.
    fn inventory(&self, sizes: Sizes) -> BoxFuture<'_, Option<Result<Inventory, String>>>;
    fn collect(&self, surplus: Vec<Held>) -> BoxFuture<'_, Vec<Collected>>;
    /// Bytes used, and in all, of the disk that fills up.
    fn disk(&self) -> BoxFuture<'_, Option<(u64, u64)>>;
}

#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum CollectError {
    #[error("nothing is collected while {0}")]
    Unknown(String),
    #[error("what is held cannot be told: {0}")]
    Inventory(String),
}

/// What nothing reaches, as it was read.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    read_at: Option<Timestamp>,
    held: Vec<Held>,
}

/// Asked for oftener, leftovers are told as they were.
const FRESH: Millis = Millis::secs(30);
/// With an engine that may hang.
const PATIENCE: Duration = Duration::from_secs(2);

impl Control {
    /// Who holds the things of this machine's node.
    pub fn collects_by(&self, collector: impl Collect + 'static, schedule: Schedule, look_every: Duration) {
        if self.0.collector.set(Arc::new(collector)).is_ok() {
            tokio::spawn(on_schedule(self.clone(), schedule, look_every));
        }
    }

    /// Removes what nothing reaches, or says what would go.
    pub async fn collect(&self, asked: Asked) -> Result<Vec<Collected>, CollectError> {
        let Some(collector) = self.0.collector.get() else { return Ok(Vec::new()) };
        // What is kept beyond `retain` until the next time is no reason to keep an image.
        janitor::forget(&self.0).await.map_err(|error| CollectError::Unknown(error.to_string()))?;
        let surplus = self.surplus(&**collector, asked, Sizes::Measured).await?;
        if asked.dry_run {
            let would = |held: Held| Collected {
                kind: held.kind,
                name: held.name,
                bytes: held.bytes,
                kept_because: None,
            };
            return Ok(surplus.into_iter().map(would).collect());
        }
        let collected = collector.collect(surplus).await;
        self.0.leftovers.lock().await.read_at = None;
        self.tell_collected(&collected).await;
        Ok(collected)
    }

    /// What a collection with volumes would remove, as of half a minute ago at most. While that cannot be told, what
    /// was told last.
    pub async fn leftovers(&self) -> Vec<Held> {
        let Some(collector) = self.0.collector.get() else { return Vec::new() };
        let mut known = self.0.leftovers.lock().await;
        let now = self.now();
        if known.read_at.is_none_or(|at| now.since(at) >= FRESH) {
            known.read_at = Some(now);
            let everything = Asked { dry_run: true, volumes: true };
            let surplus = self.surplus(&**collector, everything, Sizes::LeftOut);
            if let Ok(Ok(held)) = tokio::time::timeout(PATIENCE, surplus).await {
                known.held = held;
            }
        }
        known.held.clone()
    }

    async fn surplus(
        &self,
        collector: &dyn Collect,
        asked: Asked,
        sizes: Sizes,
    ) -> Result<Vec<Held>, CollectError> {
        let inventory = match collector.inventory(sizes).await {
            None => return Ok(Vec::new()),
            Some(Err(cause)) => return Err(CollectError::Inventory(cause)),
            Some(Ok(inventory)) => inventory,
        };
        // Read after the inventory: what was declared meanwhile is reached, and what is used meanwhile is refused.
        let cluster = self.store().cluster_id().clone();
        let (reachable, incomplete) = self.with_brain(|brain| {
            let worlds = brain.worlds().map(|world| &**world);
            (Reachable::of(&cluster, worlds), brain.incomplete.clone())
        });
        if let Some(unknown) = reachable.unknown.clone().or(incomplete) {
            return Err(CollectError::Unknown(unknown));
        }
        Ok(collect::surplus(&inventory, &reachable, asked))
    }

    async fn tell_collected(&self, collected: &[Collected]) {
        let gone: Vec<&Collected> = collected.iter().filter(|one| one.kept_because.is_none()).collect();
        if gone.is_empty() {
            return;
        }
        let bytes: u64 = gone.iter().map(|one| one.bytes).sum();
        let names: Vec<String> = gone.iter().map(|one| format!("{} {}", one.kind.word(), one.name)).collect();
        let message = format!(
            "{} things that nothing reaches were removed, {bytes} bytes: {}",
            gone.len(),
            names.join(", ")
        );
        let event = Event { kind: Kind::Collected, service: None, instance: None, deployment: None, message };
        self.node_events(vec![event]).await;
    }
}

async fn on_schedule(control: Control, schedule: Schedule, look_every: Duration) {
    let mut last = control.now();
    let mut was_full = false;
    loop {
        tokio::time::sleep(look_every).await;
        let Some(collector) = control.0.collector.get() else { return };
        let full = collector.disk().await.is_some_and(|(used, total)| schedule.is_full(used, total));
        if schedule.is_due(control.now().since(last), was_full, full) {
            if let Err(error) = control.collect(Asked::default()).await {
                tracing::warn!(%error, "nothing was collected; it is tried again at the next look");
                continue;
            }
            last = control.now();
        }
        was_full = full;
    }
}
