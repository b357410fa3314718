//! Waiting for a state, with a bound and a sentence that says what did not come.

use std::time::{Duration, Instant};

/// Between two looks. The only pause in tests: each look decides anew.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until there is something to return. Ends the test when the bound has passed.
#[track_caller]
pub fn until<T>(sentence: &str, bound: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    match within(bound, &mut look) {
        Some(found) => found,
        None => panic!("not within {bound:?}: {sentence}"),
    }
}

/// Looks until there is something to return, or the bound has passed.
pub fn within<T>(bound: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if began.elapsed() > bound {
            return None;
        }
        std::thread::sleep(PAUSE);
    }
}
