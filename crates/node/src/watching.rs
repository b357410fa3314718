//! Hints from the kernel about sites: a thread of its own waits for them. They only say *look here*.

use std::{
    collections::BTreeSet,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::Duration,
};

use content::watch::{Seen, Watch};
use rustix::event::{EventfdFlags, eventfd};

use crate::agent::Event;

/// Changes come in swarms: these are one hint.
const SWARM: Duration = Duration::from_millis(20);

#[derive(Debug)]
enum Request {
    Tree(PathBuf),
    Folder(PathBuf),
    Forget(PathBuf),
}

/// Asks the thread. Dropped, the thread ends.
#[derive(Debug)]
pub struct Watching {
    ask: Option<mpsc::Sender<Request>>,
    /// Rung with each request, and at the end: the thread waits for the kernel, which knows nothing of channels.
    bell: Arc<OwnedFd>,
}

impl Watching {
    pub(crate) fn start(events: tokio::sync::mpsc::Sender<Event>) -> std::io::Result<Self> {
        let (ask, requests) = mpsc::channel();
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let heard = bell.clone();
        let spawned = std::thread::Builder::new()
            .name("node-watch".into())
            .spawn(move || watch(&requests, &heard, &events));
        if let Err(error) = spawned {
            tracing::warn!(%error, "changes are noticed by the periodic pass alone");
        }
        Ok(Self { ask: Some(ask), bell })
    }

    fn ask(&self, request: Request) {
        if let Some(ask) = &self.ask {
            let _ = ask.send(request);
        }
        self.ring();
    }

    fn ring(&self) {
        // Full it is rung already.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    pub fn tree(&self, folder: PathBuf) {
        self.ask(Request::Tree(folder));
    }

    pub fn folder(&self, folder: PathBuf) {
        self.ask(Request::Folder(folder));
    }

    pub fn forget(&self, folder: &Path) {
        self.ask(Request::Forget(folder.to_owned()));
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.ask = None;
        self.ring();
    }
}

fn watch(requests: &mpsc::Receiver<Request>, bell: &OwnedFd, events: &tokio::sync::mpsc::Sender<Event>) {
    let watch = match Watch::new() {
        Ok(watch) => watch,
        Err(error) => {
            tracing::warn!(%error, "changes are noticed by the periodic pass alone");
            return;
        }
    };
    // Nothing is asked for: nothing is waited for either.
    let Ok(first) = requests.recv() else { return };
    let mut thread = Thread { watch, armed: BTreeSet::new(), missing: BTreeSet::new() };
    let mut seen = thread.obey(first);
    loop {
        // Before the requests are taken: one that comes after rings again.
        let _ = rustix::io::read(bell, &mut [0; 8]);
        loop {
            match requests.try_recv() {
                Ok(request) => merge(&mut seen, thread.obey(request)),
                Err(mpsc::TryRecvError::Empty) => break,
                Err(mpsc::TryRecvError::Disconnected) => return,
            }
        }
        match thread.wait(if seen.is_empty() { Some(bell) } else { None }) {
            Ok(more) => merge(&mut seen, more),
            Err(error) => {
                tracing::warn!(%error, "changes are noticed by the periodic pass alone");
                return;
            }
        }
        let Seen { paths, gone, everything } = std::mem::take(&mut seen);
        let paths: Vec<_> = paths.into_iter().chain(gone).collect();
        let hint = Event::Hint { everything, paths };
        let nothing = matches!(&hint, Event::Hint { paths, everything: false } if paths.is_empty());
        if !nothing && events.blocking_send(hint).is_err() {
            return;
        }
    }
}

fn merge(seen: &mut Seen, more: Seen) {
    seen.paths.extend(more.paths);
    seen.gone.extend(more.gone);
    seen.everything |= more.everything;
}

struct Thread {
    watch: Watch,
    armed: BTreeSet<PathBuf>,
    /// Told to be gone when they should have been watched; told once, until they are there again.
    missing: BTreeSet<PathBuf>,
}

impl Thread {
    /// Waits for the kernel or the bell; without a bell, for nothing.
    fn wait(&mut self, bell: Option<&OwnedFd>) -> Result<Seen, content::watch::Error> {
        let mut seen = match bell {
            Some(bell) => self.watch.wait_beside(bell.as_fd())?,
            None => self.watch.wait(Duration::ZERO)?,
        };
        if !seen.is_empty() {
            std::thread::sleep(SWARM);
            merge(&mut seen, self.watch.wait(Duration::ZERO)?);
        }
        self.armed.retain(|folder| !seen.gone.contains(folder));
        Ok(seen)
    }

    /// What changed before a folder was watched was told by nobody: a folder that is newly watched is looked at.
    fn obey(&mut self, request: Request) -> Seen {
        let mut seen = Seen::default();
        let (folder, armed) = match request {
            Request::Tree(folder) => (folder.clone(), self.watch.arm_tree(&folder)),
            Request::Folder(folder) => (folder.clone(), self.watch.arm_folder(&folder)),
            Request::Forget(folder) => {
                self.watch.forget(&folder);
                self.armed.retain(|armed| !armed.starts_with(&folder));
                self.missing.retain(|missing| !missing.starts_with(&folder));
                return seen;
            }
        };
        match armed {
            Ok(()) => {
                self.missing.remove(&folder);
                if self.armed.insert(folder.clone()) {
                    seen.paths.insert(folder);
                }
            }
            // Removed since it was put there, perhaps with the folder above it, whose watch would have told.
            Err(error @ content::watch::Error::Io { .. }) => {
                tracing::debug!(%error, "not watched");
                if self.missing.insert(folder.clone()) {
                    seen.paths.insert(folder);
                }
            }
            Err(error) => tracing::warn!(%error, "changes are noticed by the periodic pass alone"),
        }
        seen
    }
}
