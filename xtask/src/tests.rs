//! Every test, with what they need installed or fetched first, or said in one line to be missing.

use std::process::Command;

use crate::{run, sim};

/// A program that some tests use, the Debian package that holds it, and which tests.
struct Tool {
    program: &'static str,
    package: &'static str,
    tests: &'static str,
}

const fn tool(program: &'static str, package: &'static str, tests: &'static str) -> Tool {
    Tool { program, package, tests }
}

/// Tests on a real container engine, in the language of nextest.
const CONTAINERS: &str = "binary(containers) + binary(docker) + test(conformance::container::)";

const TOOLS: &[Tool] = &[
    tool("strace", "strace", ""),
    tool("curl", "curl", ""),
    tool("git", "git", ""),
    tool("dockerd", "docker.io", CONTAINERS),
    // Of a package of its own in newer releases.
    tool("docker", "docker-cli", CONTAINERS),
    tool("docker-registry", "docker-registry", CONTAINERS),
    tool("iptables", "iptables", CONTAINERS),
    tool("ip", "iproute2", CONTAINERS),
    tool("promtool", "prometheus", ""),
];

pub fn all() -> Result<(), String> {
    install();
    let left_out = left_out();
    let nextest = run::answers("cargo", &["nextest", "--version"]);
    if !nextest {
        println!("── {WITHOUT_NEXTEST}");
    }
    for command in commands(nextest, left_out) {
        run::cargo(&command.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    if !left_out.is_empty() {
        println!("── {}", skipped(nextest.then(|| count(left_out)).flatten()));
    }
    sim::in_ci()
}

const WITHOUT_NEXTEST: &str =
    "cargo-nextest is not installed (`cargo install cargo-nextest --locked`); cargo test runs instead";

/// What cargo is told, one after the other. Without nextest the tests on what is missing find that out themselves.
fn commands(nextest: bool, left_out: &str) -> Vec<Vec<String>> {
    let words = |parts: &[&[&str]]| parts.concat().into_iter().map(String::from).collect::<Vec<_>>();
    let all = [&["--workspace", "--locked"], &run::TRIED[..]].concat();
    // Examples were checked with the lints; linking them would be for nothing.
    let tests = [&all[..], &["--lib", "--bins", "--tests", "--no-fail-fast"]].concat();
    let docs = words(&[&["test"], &all, &["--doc", "--quiet"]]);
    if !nextest {
        // As many at once as .config/nextest.toml says.
        return vec![words(&[&["test"], &tests, &["--", "--test-threads", "4"]]), docs];
    }
    let mut run = words(&[&["nextest", "run"], &tests]);
    if !left_out.is_empty() {
        run.extend(["-E".into(), format!("not ({left_out})")]);
    }
    vec![run, docs]
}

fn skipped(count: Option<String>) -> String {
    let which = count.map_or_else(|| "the tests on one".into(), |count| format!("{count} tests"));
    format!("no container engine can be started here; {which} were skipped")
}

/// The tests for which this machine has not what they need, as nextest calls them; empty when it has everything.
fn left_out() -> &'static str {
    let missing = TOOLS.iter().find(|tool| !tool.tests.is_empty() && !is_there(tool.program));
    match missing {
        Some(missing) => missing.tests,
        None if !is_root() => {
            println!("── a private container engine needs root; the tests on one are skipped");
            CONTAINERS
        }
        None => "",
    }
}

/// How many there are, if somebody can tell.
fn count(tests: &str) -> Option<String> {
    let all = ["nextest", "list", "--workspace", "--locked"];
    let args = [&all[..], &run::TRIED, &["--message-format", "json", "-E", tests]].concat();
    let listed = run::output("cargo", &args).ok();
    let listed = listed.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    let listed = listed?;
    let binaries = listed["rust-suites"].as_object().into_iter().flat_map(|suites| suites.values());
    let cases =
        binaries.flat_map(|suite| suite["testcases"].as_object().into_iter().flat_map(|all| all.values()));
    Some(cases.filter(|case| case["filter-match"]["status"] == "matches").count().to_string())
}

fn is_root() -> bool {
    run::output("id", &["-u"]).is_ok_and(|id| id.trim() == "0")
}

/// Also where only root's PATH leads.
fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = std::env::split_paths(&path);
    let folders = own.chain(["/usr/sbin", "/sbin", "/usr/bin"].map(Into::into));
    folders.map(|folder| folder.join(program)).any(|file| file.is_file())
}

