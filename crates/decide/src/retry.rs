//! When what died is started again: at once the first time, later with a doubling pause, and not more often than
//! the window allows. The count is an input, so no restart of Setpoint and no new leader resets it (I15).

use std::ops::Range;

use model::{Millis, Timestamp, instance::Attempts, spec::RestartPolicy};

/// A run that ends sooner than this after its start is a fast crash.
pub const FAST_CRASH: Millis = Millis::secs(1);

/// More restarts than this within `ALERT_WINDOW` are an alert.
pub const ALERT_RESTARTS: usize = 3;
pub const ALERT_WINDOW: Millis = Millis::mins(10);

/// Restarts within the window of the policy that spend no attempt, whoever is said to have ended the runs before.
pub const MOST_FREE: usize = 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Start now, and count it: this is the new count.
    Now(Attempts),
    /// Not before this time.
    At(Timestamp),
    /// All attempts of the window are spent; the next is possible when the oldest leaves it, or never.
    Spent { until: Option<Timestamp> },
}

/// Decides about an instance that ended at `ended` after a run that began at `started` (`None`: it never ran).
pub fn after_end(
    policy: &RestartPolicy,
    attempts: &Attempts,
    started: Option<Timestamp>,
    ended: Timestamp,
    now: Timestamp,
) -> Verdict {
    let window_began = now - policy.window;
    let recent: Vec<Timestamp> = attempts.at.iter().copied().filter(|at| *at > window_began).collect();
    if recent.len() >= policy.attempts as usize {
        return Verdict::Spent { until: recent.first().map(|oldest| *oldest + policy.window) };
    }
    let fast = started.is_none_or(|started| ended.since(started) < FAST_CRASH);
    let fast_crashes = if fast { attempts.fast_crashes.saturating_add(1) } else { 0 };
    let due = ended + pause(policy, fast_crashes);
    if now < due {
        return Verdict::At(due);
    }
    let mut at = remembered(policy, attempts, now);
    at.push(now);
    Verdict::Now(Attempts { at, fast_crashes, total: attempts.total + 1, free: attempts.free.clone() })
}

/// A restart after an end that was no doing of the workload's: told as one, and no attempt. `None`: there were so many within the
/// window that it may be its doing after all.
#[must_use]
pub fn free(policy: &RestartPolicy, attempts: &Attempts, now: Timestamp) -> Option<Attempts> {
    let free = one_more_free(policy, attempts, now)?;
    Some(Attempts { total: attempts.total + 1, free, ..attempts.clone() })
}

fn one_more_free(policy: &RestartPolicy, attempts: &Attempts, now: Timestamp) -> Option<Vec<Timestamp>> {
    let mut free: Vec<_> = attempts.free.iter().copied().filter(|at| *at + policy.window > now).collect();
    free.push(now);
    (free.len() <= MOST_FREE).then_some(free)
}

/// The restart that was counted for an end, between it and the next one, turns out to be free: the end was no doing of the
/// workload's. `None`: none was counted for it.
pub fn give_back(
    policy: &RestartPolicy,
    attempts: &Attempts,
    restarted: Range<Timestamp>,
    now: Timestamp,
) -> Option<Attempts> {
    let counted = attempts.at.iter().position(|at| restarted.contains(at))?;
    // Of one that was free already, the next is about something else: what was ended for being unhealthy leaves no end.
    let is_free = |free: &Timestamp| restarted.contains(free) && *free <= attempts.at[counted];
    if attempts.free.iter().any(is_free) {
        return None;
    }
    let free = one_more_free(policy, attempts, now)?;
    let mut at = attempts.at.clone();
    at.remove(counted);
    Some(Attempts { at, free, ..attempts.clone() })
}

/// The restarts that either the policy or the alert still asks about, without the one to come. A window shorter than
/// the alert's must not hide what dies all the time.
fn remembered(policy: &RestartPolicy, attempts: &Attempts, now: Timestamp) -> Vec<Timestamp> {
    let window = policy.window.max(ALERT_WINDOW);
    let most = (policy.attempts as usize).max(ALERT_RESTARTS + 1) - 1;
    let at: Vec<Timestamp> = attempts.at.iter().copied().filter(|at| *at > now - window).collect();
    at[at.len().saturating_sub(most)..].to_vec()
}

/// Until when no attempt is left, if there were any and none is left.
pub fn spent(policy: &RestartPolicy, attempts: &Attempts, now: Timestamp) -> Option<Timestamp> {
    let recent: Vec<_> = attempts.at.iter().filter(|at| **at + policy.window > now).collect();
    let oldest = recent.first()?;
    (recent.len() >= policy.attempts as usize).then(|| **oldest + policy.window)
}

/// None after a long run and after the first fast crash; from the second on `backoff`, doubling.
fn pause(policy: &RestartPolicy, fast_crashes: u32) -> Millis {
    match fast_crashes {
        0 | 1 => Millis::ZERO,
        n => {
            let doublings = (n - 2).min(32);
            Millis(policy.backoff.0.saturating_mul(1 << doublings).min(policy.max_backoff.0))
        }
    }
}

