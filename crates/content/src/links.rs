//! A relative symlink that always resolves: switched by rename, never removed in between.
//!
//! What stands in its place and is no link is somebody's: it is moved aside, never deleted.

use std::{
    ffi::{OsStr, OsString},
    fmt, io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use rustix::fs as sysfs;

use crate::{Kind, at};

/// What a link is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    Absent,
    To(PathBuf),
    NotALink(Kind),
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("missing"),
            Self::To(target) => f.write_str(&at::printable(target.as_os_str())),
            Self::NotALink(kind) => write!(f, "{kind}"),
        }
    }
}

/// What a switch found in its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Switched {
    /// It pointed there already.
    Unchanged,
    Switched,
    /// What was no link lies here now.
    MovedAside(PathBuf),
}

#[derive(Debug, thiserror::Error)]
#[error("{}: {source}; check the owner of its folder", path.display())]
pub struct Error {
    pub path: PathBuf,
    pub source: io::Error,
}

pub(crate) fn error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error { path: path.to_owned(), source }
}

pub fn read(link: &Path) -> Result<LinkState, Error> {
    let (parent, name) = at::split(link).map_err(error(link))?;
    match at::open_trusted(&parent) {
        Ok(dir) => state(dir.as_fd(), &name).map_err(error(link)),
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => Ok(LinkState::Absent),
        Err(other) => Err(error(link)(other)),
    }
}

/// Makes `link` point to `target`, durably. Whoever opens through it meanwhile gets the old or the new.
pub fn switch(link: &Path, target: &str) -> Result<Switched, Error> {
    let (parent, name) = at::split(link).map_err(error(link))?;
    let dir = at::open_trusted(&parent).map_err(error(link))?;
    let switched = switch_at(dir.as_fd(), &name, OsStr::new(target)).map_err(error(link))?;
    Ok(match switched {
        Switched::MovedAside(aside) => Switched::MovedAside(parent.join(aside)),
        other => other,
    })
}

/// Removes a link; what is no link stays.
pub fn remove(link: &Path) -> Result<LinkState, Error> {
    let state = read(link)?;
    if matches!(state, LinkState::To(_)) {
        let (parent, name) = at::split(link).map_err(error(link))?;
        let dir = at::open_trusted(&parent).map_err(error(link))?;
        at::remove(dir.as_fd(), &name).map_err(error(link))?;
        sysfs::fsync(&dir).map_err(|errno| error(link)(errno.into()))?;
    }
    Ok(state)
}

pub(crate) fn state(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<LinkState> {
    match at::look(dir, name)? {
        None => Ok(LinkState::Absent),
        Some((Kind::Symlink, _)) => {
            let target = sysfs::readlinkat(dir, name, Vec::new())?;
            let target: OsString = std::os::unix::ffi::OsStringExt::from_vec(target.into_bytes());
            Ok(LinkState::To(target.into()))
        }
        Some((kind, _)) => Ok(LinkState::NotALink(kind)),
    }
}

fn switch_at(dir: BorrowedFd<'_>, name: &OsStr, target: &OsStr) -> io::Result<Switched> {
    let switched = match state(dir, name)? {
        // Synced all the same: a crash may have come between the rename and its sync.
        LinkState::To(there) if there == target => Switched::Unchanged,
        LinkState::To(_) | LinkState::Absent => {
            replace(dir, name, target)?;
            Switched::Switched
        }
        LinkState::NotALink(_) => {
            let aside = at::move_aside(dir, name, "aside")?;
            replace(dir, name, target)?;
            Switched::MovedAside(aside.into())
        }
    };
    sysfs::fsync(dir)?;
    Ok(switched)
}

/// Puts a symlink at `name` in one step. The caller has seen that no foreign thing is there.
pub(crate) fn replace(dir: BorrowedFd<'_>, name: &OsStr, target: &OsStr) -> io::Result<()> {
    let mut unfinished = OsString::from(".");
    unfinished.push(name);
    unfinished.push(".setpoint-tmp");
    at::remove(dir, &unfinished)?; // a crash's leftover
    sysfs::symlinkat(target, dir, &unfinished)?;
    Ok(sysfs::renameat(dir, &unfinished, dir, name)?)
}
