//! The one place with `unsafe`: what the kernel offers and no safe crate does.
//!
//! Owns: a child that waits behind a gate until its identity is written down, pidfds, the kernel's clocks and ids.
//! Refuses to know: instances, assignments; everything above the kernel but the poller that its descriptors go to.

pub mod clock;
pub mod files;
pub mod memory;
pub mod pidfd;
pub mod proc;
mod raw;
pub mod ready;
pub mod spawn;

pub use pidfd::{Ended, PidFd};
pub use proc::Identity;
pub use spawn::{Credentials, Gated, Limit, Opened, Spawn, SpawnError, Stage};
