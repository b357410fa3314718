//! The shortest story that still fails: inputs are left out one by one, as long as the same invariant breaks.

use crate::{Options, Outcome, Story, play};

/// Drops what the violation does not need. The outcome is that of the story returned.
pub fn shrink(story: &Story, options: &Options) -> (Story, Outcome) {
    let mut shortest = story.clone();
    let mut outcome = play(&shortest, options);
    let Some(invariant) = outcome.violation.as_ref().map(|violation| violation.invariant) else {
        return (shortest, outcome);
    };
    let mut size = (shortest.inputs.len() / 2).max(1);
    loop {
        let mut dropped = false;
        let mut at = 0;
        while at < shortest.inputs.len() {
            let mut shorter = shortest.clone();
            let end = (at + size).min(shorter.inputs.len());
            shorter.inputs.drain(at..end);
            let tried = play(&shorter, options);
            if tried.violation.as_ref().is_some_and(|violation| violation.invariant == invariant) {
                (shortest, outcome, dropped) = (shorter, tried, true);
            } else {
                at += size;
            }
        }
        if size == 1 && !dropped {
            return (shortest, outcome);
        }
        if !dropped {
            size = (size / 2).max(1);
        }
    }
}
