//! What bad input gets: a typed refusal that names the fault, and nothing changed.

use serde_json::{Value, json};
use testkit::http::Request;

use super::bench::{API, Bench, declaration};

/// A declaration with one value replaced, by JSON pointer.
fn spoiled(pointer: &str, value: Value) -> String {
    let mut body = declaration(API);
    *body.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
    body.to_string()
}

fn with_key(pointer: &str, key: &str) -> String {
    let mut body = declaration(API);
    body.pointer_mut(pointer).unwrap().as_object_mut().unwrap().insert(key.into(), json!(1));
    body.to_string()
}

const SPEC: &str = "/services/0/spec";

#[test]
fn bad_input_is_refused_with_its_place_and_changes_nothing() {
    let bench = Bench::start();
    bench.apply(API);
    bench.wait_for_state("default/api", "converged");
    let before = bench.recorded();

    let apply = "/api/v1/apply";
    let scale = "/api/v1/services/default/api/scale";
    let field = |name: &str| format!("{SPEC}/{name}");
    let cases: Vec<(&str, &str, String, u16, &str)> = vec![
        ("POST", apply, "{".into(), 400, "not_json"),
        ("POST", apply, "\u{0}".into(), 400, "not_json"),
        ("POST", apply, "[".repeat(200_000), 422, "invalid"),
        ("POST", apply, format!("{{\"services\":{}", "[".repeat(200_000)), 422, "invalid"),
        ("POST", apply, "{}".into(), 422, "invalid"),
        ("POST", apply, "{\"services\":[]}".into(), 422, "declares_nothing"),
        ("POST", apply, "{\"services\":[],\"services\":[]}".into(), 422, "invalid"),
        ("POST", apply, with_key("", "force"), 422, "invalid"),
        ("POST", apply, with_key(SPEC, "replica"), 422, "invalid"),
        ("POST", apply, with_key(&field("deploy"), "canary"), 422, "invalid"),
        ("POST", apply, spoiled("/services/0/key", json!("default/../x")), 422, "invalid"),
        ("POST", apply, spoiled("/services/0/key", json!("default/A")), 422, "invalid"),
        ("POST", apply, spoiled("/services/0/key", json!("x".repeat(300))), 422, "invalid"),
        ("POST", apply, spoiled(&field("replicas"), json!(-1)), 422, "invalid"),
        ("POST", apply, spoiled(&field("replicas"), json!(1.5)), 422, "invalid"),
        ("POST", apply, spoiled(&field("replicas"), json!("3")), 422, "invalid"),
        ("POST", apply, spoiled(&field("replicas"), json!(4_294_967_296_u64)), 422, "invalid"),
        ("POST", apply, spoiled(&field("env"), json!({"A=B": "x"})), 422, "invalid"),
        ("POST", apply, spoiled(&field("env"), json!({"LD_PRELOAD": "x"})), 422, "invalid"),
        ("POST", apply, spoiled(&field("domains"), json!(["http://x"])), 422, "invalid"),
        ("POST", apply, spoiled(&field("files"), json!({"../etc/passwd": "x"})), 422, "invalid"),
        ("POST", "/api/v1/plan", "{\"services\":[]}".into(), 422, "declares_nothing"),
        ("POST", scale, "{}".into(), 422, "invalid"),
        ("POST", scale, "{\"replicas\":-1}".into(), 422, "invalid"),
        ("POST", scale, "{\"replicas\":1e9}".into(), 422, "invalid"),
        ("POST", scale, "{\"replicas\":\"3\"}".into(), 422, "invalid"),
        ("POST", scale, "{\"replicas\":10001}".into(), 422, "replicas_out_of_range"),
        ("POST", scale, "{\"replicas\":18446744073709551615}".into(), 422, "replicas_out_of_range"),
        ("POST", scale, "{\"replicas\":1,\"replicas\":2}".into(), 422, "invalid"),
        ("POST", scale, "{\"replicas\":1} trailing".into(), 400, "not_json"),
        ("POST", scale, format!("{{\"replicas\":1{}}}", " ".repeat(2 << 20)), 413, "body_too_large"),
        ("POST", apply, " ".repeat(17 << 20), 413, "body_too_large"),
        ("POST", "/api/v1/services/default/api/stop", "{\"force\":true}".into(), 422, "invalid"),
        (
            "POST",
            "/api/v1/services/default/api/deploy",
            "{\"artifact\":\"sha256:xyz\"}".into(),
            422,
            "invalid",
        ),
        ("POST", "/api/v1/services/default/api/deploy", artifact(), 422, "takes_no_content"),
        ("POST", "/api/v1/services/default/api/rollback", "{}".into(), 409, "no_earlier_release"),
        (
            "POST",
            "/api/v1/services/default/api/rollback",
            "{\"to\":\"nosuch\"}".into(),
            404,
            "no_such_deployment",
        ),
        ("POST", "/api/v1/services/default/other/stop", "{}".into(), 404, "not_declared"),
        ("DELETE", "/api/v1/services/default/other", "{}".into(), 404, "not_declared"),
        ("POST", "/api/v1/deployments/nosuch/cancel", "{}".into(), 404, "no_such_deployment"),
        ("POST", "/api/v1/deployments/NO-SUCH/cancel", "{}".into(), 404, "invalid_id"),
        ("POST", "/api/v1/reconcile", "{\"service\":\"default/other\"}".into(), 404, "not_declared"),
        ("POST", "/api/v1/reconcile", "{\"confirmed\":true}".into(), 422, "invalid"),
        ("POST", "/api/monitoring/reconcile/trigger", "[]".into(), 422, "invalid"),
        ("GET", "/api/v1/services/default/other", String::new(), 404, "not_declared"),
        ("GET", "/api/v1/services/default/..%2fx", String::new(), 404, "invalid_name"),
        ("GET", "/api/v1/services/default/%ff", String::new(), 404, "invalid_name"),
        ("GET", "/api/v1/services/default/other/explain", String::new(), 404, "not_declared"),
        ("GET", "/api/v1/services/default/other/logs", String::new(), 404, "not_declared"),
        ("GET", "/api/v1/services/default/other/deployments", String::new(), 404, "not_declared"),
        ("GET", "/api/v1/services/default/api/logs?tail=-1", String::new(), 400, "bad_query"),
        ("GET", "/api/v1/services/default/api/logs?instance=x", String::new(), 400, "bad_query"),
        (
            "GET",
            "/api/v1/services/default/api/logs?instance=default.web.0.1",
            String::new(),
            422,
            "other_service",
        ),
        ("GET", "/api/v1/events?after=yesterday", String::new(), 400, "bad_query"),
        ("GET", "/api/v1/events?service=a/b/c", String::new(), 400, "bad_query"),
        ("GET", "/api/v1/instances/default.api.9.9/explain", String::new(), 404, "no_such_instance"),
        ("GET", "/api/v1/instances/x/explain", String::new(), 404, "invalid_id"),
        ("GET", "/api/v1/journal/999999", String::new(), 404, "no_such_pass"),
        ("GET", "/api/v1/journal/99999999999999999999999", String::new(), 404, "invalid_id"),
        ("GET", "/api/v1/artifacts/sha256:0", String::new(), 404, "invalid_id"),
        ("GET", "/api/v1/events?servise=api", String::new(), 400, "unknown_parameter"),
        ("GET", "/api/v1/services?token=x", String::new(), 400, "unknown_parameter"),
        ("POST", "/api/v1/reconcile?confirm=true", "{}".into(), 400, "unknown_parameter"),
        ("GET", "/api/v1/nothing", String::new(), 404, "no_such_route"),
        ("GET", "/", String::new(), 404, "no_such_route"),
        ("PUT", "/api/v1/services", String::new(), 405, "method_not_allowed"),
        ("DELETE", "/api/v1/apply", String::new(), 405, "method_not_allowed"),
        ("TRACE", "/api/v1/services", String::new(), 405, "method_not_allowed"),
    ];
    for (method, path, body, status, code) in cases {
        let shown: String = body.chars().take(120).collect();
        let request = bench.request(method, path).header("Content-Type", "application/json").body(body);
        check(&bench, request, status, code, &format!("{method} {path} {shown}"));
    }
    assert_eq!(bench.recorded(), before, "nothing has changed");
}

