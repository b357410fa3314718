//! Step 2: instances of nodes that are declared lost. They are given up and replaced elsewhere; a node that is only
//! silent keeps them, because what it runs is unknown.

use model::{
    instance::RetireReason,
    node::NodeState,
    plan::StepReport,
    reason::{Drained, Waiting},
};

use super::{classify::Class, work::Work};

pub fn step(work: &mut Work<'_>) -> StepReport {
    let mut report = StepReport::default();
    let placed: Vec<_> = work
        .placements()
        .filter(|p| work.classes.get(&p.id) != Some(&Class::Leaving))
        .map(|p| (p.id.clone(), p.node.clone()))
        .collect();
    for (id, node) in placed {
        match work.cluster.nodes.get(&node).map(|node| node.state) {
            Some(NodeState::Lost { .. }) => {
                report.changed.extend(work.withdraw(&id, RetireReason::NodeLost, Drained::Unrouted));
            }
            Some(NodeState::Silent { since }) => report.waiting.push(Waiting::NodeUnknown { node, since }),
            Some(NodeState::Up | NodeState::Draining) | None => {}
        }
    }
    report
}
