//! The roles, wired together: `up` is server, node and edge in one process; `server` is server and node; `edge` is
//! the proxy apart. Each part knows only values; here they are carried from one to the other.

mod clock;
mod collect;
mod content;
mod data;
mod edge;
mod images;
mod local;
mod metrics;
mod run;
mod sessions;
mod settings;
mod wire;

pub use run::{edge, server, up};
pub use settings::print as print_settings;

/// Whatever ends a role: told to a person, once.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
