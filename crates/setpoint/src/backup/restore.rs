//! Putting one back: into a folder of its own beside the data folder, compared and prepared there, and then renamed
//! into its place.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use content::{
    Blobs, Progress,
    blobs::Batch,
    bundle::{self, List, Taker},
};
use model::artifact::RelPath;
use server::backup::{About, DATABASE, IDENTITY, digest_of};
use store::{AuditEntry, DataLock, Raise, Store};
use tempfile::TempDir;

use super::{Error, at};
use crate::cli::{
    progress::{Display, Transfer},
    text,
};

/// What a restore came to.
#[derive(Debug)]
pub struct Restored {
    pub list: List<About>,
    pub data: PathBuf,
    /// Where what was in the data folder is now.
    pub moved_aside: Option<PathBuf>,
}

pub async fn restore(file: &Path, data: &Path, force: bool, display: &Display) -> Result<Restored, Error> {
    let bundle = File::open(file).map_err(at(file))?;
    let parent = data.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(at(parent))?;
    let lock = data.exists().then(|| DataLock::acquire(data)).transpose()?;
    let is_empty = lock.is_none() || holds_nothing(data).map_err(at(data))?;
    if !is_empty && !force {
        return Err(Error::NotEmpty(data.into()));
    }
    let name = data.file_name().unwrap_or_default().to_string_lossy();
    let staging = tempfile::Builder::new()
        .prefix(&format!(".{name}.restoring-"))
        .tempdir_in(parent)
        .map_err(at(parent))?;
    let list = unpack(bundle, file, &staging, display)?;
    prepare(staging.path(), file, &list.about).await?;
    let moved_aside = put_in_place(staging, data, parent, is_empty)?;
    Ok(Restored { list, data: data.into(), moved_aside })
}

fn holds_nothing(data: &Path) -> io::Result<bool> {
    let mut names = fs::read_dir(data)?.map(|entry| entry.map(|entry| entry.file_name()));
    names.try_fold(true, |empty, name| Ok(empty && name? == "server.lock"))
}

fn unpack(bundle: File, file: &Path, staging: &TempDir, display: &Display) -> Result<List<About>, Error> {
    let blobs = Blobs::open(&staging.path().join("blobs"))?;
    let batch = blobs.batch()?;
    let progress = display.transfer(&file.display().to_string());
    let mut taker = Unpack { folder: staging.path(), batch, progress };
    let read = bundle::read(io::BufReader::new(bundle), &mut taker);
    taker.progress.done(if read.is_ok() { "checked" } else { "read" });
    let list = read.map_err(|source| Error::Bundle { file: file.into(), source })?;
    taker.batch.commit()?;
    Ok(list)
}

struct Unpack<'a> {
    folder: &'a Path,
    batch: Batch,
    progress: Transfer,
}

impl Taker<About> for Unpack<'_> {
    fn list(&mut self, list: &List<About>) -> Result<(), bundle::Error> {
        let has_database = list.files.keys().any(|path| path.as_str() == DATABASE);
        let missing = || bundle::Error::Foreign("there is no database in it".into());
        has_database.then_some(()).ok_or_else(missing)
    }

    fn file(&mut self, path: &RelPath, content: &mut dyn Read) -> io::Result<()> {
        if digest_of(path).is_some() {
            return self.batch.put(content).map(drop).map_err(io::Error::other);
        }
        if path.as_str() != DATABASE && !IDENTITY.contains(&path.as_str()) {
            return Err(io::Error::other("this Setpoint does not know what to do with it; use a newer one"));
        }
        let options = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).clone();
        let path = self.folder.join(path);
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o711).create(folder)?;
        }
        let mut file = options.open(path)?;
        io::copy(content, &mut file)?;
        file.flush()?;
        file.sync_all()
    }

    fn progress(&mut self, done: Progress) {
        self.progress.at(done);
    }
}

/// Makes the restored cluster one that goes on: ahead of all that nodes and edges may have seen since the backup.
async fn prepare(staging: &Path, file: &Path, about: &About) -> Result<(), Error> {
    let unfit = |why: String| Error::Unfit { file: file.into(), why };
    let store = Store::open(&staging.join(DATABASE)).await.map_err(|error| unfit(error.to_string()))?;
    if *store.cluster_id() != about.cluster {
        let why = format!("its list names cluster {}, its database {}", about.cluster, store.cluster_id());
        return Err(unfit(why));
    }
    let now = text::now().max(store.max_time().await?);
    let ahead = decide::recovery::ahead(about.made_at.0, now);
    let by = Raise { terms: ahead.terms, incarnations: ahead.incarnations };
    let audit = AuditEntry {
        actor: "local".into(),
        action: "restore".into(),
        subject: about.cluster.to_string(),
        detail: serde_json::json!({ "made_at": about.made_at, "terms": by.terms }),
    };
    store.put_ahead(by, now, audit).await?;
    store.close().await;
    let node = Some(staging.join("node")).filter(|folder| folder.is_dir());
    for folder in [staging.join("blobs")].into_iter().chain(node).chain([staging.into()]) {
        File::open(&folder).and_then(|folder| folder.sync_all()).map_err(at(&folder))?;
    }
    // As a server makes its data folder.
    fs::set_permissions(staging, fs::Permissions::from_mode(0o711)).map_err(at(staging))
}

/// Two renames at most; before the last one the data folder is as it was, or aside.
fn put_in_place(
    staging: TempDir,
    data: &Path,
    parent: &Path,
    is_empty: bool,
) -> Result<Option<PathBuf>, Error> {
    let failed = |source| Error::NotReplaced { path: data.into(), source };
    let mut moved_aside = None;
    if is_empty {
        // Only our own lock may be in it; a folder that is not empty would not give way to the rename.
        let _ = fs::remove_file(data.join("server.lock"));
    } else {
        let aside = free_name(data);
        fs::rename(data, &aside).map_err(failed)?;
        moved_aside = Some(aside);
    }
    if let Err(error) = fs::rename(staging.path(), data) {
        if let Some(aside) = &moved_aside {
            fs::rename(aside, data).map_err(failed)?;
        }
        return Err(failed(error));
    }
    // It has another name now, and stays.
    let _ = staging.keep();
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(at(parent))?;
    Ok(moved_aside)
}

fn free_name(data: &Path) -> PathBuf {
    let name = data.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let named = |n: u32| data.with_file_name(format!("{name}.before-restore-{n}"));
    (1..).map(named).find(|path| !path.exists()).unwrap_or_else(|| named(0))
}
