//! A database that an earlier version left is taken over with all that is in it.

use model::{deployment::Phase, instance::Stage};
use sqlx::{Connection, Row, sqlite::SqliteConnectOptions};

use super::Disk;
use crate::{EventFilter, Stored, conformance::*};

const FIRST: &str = include_str!("../backend/sqlite/0001_start.sql");
const ROWS: &str = include_str!("version-1.sql");
const VERSION: &str = "CREATE TABLE schema_version (version BIGINT NOT NULL); \
                       INSERT INTO schema_version (version) VALUES (1)";

/// How many rows each table of the first version has.
async fn counts(disk: &Disk) -> Vec<(String, i64)> {
    let options = SqliteConnectOptions::new().filename(disk.path());
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let mut counts = Vec::new();
    for table in FIRST.lines().filter_map(|line| line.strip_prefix("CREATE TABLE ")?.split(' ').next()) {
        let sql = sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"));
        let row = sqlx::query(sql).fetch_one(&mut connection).await.unwrap();
        counts.push((table.to_owned(), row.get(0)));
    }
    connection.close().await.unwrap();
    counts
}

#[tokio::test]
async fn every_row_of_the_first_version_is_there_after_the_migration() {
    let disk = Disk::new();
    std::fs::File::create(disk.path()).unwrap();
    for sql in [FIRST, VERSION, ROWS] {
        disk.run(sql).await;
    }
    let before = counts(&disk).await;
    assert!(before.iter().all(|(_, count)| *count > 0), "each table has something to lose: {before:?}");
    let store = disk.open().await;

    let api = load(&store, "api").await;
    assert_eq!(api.service, service("api", 1, 1));
    let [deployment] = &api.deployments[..] else { panic!("{:?}", api.deployments) };
    assert_eq!((deployment.number, deployment.phase), (1, Phase::Active));
    let placed: Vec<_> = api.plan.placements.values().map(|p| (p.id.to_string(), p.stage.clone())).collect();
    assert_eq!(placed, [("default.api.0.0".to_owned(), Stage::Run)]);
    let events = store.events_after(0, &EventFilter::default(), 10).await.unwrap();
    let told: Vec<_> = events.into_iter().map(|recorded| recorded.event).collect();
    assert_eq!(told, [event("api", "applied"), event("api", "queued")]);
    assert_eq!(store.verify_audit().await.unwrap(), 2);
    let journalled = store.journal(1).await.unwrap().unwrap();
    assert_eq!(journalled.world, b"world");
    let body_digest = model::Digest::of_bytes(b"body");
    let kept = Stored { body_digest, status: 200, response: "{}".into() };
    assert_eq!(store.idempotent("admin", "k1").await.unwrap(), Some(kept));
    let used = artifact("used");
    assert_eq!(store.artifact(&used.digest()).await.unwrap(), Some(used));
    let counters = store.counters().await.unwrap();
    assert_eq!((counters.generation, store.max_time().await.unwrap() >= AT), (model::Generation(1), true));
    let newest = store.newest_events(&[model::event::Kind::ServiceApplied]).await.unwrap();
    assert_eq!(newest.into_iter().map(|found| found.seq).collect::<Vec<_>>(), [2]);
    // What the later versions brought is there to be used.
    assert_eq!(store.drains().await.unwrap(), []);
    assert_eq!(store.tokens().await.unwrap(), []);
    store.close().await;
    assert_eq!(counts(&disk).await, before);
}
