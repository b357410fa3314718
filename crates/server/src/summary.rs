//! What passes come to, until it is told. What nodes do by themselves between two passes belongs to the next.

use std::time::{Duration, Instant};

use decide::monitor::Tally;

/// Told at most this often: what happens in between is told together, so that a storm of restarts is not also one of
/// events.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Untold {
    /// Of the pass under way, with what has happened since the one before.
    pass: Tally,
    /// Of passes that are over.
    passes: Tally,
    told_at: Option<Instant>,
}

impl Untold {
    /// Whether this is the first news since the last pass, so that it is worth another.
    pub fn add(&mut self, tally: Tally) -> bool {
        let had_news = self.pass.has_news();
        self.pass += tally;
        self.pass.has_news() && !had_news
    }

    /// The pass is over: this is what it came to.
    pub fn end_pass(&mut self) -> Tally {
        let pass = std::mem::take(&mut self.pass);
        self.passes += pass;
        pass
    }

    /// What is to be told now, if anything happened.
    pub fn take(&mut self, now: Instant) -> Option<Tally> {
        if !self.passes.has_news() {
            // Only looked: forgotten, so that the next one's breadth is its own.
            self.passes = Tally::default();
            return None;
        }
        if self.wait(now).is_some_and(|wait| !wait.is_zero()) {
            return None;
        }
        self.told_at = Some(now);
        Some(std::mem::take(&mut self.passes))
    }

    /// How long until something is to be told; `None`: nothing is.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        let due = || match self.told_at {
            Some(told_at) => PAUSE.saturating_sub(now.duration_since(told_at)),
            None => Duration::ZERO,
        };
        self.passes.has_news().then(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_told_at_rest_and_a_storm_is_told_once_a_second() {
        let mut untold = Untold::default();
        let now = Instant::now();
        let looked = Tally { checked: 9, ..Tally::default() };
        assert!(!untold.add(looked));
        untold.end_pass();
        assert_eq!((untold.take(now), untold.wait(now)), (None, None));
        let one = Tally { checked: 1, skipped: 8, restarted: 1, ..Tally::default() };
        assert!(untold.add(one), "it is worth a pass");
        assert!(!untold.add(one), "which is coming already");
        assert_eq!(untold.end_pass().restarted, 2);
        assert_eq!(untold.take(now).map(|tally| (tally.checked, tally.restarted)), Some((1, 2)));
        for _ in 0..5 {
            untold.add(one);
            untold.end_pass();
            assert_eq!(untold.take(now + PAUSE / 2), None);
        }
        assert_eq!(untold.wait(now + PAUSE / 2), Some(PAUSE / 2));
        assert_eq!(untold.take(now + PAUSE).map(|tally| tally.restarted), Some(5));
    }
}
