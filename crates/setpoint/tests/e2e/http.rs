//! The HTTP interface from outside: who may ask, what answers without a token, and what repeats and races get.

use std::time::Duration;

use serde_json::json;
use testkit::{
    Setpoint,
    fixture::{QUICK, demo},
    http::{self, Request, Response},
};

use crate::setpoint;

fn started() -> Setpoint {
    let setpoint = setpoint().manifest(&demo(1, &[], QUICK)).start();
    setpoint.wait_until_converged("api");
    setpoint
}

fn plain(setpoint: &Setpoint, method: &str, path: &str) -> Request {
    Request::new(method, &setpoint.api().to_string(), path)
}

fn send(setpoint: &Setpoint, request: Request) -> Response {
    http::send(setpoint.api(), request).unwrap()
}

fn with_token(setpoint: &Setpoint, request: Request) -> Request {
    request.header("Authorization", &format!("Bearer {}", setpoint.token()))
}

#[test]
fn without_the_token_nothing_but_health_and_ready_answers() {
    let setpoint = started();
    for path in ["/health", "/ready"] {
        assert_eq!(send(&setpoint, plain(&setpoint, "GET", path)).status, 200, "{path}");
    }
    let closed = [
        ("GET", "/api/v1/services"),
        ("GET", "/api/v1/events"),
        ("GET", "/api/v1/services/default/api"),
        ("GET", "/api/v1/services/default/api/deployments"),
        ("POST", "/api/v1/apply"),
        ("POST", "/api/v1/services/default/api/stop"),
        ("DELETE", "/api/v1/services/default/api"),
        ("POST", "/api/v1/artifacts"),
        ("GET", "/metrics"),
        ("GET", "/api/monitoring/health"),
        ("GET", "/api/monitoring/stats"),
        ("POST", "/api/monitoring/reconcile/trigger"),
    ];
    let token = setpoint.token();
    for (method, path) in closed {
        let bare = send(&setpoint, plain(&setpoint, method, path));
        assert!([401, 429].contains(&bare.status), "{method} {path}: {}", bare.status);
        let truncated = format!("Bearer {}", &token[..token.len() - 1]);
        for wrong in ["Bearer nope", "Bearer ", "Basic abc", truncated.as_str()] {
            let answer = send(&setpoint, plain(&setpoint, method, path).header("Authorization", wrong));
            // Whoever keeps failing is told to wait, and is no wiser for it.
            assert!([401, 429].contains(&answer.status), "{method} {path} {wrong}: {}", answer.status);
            assert!(!answer.text().contains(&token));
        }
        let in_query = send(&setpoint, plain(&setpoint, method, &format!("{path}?token={token}")));
        assert!(
            [401, 429].contains(&in_query.status),
            "a token in the address ends up in logs: {}",
            in_query.status
        );
    }
    assert_eq!(setpoint.service("api")["state"], "converged");
}

#[test]
fn the_api_answers_to_its_own_names_alone() {
    let setpoint = started();
    for host in ["evil.example", "evil.example:80", "127.0.0.1.evil.example"] {
        let request = with_token(&setpoint, Request::new("GET", host, "/api/v1/services"));
        let answer = send(&setpoint, request);
        assert!(matches!(answer.status, 400 | 403 | 421), "{host}: {}", answer.status);
    }
    let foreign = with_token(&setpoint, plain(&setpoint, "POST", "/api/v1/services/default/api/stop"))
        .header("Origin", "http://evil.example")
        .header("Content-Type", "application/json");
    assert_eq!(send(&setpoint, foreign).status, 403);
    let form = with_token(&setpoint, plain(&setpoint, "POST", "/api/v1/services/default/api/scale"))
        .header("Content-Type", "text/plain")
        .body("{\"replicas\":3}");
    let answer = send(&setpoint, form);
    assert!((400..500).contains(&answer.status), "{}", answer.status);
    assert_eq!(setpoint.service("api")["replicas"]["desired"], 1);
}

