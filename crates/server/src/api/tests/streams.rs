//! What goes on: events and output.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    time::Duration,
};

use super::bench::{API, Bench, TOKEN};

/// A request whose answer is read line by line.
fn open(bench: &Bench, path: &str, more: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(bench.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    BufReader::new(stream)
}

fn line_with(stream: &mut BufReader<TcpStream>, part: &str) -> String {
    loop {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the stream ended before {part}");
        if line.contains(part) {
            return line.trim_end().into();
        }
    }
}

#[test]
fn events_stream_from_where_the_reader_was() {
    let bench = Bench::start();
    let accept = "Accept: text/event-stream\r\n";
    let mut live = open(&bench, "/api/v1/events", "Accept: */*\r\n");
    assert!(line_with(&mut live, "content-type").contains("text/event-stream"));
    bench.apply(API);
    bench.wait_for_state("default/api", "converged");
    let id: u64 = line_with(&mut live, "id: ")[4..].parse().unwrap();
    let data = line_with(&mut live, "data: ");
    let event: serde_json::Value = serde_json::from_str(&data[6..]).unwrap();
    assert_eq!((event["seq"].as_u64(), event["project"].as_str()), (Some(id), Some("default")));
    assert!(line_with(&mut live, "deployment.active").contains("\"service\":\"api\""));

    let mut resumed = open(&bench, "/api/v1/events", &format!("{accept}Last-Event-ID: {id}\r\n"));
    assert_eq!(
        line_with(&mut resumed, "id: "),
        format!("id: {}", id + 1),
        "nothing twice and nothing left out"
    );
    let mut all = open(&bench, "/api/v1/events?after=0&service=default/api", accept);
    assert_eq!(line_with(&mut all, "id: "), format!("id: {id}"));
}

#[test]
fn a_page_of_events_has_the_newest_or_those_after() {
    let bench = Bench::start();
    bench.apply(API);
    bench.wait_for_state("default/api", "converged");
    let seqs = |path: &str| -> Vec<u64> {
        bench.send(bench.request("GET", path).header("Accept", "application/json")).json()["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["seq"].as_u64().unwrap())
            .collect()
    };
    let all = seqs("/api/v1/events?after=0");
    assert!(all.len() > 3 && all.is_sorted());
    assert_eq!(seqs("/api/v1/events?limit=2"), all[all.len() - 2..], "without a place the newest");
    assert_eq!(seqs("/api/v1/events?after=0&limit=2"), all[..2]);
    assert_eq!(seqs(&format!("/api/v1/events?after={}", all[1])), all[2..]);
    assert_eq!(seqs("/api/v1/events?service=default/other"), [0; 0]);
    let event = &bench.read("/api/v1/events?after=0&limit=1")["events"][0];
    assert_eq!((&event["kind"], &event["service"]), (&"service.applied".into(), &"api".into()));
    assert!(event["at"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn output_is_told_raw_or_by_instance_and_goes_on() {
    let bench = Bench::start();
    bench.apply(API);
    let service = bench.wait_for_state("default/api", "converged");
    let id = &service.instances[0].id;
    let logs = "/api/v1/services/default/api/logs";
    let one = bench.get(&format!("{logs}?instance={id}&tail=1"));
    assert_eq!((one.status, one.text().as_str()), (200, "second\n"));
    let all = bench.get(logs).text();
    for instance in &service.instances {
        assert!(all.contains(&format!("{} | second\n", instance.id)), "{all}");
    }
    let unknown = bench.get(&format!("{logs}?instance=default.api.10.1"));
    assert_eq!((unknown.status, unknown.json()["code"].as_str()), (404, Some("no_output")));
    let mut followed = open(&bench, &format!("{logs}?instance={id}&follow=true"), "");
    assert!(line_with(&mut followed, "first").starts_with("first"));
    assert!(line_with(&mut followed, "third").starts_with("third"));
}

#[test]
fn the_server_ends_while_streams_are_open() {
    let mut bench = Bench::start();
    let mut events = open(&bench, "/api/v1/events", "Accept: text/event-stream\r\n");
    line_with(&mut events, "200 OK");
    let began = std::time::Instant::now();
    bench.shut_down();
    assert!(began.elapsed() < Duration::from_secs(4), "streams are told of the end");
    let mut rest = String::new();
    while events.read_line(&mut rest).unwrap() > 0 {}
    assert!(rest.ends_with("0\r\n\r\n"), "the stream ends in order: {rest:?}");
}

#[test]
fn a_reader_that_never_finishes_its_head_does_not_hold_the_end_up() {
    let mut bench = Bench::start();
    let mut slow = TcpStream::connect(bench.address).unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: local").unwrap();
    assert_eq!(bench.get("/health").status, 200);
    bench.shut_down();
}

#[test]
fn whoever_holds_every_stream_keeps_no_edge_from_its_routes() {
    let bench = Bench::start();
    let revision = bench.read("/api/v1/edges/routes")["revision"].as_u64().unwrap();
    let mut held = Vec::new();
    let refused = loop {
        let mut stream = open(&bench, "/api/v1/events", "Accept: text/event-stream\r\n");
        let mut status = String::new();
        stream.read_line(&mut status).unwrap();
        if !status.contains(" 200 ") {
            break status;
        }
        held.push(stream);
        assert!(held.len() < 1000, "there is no bound");
    };
    assert!(refused.contains(" 503 "), "{refused}");
    let waits = format!("/api/v1/edges/routes?after={revision}&wait=20");
    // Its answer has no end of line: it ends with the connection.
    let mut edge = open(&bench, &waits, "Connection: close\r\n");
    bench.apply(API);
    assert!(line_with(&mut edge, "HTTP/1.1").contains(" 200 "));
    assert!(line_with(&mut edge, "default/api").contains("api.localhost"));
    drop(held);
}
