//! One instance's folder: what was assigned, what must be remembered, who its process is.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use decide::outage;
use model::{
    BootId, InstanceId, Knowledge, Timestamp, assignment::Assigned, instance::Attempts, observation::Exit,
};
use serde::{Deserialize, Serialize};

use super::{
    Error,
    files::{self, Durable},
};

/// What must be remembered of an instance beyond the agent's life.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Its files are placed and it has its port.
    pub installed: bool,
    pub attempts: Attempts,
    /// The last one counted was for an install; its start is yet to come.
    #[serde(default)]
    pub granted: bool,
    pub port: Option<u16>,
    /// Ports in a row that somebody else turned out to hold.
    pub port_moves: u32,
    /// Counts the starts of its process.
    pub runs: u64,
    pub started_at: Option<Timestamp>,
    pub ready: bool,
    /// The run whose end `last_exit` is.
    pub ended_run: Option<u64>,
    pub last_exit: Option<Exit>,
    /// Those shortly before it, of a container: its engine's own end may turn out to be behind them all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ends_before: Vec<Exit>,
    /// Setpoint ended it in order: the next start is no attempt.
    pub ended_by_us: bool,
    /// The run that Setpoint asked the engine of its container to end: that it did is nobody's meddling.
    #[serde(default)]
    pub asked_to_end: Option<u64>,
    /// That it has failed was told, and it has not been otherwise since.
    #[serde(default)]
    pub told_failed: bool,
    /// For a site: `current` has been switched to it, so that a `current` elsewhere is drift.
    pub switched: bool,
    /// Since when each drifted path differs.
    pub drift_since: BTreeMap<String, Timestamp>,
    /// What did it, where that is known.
    #[serde(default)]
    pub drift_by: BTreeMap<String, String>,
}

impl State {
    /// A run has ended; told again, it may be known better.
    pub fn ends(&mut self, run: Option<u64>, exit: Exit) {
        if self.ended_run != run {
            outage::keep_end(&mut self.ends_before, self.last_exit.take(), exit.at);
        }
        self.ended_run = run;
        self.last_exit = Some(exit);
    }
}

/// Who an instance's process is. Void in another boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub boot: BootId,
    pub pid: u32,
    pub start: u64,
    pub run: u64,
}

impl Identity {
    pub fn of_kernel(&self) -> sys::Identity {
        sys::Identity { pid: self.pid, start: self.start }
    }
}

/// Whether the folder's instance was assigned when last written.
#[derive(Debug)]
pub enum Claim {
    Assigned(Box<Assigned>),
    /// It shall go; its going was begun or is about to.
    Withdrawn(Box<Assigned>),
    /// No accepted assignment is known to cover it.
    Unclaimed,
    Unreadable(Error),
}

/// The folder `instances/<id>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(PathBuf);

const ASSIGNED: &str = "assigned.json";
const WITHDRAWN: &str = "withdrawn.json";

impl Folder {
    pub fn new(instances: &Path, id: &InstanceId) -> Self {
        Self(instances.join(id.to_string()))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Its working directory, where its rendered files lie.
    pub fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    pub fn log(&self) -> PathBuf {
        self.0.join("log").join("output.log")
    }

    /// Makes the folder with its claim in it, so that none without one is ever ours.
    pub fn create(&self, assigned: &Assigned) -> Result<(), Error> {
        if self.0.is_dir() {
            return self.write_assigned(assigned).and_then(|()| self.make_subfolders());
        }
        let name = self.0.file_name().unwrap_or_default().to_string_lossy();
        let unfinished = self.0.with_file_name(format!(".new-{name}"));
        let fresh = Self(unfinished.clone());
        remove_tree(&unfinished)?;
        make_passable(&unfinished)?;
        fresh.write_assigned(assigned)?;
        fresh.make_subfolders()?;
        fs::rename(&unfinished, &self.0).map_err(Error::at(&self.0))
    }

    fn make_subfolders(&self) -> Result<(), Error> {
        make_private(&self.work())?;
        make_private(&self.0.join("log"))
    }

    pub fn write_assigned(&self, assigned: &Assigned) -> Result<(), Error> {
        files::write(&self.0.join(ASSIGNED), assigned, Durable::No)?;
        match fs::remove_file(self.0.join(WITHDRAWN)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::at(&self.0)(error)),
            _ => Ok(()),
        }
    }

