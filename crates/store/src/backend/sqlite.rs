//! SQLite: one writer, a few readers, write-ahead log, every commit on the disk before it is acknowledged.

use std::{path::Path, time::Duration};

use futures_util::TryStreamExt;
use sqlx::{
    Connection as _, Row as _, Sqlite, SqliteConnection, SqlitePool, TypeInfo as _, ValueRef as _,
    query::Query,
    sqlite::{
        SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow,
        SqliteSynchronous,
    },
};

use super::{Arg, Row, Value};
use crate::error::{OpenError, StoreError};

/// Each in one transaction, in order; the schema version is the number of those applied.
const MIGRATIONS: &[&str] = &[
    include_str!("sqlite/0001_start.sql"),
    include_str!("sqlite/0002_operators.sql"),
    include_str!("sqlite/0003_event_kinds.sql"),
];
const READERS: u32 = 4;
/// Longest wait for another process, such as a backup tool, that holds the file.
const BUSY: Duration = Duration::from_secs(5);
/// Longest wait for the one writer connection.
const QUEUE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub(crate) struct Database {
    writer: SqlitePool,
    readers: SqlitePool,
    options: SqliteConnectOptions,
}

#[derive(Debug)]
pub(crate) struct Tx(sqlx::Transaction<'static, Sqlite>);

impl Database {
    pub(crate) async fn open(path: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: path.into(), source };
        let failed = |source| OpenError::Store { path: path.into(), source };
        refuse_network_filesystem(path)?;
        create_private(path).map_err(io)?;
        let options = options(path);
        let writer = pool(1).connect_with(options.clone()).await.map_err(|e| failed(told(e)))?;
        migrate(path, &writer).await?;
        let readers = pool(READERS).connect_with(options.clone().pragma("query_only", "ON")).await;
        let database = Self { writer, readers: readers.map_err(|e| failed(told(e)))?, options };
        sync_folder(path).map_err(io)?;
        Ok(database)
    }

    pub(crate) async fn read(&self) -> Result<Tx, StoreError> {
        self.readers.begin().await.map(Tx).map_err(told)
    }

    /// IMMEDIATE takes the write lock at once: a transaction that reads first and writes later could find itself
    /// on an outdated snapshot.
    pub(crate) async fn write(&self) -> Result<Tx, StoreError> {
        self.writer.begin_with("BEGIN IMMEDIATE").await.map(Tx).map_err(told)
    }

    /// A copy of one moment, whole, while work goes on.
    pub(crate) async fn backup_to(&self, path: &Path) -> Result<(), StoreError> {
        let text = path.to_string_lossy().into_owned();
        // A connection of its own: readers are `query_only`, which forbids VACUUM INTO, and the writer has work to do.
        let mut connection = SqliteConnection::connect_with(&self.options).await.map_err(told)?;
        let copied = sqlx::query("VACUUM INTO $1").bind(text).execute(&mut connection).await.map_err(told);
        connection.close().await.map_err(told)?;
        copied?;
        let synced = std::fs::File::open(path).and_then(|file| file.sync_all());
        synced.and_then(|()| sync_folder(path)).map_err(|e| StoreError::Failed { cause: e.to_string() })
    }

    #[cfg(test)]
    pub(crate) async fn limit_pages_for_test(&self) {
        let count: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&self.writer).await.unwrap();
        let limit = format!("PRAGMA max_page_count = {}", count + 600);
        sqlx::raw_sql(sqlx::AssertSqlSafe(limit)).execute(&self.writer).await.unwrap();
    }

    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

impl Tx {
    pub(crate) async fn execute(&mut self, sql: &'static str, args: Vec<Arg>) -> Result<u64, StoreError> {
        let done = bound(sql, args).execute(&mut *self.0).await.map_err(told)?;
        Ok(done.rows_affected())
    }

    /// Reads to the end: a statement with RETURNING has only then done all its work.
    pub(crate) async fn one(&mut self, sql: &'static str, args: Vec<Arg>) -> Result<Option<Row>, StoreError> {
        let mut found = None;
        self.each(sql, args, |row| {
            found.get_or_insert(row);
            Ok(())
        })
        .await?;
        Ok(found)
    }

    pub(crate) async fn each(
        &mut self,
        sql: &'static str,
        args: Vec<Arg>,
        mut take: impl FnMut(Row) -> Result<(), StoreError> + Send,
    ) -> Result<(), StoreError> {
        let mut rows = bound(sql, args).fetch(&mut *self.0);
        while let Some(row) = rows.try_next().await.map_err(told)? {
            take(plain(&row))?;
        }
        Ok(())
    }

    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        self.0.commit().await.map_err(told)
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // NORMAL could lose acknowledged commits on power loss.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY)
        .statement_cache_capacity(200)
        .row_buffer_size(1000)
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON")
        .pragma("journal_size_limit", "67108864")
        // KiB, for each connection; beyond them the system's own cache serves.
        .pragma("cache_size", "-512")
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .min_connections(connections.min(1))
        .max_connections(connections)
        .acquire_timeout(QUEUE)
        .test_before_acquire(false)
        // SQLite itself undoes a transaction on some errors, a full disk among them; then sqlx's own ROLLBACK fails
        // and it counts the transaction as open for ever. Such a connection would refuse every later write.
        .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
        .idle_timeout(None)
        .max_lifetime(None)
}

