//! Requests through the proxy: routing, retries, bodies, upgrades, answers of its own.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use crate::support::*;

const A: &str = "default.api.0.1";
const B: &str = "default.api.1.1";

/// An address that refuses connections: taken, then given up.
async fn refusing() -> std::net::SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn hosts_and_paths_are_routed_and_strangers_get_404() {
    let running = start().await;
    let (api, root, v1) = (named("api").await, named("root").await, named("v1").await);
    running.edge.publish(&table(
        1,
        &[
            ("api", "api.localhost", proxy(&[("default.api.0.1", api.address)])),
            ("root", "demo.localhost", proxy(&[("default.root.0.1", root.address)])),
            ("v1", "demo.localhost/v1", proxy(&[("default.v1.0.1", v1.address)])),
            ("none", "none.localhost", model::route::Backend::Nothing),
            ("empty", "empty.localhost", proxy(&[])),
        ],
    ));
    let port = running.edge.local_addr().port();
    for (host, path, status, text) in [
        ("api.localhost", "/", 200, "api"),
        ("API.localhost.", "/x?y", 200, "api"),
        (&format!("api.localhost:{port}"), "/", 200, "api"),
        ("demo.localhost", "/v1", 200, "v1"),
        ("demo.localhost", "/v1/x", 200, "v1"),
        ("demo.localhost", "/v12", 200, "root"),
        ("stranger.localhost", "/", 404, "404 Not Found: no service"),
        ("127.0.0.1", "/", 404, "404 Not Found: no service"),
        ("none.localhost", "/", 503, "503 Service Unavailable: nothing serves default/none"),
        ("empty.localhost", "/", 503, "503 Service Unavailable: nothing serves default/empty"),
    ] {
        let answer = running.get(host, path).await;
        assert_eq!(answer.status, status, "{host}{path}");
        assert!(answer.text().starts_with(text), "{host}{path}: {}", answer.text());
    }
    assert_eq!(running.edge.stats().unrouted, 2);
}

#[tokio::test]
async fn the_upstream_sees_the_path_unchanged_and_headers_that_only_the_edge_may_set() {
    let running = start().await;
    let seen = Arc::new(Mutex::new(String::new()));
    let saw = seen.clone();
    let a = upstream(move |head, _| {
        *saw.lock().unwrap() = head.to_owned();
        Act::Text("ok".into())
    })
    .await;
    running.edge.publish(&api(1, &[(A, a.address)]));
    let mut client = running.client().await;
    client
        .send(
            "GET /a/../b//%2e%2F?q=%20&x HTTP/1.1\r\nHost: API.localhost:81\r\nX-Forwarded-For: 6.6.6.6\r\n\
             Connection: X-Forwarded-For, X-Hop\r\nX-Hop: 1\r\nForwarded: for=6.6.6.6\r\nX-Keep: 1\r\n\r\n",
        )
        .await;
    assert_eq!(client.answer().await.status, 200);
    let head = seen.lock().unwrap().to_ascii_lowercase();
    assert!(head.starts_with("get /a/../b//%2e%2f?q=%20&x http/1.1\r\n"), "{head}");
    for line in [
        "host: api.localhost:81",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: api.localhost:81",
        "forwarded: for=127.0.0.1;host=\"api.localhost:81\";proto=http",
        "x-keep: 1",
    ] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} in {head}");
    }
    assert!(!head.contains("6.6.6.6") && !head.contains("x-hop"), "{head}");
}

