//! Scale, stop, start, restart, delete and cancel, at rest and in the middle of a deployment.

use testkit::{
    Setpoint,
    fixture::{QUICK, demo},
    setpoint::{SOON, find, pids},
};

use crate::setpoint;

const VERSION: &str = "/env?name=VERSION";

fn version(version: &str) -> String {
    demo(2, &[("VERSION", version)], QUICK)
}

/// The second release, whose instances take their time to come up.
fn slow(version: &str) -> String {
    demo(2, &[("VERSION", version), ("BOOT_DELAY_MS", "1500")], QUICK)
}

fn started() -> Setpoint {
    let setpoint = setpoint().manifest(&version("v1")).start();
    setpoint.wait_until_converged("api");
    setpoint
}

/// In the middle of a deployment of v2: it is open, and v1 serves.
fn in_the_middle() -> Setpoint {
    let setpoint = started();
    setpoint.apply_ok(&slow("v2"), &[]);
    setpoint.wait_for_service("api", "the second deployment is starting", |api| {
        api["deployment"]["number"] == 2 && api["deployment"]["phase"] == "starting"
    });
    setpoint
}

fn open_deployments(setpoint: &Setpoint) -> usize {
    let ended = |d: &&serde_json::Value| !d["ended_at"].is_null();
    let all = setpoint.deployments("api");
    all.len() - all.iter().filter(ended).count()
}

#[test]
fn scaling_up_and_down_under_load_costs_no_request() {
    let setpoint = started();
    let load = setpoint.load("api.localhost", "/env?name=SETPOINT_INSTANCE").rate(300).start();
    let closing = setpoint.load("api.localhost", "/").rate(50).closing().check(|r| match r.status {
        200 => Ok("ok".into()),
        status => Err(format!("{status}: {}", r.text())),
    });
    let closing = closing.start();
    for (replicas, count) in [("4", 4), ("1", 1), ("3", 3)] {
        setpoint.ok(&["scale", "api", replicas, "--wait"]);
        let api = setpoint.wait_until_converged("api");
        assert_eq!(api["replicas"], serde_json::json!({"desired": count, "ready": count}));
        assert_eq!(setpoint.workloads().len(), count);
        load.go_on_for(30);
    }
    load.stop().assert_clean(200);
    closing.stop().assert_clean(30);
    assert_eq!(setpoint.deployments("api").len(), 1, "scaling is no deployment");
}

#[test]
fn the_number_set_by_scale_is_owned_by_scale() {
    let setpoint = started();
    setpoint.ok(&["scale", "api", "3", "--wait"]);
    setpoint.apply_ok(&version("v1"), &["--wait"]);
    let api = setpoint.wait_until_converged("api");
    assert_eq!(api["replicas"]["desired"], 3, "an unchanged file does not take it back");
    let drift = setpoint.json(&["drift", "api"]);
    assert_eq!(drift["drift"], serde_json::json!([]), "it is no drift");
    setpoint.ok(&["scale", "api", "0", "--wait"]);
    assert_eq!(setpoint.workloads(), []);
    assert_eq!(setpoint.get("api.localhost", "/").status, 503);
    for bad in ["-1", "1.5", "10001", "many"] {
        assert_eq!(setpoint.cli(&["scale", "api", bad]).code, 2, "{bad}");
    }
}

#[test]
fn stop_start_restart_and_delete_do_what_they_say() {
    let setpoint = started();
    setpoint.ok(&["stop", "api", "--wait"]);
    assert_eq!(setpoint.service("api")["state"], "stopped");
    assert_eq!(setpoint.workloads(), []);
    assert_eq!(setpoint.get("api.localhost", "/").status, 503);
    setpoint.ok(&["start", "api", "--wait"]);
    let before = setpoint.wait_until_converged("api");
    let load = setpoint.load("api.localhost", VERSION).start();
    setpoint.ok(&["restart", "api", "--wait"]);
    let after = setpoint.wait_until_converged("api");
    load.go_on_for(20);
    load.stop().assert_clean(40);
    assert!(pids(&after).iter().all(|pid| !pids(&before).contains(pid)), "every process is another");
    setpoint.ok(&["delete", "api", "--wait"]);
    setpoint.wait_for("nothing is left of it", SOON, |status| find(status, "api").is_none().then_some(()));
    assert_eq!(setpoint.workloads(), []);
    assert_eq!(setpoint.get("api.localhost", "/").status, 404);
    assert_eq!(setpoint.cli(&["status", "api"]).code, 1);
}

