//! When a container's engine was away, and which ends of runs that explains.
//!
//! Owns: whose doing an end is. Refuses to know: how it is found out that an engine is away.

use model::{Millis, Timestamp, instance::Attempts, observation::Exit, spec::RestartPolicy};

use crate::retry;

/// An engine that is stopped in order ends its containers first, each within its grace, and answers until it is done.
pub const ENDS_BEFORE: Millis = Millis::secs(30);

/// Why a run ended with its engine, as far as anybody can tell.
pub const OWN_END: &str = "engine: its own end";

/// The last time that an engine did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    pub since: Timestamp,
    /// Since when it answers again; `None`: it is away still.
    pub until: Option<Timestamp>,
}

/// Whether a run's end is laid to its engine's own. What was laid to it once is so for good, whoever has seen the outage.
pub fn is_with_engine(outage: Option<Outage>, began: Option<Timestamp>, exit: &Exit) -> bool {
    exit.why.as_deref() == Some(OWN_END) || outage.is_some_and(|outage| outage.explains(began, exit))
}

/// An end that nobody watched, found by a node that has begun since. What ran before its engine began, and was over soon after,
/// has ended with the engine before; one that was killed leaves it alive, and the next ends it first of all. All by the
/// engine's own clock.
#[must_use]
pub fn lay_unwatched(
    exit: Exit,
    began: Option<Timestamp>,
    ended: Timestamp,
    engine_began: Timestamp,
) -> Exit {
    let ran_before = began.is_none_or(|began| began < engine_began);
    let is_own = exit.why.is_none() && ran_before && ended <= engine_began + ENDS_BEFORE;
    Exit { why: if is_own { Some(OWN_END.into()) } else { exit.why }, ..exit }
}

/// The ends before the last one that may turn out to be the engine's with it, oldest first; `now` comes another.
pub fn keep_end(before: &mut Vec<Exit>, last: Option<Exit>, now: Timestamp) {
    before.extend(last);
    before.retain(|exit| exit.at + ENDS_BEFORE >= now);
    before.drain(..before.len().saturating_sub(retry::MOST_FREE));
}

impl Outage {
    /// All that is known of one by when the engine began.
    pub fn until(engine_began: Timestamp) -> Self {
        Self { since: engine_began, until: Some(engine_began) }
    }

    /// An end that nobody watched, found later, with its reason: the engine's own end, if nobody told of another.
    #[must_use]
    pub fn lay(&self, exit: Exit) -> Exit {
        let is_own = exit.why.is_none() && self.explains_untold(exit.at);
        Exit { why: if is_own { Some(OWN_END.into()) } else { exit.why }, ..exit }
    }

    /// Whether an end of which the engine told nobody before it went is laid to it: its last words are lost with it.
    fn explains_untold(&self, ended: Timestamp) -> bool {
        ended + ENDS_BEFORE >= self.since && self.until.is_none_or(|until| ended <= until)
    }

    /// Whether a run's end is laid to the engine's own: the engine was asked for it shortly before it went, as by its own
    /// stop, or it fell into its absence. One that ended for another reason meanwhile is laid to it too: nobody can tell, and
    /// without its engine nothing dies twice.
    pub fn explains(&self, began: Option<Timestamp>, exit: &Exit) -> bool {
        let before = if exit.is_by_engine() { ENDS_BEFORE } else { Millis::ZERO };
        // A run that began after it is not of it, whatever the engine's clock says of its end.
        let is_over = |at: Timestamp| self.until.is_some_and(|until| at > until);
        exit.at + before >= self.since && !is_over(exit.at) && !began.is_some_and(is_over)
    }

    /// An engine that ends ends its containers first: what was counted for that meanwhile was no doing of theirs. To be asked
    /// as soon as it is known to be away, with the newest ends, oldest first. `None`: nothing was counted for them, or they were
    /// another's doing.
    pub fn gives_back<'a>(
        &self,
        policy: &RestartPolicy,
        attempts: &Attempts,
        ends: impl IntoIterator<Item = &'a Exit>,
        now: Timestamp,
    ) -> Option<Attempts> {
        let mut given_back = None;
        let mut ends = ends.into_iter().peekable();
        while let Some(exit) = ends.next() {
            let so_far = given_back.as_ref().unwrap_or(attempts);
            let restarted = exit.at..ends.peek().map_or(now + Millis(1), |next| next.at);
            // What runs by now began after that.
            let fewer = || retry::give_back(policy, so_far, restarted, now);
            given_back = self.explains(None, exit).then(fewer).flatten().or(given_back);
        }
        given_back
    }
}

#[cfg(test)]
mod tests {
    use model::observation::ExitStatus;

    use super::*;