fn artifact() -> String {
    format!("{{\"artifact\":\"sha256:{}\"}}", "0".repeat(64))
}

fn check(bench: &Bench, request: Request, status: u16, code: &str, what: &str) {
    let answer = bench.send(request);
    assert_eq!(answer.status, status, "{what}: {}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}");
    let problem = answer.json();
    assert_eq!(problem["code"], code, "{what}: {problem}");
    assert_eq!(problem["status"], status, "{what}");
    for word in ["type", "title", "detail", "message"] {
        assert!(!problem[word].as_str().unwrap().is_empty(), "{what}: {word}");
    }
    assert_eq!(answer.header("allow").is_some(), status == 405, "{what}");
}

#[test]
fn a_body_that_is_no_json_is_refused_by_its_type() {
    let bench = Bench::start();
    for kind in
        [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("multipart/form-data")]
    {
        let request = bench.request("POST", "/api/v1/apply").body(declaration(API).to_string());
        let request = match kind {
            Some(kind) => request.header("Content-Type", kind),
            None => request,
        };
        check(&bench, request, 415, "not_json", &format!("{kind:?}"));
    }
    let request =
        bench.request("POST", "/api/v1/apply").header("Content-Type", "application/json; charset=utf-8");
    assert_eq!(bench.send(request.body(declaration(API).to_string())).status, 200);
}

