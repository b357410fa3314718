//! Why things are as they are, at every moment; and that the record replays.

use serde_json::{Value, json};

use super::bench::{API, Bench};

fn sentences(explanation: &Value) -> String {
    explanation.to_string()
}

#[test]
fn services_instances_and_deployments_explain_themselves_at_every_moment() {
    let bench = Bench::start();
    let service = "/api/v1/services/default/api";
    bench.node_reports.store(false, std::sync::atomic::Ordering::SeqCst);
    let applied = bench.apply(API);
    let deployment = applied["services"][0]["deployment"].as_str().unwrap().to_owned();
    // Before any pass has looked at it.
    let early = bench.read(&format!("{service}/explain"));
    assert_eq!(early["subject"], "default/api");
    assert!(!early["summary"].as_str().unwrap().is_empty());
    assert_eq!(
        bench.read(&format!("/api/v1/deployments/{deployment}/explain"))["subject"],
        json!(deployment)
    );

    // While it waits for its node.
    let instance =
        bench.until("one is placed", || bench.service("default/api").instances.first().map(|i| i.id.clone()));
    let waits = bench.until("it says what it waits for", || {
        let explained = bench.read(&format!("/api/v1/instances/{instance}/explain"));
        let waits = explained["steps"].as_array().unwrap().iter().any(|step| step["waiting"] != json!([]));
        waits.then_some(explained)
    });
    assert!(sentences(&waits).contains(instance.to_string().as_str()), "{waits}");
    let open = bench.read(&format!("/api/v1/deployments/{deployment}/explain"));
    assert!(open["summary"].as_str().unwrap().contains("#1 of default/api, by apply"), "{open}");
    assert!(!open["steps"].as_array().unwrap().is_empty(), "{open}");

    // At rest.
    bench.node_reports.store(true, std::sync::atomic::Ordering::SeqCst);
    bench.wait_for_state("default/api", "converged");
    let rest = bench.read(&format!("{service}/explain"));
    assert!(rest["summary"].as_str().unwrap().starts_with("converged, 2 of 2 ready"), "{rest}");
    assert!(!rest["journal"].as_array().unwrap().is_empty());
    let ended = bench.read(&format!("/api/v1/deployments/{deployment}/explain"));
    assert!(sentences(&ended).contains("is active"), "{ended}");
    let told = bench.read(&format!("/api/v1/instances/{instance}/explain"));
    assert!(told["summary"].as_str().unwrap().starts_with("running and ready at local"), "{told}");
    assert!(sentences(&told).contains("placed at local"), "{told}");

    // Gone.
    bench.send(bench.request("DELETE", service));
    bench.until("it is gone", || (bench.get(service).status == 404).then_some(()));
    let gone = bench.read(&format!("/api/v1/instances/{instance}/explain"));
    assert!(gone["summary"].as_str().unwrap().starts_with("it is gone"), "{gone}");
    assert_eq!(bench.read(&format!("{service}/explain"))["summary"], "it is not declared");
}

#[test]
fn every_recorded_pass_replays_to_the_same_bytes() {
    let bench = Bench::start();
    bench.apply(API);
    bench.wait_for_state("default/api", "converged");
    bench.post("/api/v1/services/default/api/scale", &json!({"replicas": 3}));
    bench.until("three are ready", || (bench.service("default/api").replicas.ready == 3).then_some(()));
    let mut replayed = 0;
    for seq in 1.. {
        let answer = bench.get(&format!("/api/v1/journal/{seq}?replay=true"));
        if answer.status == 404 {
            break;
        }
        let pass = answer.json();
        assert_eq!(pass["replay"]["identical"], true, "{pass}");
        assert_eq!(pass["replay"]["steps"], pass["steps"]);
        assert_eq!(pass["service"], "api");
        replayed += 1;
    }
    assert!(replayed > 3, "only {replayed} passes were recorded");
    assert!(bench.read("/api/v1/journal/1").get("replay").is_none(), "only when it is asked for");
}
