//! What this backend alone can be tried with: its file damaged, its process killed, its disk full; and random
//! histories against a model.

mod crash;
mod damage;
mod durable;
mod migration;
mod model_based;
mod retention;
mod scale;

use std::path::PathBuf;

use tempfile::TempDir;

use crate::Store;

pub(crate) struct Disk {
    dir: TempDir,
}

impl Disk {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("store.db")
    }

    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.path()).await.unwrap()
    }

    /// Changes the file behind the store's back.
    pub(crate) async fn run(&self, sql: &'static str) {
        use sqlx::Connection;
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(self.path());
        let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
        let done = sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        assert!(done.rows_affected() > 0 || !sql.starts_with("UPDATE"), "{sql} touched nothing");
        connection.close().await.unwrap();
    }
}
