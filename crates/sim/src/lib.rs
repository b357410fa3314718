//! A world in a box: a store, a server, a node with its processes and folders, an edge with its requests, and a
//! network between them that loses, repeats and reorders. All decisions are made by the real deciders.
//!
//! Owns: faults, virtual time, and the truth that the invariants are read from.
//! Refuses to know: the real store, sockets, files and clocks; and what the planner says about itself.
//!
//! Everything follows from a seed: the story (what users do, what breaks, and when) is written down first, then
//! played. The same seed gives the same trace, byte for byte.

mod edge;
mod ends;
mod engine;
mod machine;
mod net;
mod node;
mod play;
mod server;
mod shape;
mod shrink;
mod store;
pub mod story;
mod truth;

pub use play::{Options, Outcome, play};
pub use shrink::shrink;
pub use story::Story;
pub use truth::Violation;

/// Writes the story of a seed down and plays it.
pub fn run(seed: u64, options: &Options) -> Outcome {
    play(&Story::of(seed), options)
}
