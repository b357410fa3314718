//! The server: holds the snapshot, plans, commits, publishes; takes intents; answers what is asked.
//!
//! Owns: the reconcile loop, intake, the HTTP interface. Refuses to know: runtimes and proxies; it hands out
//! assignments and a route table and takes observations and edge reports.

pub mod api;
pub mod backup;
mod brain;
mod collect;
mod control;
mod counting;
mod failpoints;
pub mod frames;
mod images;
mod intake;
mod intents;
mod issues;
mod janitor;
mod offline;
mod operators;
mod reconcile;
mod summary;
pub mod views;

use std::sync::Arc;

use model::Timestamp;

pub use brain::Brain;
pub use collect::{Collect, CollectError};
pub use control::{Config, Control, Feeds, Round, StartError};
pub use counting::Histogram;
pub use images::{ImageError, Resolve};
pub use intake::UploadError;
pub use intents::{Answer, Applied, AppliedService, Declared, Planned, Request, RequestError, Terms};
pub use issues::Issue;
pub use offline::plan_offline;
pub use operators::OperatorError;
pub use reconcile::{Input, PassStats, PassSummary};

/// Setpoint's own clock: see [`Timestamp`].
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;
