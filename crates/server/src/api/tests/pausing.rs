//! A pass that would remove much stops, says so, and goes on when somebody confirms it.

use model::{Timestamp, node::NodeState};
use serde_json::json;

use super::bench::{API, Bench};

const EXPLAIN: &str = "/api/v1/services/default/api/explain";

/// Ten that serve, on a node that is lost.
fn lost() -> Bench {
    let bench = Bench::start();
    bench.apply(&API.replace("replicas: 2", "replicas: 10"));
    bench.wait_for_state("default/api", "converged");
    lose(&bench);
    bench
}

fn lose(bench: &Bench) {
    let mut brain = bench.control.0.brain();
    for node in brain.snapshot.cluster.nodes.values_mut() {
        node.state = NodeState::Lost { since: Timestamp(1) };
    }
    // What is decided stands on the nodes.
    brain.set_drains(Default::default());
}

fn running(bench: &Bench) -> usize {
    let key = "default/api".parse().unwrap();
    bench.control.with_brain(|brain| {
        brain.world(&key).unwrap().plan.placements.values().filter(|p| p.stage.is_run()).count()
    })
}

fn reconcile(bench: &Bench, confirm: bool) -> serde_json::Value {
    let answer = bench.post("/api/v1/reconcile", &json!({ "confirm": confirm }));
    assert!(answer.status < 300, "{}", answer.text());
    answer.json()
}

#[test]
fn a_large_removal_waits_says_how_it_is_confirmed_and_is_carried_out_then() {
    let bench = lost();
    let told = reconcile(&bench, false).to_string();
    assert_eq!(running(&bench), 10, "{told}");
    let events = bench.read("/api/v1/events?after=0&limit=1000").to_string();
    for place in [told, events] {
        assert!(place.contains("10 of 10 instances would go"), "{place}");
        assert!(place.contains("`setpoint reconcile --confirm`"), "{place}");
    }
    let explained = bench.read(EXPLAIN).to_string();
    assert!(explained.contains("setpoint reconcile --confirm"), "what it waits for: {explained}");
    assert!(!explained.contains("default.api.0.0 is stopped"), "it has not happened: {explained}");

    reconcile(&bench, true);
    assert_eq!(running(&bench), 0);
    let explained = bench.read(EXPLAIN).to_string();
    assert!(!explained.contains("--confirm"), "{explained}");
}

#[test]
fn a_confirmation_outlives_a_pass_that_came_too_late_and_nothing_else() {
    let bench = lost();
    reconcile(&bench, false);
    bench.commit_past_the_server(0);
    reconcile(&bench, true);
    assert_eq!(running(&bench), 0, "the pass that is made again is confirmed too");

    let bench = Bench::start();
    bench.apply(&API.replace("replicas: 2", "replicas: 10"));
    bench.wait_for_state("default/api", "converged");
    reconcile(&bench, true);
    lose(&bench);
    reconcile(&bench, false);
    assert_eq!(running(&bench), 10, "what was confirmed for nothing is no confirmation of the next");
}
