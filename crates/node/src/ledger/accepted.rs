//! The high-water mark of accepted assignments: durable before any effect of what it names (I2).

use std::{path::PathBuf, sync::Arc};

use decide::ledger::{self, Held, Refused};
use model::{
    ClusterId, Digest, NodeId,
    assignment::{Assignment, Stamp},
};
use serde::{Deserialize, Serialize};

use super::{
    Error,
    files::{self, Durable},
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub stamp: Stamp,
    /// Tells the same assignment from another one with the same stamp.
    pub content: Digest,
}

/// Why an assignment has no effect.
#[derive(Debug, thiserror::Error)]
pub enum AssignError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the assignment cannot be written down, so it is not acted on: {0}")]
    Ledger(#[from] Error),
    #[error("the node has been shut down")]
    Ended,
}

/// Takes or refuses assignments, one at a time.
#[derive(Debug)]
pub struct Acceptor {
    path: PathBuf,
    held: Option<Accepted>,
    /// The agent has been told of what is held. False after a start: its folders may lag behind.
    told: bool,
}

/// What the caller does with an assignment that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    pub accepted: ledger::Accepted,
    /// The agent must act on it.
    pub act: bool,
}

impl Acceptor {
    /// An unreadable mark stops the start: without it a stale assignment could not be told from a new one.
    pub fn open(folder: &std::path::Path) -> Result<Self, Error> {
        let path = folder.join("accepted.json");
        Ok(Self { held: files::read(&path)?, path, told: false })
    }

    /// The cluster whose assignments the node of this data folder takes; `None` when it has taken none.
    pub fn cluster_of(data: &std::path::Path) -> Result<Option<ClusterId>, Error> {
        Ok(Self::open(&crate::config::folder(data))?.held.map(|held| held.cluster))
    }

    pub fn held(&self) -> Option<&Accepted> {
        self.held.as_ref()
    }

    /// Decides, and writes a newer mark down. Blocks for two fsyncs.
    pub fn accept(
        &mut self,
        cluster: &ClusterId,
        node: &NodeId,
        offered: &Assignment,
    ) -> Result<Decision, AssignError> {
        ledger::is_for(cluster, node, offered)?;
        let content = digest(offered);
        let held = self.held.as_ref();
        let same = || held.is_some_and(|held| held.content == content);
        let marks = held.map(|h| Held { cluster: &h.cluster, node: &h.node, stamp: &h.stamp });
        let accepted = ledger::accept(marks, offered, same)?;
        match accepted {
            ledger::Accepted::Again => {
                Ok(Decision { accepted, act: !std::mem::replace(&mut self.told, true) })
            }
            ledger::Accepted::Newer => {
                let mark = Accepted {
                    cluster: cluster.clone(),
                    node: node.clone(),
                    stamp: offered.stamp.clone(),
                    content,
                };
                files::write(&self.path, &mark, Durable::Yes)?;
                self.held = Some(mark);
                self.told = true;
                Ok(Decision { accepted, act: true })
            }
        }
    }
}

/// A release stands for its content, so that 10⁵ instances are compared without encoding each of them whole.
fn digest(assignment: &Assignment) -> Digest {
    let instances: Vec<_> = assignment
        .instances
        .values()
        .map(Arc::as_ref)
        .map(|a| (&a.id, &a.release, &a.deployment, a.current, &a.restart, &a.drift, &a.attempts))
        .collect();
    Digest::of_value(&(instances, &assignment.held))
}
