//! What an engine says that was done to a container, and when: the why of what is found of it later. Pure.
//!
//! An engine does not tell who asked it. It tells what it was asked for, and the newest of that about a field is what
//! the field's difference comes from, as long as no event was missed.

use std::collections::BTreeMap;

use bollard::models::EventMessageTypeEnum as Type;
pub use model::drift::RUNNING_PATH;
use model::{
    Millis, Timestamp,
    observation::{BY_ENGINE, Exit, ExitStatus},
};

use crate::site::Difference;

/// One thing that an engine did, by its own clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// The engine's word for it.
    pub action: String,
    pub at: Timestamp,
    pub of: Of,
}

/// What it was done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Of {
    Paused,
    Name,
    Network,
    Limits,
    Image,
    /// The first process: asked to end with this signal, or ended otherwise.
    Run {
        signal: Option<i32>,
    },
    /// Something in it was ended by the kernel for want of memory.
    Memory,
}

impl Deed {
    /// As drift names whoever did it.
    pub fn by(&self) -> String {
        format!("{BY_ENGINE}{}", self.action)
    }
}

impl Of {
    pub fn of_event(typ: Type, action: &str, signal: Option<&str>) -> Option<Self> {
        match (typ, action) {
            (Type::CONTAINER, "pause" | "unpause") => Some(Self::Paused),
            (Type::CONTAINER, "rename") => Some(Self::Name),
            (Type::CONTAINER, "update") => Some(Self::Limits),
            (Type::CONTAINER, "oom") => Some(Self::Memory),
            (Type::CONTAINER, "kill") => Some(Self::Run { signal: signal?.parse().ok() }),
            (Type::CONTAINER, "stop" | "restart" | "destroy") => Some(Self::Run { signal: None }),
            (Type::NETWORK, "connect" | "disconnect") => Some(Self::Network),
            (Type::IMAGE, "delete" | "untag") => Some(Self::Image),
            _ => None,
        }
    }

    fn of_path(path: &str) -> Option<Self> {
        match path.strip_prefix("container/") {
            Some("paused") => Some(Self::Paused),
            Some("name") => Some(Self::Name),
            Some("network" | "aliases") => Some(Self::Network),
            Some("running") => None,
            Some(_) => Some(Self::Limits),
            None => (path == "image").then_some(Self::Image),
        }
    }
}

pub fn not_running() -> Difference {
    let text = |text: &str| Some(text.to_owned());
    Difference { path: RUNNING_PATH.into(), declared: text("true"), observed: text("false"), ours: true }
}

/// The newest deeds of each kind that no look has seen the outcome of.
#[derive(Debug, Default)]
pub struct Deeds {
    fields: BTreeMap<Of, Deed>,
    end: End,
}

/// What the engine was asked for about the end of one run.
#[derive(Debug, Default)]
struct End {
    run: u64,
    kill: Option<Deed>,
    /// What the kill was for: a stop, a restart, a removal.
    whole: Option<Deed>,
    /// When something in it was ended for want of memory last.
    memory: Option<Timestamp>,
}

impl Deeds {
    /// An engine may tell of one thing twice, milliseconds apart; it differs since the first.
    pub fn note(&mut self, deed: Deed) {
        let again = self.fields.get(&deed.of).is_some_and(|known| known.action == deed.action);
        if !again {
            self.fields.insert(deed.of, deed);
        }
    }

    /// Of a path that differs.
    pub fn about(&self, path: &str) -> Option<&Deed> {
        self.fields.get(&Of::of_path(path)?)
    }

    /// A look has seen what became of them: they say nothing about what differs later.
    pub fn seen(&mut self) {
        self.fields.clear();
    }

    /// Events were missed: the newest that is known may not be the newest.
    pub fn doubt(&mut self) {
        *self = Self::default();
    }

    /// Somebody had the engine do something to a run's first process. `stop`: the signal that asks it to end.
    pub fn note_end(&mut self, run: u64, deed: Deed, stop: i32) {
        if self.end.run != run {
            self.end = End { run, ..End::default() };
        }
        let signal = match deed.of {
            Of::Run { signal } => signal,
            Of::Memory => return self.end.memory = Some(deed.at),
            Of::Paused | Of::Name | Of::Network | Of::Limits | Of::Image => return,
        };
        match signal {
            // Any other signal asks for something else: a configuration read again.
            Some(signal) if [KILL, TERM, stop].contains(&signal) => self.end.kill = Some(deed),
            Some(_) => {}
            // Each of these begins with a kill. Without one it ended for another reason before.
            None if self.end.kill.is_some() => self.end.whole = Some(deed),
            None => {}
        }
    }

    /// Whether the kernel ended a run for want of memory. What it ended in it before, and the run outlived, was another.
    pub fn ended_for_memory(&self, run: u64, exit: &Exit) -> bool {
        let is_same = |at: Timestamp| at + TOLD_WITH_END >= exit.at;
        exit.status == ExitStatus::Signal(KILL) && self.end.run == run && self.end.memory.is_some_and(is_same)
    }

    /// Why a run has ended, if the engine was asked for it: the kill, when it ended by that signal, or what it was for.
    pub fn why_ended(&self, run: u64, status: ExitStatus) -> Option<&Deed> {
        if self.end.run != run {
            return None;
        }
        let killed = |deed: &&Deed| match deed.of {
            Of::Run { signal: Some(signal) } => status == ExitStatus::Signal(signal),
            _ => false,
        };
        self.end.whole.as_ref().or(self.end.kill.as_ref().filter(killed))
    }
}

