//! Contents by digest: `<root>/blobs/ab/<sha256 hex>`. A name in there never has unsynced or half-written
//! content: files are written below `<root>/tmp`, synced together, and renamed when they are whole.
//!
//! Refuses to know: file names, artifacts. Open a root once and share clones: opening cleans `tmp`, and what
//! [`Blobs::gc`] spares is remembered in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::AsFd,
        unix::fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use model::Digest;
use sha2::{Digest as _, Sha256};

use crate::at;

const BUFFER: usize = 128 * 1024;

/// A content-addressed folder. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Blobs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    next_tmp: AtomicU64,
    /// Stored since the collection before the last one; see [`Blobs::gc`].
    young: Mutex<Young>,
}

#[derive(Debug, Default)]
struct Young {
    since_last_gc: BTreeSet<Digest>,
    before_it: BTreeSet<Digest>,
}

impl Young {
    fn contains(&self, digest: &Digest) -> bool {
        self.since_last_gc.contains(digest) || self.before_it.contains(digest)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}; check the disk's space and the folder's owner", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("content {0} is not stored here; upload the site again")]
    Missing(Digest),
    #[error("content {0} is damaged on disk; upload the site again")]
    Corrupt(Digest),
    /// The source could not be read; nothing is wrong with the folder.
    #[error("the content could not be read: {0}")]
    Source(io::Error),
}

impl Error {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self + use<'_> {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// What a look at one blob found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    Missing,
    Corrupt,
}

impl Blobs {
    /// Opens or makes the folder and removes what a crash left in `tmp`.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let tmp = root.join("tmp");
        for folder in [root, &root.join("blobs"), &tmp] {
            make_private(folder)?;
        }
        let dir = at::open_trusted(&tmp).map_err(Error::at(&tmp))?;
        for name in at::names(dir.as_fd()).map_err(Error::at(&tmp))? {
            at::remove(dir.as_fd(), &name).map_err(Error::at(&tmp.join(name)))?;
        }
        let inner = Inner { root: root.to_owned(), next_tmp: AtomicU64::new(0), young: Mutex::default() };
        Ok(Self(Arc::new(inner)))
    }

    /// Stores one content, durably when this returns. For many, use a [`Batch`].
    pub fn put(&self, reader: &mut dyn Read) -> Result<(Digest, u64), Error> {
        let mut batch = self.batch()?;
        let stored = batch.put(reader)?;
        batch.commit()?;
        Ok(stored)
    }

    /// Contents that become durable together, or not at all when dropped.
    pub fn batch(&self) -> Result<Batch, Error> {
        let folder = self.tmp_path();
        make_private(&folder)?;
        Ok(Batch { blobs: self.clone(), folder, contents: BTreeMap::new(), next: 0 })
    }

    /// The content, not yet compared with its digest.
    pub fn get(&self, digest: &Digest) -> Result<File, Error> {
        let path = self.path(digest);
        match File::open(&path) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Missing(*digest)),
            Err(source) => Err(Error::Io { path, source }),
        }
    }

    pub fn contains(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// Reads the content and compares it with its digest.
    pub fn verify(&self, digest: &Digest) -> Result<Verdict, Error> {
        let mut file = match self.get(digest) {
            Err(Error::Missing(_)) => return Ok(Verdict::Missing),
            opened => opened?,
        };
        let (observed, _) = hash(&mut file).map_err(Error::at(&self.path(digest)))?;
        Ok(if observed == *digest { Verdict::Ok } else { Verdict::Corrupt })
    }

    pub fn remove(&self, digest: &Digest) -> Result<(), Error> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::Io { path, source: error }),
            _ => Ok(()),
        }
    }

    /// Removes what is not in `keep` and tells how many bytes that freed (or would free).
    ///
    /// What was stored since the collection before is spared, whatever `keep` says: an upload that has just
    /// become durable is not yet named by any record. So a fresh content goes at the second collection.
    pub fn gc(&self, keep: &BTreeSet<Digest>, dry_run: bool) -> Result<u64, Error> {
        let mut freed = 0;
        for digest in self.list()? {
            if !keep.contains(&digest) {
                freed += self.collect(&digest, dry_run)?;
            }
        }
        if !dry_run {
            let mut young = self.young();
            young.before_it = std::mem::take(&mut young.since_last_gc);
        }
        Ok(freed)
    }

    fn collect(&self, digest: &Digest, dry_run: bool) -> Result<u64, Error> {
        // Held while removing: a batch announces its contents under the same lock before it relies on them.
        let young = self.young();
        if young.contains(digest) {
            return Ok(0);
        }
        let size = fs::metadata(self.path(digest)).map_or(0, |meta| meta.len());
        if !dry_run {
            self.remove(digest)?;
        }
        Ok(size)
    }

    fn list(&self) -> Result<Vec<Digest>, Error> {
        let blobs = self.0.root.join("blobs");
        let mut found = Vec::new();
        for prefix in fs::read_dir(&blobs).map_err(Error::at(&blobs))? {
            let prefix = prefix.map_err(Error::at(&blobs))?.path();
            for entry in fs::read_dir(&prefix).map_err(Error::at(&prefix))? {
                let name = entry.map_err(Error::at(&prefix))?.file_name();
                // What has no digest for a name is not ours to remove.
                found.extend(name.to_str().and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok()));
            }
        }
        Ok(found)
    }

    /// A nameless file for what must be seekable; it is gone when closed.
    pub(crate) fn scratch(&self) -> Result<File, Error> {
        let path = self.tmp_path();
        let file = private_file(&path)?;
        fs::remove_file(&path).map_err(Error::at(&path))?;
        Ok(file)
    }

    fn tmp_path(&self) -> PathBuf {
        let n = self.0.next_tmp.fetch_add(1, Ordering::Relaxed);
        self.0.root.join("tmp").join(n.to_string())
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.0.root.join("blobs").join(&hex[..2]).join(hex)
    }

    fn young(&self) -> MutexGuard<'_, Young> {
        self.0.young.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Contents on their way in. Nothing is promised and nothing is visible before [`Batch::commit`] returns.
