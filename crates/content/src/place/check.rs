//! Compares a folder with an artifact, by hashes: never by counts, sizes or times.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fmt, io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use model::{
    Digest,
    artifact::{self, Artifact, RelPath},
};
use rustix::io::Errno;

use super::{Error, writer};
use crate::{Kind, at, blobs};

/// How much of the folder to look at.
#[derive(Debug, Clone, Copy)]
pub enum Depth<'a> {
    Whole,
    /// What lies at, above or below these paths: what a watch has named.
    Only(&'a BTreeSet<PathBuf>),
}

/// One difference. A directory that is missing or replaced stands for all that was in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Damage {
    /// Relative to the folder; empty for the folder itself. May be any name that the kernel allows.
    pub path: PathBuf,
    pub kind: DamageKind,
}

/// `declared: None` means that a directory is declared there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum DamageKind {
    Missing {
        declared: Option<Digest>,
    },
    Changed {
        declared: Digest,
        observed: Digest,
    },
    WrongType {
        declared: Option<Digest>,
        found: Kind,
    },
    WrongMode {
        declared: u32,
        observed: u32,
    },
    Extra {
        found: Kind,
    },
    /// It is there and we may not look inside.
    Unreadable {
        declared: Option<Digest>,
    },
}

impl Damage {
    /// The path for people, safe to print.
    pub fn shown(&self) -> String {
        at::printable(self.path.as_os_str())
    }

    /// What is declared there; `None`: nothing.
    pub fn declared(&self) -> Option<String> {
        match &self.kind {
            DamageKind::Missing { declared }
            | DamageKind::WrongType { declared, .. }
            | DamageKind::Unreadable { declared } => {
                Some(declared.map_or_else(|| Kind::Directory.to_string(), |digest| digest.to_string()))
            }
            DamageKind::Changed { declared, .. } => Some(declared.to_string()),
            DamageKind::WrongMode { declared, .. } => Some(format!("mode {declared:04o}")),
            DamageKind::Extra { .. } => None,
        }
    }

    /// What is there; `None`: nothing.
    pub fn observed(&self) -> Option<String> {
        match &self.kind {
            DamageKind::Missing { .. } => None,
            DamageKind::Changed { observed, .. } => Some(observed.to_string()),
            DamageKind::WrongType { found, .. } | DamageKind::Extra { found } => Some(found.to_string()),
            DamageKind::WrongMode { observed, .. } => Some(format!("mode {observed:04o}")),
            DamageKind::Unreadable { .. } => Some("unreadable".into()),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.as_os_str().is_empty() { "the folder".into() } else { self.shown() };
        match &self.kind {
            DamageKind::Missing { .. } => write!(f, "{path} is missing"),
            DamageKind::Changed { .. } => write!(f, "{path} has other content"),
            DamageKind::WrongType { found, .. } => write!(f, "{path} is {found}"),
            DamageKind::WrongMode { declared, observed } => {
                write!(f, "{path} has mode {observed:04o} where {declared:04o} is declared")
            }
            DamageKind::Extra { found } => write!(f, "{path} is {found} that is not declared"),
            DamageKind::Unreadable { .. } => write!(f, "{path} cannot be read"),
        }
    }
}

/// Everything in which `folder` differs from the artifact, sorted by path. An error means *unknown*, not damaged.
pub fn check(folder: &Path, artifact: &Artifact, depth: Depth<'_>) -> Result<Vec<Damage>, Error> {
    let (parent, name) = at::split(folder).map_err(Error::at(folder))?;
    let parent = match at::open_trusted(&parent) {
        Ok(parent) => parent,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(vec![Damage { path: PathBuf::new(), kind: DamageKind::Missing { declared: None } }]);
        }
        Err(error) => return Err(Error::at(folder)(error)),
    };
    let declared = Declared::of(artifact);
    let mut comparison = Comparison { depth, folder, damage: Vec::new() };
    comparison.compare_dir(parent.as_fd(), &name, Path::new(""), &declared).map_err(Error::at(folder))?;
    comparison.damage.sort();
    Ok(comparison.damage)
}

/// The artifact as folders within folders.
#[derive(Default)]
pub(super) struct Declared<'a> {
    files: BTreeMap<&'a str, &'a artifact::File>,
    folders: BTreeMap<&'a str, Declared<'a>>,
}

