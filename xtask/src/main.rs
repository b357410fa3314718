//! The project's own commands: `cargo xtask test|ci|check-deps|sim|bench`.

#![expect(clippy::print_stdout, reason = "a command for a terminal")]

mod bench;
mod deps;
mod run;
mod sim;
mod tests;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask COMMAND

  test            passes every test, fetching what they need
  ci              formatting, lints, docs, walls and licences, then `test`
  check-deps      the walls between the crates, and the licences of what they stand on
  sim [ARGS]      the simulator: --seeds N, --seed S, --soak
  bench [ARGS]    the benchmarks, as a table and as JSON
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match args.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", &[][..]),
    };
    let result = match command {
        "test" => tests::all(),
        "ci" => ci(),
        "check-deps" => deps::check(),
        "sim" => sim::run(rest),
        "bench" => bench::run(rest),
        "help" | "--help" | "-h" => {
            println!("{HELP}");
            Ok(())
        }
        other => Err(format!("`{other}` is no command here\n\n{HELP}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ci() -> Result<(), String> {
    run::cargo(&["fmt", "--all", "--check"])?;
    deps::check()?;
    run::cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])?;
    run::cargo_env(&["doc", "--workspace", "--no-deps", "--locked"], &[("RUSTDOCFLAGS", "-D warnings")])?;
    tests::all()
}
