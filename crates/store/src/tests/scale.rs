//! Many services at once: bounds that only a wrong query plan or a commit per row would break.

use std::{sync::Arc, time::Instant};

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
