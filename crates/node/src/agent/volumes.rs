//! Volumes with data of ours that somebody removed: told until they are back. None is made anew empty, since nobody
//! could tell that from its data being there.

use std::collections::{BTreeMap, BTreeSet};

use decide::node::Install;
use model::{
    Timestamp,
    container::cluster_mark,
    event::{self, Kind},
    observation::LostVolume,
};

use super::{Agent, Event};
use crate::container::{collect, names, notes};

/// What is known of them.
#[derive(Debug, Default)]
pub(crate) struct Volumes {
    lost: BTreeMap<String, LostVolume>,
    /// When the engine told that one was removed.
    removed: BTreeMap<String, Timestamp>,
    looking: bool,
    look_again: bool,
}

impl Agent {
    /// What was told before a restart of the node is not told again.
    pub(super) fn remember_lost_volumes(&mut self) {
        match notes::lost_volumes(&self.cx.config.data) {
            Ok(lost) => {
                self.engine.volumes.lost =
                    lost.iter().map(|volume| (volume.name.clone(), volume.clone())).collect();
                self.publisher.lost_volumes(lost);
            }
            Err(error) => tracing::warn!(%error, "which volumes were lost is looked at anew"),
        }
    }

    pub(super) fn volume_news(&mut self, name: &str, removed: Option<Timestamp>) {
        if !name.ends_with(&format!(".{}", cluster_mark(&self.cx.config.cluster))) {
            return;
        }
        match removed {
            Some(at) => drop(self.engine.volumes.removed.insert(name.to_owned(), at)),
            None => drop(self.engine.volumes.removed.remove(name)),
        }
        self.look_at_volumes();
    }

    pub(super) fn look_at_volumes(&mut self) {
        let volumes = &mut self.engine.volumes;
        if std::mem::replace(&mut volumes.looking, true) {
            volumes.look_again = true;
            return;
        }
        volumes.look_again = false;
        let cx = self.cx.clone();
        tokio::spawn(async move {
            let missing = collect::missing_volumes(&cx.engine, &cx.config.data).await;
            let missing = missing.map_err(|failure| failure.to_string());
            let _ = cx.events.send(Event::VolumesLooked(missing)).await;
        });
    }

    pub(super) fn volumes_looked(&mut self, missing: Result<BTreeSet<String>, String>) {
        self.engine.volumes.looking = false;
        match missing {
            Ok(missing) => {
                let missing = self.needed(missing);
                self.take_missing(&missing);
                self.try_again_without(&missing);
            }
            // Unknown is not gone: what was known stays.
            Err(error) => tracing::debug!(%error, "the volumes cannot be looked at"),
        }
        if self.engine.volumes.look_again {
            self.look_at_volumes();
        }
    }

    /// What an instance that is gone has left is nobody's loss.
    fn needed(&self, mut missing: BTreeSet<String>) -> BTreeSet<String> {
        missing.retain(|name| {
            let left = names::owner_of_volume(name).filter(|id| !self.instances.contains_key(id));
            if left.is_some()
                && let Err(error) = notes::forget_volume(&self.cx.config.data, name)
            {
                tracing::warn!(%name, %error, "a volume that is gone stays noted");
            }
            left.is_none()
        });
        missing
    }

    fn take_missing(&mut self, missing: &BTreeSet<String>) {
        let now = self.cx.now();
        let volumes = &mut self.engine.volumes;
        let before = std::mem::take(&mut volumes.lost);
        let after = lost_now(missing, &before, &volumes.removed, now);
        if !volumes.look_again {
            volumes.removed.clear();
        }
        for volume in after.values().filter(|volume| !before.contains_key(&volume.name)) {
            self.say_of_volume(Kind::VolumeLost, &volume.name, &volume.to_string());
        }
        for name in before.keys().filter(|name| !after.contains_key(*name)) {
            self.say_of_volume(Kind::VolumeBack, name, &format!("the volume {name} is there again"));
        }
        if after != before {
            let list: Vec<_> = after.values().cloned().collect();
            if let Err(error) = notes::note_lost_volumes(&self.cx.config.data, &list) {
                tracing::warn!(%error, "which volumes were lost is held in memory alone");
            }
            self.publisher.lost_volumes(list);
        }
        self.engine.volumes.lost = after;
    }

    /// To each service that has used it.
    fn say_of_volume(&self, kind: Kind, name: &str, message: &str) {
        let users = notes::volume_users(&self.cx.config.data, name).unwrap_or_default();
        let services = users.into_iter().map(Some);
        let nobody = services.len() == 0;
        for service in services.chain(nobody.then_some(None)) {
            let message = message.to_owned();
            self.cx.outside.event(event::Event { kind, service, instance: None, deployment: None, message });
        }
    }

    /// What has no data and could have it again is made at once.
    fn try_again_without(&mut self, missing: &BTreeSet<String>) {
        let waits = |instance: &&mut crate::instance::Instance| {
            let project = &instance.id.service.project;
            let lacks = |name: &String| {
                names::owner_of_volume(name).as_ref() == Some(&instance.id)
                    || instance.container().is_some_and(|container| container.mounts(project, name))
            };
            matches!(instance.install, Install::DataGone { .. })
                && instance.busy.is_none()
                && !missing.iter().any(lacks)
        };
        let mut ids = Vec::new();
        for instance in self.instances.values_mut().filter(waits) {
            instance.install = Install::Absent;
            ids.push(instance.id.clone());
        }
        for id in &ids {
            self.touch(id);
        }
    }
}

/// What is missing: since it was found so first, or since the engine told of its removal.
fn lost_now(
    missing: &BTreeSet<String>,
    before: &BTreeMap<String, LostVolume>,
    removed: &BTreeMap<String, Timestamp>,
    now: Timestamp,
) -> BTreeMap<String, LostVolume> {
    let lost = |name: &String| {
        before.get(name).cloned().unwrap_or_else(|| {
            let told = removed.get(name).map(|at| (*at).min(now));
            let by = told.map(|_| "engine: destroy".to_owned());
            LostVolume { name: name.clone(), since: told.unwrap_or(now), by }
        })
    };
    missing.iter().map(|name| (name.clone(), lost(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_volume_keeps_since_when_and_by_what_it_is_gone() {
        let missing = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let removed = [("told".to_owned(), Timestamp(5)), ("later".to_owned(), Timestamp(99))].into();
        let first =
            lost_now(&missing(&["told", "found", "later"]), &BTreeMap::new(), &removed, Timestamp(10));
        let shown =
            |lost: &BTreeMap<String, LostVolume>, name: &str| (lost[name].since.0, lost[name].by.clone());
        let by_engine = Some("engine: destroy".to_owned());
        assert_eq!(shown(&first, "told"), (5, by_engine.clone()));
        assert_eq!(shown(&first, "found"), (10, None));
        assert_eq!(shown(&first, "later"), (10, by_engine), "nothing is told from the future");
        let second = lost_now(&missing(&["found"]), &first, &BTreeMap::new(), Timestamp(20));
        assert_eq!(second.keys().collect::<Vec<_>>(), ["found"], "the others are back");
        assert_eq!(shown(&second, "found"), (10, None));
    }
}
