//! The verbs of Setpoint, without effects: given what is declared, decided and seen, what shall happen, and why.
//!
//! Owns: every rule. The server, the node, the edge and the simulator call these functions; none has a copy.
//! Refuses to know: files, networks, clocks, randomness. Time and ids come in as arguments, and the same input
//! always gives the same output.

pub mod access;
pub mod collect;
pub mod compose;
pub mod conflict;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod health;
pub mod intent;
pub mod ledger;
pub mod lint;
pub mod monitor;
pub mod node;
pub mod outage;
pub mod plan;
pub mod planted;
pub mod policy;
pub mod recovery;
pub mod retry;
pub mod status;
pub mod throttle;
pub mod view;
pub mod world;
