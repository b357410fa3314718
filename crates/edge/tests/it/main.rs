//! The edge against real sockets: raw bytes in, tiny upstreams behind.

mod drain;
mod proxy;
mod support;
