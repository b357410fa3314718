//! What an edge as its own process needs beside the network: its last table on the disk, so that traffic flows
//! from the first moment after a start, and a socket for endpoint events of the node on the same machine.
//!
//! Refuses to know: where tables come from.

mod events;
mod table;

pub use events::{EventSender, Events, EventsError};
pub use table::{Durable, LoadError, SaveError, TableFile};
