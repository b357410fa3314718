//! What operators and their tools are told: health, last issues, restarts, what stands still, passes, metrics.

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::atomic::Ordering,
};

use futures_util::future::BoxFuture;
use model::{
    Millis,
    collect::{Collected, Held, Inventory, Kind as Thing, Sizes},
    event::Kind,
};
use serde_json::{Value, json};

use super::bench::{API, Bench};
use crate::views;

const RESTLESS: &str = "
services:
  calm: { command: [/bin/sleep, '1000'], deploy: { min_healthy: 0s, drain: 0s } }
  restless: { command: [/bin/sleep, '1000'], deploy: { min_healthy: 0s, drain: 0s } }
";

/// Once it has been told how often that one was restarted.
fn restless(bench: &Bench) -> views::Service {
    bench.until("its restarts are told", || {
        let service = bench.service("default/restless");
        let settled = service.state.to_string() == "converged";
        (settled && !service.warnings.is_empty()).then_some(service)
    })
}

fn checkup(bench: &Bench, name: &str) -> Value {
    let health = bench.read("/api/monitoring/health");
    health["services"].as_array().unwrap().iter().find(|s| s["name"] == name).unwrap().clone()
}

fn summaries(bench: &Bench) -> Vec<String> {
    let events = bench.read("/api/v1/events?after=0&limit=1000");
    let all = events["events"].as_array().unwrap().clone();
    let told = all.iter().filter(|event| event["kind"] == "pass.summary");
    told.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_is_restarted_too_often_is_degraded_and_says_why_and_where_its_output_is() {
    let bench = Bench::start();
    bench.apply(RESTLESS);
    bench.wait_for_state("default/calm", "converged");
    let status = restless(&bench);
    assert!(
        status.message.contains("was restarted 4 times within 10m: it ended with exit status 7"),
        "{status:?}"
    );
    assert!(
        status.message.contains("setpoint logs default/restless --instance default.restless.0.0 --tail 100")
    );
    assert_eq!(status.warnings, [status.message]);
    let told = checkup(&bench, "restless");
    assert_eq!((&told["health"], &told["state"]), (&json!("degraded"), &json!("converged")));
    assert_eq!(told["restarts"], json!({"tenMinutes": 4, "hour": 5, "day": 5, "total": 5}));
    let warning = &told["restartWarnings"][0];
    assert_eq!((&warning["instance"], &warning["restarts"]), (&json!("default.restless.0.0"), &json!(4)));
    assert_eq!(bench.get(warning["logs"].as_str().unwrap()).text(), "first\nsecond\n", "its output is there");
    let calm = checkup(&bench, "calm");
    assert_eq!((&calm["health"], &calm["message"]), (&json!("healthy"), &json!("")));
    assert_eq!((&calm["restartWarnings"], &calm["lastIssue"]), (&json!([]), &json!(null)));
    // The project shows it, here and there.
    let project = bench.read("/api/v1/services")["projects"][0].clone();
    assert_eq!((&project["name"], &project["health"]), (&json!("default"), &json!("degraded")));
    assert_eq!(
        (&project["services"], &project["healthy"], &project["degraded"]),
        (&json!(2), &json!(1), &json!(1))
    );
    assert!(project["message"].as_str().unwrap().starts_with("default/restless is degraded: "), "{project}");
    assert_eq!(bench.read("/api/monitoring/health")["projects"][0], project);
    assert_eq!(bench.read("/api/v1/services/default/calm")["projects"][0], project);
    bench.pass_time(Millis::mins(11));
    bench.wait_for_state("default/restless", "converged");
    assert_eq!(checkup(&bench, "restless")["health"], "healthy");
}

#[test]
fn the_last_issue_survives_a_restart_of_setpoint() {
    let bench = Bench::start();
    bench.apply(API);
    bench.wait_for_state("default/api", "converged");
    assert_eq!(checkup(&bench, "api")["lastIssue"], json!(null));
    bench.happens(Kind::InstanceExited, "default/api", "it ended with signal 11");
    bench.happens(Kind::InstanceReady, "default/api", "it is ready");
    let before = checkup(&bench, "api");
    assert_eq!(before["lastIssue"], "it ended with signal 11");
    assert!(before["lastIssueAt"].as_str().unwrap().ends_with('Z'));
    let bench = bench.restart();
    bench.wait_for_state("default/api", "converged");
    let after = checkup(&bench, "api");
    assert_eq!((&after["lastIssue"], &after["lastIssueAt"]), (&before["lastIssue"], &before["lastIssueAt"]));
    // Of one that is gone nothing is told, also when it comes again.
    bench.send(bench.request("DELETE", "/api/v1/services/default/api"));
    bench.until("it is gone", || (bench.get("/api/v1/services/default/api").status == 404).then_some(()));
    bench.apply(API);
    bench.wait_for_state("default/api", "converged");
    assert_eq!(checkup(&bench, "api")["lastIssue"], json!(null));
}

#[test]
fn a_deployment_that_stands_still_is_told_with_since_when() {
    let bench = Bench::start();
    bench.node_reports.store(false, Ordering::SeqCst);
    bench.apply(API);
    bench.until("it is placed", || (bench.service("default/api").instances.len() == 2).then_some(()));
    bench.until_served("default/api");
    assert_eq!(bench.read("/api/monitoring/deployments/stuck"), json!({"deployments": []}));
    assert_eq!(bench.read("/api/monitoring/stats")["deploymentsStuck"], 0);
    bench.pass_time(Millis::mins(6));
    let stuck = bench.read("/api/monitoring/deployments/stuck")["deployments"][0].clone();
    assert_eq!((&stuck["service"], &stuck["number"]), (&json!("api"), &json!(1)));
    assert!(stuck["stuck_since"].as_str().unwrap().ends_with('Z'), "{stuck}");
    assert!(stuck["reason"].as_str().unwrap().contains("deployment #1 stands still in"), "{stuck}");
    let stats = bench.read("/api/monitoring/stats");
    assert_eq!((&stats["deploymentsStuck"], &stats["deploymentsInProgress"]), (&json!(1), &json!(1)));
    assert_eq!(checkup(&bench, "api")["stuckDeployment"], stuck["id"]);
    assert!(bench.get("/metrics").text().contains("setpoint_deployments_stuck 1\n"));
}

#[test]
fn a_pass_is_summed_up_when_something_happened_and_not_at_rest() {
    let bench = Bench::start();
    bench.apply(API);
    bench.wait_for_state("default/api", "converged");
    let reconcile = || bench.post("/api/v1/reconcile", &json!({})).json();
    let at_rest = reconcile();
    assert_eq!(at_rest["summary"]["checked"], 1, "{at_rest}");
    let before = summaries(&bench);
    let again = reconcile();
    let nothing = json!({"checked": 1, "drift": 0, "repaired": 0, "restarted": 0, "removed": 0, "skipped": 0,
        "failed": 0});
    assert_eq!(again["summary"], nothing);
    assert_eq!(
        again["message"],
        "a pass went through: 1 checked, 0 drift, 0 repaired, 0 restarted, 0 removed, \
        0 skipped, 0 failed"
    );
    assert_eq!(summaries(&bench), before, "at rest means at rest");
    bench.happens(Kind::DriftFound, "default/api", "files/a differs");
    bench.happens(Kind::DriftCorrected, "default/api", "files/a is as declared again");
    bench.post("/api/v1/services/default/api/scale", &json!({"replicas": 1}));
    let told = bench.until("all of it is told", || {
        let told = summaries(&bench)[before.len()..].join("\n");
        let all = ["1 drift", "1 repaired", "1 removed"];
        all.iter().all(|part| told.contains(part)).then_some(told)
    });
    assert!(!told.contains("1 failed"), "{told}");
    let metrics = bench.get("/metrics").text();
    for line in [
        "setpoint_drift_found_total 1",
        "setpoint_repairs_total 1",
        "setpoint_removed_instances_total 1",
        "setpoint_deployments_ended_total{outcome=\"active\"} 1",
        "setpoint_deployments_ended_total{outcome=\"failed\"} 0",
    ] {
        assert!(metrics.contains(&format!("{line}\n")), "{line} in\n{metrics}");
    }
}

#[test]
fn restarts_are_counted_by_service_and_stay_counted() {
    let bench = Bench::start();
    bench.apply(RESTLESS);
    restless(&bench);
    let lines = [
        "setpoint_restarts_total{project=\"default\",service=\"calm\"} 0\n",
        "setpoint_restarts_total{project=\"default\",service=\"restless\"} 5\n",
        "setpoint_restart_alerts{project=\"default\",service=\"restless\"} 1\n",
        "setpoint_service_health{project=\"default\",service=\"restless\",health=\"degraded\"} 1\n",
        "setpoint_zombies{kind=\"stranger\"} 1\n",
    ];
    let assert_told = |bench: &Bench| {
        let metrics = bench.get("/metrics").text();
        lines.iter().for_each(|line| assert!(metrics.contains(line), "{line} in\n{metrics}"));
    };
    assert_told(&bench);
    let bench = bench.restart();
    restless(&bench);
    assert_told(&bench);
}

/// A node's engine with things that nothing reaches, and one in use.
#[derive(Debug)]
struct LeftOver;

impl crate::Collect for LeftOver {
    fn inventory(&self, sizes: Sizes) -> BoxFuture<'_, Option<Result<Inventory, String>>> {
        let held = |kind, name: &str, used| Held { kind, name: name.into(), bytes: 1, used };
        let held = vec![
            held(Thing::Image, "old:1", false),
            held(Thing::Image, "new:1", true),
            held(Thing::Network, "old-net", false),
            held(Thing::Volume, "old-data", false),
        ];
        assert_eq!(sizes, Sizes::LeftOut, "nobody measures volumes for a count");
        Box::pin(async move { Some(Ok(Inventory { held })) })
    }

    fn collect(&self, surplus: Vec<Held>) -> BoxFuture<'_, Vec<Collected>> {
        panic!("nothing of {surplus:?} is removed by being counted")
    }

    fn disk(&self) -> BoxFuture<'_, Option<(u64, u64)>> {
        Box::pin(async { None })
    }
}