impl<'a> Declared<'a> {
    fn of(artifact: &'a Artifact) -> Self {
        let mut root = Self::default();
        for (path, file) in &artifact.files {
            root.add(path, file);
        }
        root
    }

    fn add(&mut self, path: &'a RelPath, file: &'a artifact::File) {
        let mut here = self;
        let mut rest = path.as_str();
        while let Some((folder, below)) = rest.split_once('/') {
            here = here.folders.entry(folder).or_default();
            rest = below;
        }
        here.files.insert(rest, file);
    }

    fn names(&self) -> impl Iterator<Item = OsString> {
        self.files.keys().chain(self.folders.keys()).map(OsString::from)
    }
}

struct Comparison<'a> {
    depth: Depth<'a>,
    folder: &'a Path,
    damage: Vec<Damage>,
}

impl Comparison<'_> {
    fn compare_dir(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        declared: &Declared<'_>,
    ) -> io::Result<()> {
        match at::look(parent, name)? {
            None => self.note(path, DamageKind::Missing { declared: None }),
            Some((Kind::Directory, mode)) => {
                if mode != 0o755 {
                    self.note(path, DamageKind::WrongMode { declared: 0o755, observed: mode });
                }
                match at::open_dir(parent, name) {
                    Ok(dir) => self.compare_entries(dir.as_fd(), path, declared)?,
                    // Its mode is reported, and is what must be put right before anything inside can be seen.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied && mode != 0o755 => {}
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                        self.note(path, DamageKind::Unreadable { declared: None });
                    }
                    Err(error) if vanished(&error) => self.note(path, DamageKind::Missing { declared: None }),
                    Err(error) => return Err(error),
                }
            }
            Some((found, _)) => self.note(path, DamageKind::WrongType { declared: None, found }),
        }
        Ok(())
    }

    fn compare_entries(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &Path,
        declared: &Declared<'_>,
    ) -> io::Result<()> {
        let mut entries: BTreeSet<OsString> = at::names(dir)?.into_iter().collect();
        entries.extend(declared.names());
        for name in entries {
            let path = path.join(&name);
            if !self.is_wanted(&path) {
                continue;
            }
            let key = name.to_str().unwrap_or_default();
            if let Some(file) = declared.files.get(key) {
                self.compare_file(dir, &name, &path, file)?;
            } else if let Some(folder) = declared.folders.get(key) {
                self.compare_dir(dir, &name, &path, folder)?;
            } else if let Some((found, _)) = at::look(dir, &name)? {
                self.note(&path, DamageKind::Extra { found });
            }
        }
        Ok(())
    }

    fn compare_file(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        file: &artifact::File,
    ) -> io::Result<()> {
        let declared = Some(file.digest);
        let kind = match at::look(dir, name)? {
            None => Some(DamageKind::Missing { declared }),
            Some((Kind::File, mode)) => match hash(dir, name) {
                Ok(observed) if observed != file.digest => {
                    Some(DamageKind::Changed { declared: file.digest, observed })
                }
                Ok(_) if mode != writer::mode(file) => {
                    Some(DamageKind::WrongMode { declared: writer::mode(file), observed: mode })
                }
                Ok(_) => None,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    Some(DamageKind::Unreadable { declared })
                }
                Err(error) if vanished(&error) => Some(DamageKind::Missing { declared }),
                Err(error) => return Err(error),
            },
            Some((found, _)) => Some(DamageKind::WrongType { declared, found }),
        };
        if let Some(kind) = kind {
            self.note(path, kind);
        }
        Ok(())
    }

    fn is_wanted(&self, path: &Path) -> bool {
        match self.depth {
            Depth::Whole => true,
            Depth::Only(hints) => hints.iter().any(|hint| {
                let inner = hint.strip_prefix(self.folder).unwrap_or(hint);
                path.starts_with(inner) || inner.starts_with(path) || self.folder.starts_with(hint)
            }),
        }
    }

    fn note(&mut self, path: &Path, kind: DamageKind) {
        self.damage.push(Damage { path: path.to_owned(), kind });
    }
}

fn hash(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Digest> {
    let mut file = at::open_file(dir, name)?;
    Ok(blobs::hash(&mut file)?.0)
}

/// It was something else a moment ago; the next look will say what it is now.
fn vanished(error: &io::Error) -> bool {
    let gone = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::NXIO, Errno::ISDIR];
    gone.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