/// No service of a package that is installed may start: not the machine's own engine, nor its registry. dpkg asks
/// this program; what the machine had in its place comes back.
const INSTALL: &str = r#"
policy=/usr/sbin/policy-rc.d
[ ! -e $policy ] || mv $policy $policy.kept
back() { rm -f $policy; [ ! -e $policy.kept ] || mv $policy.kept $policy; }
trap back EXIT
trap 'exit 1' INT TERM
printf '#!/bin/sh\nexit 101\n' >$policy
chmod 755 $policy
export DEBIAN_FRONTEND=noninteractive
get() { apt-get install -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" </dev/null; }
get "$@" >/dev/null 2>&1 && exit
apt-get update -qq >/dev/null
# One by one: a package that this release does not have must not keep the others out.
for package; do get "$package" >/dev/null 2>&1; done
:
"#;

/// Installs what is missing where that can be done; otherwise says what to install.
fn install() {
    let missing = || TOOLS.iter().filter(|tool| !is_there(tool.program));
    let packages: Vec<&str> = missing().map(|tool| tool.package).collect();
    if packages.is_empty() {
        return;
    }
    if is_root() && is_there("apt-get") {
        let mut install = Command::new("sh");
        install.args(["-c", INSTALL, "install"]).args(&packages);
        let shown = format!("apt-get install --no-install-recommends {}", packages.join(" "));
        if let Err(error) = run::checked(install, &shown) {
            println!("── {error}");
        }
    }
    let missing: Vec<&Tool> = missing().collect();
    if !missing.is_empty() {
        println!("── {}", still_missing(&missing));
    }
}

/// On one line, with the command that would bring it.
fn still_missing(missing: &[&Tool]) -> String {
    let programs: Vec<&str> = missing.iter().map(|tool| tool.program).collect();
    let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    format!(
        "missing: {}; the tests that need them are skipped (apt-get install --no-install-recommends {})",
        programs.join(", "),
        packages.join(" ")
    )
}

#[cfg(test)]
mod checks {
    use super::*;

    fn lines(nextest: bool, left_out: &str) -> Vec<String> {
        commands(nextest, left_out).iter().map(|command| command.join(" ")).collect()
    }

    const FEATURES: &str = "--workspace --locked --features setpoint/failpoints,sim/planted";

    #[test]
    fn without_nextest_cargo_test_runs_the_same_tests() {
        let all = format!("test {FEATURES} --lib --bins --tests --no-fail-fast -- --test-threads 4");
        assert_eq!(lines(false, CONTAINERS), [all, format!("test {FEATURES} --doc --quiet")]);
    }

    #[test]
    fn with_nextest_what_cannot_run_here_is_left_out() {
        let all = format!("nextest run {FEATURES} --lib --bins --tests --no-fail-fast");
        assert_eq!(lines(true, "")[0], all);
        assert_eq!(lines(true, "binary(x)")[0], format!("{all} -E not (binary(x))"));
        assert_eq!(lines(true, "").len(), 2, "doctests too");
    }

    #[test]
    fn what_could_not_be_had_is_said_on_one_line_each() {
        let missing: Vec<&Tool> = TOOLS.iter().filter(|tool| tool.program.starts_with("docker")).collect();
        assert_eq!(
            still_missing(&missing),
            "missing: dockerd, docker, docker-registry; the tests that need them are skipped \
             (apt-get install --no-install-recommends docker.io docker-cli docker-registry)"
        );
        let said = [skipped(Some("12".into())), skipped(None), WITHOUT_NEXTEST.into()];
        assert!(
            said[0].ends_with("12 tests were skipped") && said[1].ends_with("the tests on one were skipped")
        );
        assert!(said.iter().all(|line| !line.contains('\n')));
    }
}
