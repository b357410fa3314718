//! The built binary, tried from outside: real processes, real HTTP clients, real damage. One module for each story;
//! every test has a Setpoint, a folder and ports of its own, and fails when anything outlives it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must end, and say where")]

mod amid;
mod archives;
mod backup;
mod changes;
mod chaos;
mod commands;
mod corruption;
mod crash;
mod damage;
mod drift;
mod edge_apart;
mod explain;
mod fixed_port;
mod heal;
mod history;
mod http;
mod operators;
mod output;
mod pages;
#[cfg(feature = "failpoints")]
mod phases;
mod probes;
mod quickstart;
mod refusals;
mod rollout;
mod scarcity;
mod sessions;
mod shapes;
mod signals;
mod site;
mod site_apart;
mod sources;
mod strategies;
mod surroundings;
mod upgrades;

use testkit::{Builder, Setpoint};

/// A Setpoint of the binary under test.
fn setpoint() -> Builder {
    Setpoint::with(env!("CARGO_BIN_EXE_setpoint"))
}
