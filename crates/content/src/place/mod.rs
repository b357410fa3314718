//! A deployment folder, whole or not there.
//!
//! Owns: `<parent>/<name>` with the files of one artifact, and beside it `.manifest-<name>.json` and what work in
//! progress needs (`.staging-<name>`, `.repair-<name>`). A folder gets its name only when every file in it has
//! been compared with its hash and is on disk; what lies in a staging folder is never trusted, only removed.
//! Refuses to know: which deployment is active.

mod check;
mod repair;
mod writer;

use std::{
    ffi::{OsStr, OsString},
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

pub use check::{Damage, DamageKind, Depth, check};
use model::artifact::Artifact;
pub use repair::{heal, repair};
use rustix::fs::{self as sysfs, RenameFlags};
use writer::Writer;

use crate::{
    Progress, at,
    blobs::{self, Blobs},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}; check the disk's space and the folder's owner", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("`{file}` cannot be placed: {source}")]
    Blob { file: String, source: blobs::Error },
    #[error("{}: still damaged after {rounds} repairs; does something else write there?", path.display())]
    StillDamaged { path: PathBuf, rounds: u32 },
}

impl Error {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    /// The stored content is at fault: it must be fetched again before a retry can succeed.
    pub fn needs_content(&self) -> bool {
        matches!(self, Self::Blob { source: blobs::Error::Missing(_) | blobs::Error::Corrupt(_), .. })
    }
}

/// Builds `<parent>/<name>` from an artifact. May be interrupted anywhere and run again. A folder of that name
/// that is whole is kept; one that is not is moved aside to `<name>.damaged-<n>`.
pub fn stage(
    blobs: &Blobs,
    artifact: &Artifact,
    parent: &Path,
    name: &str,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), Error> {
    let place = Place::open(parent, name)?;
    if place.is_whole(artifact)? {
        place.write_manifest(artifact)?;
        place.forget(&place.staging)?;
        return place.sync();
    }
    place.write_staging(blobs, artifact, progress)?;
    place.write_manifest(artifact)?;
    place.take_name()?;
    place.sync()
}

/// Removes a deployment folder with everything beside it that belongs to it.
pub fn remove(parent: &Path, name: &str) -> Result<(), Error> {
    if !parent.exists() {
        return Ok(());
    }
    let place = Place::open(parent, name)?;
    // Out of its name first, so that a crash in between leaves no half folder that looks like a deployment.
    let removing = OsString::from(format!(".removing-{name}"));
    place.forget(&removing)?;
    let dir = place.dir.as_fd();
    match sysfs::renameat_with(dir, &place.name, dir, &removing, RenameFlags::NOREPLACE) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(errno) => return Err(place.error(&place.name)(errno.into())),
    }
    for name in place.belongings()? {
        place.forget(&name)?;
    }
    place.sync()
}

/// One deployment folder's surroundings.
struct Place<'a> {
    parent: &'a Path,
    dir: OwnedFd,
    name: OsString,
    staging: OsString,
    repairs: OsString,
    manifest: OsString,
}

impl<'a> Place<'a> {
    fn open(parent: &'a Path, name: &str) -> Result<Self, Error> {
        make_parent(parent).map_err(Error::at(parent))?;
        if name.is_empty() || name.starts_with('.') || name.contains('/') {
            return Err(Error::at(&parent.join(name))(io::ErrorKind::InvalidInput.into()));
        }
        Ok(Self {
            parent,
            dir: at::open_trusted(parent).map_err(Error::at(parent))?,
            name: name.into(),
            staging: format!(".staging-{name}").into(),
            repairs: format!(".repair-{name}").into(),
            manifest: format!(".manifest-{name}.json").into(),
        })
    }

    fn error(&self, name: &OsStr) -> impl FnOnce(io::Error) -> Error + use<> {
        let path = self.parent.join(name);
        move |source| Error::Io { path, source }
    }

    fn is_whole(&self, artifact: &Artifact) -> Result<bool, Error> {
        let here = at::look(self.dir.as_fd(), &self.name).map_err(self.error(&self.name))?;
        Ok(here.is_some() && check(&self.parent.join(&self.name), artifact, Depth::Whole)?.is_empty())
    }

    fn write_staging(
        &self,
        blobs: &Blobs,
        artifact: &Artifact,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Error> {
        self.forget(&self.staging)?;
        let path = self.parent.join(&self.staging);
        let root = at::make_dir(self.dir.as_fd(), &self.staging).map_err(Error::at(&path))?;
        let mut writer = Writer::new(blobs, root, path, artifact.files.len());
        let mut done = Progress::default();
        for (path, file) in &artifact.files {
            writer.write(path, file)?;
            done = Progress { files: done.files + 1, bytes: done.bytes + file.size };
            progress(done);
        }
        writer.sync()
    }

    /// The files and their hashes, for people and for a node that has lost its ledger.
    fn write_manifest(&self, artifact: &Artifact) -> Result<(), Error> {
        let error = || self.error(&self.manifest);
        let json = serde_json::to_vec(artifact).map_err(|e| error()(e.into()))?;
        if std::fs::read(self.parent.join(&self.manifest)).is_ok_and(|there| there == json) {
            return Ok(());
        }
        at::remove(self.dir.as_fd(), &self.manifest).map_err(error())?;
        at::write_whole(self.dir.as_fd(), &self.manifest, &json).map_err(error())
    }

    fn take_name(&self) -> Result<(), Error> {
        let dir = self.dir.as_fd();
        if at::look(dir, &self.name).map_err(self.error(&self.name))?.is_some() {
            at::move_aside(dir, &self.name, "damaged").map_err(self.error(&self.name))?;
        }
        sysfs::renameat_with(dir, &self.staging, dir, &self.name, RenameFlags::NOREPLACE)
            .map_err(|errno| self.error(&self.name)(errno.into()))
    }

    fn belongings(&self) -> Result<Vec<OsString>, Error> {
        let name = self.name.to_string_lossy();
        let damaged = format!("{name}.damaged-");
        let hidden = ["staging", "repair", "removing"].map(|word| format!(".{word}-{name}"));
        let manifest = self.manifest.to_string_lossy();
        let mine = |entry: &OsString| {
            let entry = entry.to_string_lossy();
            entry.starts_with(&damaged)
                || hidden.contains(&entry.to_string())
                || entry == manifest
                || entry == format!(".{manifest}.tmp")
        };
        let all = at::names(self.dir.as_fd()).map_err(Error::at(self.parent))?;
        Ok(all.into_iter().filter(mine).collect())
    }

    fn forget(&self, name: &OsStr) -> Result<(), Error> {
        at::remove(self.dir.as_fd(), name).map_err(self.error(name))
    }

    fn sync(&self) -> Result<(), Error> {
        sysfs::fsync(&self.dir).map_err(|errno| Error::at(self.parent)(errno.into()))
    }
}

/// Makes the folder and the ones above it, each durable in its own parent: a name in a folder that a power loss
/// takes away was never durable.
fn make_parent(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let (above, _) = at::split(folder)?;
    make_parent(&above)?;
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    std::fs::File::open(&above)?.sync_all()
}
