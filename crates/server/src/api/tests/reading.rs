//! What is shown, in the words that scripts rely on.

use std::time::Duration;

use serde_json::{Value, json};

use super::bench::{API, Bench};

#[test]
fn status_has_the_promised_shape() {
    let bench = Bench::start();
    bench.apply(API);
    bench.wait_for_state("default/api", "converged");
    let status = bench.read("/api/v1/services");
    let service = &status["services"][0];
    let shown = json!({
        "project": service["project"], "name": service["name"], "kind": service["kind"], "state": service["state"],
        "message": service["message"], "replicas": service["replicas"], "urls": service["urls"],
    });
    assert_eq!(
        shown,
        json!({
            "project": "default", "name": "api", "kind": "process", "state": "converged", "message": "",
            "replicas": {"desired": 2, "ready": 2},
            "urls": ["http://api.localhost:8080", "http://demo.localhost:8080/api"],
        })
    );
    assert!(service["generation"].as_u64().unwrap() >= 1);
    assert_eq!(
        (&service["deployment"]["number"], &service["deployment"]["phase"]),
        (&json!(1), &json!("active"))
    );
    assert_eq!(service["deployment"]["progress"], 100);
    let instance = &service["instances"][0];
    assert_eq!(instance["deployment"], service["deployment"]["id"]);
    for (field, value) in [
        ("ordinal", json!(0)),
        ("node", json!("local")),
        ("state", json!("running")),
        ("ready", json!(true)),
        ("pid", json!(4711)),
        ("address", json!("127.0.0.1:31000")),
        ("restarts", json!(0)),
    ] {
        assert_eq!(instance[field], value, "{field}");
    }
    assert_eq!(service["instances"].as_array().unwrap().len(), 2);
    assert_eq!(bench.read("/api/v1/services/default/api")["services"][0], *service);
}

#[test]
fn instances_that_nobody_has_told_of_are_not_ready() {
    let bench = Bench::start();
    bench.apply(API);
    bench.wait_for_state("default/api", "converged");
    bench.node_reports.store(false, std::sync::atomic::Ordering::SeqCst);
    bench.post("/api/v1/services/default/api/scale", &json!({"replicas": 3}));
    let service = bench.until("a third is placed", || {
        let service = bench.service("default/api");
        (service.instances.len() == 3).then_some(service)
    });
    let third = service.instances.iter().find(|instance| instance.ordinal == 2).unwrap();
    assert!(!third.ready && matches!(third.state.as_str(), "pending" | "unknown"), "{third:?}");
}

#[test]
fn drift_is_told_field_by_field() {
    let bench = Bench::start();
    bench.apply(
        "services: {drifting: {command: [/bin/a], deploy: {min_healthy: 0s}}, calm: {command: [/bin/b]}}",
    );
    let drift = bench.until("drift is seen", || {
        let drift = bench.read("/api/v1/services/default/drifting/drift");
        (drift["drift"].as_array().unwrap().len() == 1).then_some(drift)
    });
    let found = &drift["drift"][0];
    assert_eq!(found["path"], "files/config.yaml");
    assert_eq!((&found["declared"], &found["observed"]), (&json!("sha256:aaaa"), &json!("sha256:bbbb")));
    assert_eq!(found["since"], "2026-11-21T09:30:00.000Z");
    assert_eq!(found["by"], Value::Null);
    assert_eq!(bench.read("/api/v1/drift"), drift);
    assert_eq!(bench.read("/api/v1/services/default/calm/drift"), json!({"drift": []}));
}

#[test]
fn operators_get_the_promised_fields() {
    let bench = Bench::start();
    bench.apply(API);
    bench.wait_for_state("default/api", "converged");
    let health = bench.read("/api/monitoring/health");
    assert_eq!(health["containers"], json!({"total": 2, "healthy": 2, "unhealthy": 0, "stopped": 0}));
    assert_eq!((&health["zombies"], &health["isLeader"]), (&json!(1), &json!(true)));
    assert!(health["timestamp"].as_str().unwrap().ends_with('Z'));
    let stats = bench.read("/api/monitoring/stats");
    let mut names: Vec<&str> = stats.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "activeProjects",
            "averageDeploymentTime",
            "brokenSymlinks",
            "deploymentsInProgress",
            "deploymentsStuck",
            "lastReconciliationTime",
            "missingDeployments",
            "reconciliationDuration",
            "reconciliationErrors",
            "runningContainers",
            "stoppedContainers",
            "unhealthyContainers",
            "zombieContainers",
        ]
    );
    assert_eq!((&stats["runningContainers"], &stats["activeProjects"]), (&json!(2), &json!(1)));
    assert_eq!(bench.read("/api/monitoring/deployments/stuck"), json!({"deployments": []}));
    let triggered = bench.send(bench.request("POST", "/api/monitoring/reconcile/trigger"));
    assert_eq!((triggered.status, &triggered.json()["success"]), (202, &json!(true)));
}

