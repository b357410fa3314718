//! Hints from the kernel about sites: a thread of its own waits for them. They only say *look here*.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

use content::watch::{Seen, Watch};

use crate::agent::Event;

/// How long a new request may wait while the thread waits for the kernel.
const TURN: Duration = Duration::from_millis(200);
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
pub struct Watching(mpsc::Sender<Request>);

impl Watching {
    pub(crate) fn start(events: tokio::sync::mpsc::Sender<Event>) -> Self {
        let (ask, requests) = mpsc::channel();
        let spawned =
            std::thread::Builder::new().name("node-watch".into()).spawn(move || watch(&requests, &events));
        if let Err(error) = spawned {
            tracing::warn!(%error, "changes are noticed by the periodic pass alone");
        }
        Self(ask)
    }

    pub fn tree(&self, folder: PathBuf) {
        let _ = self.0.send(Request::Tree(folder));
    }

    pub fn folder(&self, folder: PathBuf) {
        let _ = self.0.send(Request::Folder(folder));
    }

    pub fn forget(&self, folder: &Path) {
        let _ = self.0.send(Request::Forget(folder.to_owned()));
    }
}

fn watch(requests: &mpsc::Receiver<Request>, events: &tokio::sync::mpsc::Sender<Event>) {
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
        loop {
            match requests.try_recv() {
                Ok(request) => merge(&mut seen, thread.obey(request)),
                Err(mpsc::TryRecvError::Empty) => break,
                Err(mpsc::TryRecvError::Disconnected) => return,
            }
        }
        match thread.wait(if seen.is_empty() { TURN } else { Duration::ZERO }) {
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
    fn wait(&mut self, turn: Duration) -> Result<Seen, content::watch::Error> {
        let mut seen = self.watch.wait(turn)?;
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
