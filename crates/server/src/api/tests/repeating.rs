//! The same write twice under one `Idempotency-Key`: one effect and one answer; another one under it is refused.

use serde_json::{Value, json};
use testkit::http::{Request, Response};

use super::bench::{API, Bench, declaration};
use crate::api::table;

/// Writes of which a repetition does no harm, or whose answer cannot be kept.
const WITHOUT: [(&str, &str); 3] =
    [("post", "/api/v1/plan"), ("post", "/api/v1/edges/report"), ("post", "/api/v1/backup")];

#[test]
fn every_write_takes_an_idempotency_key() {
    let without: Vec<(&str, &str)> = table::routes()
        .iter()
        .filter(|route| route.method != "get" && !route.keyed)
        .map(|route| (route.method, route.path))
        .collect();
    assert_eq!(without, WITHOUT);
}

fn recorded(bench: &Bench) -> (usize, usize) {
    let count = |path: &str, of: &str| bench.read(path)[of].as_array().unwrap().len();
    (count("/api/v1/audit?after=0&limit=1000", "audit"), count("/api/v1/tokens", "tokens"))
}

/// Sends one request twice and another one, all under the same key.
#[track_caller]
fn check(bench: &Bench, key: &str, request: impl Fn() -> Request, other: Request) -> Response {
    let send = |request: Request| bench.send(request.header("Idempotency-Key", key));
    let first = send(request());
    assert!((200..300).contains(&first.status), "{}", first.text());
    assert_eq!(first.header("idempotent-replayed"), None);
    let before = recorded(bench);
    let again = send(request());
    assert_eq!((again.status, again.text()), (first.status, first.text()), "the same answer");
    assert_eq!(again.header("idempotent-replayed"), Some("true"), "{}", first.text());
    assert_eq!(recorded(bench), before, "no second effect");
    let other = send(other);
    let code = other.json()["code"].clone();
    assert_eq!((other.status, code), (422, "idempotency_key_reused".into()), "{}", other.text());
    assert_eq!(recorded(bench), before, "what is refused has no effect");
    first
}

#[track_caller]
fn check_post(bench: &Bench, path: &str, body: &Value, other: &Value) -> Response {
    check(bench, path, || bench.json("POST", path, body), bench.json("POST", path, other))
}

#[test]
fn a_token_is_given_out_once_and_shown_again_to_who_asks_again() {
    let bench = Bench::start();
    let asked = json!({ "name": "ci" });
    let created = check_post(&bench, "/api/v1/tokens", &asked, &json!({ "name": "other" })).json();
    let token = created["token"].as_str().unwrap();
    assert_eq!(bench.send(bench.request_as(token, "GET", "/api/v1/services")).status, 200, "it opens");
    let bench = bench.restart();
    let again =
        bench.send(bench.json("POST", "/api/v1/tokens", &asked).header("Idempotency-Key", "/api/v1/tokens"));
    assert_eq!((again.status, again.json()), (201, created.clone()), "also after a restart");
    let database = std::fs::read(bench.data().join("setpoint.db")).unwrap();
    let wal = std::fs::read(bench.data().join("setpoint.db-wal")).unwrap_or_default();
    for stored in [database, wal] {
        let found = stored.windows(64).any(|window| window == &token.as_bytes()[3..]);
        assert!(!found, "a token is never stored");
    }
}

#[test]
fn a_token_is_taken_back_once() {
    let bench = Bench::start();
    bench.token(&json!({ "name": "ci" }));
    bench.token(&json!({ "name": "other" }));
    let revoke = |name: &str| bench.request("DELETE", &format!("/api/v1/tokens/{name}"));
    let gone = check(&bench, "k", || revoke("ci"), revoke("other"));
    assert_eq!((gone.status, gone.text()), (204, String::new()));
    bench.token(&json!({ "name": "ci" }));
    assert_eq!(bench.send(revoke("ci").header("Idempotency-Key", "k")).status, 204);
    assert_eq!(recorded(&bench).1, 2, "a later one of that name is another one");
}

#[test]
fn a_node_is_drained_once_for_each_key() {
    let bench = Bench::start();
    let post = |verb: &str| bench.json("POST", &format!("/api/v1/nodes/local/{verb}"), &json!({}));
    check(&bench, "d", || post("drain"), post("undrain"));
    check(&bench, "u", || post("undrain"), post("drain"));
    assert_eq!(bench.send(post("drain").header("Idempotency-Key", "d")).json()["state"], "draining");
    assert_eq!(bench.read("/api/v1/nodes/local")["state"], "up", "the first drain was long ago");
}

#[test]
fn passes_collections_and_uploads_are_answered_again() {
    let bench = Bench::start();
    bench.apply(API);
    bench.wait_for_state("default/api", "converged");
    check_post(&bench, "/api/v1/gc", &json!({}), &json!({ "volumes": true }));
    check_post(&bench, "/api/v1/reconcile", &json!({}), &json!({ "confirm": true }));
    let trigger = || bench.json("POST", "/api/monitoring/reconcile/trigger", &json!({}));
    check(&bench, "t", trigger, bench.json("POST", "/api/v1/gc", &json!({})));
    let archive = |text: &str| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("index.html"), text).unwrap();
        let mut packed = Vec::new();
        content::pack(folder.path(), &mut packed, &mut |_| {}).unwrap();
        bench.request("POST", "/api/v1/artifacts").body(packed)
    };
    let stored = check(&bench, "a", || archive("one"), archive("two"));
    assert_eq!(stored.status, 201);
}

#[test]
fn each_change_of_a_service_is_made_once() {
    let bench = Bench::start();
    bench.apply(API);
    bench.wait_for_state("default/api", "converged");
    let path = |verb: &str| format!("/api/v1/services/default/api/{verb}");
    check_post(&bench, "/api/v1/apply", &declaration(&API.replace("1000", "2000")), &declaration(API));
    bench.wait_for_state("default/api", "converged");
    check_post(&bench, &path("scale"), &json!({ "replicas": 3 }), &json!({ "replicas": 4 }));
    check_post(&bench, &path("deploy"), &json!({}), &json!({ "image": "acme/web:2" }));
    bench.wait_for_state("default/api", "converged");
    let first =
        bench.read(&path("deployments"))["deployments"].as_array().unwrap().last().unwrap()["id"].clone();
    check_post(&bench, &path("rollback"), &json!({ "to": first }), &json!({}));
    for verb in ["restart", "stop", "start"] {
        let other = bench.json("POST", &path("deploy"), &json!({}));
        check(&bench, verb, || bench.json("POST", &path(verb), &json!({})), other);
    }
    bench.wait_for_state("default/api", "converged");
    bench.node_reports.store(false, std::sync::atomic::Ordering::SeqCst);
    let open = bench.post(&path("deploy"), &json!({})).json()["services"][0]["deployment"].clone();
    let cancel = format!("/api/v1/deployments/{}/cancel", open.as_str().unwrap());
    let stop = bench.json("POST", &path("stop"), &json!({}));
    check(&bench, "c", || bench.json("POST", &cancel, &json!({})), stop);
    let delete = || bench.request("DELETE", "/api/v1/services/default/api");
    check(&bench, "x", delete, bench.json("POST", &path("stop"), &json!({})));
}
