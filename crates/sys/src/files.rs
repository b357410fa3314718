//! How many files this process may have open: as many as it is let, and its children as many as it was given itself.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

static GIVEN: OnceLock<Rlimit> = OnceLock::new();

/// Raises the soft limit to the hard one. Gives how many files may be open now.
pub fn raise() -> u64 {
    let given = *GIVEN.get_or_init(|| getrlimit(Resource::Nofile));
    let raised = Rlimit { current: given.maximum, maximum: given.maximum };
    // Where it is refused, what was given must do.
    let now = if setrlimit(Resource::Nofile, raised).is_ok() { given.maximum } else { given.current };
    now.unwrap_or(u64::MAX)
}

/// The soft and the hard limit before [`raise`], for children: programs that wait by `select` break on descriptors
/// beyond 1023, and expect to be given no more.
pub fn given() -> Option<(u64, u64)> {
    GIVEN.get().map(|given| (given.current.unwrap_or(u64::MAX), given.maximum.unwrap_or(u64::MAX)))
}
