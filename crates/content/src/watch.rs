//! Where to look, told by the kernel.
//!
//! Owns: an inotify instance over many folders. What it says is a hint and never a fact: events are merged, may
//! come late, and when the kernel has dropped some it says [`Seen::everything`]. Refuses to know what changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask, Watches};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

const BUFFER: usize = 64 * 1024;
/// More hints than this are one: look at everything.
const MAX_HINTS: usize = 1_000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{}: the kernel watches no more folders for this user; raise fs.inotify.max_user_watches (changes there are noticed by the periodic pass alone)",
        folder.display()
    )]
    Limit { folder: PathBuf },
    #[error("{}: cannot be watched: {source}", folder.display())]
    Io { folder: PathBuf, source: io::Error },
    #[error("no watch can be made: {0}; raise fs.inotify.max_user_instances")]
    Unavailable(io::Error),
}

/// What has happened since the last wait.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Something changed at these absolute paths, or below them.
    pub paths: BTreeSet<PathBuf>,
    /// Armed folders that are gone or moved; they are watched no longer until armed again.
    pub gone: BTreeSet<PathBuf>,
    /// Events were lost: look at every armed folder.
    pub everything: bool,
}

impl Seen {
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.gone.is_empty() && !self.everything
    }

    fn add(&mut self, path: PathBuf) {
        if self.paths.len() < MAX_HINTS {
            self.paths.insert(path);
        } else {
            self.everything = true;
        }
    }
}

/// Watches folders. Lives on a thread of its own, since [`Watch::wait`] blocks.
pub struct Watch {
    inotify: Inotify,
    watches: Watches,
    folders: BTreeMap<i32, Folder>,
    buffer: Vec<u8>,
    /// Found while arming, told at the next wait.
    pending: Seen,
}

struct Folder {
    path: PathBuf,
    descriptor: WatchDescriptor,
    scope: Scope,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// The folder itself, armed by the caller.
    Alone,
    /// The top of a tree, armed by the caller.
    Top,
    /// A folder within a tree.
    Within,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("folders", &self.folders.len()).finish_non_exhaustive()
    }
}

impl Watch {
    pub fn new() -> Result<Self, Error> {
        let inotify = Inotify::init().map_err(Error::Unavailable)?;
        let watches = inotify.watches();
        Ok(Self {
            inotify,
            watches,
            folders: BTreeMap::new(),
            buffer: vec![0; BUFFER],
            pending: Seen::default(),
        })
    }

    /// Watches a folder's own entries: for the folder that holds `current`.
    pub fn arm_folder(&mut self, folder: &Path) -> Result<(), Error> {
        self.add(folder, Scope::Alone)
    }

    /// Watches a folder and all below it, also what is made there later. What changed before is not told: arm
    /// first, then check.
    pub fn arm_tree(&mut self, folder: &Path) -> Result<(), Error> {
        self.add(folder, Scope::Top)?;
        self.arm_below(folder)
    }

    /// Ends the watch of a folder and all below it.
    pub fn forget(&mut self, folder: &Path) {
        let ids: Vec<i32> = self.below(folder);
        for id in ids {
            if let Some(folder) = self.folders.remove(&id) {
                // The kernel has dropped it already when the folder is gone.
                let _ = self.watches.remove(folder.descriptor);
            }
        }
    }

    /// Whether this folder is watched now.
    pub fn is_armed(&self, folder: &Path) -> bool {
        self.folders.values().any(|watched| watched.path == folder)
    }

    /// Waits until something happens, at most `timeout`, and tells all that has happened so far.
    pub fn wait(&mut self, timeout: Duration) -> Result<Seen, Error> {
        self.wait_with(Some(timeout), None)
    }

    /// Waits until something happens or `other` can be read, however long that takes.
    pub fn wait_beside(&mut self, other: BorrowedFd<'_>) -> Result<Seen, Error> {
        self.wait_with(None, Some(other))
    }

    fn wait_with(&mut self, timeout: Option<Duration>, other: Option<BorrowedFd<'_>>) -> Result<Seen, Error> {
        if self.pending.is_empty() {
            self.poll(timeout, other).map_err(Error::Unavailable)?;
        }
        while self.read()? {}
        Ok(std::mem::take(&mut self.pending))
    }

