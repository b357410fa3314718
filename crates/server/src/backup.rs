//! Backups: a copy of the database as it was at one moment, the contents that it names, and what makes the cluster
//! itself, in one bundle.
//!
//! Owns: what goes into a backup, and what its list says. Refuses to know: where it goes to and how it is put back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use content::{
    Blobs, Progress,
    bundle::{self, List, Member},
};
use model::{ClusterId, Digest, Generation, Millis, Term, Timestamp, artifact::RelPath};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use store::{OpenError, Store, StoreError};

use crate::{Control, views::Time};

/// The database inside a backup, and in the data folder.
pub const DATABASE: &str = "setpoint.db";
/// Contents inside a backup, each by its digest.
pub const CONTENTS: &str = "blobs";
/// Files of the data folder that make the cluster itself: whoever had its token before has it again, and which
/// volumes and networks it has made is known. A volume that is not there after a restore is missing, and none is made
/// anew empty.
pub const IDENTITY: &[&str] = &["token", "node/volumes.json", "node/volume-users.json", "node/networks.json"];

/// What a backup is a backup of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct About {
    /// Of the Setpoint that made it.
    pub version: String,
    #[schemars(with = "String")]
    pub cluster: ClusterId,
    pub made_at: Time,
    #[schemars(with = "u64")]
    pub term: Term,
    #[schemars(with = "u64")]
    pub generation: Generation,
    pub services: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the copy of the database cannot be read: {0}")]
    Copy(OpenError),
    #[error("{}: {source}; check the disk's space and the folder's owner", .path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// All that a backup is made of, at hand and unchanging. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Backup {
    list: List<About>,
    database: Scratch,
    data: PathBuf,
    blobs: Blobs,
    /// While it lives, no collection takes one of these.
    _pinned: Arc<BTreeSet<Digest>>,
}

/// A file that goes when it is dropped.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Whatever stays is removed when the contents are opened next.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Backup {
    /// Copies the database of the data folder and lists what goes with it. `pin` is told which contents must stay
    /// until the backup is dropped.
    pub async fn of(
        store: &Store,
        blobs: &Blobs,
        data: &Path,
        now: Timestamp,
        pin: impl FnOnce(&Arc<BTreeSet<Digest>>),
    ) -> Result<Self, BackupError> {
        let database = scratch(data);
        store.backup_to(&database.0).await?;
        let (about, contents) = look_at(&database.0, now).await?;
        let pinned = Arc::new(contents.keys().copied().collect());
        pin(&pinned);
        let list = List::new(about, files(&database.0, data, &contents)?);
        Ok(Self { list, database, data: data.into(), blobs: blobs.clone(), _pinned: pinned })
    }

    pub fn about(&self) -> &About {
        &self.list.about
    }

    pub fn total(&self) -> Progress {
        self.list.total()
    }

    /// Writes the whole bundle. Synchronous; callers move it off their runtime.
    pub fn write(&self, writer: impl Write, progress: &mut dyn FnMut(Progress)) -> Result<(), bundle::Error> {
        bundle::write(&self.list, writer, &mut |path| self.open(path), progress)
    }

    fn open(&self, path: &RelPath) -> io::Result<Box<dyn Read>> {
        if path.as_str() == DATABASE {
            return Ok(Box::new(File::open(&self.database.0)?));
        }
        match digest_of(path) {
            Some(digest) => Ok(Box::new(self.blobs.get(&digest).map_err(io::Error::other)?)),
            None => Ok(Box::new(File::open(self.data.join(path))?)),
        }
    }
}

/// The content that a path inside a backup stands for.
pub fn digest_of(path: &RelPath) -> Option<Digest> {
    let hex = path.as_str().strip_prefix(CONTENTS)?.strip_prefix('/')?;
    format!("sha256:{hex}").parse().ok()
}

/// Among the unfinished contents, which are cleared away at each start.
fn scratch(data: &Path) -> Scratch {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    Scratch(data.join("blobs/tmp").join(format!("backup-{n}.db")))
}

/// What the copy says, and which contents it names: of the copy, since the original goes on.
async fn look_at(database: &Path, now: Timestamp) -> Result<(About, BTreeMap<Digest, u64>), BackupError> {
    let copy = Store::open(database).await.map_err(BackupError::Copy)?;
    let counters = copy.counters().await?;
    let services = copy.load_all().await?.len() as u64;
    let contents = contents(&copy).await?;
    let about = About {
        version: env!("CARGO_PKG_VERSION").into(),
        cluster: copy.cluster_id().clone(),
        made_at: Time(now),
        term: counters.term,
        generation: counters.generation,
        services,
    };
    copy.close().await;
    Ok((about, contents))
}

/// Every content that an artifact in the store names, with its size. One that cannot be read is an error: its
/// contents would look unreachable.
pub(crate) async fn contents(store: &Store) -> Result<BTreeMap<Digest, u64>, StoreError> {
    let mut artifacts = store.artifacts_in_use().await?;
    artifacts.extend(store.artifacts_unused(store.max_time().await? + Millis::secs(1)).await?);
    let mut contents = BTreeMap::new();
    for digest in artifacts {
        let missing =
            || StoreError::Failed { cause: format!("artifact {} went while it was read", digest.short()) };
        let artifact = store.artifact(&digest).await?.ok_or_else(missing)?;
        contents.extend(artifact.files.values().map(|file| (file.digest, file.size)));
    }
    Ok(contents)
}

fn files(
    database: &Path,
    data: &Path,
    contents: &BTreeMap<Digest, u64>,
) -> Result<BTreeMap<RelPath, Member>, BackupError> {
    let mut files = BTreeMap::new();
    let mut add = |name: &str, member: Member| {
        // Our own names are paths.
        files.extend(name.parse::<RelPath>().ok().map(|path| (path, member)));
    };
    add(DATABASE, read(database)?);
    for name in IDENTITY {
        let path = data.join(name);
        if path.is_file() {
            add(name, read(&path)?);
        }
    }
    for (digest, size) in contents {
        add(&format!("{CONTENTS}/{}", digest.hex()), Member { size: *size, digest: *digest });
    }
    Ok(files)
}

fn read(path: &Path) -> Result<Member, BackupError> {
    let member = File::open(path).and_then(|mut file| bundle::member(&mut file));
    member.map_err(|source| BackupError::Io { path: path.into(), source })
}

impl Control {
    /// A backup of this moment, while everything goes on.
    pub async fn backup(&self) -> Result<Backup, BackupError> {
        // Until the contents are pinned, no collection may come in between.
        let _nothing_is_collected = self.0.intake.read().await;
        let pin = |contents: &Arc<BTreeSet<Digest>>| self.0.pin(contents);
        Backup::of(self.store(), self.blobs(), &self.0.data, self.now(), pin).await
    }
}