    #[test]
    fn what_was_counted_before_it_was_known_to_be_away_is_given_back_once() {
        let (policy, ended, restarted, gone) =
            (RestartPolicy::default(), Timestamp(1_000_000), Timestamp(1_000_100), Timestamp(1_002_000));
        let counted = Attempts { at: vec![restarted], total: 1, ..Attempts::default() };
        let away = Outage { since: gone, until: None };
        let exit =
            |why: Option<&str>| Exit { at: ended, status: ExitStatus::Code(0), why: why.map(Into::into) };
        let gives_back = |attempts: &Attempts, ends: &[Exit]| {
            away.gives_back(&policy, attempts, ends, gone).map(|attempts| (attempts.at, attempts.free))
        };
        let asked = exit(Some("engine: stop"));
        assert_eq!(gives_back(&counted, std::slice::from_ref(&asked)), Some((vec![], vec![gone])));
        assert_eq!(gives_back(&counted, &[exit(None)]), None, "its own doing, as far as anybody told");
        assert_eq!(gives_back(&counted, &[]), None);
        assert_eq!(gives_back(&Attempts::default(), std::slice::from_ref(&asked)), None, "none was counted");
        // Found later, and nobody told why: it went with its engine.
        assert_eq!(away.lay(exit(None)).why.as_deref(), Some(OWN_END));
        assert_eq!(away.lay(asked.clone()), asked);
        let long_before = Exit { at: gone - ENDS_BEFORE - Millis(1), ..exit(None) };
        assert_eq!(away.lay(long_before.clone()), long_before);
    }

    #[test]
    fn all_that_an_engine_ended_before_it_went_is_given_back_and_nothing_else() {
        let policy = RestartPolicy::default();
        let at = |millis: u64| Timestamp(1_000_000 + millis);
        let away = Outage { since: at(50_000), until: None };
        let exit = |millis: u64, why: Option<&str>| Exit {
            at: at(millis),
            status: ExitStatus::Code(0),
            why: why.map(Into::into),
        };
        let stop = Some("engine: stop");
        let ends = [
            exit(10_000, stop),
            exit(40_000, stop),
            exit(45_000, None),
            exit(47_000, stop),
            exit(49_000, stop),
        ];
        let (mut before, mut last) = (Vec::new(), None::<Exit>);
        for exit in ends {
            keep_end(&mut before, last.take(), exit.at);
            last = Some(exit);
        }
        // Each was started again, the fourth for nothing.
        let counted = [10_100, 40_100, 45_100, 49_100].map(at).to_vec();
        let attempts = Attempts { at: counted, total: 5, free: vec![at(47_100)], ..Attempts::default() };
        let left = away.gives_back(&policy, &attempts, before.iter().chain(&last), at(50_000)).unwrap();
        assert_eq!(left.at, [10_100, 45_100].map(at), "one was long before, and one was its own doing");
        assert_eq!((left.total, left.free.len()), (5, 3));
        assert_eq!(away.gives_back(&policy, &left, before.iter().chain(&last), at(50_000)), None, "once");
    }

    #[test]
    fn what_ran_before_its_engine_began_has_ended_with_the_one_before() {
        let at = |seconds: u64| Timestamp(1_000_000 + seconds * 1000);
        let exit =
            |why: Option<&str>| Exit { at: at(100), status: ExitStatus::Code(0), why: why.map(Into::into) };
        let why = |exit: Exit, engine_began| lay_unwatched(exit, Some(at(50)), at(100), engine_began).why;
        for (engine_began, is_laid) in
            [(49, false), (50, false), (69, false), (70, true), (100, true), (500, true)]
        {
            assert_eq!(why(exit(None), at(engine_began)).is_some(), is_laid, "{engine_began}");
        }
        assert_eq!(why(exit(Some("out of memory")), at(110)).as_deref(), Some("out of memory"));
        let laid = exit(Some(OWN_END));
        assert!(is_with_engine(None, Some(at(50)), &laid), "whoever remembers the outage");
        // What was seen to end, and was not started again before.
        let asked = exit(Some("engine: stop"));
        assert!(!is_with_engine(None, Some(at(50)), &asked));
        assert!(is_with_engine(Some(Outage::until(at(120))), Some(at(50)), &asked));
        assert!(!is_with_engine(Some(Outage::until(at(120))), Some(at(50)), &exit(None)), "by itself");
        assert!(!is_with_engine(Some(Outage::until(at(131))), Some(at(50)), &asked), "long before");
    }

    #[test]
    fn an_end_is_the_engines_doing_when_it_falls_together_with_its_own() {
        let at = |seconds: u64| Timestamp(1_000_000 + seconds * 1000);
        let away = Outage { since: at(100), until: None };
        let over = Outage { until: Some(at(200)), ..away };
        let exit = |seconds: u64, why: Option<&str>| Exit {
            at: at(seconds),
            status: ExitStatus::Code(0),
            why: why.map(Into::into),
        };
        let stop = Some("engine: stop");
        for (ended, why, meanwhile, afterwards) in [
            (69, stop, false, false),
            (70, stop, true, true),
            (99, None, false, false),
            (99, Some("out of memory"), false, false),
            (100, None, true, true),
            (200, None, true, true),
            (201, stop, true, false),
        ] {
            let exit = exit(ended, why);
            assert_eq!(away.explains(None, &exit), meanwhile, "{exit:?}");
            assert_eq!(over.explains(Some(at(60)), &exit), afterwards, "{exit:?}");
            assert!(!over.explains(Some(at(201)), &exit), "of a later run");
        }
    }
}
