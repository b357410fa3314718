//! A machine that runs instances.

use serde::{Deserialize, Serialize};

use crate::{NodeId, Timestamp};

/// A node as the server knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub id: NodeId,
    pub state: NodeState,
    /// Host ports that other programs hold or that are kept from the planner.
    pub reserved_ports: Vec<u16>,
}

/// That a node is being drained, as somebody asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    pub since: Timestamp,
    pub by: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    Up,
    /// Takes nothing new; what it has moves away.
    Draining,
    /// Not heard of since then: what it runs is unknown.
    Silent {
        since: Timestamp,
    },
    /// Declared lost: what it had is replaced elsewhere.
    Lost {
        since: Timestamp,
    },
}
