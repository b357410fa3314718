//! Writes files of an artifact below one folder, comparing each with its hash on the way.
//!
//! Contents are copied or reflinked, never hard-linked: damage in the folder must not reach the source.

use std::{
    fs::File,
    io::{self, Seek},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use model::artifact::{self, RelPath};

use super::Error;
use crate::{
    at,
    blobs::{self, Blobs, CopyFailure},
};

pub(super) struct Writer<'a> {
    blobs: &'a Blobs,
    root: OwnedFd,
    path: PathBuf,
    /// The directory of the last file: in sorted order the next one is mostly its neighbour.
    here: Option<(PathBuf, OwnedFd)>,
    /// Whether the filesystem shares extents between files. Asked once.
    reflinks: bool,
    /// Few files are synced each, many by one sync of their filesystem.
    few: bool,
}

impl<'a> Writer<'a> {
    /// For about `files` files; `path` names `root` in errors.
    pub(super) fn new(blobs: &'a Blobs, root: OwnedFd, path: PathBuf, files: usize) -> Self {
        Self { blobs, root, path, here: None, reflinks: true, few: files <= at::FEW }
    }

    pub(super) fn write(&mut self, path: &RelPath, file: &artifact::File) -> Result<(), Error> {
        let shown = self.path.join(path);
        let (folder, name) = split(path);
        self.enter(folder).map_err(Error::at(&shown))?;
        let here = self.here.as_ref().map_or(self.root.as_fd(), |(_, dir)| dir.as_fd());
        let mut target = at::create_file(here, name.as_ref(), mode(file)).map_err(Error::at(&shown))?;
        self.fill(&mut target, path, file)?;
        if self.few {
            target.sync_all().map_err(Error::at(&shown))?;
        }
        Ok(())
    }

    /// Makes all that was written durable, names included.
    pub(super) fn sync(self) -> Result<(), Error> {
        let synced = if self.few {
            sync_dirs(&self.root)
        } else {
            rustix::fs::syncfs(&self.root).map_err(io::Error::from)
        };
        synced.map_err(Error::at(&self.path))
    }

    fn enter(&mut self, folder: &Path) -> io::Result<()> {
        if self.here.as_ref().is_none_or(|(path, _)| path != folder) {
            let dir = at::descend(self.root.as_fd(), folder, true)?;
            self.here = Some((folder.to_owned(), dir));
        }
        Ok(())
    }

    fn fill(&mut self, target: &mut File, path: &RelPath, file: &artifact::File) -> Result<(), Error> {
        let blob = |source| Error::Blob { file: path.to_string(), source };
        let mut source = self.blobs.get(&file.digest).map_err(blob)?;
        let copied = if self.reflinks && rustix::fs::ioctl_ficlone(&*target, &source).is_ok() {
            target.rewind().and_then(|()| blobs::hash(target)).map_err(CopyFailure::Write)
        } else {
            self.reflinks = false;
            blobs::copy_hashed(&mut source, target)
        };
        match copied {
            Ok((digest, _)) if digest == file.digest => Ok(()),
            Ok(_) => Err(blob(blobs::Error::Corrupt(file.digest))),
            Err(CopyFailure::Read(error)) => Err(blob(blobs::Error::Source(error))),
            Err(CopyFailure::Write(error)) => Err(Error::at(&self.path.join(path))(error)),
        }
    }
}

pub(super) fn mode(file: &artifact::File) -> u32 {
    if file.executable { 0o755 } else { 0o644 }
}

pub(super) fn split(path: &RelPath) -> (&Path, &str) {
    match path.as_str().rsplit_once('/') {
        Some((folder, name)) => (Path::new(folder), name),
        None => (Path::new(""), path.as_str()),
    }
}

fn sync_dirs(dir: &OwnedFd) -> io::Result<()> {
    for name in at::names(dir.as_fd())? {
        if let Some((crate::Kind::Directory, _)) = at::look(dir.as_fd(), &name)? {
            sync_dirs(&at::open_dir(dir.as_fd(), &name)?)?;
        }
    }
    Ok(rustix::fs::fsync(dir)?)
}