/// Restarts within the alert window.
pub fn recent_restarts(attempts: &Attempts, now: Timestamp) -> usize {
    attempts.at.iter().filter(|at| now.since(**at) < ALERT_WINDOW).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn crash_loop(policy: &RestartPolicy, run: Millis, rounds: usize) -> (Vec<Millis>, Option<Verdict>) {
        let (mut now, mut attempts, mut pauses) = (Timestamp(1_000_000), Attempts::default(), Vec::new());
        for _ in 0..rounds {
            let (started, ended) = (now, now + run);
            now = ended;
            let mut verdict = after_end(policy, &attempts, Some(started), ended, now);
            if let Verdict::At(at) = verdict {
                pauses.push(at.since(ended));
                now = at;
                verdict = after_end(policy, &attempts, Some(started), ended, now);
            } else {
                pauses.push(Millis::ZERO);
            }
            match verdict {
                Verdict::Now(next) => attempts = next,
                spent => return (pauses, Some(spent)),
            }
        }
        (pauses, None)
    }

    #[test]
    fn the_first_restart_is_immediate_and_the_pause_doubles_from_the_second() {
        let (pauses, spent) = crash_loop(&RestartPolicy::default(), Millis(10), 6);
        assert_eq!(pauses[..5], [Millis(0), Millis(1000), Millis(2000), Millis(4000), Millis(8000)]);
        assert!(matches!(spent, Some(Verdict::Spent { until: Some(_) })));
    }

    #[test]
    fn a_long_run_is_restarted_at_once_however_often() {
        let policy = RestartPolicy { attempts: 100, ..RestartPolicy::default() };
        let (pauses, _) = crash_loop(&policy, Millis::secs(2), 50);
        assert!(pauses.iter().all(|pause| *pause == Millis::ZERO));
    }

    #[test]
    fn a_free_restart_is_told_and_spends_nothing_whoever_remembers_it() {
        let policy = RestartPolicy { attempts: 1, ..RestartPolicy::default() };
        let now = Timestamp(1_000_000);
        let none = Attempts::default();
        let Verdict::Now(counted) = after_end(&policy, &none, None, now, now) else { panic!() };
        assert!(spent(&policy, &counted, now).is_some());
        let soon = now + Millis(1);
        let given_back = give_back(&policy, &counted, now..soon, now).unwrap();
        assert_eq!((given_back.total, spent(&policy, &given_back, now)), (1, None));
        assert_eq!(give_back(&policy, &counted, soon..soon + Millis(9), now), None, "it was for another end");
        assert_eq!(give_back(&policy, &given_back, now..soon, now), None, "once");
        let unhealthy = Attempts { at: vec![soon], free: vec![now], ..Attempts::default() };
        assert_eq!(give_back(&policy, &unhealthy, now..soon + Millis(1), soon), None, "it was free already");
        let one_more = |attempts: &Attempts, now| free(&policy, attempts, now);
        let one = one_more(&none, now).unwrap();
        assert_eq!((one.total, recent_restarts(&one, now)), (1, 0));
        let most = (0..MOST_FREE).fold(none, |attempts, _| one_more(&attempts, now).unwrap());
        assert_eq!(one_more(&most, now), None, "it may be its doing after all");
        assert!(one_more(&most, now + policy.window).is_some_and(|attempts| attempts.free.len() == 1));
        // A server or a ledger that has not heard of it is no stricter.
        assert_eq!(counted.floor(&given_back), given_back);
        assert_eq!(given_back.floor(&counted), given_back);
    }

    #[test]
    fn the_pause_has_a_ceiling() {
        let policy = RestartPolicy { attempts: 1000, window: Millis(1), ..RestartPolicy::default() };
        let (pauses, _) = crash_loop(&policy, Millis(10), 100);
        assert_eq!(pauses.iter().max(), Some(&policy.max_backoff));
    }

    #[test]
    fn spent_attempts_come_back_when_the_oldest_leaves_the_window() {
        let policy = RestartPolicy::default();
        let at: Vec<_> = (0..5).map(|n| Timestamp(1_000_000 + n)).collect();
        let attempts = Attempts { at, fast_crashes: 0, total: 5, free: vec![] };
        let decide =
            |now| after_end(&policy, &attempts, Some(Timestamp(0)), Timestamp(1_100_000), Timestamp(now));
        assert_eq!(decide(1_100_000), Verdict::Spent { until: Some(Timestamp(1_600_000)) });
        assert!(matches!(decide(1_600_000), Verdict::Now(next) if next.total == 6 && next.at.len() == 5));
    }

    #[test]
    fn a_short_window_does_not_hide_restarts_from_the_alert() {
        let policy = RestartPolicy { window: Millis::secs(30), attempts: 2, ..RestartPolicy::default() };
        let (mut now, mut attempts) = (Timestamp(10_000_000), Attempts::default());
        for _ in 0..8 {
            let started = now;
            now = now + Millis::mins(1);
            match after_end(&policy, &attempts, Some(started), now, now) {
                Verdict::Now(next) => attempts = next,
                other => panic!("{other:?}"),
            }
        }
        assert!(recent_restarts(&attempts, now) > ALERT_RESTARTS, "{attempts:?}");
        assert!(attempts.at.len() <= 4, "as many as the alert needs, and no more: {attempts:?}");
    }

    proptest! {
        #[test]
        fn attempts_in_a_window_are_bounded(
            runs in proptest::collection::vec(0u64..5_000, 1..60),
            allowed in 0u32..8,
        ) {
            let policy = RestartPolicy { attempts: allowed, ..RestartPolicy::default() };
            let (mut now, mut attempts) = (Timestamp(10_000_000), Attempts::default());
            let mut restarts = Vec::new();
            for run in runs {
                let (started, ended) = (now, now + Millis(run));
                now = ended;
                loop {
                    match after_end(&policy, &attempts, Some(started), ended, now) {
                        Verdict::Now(next) => { attempts = next; restarts.push(now); break; }
                        Verdict::At(at) | Verdict::Spent { until: Some(at) } => { prop_assert!(at > now); now = at; }
                        Verdict::Spent { until: None } => { prop_assert_eq!(allowed, 0); return Ok(()); }
                    }
                }
                let in_window = restarts.iter().filter(|at| now.since(**at) < policy.window).count();
                prop_assert!(in_window <= allowed as usize);
            }
        }
    }
}
