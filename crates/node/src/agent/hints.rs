//! Which instances a changed path concerns.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use model::InstanceId;

use super::Agent;
use crate::site::Site;

impl Agent {
    /// Watches a site's folder, the folder with `current`, and its webroot.
    pub(super) fn watch_site(&mut self, id: &InstanceId) {
        let Some(site) = self.instances.get(id).and_then(|instance| instance.site.clone()) else { return };
        self.watching.folder(site.parent.clone());
        self.watching.tree(site.folder());
        if let Some(webroot) = &site.webroot {
            self.watching.folder(webroot.clone());
        }
        for place in [Some(site.folder()), Some(site.parent), site.webroot].into_iter().flatten() {
            self.places.entry(place).or_default().insert(id.clone());
        }
    }

    pub(super) fn forget_site(&mut self, id: &InstanceId) {
        let Some(site) = self.instances.get(id).and_then(|instance| instance.site.clone()) else { return };
        let Site { parent, webroot, .. } = &site;
        for place in [Some(&site.folder()), Some(parent), webroot.as_ref()].into_iter().flatten() {
            if let Some(ids) = self.places.get_mut(place) {
                ids.remove(id);
                if ids.is_empty() {
                    self.places.remove(place);
                    self.watching.forget(place);
                }
            }
        }
    }

    pub(super) fn hinted(&mut self, paths: &[PathBuf], everything: bool) {
        if everything {
            let ids: BTreeSet<_> = self.places.values().flatten().cloned().collect();
            return ids.iter().for_each(|id| self.compare(id, &[], true));
        }
        for path in paths.iter().filter(|path| !is_work_in_progress(path)) {
            for id in self.concerned(path) {
                self.compare(&id, std::slice::from_ref(path), false);
            }
        }
    }

    fn concerned(&self, path: &Path) -> BTreeSet<InstanceId> {
        path.ancestors().find_map(|place| self.places.get(place)).cloned().unwrap_or_default()
    }
}

/// Our own unfinished files, which begin with a dot right beside the deployments.
fn is_work_in_progress(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    [".staging-", ".repair-", ".manifest-", ".removing-", ".current."].iter().any(|own| name.starts_with(own))
}
