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
    // Built before it is tested: process tests run the binary itself.
    run::cargo(&["build", "--locked", "--package", "setpoint"])?;
    if run::answers("cargo", &["nextest", "--version"]) {
        let mut nextest = vec!["nextest", "run", "--workspace", "--locked", "--no-fail-fast"];
        let filter = format!("not ({left_out})");
        if !left_out.is_empty() {
            nextest.extend(["-E", &filter]);
        }
        run::cargo(&nextest)?;
        run::cargo(&["test", "--workspace", "--locked", "--doc", "--quiet"])?;
        // Death at every phase boundary, in a build that has those points; an ordinary one has none.
        run::cargo(&[
            "nextest",
            "run",
            "--package",
            "setpoint",
            "--features",
            "failpoints",
            "--locked",
            "-E",
            "test(phases::)",
        ])?;
    } else {
        println!(
            "── cargo-nextest is not installed (`cargo install cargo-nextest --locked`); cargo test runs instead"
        );
        // As many at once as .config/nextest.toml says.
        let four = ["--", "--test-threads", "4"];
        run::cargo(&[&["test", "--workspace", "--locked"], &four[..]].concat())?;
        let deaths = ["test", "--package", "setpoint", "--features", "failpoints", "--locked", "phases::"];
        run::cargo(&[&deaths[..], &four[..]].concat())?;
    }
    if !left_out.is_empty() {
        println!("── {} tests were skipped: no container engine can be started here", count(left_out));
    }
    sim::in_ci()
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

/// How many there are; a question mark when nobody can tell.
fn count(tests: &str) -> String {
    let args = ["nextest", "list", "--workspace", "--locked", "--message-format", "json", "-E", tests];
    let listed = run::output("cargo", &args).ok();
    let listed = listed.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    let Some(listed) = listed else { return "?".into() };
    let binaries = listed["rust-suites"].as_object().into_iter().flat_map(|suites| suites.values());
    let cases =
        binaries.flat_map(|suite| suite["testcases"].as_object().into_iter().flat_map(|all| all.values()));
    cases.filter(|case| case["filter-match"]["status"] == "matches").count().to_string()
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
        let programs: Vec<&str> = missing.iter().map(|tool| tool.program).collect();
        let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
        println!(
            "── missing: {}; the tests that need them are skipped (apt-get install --no-install-recommends {})",
            programs.join(", "),
            packages.join(" ")
        );
    }
}
