//! How often somebody may: so many at once, and so many a second from then on. Time comes as an argument.

use std::collections::BTreeMap;

use model::{Millis, Timestamp};

/// Nobody is remembered beyond so many; the one that has been quiet longest is forgotten first.
const MOST: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At once.
    pub burst: u32,
    /// Between two, once the burst is spent.
    pub every: Millis,
}

/// One rate for each of many. For each is kept when the burst is whole again, which is all that there is to know.
#[derive(Debug)]
pub struct Throttle<K> {
    rate: Rate,
    whole_at: BTreeMap<K, Timestamp>,
}

impl<K: Ord + Clone> Throttle<K> {
    pub fn new(rate: Rate) -> Self {
        Self { rate, whole_at: BTreeMap::new() }
    }

    /// Counts one; or says how long to wait, and counts nothing.
    pub fn take(&mut self, key: &K, now: Timestamp) -> Result<(), Millis> {
        let begins = self.whole_at.get(key).copied().unwrap_or(now).max(now);
        let whole_at = begins + self.rate.every;
        let limit = now + Millis(self.rate.every.0 * u64::from(self.rate.burst));
        if whole_at > limit {
            return Err(whole_at.since(limit));
        }
        self.whole_at.insert(key.clone(), whole_at);
        self.forget(now);
        Ok(())
    }

    fn forget(&mut self, now: Timestamp) {
        if self.whole_at.len() <= MOST {
            return;
        }
        self.whole_at.retain(|_, whole_at| *whole_at > now);
        if self.whole_at.len() > MOST {
            let quietest = self.whole_at.iter().min_by_key(|(_, at)| **at).map(|(key, _)| key.clone());
            quietest.map(|key| self.whole_at.remove(&key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 3, every: Millis(1000) };

    #[test]
    fn a_burst_then_one_a_time_and_the_wait_is_told() {
        let mut throttle = Throttle::new(RATE);
        let at = |ms: u64| Timestamp(1_000_000 + ms);
        for _ in 0..3 {
            assert_eq!(throttle.take(&"a", at(0)), Ok(()));
        }
        assert_eq!(throttle.take(&"a", at(0)), Err(Millis(1000)));
        assert_eq!(throttle.take(&"a", at(400)), Err(Millis(600)), "asking costs nothing");
        assert_eq!(throttle.take(&"b", at(400)), Ok(()), "another is not held to it");
        assert_eq!(throttle.take(&"a", at(1000)), Ok(()));
        assert_eq!(throttle.take(&"a", at(1000)), Err(Millis(1000)));
        for _ in 0..3 {
            assert_eq!(throttle.take(&"a", at(60_000)), Ok(()), "the burst is whole again");
        }
    }

    #[test]
    fn it_remembers_no_more_than_its_bound() {
        let mut throttle = Throttle::new(RATE);
        for key in 0..MOST * 2 {
            throttle.take(&key, Timestamp(5)).unwrap();
        }
        assert!(throttle.whole_at.len() <= MOST);
    }
}
