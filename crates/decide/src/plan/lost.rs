//! Step 2: instances of nodes that are declared lost, are being drained or refuse what they are assigned. What a lost
//! node had is given up and replaced elsewhere; a node that is only silent keeps it, because what it runs is unknown. What
//! leaves a drained node is replaced like an outdated one; here is told what has nowhere to go.

use model::{
    instance::RetireReason,
    node::NodeState,
    plan::StepReport,
    reason::{Drained, Waiting},
};

use super::{classify::Class, place, work::Work};

pub fn step(work: &mut Work<'_>) -> StepReport {
    let mut report = StepReport { changed: Vec::new(), waiting: work.world.refusals().collect() };
    let placed: Vec<_> = work
        .placements()
        .filter(|p| !matches!(work.classes.get(&p.id), Some(Class::Leaving | Class::Kept)))
        .map(|p| (p.id.clone(), p.node.clone()))
        .collect();
    for (id, node) in placed {
        match work.cluster.nodes.get(&node).map(|node| node.state) {
            Some(NodeState::Lost { .. }) => {
                report.changed.extend(work.withdraw(&id, RetireReason::NodeLost, Drained::Unrouted));
            }
            Some(NodeState::Silent { since }) => report.waiting.push(Waiting::NodeUnknown { node, since }),
            Some(NodeState::Draining) => {
                if let Err(rejected) = place::elsewhere(work, &node) {
                    report.waiting.push(Waiting::NowhereToGo { instance: id, node, rejected });
                }
            }
            Some(NodeState::Up) | None => {}
        }
    }
    report
}
