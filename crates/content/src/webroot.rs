//! A site's top-level entries, linked into a folder that another web server serves:
//! `<webroot>/index.html -> <site>/current/index.html`.
//!
//! The webroot is not ours. Only symlinks that point into our own site folder are ever touched; anything else in
//! the place of an entry is a conflict, reported and left alone.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fmt, io,
    os::fd::{AsFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use model::artifact::Artifact;
use rustix::fs as sysfs;

use crate::{
    at,
    links::{self, Error, LinkState, error},
};

/// Where links go (`folder`), and the site that they lead into: absolute, with `current` in it.
#[derive(Debug, Clone, Copy)]
pub struct Webroot<'a> {
    pub folder: &'a Path,
    pub site: &'a Path,
}

/// One difference between the webroot and what is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub entry: OsString,
    /// Where it should point; `None` for a link that should not be.
    pub declared: Option<PathBuf>,
    pub observed: LinkState,
}

impl Difference {
    /// Somebody else's: we report it and leave it.
    pub fn is_conflict(&self, webroot: &Webroot<'_>) -> bool {
        match &self.observed {
            LinkState::Absent => false,
            LinkState::To(target) => !webroot.owns(target),
            LinkState::NotALink(_) => true,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = at::printable(&self.entry);
        match &self.declared {
            Some(target) => write!(f, "{entry} is {}, not a link to {}", self.observed, target.display()),
            None => write!(f, "{entry} is a link of a file that the site no longer has"),
        }
    }
}

impl Webroot<'_> {
    /// Everything that differs, conflicts included.
    pub fn check(&self, artifact: &Artifact) -> Result<Vec<Difference>, Error> {
        self.differences(&artifact.files.keys().map(|path| path.top()).collect())
    }

    /// Puts right what is ours to put right; gives the conflicts that stay. Makes the folder when it is missing.
    pub fn apply(&self, artifact: &Artifact) -> Result<Vec<Difference>, Error> {
        std::fs::create_dir_all(self.folder).map_err(error(self.folder))?;
        self.put_right(self.check(artifact)?)
    }

    /// Removes every link of ours.
    pub fn remove(&self) -> Result<(), Error> {
        self.put_right(self.leftovers()?).map(|_| ())
    }

    /// Every link of ours.
    pub fn leftovers(&self) -> Result<Vec<Difference>, Error> {
        self.differences(&BTreeSet::new())
    }

    fn differences(&self, declared: &BTreeSet<&str>) -> Result<Vec<Difference>, Error> {
        let Some(dir) = self.open()? else {
            return Ok(declared.iter().map(|top| self.missing(top)).collect());
        };
        let here = || error(self.folder);
        let mut names: BTreeSet<OsString> = at::names(dir.as_fd()).map_err(here())?.into_iter().collect();
        names.extend(declared.iter().map(OsString::from));
        let mut found = Vec::new();
        for entry in names {
            let observed = links::state(dir.as_fd(), &entry).map_err(here())?;
            let declared = entry.to_str().and_then(|name| declared.get(name)).map(|top| self.target(top));
            let differs = match (&declared, &observed) {
                (Some(target), LinkState::To(there)) => target != there,
                (Some(_), LinkState::Absent | LinkState::NotALink(_)) => true,
                (None, LinkState::To(there)) => self.owns(there),
                (None, LinkState::Absent | LinkState::NotALink(_)) => false,
            };
            if differs {
                found.push(Difference { entry, declared, observed });
            }
        }
        Ok(found)
    }

    fn put_right(&self, differences: Vec<Difference>) -> Result<Vec<Difference>, Error> {
        let (conflicts, ours): (Vec<_>, Vec<_>) =
            differences.into_iter().partition(|difference| difference.is_conflict(self));
        let dir = match self.open()? {
            Some(dir) if !ours.is_empty() => dir,
            _ => return Ok(conflicts),
        };
        for Difference { entry, declared, .. } in ours {
            let done = match declared {
                Some(target) => links::replace(dir.as_fd(), &entry, target.as_os_str()),
                None => at::remove(dir.as_fd(), &entry),
            };
            done.map_err(error(&self.folder.join(&entry)))?;
        }
        sysfs::fsync(&dir).map_err(|errno| error(self.folder)(errno.into()))?;
        Ok(conflicts)
    }

    fn open(&self) -> Result<Option<OwnedFd>, Error> {
        match at::open_trusted(self.folder) {
            Ok(dir) => Ok(Some(dir)),
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(other) => Err(error(self.folder)(other)),
        }
    }

    fn missing(&self, top: &&str) -> Difference {
        Difference {
            entry: OsStr::new(top).to_owned(),
            declared: Some(self.target(top)),
            observed: LinkState::Absent,
        }
    }

    fn target(&self, top: &str) -> PathBuf {
        self.site.join("current").join(top)
    }

    /// By the text of the link: it need not resolve, and what it resolves to may be anybody's.
    fn owns(&self, target: &Path) -> bool {
        let climbs = target.components().any(|part| part == Component::ParentDir);
        target.starts_with(self.site) && target != self.site && !climbs
    }
}
