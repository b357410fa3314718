//! What the ledger knows of an instance's container. It is what makes a container ours.

use serde::{Deserialize, Serialize};

use super::look::{Limits, Seen};
use crate::ledger::{self, Folder, files};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// As the engine gave it; `None` before a creation was answered.
    pub id: Option<String>,
    /// Of one creation: written down before the engine is asked for it; empty where none is under way or there.
    pub nonce: String,
    /// Its name, which people may change.
    pub name: String,
    /// The engine's word for when its present run began, and which of our runs that is.
    pub started: Option<String>,
    pub run: u64,
    /// As the engine took what it was told: it may round, or leave out what its kernel cannot.
    pub limits: Option<Limits>,
    /// Its address in its project's network, where that is reached from this machine without the engine's help. Then none of
    /// the machine's ports is published for it, and its requests go on when the engine dies.
    pub direct: bool,
    pub address: Option<String>,
    /// The image has a HEALTHCHECK.
    pub image_check: bool,
    /// The image's working directory, below which files are seen.
    pub workdir: Option<String>,
    /// The image's signal for its end, if it names one.
    #[serde(default)]
    pub stop_signal: Option<String>,
}

/// A run that is not the one that was noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundRun {
    /// It is what a start of ours came to.
    Tried(u64),
    /// Somebody else's start.
    New(u64),
}

const FILE: &str = "container.json";

impl Record {
    /// Its container is certainly gone. The next one is another: what bears the old one's marks is a copy of it. One that was
    /// asked for and not answered for may come yet.
    #[must_use]
    pub fn without_container(self) -> Self {
        let nonce = self.unanswered().unwrap_or_default().to_owned();
        Self { id: None, nonce, limits: None, started: None, ..self }
    }

    /// The mark of a container that was asked for and that nobody has seen.
    pub fn unanswered(&self) -> Option<&str> {
        (self.id.is_none() && !self.nonce.is_empty()).then_some(&self.nonce)
    }

    /// Whether an answer is about this container: what was asked about the one before it says nothing of this one.
    pub fn is_about(&self, asked: &str) -> bool {
        self.id.as_deref() == Some(asked)
    }

    /// Whether what was seen is the run that the ledger knows, and not one before it.
    pub fn is_run_of(&self, seen: &Seen) -> bool {
        self.started.is_none() || self.started == seen.started
    }

    /// The number of a run that was found and that nobody began as far as is known: no earlier one's. `runs` have been begun
    /// or tried; `untold`: the answer to the last of them did not come.
    pub fn found_run(&self, runs: u64, untold: bool) -> FoundRun {
        // What was tried before this container's own run came to nothing, or to that.
        if untold && runs > self.run { FoundRun::Tried(runs) } else { FoundRun::New(runs.max(self.run) + 1) }
    }

    /// Takes the address that it has been given; it may be another after each start.
    pub fn addressed(&mut self, seen: &Seen, network: Option<&str>) {
        let address =
            network.and_then(|network| seen.networks.get(network)).filter(|address| !address.is_empty());
        self.address = address.filter(|_| self.direct).cloned();
    }

    /// Replaced by rename: it must never be read torn, and no start waits for more than this.
    pub fn write(&self, folder: &Folder) -> Result<(), ledger::Error> {
        files::write(&folder.path().join(FILE), self, files::Durable::No)
    }

    /// `None`: no container was ever asked for.
    pub fn read(folder: &Folder) -> Result<Option<Self>, ledger::Error> {
        files::read(&folder.path().join(FILE))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::container::look::State;

    fn seen(started: &str) -> Seen {
        Seen {
            id: "new".into(),
            name: "web".into(),
            state: State::Running,
            pid: None,
            started: Some(started.into()),
            finished: None,
            health: None,
            networks: BTreeMap::new(),
            aliases: BTreeMap::new(),
            limits: Limits::default(),
            port: None,
        }
    }

    /// Two runs of one number would be taken for one, and the end of the first for that of the second: whatever comes before.
    #[test]
    fn no_run_that_is_found_has_the_number_of_an_earlier_one() {
        const STEPS: u32 = 5;
        for story in 0..5u32.pow(STEPS) {
            let (mut record, mut runs, mut known) = (Record::default(), 0, std::collections::BTreeSet::new());
            for step in (0..STEPS).map(|nth| story / 5u32.pow(nth) % 5) {
                let run = match step {
                    // A start that came to nothing, or whose answer was lost; an install is none.
                    0 => {
                        runs += 1;
                        continue;
                    }
                    1 => continue,
                    2 => runs + 1,
                    untold => match record.found_run(runs, untold == 3) {
                        FoundRun::Tried(run) | FoundRun::New(run) => run,
                    },
                };
                assert!(known.insert(run), "{run} twice, by story {story}");
                (record.run, runs) = (run, runs.max(run));
            }
        }
    }

    #[test]
    fn an_answer_about_a_container_or_a_run_before_says_nothing_of_this_one() {
        let record = Record { id: Some("new".into()), started: Some("later".into()), ..Record::default() };
        assert!(record.is_about("new") && !record.is_about("old"));
        assert!(record.is_run_of(&seen("later")) && !record.is_run_of(&seen("before")));
        assert!(!Record::default().is_about("new"), "one that was never answered for is asked by its nonce");
    }
}
