//! *Drained* is a count: it is exact, and a table swap costs no request.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};

use model::{RouteRevision, route::EndpointHealth};
use tokio::sync::watch;

use crate::support::*;

const OLD: &str = "default.api.0.1";
const NEW: &str = "default.api.0.2";

#[tokio::test]
async fn a_retired_instance_is_drained_exactly_when_its_last_request_ends() {
    let running = start().await;
    let (go, signal) = watch::channel(false);
    let old = upstream(move |_, _| Act::Held(signal.clone(), "old".into())).await;
    let new = named("new").await;
    running.edge.publish(&api(1, &[(OLD, old.address)]));

    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = running.client().await;
        client.send("GET / HTTP/1.1\r\nHost: api.localhost\r\n\r\n").await;
        clients.push(client);
    }
    eventually("three requests at the old one", || old.requests.load(SeqCst) == 3).await;
    assert_eq!(in_flight(&running.report(), OLD), 0, "an instance in the served table is not reported");

    running.edge.publish(&api(2, &[(NEW, new.address)]));
    let report = running.report();
    assert_eq!((report.served, in_flight(&report, OLD)), (RouteRevision(2), 3));
    assert_eq!(running.get("api.localhost", "/").await.text(), "new");

    drop(clients.pop());
    eventually("a client that left is counted out", || in_flight(&running.report(), OLD) == 2).await;
    go.send_replace(true);
    for mut client in clients {
        assert_eq!(client.answer().await.text(), "old");
    }
    running.until_report("drained", |r| in_flight(r, OLD) == 0).await;
    eventually("its connections are closed", || old.open.load(SeqCst) == 0).await;
}

#[tokio::test]
async fn an_upgraded_connection_is_in_flight_until_it_is_closed() {
    let running = start().await;
    let old = upstream(|_, _| Act::Echo).await;
    let new = named("new").await;
    running.edge.publish(&api(1, &[(OLD, old.address)]));
    let mut client = running.client().await;
    client
        .send("GET / HTTP/1.1\r\nHost: api.localhost\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        .await;
    assert_eq!(client.head().await.unwrap().status, 101);

    running.edge.publish(&api(2, &[(NEW, new.address)]));
    assert_eq!(in_flight(&running.report(), OLD), 1);
    client.send("still there").await;
    assert_eq!(client.exactly(11).await, b"still there");

    drop(client);
    running.until_report("drained", |r| in_flight(r, OLD) == 0).await;
}

#[tokio::test]
async fn an_older_or_equal_table_is_ignored() {
    let running = start().await;
    let (old, new) = (named("old").await, named("new").await);
    running.edge.publish(&api(5, &[(NEW, new.address)]));
    for revision in [4, 5] {
        running.edge.publish(&api(revision, &[(OLD, old.address)]));
        assert_eq!(running.report().served, RouteRevision(5));
        assert_eq!(running.get("api.localhost", "/").await.text(), "new");
    }
}

#[tokio::test]
async fn an_instance_that_comes_back_into_the_table_serves_again() {
    let running = start().await;
    let (old, new) = (named("old").await, named("new").await);
    for (revision, name) in [(1, "old"), (2, "new"), (3, "old")] {
        let endpoint = if name == "old" { (OLD, old.address) } else { (NEW, new.address) };
        running.edge.publish(&api(revision, &[endpoint]));
        assert_eq!(running.get("api.localhost", "/").await.text(), name);
    }
}

/// Each upstream dies for real as soon as the edge calls it drained. A request that still went there fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn constant_load_through_swaps_loses_no_request() {
    let running = start().await;
    let first = named("n").await;
    running.edge.publish(&api(1, &[("default.api.0.1", first.address)]));
    let done = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicU64::new(0));
    let mut load = tokio::task::JoinSet::new();
    for worker in 0..8 {
        let (done, served, to) = (done.clone(), served.clone(), running.edge.local_addr());
        load.spawn(async move {
            let mut client = Raw::connect(to).await;
            while !done.load(SeqCst) {
                // POST, so that no retry hides a request that went to a dead instance.
                let method = if worker % 2 == 0 { "GET" } else { "POST" };
                let request = format!(
                    "{method} /{worker} HTTP/1.1\r\nHost: api.localhost\r\nContent-Length: 2\r\n\r\nhi"
                );
                client.send(request).await;
                let answer = client.answer().await;
                assert_eq!((answer.status, answer.text().as_str()), (200, "n"), "{}", answer.text());
                served.fetch_add(1, SeqCst);
            }
        });
    }
    let mut current = first;
    for revision in 2..=60_u64 {
        let before = served.load(SeqCst);
        eventually("load goes on", || served.load(SeqCst) > before + 20 || load.is_empty()).await;
        let next = named("n").await;
        running.edge.publish(&api(revision, &[(&format!("default.api.0.{revision}"), next.address)]));
        let retired = format!("default.api.0.{}", revision - 1);
        running
            .until_report("drained", |r| r.served == RouteRevision(revision) && in_flight(r, &retired) == 0)
            .await;
        // Dropping it closes its listener and all its connections.
        current = next;
    }
    done.store(true, SeqCst);
    while let Some(worker) = load.join_next().await {
        worker.unwrap();
    }
    assert!(served.load(SeqCst) > 1000);
    let stats = running.edge.stats().services[&"default/api".parse().unwrap()];
    assert_eq!(stats.by_class, [0, served.load(SeqCst), 0, 0, 0]);
    assert_eq!((stats.retries, stats.in_flight), (0, 0));
    drop(current);
}

