//! Workloads that die, hang or never come up.

use serde_json::Value;
use testkit::{
    fixture::{QUICK, demo},
    proc,
    setpoint::{SOON, pids},
};

use crate::setpoint;

fn addresses(service: &Value) -> Vec<&str> {
    service["instances"].as_array().unwrap().iter().map(|i| i["address"].as_str().unwrap()).collect()
}

#[test]
fn a_killed_workload_is_restarted_in_place_and_no_request_is_lost() {
    let setpoint = setpoint().manifest(&demo(2, &[], QUICK)).start();
    let before = setpoint.wait_until_converged("api");
    let load = setpoint.load("api.localhost", "/env?name=SETPOINT_INSTANCE").rate(300).start();
    load.go_on_for(100);
    for slot in [0, 1, 0] {
        let now = setpoint.wait_until_converged("api");
        let victim = now["instances"][slot]["pid"].as_u64().unwrap();
        proc::kill9(u32::try_from(victim).unwrap());
        setpoint.wait_for_service("api", "another process runs in its place", |api| {
            api["state"] == "converged" && api["instances"][slot]["pid"].as_u64() != Some(victim)
        });
        load.go_on_for(50);
    }
    let after = setpoint.wait_until_converged("api");
    load.stop().assert_clean(250);
    assert_eq!(addresses(&after), addresses(&before));
    for (slot, restarts) in [(0, 2), (1, 1)] {
        assert_eq!(after["instances"][slot]["id"], before["instances"][slot]["id"]);
        assert_eq!(after["instances"][slot]["restarts"], restarts);
    }
    setpoint.wait_for_event("instance.exited", &["signal 9"]);
}

#[test]
fn an_unhealthy_workload_is_restarted_and_others_answer_meanwhile() {
    let health = "health: { liveness: { http: /healthz, interval: 100ms, fall: 2 }, \
                  readiness: { http: /healthz, interval: 100ms } }";
    let demo = demo(2, &[("UNHEALTHY_AFTER_MS", "1500")], QUICK).replace("health: /healthz", health);
    let setpoint = setpoint().manifest(&demo).start();
    setpoint.wait_until_converged("api");
    setpoint.wait_for_service("api", "one was restarted", |api| {
        api["instances"].as_array().unwrap().iter().any(|i| i["restarts"].as_u64() > Some(0))
    });
    setpoint.wait_for_event("instance.unready", &[]);
    setpoint.wait_for_event("instance.exited", &["is ended and started again: unhealthy: "]);
}

#[test]
fn what_died_while_setpoint_was_away_is_told_of() {
    let mut setpoint = setpoint().manifest(&demo(1, &[], QUICK)).start();
    let victim = pids(&setpoint.wait_until_converged("api"))[0];
    setpoint.kill9();
    proc::kill9(victim);
    setpoint.restart();
    setpoint.wait_for_event("instance.exited", &["ended while nobody watched"]);
    assert_ne!(pids(&setpoint.wait_until_converged("api"))[0], victim);
}

#[test]
fn what_cannot_be_started_is_told_with_what_is_missing() {
    let yaml = "services:\n  lost:\n    command: [sh, -c, 'exec sleep 1000']\n    workdir: /nowhere/at/all\n    \
                restart: { backoff: 50ms, max_backoff: 100ms, attempts: 4 }\n";
    let setpoint = setpoint().manifest(yaml).start();
    let lost = setpoint.wait_until_state("lost", "failed");
    setpoint.wait_for_event("instance.failed", &["/nowhere/at/all"]);
    assert!(lost["message"].as_str().unwrap().contains("/nowhere/at/all"), "{lost:#}");
    let explained = setpoint.ok(&["explain", "lost"]);
    assert!(explained.contains("/nowhere/at/all"), "{explained}");
    assert!(!explained.contains("no reason"), "{explained}");
}

#[test]
fn what_keeps_dying_fails_with_its_reason_and_its_output_is_kept() {
    let yaml = "services:\n  boom:\n    command: [sh, -c, 'echo last words $$$$; exit 7']\n    \
                restart: { backoff: 50ms, max_backoff: 100ms, attempts: 2 }\n";
    let setpoint = setpoint().manifest(yaml).start();
    let boom = setpoint.wait_until_state("boom", "failed");
    assert!(boom["message"].as_str().unwrap().contains('7'), "{boom:#}");
    let deployment = &setpoint.deployments("boom")[0];
    assert_eq!(deployment["status"], "failed", "{deployment:#}");
    assert!(deployment["metadata"]["error"].as_str().unwrap().contains('7'), "{deployment:#}");
    assert_eq!(deployment["metadata"]["failed_phase"], deployment["metadata"]["failed_phase"]);
    assert!(deployment["progress"].as_u64().unwrap() < 100);
    let logs = setpoint.ok(&["logs", "boom"]);
    assert!(logs.contains("last words"), "{logs}");
    let starts = logs.matches("last words").count();
    assert!((2..=4).contains(&starts), "the first start and two more attempts: {logs}");
    // Nobody starts it again: the budget is spent.
    setpoint.ok(&["reconcile"]);
    assert_eq!(setpoint.ok(&["logs", "boom"]).matches("last words").count(), starts);
    assert!(setpoint.workloads().is_empty());
}