#[test]
fn at_the_edge_an_unknown_host_is_nobodys() {
    let setpoint = started();
    for host in
        ["unknown.localhost", "127.0.0.1", "localhost", "api.localhost.evil.example", "xapi.localhost"]
    {
        let answer = setpoint.get(host, "/");
        assert_eq!(answer.status, 404, "{host}");
    }
    for host in ["api.localhost", "API.localhost", "api.localhost:1234", "api.localhost."] {
        assert_eq!(setpoint.get(host, "/").status, 200, "{host}");
    }
    let quiet = Duration::from_secs(2);
    let bad: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: api.localhost\r\nHost: other\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: api.localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: api.localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"nonsense\r\n\r\n",
    ];
    for bytes in bad {
        let answer = http::raw(setpoint.edge(), bytes, quiet).unwrap();
        let line = String::from_utf8_lossy(&answer);
        assert!(line.starts_with("HTTP/1.1 4"), "{}: {line}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(setpoint.get("api.localhost", "/").status, 200);
}

#[test]
fn the_edge_tells_the_workload_who_asked_and_nobody_else_can() {
    let setpoint = started();
    let request = Request::new("GET", "api.localhost", "/headers")
        .header("X-Forwarded-For", "6.6.6.6")
        .header("Forwarded", "for=6.6.6.6")
        .header("X-Mine", "kept");
    let answer = http::send(setpoint.edge(), request).unwrap();
    let text = answer.text().to_lowercase();
    assert!(!text.contains("6.6.6.6"), "{text}");
    assert!(text.contains("127.0.0.1") && text.contains("kept") && text.contains("api.localhost"), "{text}");
}

#[test]
fn bodies_pass_both_ways() {
    let setpoint = started();
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let request = Request::new("POST", "api.localhost", "/echo").body(body.clone());
    let answer = http::send(setpoint.edge(), request).unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, body.len()));
    assert_eq!(answer.body, body);
}

#[test]
fn the_same_key_is_one_effect_and_another_body_is_a_conflict() {
    let setpoint = started();
    let scale = |replicas: u64, key: &str| {
        let request = with_token(&setpoint, plain(&setpoint, "POST", "/api/v1/services/default/api/scale"));
        let request = request.header("Content-Type", "application/json").header("Idempotency-Key", key);
        send(&setpoint, request.body(json!({"replicas": replicas}).to_string()))
    };
    let first = scale(2, "k1");
    assert_eq!(first.status, 200, "{}", first.text());
    setpoint.ok(&["scale", "api", "3", "--wait"]);
    let again = scale(2, "k1");
    assert_eq!((again.status, again.text()), (first.status, first.text()), "the same answer");
    assert_eq!(setpoint.service("api")["replicas"]["desired"], 3, "and no second effect");
    let other = scale(1, "k1");
    assert!(matches!(other.status, 409 | 422), "{}: {}", other.status, other.text());
    assert_eq!(setpoint.service("api")["replicas"]["desired"], 3);
}

#[test]
fn a_write_onto_another_generation_is_refused() {
    let setpoint = started();
    let path = "/api/v1/services/default/api";
    let shown = send(&setpoint, with_token(&setpoint, plain(&setpoint, "GET", path)));
    let tag = shown.header("etag").unwrap().to_owned();
    let scale = |tag: &str| {
        let request = with_token(&setpoint, plain(&setpoint, "POST", &format!("{path}/scale")));
        let request = request.header("Content-Type", "application/json").header("If-Match", tag);
        send(&setpoint, request.body("{\"replicas\":2}"))
    };
    assert_eq!(scale("\"99999\"").status, 412);
    assert_eq!(setpoint.service("api")["replicas"]["desired"], 1);
    assert_eq!(scale(&tag).status, 200);
}

