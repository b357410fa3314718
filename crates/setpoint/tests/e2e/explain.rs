//! Why it is as it is: at every moment, for every kind of thing, and the same when decided again.

use testkit::{
    Setpoint,
    fixture::{QUICK, demo},
};

use crate::setpoint;

fn version(version: &str) -> String {
    demo(2, &[("VERSION", version), ("BOOT_DELAY_MS", "300")], QUICK)
}

/// A text that says something.
#[track_caller]
fn explain(setpoint: &Setpoint, subject: &str) -> String {
    let text = setpoint.ok(&["explain", subject]);
    assert!(text.trim().len() > 20, "{subject}: {text}");
    text
}

#[test]
fn every_moment_of_a_rollout_is_explained() {
    let setpoint = setpoint().manifest(&version("v1")).start();
    let mut texts = Vec::new();
    let mut deployed = false;
    let until_active = |number: u64, setpoint: &Setpoint, texts: &mut Vec<String>| {
        testkit::until("the deployment is active", testkit::setpoint::SOON, || {
            texts.push(explain(setpoint, "api"));
            let api = setpoint.service("api");
            for instance in api["instances"].as_array().unwrap() {
                // It may be gone by the time of the question.
                let output = setpoint.cli(&["explain", instance["id"].as_str().unwrap()]);
                assert!(output.code == 0 || output.stderr.contains("no "), "{output:?}");
            }
            if let Some(id) = api["deployment"]["id"].as_str() {
                explain(setpoint, id);
            }
            (api["deployment"]["number"] == number && api["state"] == "converged").then_some(())
        });
    };
    until_active(1, &setpoint, &mut texts);
    if !std::mem::replace(&mut deployed, true) {
        setpoint.apply_ok(&version("v2"), &[]);
    }
    until_active(2, &setpoint, &mut texts);
    texts.dedup();
    assert!(texts.len() > 2, "what is said follows what happens: {texts:#?}");
}

#[test]
fn a_failure_is_explained_with_its_reason() {
    let setpoint = setpoint().manifest(&version("v1")).start();
    setpoint.wait_until_converged("api");
    let bad =
        demo(2, &[("FAIL_START", "1")], &format!("{QUICK}\nrestart: {{ attempts: 1, backoff: 100ms }}"));
    assert_eq!(setpoint.apply(&bad, &["--wait=60s"]).code, 1);
    let failed = setpoint.deployments("api").iter().find(|d| d["number"] == 2).unwrap()["id"].clone();
    for subject in ["api", failed.as_str().unwrap()] {
        let text = explain(&setpoint, subject);
        assert!(text.contains("fail"), "{subject}: {text}");
    }
    let unknown = setpoint.cli(&["explain", "nobody"]);
    assert_eq!(unknown.code, 1, "{unknown:?}");
}

#[test]
fn what_is_gone_failed_or_was_cancelled_is_explained_too() {
    let setpoint = setpoint().manifest(&version("v1")).start();
    let first = setpoint.wait_until_converged("api");
    let bad =
        demo(2, &[("FAIL_START", "1")], &format!("{QUICK}\nrestart: {{ attempts: 1, backoff: 100ms }}"));
    setpoint.apply_ok(&bad, &[]);
    let mut failing = Vec::new();
    testkit::until("it has failed", testkit::setpoint::SOON, || {
        for instance in setpoint.service("api")["instances"].as_array().unwrap() {
            let id = instance["id"].as_str().unwrap().to_owned();
            if instance["release"] != first["instances"][0]["release"] && !failing.contains(&id) {
                failing.push(id);
            }
        }
        let deployments = setpoint.deployments("api");
        deployments.iter().any(|d| d["number"] == 2 && d["status"] == "failed").then_some(())
    });
    setpoint.wait_for_service("api", "the first release is back", |api| api["replicas"]["ready"] == 2);
    testkit::until("nothing is open", testkit::setpoint::SOON, || {
        setpoint.deployments("api").iter().all(|d| !d["ended_at"].is_null()).then_some(())
    });
    let slow = demo(2, &[("VERSION", "slow"), ("BOOT_DELAY_MS", "20000")], QUICK);
    setpoint.apply_ok(&slow, &[]);
    setpoint.wait_for_service("api", "a deployment is open", |api| api["deployment"]["phase"] == "starting");
    let cancelled = setpoint.service("api")["deployment"]["id"].as_str().unwrap().to_owned();
    assert!(explain(&setpoint, &cancelled).contains("starting"));
    setpoint.ok(&["cancel", &cancelled]);
    assert!(explain(&setpoint, &cancelled).contains("cancelled"));
    testkit::until("nothing is open", testkit::setpoint::SOON, || {
        setpoint.deployments("api").iter().all(|d| !d["ended_at"].is_null()).then_some(())
    });
    let told: Vec<(String, String)> = setpoint
        .deployments("api")
        .iter()
        .map(|d| (d["id"].as_str().unwrap().to_owned(), d["phase"].as_str().unwrap().to_owned()))
        .collect();
    for (id, phase) in &told {
        assert!(explain(&setpoint, id).contains(phase), "{id} is {phase}");
    }
    assert!(!failing.is_empty());
    for id in &failing {
        let text = explain(&setpoint, id);
        assert!(text.contains(id), "{text}");
    }
    // Deleted: the service, its instances and its deployments have been, and why they went is known.
    let last: Vec<String> = first["instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|instance| instance["id"].as_str().unwrap().to_owned())
        .collect();
    setpoint.ok(&["delete", "api", "--wait"]);
    assert!(explain(&setpoint, "api").contains("not declared"));
    for id in last.iter().chain(&failing) {
        assert!(explain(&setpoint, id).contains("gone"), "{id}");
    }
    // With the service its deployments are forgotten; what happened to them is among the events and the passes.
    for (id, _) in &told {
        let text = explain(&setpoint, id);
        assert!(text.contains("which was deleted") && text.contains("recorded:"), "{id}: {text}");
    }
    assert_eq!(setpoint.cli(&["explain", "aaaaaaaaaaaa"]).code, 1);
}

#[test]
fn recorded_decisions_are_decided_again_to_the_same() {
    let setpoint = setpoint().manifest(&version("v1")).start();
    setpoint.wait_until_converged("api");
    setpoint.apply_ok(&version("v2"), &["--wait"]);
    let explained = setpoint.json(&["explain", "api"]);
    let journal = explained["journal"].as_array().unwrap();
    assert!(journal.len() > 3, "{explained:#}");
    for line in journal {
        let seq = line["seq"].as_u64().unwrap().to_string();
        let replayed = setpoint.json(&["explain", "api", "--at", &seq]);
        assert_eq!(replayed["replay"]["identical"], true, "{replayed:#}");
        let text = setpoint.ok(&["explain", "api", "--at", &seq]);
        assert!(text.contains("identical") || text.contains("same"), "{text}");
    }
    let missing = setpoint.cli(&["explain", "api", "--at", "99999999"]);
    assert_eq!(missing.code, 1, "{missing:?}");
}
