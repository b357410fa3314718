//! The edge against real sockets: raw bytes in, tiny upstreams behind.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

mod drain;
mod files;
mod proxy;
mod strict;
mod support;