async fn migrate(path: &Path, writer: &SqlitePool) -> Result<(), OpenError> {
    let failed = |error| OpenError::Store { path: path.into(), source: told(error) };
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    let create = "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)";
    sqlx::query(create).execute(&mut *tx).await.map_err(failed)?;
    let read = "SELECT COALESCE(MAX(version), 0) FROM schema_version";
    let found: i64 = sqlx::query_scalar(read).fetch_one(&mut *tx).await.map_err(failed)?;
    let (found, known) = (u64::try_from(found).unwrap_or(u64::MAX), MIGRATIONS.len() as u64);
    if found > known {
        return Err(OpenError::TooNew { path: path.into(), found, known });
    }
    for (version, migration) in (1_i64..).zip(MIGRATIONS).skip(usize::try_from(found).unwrap_or(usize::MAX)) {
        sqlx::raw_sql(*migration).execute(&mut *tx).await.map_err(failed)?;
        let record = sqlx::query("INSERT INTO schema_version (version) VALUES ($1)").bind(version);
        record.execute(&mut *tx).await.map_err(failed)?;
    }
    tx.commit().await.map_err(failed)
}

fn bound(sql: &'static str, args: Vec<Arg>) -> Query<'static, Sqlite, SqliteArguments> {
    args.into_iter().fold(sqlx::query(sql), |query, arg| match arg {
        Arg::Int(value) => query.bind(value),
        Arg::Text(value) => query.bind(value),
        Arg::Bytes(value) => query.bind(value),
    })
}

fn plain(row: &SqliteRow) -> Row {
    Row::new((0..row.len()).map(|column| value(row, column)).collect())
}

/// By what is stored, not by what is declared: SQLite keeps any value in any column.
fn value(row: &SqliteRow, column: usize) -> Value {
    let kind = match row.try_get_raw(column) {
        Ok(raw) if raw.is_null() => return Value::Null,
        Ok(raw) => raw.type_info().name().to_owned(),
        Err(error) => return Value::Junk(error.to_string()),
    };
    let read = match kind.as_str() {
        "INTEGER" => row.try_get_unchecked(column).map(Value::Int),
        "TEXT" => row.try_get_unchecked(column).map(Value::Text),
        "BLOB" => row.try_get_unchecked(column).map(Value::Bytes),
        other => return Value::Junk(format!("a value of type {other}")),
    };
    read.unwrap_or_else(|error| Value::Junk(error.to_string()))
}

/// Tells apart what a caller should do, by SQLite's primary result code.
fn told(error: sqlx::Error) -> StoreError {
    const BUSY: i32 = 5;
    const LOCKED: i32 = 6;
    const CORRUPT: i32 = 11;
    const FULL: i32 = 13;
    const NOT_A_DATABASE: i32 = 26;
    let cause = error.to_string();
    let code = match &error {
        sqlx::Error::PoolTimedOut => return StoreError::Busy { cause },
        sqlx::Error::Database(database) => database.code().and_then(|code| code.parse::<i32>().ok()),
        sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::StorageFull => Some(FULL),
        _ => None,
    };
    match code.map(|extended| extended & 0xff) {
        Some(BUSY | LOCKED) => StoreError::Busy { cause },
        Some(FULL) => StoreError::Full { cause },
        Some(CORRUPT | NOT_A_DATABASE) => StoreError::unreadable("the database file", cause),
        _ => StoreError::Failed { cause },
    }
}

/// The environment of workloads is in it: nobody else on the machine may read it. SQLite gives its other files
/// the same mode.
fn create_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map(drop)
}

/// The name of a new file is durable once its folder is.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}

/// Locks and shared memory do not work between machines. 9p and FUSE are let pass: they are as often local.
fn refuse_network_filesystem(path: &Path) -> Result<(), OpenError> {
    const KINDS: [(u32, &str); 8] = [
        (0x6969, "NFS"),
        (0x517b, "SMB"),
        (0xff53_4d42, "CIFS"),
        (0xfe53_4d42, "SMB2"),
        (0x00c3_6400, "Ceph"),
        (0x5346_414f, "AFS"),
        (0x0bd0_0bd0, "Lustre"),
        (0x7375_7245, "Coda"),
    ];
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Where it cannot be told, opening the file will say more.
    let Ok(found) = rustix::fs::statfs(folder) else { return Ok(()) };
    let magic = found.f_type as u32;
    match KINDS.into_iter().find(|(known, _)| *known == magic) {
        Some((_, kind)) => Err(OpenError::NetworkFilesystem { path: path.into(), kind }),
        None => Ok(()),
    }
}
