//! Writes, and what repeats and conditions do to them.

use serde_json::json;

use super::bench::{API, Bench, declaration};

#[test]
fn a_service_goes_through_its_life() {
    let bench = Bench::start();
    let applied = bench.apply(API);
    assert_eq!(applied["services"][0]["changed"], true);
    bench.wait_for_state("default/api", "converged");
    assert_eq!(bench.apply(API)["services"][0]["changed"], false, "the same again changes nothing");

    let path = "/api/v1/services/default/api";
    assert_eq!(bench.post(&format!("{path}/scale"), &json!({"replicas": 3})).status, 200);
    bench.until("three are ready", || (bench.service("default/api").replicas.ready == 3).then_some(()));
    assert_eq!(bench.service("default/api").scale, Some(3));
    assert_eq!(bench.post(&format!("{path}/stop"), &json!({})).status, 200);
    bench.wait_for_state("default/api", "stopped");
    assert_eq!(
        bench.send(bench.request("POST", &format!("{path}/start"))).status,
        200,
        "an empty body will do"
    );
    bench.wait_for_state("default/api", "converged");
    let before: Vec<_> = bench.service("default/api").instances.into_iter().map(|i| i.id).collect();
    assert_eq!(bench.post(&format!("{path}/restart"), &json!({})).status, 200);
    bench.until("every instance is another one", || {
        let service = bench.service("default/api");
        let renewed = service.instances.iter().all(|i| !before.contains(&i.id));
        (renewed && service.replicas.ready == 3).then_some(())
    });
    assert_eq!(bench.send(bench.request("DELETE", path)).status, 200);
    bench.until("it is gone", || (bench.get(path).status == 404).then_some(()));
    assert!(bench.get(&format!("{path}/explain")).status == 200, "why it is gone is still told");
}

#[test]
fn a_rollback_brings_the_release_before_back() {
    let bench = Bench::start();
    bench.apply(API);
    let first = bench.wait_for_state("default/api", "converged").deployment.unwrap();
    bench.apply(&API.replace("1000", "2000"));
    bench.until("the second is active", || {
        let shown = bench.service("default/api").deployment.unwrap();
        (shown.number == 2 && shown.progress == 100).then_some(())
    });
    let answer = bench.post("/api/v1/services/default/api/rollback", &json!({ "to": first.id }));
    assert_eq!(answer.status, 200, "{}", answer.text());
    bench.until("the third is active", || {
        let listed = bench.read("/api/v1/services/default/api/deployments");
        let newest = &listed["deployments"][0];
        (newest["number"] == 3 && newest["status"] == "active")
            .then(|| assert_eq!(newest["cause"], "rollback"))
    });
    let listed = bench.read("/api/v1/services/default/api/deployments");
    let words: Vec<&str> =
        listed["deployments"].as_array().unwrap().iter().map(|d| d["status"].as_str().unwrap()).collect();
    assert_eq!(words, ["active", "rolled_back", "superseded"]);
    let ended = listed["deployments"][0]["ended_at"].as_str().unwrap();
    assert!(ended.ends_with('Z') && ended.contains('T'), "{ended}");
    assert_eq!(listed["deployments"][0]["release"], listed["deployments"][2]["release"]);
}

#[test]
fn a_plan_changes_nothing_and_says_what_would() {
    let bench = Bench::start();
    let before = bench.recorded();
    let planned = bench.post("/api/v1/plan", &declaration(API)).json();
    assert_eq!(planned["services"][0]["action"], "create");
    assert!(!planned["services"][0]["changes"].as_array().unwrap().is_empty(), "{planned}");
    assert_eq!(bench.recorded(), before);
    bench.apply(API);
    let planned = bench.post("/api/v1/plan", &declaration(API)).json();
    assert_eq!(planned["services"][0]["action"], "none");
}

#[test]
fn the_same_key_gets_the_same_answer_once() {
    let bench = Bench::start();
    let send = |body: &serde_json::Value| {
        bench.send(bench.json("POST", "/api/v1/apply", body).header("Idempotency-Key", "key-1"))
    };
    let first = send(&declaration(API));
    let events = bench.read("/api/v1/audit?after=0")["audit"].as_array().unwrap().len();
    let again = send(&declaration(API));
    assert_eq!((first.status, first.json()), (again.status, again.json()));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(
        bench.read("/api/v1/audit?after=0")["audit"].as_array().unwrap().len(),
        events,
        "no second effect"
    );
    let other = send(&declaration(&API.replace("1000", "2000")));
    assert_eq!((other.status, other.json()["code"].as_str()), (422, Some("idempotency_key_reused")));
}

#[test]
fn a_write_on_an_older_revision_is_refused() {
    let bench = Bench::start();
    bench.apply(API);
    let etag = bench.get("/api/v1/services/default/api").header("etag").unwrap().to_owned();
    let apply = |seconds: &str| {
        let body = declaration(&API.replace("1000", seconds));
        bench.send(bench.json("POST", "/api/v1/apply", &body).header("If-Match", &etag))
    };
    let first = apply("2000");
    assert_eq!(first.status, 200, "{}", first.text());
    assert_ne!(first.header("etag"), Some(etag.as_str()), "a write tells the new ETag");
    let second = apply("3000");
    assert_eq!((second.status, second.json()["code"].as_str()), (412, Some("revision_mismatch")));
    let stop = bench.request("POST", "/api/v1/services/default/api/stop").header("If-Match", &etag);
    assert_eq!(bench.send(stop).status, 412);
    assert!(bench.get("/api/v1/services/default/api/spec").text().contains("2000"));
}

