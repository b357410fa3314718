//! Our descriptors with the async runtime's poller. Here because registering one is `unsafe`: it must stay open, and
//! the same, for as long as it is registered.

use std::{io, os::fd::AsRawFd, sync::Arc};

use tokio::io::{Interest, unix::AsyncFd};

use crate::{Opened, PidFd};

/// Readable once the process has ended. Must be called within a runtime.
pub fn pidfd(pidfd: Arc<PidFd>) -> io::Result<AsyncFd<Arc<PidFd>>> {
    register(pidfd)
}

/// Readable once the program runs or could not be run. Must be called within a runtime.
pub fn opened(opened: Opened) -> io::Result<AsyncFd<Opened>> {
    register(opened)
}

/// Private: the types above own their descriptor and never replace it, which a stranger's might.
fn register<T: AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: both types own one descriptor for their whole life and give out that one; both close it only when
    // they are dropped, which `AsyncFd` does after it has deregistered them.
    Ok(unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) }?)
}