    /// From now on its going survives our death.
    pub fn withdraw(&self) -> Result<(), Error> {
        match fs::rename(self.0.join(ASSIGNED), self.0.join(WITHDRAWN)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::at(&self.0)(error)),
            _ => Ok(()),
        }
    }

    pub fn claim(&self) -> Claim {
        match (files::read(&self.0.join(ASSIGNED)), files::read(&self.0.join(WITHDRAWN))) {
            (Ok(Some(assigned)), _) => Claim::Assigned(assigned),
            (Ok(None), Ok(Some(assigned))) => Claim::Withdrawn(assigned),
            (Ok(None), Ok(None)) => Claim::Unclaimed,
            (Err(error), _) | (_, Err(error)) => Claim::Unreadable(error),
        }
    }

    pub fn write_state(&self, state: &State) -> Result<(), Error> {
        files::overwrite(&self.0.join("state.json"), state)
    }

    pub fn state(&self, now: Timestamp) -> Knowledge<State> {
        files::know(&self.0.join("state.json"), now)
    }

    /// No fsync: a power loss changes the boot id, and with it the identity is void.
    pub fn write_identity(&self, identity: &Identity) -> Result<(), Error> {
        files::overwrite(&self.0.join("identity.json"), identity)
    }

    pub fn identity(&self, now: Timestamp) -> Knowledge<Identity> {
        files::know(&self.0.join("identity.json"), now)
    }

    /// Out of its name first: a crash in between leaves nothing that looks like an instance.
    pub fn remove(&self) -> Result<(), Error> {
        let name = self.0.file_name().unwrap_or_default().to_string_lossy();
        let going = self.0.with_file_name(format!(".gone-{name}"));
        remove_tree(&going)?;
        match fs::rename(&self.0, &going) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.map_err(Error::at(&self.0))?,
        }
        remove_tree(&going)
    }
}

/// What lies among the instances' folders.
#[derive(Debug, Default)]
pub struct Listing {
    pub instances: Vec<(InstanceId, Folder)>,
    /// Without an instance's name.
    pub strange: Vec<PathBuf>,
}

/// The folders below `instances`, by id; what has no instance's name is left alone and named. What crashes have left
/// is removed.
pub fn list(instances: &Path) -> Result<Listing, Error> {
    let mut listing = Listing::default();
    for entry in fs::read_dir(instances).map_err(Error::at(instances))? {
        let path = entry.map_err(Error::at(instances))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match name.parse::<InstanceId>() {
            Ok(id) => listing.instances.push((id, Folder(path))),
            Err(_) if name.starts_with(".new-") || name.starts_with(".gone-") => remove_tree(&path)?,
            Err(_) => listing.strange.push(path),
        }
    }
    Ok(listing)
}

/// For the user of this node alone.
fn make_private(path: &Path) -> Result<(), Error> {
    make(path, 0o700)
}

/// On the way to an instance's own folder, which may be another user's: passed through, and neither read nor listed.
pub fn make_passable(path: &Path) -> Result<(), Error> {
    make(path, 0o711)
}

fn make(path: &Path, mode: u32) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(Error::at(path))
}

fn remove_tree(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::at(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node that was updated finds what the one before it wrote.
    #[test]
    fn a_state_of_an_earlier_version_is_read() {
        let mut state = serde_json::to_value(State { runs: 3, ..State::default() }).unwrap();
        state.as_object_mut().unwrap().remove("drift_by");
        assert_eq!(serde_json::from_value::<State>(state).unwrap().runs, 3);
    }
}
