//! Opens what was asked for. The kernel itself keeps the search inside the folder (openat2: beneath, no
//! symlinks), so that no check here can be raced.
//!
//! First from the kernel's caches alone, on the spot; only when that would wait for a disk, on a thread that may
//! wait.

use std::{
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2},
    io::Errno,
};

use super::path::Wanted;
use crate::compiled::Site;

/// An open file, and what is said about it.
#[derive(Debug)]
pub struct Entity {
    pub file: Arc<OwnedFd>,
    pub size: u64,
    pub modified: SystemTime,
    /// Strong: size, time of change and inode, which a rename into place all change.
    pub etag: String,
    pub content_type: &'static str,
}

#[derive(Debug)]
pub enum Found {
    File(Entity),
    /// The site's own page for what it does not have.
    NotFoundPage(Entity),
    /// A folder with an index, asked for without its slash.
    Directory,
    Nothing,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("its folder cannot be opened: {0}")]
    Folder(Errno),
    #[error("a file cannot be opened: {0}")]
    File(Errno),
    #[error("the search did not end: {0}")]
    Search(tokio::task::JoinError),
}

impl Error {
    fn would_wait(&self) -> bool {
        match self {
            Self::Folder(errno) | Self::File(errno) => matches!(*errno, Errno::AGAIN | Errno::INVAL),
            Self::Search(_) => false,
        }
    }
}

const INDEX: &str = "index.html";
const NOT_FOUND: &str = "404.html";

pub async fn lookup(site: &Arc<Site>, wanted: &Wanted) -> Result<Found, Error> {
    match search(site, wanted, ResolveFlags::CACHED) {
        Err(error) if error.would_wait() => {
            let (site, wanted) = (site.clone(), wanted.clone());
            let searching =
                tokio::task::spawn_blocking(move || search(&site, &wanted, ResolveFlags::empty()));
            searching.await.map_err(Error::Search)?
        }
        found => found,
    }
}

fn search(site: &Site, wanted: &Wanted, how: ResolveFlags) -> Result<Found, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = openat2(CWD, &site.folder, flags, Mode::empty(), how).map_err(Error::Folder)?;
    let folder = Folder { root, how };
    let found = match wanted {
        Wanted::File(path) => folder.file_or_directory(path)?,
        Wanted::Directory(path) => folder.index_of(path)?.map(Found::File),
        Wanted::Bare => folder.index_of("")?.map(|_| Found::Directory),
        Wanted::Impossible => None,
    };
    match found {
        Some(found) => Ok(found),
        None if site.spa => Ok(folder.open(INDEX)?.map_or(Found::Nothing, Found::File)),
        None => Ok(folder.open(NOT_FOUND)?.map_or(Found::Nothing, Found::NotFoundPage)),
    }
}

struct Folder {
    root: OwnedFd,
    how: ResolveFlags,
}

impl Folder {
    fn file_or_directory(&self, path: &str) -> Result<Option<Found>, Error> {
        if let Some(entity) = self.open(path)? {
            return Ok(Some(Found::File(entity)));
        }
        Ok(self.index_of(path)?.map(|_| Found::Directory))
    }

    fn index_of(&self, path: &str) -> Result<Option<Entity>, Error> {
        if path.is_empty() { self.open(INDEX) } else { self.open(&format!("{path}/{INDEX}")) }
    }

    /// A regular file below the folder; `None` when there is none, whatever else is there.
    fn open(&self, path: &str) -> Result<Option<Entity>, Error> {
        // Non-blocking: opening a FIFO would wait for its other end.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | self.how;
        match openat2(&self.root, path, flags, Mode::empty(), resolve) {
            Ok(file) => {
                let stat = fstat(&file).map_err(Error::File)?;
                let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
                Ok(regular.then(|| entity(path, file, &stat)))
            }
            Err(errno) if is_absence(errno) => Ok(None),
            Err(Errno::NXIO) => Ok(None),
            Err(errno) => Err(Error::File(errno)),
        }
    }
}

/// Not there, a file where a folder would be, a link, a way out, a name that cannot be, or not ours to read.
fn is_absence(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NAMETOOLONG | Errno::ACCESS
    )
}

fn entity(path: &str, file: OwnedFd, stat: &Stat) -> Entity {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let etag = format!("\"{size:x}-{seconds:x}.{:x}-{:x}\"", stat.st_mtime_nsec, stat.st_ino);
    Entity { file: Arc::new(file), size, modified, etag, content_type: content_type(path) }
}

fn content_type(path: &str) -> &'static str {
    match mime_guess::from_path(path).first_raw().unwrap_or("application/octet-stream") {
        "text/html" => "text/html; charset=utf-8",
        "text/css" => "text/css; charset=utf-8",
        "text/javascript" | "application/javascript" => "text/javascript; charset=utf-8",
        "text/plain" => "text/plain; charset=utf-8",
        "text/markdown" => "text/markdown; charset=utf-8",
        "text/csv" => "text/csv; charset=utf-8",
        "text/xml" => "text/xml; charset=utf-8",
        other => other,
    }
}
