//! Finds an instance's output, and keeps it from growing without bound.

use std::path::PathBuf;

use model::InstanceId;

use super::{Agent, Event};
use crate::{ledger::Folder, logs};

/// Where an instance's output is.
#[derive(Debug, Clone)]
pub struct LogSource {
    /// Oldest first; the last one is written.
    pub files: Vec<PathBuf>,
    /// Bytes taken off the front of the last one since the node started.
    pub discarded: u64,
    /// Whether more may come.
    pub open: bool,
    /// Its engine keeps it, by this id.
    pub container: Option<String>,
}

impl Agent {
    pub(super) fn log_source(&self, id: &InstanceId) -> Option<LogSource> {
        if let Some(instance) = self.instances.get(id).filter(|instance| instance.held.is_some()) {
            let container = instance.record().and_then(|record| record.id.clone());
            return Some(LogSource { files: Vec::new(), discarded: 0, open: true, container });
        }
        let folder = Folder::new(&self.cx.instances(), id);
        if folder.log().exists() {
            let files = logs::all(&folder.log(), self.cx.config.logs.files);
            let discarded = self.log_cuts.get(id).copied().unwrap_or_default();
            return Some(LogSource {
                files,
                discarded,
                open: self.instances.contains_key(id),
                container: None,
            });
        }
        if let Some(kept) = self.cx.kept.find(id) {
            return Some(LogSource { files: vec![kept], discarded: 0, open: false, container: None });
        }
        // It has not written anything yet.
        self.instances.contains_key(id).then(|| LogSource {
            files: vec![folder.log()],
            discarded: 0,
            open: true,
            container: None,
        })
    }

    pub(super) fn look_at_logs(&mut self) {
        if self.looking_at_logs {
            return;
        }
        let alive = self.instances.values().filter(|instance| instance.live().is_some());
        let mut targets: Vec<_> =
            alive.map(|instance| (instance.id.clone(), instance.folder.log())).collect();
        let limit = self.cx.config.logs.bytes;
        if targets.len() <= super::FEW_LOOKS {
            targets.retain(|(_, path)| logs::is_long(path, limit));
        }
        if targets.is_empty() {
            return;
        }
        self.looking_at_logs = true;
        let (limits, events) = (self.cx.config.logs, self.cx.events.clone());
        tokio::task::spawn_blocking(move || {
            for (id, path) in targets {
                match logs::cut(&path, limits.bytes, limits.files) {
                    Ok(Some(logs::Cut(bytes))) => {
                        let _ = events.blocking_send(Event::LogCut { id, bytes });
                    }
                    Ok(None) => {}
                    Err(error) => tracing::warn!(instance = %id, %error, "its output could not be cut"),
                }
            }
            let _ = events.blocking_send(Event::LogsLooked);
        });
    }
}
