//! Every test, with what they need installed or fetched first, or said in one line to be missing.

use std::process::Command;

use crate::{run, sim};

/// Programs that some tests use, and the Debian packages that hold them.
const TOOLS: &[(&str, &str)] = &[("strace", "strace")];

pub fn all() -> Result<(), String> {
    for (program, package) in TOOLS {
        ensure(program, package);
    }
    // Built before it is tested: process tests run the binary itself.
    run::cargo(&["build", "--locked", "--package", "setpoint"])?;
    if run::answers("cargo", &["nextest", "--version"]) {
        run::cargo(&["nextest", "run", "--workspace", "--locked", "--no-fail-fast"])?;
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
        run::cargo(&["test", "--workspace", "--locked"])?;
        run::cargo(&["test", "--package", "setpoint", "--features", "failpoints", "--locked", "phases::"])?;
    }
    sim::in_ci()
}

/// Installs a Debian package where that can be done; otherwise says what is missing. The tests that need it then
/// say that they are skipped.
fn ensure(program: &str, package: &str) {
    if run::answers("which", &[program]) {
        return;
    }
    let is_root = run::output("id", &["-u"]).is_ok_and(|id| id.trim() == "0");
    if is_root && run::answers("which", &["apt-get"]) {
        let mut install = Command::new("sh");
        install.arg("-c").arg(format!(
            "DEBIAN_FRONTEND=noninteractive apt-get install -qq -y {package} >/dev/null 2>&1 || \
             {{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y {package}; }} >/dev/null"
        ));
        if run::checked(install, &format!("apt-get install {package}")).is_ok() {
            return;
        }
    }
    println!("── {program} is missing: install the package `{package}`; the tests that need it are skipped");
}
