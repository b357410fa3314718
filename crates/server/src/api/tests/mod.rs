//! The interface over real sockets: a real store and reconcile loop, with a node and an edge that say at once that all
//! is done.

mod access;
mod bad_input;
mod bench;
mod exec;
mod explaining;
mod monitoring;
mod pausing;
mod reading;
mod repeating;
mod roles;
mod secrets;
mod streams;
mod uploads;
mod writing;
