//! Fifty services with a hundred instances: a restart of the engine and random kills, and rest in the end.

use std::time::Duration;

use serde_json::json;
use testkit::{
    docker::Engine,
    proc,
    random::{Rng, seeded},
    until,
};

use crate::{image, setpoint};

const SERVICES: usize = 50;
const REPLICAS: usize = 2;
const KILLS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(180);

fn manifest(image: &str) -> String {
    let services = (0..SERVICES).map(|n| {
        format!(
            "  s{n}:\n    image: {image}\n    port: 8080\n    replicas: {REPLICAS}\n    health: /healthz\n    \
             domains: [s{n}.localhost]\n    restart: {{ attempts: 20 }}\n    stop: {{ grace: 2s }}\n"
        )
    });
    format!("services:\n{}", services.collect::<String>())
}

#[test]
fn a_hundred_containers_outlive_their_engine_and_random_kills_and_end_at_rest() {
    let Some(mut engine) = Engine::own() else { return };
    let app = image(&engine, "v1");
    let setpoint = setpoint(&engine).manifest(&manifest(&app)).start();
    let at_rest = |sentence: &str| {
        until(sentence, PATIENCE, || {
            let status = setpoint.status();
            let services = status["services"].as_array().unwrap();
            let good = |service: &&serde_json::Value| {
                service["state"] == "converged" && service["replicas"]["ready"] == REPLICAS
            };
            (services.len() == SERVICES && services.iter().all(|service| good(&service))).then_some(status)
        })
    };
    let ids = |status: &serde_json::Value| -> Vec<String> {
        let services = status["services"].as_array().unwrap();
        let instances = services.iter().flat_map(|service| service["instances"].as_array().unwrap());
        instances.map(|instance| instance["id"].as_str().unwrap().to_owned()).collect()
    };
    let pids = |status: &serde_json::Value| -> Vec<u32> {
        status["services"].as_array().unwrap().iter().flat_map(testkit::setpoint::pids).collect()
    };
    let first = at_rest("all have converged");
    assert_eq!(ids(&first).len(), SERVICES * REPLICAS);
    engine.stop();
    setpoint.wait_for_event("engine.away", &[]);
    engine.start();
    let restarted = at_rest("all are back after the engine's restart");
    assert_eq!(ids(&restarted), ids(&first), "none was made beside another");
    let mut random = seeded();
    for _ in 0..KILLS {
        let status = setpoint.status();
        // One that was killed before may be told as living for a moment.
        let pids: Vec<u32> = pids(&status).into_iter().filter(|pid| proc::is_alive(*pid)).collect();
        proc::kill9(pids[random.random_range(0..pids.len())]);
    }
    testkit::until("it is known who was killed", testkit::setpoint::SOON, || {
        pids(&setpoint.status()).into_iter().all(proc::is_alive).then_some(())
    });
    let last = at_rest("all are back after the kills");
    assert_eq!(ids(&last), ids(&first), "each was restarted in its place");
    let label = format!("label=setpoint.cluster={}", setpoint.cluster());
    let all = engine.docker(&["ps", "-aq", "--filter", &label]);
    assert_eq!(all.lines().count(), SERVICES * REPLICAS);
    let health = setpoint.ask("GET", "/api/monitoring/health", None).json();
    assert_eq!(health["zombies"], 0, "{health}");
    // At rest means at rest: a pass over everything finds nothing, and has the engine do nothing.
    let pass = || setpoint.ask("POST", "/api/v1/reconcile", Some(&json!({}))).json()["summary"].clone();
    // What was done since the pass before it is told with it.
    pass();
    let mut done = engine.api().events(&json!({ "type": ["container", "network"] }));
    let nothing = json!({
        "checked": SERVICES, "drift": 0, "repaired": 0, "restarted": 0, "removed": 0, "skipped": 0, "failed": 0
    });
    assert_eq!(pass(), nothing);
    let ours = engine.docker(&["create", "--network", "none", &app]);
    let first = done.read().unwrap();
    assert_eq!(first["Actor"]["ID"], ours.as_str(), "nothing before it: {first:#}");
    assert_eq!(pids(&setpoint.status()), pids(&last));
}
