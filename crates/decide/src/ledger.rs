//! Whether a node accepts an assignment. An assignment older than what was accepted has no effect (I2), whoever
//! sends it and however late it comes.

use crate::planted::Bug;
use model::{
    ClusterId, NodeId,
    assignment::{Assignment, Stamp},
};

/// What was accepted last, durably.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held<'a> {
    pub cluster: &'a ClusterId,
    pub node: &'a NodeId,
    pub stamp: &'a Stamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// Write it down durably, then act on it.
    Newer,
    /// The same again: nothing to do.
    Again,
}

#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    #[error("the assignment is of cluster {offered} for node {offered_node}, this is {node} of {cluster}")]
    OtherOwner { cluster: ClusterId, node: NodeId, offered: ClusterId, offered_node: NodeId },
    #[error("STALE_TERM: term {offered} is older than the accepted term {}", .held.term)]
    StaleTerm { offered: model::Term, held: Stamp },
    #[error("STALE_TERM: {offered} is a second holder of term {}, which is {}'s", .held.term, .held.holder)]
    OtherHolder { offered: model::Holder, held: Stamp },
    #[error("generation {offered} is older than the accepted generation {}", .held.generation)]
    StaleGeneration { offered: model::Generation, held: Stamp },
    #[error("generation {} was accepted with other content", .held.generation)]
    ContentMismatch { held: Stamp },
}

/// Whether an assignment is meant for this node at all; asked also where nothing has been accepted yet.
pub fn is_for(cluster: &ClusterId, node: &NodeId, offered: &Assignment) -> Result<(), Refused> {
    if (cluster, node) == (&offered.cluster, &offered.node) {
        return Ok(());
    }
    Err(Refused::OtherOwner {
        cluster: cluster.clone(),
        node: node.clone(),
        offered: offered.cluster.clone(),
        offered_node: offered.node.clone(),
    })
}

/// Decides about an offered assignment. `same_content` is asked only where the stamps are equal.
pub fn accept(
    held: Option<Held<'_>>,
    offered: &Assignment,
    same_content: impl FnOnce() -> bool,
) -> Result<Accepted, Refused> {
    let Some(Held { cluster, node, stamp: held }) = held else { return Ok(Accepted::Newer) };
    let stamp = &offered.stamp;
    is_for(cluster, node, offered)?;
    // The planted bug that the simulator must find: a node that takes whatever comes.
    if Bug::AcceptStale.is_planted() {
        return Ok(Accepted::Newer);
    }
    if stamp.term < held.term {
        return Err(Refused::StaleTerm { offered: stamp.term, held: held.clone() });
    }
    if stamp.term == held.term && stamp.holder != held.holder {
        return Err(Refused::OtherHolder { offered: stamp.holder.clone(), held: held.clone() });
    }
    // Generations rise across terms too, so an older one is stale even from a newer term.
    if stamp.generation < held.generation {
        return Err(Refused::StaleGeneration { offered: stamp.generation, held: held.clone() });
    }
    if stamp == held {
        return if same_content() {
            Ok(Accepted::Again)
        } else {
            Err(Refused::ContentMismatch { held: held.clone() })
        };
    }
    Ok(Accepted::Newer)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use model::{Generation, Term};

    use super::*;

    fn stamp(term: u64, holder: &str, generation: u64) -> Stamp {
        Stamp { term: Term(term), holder: holder.parse().unwrap(), generation: Generation(generation) }
    }

    fn offer(held: &Stamp, offered: Stamp, same: bool) -> Result<Accepted, Refused> {
        let (cluster, node): (ClusterId, NodeId) = ("cluster01".parse().unwrap(), "local".parse().unwrap());
        let offered = Assignment {
            cluster: cluster.clone(),
            node: node.clone(),
            stamp: offered,
            instances: BTreeMap::new(),
            held: BTreeSet::new(),
        };
        accept(Some(Held { cluster: &cluster, node: &node, stamp: held }), &offered, || same)
    }

    #[test]
    fn only_what_is_newer_is_accepted() {
        let held = stamp(5, "a", 10);
        for (offered, same, accepted) in [
            (stamp(5, "a", 11), false, Some(Accepted::Newer)),
            (stamp(6, "b", 11), false, Some(Accepted::Newer)),
            (stamp(6, "b", 10), false, Some(Accepted::Newer)),
            (stamp(5, "a", 10), true, Some(Accepted::Again)),
            (stamp(5, "a", 10), false, None),
            (stamp(5, "b", 11), false, None),
            (stamp(4, "z", 99), false, None),
            (stamp(5, "a", 9), false, None),
            (stamp(6, "b", 9), false, None),
        ] {
            assert_eq!(offer(&held, offered.clone(), same).ok(), accepted, "{offered:?}");
        }
    }

    #[test]
    fn an_assignment_for_another_node_or_cluster_is_refused_even_as_the_first() {
        let (cluster, node): (ClusterId, NodeId) = ("cluster01".parse().unwrap(), "local".parse().unwrap());
        let offered = Assignment {
            cluster: cluster.clone(),
            node: node.clone(),
            stamp: stamp(1, "a", 1),
            instances: BTreeMap::new(),
            held: BTreeSet::new(),
        };
        assert_eq!(is_for(&cluster, &node, &offered), Ok(()));
        for (cluster, node) in [("cluster02", "local"), ("cluster01", "other")] {
            assert!(is_for(&cluster.parse().unwrap(), &node.parse().unwrap(), &offered).is_err());
        }
    }
}
