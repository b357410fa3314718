//! Puts damage back, entry by entry, each by rename: a reader sees what was there or what is declared.
//!
//! Deletes what is not declared, since the folder is ours alone and immutable, and never follows a link to do so.

use std::{
    ffi::OsStr,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use model::artifact::{self, Artifact, RelPath};
use rustix::{fs as sysfs, io::Errno};

use super::{
    Damage, DamageKind, Depth, Error, Place, check, stage,
    writer::{self, Writer},
};
use crate::{Kind, at, blobs::Blobs};

/// Checks and repairs until nothing is wrong; gives what was found at first. Some damage hides other damage (a
/// folder that may not be read), so there are a few rounds.
pub fn heal(
    blobs: &Blobs,
    folder: &Path,
    artifact: &Artifact,
    depth: Depth<'_>,
) -> Result<Vec<Damage>, Error> {
    const ROUNDS: u32 = 4;
    let found = check(folder, artifact, depth)?;
    let mut left = found.clone();
    for _ in 0..ROUNDS {
        if left.is_empty() {
            return Ok(found);
        }
        repair(blobs, folder, artifact, &left)?;
        left = check(folder, artifact, depth)?;
    }
    if left.is_empty() {
        return Ok(found);
    }
    Err(Error::StillDamaged { path: folder.to_owned(), rounds: ROUNDS })
}

/// Puts back what `check` has found, durably.
pub fn repair(blobs: &Blobs, folder: &Path, artifact: &Artifact, damage: &[Damage]) -> Result<(), Error> {
    if damage.is_empty() {
        return Ok(());
    }
    let (parent, name) = at::split(folder).map_err(Error::at(folder))?;
    let name = name.to_str().ok_or_else(|| Error::at(folder)(io::ErrorKind::InvalidInput.into()))?;
    let whole = |damage: &Damage| {
        damage.path.as_os_str().is_empty() && !matches!(damage.kind, DamageKind::WrongMode { .. })
    };
    if damage.iter().any(whole) {
        return stage(blobs, artifact, &parent, name, &mut |_| {});
    }
    let place = Place::open(&parent, name)?;
    let repaired = Repair { blobs, folder, artifact, place: &place }.run(damage);
    place.forget(&place.repairs)?;
    repaired
}

struct Repair<'a> {
    blobs: &'a Blobs,
    folder: &'a Path,
    artifact: &'a Artifact,
    place: &'a Place<'a>,
}

impl Repair<'_> {
    /// What cannot be put back is in no way of the rest; the first such is told.
    fn run(&self, damage: &[Damage]) -> Result<(), Error> {
        let mut repaired = Ok(());
        for one in damage {
            if one.path.as_os_str().is_empty() {
                self.chmod(self.place.dir.as_fd(), &self.place.name)?;
                continue;
            }
            match self.put_back(one) {
                // Something changed since the check: the next check names it.
                Err(Error::Io { source, .. }) if moved_on(&source) => {}
                result => repaired = repaired.and(result),
            }
        }
        repaired
    }

    fn put_back(&self, damage: &Damage) -> Result<(), Error> {
        let shown = self.folder.join(&damage.path);
        let (folder, name) = at::split(&damage.path).map_err(Error::at(&shown))?;
        let folder = if folder == Path::new(".") { Path::new("") } else { &folder };
        let root = at::open_dir(self.place.dir.as_fd(), &self.place.name).map_err(Error::at(self.folder))?;
        let dir = at::descend(root.as_fd(), folder, false).map_err(Error::at(&shown))?;
        match (&damage.kind, self.declared(&damage.path)) {
            (DamageKind::WrongMode { .. } | DamageKind::Unreadable { .. }, None) => {
                self.chmod(dir.as_fd(), &name)?;
            }
            (DamageKind::Extra { .. }, _) => at::remove(dir.as_fd(), &name).map_err(Error::at(&shown))?,
            (_, Some((path, file))) => self.put_file(dir.as_fd(), &name, path, file)?,
            (_, None) => self.put_folder(dir.as_fd(), &name, &damage.path)?,
        }
        sysfs::fsync(&dir).map_err(|errno| Error::at(&shown)(errno.into()))
    }

    fn declared(&self, path: &Path) -> Option<(&RelPath, &artifact::File)> {
        let path: RelPath = path.to_str()?.parse().ok()?;
        self.artifact.files.get_key_value(&path)
    }

    fn put_file(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        path: &RelPath,
        file: &artifact::File,
    ) -> Result<(), Error> {
        let staged = self.staged(std::iter::once((path, file)))?;
        let (folder, _) = writer::split(path);
        let from = at::descend(staged.as_fd(), folder, false).map_err(Error::at(self.folder))?;
        self.exchange(from.as_fd(), name, dir, name)
    }

    fn put_folder(&self, dir: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<(), Error> {
        let below = self.artifact.files.iter().filter(|(file, _)| Path::new(file.as_str()).starts_with(path));
        let staged = self.staged(below)?;
        let above = path.parent().unwrap_or(Path::new(""));
        let from = at::descend(staged.as_fd(), above, false).map_err(Error::at(self.folder))?;
        self.exchange(from.as_fd(), name, dir, name)
    }

    /// A fresh folder beside the damaged one with these files in it, compared and synced.
    fn staged<'f>(
        &self,
        files: impl Iterator<Item = (&'f RelPath, &'f artifact::File)>,
    ) -> Result<OwnedFd, Error> {
        self.place.forget(&self.place.repairs)?;
        let path = self.place.parent.join(&self.place.repairs);
        let root = at::make_dir(self.place.dir.as_fd(), &self.place.repairs).map_err(Error::at(&path))?;
        let copy = root.try_clone().map_err(Error::at(&path))?;
        let files: Vec<_> = files.collect();
        let mut writer = Writer::new(self.blobs, root, path, files.len());
        for (path, file) in files {
            writer.write(path, file)?;
        }
        writer.sync()?;
        Ok(copy)
    }

    /// Renames into place. Only what rename cannot replace (a directory by a file, or the reverse) goes before.
    fn exchange(
        &self,
        from: BorrowedFd<'_>,
        source: &OsStr,
        to: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<(), Error> {
        let renamed = match sysfs::renameat(from, source, to, name) {
            Err(Errno::ISDIR | Errno::NOTDIR | Errno::EXIST | Errno::NOTEMPTY) => {
                at::remove(to, name).map_err(Error::at(&self.folder.join(name)))?;
                sysfs::renameat(from, source, to, name)
            }
            renamed => renamed,
        };
        renamed.map_err(|errno| Error::at(&self.folder.join(name))(errno.into()))
    }

    fn chmod(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Error> {
        match at::look(dir, name).map_err(Error::at(self.folder))? {
            Some((Kind::Directory, _)) => at::chmod_dir(dir, name, 0o755).map_err(Error::at(self.folder)),
            _ => Ok(()),
        }
    }
}

fn moved_on(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}
