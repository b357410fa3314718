//! The observation as others see it: complete, coalesced, with a sequence that rises across restarts.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use model::{
    BootId, InstanceId, NodeId, Timestamp,
    assignment::Stamp,
    observation::{Engine, InstanceReport, LostVolume, Observation, Stranger},
};
use tokio::sync::watch;

use crate::ledger::{self, files};

/// Sequence numbers are reserved in blocks, so that an observation costs no write.
const BLOCK: u64 = 1 << 20;

#[derive(Debug)]
pub struct Publisher {
    path: PathBuf,
    reserved: u64,
    next: Observation,
    tell: watch::Sender<Arc<Observation>>,
    dirty: bool,
    last: Instant,
}

impl Publisher {
    pub fn open(folder: &Path, node: NodeId, boot: BootId, now: Timestamp) -> Result<Self, ledger::Error> {
        let path = folder.join("sequence.json");
        // With the file lost, time stands in for it: it has risen by more than one node observes.
        let before = files::read::<u64>(&path).unwrap_or_default().unwrap_or(now.0 << 10);
        let first = Observation {
            node,
            boot,
            sequence: before,
            at: now,
            accepted: None,
            instances: BTreeMap::new(),
            lost_volumes: Vec::new(),
            strangers: Vec::new(),
            engine: None,
            complete: false,
        };
        let tell = watch::Sender::new(Arc::new(first.clone()));
        let mut publisher =
            Self { path, reserved: before, next: first, tell, dirty: true, last: Instant::now() };
        publisher.reserve()?;
        Ok(publisher)
    }

    fn reserve(&mut self) -> Result<(), ledger::Error> {
        files::write(&self.path, &(self.reserved + BLOCK), files::Durable::Yes)?;
        self.reserved += BLOCK;
        Ok(())
    }

    pub fn receiver(&self) -> watch::Receiver<Arc<Observation>> {
        self.tell.subscribe()
    }

    pub fn put(&mut self, report: Arc<InstanceReport>) {
        self.next.instances.insert(report.id.clone(), report);
        self.dirty = true;
    }

    pub fn remove(&mut self, id: &InstanceId) {
        self.dirty |= self.next.instances.remove(id).is_some();
    }

    pub fn accepted(&mut self, stamp: Stamp) {
        self.dirty |= self.next.accepted.as_ref() != Some(&stamp);
        self.next.accepted = Some(stamp);
    }

    pub fn strangers(&mut self, strangers: Vec<Stranger>) {
        self.dirty |= self.next.strangers != strangers;
        self.next.strangers = strangers;
    }

    pub fn lost_volumes(&mut self, lost: Vec<LostVolume>) {
        self.dirty |= self.next.lost_volumes != lost;
        self.next.lost_volumes = lost;
    }

    pub fn engine(&mut self, engine: Engine) {
        let engine = Some(engine);
        self.dirty |= self.next.engine != engine;
        self.next.engine = engine;
    }

    pub fn complete(&mut self, complete: bool) {
        self.dirty |= self.next.complete != complete;
        self.next.complete = complete;
    }

    pub fn is_complete(&self) -> bool {
        self.next.complete
    }

    pub fn touch(&mut self) {
        self.dirty = true;
    }

    /// How long until it may be published; `None`: there is nothing new.
    pub fn wait(&self) -> Option<Duration> {
        self.dirty.then(|| self.pause().saturating_sub(self.last.elapsed()))
    }

    /// Copying the map costs in proportion to its size, so a big node publishes less often.
    fn pause(&self) -> Duration {
        let count = u64::try_from(self.next.instances.len()).unwrap_or(u64::MAX);
        Duration::from_micros(count.saturating_mul(2)).min(Duration::from_millis(500))
    }

    pub fn publish(&mut self, now: Timestamp) {
        if self.next.sequence + 1 >= self.reserved
            && let Err(error) = self.reserve()
        {
            tracing::warn!(%error, "no observation is published until its sequence can be written down");
            return;
        }
        self.next.sequence += 1;
        self.next.at = now;
        self.tell.send_replace(Arc::new(self.next.clone()));
        self.dirty = false;
        self.last = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_rises_across_restarts_even_without_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut last = 0;
        for round in 0..4u64 {
            let boot = "b".parse().unwrap();
            let now = Timestamp(1_000_000 + round * 1000);
            let mut publisher = Publisher::open(dir.path(), "local".parse().unwrap(), boot, now).unwrap();
            for _ in 0..3 {
                publisher.publish(now);
                let sequence = publisher.receiver().borrow().sequence;
                assert!(sequence > last);
                last = sequence;
            }
            if round == 2 {
                std::fs::write(dir.path().join("sequence.json"), "").unwrap();
            }
        }
    }
}
