//! When a container's engine was away, and which ends of runs that explains.
//!
//! Owns: whose doing an end is. Refuses to know: how it is found out that an engine is away.

use model::{Millis, Timestamp, observation::Exit};

/// An engine that is stopped in order ends its containers first, each within its grace, and answers until it is done.
pub const ENDS_BEFORE: Millis = Millis::secs(30);

/// The last time that an engine did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    pub since: Timestamp,
    /// Since when it answers again; `None`: it is away still.
    pub until: Option<Timestamp>,
}

impl Outage {
    /// Whether an end of which the engine told nobody before it went is laid to it: its last words are lost with it.
    pub fn explains_untold(&self, ended: Timestamp) -> bool {
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
}

#[cfg(test)]
mod tests {
    use model::observation::ExitStatus;

    use super::*;

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