#[test]
fn a_write_that_leaves_the_declaration_as_it_is_moves_the_etag_too() {
    let bench = Bench::start();
    bench.apply(API);
    let shown = || bench.get("/api/v1/services/default/api").header("etag").unwrap().to_owned();
    let ask = |what: &str, etag: &str| {
        let path = format!("/api/v1/services/default/api/{what}");
        bench.send(bench.request("POST", &path).header("If-Match", etag))
    };
    for what in ["restart", "stop", "start"] {
        let etag = shown();
        let done = ask(what, &etag);
        assert_eq!(done.status, 200, "{what}: {}", done.text());
        assert_eq!(
            done.header("etag"),
            Some(shown().as_str()),
            "{what}: the answer's ETag is that of a read"
        );
        assert_eq!(ask(what, &etag).status, 412, "{what}");
    }
}

#[test]
fn pruning_removes_what_is_no_longer_named_in_its_project_only() {
    let bench = Bench::start();
    bench.apply("project: one\nservices: {a: {command: [/bin/a]}, b: {command: [/bin/b]}}");
    bench.apply("project: two\nservices: {a: {command: [/bin/a]}}");
    let mut body = declaration("project: one\nservices: {a: {command: [/bin/a]}}");
    body["prune"] = json!(["one"]);
    assert_eq!(bench.post("/api/v1/apply", &body).status, 200);
    bench.until("one/b is gone", || (bench.get("/api/v1/services/one/b").status == 404).then_some(()));
    for left in ["one/a", "two/a"] {
        assert_eq!(bench.get(&format!("/api/v1/services/{left}")).status, 200, "{left}");
    }
}

#[test]
fn a_cancelled_deployment_ends_and_cannot_be_cancelled_twice() {
    let bench = Bench::start();
    bench.node_reports.store(false, std::sync::atomic::Ordering::SeqCst);
    let id = bench.apply(API)["services"][0]["deployment"].as_str().unwrap().to_owned();
    let cancel = || bench.post(&format!("/api/v1/deployments/{id}/cancel"), &json!({}));
    assert_eq!(cancel().status, 200);
    assert_eq!(bench.read(&format!("/api/v1/deployments/{id}"))["status"], "cancelled");
    let again = cancel();
    assert_eq!((again.status, again.json()["code"].as_str()), (409, Some("already_ended")));
}

/// A commit that was made although its answer was lost: the store is one generation ahead of what the server knows. It is
/// caught up with, and nothing has failed.
#[test]
fn a_plan_that_came_too_late_is_decided_again() {
    let bench = Bench::start();
    bench.apply(API);
    bench.wait_for_state("default/api", "converged");
    for (number, routes) in [(2, 0), (3, 5)] {
        bench.commit_past_the_server(routes);
        bench.apply(&API.replace("1000", &format!("{number}000")));
        bench.until("the next is active", || {
            let shown = bench.service("default/api").deployment.unwrap();
            (shown.number == number && shown.progress == 100).then_some(())
        });
    }
    let stats = bench.control.pass_stats();
    assert_eq!((stats.errors, stats.trouble, stats.happened.failed), (0, None, 0));
}

fn process(name: &str, domain: &str) -> String {
    format!(
        "services:\n  {name}:\n    command: [/bin/sleep, '1000']\n    domains: [{domain}]\n    deploy: {{ min_healthy: 0s, drain: 0s }}\n"
    )
}

#[test]
fn what_still_serves_is_refused_to_another_in_the_middle_of_a_rollout() {
    let bench = Bench::start();
    bench.apply(&process("api", "a.localhost"));
    bench.wait_for_state("default/api", "converged");
    bench.node_reports.store(false, std::sync::atomic::Ordering::SeqCst);
    bench.apply(&process("api", "b.localhost"));
    for taken in ["a.localhost", "b.localhost"] {
        let refused = bench.post("/api/v1/apply", &declaration(&process("web", taken)));
        assert_eq!(refused.json()["code"], "domain_taken", "{taken}: {}", refused.text());
    }
    bench.apply(&process("web", "c.localhost"));
}

#[test]
fn of_two_requests_at_once_one_gets_the_domain() {
    let bench = Bench::start();
    for round in 0..20 {
        let domain = format!("r{round}.localhost");
        let together = std::sync::Barrier::new(4);
        let ask = |n: usize| {
            let body = declaration(&process(&format!("s{round}-{n}"), &domain));
            together.wait();
            bench.post("/api/v1/apply", &body)
        };
        let answers: Vec<_> = std::thread::scope(|scope| {
            let asked: Vec<_> = (0..4).map(|n| scope.spawn(move || ask(n))).collect();
            asked.into_iter().map(|answer| answer.join().unwrap()).collect()
        });
        let won = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(won, 1, "{domain}: {:?}", answers.iter().map(|a| a.status).collect::<Vec<_>>());
        let codes =
            answers.iter().filter(|answer| answer.status != 200).map(|answer| answer.json()["code"].clone());
        assert!(codes.into_iter().all(|code| code == "domain_taken"));
    }
}

#[test]
fn one_file_hands_a_domain_from_a_dropped_service_to_a_new_one() {
    let bench = Bench::start();
    bench.apply(&process("web", "a.localhost"));
    bench.wait_for_state("default/web", "converged");
    let mut renamed = declaration(&process("api", "a.localhost"));
    assert_eq!(bench.post("/api/v1/apply", &renamed).json()["code"], "domain_taken", "both would have it");
    renamed["prune"] = json!(["default"]);
    let planned = bench.post("/api/v1/plan", &renamed);
    assert_eq!(planned.status, 200, "{}", planned.text());
    let applied = bench.post("/api/v1/apply", &renamed);
    assert_eq!(applied.status, 200, "{}", applied.text());
    bench.wait_for_state("default/api", "converged");
    bench.until("the dropped one is gone", || {
        (bench.get("/api/v1/services/default/web").status == 404).then_some(())
    });
}
