//! An accepted assignment, brought into memory and onto the disk. Its stamp is durable already.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use model::{
    InstanceId, ServiceKey,
    assignment::{Assigned, Assignment},
    spec::Workload,
};

use super::Agent;
use crate::{container::notes, instance::Instance, ledger::Folder};

impl Agent {
    pub(super) fn apply(&mut self, assignment: &Assignment) {
        self.accepted = Some(assignment.stamp.clone());
        self.publisher.accepted(assignment.stamp.clone());
        let is_container = |assigned: &Assigned| matches!(assigned.content.workload, Workload::Container(_));
        let assigned = assignment.instances.values().filter(|assigned| is_container(assigned)).map(|a| &a.id);
        let known = self.instances.values().filter(|instance| instance.held.is_some()).map(|i| &i.id);
        let known = known.chain(assigned);
        if let Err(error) = notes::begin_to_note_made(&self.cx.config.data, known) {
            tracing::warn!(%error, "containers that bear our labels count as ours, whoever made them");
        }
        let mut touched: BTreeSet<InstanceId> = BTreeSet::new();
        for (id, assigned) in &assignment.instances {
            if self.take(id, assigned) {
                touched.insert(id.clone());
            }
        }
        for (id, instance) in &mut self.instances {
            let held = assignment.held.contains(&id.service);
            if instance.wanted && !held && !assignment.instances.contains_key(id) {
                withdraw(instance);
                touched.insert(id.clone());
            }
        }
        self.strangers_are_known();
        self.rendered |= !touched.is_empty();
        self.name_former_webroots();
        for id in &touched {
            if let Some(instance) = self.instances.get(id) {
                self.unsynced.insert(instance.folder.path().to_owned());
            }
            self.touch(id);
        }
    }

    /// A webroot of another deployment that this one does not have is left when this one is switched to.
    pub(super) fn name_former_webroots(&mut self) {
        let mut webroots: BTreeMap<ServiceKey, BTreeSet<PathBuf>> = BTreeMap::new();
        for instance in self.instances.values() {
            if let Some(webroot) = instance.site.as_ref().and_then(|site| site.webroot.clone()) {
                webroots.entry(instance.id.service.clone()).or_default().insert(webroot);
            }
        }
        for instance in self.instances.values_mut() {
            if let Some(site) = &mut instance.site {
                site.former = webroots.get(&instance.id.service).cloned().unwrap_or_default();
                site.former.retain(|webroot| Some(webroot) != site.webroot.as_ref());
            }
        }
    }

    /// Whether anything about the instance has changed.
    fn take(&mut self, id: &InstanceId, assigned: &Arc<Assigned>) -> bool {
        if let Some(instance) = self.instances.get_mut(id) {
            return change(instance, assigned);
        }
        if self.unclaimed.remove(id).is_some() {
            // The ledger was lost; the assignment counts as one.
            self.tell_strangers();
            self.adopt_again(assigned.clone());
            return true;
        }
        let folder = Folder::new(&self.cx.instances(), id);
        if let Some(orphan) = self.orphans.remove(id) {
            self.tell_strangers();
            self.adopt_orphan(assigned.clone(), folder, orphan);
            return true;
        }
        let mut instance = Instance::new(assigned.clone(), folder, &self.cx.config.sites);
        self.engine.tell(&mut instance);
        self.instances.insert(id.clone(), instance);
        self.listen_to_engine();
        true
    }

    /// Makes new claims survive a power loss too, off the way of everything else. What is lost before that is assigned
    /// again by the server; only a node that is cut off from it would miss it.
    pub(super) fn sync_ledger(&mut self) {
        if self.unsynced.is_empty() || self.syncing.load(Ordering::Relaxed) {
            return;
        }
        self.syncing.store(true, Ordering::Relaxed);
        let (folders, syncing) = (std::mem::take(&mut self.unsynced), self.syncing.clone());
        let instances = self.cx.instances();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = sync_all(&instances, &folders) {
                tracing::warn!(%error, "the ledger could not be synced");
            }
            syncing.store(false, Ordering::Relaxed);
        });
    }
}

/// One by one while they are few: syncing the whole file system would wait for everybody's writes.
fn sync_all(instances: &Path, folders: &BTreeSet<PathBuf>) -> std::io::Result<()> {
    const FEW: usize = 64;
    if folders.len() > FEW {
        return Ok(rustix::fs::syncfs(File::open(instances)?)?);
    }
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        for path in [folder.join("assigned.json"), folder.clone()] {
            if let Ok(file) = File::open(path) {
                file.sync_all()?;
            }
        }
    }
    File::open(instances)?.sync_all()
}

fn change(instance: &mut Instance, assigned: &Arc<Assigned>) -> bool {
    if instance.wanted && (Arc::ptr_eq(&instance.assigned, assigned) || instance.assigned == *assigned) {
        return false;
    }
    if instance.assigned.release != assigned.release {
        // An instance never changes its release: whoever says so means another instance.
        tracing::error!(instance = %instance.id, "assigned with another release than before; it keeps what it has");
        return false;
    }
    if instance.site.is_some() && instance.assigned.current && !assigned.current {
        // From now on it must be whole, which nobody has looked at if its policy left it as it was.
        instance.correctable = true;
    }
    instance.assigned = assigned.clone();
    if !std::mem::replace(&mut instance.wanted, true) {
        // What was told before is about what was begun before.
        instance.unwanted = Arc::default();
    }
    if !assigned.current {
        instance.state.switched = false;
    }
    instance.rests_until = None;
    instance.hurry.notify_one();
    if instance.folder.path().is_dir()
        && let Err(error) = instance.folder.write_assigned(assigned)
    {
        tracing::warn!(instance = %instance.id, %error, "the assignment is held in memory alone");
    }
    true
}

/// Its going is written down before it is begun.
fn withdraw(instance: &mut Instance) {
    instance.wanted = false;
    instance.hurry.notify_one();
    instance.unwanted.notify_one();
    if let Err(error) = instance.folder.withdraw() {
        tracing::warn!(instance = %instance.id, %error, "its removal is held in memory alone");
    }
}
