//! What tests of the real binary stand on: a started Setpoint with its own folder and ports, HTTP clients, constant
//! load, archives good and bad, and a look at what really runs.
//!
//! Refuses to know: Setpoint's crates. It sees what a user sees: commands, HTTP, files and processes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must end, and say where")]
#![expect(clippy::print_stdout, reason = "shown for tests that fail: seeds, and what Setpoint said")]

pub mod command;
pub mod disk;
pub mod docker;
pub mod fixture;
pub mod follow;
pub mod git;
pub mod http;
pub mod load;
pub mod page;
pub mod proc;
pub mod random;
pub mod setpoint;
pub mod strace;
pub mod wait;

pub use command::Output;
pub use follow::Followed;
pub use http::Response;
pub use load::{Load, Report};
pub use setpoint::{Builder, Setpoint};
pub use wait::until;
