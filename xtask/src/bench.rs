//! The benchmarks. Figures are ratios within one run; nothing here passes or fails.

use crate::run;

pub fn run(args: &[String]) -> Result<(), String> {
    run::cargo(&["build", "--locked", "--release", "--package", "setpoint"])?;
    let mut command =
        vec!["run", "--quiet", "--locked", "--release", "--package", "setpoint", "--example", "bench", "--"];
    command.extend(args.iter().map(String::as_str));
    run::cargo(&command)
}
