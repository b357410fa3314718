//! The files of a site, from the upload to the folder that is served.
//!
//! Owns: archives read safely, blobs by digest, folders placed whole and compared with their hashes, the links
//! that others follow, and the watch that says where to look.
//! Refuses to know: services, releases, nodes, the store. All IO is synchronous; callers move it off their
//! runtime. Memory is bounded: contents stream through buffers, only names and digests are held.

mod at;
pub mod blobs;
pub mod bundle;
pub mod intake;
pub mod links;
mod pack;
pub mod place;
pub mod watch;
pub mod webroot;

pub use at::Kind;
pub use blobs::Blobs;
pub use pack::{artifact_of, pack};

/// How far a copy or an upload has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    pub files: u64,
    pub bytes: u64,
}
