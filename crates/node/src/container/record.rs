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

    #[test]
    fn an_answer_about_a_container_or_a_run_before_says_nothing_of_this_one() {
        let record = Record { id: Some("new".into()), started: Some("later".into()), ..Record::default() };
        assert!(record.is_about("new") && !record.is_about("old"));
        assert!(record.is_run_of(&seen("later")) && !record.is_run_of(&seen("before")));
        assert!(!Record::default().is_about("new"), "one that was never answered for is asked by its nonce");
    }
}
