//! New releases under constant load: none of them costs a request, the bad ones least of all.

use testkit::{
    Load, Setpoint,
    fixture::{QUICK, demo},
    load::Options,
    setpoint::{SOON, pids},
};

use crate::{history::rendered, setpoint};

const VERSION: &str = "/env?name=VERSION";

fn version(version: &str) -> String {
    demo(2, &[("VERSION", version)], QUICK)
}

fn loads(options: impl Fn() -> Options) -> [Load; 2] {
    [options().rate(150).start(), options().rate(100).closing().start()]
}

#[test]
fn updates_in_a_row_under_load_cost_no_request() {
    let setpoint = setpoint().manifest(&version("v1")).start();
    setpoint.wait_until_converged("api");
    let loads = loads(|| setpoint.load("api.localhost", VERSION));
    for next in ["v2", "v3", "v4"] {
        setpoint.apply_ok(&version(next), &["--wait"]);
        assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), next);
        loads[0].go_on_for(20);
    }
    for load in loads {
        let report = load.stop();
        report.assert_clean(100);
        let sequence = report.sequence();
        assert_eq!((sequence.first(), sequence.last()), (Some(&"v1"), Some(&"v4")), "{sequence:?}");
    }
    let api = setpoint.wait_until_converged("api");
    assert_eq!(api["instances"].as_array().unwrap().len(), 2);
    assert_eq!(setpoint.workloads().len(), 2);
}

#[test]
fn long_requests_are_answered_by_the_instance_that_took_them() {
    let setpoint = setpoint().manifest(&version("v1")).start();
    setpoint.wait_until_converged("api");
    let load =
        setpoint.load("api.localhost", "/slow?ms=700").rate(8).check(|response| match response.status {
            200 => Ok("ok".into()),
            status => Err(format!("{status}: {}", response.text())),
        });
    let load = load.start();
    load.go_on_for(4);
    setpoint.apply_ok(&version("v2"), &["--wait"]);
    setpoint.wait_until_converged("api");
    load.stop().assert_clean(10);
}

/// The old release answers every request, and is whole again when the command comes back.
#[track_caller]
fn bad_release_never_serves(bad: &str, expected: &str) {
    let setpoint = setpoint().manifest(&version("good")).start();
    let before = setpoint.wait_until_converged("api");
    let loads = loads(|| setpoint.load("api.localhost", VERSION));
    let output = setpoint.apply(bad, &["--wait=60s"]);
    assert_eq!(output.code, 1, "{output:?}");
    let deployments = setpoint.deployments("api");
    let failed = deployments.iter().find(|d| d["number"] == 2).unwrap();
    assert_eq!((&failed["status"], &failed["phase"]), (&"failed".into(), &"failed".into()));
    assert!(failed["metadata"]["failed_phase"].is_string(), "{failed:#}");
    let error = failed["metadata"]["error"].as_str().unwrap();
    assert!(error.contains(expected), "{error}");
    let restored = &deployments[0];
    assert_eq!((&restored["number"], &restored["cause"]), (&3.into(), &"rollback".into()));
    assert_eq!(restored["status"], "active", "`--wait` returns once the old release serves");
    assert_eq!(restored["release"], deployments[2]["release"]);
    loads[0].go_on_for(20);
    for load in loads {
        let report = load.stop();
        report.assert_clean(50);
        assert_eq!(report.sequence(), ["good"]);
    }
    let after = setpoint.wait_until_state("api", "degraded");
    assert!(after["message"].as_str().unwrap().contains("failed"), "{after:#}");
    assert_eq!(pids(&after), pids(&before), "what ran well was not touched");
    assert_eq!(setpoint.workloads().len(), 2);
}

#[test]
fn a_release_that_is_never_healthy_fails_and_the_old_one_serves_throughout() {
    let bad = demo(
        2,
        &[("VERSION", "bad"), ("FAIL_HEALTH", "1")],
        &QUICK.replace("drain: 5s", "drain: 5s, deadline: 2s"),
    );
    bad_release_never_serves(&bad, "no progress within 2s");
}

#[test]
fn a_release_that_exits_at_start_fails_and_the_old_one_serves_throughout() {
    let more = format!("{QUICK}\nrestart: {{ attempts: 2, backoff: 100ms }}");
    bad_release_never_serves(&demo(2, &[("VERSION", "bad"), ("FAIL_START", "1")], &more), "exit");
}

