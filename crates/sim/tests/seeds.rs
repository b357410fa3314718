//! The simulator itself: a seed is one story, a story is one trace, and what fails is told as shortly as it can be.

use std::sync::{Mutex, MutexGuard, PoisonError};

use sim::{Options, Story};

/// A few; `cargo xtask sim` plays thousands.
const SEEDS: u64 = 40;

/// A planted bug is one for the whole process.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn stories_of_the_first_seeds_break_nothing_and_come_out_the_same_twice() {
    let _alone = alone();
    for seed in 0..SEEDS {
        let outcome = sim::run(seed, &Options::default());
        assert_eq!(outcome.violation, None, "seed {seed}");
        assert_eq!(
            outcome.hash,
            sim::run(seed, &Options::default()).hash,
            "seed {seed} came out differently"
        );
    }
}

#[test]
fn a_story_has_users_and_faults_and_does_its_work() {
    let _alone = alone();
    let (mut users, mut faults, mut deployed) = (0, 0, 0);
    for seed in 0..SEEDS {
        for input in Story::of(seed).inputs {
            match input.what {
                sim::story::What::User { .. } => users += 1,
                sim::story::What::Fault(_) => faults += 1,
            }
        }
        let trace = sim::run(seed, &Options::default()).trace;
        deployed += trace.iter().filter(|line| line.contains("is active")).count();
    }
    assert!(users > 200 && faults > 150, "{users} {faults}");
    assert!(deployed > 150, "{deployed} deployments became active");
}

#[test]
#[cfg(feature = "planted")]
fn each_planted_bug_is_found_and_its_story_shrinks() {
    let _alone = alone();
    for bug in decide::planted::Bug::ALL {
        decide::planted::plant(bug);
        is_found_and_shrinks();
    }
    decide::planted::unplant();
}

#[cfg(feature = "planted")]
fn is_found_and_shrinks() {
    let options = Options { linted: false };
    let seed = (0..500).find(|seed| sim::run(*seed, &options).violation.is_some());
    let seed = seed.expect("a seed finds it");
    let story = Story::of(seed);
    let found = sim::play(&story, &options).violation.expect("it is found again");
    let (shortest, outcome) = sim::shrink(&story, &options);
    let left = outcome.violation.expect("what is left fails too");
    assert_eq!(left.invariant, found.invariant);
    assert!(shortest.inputs.len() < story.inputs.len(), "{shortest}");
    for without in 0..shortest.inputs.len() {
        let mut shorter = shortest.clone();
        shorter.inputs.remove(without);
        let violation = sim::play(&shorter, &options).violation;
        let still = violation.is_some_and(|violation| violation.invariant == found.invariant);
        assert!(!still || shorter.size != story.size, "input {without} is not needed: {shortest}");
    }
}