#[test]
fn bad_json_is_a_problem_document_and_never_an_error_of_the_server() {
    let setpoint = started();
    let deep = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
    let bodies = [
        "",
        "{",
        "[]",
        "null",
        "{\"replicas\":-1}",
        "{\"replicas\":1.5}",
        "{\"replicas\":\"3\"}",
        "{\"replicas\":4294967296}",
        "{\"replicas\":1000000000}",
        "{\"replicas\":2,\"extra\":1}",
        deep.as_str(),
    ];
    for body in bodies {
        let request = with_token(&setpoint, plain(&setpoint, "POST", "/api/v1/services/default/api/scale"));
        let answer = send(&setpoint, request.header("Content-Type", "application/json").body(body));
        let shown = &body[..body.len().min(40)];
        assert!((400..500).contains(&answer.status), "{shown}: {} {}", answer.status, answer.text());
        let problem = answer.json();
        assert!(problem["code"].is_string() && problem["message"].is_string(), "{shown}: {problem}");
    }
    for path in ["/api/v1/services/default/nope", "/api/v1/services/%2e%2e/x", "/api/v1/nothing", "/nothing"]
    {
        let answer = send(&setpoint, with_token(&setpoint, plain(&setpoint, "GET", path)));
        assert!((400..500).contains(&answer.status), "{path}: {}", answer.status);
    }
    assert_eq!(setpoint.service("api")["replicas"]["desired"], 1);
}

#[test]
fn the_served_openapi_describes_the_paths_that_answer() {
    let setpoint = started();
    let openapi = setpoint.ask("GET", "/api/v1/openapi.json", None).json();
    assert!(openapi["openapi"].as_str().unwrap().starts_with("3."));
    let paths = openapi["paths"].as_object().unwrap();
    assert!(paths.len() > 10, "{:?}", paths.keys().collect::<Vec<_>>());
    assert!(paths.keys().any(|path| path.ends_with("/services")));
    let metrics = setpoint.ask("GET", "/metrics", None);
    assert_eq!(metrics.status, 200);
    assert!(metrics.text().lines().any(|line| line.starts_with("# TYPE")), "{}", metrics.text());
}

#[test]
fn events_are_streamed_as_they_happen() {
    use std::io::{BufRead, BufReader, Write};
    let setpoint = started();
    let mut stream = std::net::TcpStream::connect(setpoint.api()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = format!(
        "GET /api/v1/events HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nAccept: text/event-stream\r\n\r\n",
        setpoint.api(),
        setpoint.token()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines();
    assert!(lines.next().unwrap().unwrap().contains("200"));
    setpoint.ok(&["scale", "api", "2"]);
    let found =
        lines.map_while(Result::ok).find(|line| line.starts_with("data:") && line.contains("service.scaled"));
    assert!(found.is_some(), "the stream ended or was silent");
}

#[test]
fn the_limits_of_the_edge_are_what_the_settings_say() {
    let setpoint = setpoint()
        .env("SETPOINT__EDGE__MAX_BODY", "1KiB")
        .env("SETPOINT__EDGE__MAX_HEADER", "2KiB")
        .env("SETPOINT__EDGE__RESPONSE_TIMEOUT", "300ms")
        .manifest(&demo(1, &[], QUICK))
        .start();
    setpoint.wait_until_converged("api");
    let ask = |request: Request| http::send(setpoint.edge(), request).unwrap().status;
    let to = |method: &str, path: &str| Request::new(method, "api.localhost", path);
    assert_eq!(ask(to("POST", "/echo").body(vec![b'x'; 1024])), 200);
    assert_eq!(ask(to("POST", "/echo").body(vec![b'x'; 1025])), 413);
    assert_eq!(ask(to("GET", "/").header("X-Long", &"x".repeat(3000))), 431);
    assert_eq!(ask(to("GET", "/slow?ms=100")), 200);
    assert_eq!(ask(to("GET", "/slow?ms=5000")), 504);
    let shown = setpoint.command(&["config"]).env("SETPOINT__EDGE__MAX_BODY", "1KiB").output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("edge.max_body = \"1KiB\""), "{shown}");
    let bad = setpoint.command(&["config"]).env("SETPOINT__EDGE__MAX_BODY", "much").output().unwrap();
    let said = String::from_utf8(bad.stderr).unwrap();
    assert!(
        !bad.status.success() && said.contains("is not a size") && said.contains("environment"),
        "{said}"
    );
}