#[tokio::test]
async fn a_connection_is_kept_on_both_sides() {
    let running = start().await;
    let a = named("a").await;
    running.edge.publish(&api(1, &[(A, a.address)]));
    let mut client = running.client().await;
    for _ in 0..5 {
        client.send("GET / HTTP/1.1\r\nHost: api.localhost\r\n\r\n").await;
        assert_eq!(client.answer().await.text(), "a");
    }
    assert_eq!(a.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn a_refused_connection_is_retried_elsewhere_for_any_method() {
    let running = start().await;
    let a = upstream(|_, body| Act::Text(String::from_utf8_lossy(body).into_owned())).await;
    running.edge.publish(&api(1, &[(A, refusing().await), (B, a.address)]));
    for _ in 0..4 {
        let mut client = running.client().await;
        client.send("POST / HTTP/1.1\r\nHost: api.localhost\r\nContent-Length: 5\r\n\r\nhello").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    }
    let stats = running.edge.stats().services[&"default/api".parse().unwrap()];
    assert_eq!((stats.retries, stats.ejections), (1, 1), "passed over after the first refusal");
}

#[tokio::test]
async fn a_service_whose_only_instance_refuses_gets_502_and_serves_again_at_once() {
    let running = start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    running.edge.publish(&api(1, &[(A, address)]));
    let answer = running.get("api.localhost", "/").await;
    assert_eq!(answer.status, 502);
    assert!(!answer.text().contains(&address.to_string()), "{}", answer.text());
    let _back =
        upstream_at(tokio::net::TcpListener::bind(address).await.unwrap(), |_, _| Act::Text("back".into()));
    assert_eq!(running.get("api.localhost", "/").await.text(), "back");
}

/// Answers the first request of each connection and closes without an answer at the second.
async fn fickle(count: Arc<AtomicU64>) -> Upstream {
    upstream(move |_, _| {
        if count.fetch_add(1, SeqCst).is_multiple_of(2) {
            Act::Text("ok".into())
        } else {
            Act::BytesAndClose(Vec::new())
        }
    })
    .await
}

#[tokio::test]
async fn an_idempotent_request_on_a_connection_that_died_is_made_again_and_a_post_is_not() {
    let running = start().await;
    let count = Arc::new(AtomicU64::new(0));
    let a = fickle(count.clone()).await;
    running.edge.publish(&api(1, &[(A, a.address)]));
    for (method, expected) in [("GET", 200), ("DELETE", 200), ("OPTIONS", 200), ("POST", 502), ("PATCH", 502)]
    {
        // One answered on a connection that is then reused, one that dies on it.
        count.store(0, SeqCst);
        assert_eq!(running.get("api.localhost", "/").await.status, 200);
        let mut client = running.client().await;
        client.send(format!("{method} / HTTP/1.1\r\nHost: api.localhost\r\n\r\n")).await;
        assert_eq!(client.answer().await.status, expected, "{method}");
    }
}

#[tokio::test]
async fn attempts_are_bounded() {
    let running = start().await;
    let a = upstream(|_, _| Act::BytesAndClose(Vec::new())).await;
    let b = upstream(|_, _| Act::BytesAndClose(b"HTTP/1.1 20".to_vec())).await;
    running.edge.publish(&api(1, &[(A, a.address), (B, b.address)]));
    assert_eq!(running.get("api.localhost", "/").await.status, 502);
    assert_eq!(a.requests.load(SeqCst) + b.requests.load(SeqCst), 2, "each once");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_made_whole() {
    let running = start().await;
    let a =
        upstream(|_, _| Act::BytesAndClose(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec()))
            .await;
    running.edge.publish(&api(1, &[(A, a.address)]));
    let mut client = running.client().await;
    client.send("GET / HTTP/1.1\r\nHost: api.localhost\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().status, 200);
    client.closed().await;
    assert_eq!(client.seen, b"half");
    assert_eq!(a.requests.load(SeqCst), 1);
}

#[tokio::test]
async fn garbage_from_an_upstream_is_a_502() {
    let running = start().await;
    let a = upstream(|_, _| Act::BytesAndClose(b"SSH-2.0-x\r\n\r\n".to_vec())).await;
    running.edge.publish(&api(1, &[(A, a.address)]));
    assert_eq!(running.get("api.localhost", "/").await.status, 502);
}

#[tokio::test]
async fn head_has_the_headers_and_no_body() {
    let running = start().await;
    let a = upstream(|_, _| Act::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec())).await;
    running.edge.publish(&api(1, &[(A, a.address)]));
    let mut client = running.client().await;
    for _ in 0..2 {
        client.send("HEAD / HTTP/1.1\r\nHost: api.localhost\r\n\r\n").await;
        let answer = client.answer_to_head().await;
        assert_eq!((answer.status, answer.header("content-length")), (200, Some("5")));
    }
    assert_eq!(a.connections.load(SeqCst), 1, "the connection is reused");
}

#[tokio::test]
async fn bodies_stream_both_ways_before_either_ends() {
    let running = start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    running.edge.publish(&api(1, &[(A, listener.local_addr().unwrap())]));
    let mut client = running.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: api.localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        .await;
    let mut server = Raw { stream: listener.accept().await.unwrap().0, seen: Vec::new() };
    let head = String::from_utf8(server.until(b"\r\n\r\n").await.unwrap()).unwrap().to_ascii_lowercase();
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    assert_eq!(server.until(b"one\r\n").await.unwrap(), b"3\r\none\r\n");
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nuno\r\n").await;
    assert_eq!(client.head().await.unwrap().status, 200);
    assert_eq!(client.until(b"uno\r\n").await.unwrap(), b"3\r\nuno\r\n");
    client.send("3\r\ntwo\r\n0\r\n\r\n").await;
    assert_eq!(server.until(b"0\r\n\r\n").await.unwrap(), b"3\r\ntwo\r\n0\r\n\r\n");
    server.send("0\r\n\r\n").await;
    assert_eq!(client.until(b"0\r\n\r\n").await.unwrap(), b"0\r\n\r\n");
}

#[tokio::test]
async fn a_large_body_comes_back_unchanged() {
    let running = start().await;
    let a = upstream(|_, body| {
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        answer.extend_from_slice(body);
        Act::Bytes(answer)
    })
    .await;
    running.edge.publish(&api(1, &[(A, a.address)]));
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| ((n * 31) >> 3) as u8).collect();
    let mut client = running.client().await;
    client
        .send(format!("PUT / HTTP/1.1\r\nHost: api.localhost\r\nContent-Length: {}\r\n\r\n", body.len()))
        .await;
    client.send(&body).await;
    assert!(client.answer().await.body == body);
}

#[tokio::test]
async fn expect_100_continue_is_answered_and_not_passed_on() {
    let running = start().await;
    let a = upstream(|head, body| {
        assert!(!head.to_ascii_lowercase().contains("expect"));
        Act::Text(String::from_utf8_lossy(body).into_owned())
    })
    .await;
    running.edge.publish(&api(1, &[(A, a.address)]));
    let mut client = running.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: api.localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        .await;
    assert_eq!(client.head().await.unwrap().status, 100);
    client.send("hi").await;
    assert_eq!(client.answer().await.text(), "hi");
}

#[tokio::test]
async fn an_upgrade_connects_both_sides_and_a_refused_one_is_a_plain_answer() {
    let running = start().await;
    let a = upstream(|head, _| if head.starts_with("GET /no") { Act::Text("no".into()) } else { Act::Echo })
        .await;
    running.edge.publish(&api(1, &[(A, a.address)]));
    let ask = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: api.localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\n"
        )
    };
    let mut client = running.client().await;
    client.send(ask("/no")).await;
    assert_eq!(client.answer().await.text(), "no");
    client.send(ask("/yes")).await;
    let answer = client.head().await.unwrap();
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("echo")));
    assert_eq!(answer.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"));
    for text in ["ping", "pong", "\r\n\r\nGET / HTTP/1.1\r\n"] {
        client.send(text).await;
        assert_eq!(client.exactly(text.len()).await, text.as_bytes());
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_upstreams_work() {
    let running = start().await;
    let (_go, signal) = tokio::sync::watch::channel(false);
    let a = upstream(move |_, _| Act::Held(signal.clone(), "late".into())).await;
    running.edge.publish(&api(1, &[(A, a.address)]));
    let mut client = running.client().await;
    client.send("GET / HTTP/1.1\r\nHost: api.localhost\r\n\r\n").await;
    eventually("the request arrives", || a.requests.load(SeqCst) == 1).await;
    drop(client);
    eventually("the upstream's connection closes", || a.open.load(SeqCst) == 0).await;
}

#[tokio::test]
async fn a_taken_address_says_what_to_do() {
    let running = start().await;
    let mut config = config(edge::Limits::default());
    config.listen = running.edge.local_addr();
    let error = edge::Edge::bind(config).await.err().unwrap().to_string();
    assert!(error.contains(&running.edge.local_addr().to_string()) && error.contains("--edge"), "{error}");
}

#[tokio::test]
async fn shutdown_lets_a_request_finish_and_accepts_no_more() {
    let mut running = start().await;
    let (go, signal) = tokio::sync::watch::channel(false);
    let a = upstream(move |_, _| Act::Held(signal.clone(), "finished".into())).await;
    running.edge.publish(&api(1, &[(A, a.address)]));
    let mut client = running.client().await;
    let mut idle = running.client().await;
    client.send("GET / HTTP/1.1\r\nHost: api.localhost\r\n\r\n").await;
    eventually("the request arrives", || a.requests.load(SeqCst) == 1).await;
    running.stop.take().unwrap().send(()).unwrap();
    idle.closed().await;
    assert!(tokio::net::TcpStream::connect(running.edge.local_addr()).await.is_err());
    go.send_replace(true);
    assert_eq!(client.answer().await.text(), "finished");
    client.closed().await;
    tokio::time::timeout(BOUND, &mut running.server).await.unwrap().unwrap();
}

#[tokio::test]
async fn shutdown_is_bounded() {
    let grace = std::time::Duration::from_millis(50);
    let mut running = start_with(edge::Limits { shutdown_grace: grace, ..Default::default() }).await;
    let a = upstream(|_, _| Act::Echo).await;
    running.edge.publish(&api(1, &[(A, a.address)]));
    let mut client = running.client().await;
    client
        .send("GET / HTTP/1.1\r\nHost: api.localhost\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        .await;
    assert_eq!(client.head().await.unwrap().status, 101);
    running.stop.take().unwrap().send(()).unwrap();
    client.closed().await;
    tokio::time::timeout(BOUND, &mut running.server).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_in_time_is_a_504() {
    let limits = edge::Limits { response_head: std::time::Duration::from_millis(50), ..Default::default() };
    let running = start_with(limits).await;
    let (_go, signal) = tokio::sync::watch::channel(false);
    let a = upstream(move |_, _| Act::Held(signal.clone(), "late".into())).await;
    running.edge.publish(&api(1, &[(A, a.address)]));
    assert_eq!(running.get("api.localhost", "/").await.status, 504);
}

#[tokio::test]
async fn a_body_over_the_limit_is_a_413() {
    let running = start_with(edge::Limits { max_body: Some(4), ..Default::default() }).await;
    let a = upstream(|_, body| Act::Text(body.len().to_string())).await;
    running.edge.publish(&api(1, &[(A, a.address)]));
    for (body, status) in [
        ("Content-Length: 4\r\n\r\nfour", 200),
        ("Content-Length: 5\r\n\r\nfifth", 413),
        ("Transfer-Encoding: chunked\r\n\r\n5\r\nfifth\r\n0\r\n\r\n", 413),
    ] {
        let mut client = running.client().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: api.localhost\r\n{body}")).await;
        assert_eq!(client.answer().await.status, status, "{body}");
    }
}

#[tokio::test]
async fn an_upload_that_moves_may_take_longer_than_an_answer() {
    let limits = edge::Limits { response_head: std::time::Duration::from_millis(150), ..Default::default() };
    let running = start_with(limits).await;
    let a = upstream(|_, body| Act::Text(body.len().to_string())).await;
    running.edge.publish(&api(1, &[(A, a.address)]));
    let mut client = running.client().await;
    client.send("PUT / HTTP/1.1\r\nHost: api.localhost\r\nContent-Length: 6\r\n\r\n").await;
    // Time itself is what is tried: the whole takes twice as long as an answer may.
    let mut drip = tokio::time::interval(std::time::Duration::from_millis(60));
    for _ in 0..6 {
        drip.tick().await;
        client.send("x").await;
    }
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "6"));
}

#[tokio::test]
async fn an_ejected_endpoint_is_tried_again_after_a_while_or_as_soon_as_it_is_ready() {
    for by_event in [false, true] {
        let eject = std::time::Duration::from_millis(if by_event { 3_600_000 } else { 100 });
        let running = start_with(edge::Limits { eject, ..Default::default() }).await;
        let b = named("b").await;
        let gone = refusing().await;
        running.edge.publish(&api(1, &[(A, gone), (B, b.address)]));
        for _ in 0..2 {
            assert_eq!(running.get("api.localhost", "/").await.text(), "b");
        }
        let _back =
            upstream_at(tokio::net::TcpListener::bind(gone).await.unwrap(), |_, _| Act::Text("a".into()));
        if by_event {
            running.edge.endpoint_event(&event_at(A, model::route::EndpointHealth::Ready, gone));
        }
        let returned = async { while running.get("api.localhost", "/").await.text() != "a" {} };
        tokio::time::timeout(BOUND, returned).await.expect("it never came back");
    }
}

#[tokio::test]
async fn what_is_busy_gets_less() {
    let running = start().await;
    let (go, signal) = tokio::sync::watch::channel(false);
    let a = upstream(move |_, _| Act::Held(signal.clone(), "a".into())).await;
    let b = named("b").await;
    running.edge.publish(&api(1, &[(A, a.address)]));
    let mut waiting = running.client().await;
    waiting.send("GET / HTTP/1.1\r\nHost: api.localhost\r\n\r\n").await;
    eventually("one is busy", || a.requests.load(SeqCst) == 1).await;
    running.edge.publish(&api(2, &[(A, a.address), (B, b.address)]));
    for _ in 0..10 {
        assert_eq!(running.get("api.localhost", "/").await.text(), "b");
    }
    go.send_replace(true);
    assert_eq!(waiting.answer().await.text(), "a");
}
