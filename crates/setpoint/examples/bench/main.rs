//! The benchmarks, run by `cargo xtask bench`. Each figure stands beside a floor measured in the same run, because
//! only their ratio means something on another machine. Nothing here passes or fails.

#![expect(clippy::print_stdout, reason = "a command for a terminal")]

mod containers;
mod heal;
mod idle;
mod pass;
mod procs;
mod report;

use report::Report;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    let mut report = Report::default();
    if runs("pass") {
        for instances in [100_000, 1_000_000] {
            pass::run(instances, &mut report);
        }
    }
    if runs("idle") {
        idle::run(&mut report)?;
    }
    if runs("heal") {
        heal::run(&mut report)?;
    }
    containers::run(&mut report, runs)?;
    println!("{}", report.table());
    println!("{}", report.json());
    Ok(())
}
