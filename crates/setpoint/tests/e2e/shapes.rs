//! The JSON that scripts read, field by field as the contract prints it.

use serde_json::{Value, json};
use testkit::fixture::{QUICK, demo};

use crate::setpoint;

/// The names in an object, sorted.
fn names(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[track_caller]
fn assert_has(value: &Value, expected: &[&str]) {
    let missing: Vec<&&str> = expected.iter().filter(|name| value.get(name).is_none()).collect();
    assert!(missing.is_empty(), "{missing:?} are missing, there are {:?}", names(value));
}

fn is_time(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.len() >= 20 && text.ends_with('Z') && text.contains('T'))
}

#[test]
fn status_prints_services_with_their_instances() {
    let setpoint = setpoint().manifest(&demo(2, &[], QUICK)).start();
    setpoint.wait_until_converged("api");
    let status = setpoint.json(&["status"]);
    assert_eq!(status["services"].as_array().unwrap().len(), 1);
    let api = &status["services"][0];
    let expected = json!({"project": "default", "name": "api", "kind": "process", "state": "converged",
        "message": "", "replicas": {"desired": 2, "ready": 2},
        "urls": [format!("http://api.localhost:{}", setpoint.edge().port())]});
    for name in names(&expected) {
        assert_eq!(api[name], expected[name], "{name}");
    }
    assert!(api["generation"].as_u64().unwrap() >= 1);
    let deployment = &api["deployment"];
    assert_has(deployment, &["id", "number", "phase", "progress"]);
    assert_eq!((&deployment["number"], &deployment["phase"]), (&json!(1), &json!("active")));
    assert_eq!(deployment["progress"], 100);
    let instances = api["instances"].as_array().unwrap();
    assert_eq!(instances.len(), 2);
    for (ordinal, instance) in instances.iter().enumerate() {
        assert_has(instance, &["id", "pid", "address", "deployment"]);
        assert_eq!(instance["ordinal"], ordinal);
        assert_eq!((&instance["node"], &instance["state"]), (&json!("local"), &json!("running")));
        assert_eq!((&instance["ready"], &instance["restarts"]), (&json!(true), &json!(0)));
        assert_eq!(instance["deployment"], deployment["id"]);
        let port = instance["address"].as_str().unwrap().strip_prefix("127.0.0.1:").unwrap();
        assert!((31000..=32767).contains(&port.parse::<u16>().unwrap()), "{port}");
    }
    assert_eq!(setpoint.json(&["status", "api"])["services"], status["services"]);
    assert_eq!(setpoint.status(), status, "the API says the same");
}

