//! What is acknowledged is on the disk: as SQLite itself says that it was set.

use super::Disk;
use crate::backend::args;

#[tokio::test]
async fn the_writer_waits_for_the_disk_at_every_commit() {
    let disk = Disk::new();
    let store = disk.open().await;
    let mut tx = store.0.backend.write().await.unwrap();
    let mut synchronous = tx.one("PRAGMA synchronous", args![]).await.unwrap().unwrap();
    assert_eq!(synchronous.int().unwrap(), 2, "FULL; NORMAL could lose what was acknowledged");
    let mut journal = tx.one("PRAGMA journal_mode", args![]).await.unwrap().unwrap();
    assert_eq!(journal.text().unwrap(), "wal");
}
