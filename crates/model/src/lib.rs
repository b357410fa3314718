//! The nouns of Setpoint: what is declared, what is decided, what is seen, and the messages between
//! the parts.
//!
//! Owns: names and ids, units, the manifest, and every value that is stored or sent.
//! Refuses to know: clocks, files, networks, and what *should* happen; that is `decide`.

pub mod access;
pub mod artifact;
pub mod assignment;
pub mod collect;
pub mod container;
pub mod deployment;
pub mod digest;
pub mod drift;
pub mod event;
pub mod id;
pub mod image;
pub mod instance;
pub mod knowledge;
pub mod manifest;
pub mod node;
pub mod observation;
pub mod plan;
pub mod reason;
pub mod release;
pub mod route;
pub mod service;
pub mod session;
pub mod source;
pub mod spec;
pub mod status;
mod text;
pub mod time;
pub mod units;

pub use digest::Digest;
pub use id::{
    ArtifactDigest, BootId, ClusterId, DeploymentId, EdgeId, Generation, Holder, Incarnation, InstanceId,
    IntentSeq, NodeId, PlanSeq, ProjectName, ReleaseDigest, RouteRevision, ServiceKey, ServiceName, Slot,
    Term, TokenName,
};
pub use knowledge::Knowledge;
pub use time::{Millis, Timestamp};
pub use units::Bytes;