#[test]
fn zombies_are_strangers_and_what_a_collection_would_remove() {
    let bench = Bench::start();
    bench.apply(API);
    bench.wait_for_state("default/api", "converged");
    assert_eq!(bench.read("/api/monitoring/stats")["zombieContainers"], 1, "the stranger");
    bench.collects_by(LeftOver);
    assert_eq!(bench.read("/api/monitoring/stats")["zombieContainers"], 4);
    assert_eq!(bench.read("/api/monitoring/health")["zombies"], 4);
    let metrics = bench.get("/metrics").text();
    for kind in ["stranger", "image", "network", "volume"] {
        assert!(metrics.contains(&format!("setpoint_zombies{{kind=\"{kind}\"}} 1\n")), "{kind} in {metrics}");
    }
}

#[test]
fn the_metric_of_the_engine_has_a_sample_for_each_node_that_tells_of_one() {
    let bench = Bench::start();
    bench.apply(API);
    bench.wait_for_state("default/api", "converged");
    let metrics = || bench.get("/metrics").text();
    assert!(!metrics().contains("\nsetpoint_engine_up{"), "nobody told of an engine");
    for (answers, sample) in [(true, "1"), (false, "0")] {
        bench.engine_answers(answers);
        let line = format!("\nsetpoint_engine_up{{node=\"local\"}} {sample}\n");
        bench.until("it is told", || metrics().contains(&line).then_some(()));
        promtool(&["check", "metrics"], &metrics()).inspect(|told| assert_eq!(told, ""));
    }
}

