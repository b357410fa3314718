//! A living process that is watched: its end is told the moment its pidfd fires.

use std::{io, sync::Arc, time::Duration};

use model::observation::ExitStatus;
use sys::{Ended, Identity, PidFd};
use tokio::{sync::watch, task::AbortHandle};

/// Dropped, it is watched no longer; the process lives on.
#[derive(Debug)]
pub struct Live {
    pub identity: Identity,
    pub run: u64,
    pidfd: Arc<PidFd>,
    ended: watch::Receiver<Option<ExitStatus>>,
    watcher: AbortHandle,
}

/// Whose child it is decides what can be known of its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Started,
    /// Started by an earlier Setpoint: how it ends is unknown, never 0.
    Adopted,
}

impl Live {
    /// Watches it. `first` runs in the very wake-up that the kernel's word causes; `then` gets the status after
    /// what was left of its process group is gone.
    pub fn watch<Then: Future<Output = ()> + Send + 'static>(
        pidfd: PidFd,
        identity: Identity,
        run: u64,
        origin: Origin,
        first: impl FnOnce() + Send + 'static,
        then: impl FnOnce(ExitStatus) -> Then + Send + 'static,
    ) -> io::Result<Self> {
        let pidfd = Arc::new(pidfd);
        let fd = sys::ready::pidfd(pidfd.clone())?;
        let (tell, ended) = watch::channel(None);
        let watcher = tokio::spawn(async move {
            // An error of the poller is no sign of death: then the periodic pass finds it.
            if fd.readable().await.is_err() {
                return std::future::pending().await;
            }
            first();
            let status = reap(fd.get_ref(), &identity, origin);
            group_gone(&identity).await;
            tell.send_replace(Some(status));
            then(status).await;
        });
        Ok(Self { identity, run, pidfd, ended, watcher: watcher.abort_handle() })
    }

    /// What is known of its end now.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        *self.ended.borrow()
    }

    pub fn handle(&self) -> Handle {
        Handle { identity: self.identity, pidfd: self.pidfd.clone(), ended: self.ended.clone() }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.exit_status().is_none() {
            self.watcher.abort();
        }
    }
}

/// What is needed to end it.
#[derive(Debug, Clone)]
pub struct Handle {
    pub identity: Identity,
    pidfd: Arc<PidFd>,
    ended: watch::Receiver<Option<ExitStatus>>,
}

impl Handle {
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        self.pidfd.signal(signal)
    }

    /// Waits for its end.
    pub async fn ended(&mut self) {
        // An error means that nobody watches any more; the pidfd is asked instead.
        if self.ended.wait_for(Option::is_some).await.is_err()
            && let Ok(fd) = sys::ready::pidfd(self.pidfd.clone())
        {
            let _ = fd.readable().await;
            reap(&self.pidfd, &self.identity, Origin::Adopted);
        }
    }
}

/// What was killed takes a moment to die, and holds its port until then. Bounded: where nobody reaps orphans, dead
/// ones stay for ever.
async fn group_gone(identity: &Identity) {
    const ROUNDS: u32 = 100;
    for _ in 0..ROUNDS {
        if !sys::pidfd::group_exists(identity) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Its group goes before its pid is free: until then nobody else can have the number.
fn reap(pidfd: &PidFd, identity: &Identity, origin: Origin) -> ExitStatus {
    let status = pidfd.peek();
    if let Err(error) = sys::pidfd::kill_group(identity) {
        tracing::warn!(pid = identity.pid, %error, "what is left of a process group could not be killed");
    }
    let _ = pidfd.reap();
    match (origin, status) {
        (Origin::Started, Ok(Some(Ended::Code(code)))) => ExitStatus::Code(code),
        (Origin::Started, Ok(Some(Ended::Signal(signal)))) => ExitStatus::Signal(signal),
        (Origin::Started | Origin::Adopted, _) => ExitStatus::Unknown,
    }
}
