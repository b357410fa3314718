//! In which order old and new come and go, and what becomes of a release that fails.

use std::{collections::BTreeSet, fs};

use serde_json::Value;
use testkit::{
    Load, Setpoint,
    fixture::{QUICK, demo},
    setpoint::{SOON, pids},
};

use crate::{history::rendered, setpoint};

const VERSION: &str = "/env?name=VERSION";

fn with_deploy(replicas: u32, version: &str, deploy: &str) -> String {
    let more = format!("deploy: {{ min_healthy: 200ms, drain: 5s, {deploy} }}\nstop: {{ grace: 2s }}");
    demo(replicas, &[("VERSION", version)], &more)
}

/// Requests that may find nobody, and may not fail otherwise.
fn load_that_may_wait(setpoint: &Setpoint) -> Load {
    let load = setpoint.load("api.localhost", VERSION).check(|response| match response.status {
        200 => Ok(response.text().trim().to_owned()),
        503 => Ok("nobody".into()),
        status => Err(format!("{status}: {}", response.text())),
    });
    load.start()
}

/// Those that served, in their order.
#[track_caller]
fn served(load: Load) -> Vec<String> {
    let report = load.stop();
    report.assert_clean(50);
    let mut served: Vec<_> =
        report.sequence().into_iter().filter(|word| *word != "nobody").map(str::to_owned).collect();
    served.dedup();
    served
}

/// What lived after each coming and going of an instance.
fn living(setpoint: &Setpoint) -> Vec<BTreeSet<String>> {
    let mut now = BTreeSet::new();
    let mut all = Vec::new();
    for event in setpoint.events() {
        let instance = event["instance"].as_str().unwrap_or_default().to_owned();
        match event["kind"].as_str().unwrap() {
            "instance.started" => now.insert(instance),
            "instance.gone" => now.remove(&instance),
            _ => continue,
        };
        all.push(now.clone());
    }
    all
}

fn ids(service: &Value) -> BTreeSet<String> {
    let instances = service["instances"].as_array().unwrap().iter();
    instances.map(|instance| instance["id"].as_str().unwrap().to_owned()).collect()
}

/// How each deployment ended and why there was one, the newest first.
fn told(setpoint: &Setpoint) -> Vec<(String, String)> {
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    setpoint.deployments("api").iter().map(|d| (word(&d["status"]), word(&d["cause"]))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(status, cause)| ((*status).to_owned(), (*cause).to_owned())).collect()
}

#[test]
fn recreate_has_every_old_one_gone_before_the_first_new_one_starts() {
    let release = |version: &str| with_deploy(3, version, "strategy: recreate");
    let setpoint = setpoint().manifest(&release("v1")).start();
    let old = ids(&setpoint.wait_until_converged("api"));
    let load = load_that_may_wait(&setpoint);
    load.go_on_for(20);
    setpoint.apply_ok(&release("v2"), &["--wait"]);
    load.go_on_for(20);
    assert_eq!(served(load), ["v1", "v2"]);
    let new = ids(&setpoint.wait_until_converged("api"));
    assert_eq!((new.len(), new.intersection(&old).count()), (3, 0));
    for together in living(&setpoint) {
        let mixed = !together.is_disjoint(&old) && !together.is_disjoint(&new);
        assert!(!mixed, "old and new ones at once: {together:?}");
    }
    assert_eq!(setpoint.workloads().len(), 3);
}

#[test]
fn stop_first_never_has_more_than_declared_and_costs_no_request_while_others_serve() {
    let release = |version: &str| with_deploy(3, version, "order: stop-first, parallelism: 1");
    let setpoint = setpoint().manifest(&release("v1")).start();
    setpoint.wait_until_converged("api");
    let load = setpoint.load("api.localhost", VERSION).start();
    let closing = setpoint.load("api.localhost", VERSION).rate(50).closing().start();
    load.go_on_for(20);
    setpoint.apply_ok(&release("v2"), &["--wait"]);
    load.go_on_for(20);
    closing.stop().assert_clean(20);
    let report = load.stop();
    report.assert_clean(50);
    assert_eq!((report.sequence()[0], report.sequence().last()), ("v1", Some(&"v2")));
    let counts: Vec<_> = living(&setpoint).iter().map(BTreeSet::len).collect();
    assert!(counts.iter().all(|count| *count <= 3), "{counts:?}");
    let lowest = counts.iter().skip_while(|count| **count < 3).min();
    assert_eq!(lowest, Some(&2), "one at a time: {counts:?}");
}