#[test]
fn a_deleted_service_can_be_declared_anew() {
    let setpoint = started();
    setpoint.ok(&["delete", "api", "--wait"]);
    setpoint.apply_ok(&version("again"), &["--wait"]);
    setpoint.wait_until_converged("api");
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "again");
    assert_eq!(setpoint.workloads().len(), 2);
}

#[test]
fn a_cancelled_deployment_ends_and_what_served_serves_on() {
    let setpoint = in_the_middle();
    let load = setpoint.load("api.localhost", VERSION).start();
    let id = setpoint.service("api")["deployment"]["id"].as_str().unwrap().to_owned();
    setpoint.ok(&["cancel", &id]);
    let cancelled = |setpoint: &Setpoint| {
        setpoint.deployments("api").into_iter().find(|d| d["id"] == id.as_str()).unwrap()
    };
    assert_eq!(cancelled(&setpoint)["status"], "cancelled");
    setpoint.wait_for_service("api", "the first release is whole again", |api| {
        ["converged", "degraded"].contains(&api["state"].as_str().unwrap()) && api["replicas"]["ready"] == 2
    });
    testkit::until("only the first release runs", SOON, || (setpoint.workloads().len() == 2).then_some(()));
    let report = load.stop();
    report.assert_clean(20);
    assert_eq!(report.sequence(), ["v1"]);
    assert_eq!(cancelled(&setpoint)["status"], "cancelled", "its outcome stays");
    let twice = setpoint.cli(&["cancel", &id]);
    assert_eq!(twice.code, 1, "{twice:?}");
    assert!(twice.stderr.contains("cancelled"), "{twice:?}");
}

#[test]
fn scaling_in_the_middle_of_a_deployment_reaches_both_ends() {
    let setpoint = in_the_middle();
    let load = setpoint.load("api.localhost", VERSION).start();
    setpoint.ok(&["scale", "api", "3"]);
    let api = setpoint.wait_for_service("api", "three of the second release", |api| {
        api["state"] == "converged" && api["replicas"]["ready"] == 3
    });
    assert_eq!((&api["deployment"]["number"], &api["deployment"]["phase"]), (&2.into(), &"active".into()));
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "v2");
    load.stop().assert_clean(50);
    assert_eq!(setpoint.workloads().len(), 3);
}

#[test]
fn a_stop_in_the_middle_of_a_deployment_leaves_nothing_running() {
    let setpoint = in_the_middle();
    setpoint.ok(&["stop", "api", "--wait"]);
    setpoint.wait_until_state("api", "stopped");
    assert_eq!(setpoint.workloads(), []);
    setpoint.ok(&["start", "api"]);
    setpoint.wait_until_converged("api");
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "v2");
    assert_eq!(open_deployments(&setpoint), 0);
}

#[test]
fn a_restart_in_the_middle_of_a_deployment_loses_no_request() {
    let setpoint = in_the_middle();
    let load = setpoint.load("api.localhost", VERSION).start();
    setpoint.ok(&["restart", "api"]);
    setpoint.wait_until_converged("api");
    load.go_on_for(10);
    load.stop().assert_clean(50);
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "v2");
    assert_eq!((setpoint.workloads().len(), open_deployments(&setpoint)), (2, 0));
}

#[test]
fn a_delete_in_the_middle_of_a_deployment_leaves_nothing() {
    let setpoint = in_the_middle();
    setpoint.ok(&["delete", "api", "--wait"]);
    setpoint.wait_for("nothing is left of it", SOON, |status| find(status, "api").is_none().then_some(()));
    assert_eq!(setpoint.workloads(), []);
    let instances = setpoint.data().join("node/instances");
    let left: Vec<_> =
        std::fs::read_dir(instances).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_newer_apply_takes_the_place_of_an_open_deployment() {
    let setpoint = in_the_middle();
    let load = setpoint.load("api.localhost", VERSION).start();
    setpoint.apply_ok(&version("v3"), &["--wait"]);
    setpoint.wait_until_converged("api");
    let report = load.stop();
    report.assert_clean(10);
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "v3");
    let told: Vec<_> =
        setpoint.deployments("api").iter().map(|d| d["status"].as_str().unwrap().to_owned()).collect();
    assert_eq!(told, ["active", "cancelled", "superseded"]);
    assert_eq!(setpoint.workloads().len(), 2);
}

