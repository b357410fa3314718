//! What this node has made or fetched of an engine's things beside containers. Only what is noted here is ours, whatever
//! labels anything bears.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use model::{InstanceId, Millis, ServiceKey, Timestamp, observation::LostVolume};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::ledger::{self, files};

const VOLUMES: &str = "volumes.json";
const IMAGES: &str = "images.json";
const NETWORKS: &str = "networks.json";
const USERS: &str = "volume-users.json";
const LOST: &str = "lost-volumes.json";
const HEARD: &str = "engine-heard.json";
const LATE: &str = "late.json";
/// A folder with an empty file for each instance for which a container was asked.
const MADE: &str = "made";
/// What was told of strangers.
const STRANGERS: &str = "strangers.json";
/// After which an engine that was asked for a container, and showed none, is not taken to make it any more.
const LATEST: Millis = Millis::secs(3600);

/// Up to which event the engine has been heard, by its own clock.
pub fn heard(data: &Path) -> Result<Option<i64>, ledger::Error> {
    files::read(&data.join(HEARD))
}

/// After a power loss nothing that an engine remembers from before is of use.
pub fn note_heard(data: &Path, nanos: i64) -> Result<(), ledger::Error> {
    files::write(&data.join(HEARD), &nanos, files::Durable::No)
}

/// A container with this mark was asked for, has not been seen, and is wanted no more: one that is made late is removed.
pub fn note_late(data: &Path, nonce: &str, now: Timestamp) -> Result<(), ledger::Error> {
    change_all(&data.join(LATE), |late: &mut BTreeMap<String, Timestamp>| {
        late.retain(|_, at| *at + LATEST > now);
        late.insert(nonce.to_owned(), now).is_none()
    })
}

/// The marks of what is removed if it comes.
pub fn late(data: &Path, now: Timestamp) -> Result<BTreeSet<String>, ledger::Error> {
    let late: BTreeMap<String, Timestamp> = files::read(&data.join(LATE))?.unwrap_or_default();
    Ok(late.into_iter().filter(|(_, at)| *at + LATEST > now).map(|(nonce, _)| nonce).collect())
}

pub fn forget_late(data: &Path, nonce: &str) -> Result<(), ledger::Error> {
    change_all(&data.join(LATE), |late: &mut BTreeMap<String, Timestamp>| late.remove(nonce).is_some())
}

/// Whether a container may have been made for this instance of which its lost ledger says nothing: one was asked for, or it is
/// not known any more what was.
pub fn may_have_made(data: &Path, id: &InstanceId) -> bool {
    let made = data.join(MADE);
    !made.is_dir() || made.join(id.to_string()).exists()
}

/// Beside the ledger, since it is about its loss; written once its record is.
pub fn note_made(data: &Path, id: &InstanceId) -> Result<(), ledger::Error> {
    let path = data.join(MADE).join(id.to_string());
    if path.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(data.join(MADE))
        .and_then(|()| std::fs::write(&path, ""))
        .map_err(ledger::Error::at(&path))
}

/// With the instance.
pub fn forget_made(data: &Path, id: &InstanceId) {
    let path = data.join(MADE).join(id.to_string());
    if let Err(error) = std::fs::remove_file(&path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "what was made for an instance that is gone stays noted");
    }
}

/// Where it is not known what was made, it may have been for any of these, and for none that comes later.
pub fn begin_to_note_made<'a>(
    data: &Path,
    known: impl Iterator<Item = &'a InstanceId>,
) -> Result<(), ledger::Error> {
    let (made, unfinished) = (data.join(MADE), data.join(format!(".new-{MADE}")));
    if made.is_dir() {
        return Ok(());
    }
    let begin = || {
        std::fs::create_dir_all(&unfinished)?;
        for id in known {
            std::fs::write(unfinished.join(id.to_string()), "")?;
        }
        std::fs::rename(&unfinished, &made)
    };
    begin().map_err(ledger::Error::at(&made))
}

/// The marks of all containers that were ever asked for and not seen, however long ago.
pub fn is_late(data: &Path, nonce: &str) -> Result<bool, ledger::Error> {
    let late: BTreeMap<String, Timestamp> = files::read(&data.join(LATE))?.unwrap_or_default();
    Ok(late.contains_key(nonce))
}

/// Volumes that we have made or used: one that is gone is not made anew, because what was in it is gone with it.
pub fn known_volumes(data: &Path) -> Result<BTreeMap<String, bool>, ledger::Error> {
    Ok(files::read(&data.join(VOLUMES))?.unwrap_or_default())
}

pub fn note_volume(data: &Path, name: &str, user: &ServiceKey) -> Result<(), ledger::Error> {
    change_all(&data.join(USERS), |users: &mut Users| {
        users.entry(name.to_owned()).or_default().insert(user.clone())
    })?;
    note(&data.join(VOLUMES), name)
}