#[test]
fn an_unknown_parameter_is_named_with_the_nearest_known_one_and_without_its_value() {
    let bench = Bench::start();
    let problem = bench.get("/api/v1/events?limit=1&servise=hunter2").json();
    assert_eq!(problem["field"], "servise");
    assert!(problem["message"].as_str().unwrap().contains("did you mean `service`?"), "{problem}");
    assert!(problem["help"].as_str().unwrap().contains("after, service, limit"), "{problem}");
    assert!(!problem.to_string().contains("hunter2"));
}

#[test]
fn faults_in_json_name_line_column_and_field() {
    let bench = Bench::start();
    let body = "{\n  \"services\": [],\n  \"prune\": [\"demo\", \"-x\"]\n}";
    let request =
        bench.request("POST", "/api/v1/apply").header("Content-Type", "application/json").body(body);
    let problem = bench.send(request).json();
    assert!(problem["message"].as_str().unwrap().contains("line 3 column"), "{problem}");
    assert_eq!(problem["field"], "prune[1]");
}

#[test]
fn a_spec_with_faults_names_each_field() {
    let bench = Bench::start();
    let mut body = declaration(API);
    body["services"][0]["spec"]["replicas"] = json!(20_000);
    body["services"][0]["spec"]["retain"] = json!(2_000);
    let answer = bench.post("/api/v1/apply", &body);
    assert_eq!(answer.status, 422, "{}", answer.text());
    let problem = answer.json();
    let fields: Vec<&str> =
        problem["errors"].as_array().unwrap().iter().map(|e| e["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["services.api.replicas", "services.api.retain"], "{problem}");
}

#[test]
fn two_services_with_one_domain_are_a_conflict() {
    let bench = Bench::start();
    bench.apply(API);
    let mut body = declaration(API);
    body["services"][0]["key"] = json!("other/web");
    let answer = bench.post("/api/v1/apply", &body);
    assert!(matches!(answer.status, 409 | 422), "{}", answer.text());
    assert_eq!(bench.read("/api/v1/services")["services"].as_array().unwrap().len(), 1);
}

#[test]
fn hostile_terms_are_refused() {
    let bench = Bench::start();
    bench.apply(API);
    let long = "k".repeat(256);
    for (name, value, code) in [
        ("If-Match", "three", "bad_if_match"),
        ("If-Match", "W/\"3\"", "bad_if_match"),
        ("If-Match", "\"99999999999999999999\"", "bad_if_match"),
        ("Idempotency-Key", "", "bad_idempotency_key"),
        ("Idempotency-Key", long.as_str(), "bad_idempotency_key"),
    ] {
        let request = bench.json("POST", "/api/v1/services/default/api/stop", &json!({})).header(name, value);
        check(&bench, request, 400, code, &format!("{name}: {value}"));
    }
}

/// Every value in a declaration, by JSON pointer.
fn pointers(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| {
                let name = name.replace('~', "~0").replace('/', "~1");
                pointers(value, format!("{at}/{name}"), found);
            });
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| pointers(item, format!("{at}/{index}"), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    found.push(at);
}

#[test]
fn whatever_stands_in_a_declaration_is_taken_or_refused() {
    let bench = Bench::start();
    let good = declaration(API);
    let mut places = Vec::new();
    pointers(&good, String::new(), &mut places);
    assert!(places.len() > 40, "{places:?}");
    let nested = (0..100).fold(json!(1), |inner, _| json!([inner]));
    let hostile = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1.5e300),
        json!(u64::MAX),
        json!(""),
        json!("\u{0}"),
        json!("\u{202e}\u{1b}[31m${PORT}$"),
        json!("x".repeat(100_000)),
        json!("99999999999d"),
        json!([]),
        json!({}),
        json!({ "": "" }),
        nested,
    ];
    let mut connection = testkit::http::Connection::open(bench.address).unwrap();
    let mut taken = 0;
    for place in &places {
        for value in &hostile {
            let mut body = good.clone();
            *body.pointer_mut(place).unwrap() = value.clone();
            let answer = connection.send(&bench.json("POST", "/api/v1/plan", &body)).unwrap();
            assert!(matches!(answer.status, 200 | 400 | 409 | 422), "{place} {value}: {}", answer.text());
            taken += usize::from(answer.status == 200);
        }
    }
    assert!(taken > 0, "some values are as good as others");
    assert_eq!(bench.read("/api/v1/services")["services"], json!([]));
}
