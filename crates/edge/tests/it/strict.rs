//! What two parsers could read differently is refused, and what is slow does not stay.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use crate::support::*;

const A: &str = "default.api.0.1";

/// Sends the bytes; the status of the first answer, and what comes until the connection closes.
async fn send(running: &Running, bytes: &[u8]) -> (Option<u16>, String) {
    let mut client = running.client().await;
    client.send(bytes).await;
    let first = client.try_answer(false).await;
    client.closed().await;
    (first.map(|a| a.status), String::from_utf8_lossy(&client.seen).into_owned())
}

#[tokio::test]
async fn ambiguous_requests_get_400_and_the_end_of_the_connection() {
    let running = start().await;
    let a = named("a").await;
    running.edge.publish(&api(1, &[(A, a.address)]));
    let post = "POST / HTTP/1.1\r\nHost: api.localhost\r\n";
    let get = "GET / HTTP/1.1\r\nHost: api.localhost\r\n";
    for (what, bytes) in [
        ("CL+TE", format!("{post}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("TE+CL", format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n")),
        ("duplicate CL", format!("{post}Content-Length: 1\r\nContent-Length: 1\r\n\r\nx")),
        ("differing CL", format!("{post}Content-Length: 1\r\nContent-Length: 2\r\n\r\nxy")),
        ("CL list", format!("{post}Content-Length: 1, 1\r\n\r\nx")),
        ("signed CL", format!("{post}Content-Length: +1\r\n\r\nx")),
        ("negative CL", format!("{post}Content-Length: -1\r\n\r\nx")),
        ("gzip, chunked", format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")),
        ("two TE", format!("{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n")),
        ("xchunked", format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n")),
        (
            "TE in 1.0",
            "POST / HTTP/1.0\r\nHost: api.localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        ),
        ("obs-fold", format!("{get}X: a\r\n b\r\n\r\n")),
        ("bare LF", "GET / HTTP/1.1\nHost: api.localhost\n\n".into()),
        ("one bare LF", format!("{get}X: a\n\r\n")),
        ("bare LF at the end", format!("{get}X: a\r\n\n")),
        ("bare CR", format!("{get}X: a\rb\r\n\r\n")),
        ("space before colon", format!("{get}X : a\r\n\r\n")),
        ("no colon", format!("{get}X\r\n\r\n")),
        ("empty name", format!("{get}: a\r\n\r\n")),
        ("NUL in a value", format!("{get}X: a\0b\r\n\r\n")),
        ("space in a name", format!("{get}X Y: a\r\n\r\n")),
        ("no host", "GET / HTTP/1.1\r\n\r\n".into()),
        ("no host in 1.0", "GET / HTTP/1.0\r\n\r\n".into()),
        ("two hosts", format!("{get}Host: api.localhost\r\n\r\n")),
        ("a host with a path", "GET / HTTP/1.1\r\nHost: api.localhost/x\r\n\r\n".into()),
        ("a user in the host", "GET / HTTP/1.1\r\nHost: u@api.localhost\r\n\r\n".into()),
        ("absolute mismatch", "GET http://b.localhost/ HTTP/1.1\r\nHost: api.localhost\r\n\r\n".into()),
        ("tab separated", "GET\t/\tHTTP/1.1\r\nHost: api.localhost\r\n\r\n".into()),
        ("bad version", "GET / HTTP/3.1\r\nHost: api.localhost\r\n\r\n".into()),
        ("a path without a slash", "GET x HTTP/1.1\r\nHost: api.localhost\r\n\r\n".into()),
        ("a bad chunk", format!("{post}Transfer-Encoding: chunked\r\n\r\nz\r\n\r\n")),
        ("a chunk with a bare LF", format!("{post}Transfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n")),
        ("upgrade and more bytes", format!("{get}Connection: Upgrade\r\nUpgrade: x\r\n\r\n{get}\r\n")),
    ] {
        // A second request behind each must not be answered.
        let (status, rest) = send(&running, format!("{bytes}{get}\r\n").as_bytes()).await;
        assert_eq!((status, rest.as_str()), (Some(400), ""), "{what}");
    }
    assert_eq!(a.requests.load(SeqCst), 0, "nothing of it reached the upstream");
    assert_eq!(running.get("api.localhost", "/").await.text(), "a");
}

#[tokio::test]
async fn an_ambiguous_request_behind_a_sound_one_is_refused_in_its_turn() {
    let running = start().await;
    let a = named("a").await;
    running.edge.publish(&api(1, &[(A, a.address)]));
    let mut client = running.client().await;
    let get = "GET / HTTP/1.1\r\nHost: api.localhost\r\n\r\n";
    client.send(format!("{get}{}", get.replace("\r\n", "\n"))).await;
    assert_eq!(client.answer().await.text(), "a");
    assert_eq!(client.answer().await.status, 400);
    client.closed().await;
    assert_eq!(a.requests.load(SeqCst), 1);
}

#[tokio::test]
async fn sound_but_unusual_requests_are_served() {
    let running = start().await;
    let a =
        upstream(|head, body| Act::Text(format!("{} {}", head.split(' ').nth(1).unwrap(), body.len()))).await;
    running.edge.publish(&api(1, &[(A, a.address)]));
    for (bytes, text) in [
        ("\r\nGET / HTTP/1.1\r\nHost: api.localhost\r\n\r\n", "/ 0"),
        ("GET http://API.localhost/x?y HTTP/1.1\r\nHost: api.localhost\r\n\r\n", "/x?y 0"),
        ("GET http://api.localhost HTTP/1.1\r\nHost: api.localhost\r\n\r\n", "/ 0"),
        ("OPTIONS * HTTP/1.1\r\nHost: api.localhost\r\n\r\n", "* 0"),
        ("GET / HTTP/1.1\r\nHost:api.localhost\r\nContent-Length: 2\r\n\r\nhi", "/ 2"),
        (
            "GET / HTTP/1.1\r\nHost: api.localhost\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n0\r\nT: x\r\n\r\n",
            "/ 2",
        ),
        ("GET / HTTP/1.0\r\nHost: api.localhost\r\n\r\n", "/ 0"),
        ("BREW / HTTP/1.1\r\nHost: api.localhost\r\n\r\n", "/ 0"),
    ] {
        let mut client = running.client().await;
        client.send(bytes).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, text), "{bytes:?}");
    }
}

#[tokio::test]
async fn requests_cut_into_single_bytes_are_served_one_after_another() {
    let running = start().await;
    let a = upstream(|_, body| Act::Text(String::from_utf8_lossy(body).into_owned())).await;
    running.edge.publish(&api(1, &[(A, a.address)]));
    let mut client = running.client().await;
    client.stream.set_nodelay(true).unwrap();
    let requests = [
        ("POST / HTTP/1.1\r\nHost: api.localhost\r\nContent-Length: 3\r\n\r\none", "one"),
        (
            "POST / HTTP/1.1\r\nHost: api.localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n",
            "two",
        ),
        ("GET / HTTP/1.1\r\nHost: api.localhost\r\n\r\n", ""),
    ];
    for (request, _) in requests {
        for byte in request.bytes() {
            client.send([byte]).await;
            tokio::task::yield_now().await;
        }
    }
    for (_, text) in requests {
        assert_eq!(client.answer().await.text(), text);
    }
}

#[tokio::test]
async fn large_heads_get_431() {
    let running = start().await;
    let a = named("a").await;
    running.edge.publish(&api(1, &[(A, a.address)]));
    let host = "Host: api.localhost\r\n";
    for (what, bytes) in [
        ("a large header", format!("GET / HTTP/1.1\r\n{host}X: {}\r\n\r\n", "x".repeat(64 * 1024))),
        ("a header that never ends", format!("GET / HTTP/1.1\r\n{host}X: {}", "x".repeat(64 * 1024))),
        ("a name that never ends", format!("GET / HTTP/1.1\r\n{host}{}", "x".repeat(64 * 1024))),
        ("a path that never ends", format!("GET /{}", "x".repeat(64 * 1024))),
        ("many headers", format!("GET / HTTP/1.1\r\n{host}{}\r\n", "X: y\r\n".repeat(101))),
        ("endless headers", format!("GET / HTTP/1.1\r\n{host}{}", "X: y\r\n".repeat(20_000))),
    ] {
        let (status, rest) = send(&running, bytes.as_bytes()).await;
        assert_eq!((status, rest.as_str()), (Some(431), ""), "{what}");
    }
    let fits = format!("GET / HTTP/1.1\r\n{host}X: {}\r\n\r\n", "x".repeat(30 * 1024));
    let mut client = running.client().await;
    client.send(fits).await;
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_body_is_not_lost() {
    let running = start().await;
    running.edge.publish(&api(1, &[]));
    let mut client = running.client().await;
    let head = "POST / HTTP/1.1\r\nHost: nobody.localhost\r\nContent-Length: 400000\r\n\r\n";
    client.send(head).await;
    client.send(vec![b'x'; 400_000]).await;
    assert_eq!(client.answer().await.status, 404);
}

fn quick() -> edge::Limits {
    let quick = Duration::from_millis(100);
    edge::Limits { header_read: quick, idle: quick, body_idle: quick, ..Default::default() }
}

#[tokio::test]
async fn slow_clients_do_not_stay() {
    let running = start_with(quick()).await;
    let a = named("a").await;
    running.edge.publish(&api(1, &[(A, a.address)]));
    for (what, bytes) in [
        ("nothing at all", ""),
        ("half a head", "GET / HTTP/1.1\r\nHost: api.loc"),
        ("half a body", "POST / HTTP/1.1\r\nHost: api.localhost\r\nContent-Length: 10\r\n\r\nhalf"),
    ] {
        let mut client = running.client().await;
        client.send(bytes).await;
        client.closed().await;
        let seen = String::from_utf8_lossy(&client.seen).into_owned();
        assert!(seen.is_empty() || seen.starts_with("HTTP/1.1 400"), "{what}: {seen}");
    }
    eventually("no connection is left", || running.edge.stats().connections == 0).await;
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_has_its_time_as_a_whole() {
    let running = start_with(edge::Limits { idle: BOUND, ..quick() }).await;
    let mut client = running.client().await;
    let began = std::time::Instant::now();
    let mut drip = tokio::time::interval(Duration::from_millis(20));
    client.send("GET / HTTP/1.1\r\nX: ").await;
    while client.stream.try_write(b"x").is_ok() {
        assert!(began.elapsed() < BOUND, "a slowloris stays");
        drip.tick().await;
    }
}

#[tokio::test]
async fn a_slow_answer_is_no_idle_client() {
    let running = start_with(quick()).await;
    let (go, signal) = tokio::sync::watch::channel(false);
    let a = upstream(move |_, _| Act::Held(signal.clone(), "late".into())).await;
    running.edge.publish(&api(1, &[(A, a.address)]));
    let mut client = running.client().await;
    client.send("GET / HTTP/1.1\r\nHost: api.localhost\r\n\r\n").await;
    // The bound itself is what is tried: three times the client's limits pass before the answer.
    tokio::time::sleep(Duration::from_millis(300)).await;
    go.send_replace(true);
    assert_eq!(client.answer().await.text(), "late");
}

#[tokio::test]
async fn an_upgraded_connection_may_be_silent() {
    let running = start_with(quick()).await;
    let a = upstream(|_, _| Act::Echo).await;
    running.edge.publish(&api(1, &[(A, a.address)]));
    let mut client = running.client().await;
    client.send("GET / HTTP/1.1\r\nHost: api.localhost\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().status, 101);
    tokio::time::sleep(Duration::from_millis(300)).await;
    client.send("here").await;
    assert_eq!(client.exactly(4).await, b"here");
}

#[tokio::test]
async fn a_client_that_does_not_read_does_not_stay() {
    let running = start_with(quick()).await;
    let huge = format!("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n{}", "x".repeat(100_000_000));
    let a = upstream(move |_, _| Act::Bytes(huge.clone().into_bytes())).await;
    running.edge.publish(&api(1, &[(A, a.address)]));
    let mut client = running.client().await;
    client.send("GET / HTTP/1.1\r\nHost: api.localhost\r\n\r\n").await;
    eventually("it came", || a.requests.load(SeqCst) == 1).await;
    eventually("it is gone", || running.edge.stats().connections == 0).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_their_turn() {
    let running = start_with(edge::Limits { connections: 2, ..Default::default() }).await;
    let a = named("a").await;
    running.edge.publish(&api(1, &[(A, a.address)]));
    let get = "GET / HTTP/1.1\r\nHost: api.localhost\r\n\r\n";
    let (mut first, mut second, mut third) =
        (running.client().await, running.client().await, running.client().await);
    for client in [&mut first, &mut second] {
        client.send(get).await;
        assert_eq!(client.answer().await.status, 200);
    }
    third.send(get).await;
    assert_eq!(running.edge.stats().connections, 2);
    drop(first);
    assert_eq!(third.answer().await.status, 200);
}