    fn poll(&self, timeout: Option<Duration>, other: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let timeout = timeout.map(Timespec::try_from).transpose().map_err(|_| Errno::INVAL)?;
        let watched = std::iter::once(self.inotify.as_fd()).chain(other);
        let mut fds: Vec<_> = watched.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes one buffer of events; false when there was none.
    fn read(&mut self) -> Result<bool, Error> {
        let events: Vec<_> = match self.inotify.read_events(&mut self.buffer) {
            Ok(events) => events.map(|event| event.to_owned()).collect(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(Error::Unavailable(error)),
        };
        for event in &events {
            self.take(event)?;
        }
        Ok(!events.is_empty())
    }

    fn take(&mut self, event: &inotify::EventOwned) -> Result<(), Error> {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            self.pending.everything = true;
            self.arm_again();
            return Ok(());
        }
        let id = event.wd.get_watch_descriptor_id();
        let Some(folder) = self.folders.get(&id) else { return Ok(()) };
        let (path, scope) = (folder.path.clone(), folder.scope);
        if event.mask.intersects(EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::IGNORED) {
            self.lose(&path);
            return Ok(());
        }
        let Some(name) = &event.name else {
            self.pending.add(path);
            return Ok(());
        };
        let path = path.join(name);
        if event.mask.contains(EventMask::MOVED_FROM | EventMask::ISDIR) {
            // Before it arrives under its new name, where the kernel would give the old watch again.
            self.lose(&path);
        }
        let is_new = event.mask.intersects(EventMask::CREATE | EventMask::MOVED_TO);
        if scope != Scope::Alone
            && is_new
            && event.mask.contains(EventMask::ISDIR)
            && self.arm_new(&path).is_err()
        {
            // One folder that cannot be watched ends no other watch: what happens in it is found by looking.
            self.pending.everything = true;
        }
        self.pending.add(path);
        Ok(())
    }

    /// A folder is gone, or lies elsewhere now under another name: all watches below its old name are wrong.
    fn lose(&mut self, path: &Path) {
        for folder in self.folders.values() {
            if folder.scope != Scope::Within && folder.path.starts_with(path) {
                self.pending.gone.insert(folder.path.clone());
            }
        }
        self.forget(path);
        self.pending.add(path.to_owned());
    }

    fn arm_new(&mut self, folder: &Path) -> Result<(), Error> {
        // Moved here from where it was watched under another name.
        self.forget(folder);
        match self.add(folder, Scope::Within) {
            Ok(()) => self.arm_below(folder),
            Err(Error::Io { source, .. }) if is_gone(&source) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Watches the folders in `folder`. The watch comes before the listing, so nothing slips between.
    fn arm_below(&mut self, folder: &Path) -> Result<(), Error> {
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if is_gone(&error) => return Ok(()),
            Err(source) => return Err(Error::Io { folder: folder.to_owned(), source }),
        };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.arm_new(&entry.path())?;
            }
        }
        Ok(())
    }

    /// After lost events new folders may be unwatched.
    fn arm_again(&mut self) {
        let tops: Vec<PathBuf> = self
            .folders
            .values()
            .filter(|folder| folder.scope == Scope::Top)
            .map(|folder| folder.path.clone())
            .collect();
        for top in tops {
            // Everything is looked at anyhow, and the caller arms again what is gone.
            let _ = self.arm_below(&top);
        }
    }

    fn add(&mut self, folder: &Path, scope: Scope) -> Result<(), Error> {
        let mask = WatchMask::MODIFY
            | WatchMask::ATTRIB
            | WatchMask::CLOSE_WRITE
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR
            | WatchMask::DONT_FOLLOW
            | WatchMask::EXCL_UNLINK;
        let descriptor = self.watches.add(folder, mask).map_err(|source| match source.raw_os_error() {
            Some(code) if code == Errno::NOSPC.raw_os_error() => Error::Limit { folder: folder.to_owned() },
            _ => Error::Io { folder: folder.to_owned(), source },
        })?;
        let id = descriptor.get_watch_descriptor_id();
        self.folders.insert(id, Folder { path: folder.to_owned(), descriptor, scope });
        Ok(())
    }

    fn below(&self, folder: &Path) -> Vec<i32> {
        let inside = |(id, watched): (&i32, &Folder)| watched.path.starts_with(folder).then_some(*id);
        self.folders.iter().filter_map(inside).collect()
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