#[test]
fn a_release_that_crashes_after_it_was_ready_does_not_become_active() {
    let more = "deploy: { min_healthy: 3s, drain: 1s }\nrestart: { attempts: 2, backoff: 100ms }\nstop: { grace: 1s }";
    let setpoint = setpoint().manifest(&version("good")).start();
    setpoint.wait_until_converged("api");
    let bad = demo(2, &[("VERSION", "bad"), ("CRASH_AFTER_MS", "600")], more);
    let output = setpoint.apply(&bad, &["--wait=60s"]);
    assert_eq!(output.code, 1, "{output:?}");
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "good");
    let api = setpoint.wait_until_state("api", "degraded");
    assert_eq!(api["replicas"]["ready"], 2);
}

/// What the processes that run now were given as VERSION.
fn given(setpoint: &Setpoint) -> Vec<String> {
    let environ = |pid| std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let version = |pid| {
        let text = String::from_utf8(environ(pid)).unwrap();
        text.split('\0').find_map(|variable| variable.strip_prefix("VERSION=").map(str::to_owned)).unwrap()
    };
    setpoint.workloads().into_iter().map(|workload| version(workload.pid)).collect()
}

#[test]
fn when_the_second_new_one_fails_the_replaced_first_comes_back_with_its_files_and_environment() {
    let release = |version: &str| {
        let more = format!("{QUICK}\nfiles: {{ config.txt: \"{version}\\n\" }}");
        let more = format!("{more}\nrestart: {{ attempts: 1, backoff: 50ms }}");
        demo(2, &[("VERSION", version)], &more)
    };
    let setpoint = setpoint().manifest(&release("old")).start();
    let before = pids(&setpoint.wait_until_converged("api"));
    let loads = loads(|| setpoint.load("api.localhost", VERSION));
    // Whoever makes the folder runs; every later one ends at once.
    let only_one =
        format!("[sh, -c, 'mkdir {}/one && exec ${{SETPOINT}} demo-app']", setpoint.work().display());
    let output =
        setpoint.apply(&release("new").replace("[\"${SETPOINT}\", demo-app]", &only_one), &["--wait=60s"]);
    assert_eq!(output.code, 1, "{output:?}");
    let after = pids(&setpoint.wait_until_state("api", "degraded"));
    testkit::until("only the old release runs", SOON, || (setpoint.workloads().len() == 2).then_some(()));
    loads[0].go_on_for(20);
    for load in loads {
        let report = load.stop();
        report.assert_clean(50);
        assert!(report.words().contains_key("new"), "the first new one was ready and served: {report}");
        assert_eq!(report.sequence().last(), Some(&"old"));
    }
    let kept = after.iter().filter(|pid| before.contains(pid)).count();
    assert_eq!(kept, 1, "one of {before:?} was replaced before the failure, the other never: {after:?}");
    assert_eq!(rendered(&setpoint), ["old\n", "old\n"]);
    assert_eq!(given(&setpoint), ["old", "old"]);
    let told: Vec<_> = setpoint.deployments("api").iter().map(|d| d["status"].clone()).collect();
    assert_eq!(told, ["active", "failed", "superseded"]);
}

#[test]
fn apply_wait_says_how_it_ended_by_its_status() {
    let setpoint = setpoint().start();
    let good = setpoint.apply(&version("v1"), &["--wait"]);
    assert_eq!(good.code, 0, "{good:?}");
    assert_eq!(setpoint.service("api")["state"], "converged");
    let unchanged = setpoint.apply(&version("v1"), &["--wait"]);
    assert_eq!(unchanged.code, 0, "{unchanged:?}");
    let slow = demo(2, &[("VERSION", "slow"), ("BOOT_DELAY_MS", "20000")], QUICK);
    let late = setpoint.apply(&slow, &["--wait=500ms"]);
    assert_eq!(late.code, 1, "out of time: {late:?}");
    let usage = setpoint.cli(&["apply", "-f", "app.yaml", "--wait=soon"]);
    assert_eq!(usage.code, 2, "{usage:?}");
}

#[test]
fn recreate_stops_the_old_before_the_new_starts() {
    let recreate = |version: &str| {
        demo(
            1,
            &[("VERSION", version)],
            "deploy: { strategy: recreate, min_healthy: 100ms }\nstop: { grace: 1s }",
        )
    };
    let setpoint = setpoint().manifest(&recreate("v1")).start();
    setpoint.wait_until_converged("api");
    setpoint.apply_ok(&recreate("v2"), &["--wait"]);
    let events = setpoint.events();
    let seq = |kind: &str, last: bool| {
        let mut of_kind = events.iter().filter(|e| e["kind"] == kind).map(|e| e["seq"].as_u64().unwrap());
        if last { of_kind.next_back() } else { of_kind.next() }
    };
    assert!(seq("instance.gone", false) < seq("instance.started", true), "{events:#?}");
    assert!(seq("instance.gone", false).is_some());
}
