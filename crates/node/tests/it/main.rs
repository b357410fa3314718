//! The node with real processes and folders.

mod adopt;
mod app;
mod ledger;
mod logs;
mod process;
mod site;
mod world;
