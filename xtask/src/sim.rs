//! The simulator: over many seeds, and against bugs that were planted for it to find.

use crate::run;

/// Seeds per run of the tests; a night runs more.
const SEEDS: &str = "2000";
/// Seeds within which each planted bug must be found.
const BUG_SEEDS: &str = "2000";

/// Features of `sim` that plant a bug in the production code.
const PLANTED: &[&str] = &[
    "bug-accept-stale",
    "bug-unknown-is-empty",
    "bug-budget-reset",
    "bug-stop-before-route-out",
    "bug-create-beside",
];

pub fn run(args: &[String]) -> Result<(), String> {
    let mut command = vec!["run", "--quiet", "--locked", "--package", "sim", "--"];
    command.extend(args.iter().map(String::as_str));
    run::cargo(&command)
}

/// What every change must pass.
pub fn in_ci() -> Result<(), String> {
    run::cargo(&["run", "--quiet", "--locked", "--package", "sim", "--", "--seeds", SEEDS])?;
    for bug in PLANTED {
        let find = [
            "run",
            "--quiet",
            "--locked",
            "--package",
            "sim",
            "--features",
            bug,
            "--",
            "--must-fail",
            "--seeds",
            BUG_SEEDS,
        ];
        run::cargo(&find)?;
    }
    Ok(())
}