/// One that was to be removed and is there.
pub fn note_volume_again(data: &Path, name: &str, users: BTreeSet<ServiceKey>) -> Result<(), ledger::Error> {
    change_all(&data.join(USERS), |all: &mut Users| {
        let known = all.entry(name.to_owned()).or_default();
        known.extend(users);
        true
    })?;
    note(&data.join(VOLUMES), name)
}

type Users = BTreeMap<String, BTreeSet<ServiceKey>>;

/// Which services have used a volume.
pub fn volume_users(data: &Path, name: &str) -> Result<BTreeSet<ServiceKey>, ledger::Error> {
    Ok(files::read::<Users>(&data.join(USERS))?.unwrap_or_default().remove(name).unwrap_or_default())
}

/// Volumes that were gone when it was looked last.
pub fn lost_volumes(data: &Path) -> Result<Vec<LostVolume>, ledger::Error> {
    Ok(files::read(&data.join(LOST))?.unwrap_or_default())
}

/// Strangers of which people were told and that have been there since.
pub fn told_strangers(data: &Path) -> Result<BTreeSet<String>, ledger::Error> {
    Ok(files::read(&data.join(STRANGERS))?.unwrap_or_default())
}

pub fn note_told_strangers(data: &Path, told: &BTreeSet<String>) -> Result<(), ledger::Error> {
    files::write(&data.join(STRANGERS), told, files::Durable::No)
}

pub fn note_lost_volumes(data: &Path, lost: &[LostVolume]) -> Result<(), ledger::Error> {
    files::write(&data.join(LOST), &lost, files::Durable::Yes)
}

/// Images that were not here before we fetched them: only these are ours to collect. `id`, once it is here, is what is
/// left of one when somebody takes its name away.
pub fn note_pulled(data: &Path, name: &str, id: Option<&str>) -> Result<(), ledger::Error> {
    change_all(&data.join(IMAGES), |known: &mut BTreeMap<String, Pulled>| {
        let pulled = id.map_or(Pulled::Asked(true), |id| Pulled::Here(id.to_owned()));
        known.insert(name.to_owned(), pulled.clone()) != Some(pulled)
    })
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Pulled {
    Asked(bool),
    Here(String),
}

/// Whether an engine has ever held anything for this node.
pub fn has_held(data: &Path) -> bool {
    [IMAGES, VOLUMES, NETWORKS, LATE].iter().any(|file| data.join(file).exists())
}

/// By name, with the id of those that have come.
pub fn pulled(data: &Path) -> Result<BTreeMap<String, Option<String>>, ledger::Error> {
    let known: BTreeMap<String, Pulled> = files::read(&data.join(IMAGES))?.unwrap_or_default();
    let id = |pulled| match pulled {
        Pulled::Asked(_) => None,
        Pulled::Here(id) => Some(id),
    };
    Ok(known.into_iter().map(|(name, pulled)| (name, id(pulled))).collect())
}

pub fn forget_pulled(data: &Path, name: &str) -> Result<(), ledger::Error> {
    change_all(&data.join(IMAGES), |known: &mut BTreeMap<String, Pulled>| known.remove(name).is_some())
}

/// Removed because somebody asked: one of that name is made anew when it is needed.
pub fn forget_volume(data: &Path, name: &str) -> Result<(), ledger::Error> {
    change_all(&data.join(USERS), |users: &mut Users| users.remove(name).is_some())?;
    change(&data.join(VOLUMES), |known| known.remove(name).is_some())
}

/// The mark that our network of this name bears. It is on the disk before an engine is asked for the network, so that
/// one that was made and not answered for is known again.
pub fn network_nonce(data: &Path, name: &str) -> Result<String, ledger::Error> {
    let path = data.join(NETWORKS);
    let mut nonce = None;
    change_all(&path, |known: &mut BTreeMap<String, String>| {
        let before = known.len();
        nonce = Some(known.entry(name.to_owned()).or_insert_with(super::work::nonce).clone());
        known.len() != before
    })?;
    Ok(nonce.unwrap_or_default())
}

/// Networks that we have made, by name, with their marks.
pub fn networks(data: &Path) -> Result<BTreeMap<String, String>, ledger::Error> {
    Ok(files::read(&data.join(NETWORKS))?.unwrap_or_default())
}

pub fn forget_network(data: &Path, name: &str) -> Result<(), ledger::Error> {
    change_all(&data.join(NETWORKS), |known: &mut BTreeMap<String, String>| known.remove(name).is_some())
}

fn note(path: &Path, name: &str) -> Result<(), ledger::Error> {
    change(path, |known| known.insert(name.to_owned(), true).is_none())
}

fn change(
    path: &Path,
    change: impl FnOnce(&mut BTreeMap<String, bool>) -> bool,
) -> Result<(), ledger::Error> {
    change_all(path, change)
}

fn change_all<T: Default + Serialize + DeserializeOwned>(
    path: &Path,
    change: impl FnOnce(&mut T) -> bool,
) -> Result<(), ledger::Error> {
    static WRITING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _writing = WRITING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut known: T = files::read(path)?.unwrap_or_default();
    if change(&mut known) {
        files::write(path, &known, files::Durable::Yes)?;
    }
    Ok(())
}