const KILL: i32 = 9;
const TERM: i32 = 15;
/// Between two clocks, and two ways by which the kernel tells of one thing.
const TOLD_WITH_END: Millis = Millis::secs(5);

/// Whether a deed was done before a run began, by the engine's word for that. Both are RFC 3339 in UTC; an engine
/// leaves out zeros at the end of a fraction.
pub fn is_before(at: Timestamp, began: &str) -> bool {
    let at = at.to_string();
    let at = at.trim_end_matches('Z');
    let began = began.trim_end_matches('Z');
    let point = if began.contains('.') { "" } else { "." };
    let began = format!("{began}{point}{:0<9}", "");
    // The deed is known to the millisecond: what falls into the same is not before.
    began.get(..at.len()).is_some_and(|began| at < began)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deed(of: Of, action: &str, at: u64) -> Deed {
        Deed { action: action.into(), at: Timestamp(at), of }
    }

    #[test]
    fn what_differs_comes_from_the_newest_deed_about_it_and_from_no_other() {
        let mut deeds = Deeds::default();
        deeds.note(deed(Of::Limits, "update", 1));
        deeds.note(deed(Of::Paused, "unpause", 2));
        deeds.note(deed(Of::Paused, "pause", 3));
        deeds.note(deed(Of::Paused, "pause", 4));
        let told = |deeds: &Deeds, path: &str| deeds.about(path).map(|deed| (deed.by(), deed.at.0));
        assert_eq!(told(&deeds, "container/memory"), Some(("engine: update".into(), 1)));
        assert_eq!(told(&deeds, "container/paused"), Some(("engine: pause".into(), 3)));
        for silent in ["container/name", "container/network", "container/running", "image", "files/a"] {
            assert_eq!(told(&deeds, silent), None, "{silent}");
        }
        deeds.seen();
        assert_eq!(told(&deeds, "container/memory"), None, "what differs later has another reason");
    }

    #[test]
    fn an_end_is_laid_to_the_engine_only_where_it_was_asked_for_it() {
        let signal = |signal| Of::Run { signal: Some(signal) };
        let whole = Of::Run { signal: None };
        let why = |told: &[(Of, &str)], status| {
            let mut deeds = Deeds::default();
            for (at, (of, action)) in (1..).zip(told) {
                deeds.note_end(7, deed(*of, action, at), 3);
            }
            assert_eq!(deeds.why_ended(8, status), None, "another run");
            deeds.why_ended(7, status).map(|deed| deed.action.clone())
        };
        let killed = ExitStatus::Signal(9);
        assert_eq!(why(&[(signal(9), "kill")], killed).as_deref(), Some("kill"));
        assert_eq!(why(&[(signal(1), "kill")], ExitStatus::Code(3)), None, "it was to read its settings");
        assert_eq!(why(&[(signal(15), "kill")], ExitStatus::Code(3)), None, "it may have died by itself");
        for its_own in [15, 3] {
            let stopped = [(signal(its_own), "kill"), (whole, "stop")];
            assert_eq!(why(&stopped, ExitStatus::Code(0)).as_deref(), Some("stop"));
        }
        let removed = [(signal(9), "kill"), (whole, "destroy")];
        assert_eq!(why(&removed, killed).as_deref(), Some("destroy"));
        assert_eq!(why(&[(whole, "destroy")], killed), None, "it had ended before it was removed");
    }

    #[test]
    fn want_of_memory_is_why_only_what_the_kernel_killed_then_has_ended() {
        let at = |seconds: u64| Timestamp(1_000_000 + seconds * 1000);
        let mut deeds = Deeds::default();
        deeds.note_end(7, Deed { at: at(100), ..deed(Of::Memory, "oom", 0) }, 15);
        for (run, ended, status, is_why) in [
            (7, 99, ExitStatus::Signal(9), true),
            (7, 105, ExitStatus::Signal(9), true),
            (7, 106, ExitStatus::Signal(9), false),
            (7, 100, ExitStatus::Signal(15), false),
            (7, 100, ExitStatus::Code(1), false),
            (8, 100, ExitStatus::Signal(9), false),
        ] {
            let exit = Exit { at: at(ended), status, why: None };
            assert_eq!(deeds.ended_for_memory(run, &exit), is_why, "{run} {exit:?}");
        }
    }

    #[test]
    fn a_deed_is_before_a_run_by_the_engines_own_clock() {
        let at = Timestamp(1_795_253_400_250); // 2026-11-21T09:30:00.250Z
        assert_eq!(at.to_string(), "2026-11-21T09:30:00.250Z");
        assert!(is_before(at, "2026-11-21T09:30:00.251Z") && is_before(at, "2026-11-21T09:30:01Z"));
        assert!(is_before(at, "2026-11-21T09:30:00.3Z"));
        assert!(!is_before(at, "2026-11-21T09:30:00.25Z") && !is_before(at, "2026-11-21T09:30:00.250999Z"));
        assert!(!is_before(at, "2026-11-21T09:30:00Z") && !is_before(at, "2026-11-21T09:29:59.999999999Z"));
    }
}
