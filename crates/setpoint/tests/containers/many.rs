//! Fifty services with a hundred instances: a restart of the engine and random kills, and rest in the end.

use std::time::Duration;

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
        let pids: Vec<u32> = status["services"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|service| service["instances"].as_array().unwrap())
            .filter_map(|instance| u32::try_from(instance["pid"].as_u64()?).ok())
            .collect();
        proc::kill9(pids[random.random_range(0..pids.len())]);
    }
    let last = at_rest("all are back after the kills");
    assert_eq!(ids(&last), ids(&first), "each was restarted in its place");
    let label = format!("label=setpoint.cluster={}", setpoint.cluster());
    let all = engine.docker(&["ps", "-aq", "--filter", &label]);
    assert_eq!(all.lines().count(), SERVICES * REPLICAS);
    let health = setpoint.ask("GET", "/api/monitoring/health", None).json();
    assert_eq!(health["zombies"], 0, "{health}");
}
