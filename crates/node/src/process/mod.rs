//! The process runtime: renders, starts, watches and ends programs.
//!
//! Owns: processes with their pidfds, ports, rendered files. Refuses to know when any of it shall happen.

pub mod aside;
pub mod cgroup;
pub mod files;
pub mod live;
pub mod lookup;
pub mod orphans;
pub mod ports;
pub mod render;
pub mod start;
pub mod stop;

pub use live::Live;
