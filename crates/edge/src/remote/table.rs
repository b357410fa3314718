//! The route table on the disk: whole or not at all, and there before it is served.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::PathBuf,
};

use model::{Digest, route::RouteTable};
use serde::{Deserialize, Serialize};

use crate::{Edge, registry::carry_over};

const TABLE: &str = "routes.json";
const FORMAT: u32 = 1;

/// The last table, in a folder that only this edge writes.
#[derive(Debug, Clone)]
pub struct TableFile {
    folder: PathBuf,
}

/// The file's content. The digest tells a torn or edited table from a whole one.
#[derive(Debug, Serialize, Deserialize)]
struct Stored<T> {
    format: u32,
    digest: Digest,
    table: T,
}

#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    #[error("the route table cannot be written to {path}: {error}; free space or fix the permissions of the folder", path = .path.display())]
    Write { path: PathBuf, error: io::Error },
    #[error("the route table cannot be encoded: {0}")]
    Encode(serde_json::Error),
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the stored route table {path} cannot be read: {error}", path = .path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error(
        "the stored route table {path} is damaged or of another version ({why}); the edge serves nothing until it hears from the server",
        path = .path.display()
    )]
    Unknown { path: PathBuf, why: String },
}

impl TableFile {
    /// In this folder, which is made when it is missing.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.join(TABLE)
    }

    /// Durable on return: written beside, synced, renamed into place, and the folder synced.
    pub fn save(&self, table: &RouteTable) -> Result<(), SaveError> {
        let stored = Stored { format: FORMAT, digest: Digest::of_value(table), table };
        let bytes = serde_json::to_vec(&stored).map_err(SaveError::Encode)?;
        self.replace(&bytes).map_err(|error| SaveError::Write { path: self.path(), error })
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let beside = self.folder.join(".routes.json.tmp");
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, self.path())?;
        File::open(&self.folder)?.sync_all()
    }

    /// The last table saved; `None` when none ever was. A file that is not whole is an error to report, and is
    /// then as none: routes are never guessed.
    pub fn load(&self) -> Result<Option<RouteTable>, LoadError> {
        let path = self.path();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LoadError::Read { path, error }),
        };
        decode(&bytes).map(Some).map_err(|why| LoadError::Unknown { path, why })
    }
}

fn decode(bytes: &[u8]) -> Result<RouteTable, String> {
    let stored: Stored<RouteTable> = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if stored.format != FORMAT {
        return Err(format!("its format is {}, this edge knows {FORMAT}", stored.format));
    }
    if Digest::of_value(&stored.table) != stored.digest {
        return Err("its digest does not match its content".into());
    }
    Ok(stored.table)
}

/// An edge whose tables are on the disk before they are served.
#[derive(Debug, Clone)]
pub struct Durable {
    edge: Edge,
    file: TableFile,
}

impl Durable {
    /// Serves the stored table, if there is a whole one; the error, if any, is for the log.
    pub fn start(edge: Edge, file: TableFile) -> (Self, Option<LoadError>) {
        let error = match file.load() {
            Ok(Some(table)) => {
                edge.publish(&table);
                None
            }
            Ok(None) => None,
            Err(error) => Some(error),
        };
        (Self { edge, file }, error)
    }

    /// Saves, then serves. What the table holds is saved as it is served, so that a restart keeps it too. On an
    /// error the table before goes on being served, and the caller tries again.
    ///
    /// Blocks on the disk. Called by one task at a time, so that an older table never overwrites a newer one.
    pub fn publish(&self, table: &RouteTable) -> Result<(), SaveError> {
        let Some(before) = self.edge.older_than(table.revision) else { return Ok(()) };
        let whole = carry_over(table, &before);
        self.file.save(&whole)?;
        self.edge.publish(&whole);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use model::{
        RouteRevision,
        route::{Backend, ServiceRoute},
    };

    use super::*;

    fn table(revision: u64, services: &[&str]) -> RouteTable {
        let service = |name: &&str| {
            let route = ServiceRoute {
                revision: RouteRevision(revision),
                domains: vec![format!("{name}.localhost").parse().unwrap()],
                backend: Backend::Nothing,
                taken: None,
            };
            (format!("default/{name}").parse().unwrap(), Arc::new(route))
        };
        RouteTable {
            revision: RouteRevision(revision),
            services: services.iter().map(service).collect(),
            ..Default::default()
        }
    }

    pub(in crate::remote) async fn edge() -> Edge {
        let config = crate::Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            id: "local".parse().unwrap(),
            boot: "boot".parse().unwrap(),
            limits: crate::Limits::default(),
        };
        Edge::bind(config).await.unwrap().0
    }

    fn served(edge: &Edge) -> u64 {
        edge.report(model::Timestamp(0)).served.0
    }

    #[tokio::test]
    async fn a_table_survives_a_restart_with_what_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let file = TableFile::new(dir.path().join("edge"));
        let (durable, error) = Durable::start(edge().await, file.clone());
        assert!(error.is_none());
        durable.publish(&table(3, &["a", "b"])).unwrap();
        let mut holding = table(4, &["a"]);
        holding.held.insert("default/b".parse().unwrap());
        durable.publish(&holding).unwrap();
        durable.publish(&table(2, &[])).unwrap();

        let again = edge().await;
        let (_, error) = Durable::start(again.clone(), file.clone());
        assert!(error.is_none());
        assert_eq!(served(&again), 4);
        assert_eq!(again.stats().services.len(), 2, "the held service is served after a restart");
    }

    #[tokio::test]
    async fn a_file_that_is_not_whole_is_reported_and_is_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = TableFile::new(dir.path());
        file.save(&table(3, &["a"])).unwrap();
        let whole = fs::read_to_string(file.path()).unwrap();
        let other_version = whole.replace("\"format\":1", "\"format\":2");
        let edited = whole.replace("a.localhost", "b.localhost");
        for bad in ["", "{", &whole[..whole.len() / 2], "[]", &other_version, &edited] {
            fs::write(file.path(), bad).unwrap();
            assert!(matches!(file.load(), Err(LoadError::Unknown { .. })), "{bad}");
            let edge = edge().await;
            let (durable, error) = Durable::start(edge.clone(), file.clone());
            assert!(error.is_some());
            durable.publish(&table(4, &["a"])).unwrap();
            assert_eq!((served(&edge), file.load().unwrap()), (4, Some(table(4, &["a"]))));
        }
    }

    #[tokio::test]
    async fn a_table_that_cannot_be_saved_is_not_served() {
        let dir = tempfile::tempdir().unwrap();
        let file = TableFile::new(dir.path().join("edge"));
        let edge = edge().await;
        let (durable, _) = Durable::start(edge.clone(), file.clone());
        durable.publish(&table(1, &["a"])).unwrap();
        fs::remove_dir_all(dir.path().join("edge")).unwrap();
        fs::write(dir.path().join("edge"), "in the way").unwrap();
        assert!(durable.publish(&table(2, &[])).is_err());
        assert_eq!(served(&edge), 1);
    }
}
