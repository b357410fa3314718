//! Env values may be secrets: they are told by the declaration itself and nowhere else.

use serde_json::json;
use testkit::http::Request;

use super::bench::{Bench, declaration};

const CANARY: &str = "canary-7f3a9c";

#[test]
fn an_env_value_is_told_by_the_spec_alone() {
    let bench = Bench::start();
    let manifest = |command: &str| {
        format!(
            "services:\n  api:\n    command: [{command}]\n    env: {{ KEY: {CANARY} }}\n    \
             files: {{ app.conf: 'key={CANARY}' }}\n    deploy: {{ min_healthy: 0s }}\n"
        )
    };
    bench.apply(&manifest("/bin/a"));
    bench.wait_for_state("default/api", "converged");
    bench.apply(&manifest("/bin/b"));
    let deployment = bench.until("the second is active", || {
        let shown = bench.service("default/api").deployment.unwrap();
        (shown.number == 2 && shown.progress == 100).then_some(shown.id)
    });
    bench.post("/api/v1/services/default/api/rollback", &json!({}));
    bench.until("the third is active", || {
        let shown = bench.service("default/api").deployment.unwrap();
        (shown.number == 3 && shown.progress == 100).then_some(())
    });
    let instance = &bench.service("default/api").instances[0].id;

    let mut answers = vec![
        bench.post("/api/v1/plan", &declaration(&manifest("/bin/c"))).text(),
        bench.post("/api/v1/reconcile", &json!({"dry_run": true})).text(),
    ];
    for path in [
        "/api/v1/services".to_owned(),
        "/api/v1/services/default/api".into(),
        "/api/v1/services/default/api/deployments".into(),
        "/api/v1/services/default/api/drift".into(),
        "/api/v1/services/default/api/explain".into(),
        format!("/api/v1/deployments/{deployment}"),
        format!("/api/v1/deployments/{deployment}/explain"),
        format!("/api/v1/instances/{instance}/explain"),
        "/api/v1/events?after=0&limit=1000".into(),
        "/api/v1/audit?after=0".into(),
        "/api/v1/nodes".into(),
        "/metrics".into(),
        "/api/monitoring/stats".into(),
    ] {
        answers.push(bench.get(&path).text());
    }
    for seq in 1.. {
        let answer = bench.get(&format!("/api/v1/journal/{seq}?replay=true"));
        if answer.status != 200 {
            break;
        }
        answers.push(answer.text());
    }
    answers.extend(refusals(&bench));
    assert!(answers.len() > 30);
    for answer in answers {
        assert!(!answer.contains(CANARY), "{answer}");
    }
    let spec = bench.get("/api/v1/services/default/api/spec").text();
    assert!(spec.contains(CANARY), "the declaration itself is told whole: {spec}");
}

/// Declarations in which the value is in a wrong place, or beside a fault.
fn refusals(bench: &Bench) -> Vec<String> {
    let good = declaration(&format!("services: {{api: {{command: [/bin/a], env: {{KEY: {CANARY}}}}}}}"));
    let spoiled = |pointer: &str, value: serde_json::Value| {
        let mut body = good.clone();
        *body.pointer_mut(pointer).unwrap() = value;
        body
    };
    let spec = "/services/0/spec";
    let bodies = [
        spoiled(&format!("{spec}/env"), json!(CANARY)),
        spoiled(&format!("{spec}/env"), json!([CANARY])),
        spoiled(&format!("{spec}/env/KEY"), json!({ "value": CANARY })),
        spoiled(&format!("{spec}/env/KEY"), json!(format!("{CANARY}$"))),
        spoiled(&format!("{spec}/env/KEY"), json!(format!("{CANARY}${{NOPE}}"))),
        spoiled(&format!("{spec}/env/KEY"), json!(format!("{CANARY}\u{0}"))),
        spoiled(&format!("{spec}/replicas"), json!(CANARY)),
        spoiled(&format!("{spec}/health"), json!(CANARY)),
        spoiled(&format!("{spec}/workload"), json!(CANARY)),
    ];
    let mut refused: Vec<Request> =
        bodies.iter().map(|body| bench.json("POST", "/api/v1/apply", body)).collect();
    let cut = good.to_string();
    let cut = &cut[..cut.find(CANARY).unwrap() + CANARY.len() + 1];
    refused.push(bench.request("POST", "/api/v1/apply").header("Content-Type", "application/json").body(cut));
    let answers = refused.into_iter().map(|request| bench.send(request));
    answers
        .map(|answer| {
            assert!(matches!(answer.status, 400 | 422), "{}", answer.text());
            answer.text()
        })
        .collect()
}