#[test]
fn what_keeps_dying_is_reported_with_its_last_100_lines() {
    let dying = "services:\n  boom:\n    command: [sh, -c, 'seq -f \"said %.0f\" 250; exit 7']\n    \
                 restart: { backoff: 50ms, max_backoff: 100ms, attempts: 2 }\n";
    let setpoint = setpoint().manifest(dying).start();
    let boom = setpoint.wait_until_state("boom", "failed");
    let expected: Vec<String> = (151..=250).map(|number| format!("said {number}")).collect();
    // Kept with the deployment that failed, and told with the instance for as long as it is there.
    let deployment = &setpoint.deployments("boom")[0];
    assert_eq!(deployment["status"], "failed");
    assert_eq!(deployment["metadata"]["output"], serde_json::json!(expected), "{deployment:#}");
    let instance = boom["instances"][0]["id"].as_str().unwrap();
    assert_eq!(deployment["metadata"]["output_of"], instance);
    let id = deployment["id"].as_str().unwrap();
    for subject in ["boom", instance, id] {
        assert_eq!(setpoint.json(&["explain", subject])["output"], serde_json::json!(expected), "{subject}");
        let text = setpoint.ok(&["explain", subject]);
        assert!(text.contains("    said 151\n") && text.contains("    said 250\n"), "{subject}: {text}");
        assert!(!text.contains("said 150"), "{subject}: {text}");
    }
    // A release that stays up says no last words, and those of the failed one are still there.
    setpoint
        .apply_ok("services:\n  boom:\n    command: [sleep, '1000']\n    stop: { grace: 1s }\n", &["--wait"]);
    assert_eq!(setpoint.json(&["explain", "boom"])["output"], serde_json::json!([]));
    let failed = setpoint.deployments("boom").into_iter().find(|d| d["id"] == id).unwrap();
    assert_eq!(failed["metadata"]["output"], serde_json::json!(expected));
}

#[test]
fn the_first_restart_is_immediate() {
    let setpoint = setpoint().manifest(&demo(1, &[], QUICK)).start();
    let api = setpoint.wait_until_converged("api");
    let began = std::time::Instant::now();
    proc::kill9(pids(&api)[0]);
    testkit::until("it answers again", SOON, || {
        let answer = setpoint.try_get("api.localhost", "/").ok()?;
        (answer.status == 200 && setpoint.service("api")["instances"][0]["restarts"] == 1).then_some(())
    });
    assert!(began.elapsed().as_millis() < 1500, "it took {:?}", began.elapsed());
}

#[test]
fn a_workload_that_forks_leaves_no_child_behind() {
    let yaml = "services:\n  family:\n    command: [sh, -c, 'sleep 1000 & sleep 1000 & wait']\n    \
                stop: { grace: 1s }\n";
    let setpoint = setpoint().manifest(yaml).start();
    setpoint.wait_until_converged("family");
    testkit::until("parent and children run", SOON, || (setpoint.workloads().len() == 3).then_some(()));
    setpoint.ok(&["delete", "family", "--wait"]);
    assert_eq!(setpoint.workloads(), []);
}

#[test]
fn a_kill_of_setpoint_resets_no_budget_of_restarts() {
    let yaml = "services:\n  boom:\n    command: [sh, -c, 'echo last words; sleep 0.3; exit 7']\n    \
                restart: { backoff: 200ms, max_backoff: 400ms, attempts: 3 }\n";
    let mut setpoint = setpoint().manifest(yaml).start();
    let starts =
        |setpoint: &testkit::Setpoint| setpoint.cli(&["logs", "boom"]).stdout.matches("last words").count();
    for seen in [1, 2, 3] {
        testkit::until("it was started once more", SOON, || (starts(&setpoint) >= seen).then_some(()));
        setpoint.kill9();
        setpoint.set_args(&[]);
        setpoint.restart();
    }
    let boom = setpoint.wait_until_state("boom", "failed");
    assert!(starts(&setpoint) <= 4, "one start and three attempts: {}", starts(&setpoint));
    assert!(boom["instances"][0]["restarts"].as_u64().unwrap() >= 2, "{boom:#}");
}

#[test]
fn a_workload_that_ignores_the_signal_is_killed_after_its_grace() {
    let yaml = "services:\n  deaf:\n    command: [sh, -c, \"trap '' TERM; while :; do sleep 0.05; done\"]\n    \
                stop: { grace: 700ms }\n";
    let mut setpoint = setpoint().manifest(yaml).start();
    setpoint.wait_until_converged("deaf");
    let began = std::time::Instant::now();
    setpoint.ok(&["stop", "deaf", "--wait"]);
    assert_eq!(setpoint.workloads(), []);
    assert!(began.elapsed().as_millis() >= 700, "it has its time: {:?}", began.elapsed());
    setpoint.ok(&["start", "deaf", "--wait"]);
    setpoint.wait_until_converged("deaf");
    // Also when Setpoint itself ends.
    setpoint.stop();
}

#[test]
fn a_hanging_workload_is_taken_out_and_restarted() {
    let health = "health: { liveness: { http: /healthz, interval: 200ms, timeout: 300ms, fall: 2 }, \
                  readiness: { http: /healthz, interval: 200ms, timeout: 300ms, fall: 1 } }";
    let setpoint = setpoint().manifest(&demo(2, &[], QUICK).replace("health: /healthz", health)).start();
    let api = setpoint.wait_until_converged("api");
    let victim = pids(&api)[0];
    proc::stop(victim);
    let after = setpoint.wait_for_service("api", "another process answers in its place", |api| {
        api["state"] == "converged" && !pids(api).contains(&victim)
    });
    assert_eq!(after["instances"][0]["id"], api["instances"][0]["id"]);
    assert_eq!(after["instances"][0]["restarts"], 1);
    assert!(!proc::is_alive(victim), "a stopped process is killed too");
}
