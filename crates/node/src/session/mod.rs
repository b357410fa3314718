//! Sessions of people: a command run inside an instance, and what instances use. Nothing here decides anything.

mod exec;
mod usage;

use model::InstanceId;

pub use self::{
    exec::run,
    usage::{Measured, What, measure},
};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("there is no instance {0} here")]
    Unknown(InstanceId),
    #[error("{0} does not run now")]
    NotRunning(InstanceId),
    #[error("{0} is a site: files are served, and nothing runs in it")]
    Site(InstanceId),
    #[error("a process has no terminal of its own; leave -t out, or run the command without `exec`")]
    NoTerminal,
    #[error("{0}")]
    Failed(String),
    /// Whoever asked is gone, and the command with them.
    #[error("nobody listens any more")]
    Left,
    #[error("the node has ended")]
    Ended,
}
