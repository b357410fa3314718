//! Many services at once: bounds that only a wrong query plan or a commit per row would break.

use std::{sync::Arc, time::Instant};

use sqlx::{Connection, Row};

use super::Disk;
use crate::conformance::*;

const SERVICES: usize = 2000;

#[tokio::test]
async fn thousands_of_services_are_written_in_one_commit_and_loaded_in_one_sweep() {
    let disk = Disk::new();
    let store = disk.open().await;
    let leader = Leader::of(&store, "a").await;
    let names: Vec<String> = (0..SERVICES).map(|n| format!("s{n}")).collect();
    let begun = Instant::now();
    let _ = store.commit_intents(None, commit(names.iter().map(|name| first(name)).collect())).await.unwrap();
    let rows = store.load_all().await.unwrap();
    assert_eq!(rows.len(), SERVICES);
    let rows = rows.iter().map(|one| match one {
        crate::Loaded::Read(row) => placing(row, release(1).digest()),
        other => panic!("{other:?}"),
    });
    let plan = leader.plan(&store, rows.collect()).await;
    store.commit_plan(Arc::clone(&plan), vec![]).await.unwrap();
    assert_eq!(store.load_all().await.unwrap().len(), SERVICES);
    let took = begun.elapsed();
    println!("{SERVICES} services written twice and loaded twice in {took:?}");
    assert!(took.as_secs() < 60, "{took:?}: something here is quadratic");
}

/// How the database goes about a query, step by step.
async fn query_plan(disk: &Disk, sql: &str) -> Vec<String> {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(disk.path());
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
    let rows = sqlx::query(explain).bind("drift.found").fetch_all(&mut connection).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(3)).collect()
}

#[tokio::test]
async fn the_newest_events_are_found_by_an_index_and_not_by_reading_all() {
    let disk = Disk::new();
    disk.open().await.close().await;
    let steps = query_plan(&disk, crate::event::NEWEST).await;
    let of_events: Vec<&String> =
        steps.iter().filter(|step| step.contains(" e ") || step.contains(" k ")).collect();
    assert_eq!(of_events.len(), 2, "{steps:#?}");
    assert!(of_events.iter().all(|step| step.starts_with("SEARCH")), "{steps:#?}");
    let newest = "SEARCH k USING COVERING INDEX events_kind (service=? AND kind=?)";
    assert!(steps.iter().any(|step| step == newest), "{steps:#?}");
}

/// `cargo nextest run -p store --release --run-ignored all --no-capture measure`
#[tokio::test]
#[ignore = "a measurement"]
async fn measure_the_newest_of_a_hundred_thousand_events() {
    use model::event::{Event, Kind};
    let disk = Disk::new();
    let store = disk.open().await;
    let names: Vec<String> = (0..100).map(|n| format!("s{n}")).collect();
    let _ = store.commit_intents(None, commit(names.iter().map(|name| first(name)).collect())).await.unwrap();
    for chunk in 0..100 {
        let kind = if chunk % 2 == 0 { Kind::DriftFound } else { Kind::InstanceReady };
        let events = (0..1000).map(|n| Event { kind, ..event(&names[n % 100], "a difference was found") });
        store.append_events(events.collect(), AT).await.unwrap();
    }
    let begun = Instant::now();
    let (mut after, mut read) = (0, 0);
    loop {
        let page = store.events_after(after, &crate::EventFilter::default(), 1000).await.unwrap();
        let Some(last) = page.last() else { break };
        (after, read) = (last.seq, read + page.len());
    }
    println!("{read} events read one after the other in {:?}", begun.elapsed());
    let begun = Instant::now();
    let found = store.newest_events(&Kind::ALL[..10]).await.unwrap();
    println!("the newest of ten kinds of {} services found in {:?}", names.len(), begun.elapsed());
    assert!(found.is_empty());
    let begun = Instant::now();
    assert_eq!(store.newest_events(&[Kind::DriftFound]).await.unwrap().len(), names.len());
    println!("those of one kind, read, in {:?}", begun.elapsed());
}

/// `cargo nextest run -p store --release --run-ignored all --no-capture measure`
#[tokio::test]
#[ignore = "a measurement"]
async fn measure_loading_a_hundred_thousand_services() {
    let disk = Disk::new();
    let store = disk.open().await;
    for chunk in 0..100 {
        let firsts = (0..1000).map(|n| first(&format!("s{chunk}-{n}"))).collect();
        let _ = store.commit_intents(None, commit(firsts)).await.unwrap();
    }
    let begun = Instant::now();
    assert_eq!(store.load_all().await.unwrap().len(), 100_000);
    println!("100,000 services loaded in {:?}", begun.elapsed());
    let (row, leader) = (load(&store, "s1-1").await, Leader::of(&store, "a").await);
    let plan = leader.plan(&store, vec![decision(&row)]).await;
    let begun = Instant::now();
    store.commit_plan(plan, vec![journalled("s1-1", "w", AT)]).await.unwrap();
    println!("one decision committed in {:?}", begun.elapsed());
    let begun = Instant::now();
    let pruned = store.prune(AT, &crate::Retention::default()).await.unwrap();
    println!("a prune that finds {pruned:?} took {:?}", begun.elapsed());
}