/// What `promtool` says about this input, or nothing when it is content; `None` where it is not installed.
fn promtool(arguments: &[&str], input: &str) -> Option<String> {
    let spawned = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = spawned else {
        println!("skipped: promtool is missing; Debian's package `prometheus` has it");
        return None;
    };
    promtool.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let words = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    Some(if said.status.success() && !words.contains("lint") { String::new() } else { words })
}

/// Prometheus' own opinion of what a running server says.
#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    let bench = Bench::start();
    bench.apply(API);
    bench.apply(RESTLESS);
    restless(&bench);
    bench.get("/api/v1/nothing/at/all");
    let metrics = bench.get("/metrics").text();
    // What it does not look for: a series of an instance would live for as long as the history.
    assert!(!metrics.contains("default.api.0"), "{metrics}");
    if let Some(said) = promtool(&["check", "metrics"], &metrics) {
        assert_eq!(said, "", "{metrics}");
    }
}

#[test]
fn the_operators_page_names_metrics_that_are_there_and_alerts_that_can_be_loaded() {
    const PAGE: &str = include_str!("../../../../../docs/operations.md");
    let bench = Bench::start();
    let metrics = bench.get("/metrics").text();
    let names =
        PAGE.split(|c: char| !(c.is_ascii_lowercase() || c == '_')).filter(|w| w.starts_with("setpoint_"));
    let mut named = 0;
    for name in names {
        assert!(metrics.contains(&format!("# TYPE {name} ")), "{name} in\n{metrics}");
        named += 1;
    }
    assert!(named > 20, "{named}");
    let rules = PAGE.split("```yaml\n").find(|block| block.starts_with("groups:")).unwrap();
    let rules = rules.split("```").next().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rules).unwrap();
    if let Some(said) = promtool(&["check", "rules", file.path().to_str().unwrap()], "") {
        assert_eq!(said, "", "{rules}");
    }
}
