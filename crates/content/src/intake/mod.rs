//! From an untrusted folder or archive to an artifact.
//!
//! Owns: which names, kinds and sizes are taken. Everything that comes in, whatever its format, passes the one
//! `Collector`; the formats only say what they found. One bad entry refuses the whole upload, and a refused
//! upload leaves nothing behind.

mod archive;
mod error;
mod folder;
mod tar;
mod tree;
mod zip;

use std::{
    ffi::OsStr,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
};

pub use archive::{Format, from_archive};
pub use error::{Code, Error};
pub use folder::from_folder;
pub(crate) use folder::{Found, walk};
use model::artifact::{Artifact, File, MAX_ARTIFACT_BYTES, MAX_ARTIFACT_FILES, RelPath};
pub(crate) use tree::Tree;

use crate::{
    Progress, at,
    blobs::{self, Batch, Blobs},
};

/// More entries than this, files and directories together, are refused.
pub const MAX_ENTRIES: usize = 2 * MAX_ARTIFACT_FILES;

/// Takes files one by one into a batch of blobs and an artifact.
pub(crate) struct Collector<'a> {
    batch: Batch,
    tree: Tree,
    artifact: Artifact,
    entries: usize,
    done: Progress,
    progress: &'a mut dyn FnMut(Progress),
}

impl<'a> Collector<'a> {
    fn new(blobs: &Blobs, progress: &'a mut dyn FnMut(Progress)) -> Result<Self, Error> {
        Ok(Self {
            batch: blobs.batch()?,
            tree: Tree::default(),
            artifact: Artifact::default(),
            entries: 0,
            done: Progress::default(),
            progress,
        })
    }

    /// Takes one file whose content is all of `content`; `size` is what was announced.
    fn file(
        &mut self,
        path: RelPath,
        executable: bool,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<(), Error> {
        self.count_entry(&path)?;
        self.tree.add_file(&path)?;
        self.make_room(&path, size)?;
        let (digest, taken) = self.batch.put(content).map_err(|error| match error {
            blobs::Error::Source(error) => Error::reading(error).about(path.as_str()),
            stored => stored.into(),
        })?;
        if taken != size {
            let message = format!("has {taken} bytes where {size} were announced; make the archive again");
            return Err(Error::new(Code::SizeMismatch, message).about(path.as_str()));
        }
        self.artifact.files.insert(path, File { digest, size, executable });
        self.done = Progress { files: self.done.files + 1, bytes: self.done.bytes + size };
        (self.progress)(self.done);
        Ok(())
    }

    /// Notes a directory: it may not collide with a file. Empty ones are not kept.
    fn directory(&mut self, path: &RelPath) -> Result<(), Error> {
        self.count_entry(path)?;
        self.tree.add_directory(path)
    }

    fn count_entry(&mut self, path: &RelPath) -> Result<(), Error> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES || self.artifact.files.len() >= MAX_ARTIFACT_FILES {
            let message =
                format!("more than {MAX_ARTIFACT_FILES} files or {MAX_ENTRIES} entries; split the site");
            return Err(Error::new(Code::TooManyEntries, message).about(path.as_str()));
        }
        Ok(())
    }

    fn make_room(&self, path: &RelPath, size: u64) -> Result<(), Error> {
        if self.done.bytes.saturating_add(size) > MAX_ARTIFACT_BYTES {
            return Err(Error::too_large().about(path.as_str()));
        }
        Ok(())
    }

    fn finish(self) -> Result<Artifact, Error> {
        if self.artifact.files.is_empty() {
            return Err(Error::new(
                Code::Empty,
                "holds no files; is it the right folder, and is it mounted?",
            ));
        }
        self.batch.commit()?;
        Ok(self.artifact)
    }
}

/// The path of an archive entry; `None` for the top folder itself (`./`).
fn entry_path(raw: &[u8]) -> Result<Option<RelPath>, Error> {
    let refuse = |code, why: &str| Err(Error::new(code, why).about(at::printable(OsStr::from_bytes(raw))));
    let Ok(text) = std::str::from_utf8(raw) else {
        return refuse(Code::InvalidName, "has a name that is not UTF-8; rename it");
    };
    if text.contains('\\') {
        return refuse(Code::Backslash, "has a backslash in its name; use / between folders");
    }
    if text.starts_with('/') {
        return refuse(Code::Absolute, "has an absolute path; pack relative to the site's folder");
    }
    if text.split('/').any(|part| part == "..") {
        return refuse(Code::Traversal, "climbs out with `..`; pack relative to the site's folder");
    }
    let mut path = text;
    while let Some(rest) = path.strip_prefix("./") {
        path = rest;
    }
    let path = path.strip_suffix('/').unwrap_or(path);
    if matches!(path, "" | ".") && !text.is_empty() {
        return Ok(None);
    }
    match path.parse() {
        Ok(path) => Ok(Some(path)),
        Err(error) => refuse(Code::InvalidName, &format!("is no usable name: {}", error.expected)),
    }
}

/// A reader that refuses to give more than `left` bytes: the bound on what a small upload may unpack to.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| io::Error::other(error::Overflow))?;
        Ok(n)
    }
}
