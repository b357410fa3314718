//! The project's own commands: `cargo xtask test|check|check-deps|sim|bench`.

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
  check           formatting, walls and licences, lints, docs
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
        "test" | "check" | "check-deps" if asks_for_help(rest) => {
            println!("{HELP}");
            Ok(())
        }
        "test" => nothing_more(command, rest).and_then(|()| tests::all()),
        "check" => nothing_more(command, rest).and_then(|()| check()),
        "check-deps" => nothing_more(command, rest).and_then(|()| deps::check()),
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

fn asks_for_help(rest: &[String]) -> bool {
    rest.iter().any(|word| word == "--help" || word == "-h")
}

/// What is passed over would be taken for heeded.
fn nothing_more(command: &str, rest: &[String]) -> Result<(), String> {
    match rest.first() {
        None => Ok(()),
        Some(word) => Err(format!(
            "`{command}` takes no arguments, so not `{word}`; some tests alone: `cargo nextest run --workspace --locked -E \
             'test(WORDS)'`\n\n{HELP}"
        )),
    }
}

fn check() -> Result<(), String> {
    run::cargo(&["fmt", "--all", "--check"])?;
    deps::check()?;
    run::cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])?;
    run::cargo_env(&["doc", "--workspace", "--no-deps", "--locked"], &[("RUSTDOCFLAGS", "-D warnings")])
}

#[cfg(test)]
mod tests_of_arguments {
    use super::{asks_for_help, nothing_more};

    #[test]
    fn a_further_argument_is_refused_and_help_is_seen() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert!(asks_for_help(&words(&["--help"])) && asks_for_help(&words(&["x", "-h"])));
        assert!(!asks_for_help(&words(&["--quick"])));
        assert_eq!(nothing_more("test", &[]), Ok(()));
        let refused = nothing_more("test", &words(&["edge"])).unwrap_err();
        assert!(refused.contains("`edge`") && refused.contains("check-deps"), "{refused}");
    }
}
