//! Hints from the kernel about sites: a thread of its own waits for them. They only say *look here*.

use std::{
    collections::BTreeSet,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use content::watch::{Error, Seen, Watch};
use rustix::event::{EventfdFlags, eventfd};

use crate::agent::Event;

/// Changes come in swarms: these are one hint.
const SWARM: Duration = Duration::from_millis(20);
/// After a failure of the kernel; each in a row doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(30);

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
            .spawn(move || watch(&requests, &heard, &events, Watch::new));
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

/// Begins anew when the kernel fails, after a pause that grows: until then the periodic pass alone looks.
fn watch(
    requests: &mpsc::Receiver<Request>,
    bell: &OwnedFd,
    events: &tokio::sync::mpsc::Sender<Event>,
    mut begin: impl FnMut() -> Result<Watch, Error>,
) {
    // Nothing is asked for: nothing is waited for either.
    let Ok(first) = requests.recv() else { return };
    let mut asked = Asked::default();
    asked.note(&first);
    let mut failures = 0;
    loop {
        let followed =
            begin().and_then(|watch| follow(watch, requests, bell, events, &mut asked, &mut failures));
        let Err(error) = followed else { return };
        let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(MAX_PAUSE);
        tracing::warn!(%error, ?pause, "changes are noticed by the periodic pass alone for now");
        failures += 1;
        if !asked.wait(requests, pause) {
            return;
        }
    }
}

/// Until nobody asks any more.
fn follow(
    watch: Watch,
    requests: &mpsc::Receiver<Request>,
    bell: &OwnedFd,
    events: &tokio::sync::mpsc::Sender<Event>,
    asked: &mut Asked,
    failures: &mut u32,
) -> Result<(), Error> {
    let mut thread = Thread { watch, armed: BTreeSet::new(), missing: BTreeSet::new() };
    let mut seen = Seen { everything: *failures > 0, ..Seen::default() };
    for request in asked.again() {
        merge(&mut seen, thread.obey(request));
    }
    loop {
        // Before the requests are taken: one that comes after rings again.
        let _ = rustix::io::read(bell, &mut [0; 8]);
        loop {
            match requests.try_recv() {
                Ok(request) => {
                    asked.note(&request);
                    merge(&mut seen, thread.obey(request));
                }
                Err(mpsc::TryRecvError::Empty) => break,
                Err(mpsc::TryRecvError::Disconnected) => return Ok(()),
            }
        }
        let more = thread.wait(if seen.is_empty() { Some(bell) } else { None })?;
        merge(&mut seen, more);
        *failures = 0;
        let Seen { paths, gone, everything } = std::mem::take(&mut seen);
        let paths: Vec<_> = paths.into_iter().chain(gone).collect();
        let nothing = paths.is_empty() && !everything;
        if !nothing && events.blocking_send(Event::Hint { everything, paths }).is_err() {
            return Ok(());
        }
    }
}

/// What shall be watched, for the next watch when this one fails.
#[derive(Debug, Default)]
struct Asked {
    trees: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
}

impl Asked {
    fn note(&mut self, request: &Request) {
        match request {
            Request::Tree(folder) => drop(self.trees.insert(folder.clone())),
            Request::Folder(folder) => drop(self.folders.insert(folder.clone())),
            Request::Forget(folder) => {
                self.trees.retain(|asked| !asked.starts_with(folder));
                self.folders.retain(|asked| !asked.starts_with(folder));
            }
        }
    }

    fn again(&self) -> Vec<Request> {
        let folders = self.folders.iter().cloned().map(Request::Folder);
        folders.chain(self.trees.iter().cloned().map(Request::Tree)).collect()
    }

    /// Notes what is asked for meanwhile; false when nobody will ask any more.
    fn wait(&mut self, requests: &mpsc::Receiver<Request>, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            match requests.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(request) => self.note(&request),
                Err(mpsc::RecvTimeoutError::Timeout) => return true,
                Err(mpsc::RecvTimeoutError::Disconnected) => return false,
            }
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
    fn wait(&mut self, bell: Option<&OwnedFd>) -> Result<Seen, Error> {
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
            Err(error @ Error::Io { .. }) => {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel has no watch to give twice; what is asked for meanwhile is watched as soon as it has one.
    #[test]
    fn a_watch_that_fails_is_taken_up_again_and_everything_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let (told, mut events) = tokio::sync::mpsc::channel(64);
        let (ask, requests) = mpsc::channel();
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        ask.send(Request::Tree(dir.path().to_owned())).unwrap();
        let mut left = 2;
        let begin = move || match left {
            0 => Watch::new(),
            _ => {
                left -= 1;
                Err(Error::Unavailable(std::io::ErrorKind::Other.into()))
            }
        };
        let thread = std::thread::spawn(move || watch(&requests, &bell, &told, begin));
        let Some(Event::Hint { everything: true, .. }) = events.blocking_recv() else {
            panic!("nobody says that everything must be looked at")
        };
        let file = dir.path().join("changed");
        std::fs::write(&file, "x").unwrap();
        loop {
            match events.blocking_recv() {
                Some(Event::Hint { paths, .. }) if paths.contains(&file) => break,
                Some(_) => {}
                None => panic!("the change is not told"),
            }
        }
        drop(ask);
        std::fs::write(&file, "the thread waits for the kernel").unwrap();
        thread.join().unwrap();
    }
}
