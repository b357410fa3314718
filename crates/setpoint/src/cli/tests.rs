//! What may be typed, and what `--help` says about it.

use clap::{CommandFactory, Parser, error::ErrorKind};

use super::args::{Cli, Client, Command};

/// Every command that the documentation names.
const DOCUMENTED: &str = "
setpoint up -f examples/quickstart.yaml
setpoint up -f a.yaml -f b.yaml --data /tmp/d --api 127.0.0.1:7401 --edge 127.0.0.1:8081 --keep --prune
setpoint server --data /tmp/d --api 127.0.0.1:7401 --config setpoint.toml --log-format json --log-level debug
setpoint edge --data /tmp/d --edge 127.0.0.1:8081
setpoint plan -f app.yaml
setpoint plan -f app.yaml --offline --effective -o json
setpoint apply -f app.yaml
setpoint apply -f app.yaml --wait --prune
setpoint apply -f app.yaml --wait=5m
setpoint deploy docs ./site
setpoint deploy docs --wait ./site
setpoint deploy demo/docs site.tar.gz --wait=30s
setpoint deploy web --image acme/web:2 --wait
setpoint deploy web --git https://example.com/web.git#main
setpoint status
setpoint status api --watch
setpoint status -o json
setpoint status demo/api -o yaml
setpoint explain api
setpoint explain default.api.0.7 --at 4711
setpoint deployments api -o json
setpoint rollback api
setpoint rollback api --to k3n5q7r2t4v6 --wait
setpoint cancel k3n5q7r2t4v6
setpoint logs api -f
setpoint logs api --instance default.api.0.7 --tail 20
setpoint events -f --service api
setpoint events -o json
setpoint audit
setpoint drift
setpoint drift docs
setpoint scale api 3
setpoint stop api
setpoint start api
setpoint restart api
setpoint delete api --wait
setpoint reconcile
setpoint reconcile api --dry-run
setpoint reconcile --confirm
setpoint node list
setpoint token show
setpoint schema
setpoint completions bash
setpoint config
setpoint demo-app
setpoint status --api http://127.0.0.1:7400 --token sp_x --data /tmp/d
";

#[test]
fn the_definitions_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_documented_command_is_understood() {
    for line in DOCUMENTED.lines().filter(|line| !line.is_empty()) {
        if let Err(error) = Cli::try_parse_from(line.split_whitespace()) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn what_cannot_be_meant_is_a_usage_error() {
    for line in [
        "setpoint",
        "setpoint frobnicate",
        "setpoint plan",
        "setpoint apply",
        "setpoint scale api",
        "setpoint scale api -1",
        "setpoint scale api 10001",
        "setpoint scale api three",
        "setpoint status API",
        "setpoint status ../x",
        "setpoint logs api --instance api",
        "setpoint cancel UPPER",
        "setpoint apply -f a.yaml --wait=soon",
        "setpoint status -o xml",
        "setpoint up --prune",
        "setpoint up --api here",
        "setpoint deploy web . --image x",
        "setpoint plan -f a.yaml --offline --prune",
        "setpoint reconcile --dry-run --confirm",
    ] {
        let error = Cli::try_parse_from(line.split_whitespace()).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn wait_takes_a_time_only_behind_an_equals_sign() {
    let waits = |line: &str| match Cli::try_parse_from(line.split_whitespace()).unwrap().command {
        Command::Client(Client::Deploy(deploy)) => (deploy.wait.wait.map(|wait| wait.0), deploy.path),
        other => panic!("{other:?}"),
    };
    assert_eq!(waits("setpoint deploy docs"), (None, None));
    assert_eq!(waits("setpoint deploy docs --wait ./5m"), (Some(900_000), Some("./5m".into())));
    assert_eq!(waits("setpoint deploy docs --wait=5s"), (Some(5000), None));
}

#[test]
fn every_command_shows_an_example() {
    fn check(command: &clap::Command) {
        for inner in command.get_subcommands() {
            let example = inner.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(example.starts_with("Example") || inner.is_hide_set(), "{} has none", inner.get_name());
            check(inner);
        }
    }
    check(&Cli::command());
}

/// What goes on in the foreground, gives the terminal to something else, or is a script for a shell.
const PRINT_NO_DATA: [&str; 7] = ["up", "server", "edge", "demo-app", "exec", "completions", "reference"];

#[test]
fn every_command_that_prints_data_prints_it_as_json_and_yaml_too() {
    fn without(command: &clap::Command, out: &mut Vec<String>) {
        for inner in command.get_subcommands() {
            if inner.has_subcommands() {
                without(inner, out);
            } else if !inner.get_arguments().any(|arg| arg.get_short() == Some('o')) {
                out.push(inner.get_name().to_owned());
            }
        }
    }
    let mut found = Vec::new();
    without(&Cli::command(), &mut found);
    found.sort();
    let mut expected = PRINT_NO_DATA.map(String::from);
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn every_example_is_understood() {
    fn examples(command: &clap::Command, out: &mut Vec<String>) {
        for inner in command.get_subcommands() {
            let example = inner.get_after_help().map(ToString::to_string).unwrap_or_default();
            out.extend(
                example.lines().map(str::trim).filter(|l| l.starts_with("setpoint ")).map(String::from),
            );
            examples(inner, out);
        }
    }
    let mut lines = Vec::new();
    examples(&Cli::command(), &mut lines);
    assert!(lines.len() > 25);
    for line in lines {
        let command = line.split(" > ").next().unwrap_or(&line);
        if let Err(error) = Cli::try_parse_from(command.split_whitespace()) {
            panic!("{line}: {error}");
        }
    }
}

fn help(line: &str) -> String {
    let mut command = Cli::command().term_width(100);
    let error = command.try_get_matches_from_mut(line.split_whitespace()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DisplayHelp, "{error}");
    error.to_string()
}

#[test]
fn help_of_the_whole() {
    insta::assert_snapshot!(help("setpoint --help"));
}

#[test]
fn help_of_apply() {
    insta::assert_snapshot!(help("setpoint apply --help"));
}

#[test]
fn help_of_up() {
    insta::assert_snapshot!(help("setpoint up --help"));
}
