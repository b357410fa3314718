//! Death at every phase boundary: before a plan is committed, after its commit, after its effects were handed out.
//! Whatever the moment, the next start brings the same deployment to its end.

use std::{os::unix::process::ExitStatusExt, time::Duration};

use testkit::{
    Setpoint,
    fixture::{QUICK, demo, versioned_site},
};

use crate::{crash::assert_whole, setpoint};

const VERSION: &str = "/env?name=VERSION";
const SIGABRT: i32 = 6;

/// Starts it with this point armed, lets it die there, and starts it again without. What is asked for in between is
/// recorded by then; the answer may be lost.
#[track_caller]
fn die_at(setpoint: &mut Setpoint, point: &str, act: impl FnOnce(&Setpoint)) {
    setpoint.kill9();
    setpoint.set_args(&[]);
    setpoint.set_env("FAILPOINTS", &format!("{point}=return"));
    setpoint.restart();
    act(setpoint);
    let status = setpoint.wait_for_end(Duration::from_secs(20));
    assert_eq!(status.signal(), Some(SIGABRT), "{point}: {status}\n{}", setpoint.tail());
    setpoint.unset_env("FAILPOINTS");
    setpoint.restart();
}

fn processes_die(moment: &str) {
    let version = |version: &str| demo(2, &[("VERSION", version)], QUICK);
    let mut setpoint = setpoint().manifest(&version("start")).start();
    setpoint.wait_until_converged("api");
    for (number, phase) in
        (2..).zip(["copying_files", "starting", "updating_routes", "health_check", "active"])
    {
        let point = format!("phase.{phase}.{moment}");
        die_at(&mut setpoint, &point, |setpoint| {
            setpoint.apply(&version(phase), &[]);
        });
        assert_whole(&setpoint, 2);
        assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), phase, "{point}");
        let deployments = setpoint.deployments("api");
        assert_eq!(
            deployments[0]["number"], number,
            "{point}: the same deployment went on: {deployments:#?}"
        );
    }
}

fn sites_die(moment: &str) {
    let builder = setpoint();
    versioned_site(&builder.work().join("site"), "start", 20);
    let yaml = "services:\n  docs:\n    static: ./site\n    domains: [docs.localhost]\n";
    let mut setpoint = builder.manifest(yaml).start();
    setpoint.wait_until_converged("docs");
    // `creating_symlinks` is reached and left in one plan.
    for (number, phase) in (2..).zip(["copying_files", "updating_routes", "active"]) {
        let point = format!("phase.{phase}.{moment}");
        versioned_site(&setpoint.work().join("site"), phase, 20);
        die_at(&mut setpoint, &point, |setpoint| {
            setpoint.cli(&["deploy", "docs", "site"]);
        });
        setpoint.wait_until_converged("docs");
        assert_eq!(setpoint.get("docs.localhost", "/").text(), phase, "{point}");
        assert_eq!(setpoint.get("docs.localhost", "/part/19.txt").text(), format!("{phase} 19\n"), "{point}");
        let deployments = setpoint.deployments("docs");
        assert_eq!(
            (&deployments[0]["number"], &deployments[0]["status"]),
            (&number.into(), &"active".into())
        );
        assert_eq!(deployments.iter().filter(|d| d["status"] == "active").count(), 1, "{point}");
    }
}

fn failures_die(moment: &str) {
    let good = demo(1, &[("VERSION", "good")], QUICK);
    let mut setpoint = setpoint().manifest(&good).start();
    setpoint.wait_until_converged("api");
    let bad = demo(1, &[("FAIL_START", "1")], &format!("{QUICK}\nrestart: {{ attempts: 1, backoff: 50ms }}"));
    die_at(&mut setpoint, &format!("phase.failed.{moment}"), |setpoint| {
        setpoint.apply(&bad, &[]);
    });
    setpoint.wait_for_service("api", "the good release is back", |api| {
        api["state"] == "degraded" && api["replicas"]["ready"] == 1
    });
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "good");
    let deployments = setpoint.deployments("api");
    let told: Vec<_> = deployments.iter().map(|d| d["status"].as_str().unwrap()).collect();
    assert_eq!(told, ["active", "failed", "superseded"], "each has its outcome once: {deployments:#?}");
    assert_eq!(setpoint.workloads().len(), 1);
}

#[test]
fn processes_die_before_the_commit() {
    processes_die("before");
}

#[test]
fn processes_die_after_the_commit() {
    processes_die("after_commit");
}

#[test]
fn processes_die_after_the_effect() {
    processes_die("after_effect");
}

#[test]
fn sites_die_before_the_commit() {
    sites_die("before");
}

#[test]
fn sites_die_after_the_commit() {
    sites_die("after_commit");
}

#[test]
fn sites_die_after_the_effect() {
    sites_die("after_effect");
}

#[test]
fn failures_die_before_and_after() {
    for moment in ["before", "after_commit", "after_effect"] {
        failures_die(moment);
    }
}
