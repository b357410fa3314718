//! A folder as its owner wrote it: regular files, read once, in a fixed order.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use model::artifact::{Artifact, RelPath};

use super::{Code, Collector, Error};
use crate::{Blobs, Kind, Progress, at};

/// Takes every file below `folder`. `progress` is called after each.
pub fn from_folder(
    blobs: &Blobs,
    folder: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Artifact, Error> {
    let mut collector = Collector::new(blobs, progress)?;
    walk(folder, &mut |found| match found {
        Found::Directory(path) => collector.directory(&path),
        Found::File { path, executable, size, content } => collector.file(path, executable, size, content),
    })?;
    collector.finish().map_err(|error| error.about(printable(folder)))
}

/// One entry of a folder.
pub(crate) enum Found<'a> {
    Directory(RelPath),
    File { path: RelPath, executable: bool, size: u64, content: &'a mut dyn Read },
}

type Visit<'a> = dyn FnMut(Found<'_>) -> Result<(), Error> + 'a;

/// Visits everything below `folder`, names sorted within each directory. Refuses what is neither a regular file
/// nor a directory, and a file that changes while it is visited.
pub(crate) fn walk(folder: &Path, visit: &mut Visit<'_>) -> Result<(), Error> {
    let root = at::open_trusted(folder).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Error::new(Code::NotAFolder, "does not exist; check the path").about(printable(folder))
        }
        io::ErrorKind::NotADirectory => {
            Error::new(Code::NotAFolder, "is not a folder; give the folder that holds the files")
                .about(printable(folder))
        }
        _ => unreadable(folder, &error),
    })?;
    walk_dir(root.as_fd(), folder, "", visit)
}

fn walk_dir(dir: BorrowedFd<'_>, folder: &Path, prefix: &str, visit: &mut Visit<'_>) -> Result<(), Error> {
    let here = || folder.join(prefix.trim_end_matches('/'));
    for name in at::names(dir).map_err(|error| unreadable(&here(), &error))? {
        let shown = here().join(&name);
        let path = rel_path(prefix, &name).map_err(|error| error.about(printable(&shown)))?;
        let kind = at::look(dir, &name).map_err(|error| unreadable(&shown, &error))?;
        match kind {
            None => return Err(changed(&shown)),
            Some((Kind::Directory, _)) => {
                let child = at::open_dir(dir, &name).map_err(|error| unreadable(&shown, &error))?;
                visit(Found::Directory(path.clone())).map_err(|error| error.about(printable(&shown)))?;
                walk_dir(child.as_fd(), folder, &format!("{path}/"), visit)?;
            }
            Some((Kind::File, _)) => visit_file(dir, &name, path, &shown, visit)?,
            Some((Kind::Symlink, _)) => {
                let message = "is a symlink; replace it by the file itself, or remove it";
                return Err(Error::new(Code::Link, message).about(printable(&shown)));
            }
            Some((Kind::Special, _)) => {
                let message = "is a socket, pipe or device; only files and folders are taken, remove it";
                return Err(Error::new(Code::Device, message).about(printable(&shown)));
            }
        }
    }
    Ok(())
}

fn visit_file(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    path: RelPath,
    shown: &Path,
    visit: &mut Visit<'_>,
) -> Result<(), Error> {
    let file = at::open_file(dir, name).map_err(|error| unreadable(shown, &error))?;
    let before = state(&file).map_err(|error| unreadable(shown, &error))?;
    if !before.regular {
        return Err(changed(shown));
    }
    let mut content = Kept { inner: (&file).take(before.size), failed: None };
    let executable = before.mode & 0o100 != 0;
    let visited = visit(Found::File { path, executable, size: before.size, content: &mut content });
    if let Some(error) = content.failed {
        return Err(unreadable(shown, &error));
    }
    let after = state(&file).map_err(|error| unreadable(shown, &error))?;
    if before != after {
        return Err(changed(shown));
    }
    visited.map_err(|error| error.about(printable(shown)))
}

/// What tells that a file was written to: size, both times and mode.
#[derive(Debug, PartialEq, Eq)]
struct State {
    regular: bool,
    size: u64,
    mode: u32,
    modified: (i64, i64),
    touched: (i64, i64),
}

fn state(file: &File) -> io::Result<State> {
    let meta = file.metadata()?;
    Ok(State {
        regular: meta.is_file(),
        size: meta.len(),
        mode: meta.mode(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        touched: (meta.ctime(), meta.ctime_nsec()),
    })
}

/// Keeps the error of a failed read, so that it is told as the folder's and not as an archive's.
struct Kept<R> {
    inner: R,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Kept<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| {
            let told = io::Error::from(error.kind());
            self.failed = Some(error);
            told
        })
    }
}

fn rel_path(prefix: &str, name: &OsStr) -> Result<RelPath, Error> {
    let name = name
        .to_str()
        .ok_or_else(|| Error::new(Code::InvalidName, "has a name that is not UTF-8; rename it"))?;
    if name.contains('\\') {
        return Err(Error::new(Code::Backslash, "has a backslash in its name; rename it"));
    }
    format!("{prefix}{name}").parse().map_err(|error: model::id::InvalidId| {
        Error::new(Code::InvalidName, format!("is no usable name: {}", error.expected))
    })
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    let message = format!("cannot be read ({error}); check its permissions");
    Error::new(Code::Unreadable, message).about(printable(path))
}

fn changed(path: &Path) -> Error {
    let message = "changed while it was read; try again when nothing writes there";
    Error::new(Code::Changed, message).about(printable(path))
}

fn printable(path: &Path) -> String {
    at::printable(PathBuf::from(path).as_os_str())
}
