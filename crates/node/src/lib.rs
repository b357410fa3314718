//! The agent: holds a node at its assignment.
//!
//! Owns: the ledger of what was accepted, the runtimes for processes and sites, probes, logs, sessions, and the observation.
//! Refuses to know: services, deployments and databases; what should happen is decided by `decide::node::step`, and
//! what runs is named by an assignment.

mod agent;
mod clock;
mod config;
mod container;
mod content_source;
mod failpoints;
mod handle;
mod instance;
mod ledger;
mod life;
mod logs;
mod probe;
mod process;
mod publish;
mod session;
mod site;
mod timers;
mod watching;

pub use agent::{EndpointSink, Workloads};
pub use clock::{BootClock, Clock};
pub use config::{Config, LogLimits};
pub use container::registry::Unresolved;
pub use content_source::{ContentSource, Unavailable};
pub use handle::{Node, StartError};
pub use ledger::{Acceptor, AssignError, Error as LedgerError};
pub use logs::Error as LogError;
pub use session::Error as SessionError;