#[test]
fn a_rollback_in_the_middle_of_a_deployment_keeps_what_runs_the_earlier_release() {
    let setpoint = started();
    setpoint.apply_ok(&version("v2"), &["--wait"]);
    let before = pids(&setpoint.wait_until_converged("api"));
    setpoint.apply_ok(&slow("v3"), &[]);
    setpoint.wait_for_service("api", "the third deployment is starting", |api| {
        api["deployment"]["number"] == 3 && api["deployment"]["phase"] == "starting"
    });
    let load = setpoint.load("api.localhost", VERSION).start();
    setpoint.ok(&["rollback", "api", "--wait"]);
    let after = setpoint.wait_until_converged("api");
    testkit::until("only the second release runs", SOON, || (setpoint.workloads().len() == 2).then_some(()));
    let report = load.stop();
    report.assert_clean(20);
    assert_eq!(report.sequence(), ["v2"]);
    assert_eq!(pids(&after), before, "a rollback keeps what already runs that release");
    let deployments = setpoint.deployments("api");
    let told: Vec<_> =
        deployments.iter().map(|d| (d["status"].as_str().unwrap(), d["cause"].as_str().unwrap())).collect();
    let expected =
        [("active", "rollback"), ("cancelled", "apply"), ("superseded", "apply"), ("superseded", "apply")];
    assert_eq!(told, expected);
    assert_eq!(deployments[0]["release"], deployments[2]["release"]);
}

#[test]
fn prune_deletes_what_the_file_no_longer_has() {
    let setpoint = setpoint().file("site/index.html", "hello").start();
    let both = format!("{}  docs:\n    static: ./site\n    domains: [docs.localhost]\n", version("v1"));
    setpoint.apply_ok(&both, &["--wait"]);
    setpoint.apply_ok(&version("v1"), &["--wait"]);
    assert_eq!(setpoint.service("docs")["state"], "converged", "nothing is deleted without --prune");
    setpoint.apply_ok(&version("v1"), &["--prune", "--wait"]);
    setpoint.wait_for("the site is gone", SOON, |status| find(status, "docs").is_none().then_some(()));
    assert_eq!(setpoint.get("docs.localhost", "/").status, 404);
    assert!(!setpoint.data().join("sites/default/docs").exists());
}

#[test]
fn up_with_a_file_that_has_less_removes_nothing() {
    let mut setpoint = setpoint().file("site/index.html", "hello").start();
    let both = format!("{}  docs:\n    static: ./site\n    domains: [docs.localhost]\n", version("v1"));
    setpoint.apply_ok(&both, &["--wait"]);
    setpoint.stop();
    let file = setpoint.work().join("app.yaml");
    std::fs::write(&file, version("v2")).unwrap();
    setpoint.set_args(&["-f", file.to_str().unwrap()]);
    setpoint.restart();
    setpoint.wait_for_service("api", "the file was taken", |api| {
        api["state"] == "converged" && api["deployment"]["number"] == 2
    });
    setpoint.wait_until_converged("docs");
    assert_eq!(setpoint.get("docs.localhost", "/").text(), "hello");
    setpoint.stop();
    setpoint.set_args(&["-f", file.to_str().unwrap(), "--prune"]);
    setpoint.restart();
    setpoint.wait_for("with --prune it goes", SOON, |status| find(status, "docs").is_none().then_some(()));
    setpoint.wait_until_converged("api");
}

#[test]
fn an_apply_at_the_moment_at_which_a_deployment_succeeds_is_taken() {
    let short = |version: u64| {
        demo(
            1,
            &[("VERSION", &format!("v{version}"))],
            "deploy: { min_healthy: 10ms, drain: 1s }\nstop: { grace: 1s }",
        )
    };
    let setpoint = setpoint().manifest(&short(0)).start();
    setpoint.wait_until_converged("api");
    // Each moment around which the one before may become active, as near as a command comes to it.
    for version in 1..=25 {
        setpoint.apply_ok(&short(version), &[]);
        let due = std::time::Instant::now() + std::time::Duration::from_millis(version * 4);
        testkit::until("the moment has come", SOON, || (std::time::Instant::now() >= due).then_some(()));
    }
    setpoint.wait_until_converged("api");
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "v25");
    assert_eq!(open_deployments(&setpoint), 0);
}