#[tokio::test]
async fn a_down_instance_gets_nothing_until_it_is_ready_also_across_tables() {
    let running = start().await;
    let (a, b) = (named("a").await, named("b").await);
    let both = [(OLD, a.address), ("default.api.1.1", b.address)];
    running.edge.publish(&api(1, &both));
    let answers = async |n: usize| {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..n {
            let answer = running.get("api.localhost", "/").await;
            seen.insert(if answer.status == 200 { answer.text() } else { answer.status.to_string() });
        }
        seen.into_iter().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(answers(6).await, "a b");
    running.edge.endpoint_event(&event(OLD, EndpointHealth::Down));
    assert_eq!(answers(6).await, "b");
    running.edge.publish(&api(2, &both));
    assert_eq!(answers(6).await, "b", "a table that has not heard of the death does not undo it");
    running.edge.endpoint_event(&event("default.api.1.1", EndpointHealth::Down));
    let answer = running.get("api.localhost", "/").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    running.edge.endpoint_event(&event_at(OLD, EndpointHealth::Ready, a.address));
    assert_eq!(answers(6).await, "a");
    running.edge.publish(&api(3, &both[..1]));
    running.edge.publish(&api(4, &both));
    assert_eq!(answers(6).await, "a b", "leaving the table and coming back begins anew");
}

#[tokio::test]
async fn a_death_told_before_the_table_that_names_the_instance_counts() {
    let running = start().await;
    let a = named("a").await;
    running.edge.endpoint_event(&event(OLD, EndpointHealth::Down));
    running.edge.publish(&api(1, &[(OLD, a.address)]));
    assert_eq!(running.get("api.localhost", "/").await.status, 503);
    running.edge.endpoint_event(&event_at(OLD, EndpointHealth::Ready, a.address));
    assert_eq!(running.get("api.localhost", "/").await.text(), "a");
}

#[tokio::test]
async fn what_a_table_holds_goes_on_as_it_was() {
    let running = start().await;
    let a = named("a").await;
    running.edge.publish(&api(1, &[(OLD, a.address)]));
    let mut unread = table(2, &[]);
    unread.held.insert("default/api".parse().unwrap());
    running.edge.publish(&unread);
    unread.revision = RouteRevision(3);
    running.edge.publish(&unread);
    assert_eq!(running.get("api.localhost", "/").await.text(), "a");
    running.edge.publish(&table(4, &[]));
    assert_eq!(running.get("api.localhost", "/").await.status, 404);
}
