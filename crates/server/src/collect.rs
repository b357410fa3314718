//! Cleaning up nodes: what is held there against what can be reached. Decided in `decide::collect`; asked for by people,
//! on schedule, and when a disk fills up.

use std::{fmt, sync::Arc, time::Duration};

use decide::collect::{self, Reachable};
use futures_util::future::BoxFuture;
use model::{
    collect::{Asked, Collected, Held, Inventory},
    event::{Event, Kind},
};

use crate::Control;

/// One node's things, for whoever decides about them.
pub trait Collect: Send + Sync + fmt::Debug {
    /// `None`: the node has no engine and never had one.
    fn inventory(&self) -> BoxFuture<'_, Option<Result<Inventory, String>>>;
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

/// Without a full disk.
const EVERY: Duration = Duration::from_secs(3600);
/// Between looks at the disk.
const LOOK: Duration = Duration::from_secs(60);

impl Control {
    /// Who holds the things of this machine's node.
    pub fn collects_by(&self, collector: impl Collect + 'static) {
        if self.0.collector.set(Arc::new(collector)).is_ok() {
            tokio::spawn(on_schedule(self.clone()));
        }
    }

    /// Removes what nothing reaches, or says what would go.
    pub async fn collect(&self, asked: Asked) -> Result<Vec<Collected>, CollectError> {
        let Some(collector) = self.0.collector.get() else { return Ok(Vec::new()) };
        let inventory = match collector.inventory().await {
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
        let surplus = collect::surplus(&inventory, &reachable, asked);
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
        self.tell_collected(&collected).await;
        Ok(collected)
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

/// At once when the disk is nearly full; otherwise every hour. A disk that stays full is not cleaned without pause.
async fn on_schedule(control: Control) {
    let mut since = Duration::ZERO;
    let mut was_full = false;
    loop {
        tokio::time::sleep(LOOK).await;
        since += LOOK;
        let Some(collector) = control.0.collector.get() else { return };
        let full = collector.disk().await.is_some_and(|(used, total)| collect::is_full(used, total));
        if since >= EVERY || (full && !was_full) {
            since = Duration::ZERO;
            if let Err(error) = control.collect(Asked::default()).await {
                tracing::info!(%error, "nothing was collected");
            }
        }
        was_full = full;
    }
}
