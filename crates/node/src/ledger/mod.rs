//! What the node has written down: which assignment it has accepted, and of each instance what must outlive the
//! agent.
//!
//! Owns: `accepted.json` and `instances/<id>/`. One small file per fact, each replaced by rename, so that cost
//! follows change and no crash leaves half a file. Refuses to know what the facts mean: that is `decide`.

mod accepted;
pub mod files;
mod folder;

use std::path::{Path, PathBuf};

pub use accepted::{Acceptor, AssignError};
pub use folder::{Claim, Folder, Identity, Listing, State, list, make_passable};

/// A file of the ledger that could not be read or written. What it says is then unknown, never absent.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: {cause}; check the disk, or move the file away if what it says is gone", path.display())]
pub struct Error {
    pub path: PathBuf,
    pub cause: String,
}

impl Error {
    pub fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self { path, cause: error.to_string() }
    }
}
