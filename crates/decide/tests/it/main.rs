//! The deciders, asked as the server and the node ask them: stories, properties, single answers.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must end, and say where")]

mod bench;
mod intent;
mod lint;
mod monitor;
mod node_step;
mod properties;
mod scripts;
mod view;