#[test]
fn a_bad_release_with_recreate_gives_way_to_the_earlier_one() {
    let good = with_deploy(2, "good", "strategy: recreate");
    let bad = with_deploy(2, "bad", "strategy: recreate, deadline: 2s")
        .replace("    env:\n", "    env:\n      FAIL_HEALTH: \"1\"\n");
    let setpoint = setpoint().manifest(&good).start();
    setpoint.wait_until_converged("api");
    let load = load_that_may_wait(&setpoint);
    load.go_on_for(20);
    let output = setpoint.apply(&bad, &["--wait=60s"]);
    assert_eq!(output.code, 1, "{output:?}");
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "good", "it serves when `--wait` ends");
    load.go_on_for(20);
    assert_eq!(served(load), ["good"]);
    let expected = [("active", "rollback"), ("failed", "apply"), ("superseded", "apply")];
    assert_eq!(told(&setpoint), pairs(&expected));
    setpoint.wait_for_service("api", "the earlier one is whole", |api| {
        api["state"] == "degraded" && api["replicas"]["ready"] == 2
    });
    assert_eq!(setpoint.workloads().len(), 2);
}

/// A release that fails, where that leaves everything as it is.
fn paused() -> (Setpoint, BTreeSet<u32>) {
    let good = with_deploy(2, "v1", "on_failure: pause");
    let setpoint = setpoint().manifest(&good).start();
    let old: BTreeSet<u32> = pids(&setpoint.wait_until_converged("api")).into_iter().collect();
    let bad = with_deploy(2, "v2", "on_failure: pause")
        .replace("    env:\n", "    env:\n      FAIL_START: \"3\"\n")
        .replace("    stop:", "    restart: { attempts: 1, backoff: 50ms }\n    stop:");
    let output = setpoint.apply(&bad, &["--wait=60s"]);
    assert_eq!(output.code, 1, "{output:?}");
    (setpoint, old)
}

#[test]
fn pause_leaves_the_failed_release_beside_the_serving_one_and_says_how_to_go_on() {
    let (setpoint, old) = paused();
    let load = setpoint.load("api.localhost", VERSION).start();
    for _ in 0..3 {
        setpoint.ok(&["reconcile"]);
    }
    assert_eq!(told(&setpoint), pairs(&[("failed", "apply"), ("active", "apply")]));
    let api = setpoint.wait_until_state("api", "degraded");
    let now: BTreeSet<u32> = setpoint.workloads().iter().map(|workload| workload.pid).collect();
    assert_eq!(now, old, "nothing is replaced and nothing is brought back");
    let message = api["message"].as_str().unwrap();
    assert!(message.contains("failed"), "{message}");
    let explained = setpoint.ok(&["explain", "api"]);
    for words in ["apply a corrected declaration", "`setpoint deploy`", "`setpoint rollback`"] {
        assert!(explained.contains(words), "no `{words}` in {explained}");
    }
    let report = load.stop();
    report.assert_clean(20);
    assert_eq!(report.sequence(), ["v1"]);
}

#[test]
fn after_a_pause_a_rollback_takes_the_failed_release_away_and_keeps_what_serves() {
    let (setpoint, old) = paused();
    let load = setpoint.load("api.localhost", VERSION).start();
    setpoint.ok(&["rollback", "api", "--wait"]);
    let api = setpoint.wait_until_converged("api");
    assert_eq!(pids(&api).into_iter().collect::<BTreeSet<u32>>(), old);
    let report = load.stop();
    report.assert_clean(5);
    assert_eq!(report.sequence(), ["v1"]);
    let expected = [("active", "rollback"), ("failed", "apply"), ("superseded", "apply")];
    assert_eq!(told(&setpoint), pairs(&expected));
    assert_eq!(setpoint.workloads().len(), 2);
}

#[test]
fn after_a_pause_a_better_release_goes_on() {
    let (setpoint, _) = paused();
    let load = setpoint.load("api.localhost", VERSION).start();
    setpoint.apply_ok(&with_deploy(2, "v3", "on_failure: pause"), &["--wait"]);
    setpoint.wait_until_converged("api");
    load.go_on_for(10);
    let report = load.stop();
    report.assert_clean(20);
    assert_eq!((report.sequence()[0], report.sequence().last()), ("v1", Some(&"v3")));
    let expected = [("active", "apply"), ("failed", "apply"), ("superseded", "apply")];
    assert_eq!(told(&setpoint), pairs(&expected));
    assert_eq!(setpoint.workloads().len(), 2);
}