#[test]
fn deployments_are_printed_newest_first() {
    let setpoint = setpoint().manifest(&demo(1, &[("VERSION", "1")], QUICK)).start();
    setpoint.wait_until_converged("api");
    setpoint.apply_ok(&demo(1, &[("VERSION", "2")], QUICK), &["--wait"]);
    let printed = setpoint.json(&["deployments", "api"]);
    let deployments = printed["deployments"].as_array().unwrap();
    let numbers: Vec<_> = deployments.iter().map(|d| d["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [2, 1]);
    for deployment in deployments {
        assert_has(
            deployment,
            &[
                "id",
                "number",
                "status",
                "phase",
                "progress",
                "cause",
                "release",
                "started_at",
                "phase_updated_at",
            ],
        );
        assert_has(deployment, &["ended_at", "message", "metadata"]);
        for time in ["started_at", "phase_updated_at", "ended_at"] {
            assert!(is_time(&deployment[time]), "{time}: {}", deployment[time]);
        }
        assert_eq!((&deployment["cause"], &deployment["progress"]), (&json!("apply"), &json!(100)));
    }
    assert_eq!((&deployments[0]["status"], &deployments[0]["phase"]), (&json!("active"), &json!("active")));
    assert_eq!(
        (&deployments[1]["status"], &deployments[1]["phase"]),
        (&json!("superseded"), &json!("superseded"))
    );
}

#[test]
fn events_are_one_object_a_line_in_sequence() {
    let setpoint = setpoint().manifest(&demo(1, &[], QUICK)).start();
    setpoint.wait_until_converged("api");
    let events = setpoint.events();
    for event in &events {
        assert_has(event, &["seq", "at", "kind", "project", "service", "instance", "message"]);
        assert!(is_time(&event["at"]), "{event}");
    }
    let sequence: Vec<_> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert!(sequence.windows(2).all(|pair| pair[0] < pair[1]), "{sequence:?}");
    let kinds: Vec<_> = events.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    for kind in
        ["service.applied", "deployment.queued", "instance.placed", "instance.ready", "deployment.active"]
    {
        assert!(kinds.contains(&kind), "{kind} is not in {kinds:?}");
    }
    let of_service = setpoint.ok(&["events", "--service", "api", "-o", "json"]);
    assert!(of_service.lines().all(|line| line.contains("\"api\"")), "{of_service}");
}

#[test]
fn phases_of_a_process_and_of_a_site_come_in_their_order() {
    let yaml = format!("{}  docs:\n    static: ./site\n    domains: [docs.localhost]\n", demo(1, &[], QUICK));
    let setpoint = setpoint().file("site/index.html", "hello").manifest(&yaml).start();
    setpoint.wait_until_converged("api");
    setpoint.wait_until_converged("docs");
    let phases = |service: &str| -> Vec<String> {
        let events = setpoint.events();
        let of = events.iter().filter(|e| e["service"] == service && e["kind"] == "deployment.phase");
        of.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
    };
    let in_order = |messages: &[String], expected: &[&str]| {
        let found: Vec<&str> = messages
            .iter()
            .filter_map(|message| expected.iter().find(|phase| message.contains(*phase)).copied())
            .collect();
        assert_eq!(found, expected, "{messages:?}");
    };
    in_order(&phases("api"), &["copying_files", "starting", "updating_routes", "health_check"]);
    in_order(&phases("docs"), &["copying_files", "creating_symlinks", "updating_routes"]);
    let docs = &setpoint.deployments("docs")[0];
    assert_eq!(docs["metadata"]["files_copied"], 1, "{docs}");
    assert_eq!(docs["metadata"]["total_files"], 1, "{docs}");
}

#[test]
fn monitoring_answers_have_the_names_that_operators_read() {
    let setpoint = setpoint().manifest(&demo(2, &[], QUICK)).start();
    setpoint.wait_until_converged("api");
    let health = setpoint.ask("GET", "/api/monitoring/health", None).json();
    assert_eq!(health["containers"], json!({"total": 2, "healthy": 2, "unhealthy": 0, "stopped": 0}));
    assert_eq!((&health["zombies"], &health["isLeader"]), (&json!(0), &json!(true)));
    assert!(health["timestamp"].is_string() || health["timestamp"].is_number());
    let stats = setpoint.ask("GET", "/api/monitoring/stats", None).json();
    let expected = [
        "lastReconciliationTime",
        "reconciliationDuration",
        "reconciliationErrors",
        "activeProjects",
        "runningContainers",
        "stoppedContainers",
        "zombieContainers",
        "deploymentsInProgress",
        "deploymentsStuck",
        "averageDeploymentTime",
        "unhealthyContainers",
        "brokenSymlinks",
        "missingDeployments",
    ];
    assert_has(&stats, &expected);
    assert_eq!((&stats["runningContainers"], &stats["activeProjects"]), (&json!(2), &json!(1)));
    let stuck = setpoint.ask("GET", "/api/monitoring/deployments/stuck", None);
    assert_eq!(stuck.status, 200);
    let triggered = setpoint.ask("POST", "/api/monitoring/reconcile/trigger", None);
    assert_eq!(triggered.status, 202, "{}", triggered.text());
    assert_eq!(triggered.json()["success"], true);
}

#[test]
fn what_happens_to_an_instance_once_is_told_once() {
    let yaml = format!("{}  docs:\n    static: ./site\n    domains: [docs.localhost]\n", demo(2, &[], QUICK));
    let setpoint = setpoint().file("site/index.html", "hello").manifest(&yaml).start();
    setpoint.wait_until_converged("api");
    setpoint.wait_until_converged("docs");
    for service in ["api", "docs"] {
        setpoint.ok(&["delete", service, "--wait"]);
    }
    let mut told: Vec<(String, String)> = Vec::new();
    for event in setpoint.events() {
        let kind = event["kind"].as_str().unwrap().to_owned();
        let Some(instance) = event["instance"].as_str() else { continue };
        if ["instance.placed", "instance.retired", "instance.stopped", "instance.gone"]
            .contains(&kind.as_str())
        {
            told.push((instance.to_owned(), kind));
        }
    }
    told.sort();
    let count = told.len();
    told.dedup();
    assert_eq!(told.len(), count, "each once: {told:#?}");
    assert_eq!(told.iter().filter(|(_, kind)| kind == "instance.gone").count(), 3, "{told:#?}");
}
