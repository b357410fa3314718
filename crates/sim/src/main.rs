//! `sim`: plays seeds, replays one, and prints the shortest story of what fails.

#![expect(clippy::print_stdout, reason = "the answers of this command")]

use std::{
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use decide::planted::Bug;
use sim::{Options, Outcome, Story};

const USAGE: &str = "\
sim [--seeds N] [--from S]      play N seeds (1000), beginning with S (0); each twice, which must come out the same
sim --seed S [--trace]          play one seed; with --trace print all that happens
sim --shrink --seed S           print the shortest story of this seed that still fails
sim --soak                      play until something fails
sim --must-fail [--seeds N]     find a planted bug: exit 0 if a seed fails and its story shrinks; plans are not linted
    --planted BUG               plant it first, or `each` in turn, in a build with the feature `planted`
";

/// Lines of the trace that are printed with a violation.
const TAIL: usize = 40;

struct Wanted {
    seeds: u64,
    from: u64,
    seed: Option<u64>,
    shrink: bool,
    trace: bool,
    must_fail: bool,
    no_lint: bool,
    /// One after the other.
    planted: Vec<Bug>,
}

fn main() -> ExitCode {
    match wanted(std::env::args().skip(1)) {
        Ok(wanted) => run(&wanted),
        Err(message) => {
            println!("{message}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn wanted(mut args: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let mut wanted = Wanted {
        seeds: 1_000,
        from: 0,
        seed: None,
        shrink: false,
        trace: false,
        must_fail: false,
        no_lint: false,
        planted: Vec::new(),
    };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        let mut number = || {
            let text = value()?;
            text.parse::<u64>().map_err(|_| format!("{arg} needs a number, not `{text}`"))
        };
        match arg.as_str() {
            "--seeds" => wanted.seeds = number()?,
            "--from" => wanted.from = number()?,
            "--seed" => wanted.seed = Some(number()?),
            "--soak" => wanted.seeds = u64::MAX / 2,
            "--shrink" => wanted.shrink = true,
            "--trace" => wanted.trace = true,
            "--must-fail" => wanted.must_fail = true,
            "--no-lint" => wanted.no_lint = true,
            "--planted" => wanted.planted = planted(&value()?)?,
            other => return Err(format!("no such option: {other}")),
        }
    }
    Ok(wanted)
}

fn planted(name: &str) -> Result<Vec<Bug>, String> {
    let found: Vec<Bug> = Bug::ALL.into_iter().filter(|bug| name == "each" || bug.name() == name).collect();
    if found.is_empty() {
        return Err(format!("no such bug: `{name}`; there are {}", Bug::ALL.map(Bug::name).join(", ")));
    }
    Ok(found)
}

#[cfg(feature = "planted")]
fn plant(bug: Bug) -> Result<(), String> {
    decide::planted::plant(bug);
    Ok(())
}

#[cfg(not(feature = "planted"))]
fn plant(bug: Bug) -> Result<(), String> {
    Err(format!("`{}` can be planted in a build with `--features planted` alone", bug.name()))
}

fn run(wanted: &Wanted) -> ExitCode {
    if wanted.planted.is_empty() {
        return play(wanted, None);
    }
    for bug in &wanted.planted {
        if let Err(message) = plant(*bug) {
            println!("{message}");
            return ExitCode::from(2);
        }
        println!("planted: {}", bug.name());
        let end = play(wanted, Some(*bug));
        if end != ExitCode::SUCCESS {
            return end;
        }
    }
    ExitCode::SUCCESS
}

fn play(wanted: &Wanted, planted: Option<Bug>) -> ExitCode {
    let options = Options { linted: !wanted.must_fail && !wanted.no_lint };
    if let Some(seed) = wanted.seed {
        return one(seed, wanted, planted, &options);
    }
    let found = search(wanted, &options);
    match (found, wanted.must_fail) {
        (Some((seed, outcome)), true) => must_shrink(seed, &outcome, &options),
        (None, true) => {
            println!("no violation within {} seeds: the planted bug was not found", wanted.seeds);
            ExitCode::FAILURE
        }
        (Some((seed, _)), false) => {
            tell_shortest(seed, planted, &options);
            ExitCode::FAILURE
        }
        (None, false) => {
            println!("{} seeds, no violation", wanted.seeds);
            ExitCode::SUCCESS
        }
    }
}

fn one(seed: u64, wanted: &Wanted, planted: Option<Bug>, options: &Options) -> ExitCode {
    if wanted.shrink {
        tell_shortest(seed, planted, options);
        return ExitCode::FAILURE;
    }
    let outcome = sim::run(seed, options);
    if wanted.trace {
        println!("{}", outcome.trace.join("\n"));
    }
    match outcome.violation {
        Some(violation) => {
            println!("seed {seed}: {violation}");
            ExitCode::FAILURE
        }
        None => {
            println!("seed {seed}: no violation, trace {:016x}", outcome.hash);
            ExitCode::SUCCESS
        }
    }
}

/// What was planted is found, and told in fewer words than the seed's own, which come out the same again.
fn must_shrink(seed: u64, found: &Outcome, options: &Options) -> ExitCode {
    let story = Story::of(seed);
    let (shortest, outcome) = sim::shrink(&story, options);
    let invariant = |outcome: &Outcome| outcome.violation.as_ref().map(|violation| violation.invariant);
    let told = |outcome: &Outcome| outcome.violation.as_ref().map(ToString::to_string).unwrap_or_default();
    println!("found by seed {seed}: {}", told(found));
    let (before, after) = (story.inputs.len(), shortest.inputs.len());
    println!("the shortest story, {after} of {before} inputs: {}\n{shortest}", told(&outcome));
    let again = sim::play(&shortest, options);
    let holds = invariant(&outcome) == invariant(found) && after < before && again.hash == outcome.hash;
    if holds {
        return ExitCode::SUCCESS;
    }
    println!(
        "the shrinker is broken: its story is no shorter, breaks something else, or comes out differently"
    );
    ExitCode::FAILURE
}

fn tell_shortest(seed: u64, planted: Option<Bug>, options: &Options) {
    let (story, outcome) = sim::shrink(&Story::of(seed), options);
    let Some(violation) = outcome.violation else {
        println!("seed {seed}: no violation of its own; its two plays differed");
        return;
    };
    println!("seed {seed} violates {violation}\n\nthe shortest story that still does:\n{story}");
    println!("its end:\n{}", outcome.trace[outcome.trace.len().saturating_sub(TAIL)..].join("\n"));
    let unlinted = if options.linted { "" } else { " --no-lint" };
    let (feature, planted) = match planted {
        Some(bug) => (" --features planted", format!(" --planted {}", bug.name())),
        None => ("", String::new()),
    };
    println!("\nagain: cargo run -p sim{feature} -- --shrink --seed {seed}{unlinted}{planted}");
}

/// The first seed that fails, by the order of seeds as far as they were played.
fn search(wanted: &Wanted, options: &Options) -> Option<(u64, Outcome)> {
    let next = AtomicU64::new(wanted.from);
    let end = wanted.from + wanted.seeds;
    let stop = AtomicBool::new(false);
    let found: Mutex<Option<(u64, Outcome)>> = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    if let Some(outcome) = failing(seed, wanted, options) {
                        stop.store(true, Ordering::Relaxed);
                        let mut found = found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        if found.as_ref().is_none_or(|(earlier, _)| seed < *earlier) {
                            *found = Some((seed, outcome));
                        }
                    }
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn failing(seed: u64, wanted: &Wanted, options: &Options) -> Option<Outcome> {
    let outcome = sim::run(seed, options);
    if outcome.violation.is_some() {
        return Some(outcome);
    }
    let differs = !wanted.must_fail && sim::run(seed, options).hash != outcome.hash;
    differs.then(|| {
        println!("seed {seed}: two plays of one story differ: something is not deterministic");
        outcome
    })
}
