//! The databases behind one small executor: a transaction takes SQL that every dialect understands, with `$1`
//! placeholders, and gives rows of plain values. What differs between databases lives below this module: how a
//! transaction begins, the migrations, how errors are told apart. It knows no table.
//!
//! Not `sqlx::Any`: one value that is not valid UTF-8 fails its whole result there, and one damaged row must never
//! hide the others.

mod sqlite;

use std::path::Path;

use model::Digest;

use crate::error::{OpenError, StoreError};

/// An open database.
#[derive(Debug, Clone)]
pub(crate) enum Backend {
    Sqlite(sqlite::Database),
    // Postgres joins here, with its own migrations and begin statement, and every query as it is.
}

impl Backend {
    pub(crate) async fn open_sqlite(path: &Path) -> Result<Self, OpenError> {
        Ok(Self::Sqlite(sqlite::Database::open(path).await?))
    }

    /// A consistent view that writes nothing.
    pub(crate) async fn read(&self) -> Result<Tx, StoreError> {
        match self {
            Self::Sqlite(database) => Ok(Tx::Sqlite(database.read().await?)),
        }
    }

    /// The one writer's transaction: undone unless committed.
    pub(crate) async fn write(&self) -> Result<Tx, StoreError> {
        match self {
            Self::Sqlite(database) => Ok(Tx::Sqlite(database.write().await?)),
        }
    }

    pub(crate) async fn backup_to(&self, path: &Path) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(database) => database.backup_to(path).await,
        }
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(database) => database.close().await,
        }
    }
}

#[derive(Debug)]
pub(crate) enum Tx {
    Sqlite(sqlite::Tx),
}

impl Tx {
    /// Runs a statement and says how many rows it touched.
    pub(crate) async fn execute(&mut self, sql: &'static str, args: Vec<Arg>) -> Result<u64, StoreError> {
        match self {
            Self::Sqlite(tx) => tx.execute(sql, args).await,
        }
    }

    pub(crate) async fn one(&mut self, sql: &'static str, args: Vec<Arg>) -> Result<Option<Row>, StoreError> {
        match self {
            Self::Sqlite(tx) => tx.one(sql, args).await,
        }
    }

    pub(crate) async fn all(&mut self, sql: &'static str, args: Vec<Arg>) -> Result<Vec<Row>, StoreError> {
        let mut rows = Vec::new();
        self.each(sql, args, |row| {
            rows.push(row);
            Ok(())
        })
        .await?;
        Ok(rows)
    }

    /// Hands over row by row, so that a large table is never in memory as text.
    pub(crate) async fn each(
        &mut self,
        sql: &'static str,
        args: Vec<Arg>,
        take: impl FnMut(Row) -> Result<(), StoreError> + Send,
    ) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => tx.each(sql, args, take).await,
        }
    }

    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => tx.commit().await,
        }
    }
}

/// A value bound to a placeholder. Nulls keep their type, which Postgres wants to know.
#[derive(Debug, Clone)]
pub(crate) enum Arg {
    Int(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

/// A value as it was stored.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
    /// Neither of these, or text that is no UTF-8.
    Junk(String),
}

macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::backend::Arg::from($value)),*] };
}
pub(crate) use args;

impl From<u64> for Arg {
    /// Beyond `i64` nothing is stored: such a number is a time at the end of days at most.
    fn from(value: u64) -> Self {
        Self::Int(Some(i64::try_from(value).unwrap_or(i64::MAX)))
    }
}

impl From<Option<u64>> for Arg {
    fn from(value: Option<u64>) -> Self {
        value.map_or(Self::Int(None), Self::from)
    }
}

impl From<String> for Arg {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}

impl From<&str> for Arg {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.into()))
    }
}

impl From<Option<String>> for Arg {
    fn from(value: Option<String>) -> Self {
        Self::Text(value)
    }
}

impl From<Vec<u8>> for Arg {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(Some(value))
    }
}

macro_rules! arg_of_text {
    ($($name:ty),*) => {$(
        impl From<&$name> for Arg {
            fn from(value: &$name) -> Self {
                Self::Text(Some(value.to_string()))
            }
        }
    )*};
}
arg_of_text!(model::ServiceKey, model::DeploymentId, model::Holder, Digest);

macro_rules! arg_of_number {
    ($($name:ty),*) => {$(
        impl From<$name> for Arg {
            fn from(value: $name) -> Self {
                Self::from(value.0)
            }
        }
    )*};
}
arg_of_number!(
    model::Term,
    model::Generation,
    model::IntentSeq,
    model::PlanSeq,
    model::RouteRevision,
    model::Incarnation,
    model::Timestamp
);

/// One row, read column by column in the order of the query.
#[derive(Debug)]
pub(crate) struct Row(std::vec::IntoIter<Value>);

impl Row {
    fn new(values: Vec<Value>) -> Self {
        Self(values.into_iter())
    }

    fn next(&mut self) -> Value {
        self.0.next().unwrap_or(Value::Null)
    }

    pub(crate) fn int(&mut self) -> Result<u64, StoreError> {
        match self.next() {
            Value::Int(value) => u64::try_from(value).map_err(|_| wrong("a number", &Value::Int(value))),
            other => Err(wrong("a number", &other)),
        }
    }

    pub(crate) fn text(&mut self) -> Result<String, StoreError> {
        match self.next() {
            Value::Text(text) => Ok(text),
            other => Err(wrong("text", &other)),
        }
    }

    pub(crate) fn maybe_text(&mut self) -> Result<Option<String>, StoreError> {
        match self.next() {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some(text)),
            other => Err(wrong("text", &other)),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        match self.next() {
            Value::Bytes(bytes) => Ok(bytes),
            other => Err(wrong("bytes", &other)),
        }
    }

    /// Text made into what it stands for; the error names `what` it should have been.
    pub(crate) fn parse<T>(&mut self, what: &'static str) -> Result<T, StoreError>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        self.text()?.parse().map_err(|error: T::Err| StoreError::unreadable(what, error))
    }

    /// JSON made into what it stands for.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(
        &mut self,
        what: &'static str,
    ) -> Result<T, StoreError> {
        serde_json::from_str(&self.text()?).map_err(|error| StoreError::damaged(what, &error))
    }
}

fn wrong(expected: &str, found: &Value) -> StoreError {
    let found = match found {
        Value::Null => "nothing".into(),
        Value::Int(value) => format!("the number {value}"),
        Value::Text(_) => "text".into(),
        Value::Bytes(_) => "bytes".into(),
        Value::Junk(what) => what.clone(),
    };
    StoreError::unreadable("a column", format!("expected {expected}, found {found}"))
}
