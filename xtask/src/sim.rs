//! The simulator: over many seeds, and against bugs that were planted for it to find.

use crate::run;

/// Seeds per run of the tests; a night runs more.
const SEEDS: &str = "2000";
/// Seeds within which each planted bug must be found.
const BUG_SEEDS: &str = "2000";

pub fn run(args: &[String]) -> Result<(), String> {
    play(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Built as a part of the workspace and as the tests are, so that what they have compiled is not compiled again.
fn play(args: &[&str]) -> Result<(), String> {
    let build = ["build", "--quiet", "--locked", "--workspace", "--bin", "sim"];
    run::cargo(&[&build[..], &run::TRIED].concat())?;
    run::built("sim", args)
}

/// What every change must pass.
pub fn in_ci() -> Result<(), String> {
    play(&["--seeds", SEEDS])?;
    play(&["--must-fail", "--planted", "each", "--seeds", BUG_SEEDS])
}
