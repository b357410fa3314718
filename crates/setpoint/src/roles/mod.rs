//! The roles, wired together: `up` is server, node and edge in one process; `server` is server and node; `edge` is
//! the proxy apart. Each part knows only values; here they are carried from one to the other.

mod clock;
mod content;
mod data;
mod logs;
mod wire;

pub mod up;

pub use data::DataDir;