#[derive(Debug)]
pub struct Batch {
    blobs: Blobs,
    folder: PathBuf,
    /// The unfinished file of each content.
    contents: BTreeMap<Digest, PathBuf>,
    next: u64,
}

impl Batch {
    pub fn put(&mut self, reader: &mut dyn Read) -> Result<(Digest, u64), Error> {
        let path = self.folder.join(self.next.to_string());
        self.next += 1;
        let mut file = private_file(&path)?;
        let (digest, size) = copy_hashed(reader, &mut file).map_err(|failure| match failure {
            CopyFailure::Read(error) => Error::Source(error),
            CopyFailure::Write(source) => Error::Io { path: path.clone(), source },
        })?;
        if let Some(same) = self.contents.insert(digest, path) {
            fs::remove_file(&same).map_err(Error::at(&same))?;
        }
        Ok((digest, size))
    }

    /// Makes every content durable: contents synced, then named, then the names synced.
    pub fn commit(mut self) -> Result<(), Error> {
        self.announce();
        let contents = std::mem::take(&mut self.contents);
        let mut missing = Vec::new();
        let mut folders = BTreeSet::new();
        for (digest, unfinished) in contents {
            let path = self.blobs.path(&digest);
            folders.extend(path.parent().map(Path::to_owned));
            // By its hash: a damaged content is replaced by the upload that repairs it.
            if self.blobs.verify(&digest)? != Verdict::Ok {
                missing.push((unfinished, path));
            }
        }
        self.sync(missing.iter().map(|(unfinished, _)| unfinished.as_path()), missing.len())?;
        for folder in &folders {
            make_private(folder)?;
        }
        for (unfinished, path) in &missing {
            fs::rename(unfinished, path).map_err(Error::at(path))?;
        }
        folders.insert(self.blobs.0.root.join("blobs"));
        self.sync(folders.iter().map(PathBuf::as_path), folders.len())
    }

    fn announce(&self) {
        self.blobs.young().since_last_gc.extend(self.contents.keys());
    }

    fn sync<'a>(&self, paths: impl Iterator<Item = &'a Path>, count: usize) -> Result<(), Error> {
        if count > at::FEW {
            let root = &self.blobs.0.root;
            let dir = at::open_trusted(root).map_err(Error::at(root))?;
            return rustix::fs::syncfs(dir).map_err(|errno| Error::at(root)(errno.into()));
        }
        for path in paths {
            File::open(path).and_then(|file| file.sync_all()).map_err(Error::at(path))?;
        }
        Ok(())
    }
}

impl Drop for Batch {
    /// Leaves nothing behind; what cannot be removed now goes at the next [`Blobs::open`].
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn make_private(folder: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(Error::at(folder))
}

fn private_file(path: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600).open(path).map_err(Error::at(path))
}

pub(crate) enum CopyFailure {
    Read(io::Error),
    Write(io::Error),
}

pub(crate) fn copy_hashed(
    reader: &mut dyn Read,
    writer: &mut dyn Write,
) -> Result<(Digest, u64), CopyFailure> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    let mut size = 0;
    loop {
        let n = match reader.read(&mut buffer) {
            Ok(0) => return Ok((Digest::from_array(hasher.finalize().into()), size)),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyFailure::Read(error)),
        };
        hasher.update(&buffer[..n]);
        writer.write_all(&buffer[..n]).map_err(CopyFailure::Write)?;
        size += n as u64;
    }
}

pub(crate) fn hash(reader: &mut dyn Read) -> io::Result<(Digest, u64)> {
    copy_hashed(reader, &mut io::sink()).map_err(|failure| match failure {
        CopyFailure::Read(error) | CopyFailure::Write(error) => error,
    })
}
