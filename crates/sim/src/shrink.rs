//! The shortest story that still fails: inputs are left out as long as the same invariant breaks, then nodes and edges.

use crate::{
    Options, Outcome, Story, play,
    story::{Fault, Input, Link, Size, What},
};

/// Drops what the violation does not need. The outcome is that of the story returned.
pub fn shrink(story: &Story, options: &Options) -> (Story, Outcome) {
    let outcome = play(story, options);
    let Some(invariant) = outcome.violation.as_ref().map(|violation| violation.invariant) else {
        return (story.clone(), outcome);
    };
    let mut shortest = (story.clone(), outcome);
    let mut fails = |shorter: Story| {
        let tried = play(&shorter, options);
        let same = tried.violation.as_ref().is_some_and(|violation| violation.invariant == invariant);
        if same {
            shortest = (shorter, tried);
        }
        same
    };
    let inputs = least(&story.inputs, |inputs| fails(Story { inputs: inputs.to_vec(), ..story.clone() }));
    for size in smaller(story.size, &inputs) {
        if fails(Story { inputs: inputs.clone(), size, ..story.clone() }) {
            break;
        }
    }
    shortest
}

/// A part of all, in their order, that has what is asked for while no one of it can be left out. All of them have it.
fn least<T: Clone>(all: &[T], mut has: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut least = all.to_vec();
    let mut size = (least.len() / 2).max(1);
    loop {
        let mut dropped = false;
        let mut at = 0;
        while at < least.len() {
            let mut fewer = least.clone();
            fewer.drain(at..(at + size).min(least.len()));
            if has(&fewer) {
                (least, dropped) = (fewer, true);
            } else {
                at += size;
            }
        }
        if size == 1 && !dropped {
            return least;
        }
        if !dropped {
            size = (size / 2).max(1);
        }
    }
}

/// Fewer nodes and edges that still have all that the faults are done to; the smallest first.
fn smaller(size: Size, inputs: &[Input]) -> Vec<Size> {
    let (mut nodes, mut edges) = (1, 1);
    for input in inputs {
        let (node, edge) = named(&input.what);
        nodes = nodes.max(node.map_or(0, |node| node + 1));
        edges = edges.max(edge.map_or(0, |edge| edge + 1));
    }
    let all =
        (nodes..=size.nodes).flat_map(|nodes| (edges..=size.edges).map(move |edges| Size { nodes, edges }));
    all.filter(|smaller| *smaller != size).collect()
}

/// The node and the edge that an input names.
fn named(what: &What) -> (Option<usize>, Option<usize>) {
    let What::Fault(fault) = what else { return (None, None) };
    match *fault {
        Fault::NodeCrash { node, .. }
        | Fault::Reboot { node, .. }
        | Fault::LedgerLost { node }
        | Fault::Drained { node, .. }
        | Fault::EngineHangs { node, .. }
        | Fault::EngineEnds { node, .. }
        | Fault::EngineManner { node, .. } => (Some(node), None),
        Fault::EdgeRestart { edge, .. } => (None, Some(edge)),
        Fault::Lossy { link, .. }
        | Fault::Delayed { link, .. }
        | Fault::Repeating { link, .. }
        | Fault::Cut { link, .. } => match link {
            Link::ServerToNode(node) | Link::NodeToServer(node) => (Some(node), None),
            Link::ServerToEdge(edge) | Link::EdgeToServer(edge) => (None, Some(edge)),
        },
        Fault::ServerCrash { .. }
        | Fault::CrashAtCommit { .. }
        | Fault::UnknownOutcome { .. }
        | Fault::Kill { .. }
        | Fault::Sick { .. }
        | Fault::Damage { .. }
        | Fault::Stranger
        | Fault::Unreadable { .. }
        | Fault::Hand { .. } => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::least;

    #[test]
    fn only_what_is_needed_is_left_whatever_it_is_and_wherever_it_stands() {
        let all: Vec<u32> = (0..23).collect();
        for needed in [&[][..], &[0], &[22], &[3, 4], &[0, 11, 22], &[1, 2, 3, 20]] {
            let mut plays = 0;
            let left = least(&all, |some| {
                plays += 1;
                needed.iter().all(|one| some.contains(one))
            });
            assert_eq!(left, needed);
            assert!(plays < 250, "{plays} plays for {needed:?}");
        }
    }

    #[test]
    fn of_two_ways_to_fail_one_is_left() {
        let all: Vec<u32> = (0..10).collect();
        let left = least(&all, |some| some.contains(&2) || (some.contains(&7) && some.contains(&8)));
        assert!(left == [2] || left == [7, 8], "{left:?}");
    }
}
