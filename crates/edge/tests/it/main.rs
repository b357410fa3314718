//! The edge against real sockets: raw bytes in, tiny upstreams behind.

mod drain;
mod files;
mod proxy;
mod strict;
mod support;
