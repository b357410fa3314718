//! The harness itself must be able to fail: every kind of bad answer is counted, and none is made up.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must end, and say where")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use testkit::load::Options;

/// A server that answers the n-th request of all with what `answer` says; `None` closes without an answer.
fn server(answer: impl Fn(u64) -> Option<&'static str> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    let count = Arc::new(std::sync::atomic::AtomicU64::new(0));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer, count) = (stream.unwrap(), Arc::clone(&answer), Arc::clone(&count));
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
                    let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(text) = answer(number) else { return };
                    if stream.write_all(text.as_bytes()).is_err() || text.contains("close") {
                        return;
                    }
                }
            });
        }
    });
    address
}

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const BAD: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";
const CUT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nok";

#[test]
fn good_answers_are_no_failures() {
    for options in [
        Options::get(server(|_| Some(GOOD)), "x", "/"),
        Options::get(server(|_| Some(GOOD)), "x", "/").closing(),
    ] {
        let load = options.rate(500).start();
        load.go_on_for(100);
        let report = load.stop();
        report.assert_clean(100);
        assert_eq!(report.sequence(), ["ok"]);
    }
}

#[test]
fn errors_and_closed_connections_are_counted_with_their_words() {
    let mixed = |number: u64| match number % 10 {
        3 => Some(BAD),
        7 => None,
        _ => Some(GOOD),
    };
    let load = Options::get(server(mixed), "x", "/").rate(500).start();
    load.go_on_for(100);
    let report = load.stop();
    let failed = |word: &str| {
        report
            .failures()
            .iter()
            .filter(|answer| answer.result.as_ref().is_err_and(|why| why.contains(word)))
            .count()
    };
    assert!(failed("503: busy") >= 9, "{report}");
    assert!(failed("closed before an answer") >= 9, "{report}");
    assert_eq!(failed("503") + failed("closed"), report.failures().len(), "{report}");
}

#[test]
fn an_answer_that_is_cut_off_and_a_port_without_anyone_are_failures() {
    let cut = Options::get(server(|_| Some(CUT)), "x", "/").rate(100).start();
    cut.go_on_for(5);
    let report = cut.stop();
    assert!(report.answers.len() >= 5 && report.failures().len() == report.answers.len(), "{report}");
    let nobody = Options::get(testkit::setpoint::free_port(), "x", "/").rate(100).start();
    nobody.go_on_for(5);
    let report = nobody.stop();
    assert!(
        report
            .failures()
            .iter()
            .all(|answer| answer.result.as_ref().is_err_and(|why| why.starts_with("connect")))
    );
    assert_eq!(report.failures().len(), report.answers.len());
}

#[test]
fn a_slow_answer_counts_from_when_it_was_due() {
    let slow = |_| {
        std::thread::park_timeout(Duration::from_millis(100));
        Some(GOOD)
    };
    // Eight at once, a hundred milliseconds each: no more than eighty a second.
    let load = Options::get(server(slow), "x", "/").rate(200).start();
    load.go_on_for(100);
    let report = load.stop();
    assert!(
        report.percentile(90) > Duration::from_millis(200),
        "waiting for one's turn is latency: {report}"
    );
}