#[test]
fn health_and_metrics_are_told() {
    let bench = Bench::start();
    bench.apply(API);
    bench.wait_for_state("default/api", "converged");
    assert_eq!(bench.get("/health").status, 200);
    assert_eq!(bench.get("/ready").status, 200);
    bench.get("/api/v1/nothing/at/all");
    let metrics = bench.get("/metrics").text();
    for line in [
        "setpoint_services{state=\"converged\"} 1",
        "setpoint_instances{kind=\"process\",state=\"running\"} 2",
        "setpoint_deployments{phase=\"active\"} 1",
        "setpoint_leader 1",
        "setpoint_pass_errors_total 0",
        "# TYPE setpoint_passes_total counter",
        "setpoint_api_requests_total{method=\"POST\",route=\"/api/v1/apply\",status=\"200\"} 1",
        "setpoint_api_requests_total{method=\"GET\",route=\"none\",status=\"404\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    bench.control.stop();
    assert_eq!(bench.get("/ready").status, 503, "one that decides nothing is not ready");
    assert_eq!(bench.get("/health").status, 200);
}

#[test]
fn a_node_that_does_not_take_its_assignment_is_told_of_until_it_does() {
    let bench = Bench::start();
    bench.apply(API);
    bench.wait_for_state("default/api", "converged");
    let node = "local".parse().unwrap();
    for (why, status) in [(Some("it is of cluster b"), 503), (None, 200)] {
        bench.control.assigned(&node, why.map(Into::into));
        let ready = bench.get("/ready");
        assert_eq!(ready.status, status);
        assert_eq!(ready.text().contains("node local does not take its assignment: it is of"), why.is_some());
        assert_eq!(bench.read("/api/v1/nodes")["nodes"][0]["refuses"], json!(why));
        let service = bench.read("/api/v1/services/default/api");
        let instance = service["services"][0]["instances"][0]["id"].as_str().unwrap();
        for path in
            ["services/default/api", "services/default/api/explain", &format!("instances/{instance}/explain")]
        {
            // The journal goes on telling what was so.
            let told = || {
                let shown = bench.read(&format!("/api/v1/{path}"));
                let now = shown.get("steps").unwrap_or(&shown["services"]).to_string();
                now.contains("node local does not take")
            };
            testkit::until(path, Duration::from_secs(10), || (told() == why.is_some()).then_some(()));
        }
    }
}

#[test]
fn the_audit_trail_tells_who_asked_and_is_whole() {
    let bench = Bench::start();
    bench.apply(API);
    bench.post("/api/v1/services/default/api/scale", &json!({"replicas": 1}));
    let audit = bench.read("/api/v1/audit?after=0");
    let told: Vec<_> =
        audit["audit"].as_array().unwrap().iter().map(|row| (&row["action"], &row["subject"])).collect();
    assert_eq!(told, [(&json!("apply"), &json!("default/api")), (&json!("scale"), &json!("default/api"))]);
    assert_eq!(bench.read("/api/v1/audit?after=1")["audit"].as_array().unwrap().len(), 1);
    let verified = bench.read("/api/v1/audit/verify");
    assert_eq!((&verified["intact"], &verified["rows"]), (&json!(true), &json!(2)));
}

#[test]
fn nodes_schema_and_a_dry_run_are_told() {
    let bench = Bench::start();
    bench.apply(API);
    bench.wait_for_state("default/api", "converged");
    let nodes = bench.read("/api/v1/nodes");
    let node = &nodes["nodes"][0];
    assert_eq!((&node["id"], &node["state"], &node["instances"]), (&json!("local"), &json!("up"), &json!(2)));
    assert_eq!(node["strangers"][0]["what"], "process 7");
    assert!(bench.read("/api/v1/schema")["properties"]["services"].is_object());
    let would = bench.post("/api/v1/reconcile", &json!({"dry_run": true, "service": "default/api"}));
    assert_eq!((would.status, &would.json()["triggered"]), (200, &json!(false)));
    assert_eq!(would.json()["services"], json!([]), "at rest, a pass would do nothing");
}

#[test]
fn an_edge_apart_fetches_newer_tables_and_reports() {
    let bench = Bench::start();
    let first = bench.read("/api/v1/edges/routes");
    let nothing_newer = bench.get(&format!("/api/v1/edges/routes?after={}", first["revision"]));
    assert_eq!(nothing_newer.status, 204);
    let report = |edge: &str, at: u64| {
        let report = json!({"edge": edge, "boot": "b", "at": at, "served": 0, "in_flight": {}});
        bench.post("/api/v1/edges/report?address=127.0.0.1:9999", &report).status
    };
    assert_eq!(report("apart", 0), 204);
    assert_eq!(report("Not A Name", 0), 422);
    bench.apply(API);
    // The edge apart serves nothing yet, so the deployment waits for it.
    let table = bench.until("the table has the service", || {
        let table = bench.get(&format!("/api/v1/edges/routes?after={}&wait=10", first["revision"])).json();
        table["services"]["default/api"].is_object().then_some(table)
    });
    assert_eq!(table["services"]["default/api"]["domains"][0], "api.localhost");
    assert_eq!(bench.service("default/api").urls[0], "http://api.localhost:9999");
    let explained = bench.until("it waits for the edge", || {
        let explained = bench.read("/api/v1/services/default/api/explain").to_string();
        explained.contains("every edge must serve route revision").then_some(explained)
    });
    assert!(!explained.contains("is active"), "{explained}");
}
