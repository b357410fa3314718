//! How far a cluster that was brought back from a backup goes ahead of it. Nodes, edges and engines may remember what
//! was given out since the backup was made, and the backup cannot say how much that was.

use model::Timestamp;

/// By how much numbers are raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    /// Terms, generations, revisions of routes.
    pub terms: u64,
    /// Incarnations of each service.
    pub incarnations: u64,
}

/// For clocks that differ a little, and for a backup that is restored at once.
const LEAST_TERMS: u64 = 1_000_000;
const LEAST_INCARNATIONS: u64 = 1_000;

/// Each new term, and each plan, is a durable commit, so there was less than one per millisecond since the backup.
/// That also holds for what was given out after an earlier restore of the same backup: it began lower by the time that
/// has passed since. Incarnations are seen by people; one a second of each service is far more than any has used.
pub fn ahead(made_at: Timestamp, now: Timestamp) -> Ahead {
    let passed = now.since(made_at).0;
    Ahead { terms: LEAST_TERMS + passed, incarnations: LEAST_INCARNATIONS + passed / 1000 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADE: Timestamp = Timestamp(1_000_000_000);

    #[test]
    fn a_second_restore_is_ahead_of_all_that_the_first_gave_out() {
        let passed = |ms: u64| ahead(MADE, Timestamp(MADE.0 + ms)).terms;
        for (first, second) in [(0, 1), (0, 86_400_000), (5_000, 5_001), (86_400_000, 90_000_000)] {
            // One commit a millisecond between the two.
            let given_out = passed(first) + (second - first);
            assert!(passed(second) >= given_out, "{first} {second}");
        }
    }

    #[test]
    fn a_clock_that_was_set_back_still_goes_ahead() {
        assert_eq!(ahead(MADE, Timestamp(1)).terms, LEAST_TERMS);
    }
}
