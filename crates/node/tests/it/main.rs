//! The node with real processes and folders.

#![expect(clippy::unwrap_used, reason = "a test's helpers end the test")]

mod adopt;
mod app;
mod conformance;
mod ledger;
mod logs;
mod process;
mod site;
mod world;
