//! The container runtime: a Docker engine, told what one instance needs and asked what became of it.
//!
//! Owns: what an engine is told, how its answers are read, and whose container one is. Refuses to know when a container
//! shall be made, started or ended: that is `decide::node::step`.
//!
//! Three rules hold everywhere here. The engine's own restart policy is `no`: there is one controller. What merely bears
//! our labels is not ours: the ledger names the container. And an engine that does not answer has said nothing: what it
//! knows is unknown, never absent.

pub mod ask;
pub mod collect;
pub mod deeds;
pub mod engine;
pub mod exec;
pub mod failure;
pub mod image;
pub mod late;
pub mod look;
pub mod names;
pub mod networks;
pub mod notes;
pub mod order;
pub mod output;
pub mod probe;
pub mod record;
pub mod registry;
pub mod signals;
pub mod watch;
pub mod work;

pub use engine::Engine;
pub use look::Seen;
pub use record::Record;