#[test]
fn a_restoration_brings_back_command_domains_health_files_and_environment() {
    let release = |version: &str, more: &str| {
        let more = format!("{QUICK}\nfiles: {{ config.txt: \"{version}\\n\" }}\n{more}");
        demo(2, &[("VERSION", version)], &more)
    };
    let setpoint = setpoint().manifest(&release("old", "")).start();
    let before = setpoint.wait_until_converged("api");
    let load = setpoint.load("api.localhost", VERSION).start();
    let bad = release("new", "restart: { attempts: 1, backoff: 50ms }")
        .replace("api.localhost", "new.localhost")
        .replace("health: /healthz", "health: /nothing-there")
        .replace("demo-app]", "demo-app, further]")
        .replace("drain: 5s", "drain: 5s, deadline: 2s");
    let output = setpoint.apply(&bad, &["--wait=60s"]);
    assert_eq!(output.code, 1, "{output:?}");
    let after = setpoint.wait_for_service("api", "the earlier one is whole", |api| {
        api["state"] == "degraded" && api["replicas"]["ready"] == 2
    });
    testkit::until("only the old release runs", SOON, || (setpoint.workloads().len() == 2).then_some(()));
    load.go_on_for(10);
    let report = load.stop();
    report.assert_clean(50);
    assert_eq!(report.sequence(), ["old"]);
    assert_eq!(after["urls"], before["urls"]);
    assert_eq!(setpoint.get("new.localhost", "/").status, 404);
    assert_eq!(rendered(&setpoint), ["old\n", "old\n"]);
    for workload in setpoint.workloads() {
        let command = fs::read(format!("/proc/{}/cmdline", workload.pid)).unwrap();
        assert!(command.ends_with(b"demo-app\0"), "{}", String::from_utf8_lossy(&command));
    }
    // The health of the old release is asked for again: what does not answer to it is taken out.
    let victim = pids(&after)[0];
    testkit::proc::kill9(victim);
    setpoint.wait_for_service("api", "it is healed by the old release's own checks", |api| {
        api["replicas"]["ready"] == 2 && !pids(api).contains(&victim)
    });
}

/// It runs for as long as the file is there when it starts.
fn while_there(setpoint: &Setpoint, version: &str, deploy: &str) -> String {
    let file = setpoint.work().join("good");
    let command = format!("[sh, -c, 'test -e {} && exec ${{SETPOINT}} demo-app']", file.display());
    with_deploy(1, version, deploy)
        .replace("[\"${SETPOINT}\", demo-app]", &command)
        .replace("    stop:", "    restart: { attempts: 1, backoff: 50ms }\n    stop:")
}

#[test]
fn a_restoration_that_fails_is_not_restored_and_the_next_good_release_goes_on() {
    let setpoint = setpoint().start();
    fs::write(setpoint.work().join("good"), "").unwrap();
    setpoint.apply_ok(&while_there(&setpoint, "v1", "strategy: recreate"), &["--wait"]);
    fs::remove_file(setpoint.work().join("good")).unwrap();
    let output = setpoint.apply(&while_there(&setpoint, "v2", "strategy: recreate"), &["--wait=60s"]);
    assert_eq!(output.code, 1, "{output:?}");
    let api = setpoint.wait_until_state("api", "failed");
    for _ in 0..3 {
        setpoint.ok(&["reconcile"]);
    }
    let expected = [("failed", "rollback"), ("failed", "apply"), ("superseded", "apply")];
    let ended = told(&setpoint);
    assert_eq!(ended[..2], pairs(&expected)[..2], "one restoration and no more: {ended:?}");
    assert_eq!(ended.len(), 3, "{ended:?}");
    assert!(api["message"].as_str().unwrap().contains("failed"), "{api:#}");
    assert_eq!(setpoint.workloads(), []);
    fs::write(setpoint.work().join("good"), "").unwrap();
    setpoint.apply_ok(&while_there(&setpoint, "v3", "strategy: recreate"), &["--wait"]);
    setpoint.wait_until_converged("api");
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "v3");
}

#[test]
fn a_rollback_by_hand_that_fails_is_not_undone_and_what_serves_serves_on() {
    let setpoint = setpoint().start();
    fs::write(setpoint.work().join("good"), "").unwrap();
    setpoint.apply_ok(&while_there(&setpoint, "v1", "on_failure: rollback"), &["--wait"]);
    setpoint.apply_ok(&while_there(&setpoint, "v2", "on_failure: rollback"), &["--wait"]);
    let before = pids(&setpoint.wait_until_converged("api"));
    fs::remove_file(setpoint.work().join("good")).unwrap();
    let load = setpoint.load("api.localhost", VERSION).start();
    let output = setpoint.cli(&["rollback", "api", "--wait=60s"]);
    assert_eq!(output.code, 1, "{output:?}");
    setpoint.wait_until_state("api", "degraded");
    for _ in 0..3 {
        setpoint.ok(&["reconcile"]);
    }
    assert_eq!(
        told(&setpoint),
        pairs(&[("failed", "rollback"), ("active", "apply"), ("superseded", "apply")])
    );
    assert_eq!(setpoint.workloads().iter().map(|workload| workload.pid).collect::<Vec<_>>(), before);
    load.go_on_for(10);
    let report = load.stop();
    report.assert_clean(10);
    assert_eq!(report.sequence(), ["v2"]);
}
