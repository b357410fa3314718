//! Output of workloads: one file per instance, appended to by the workload itself.
//!
//! Owns: reading the end of it, following it, cutting it when it is long, keeping the end of what is gone.
//! Refuses to know: what is in it. It is stored raw; whoever prints it escapes it.

mod keep;
mod read;
mod rotate;

pub use keep::{Kept, LINES, Went};
pub use read::{Error, Follow, MAX_TAIL, last_lines, tail, within};
pub use rotate::{Cut, all, cut, is_long};
