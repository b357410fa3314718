//! Hints from the kernel about sites: a thread of its own waits for them. They only say *look here*.

use std::{
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
    let mut watch = match Watch::new() {
        Ok(watch) => watch,
        Err(error) => {
            tracing::warn!(%error, "changes are noticed by the periodic pass alone");
            return;
        }
    };
    // Nothing is asked for: nothing is waited for either.
    let Ok(first) = requests.recv() else { return };
    obey(&mut watch, first);
    loop {
        loop {
            match requests.try_recv() {
                Ok(request) => obey(&mut watch, request),
                Err(mpsc::TryRecvError::Empty) => break,
                Err(mpsc::TryRecvError::Disconnected) => return,
            }
        }
        match wait(&mut watch) {
            Ok(seen) if seen.is_empty() => {}
            Ok(seen) => {
                let paths = seen.paths.into_iter().chain(seen.gone).collect();
                if events.blocking_send(Event::Hint { paths, everything: seen.everything }).is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "changes are noticed by the periodic pass alone");
                return;
            }
        }
    }
}

fn wait(watch: &mut Watch) -> Result<Seen, content::watch::Error> {
    let mut seen = watch.wait(TURN)?;
    if !seen.is_empty() {
        std::thread::sleep(SWARM);
        let more = watch.wait(Duration::ZERO)?;
        seen.paths.extend(more.paths);
        seen.gone.extend(more.gone);
        seen.everything |= more.everything;
    }
    Ok(seen)
}

fn obey(watch: &mut Watch, request: Request) {
    let armed = match &request {
        Request::Tree(folder) => watch.arm_tree(folder),
        Request::Folder(folder) => watch.arm_folder(folder),
        Request::Forget(folder) => {
            watch.forget(folder);
            Ok(())
        }
    };
    match armed {
        Ok(()) => {}
        // A folder that is missing is found by the look that follows each arming.
        Err(error @ content::watch::Error::Io { .. }) => tracing::debug!(%error, "not watched"),
        Err(error) => tracing::warn!(%error, "changes are noticed by the periodic pass alone"),
    }
}
