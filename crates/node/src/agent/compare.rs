//! Compares what is there with what is declared: whole every so often, and where something may have changed.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use content::place::Depth;
use decide::node::drift_policy;
use model::{InstanceId, Timestamp, artifact::RelPath, drift::Drift, event::Kind};

use super::{Agent, Context, Event};
use crate::{
    instance::Instance,
    ledger::Folder,
    process::files,
    site::{self, View},
};

impl Agent {
    /// Compares an instance at these paths, or whole. One at a time: what is asked for meanwhile comes after.
    pub(super) fn compare(&mut self, id: &InstanceId, paths: &[PathBuf], whole: bool) {
        if self.instances.get(id).is_some_and(|instance| instance.held.is_some()) {
            return self.look_at_container(id, whole);
        }
        let Some(instance) = self.instances.get_mut(id) else { return };
        let nothing = instance.site.is_none() && instance.assigned.content.files.is_empty();
        if nothing || !instance.wanted || !instance.state.installed {
            return;
        }
        instance.check.whole |= whole;
        instance.check.paths.extend(paths.iter().cloned());
        if !instance.check.running && instance.busy.is_none() {
            Self::begin_compare(&self.cx, instance);
        }
    }

    fn begin_compare(cx: &Arc<Context>, instance: &mut Instance) {
        // A look at a part says nothing about what differs elsewhere.
        let whole = std::mem::take(&mut instance.check.whole) || !instance.drift.is_empty();
        let paths = std::mem::take(&mut instance.check.paths);
        instance.check.running = true;
        let (cx, id) = (cx.clone(), instance.id.clone());
        let (assigned, site, folder) =
            (instance.assigned.clone(), instance.site.clone(), instance.folder.clone());
        let port = instance.state.port;
        tokio::spawn(async move {
            let _permit = cx.files.acquire().await;
            let inner = cx.clone();
            let compared = tokio::task::spawn_blocking(move || match &site {
                Some(site) => {
                    let depth = if whole { Depth::Whole } else { Depth::Only(&paths) };
                    look_at_site(&inner, &assigned, site, depth)
                }
                None => look_at_process(&inner, &assigned, port, &folder),
            });
            let view = compared.await.unwrap_or_else(|error| Err(error.to_string()));
            let _ = cx.events.send(Event::Compared { id, view }).await;
        });
    }

    pub(super) fn compared(&mut self, id: &InstanceId, view: Result<View, String>) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        instance.check.running = false;
        instance.check.done = true;
        match view {
            // Something is being done there; its own outcome says how it is.
            _ if instance.busy.is_some() => {}
            Ok(view) => {
                let gone = view.differences.iter().any(|difference| difference.observed.is_none());
                self.see(id, view);
                if gone {
                    self.watch_site(id);
                }
            }
            Err(error) => {
                // Unknown is not damaged: what was known stays.
                tracing::warn!(instance = %id, %error, "it cannot be compared with what is declared");
            }
        }
        self.touch(id);
        self.compare_again(id);
    }

    fn compare_again(&mut self, id: &InstanceId) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        if (instance.check.whole || !instance.check.paths.is_empty()) && instance.busy.is_none() {
            Self::begin_compare(&self.cx, instance);
        }
    }

    /// Takes what was found: drift begins, goes on, or is over.
    pub(super) fn see(&mut self, id: &InstanceId, view: View) {
        let now = self.cx.now();
        let Some(instance) = self.instances.get_mut(id) else { return };
        instance.current = view.current && (instance.state.switched || !lacks_links(&view));
        instance.state.switched |= instance.current && instance.assigned.current;
        instance.check.done = true;
        let policy = drift_policy(&instance.assigned, instance.assigned.current);
        let found: Vec<_> =
            view.differences.into_iter().filter(|found| !is_excused(instance, found)).collect();
        let correctable = found.iter().any(|found| found.ours && site::corrects(&policy, &found.path));
        // From the ledger: what was told before a restart of the node is not told again.
        let mut before = instance.state.drift_since.clone();
        let mut seen_before = std::mem::take(&mut instance.drift);
        for found in found {
            let known = before.remove(&found.path);
            let (since, by) = origin(instance, &found.path, known, now);
            let mut drift = drift_of(found, since, by);
            drift.stuck = drift.stuck.or(seen_before.remove(&drift.path).and_then(|drift| drift.stuck));
            if known.is_none() {
                // What rests is something else.
                instance.rests_until = None;
                self.cx.say(instance, Kind::DriftFound, describe(&drift));
            }
            instance.drift.insert(drift.path.clone(), drift);
        }
        for path in before.keys() {
            self.cx.say(instance, Kind::DriftCorrected, format!("{path} of {id} is as declared again"));
        }
        instance.correctable = correctable;
        Self::note_drift(instance);
    }

    /// Writes down since when what differs, so that it is not told again after a restart of the node.
    pub(super) fn note_drift(instance: &mut Instance) {
        let since: BTreeMap<_, _> = instance.drift.values().map(|d| (d.path.clone(), d.since)).collect();
        let by = instance.drift.values().filter_map(|d| Some((d.path.clone(), d.by.clone()?))).collect();
        if (&since, &by) == (&instance.state.drift_since, &instance.state.drift_by) {
            return;
        }
        instance.state.drift_since = since;
        instance.state.drift_by = by;
        if instance.busy.is_none() {
            Self::remember(instance);
        }
    }

    /// Rendered files are looked at cheaply and often, and hashed when the look has changed.
    pub(super) fn look_at_files(&mut self) {
        if self.looking_at_files {
            return;
        }
        let with_files =
            self.instances.values().filter(|i| i.site.is_none() && !i.assigned.content.files.is_empty());
        let with_files: Vec<_> = with_files.collect();
        self.rendered = !with_files.is_empty();
        let targets: Vec<Target> = with_files
            .into_iter()
            .filter(|instance| instance.state.installed)
            .map(|instance| Target {
                id: instance.id.clone(),
                folder: instance.folder.work(),
                names: instance.assigned.content.files.keys().cloned().collect(),
                put_back: instance.check.put_back,
            })
            .collect();
        let count: usize = targets.iter().map(|target| target.names.len()).sum();
        if count <= super::FEW_LOOKS {
            let changed = changed_looks(&self.file_looks, targets);
            return self.files_looked(&changed);
        }
        self.looking_at_files = true;
        let (looks, events) = (self.file_looks.clone(), self.cx.events.clone());
        tokio::spawn(async move {
            let looked = tokio::task::spawn_blocking(move || changed_looks(&looks, targets));
            let changed = looked.await.unwrap_or_default();
            let _ = events.send(Event::FilesLooked { changed }).await;
        });
    }

    pub(super) fn files_looked(&mut self, changed: &[InstanceId]) {
        self.looking_at_files = false;
        for id in changed {
            self.compare(id, &[], true);
        }
    }
}

/// The looks of before, and after how many times that something was put back: what was damaged in the same way before and
/// after that looks the same.
pub(super) type Looks = std::sync::Mutex<BTreeMap<InstanceId, (u64, files::Look)>>;

/// Whose files are looked at.
struct Target {
    id: InstanceId,
    folder: PathBuf,
    names: Vec<RelPath>,
    put_back: u64,
}

fn changed_looks(looks: &Looks, targets: Vec<Target>) -> Vec<InstanceId> {
    let mut before = looks.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut after = BTreeMap::new();
    let mut changed = Vec::new();
    for Target { id, folder, names, put_back } in targets {
        let look = (put_back, files::look(&folder, &names));
        if before.get(&id) != Some(&look) {
            changed.push(id.clone());
        }
        after.insert(id, look);
    }
    *before = after;
    changed
}

/// Ignored, or not yet switched to: then its absence is work to do and no drift.
pub(super) fn is_excused(instance: &Instance, found: &site::Difference) -> bool {
    let link = found.path == "site/current" || found.path.starts_with("webroot/");
    site::is_left(&drift_policy(&instance.assigned, instance.assigned.current), found)
        || (link && !(instance.assigned.current && instance.state.switched))
}

/// The first switch is done when the webroot has its links too.
fn lacks_links(view: &View) -> bool {
    view.differences.iter().any(|found| found.ours && found.path.starts_with("webroot/"))
}

/// Since when a path differs, and what did it: as the engine told, or else since it was found.
fn origin(
    instance: &Instance,
    path: &str,
    known: Option<Timestamp>,
    now: Timestamp,
) -> (Timestamp, Option<String>) {
    let before = instance.state.drift_by.get(path).cloned().filter(|_| known.is_some());
    // What was done after it was found is not where it comes from.
    let deed = instance.held.as_ref().and_then(|held| held.deeds.about(path));
    let deed = deed.filter(|deed| before.is_none() && known.is_none_or(|since| deed.at <= since));
    match deed {
        Some(deed) => (deed.at.min(now), Some(deed.by())),
        None => (known.unwrap_or(now), before),
    }
}

const NOT_OURS: &str = "what is there is not Setpoint's, and is left alone";

pub(super) fn drift_of(found: site::Difference, since: Timestamp, by: Option<String>) -> Drift {
    let site::Difference { path, declared, observed, ours } = found;
    let stuck = (!ours).then(|| NOT_OURS.into());
    Drift { path, declared, observed, since, by, stuck }
}

pub(super) fn describe(drift: &Drift) -> String {
    let Drift { path, since, by, .. } = drift;
    let found = format!("{path} is {}, declared is {}", drift.observed_word(), drift.declared_word());
    match by {
        Some(by) => format!("{found}, since {since} by {by}"),
        None => found,
    }
}

fn look_at_site(
    cx: &Context,
    assigned: &model::assignment::Assigned,
    site: &site::Site,
    depth: Depth<'_>,
) -> Result<View, String> {
    let digest = assigned.content.artifact().ok_or("it has no content")?;
    let artifact = cx.content.artifact(&digest).map_err(|error| error.to_string())?;
    let view = site.check(&artifact, assigned.current, depth).map_err(|error| error.to_string())?;
    // Where a part differs, the whole is looked at, so that a view is always of the whole.
    if matches!(depth, Depth::Only(_)) && !view.differences.is_empty() {
        return site.check(&artifact, assigned.current, Depth::Whole).map_err(|error| error.to_string());
    }
    Ok(view)
}

fn look_at_process(
    cx: &Context,
    assigned: &model::assignment::Assigned,
    port: Option<u16>,
    folder: &Folder,
) -> Result<View, String> {
    let rendered = cx.surroundings.files(&assigned.id, &assigned.content, port);
    Ok(view_of_files(folder, &rendered.map_err(|error| error.to_string())?))
}

pub(super) fn view_of_files(folder: &Folder, rendered: &BTreeMap<RelPath, Vec<u8>>) -> View {
    let differences =
        files::compare(&folder.work(), rendered).into_iter().map(|difference| site::Difference {
            path: format!("files/{}", difference.file),
            declared: Some(difference.declared),
            observed: difference.observed,
            ours: true,
        });
    View { differences: differences.collect(), current: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_again_after_it_was_put_back_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let (looks, id) = (Looks::default(), "default.api.0.1".parse::<InstanceId>().unwrap());
        let look = |put_back| {
            let (folder, names) = (dir.path().to_owned(), vec!["app.yaml".parse().unwrap()]);
            changed_looks(&looks, vec![Target { id: id.clone(), folder, names, put_back }])
        };
        assert_eq!(look(0), std::slice::from_ref(&id), "never seen before");
        assert_eq!(look(0), [], "as it was");
        assert_eq!(look(1), std::slice::from_ref(&id), "it was there in between");
        assert_eq!(look(1), []);
        std::fs::write(dir.path().join("app.yaml"), "a: 1").unwrap();
        assert_eq!(look(1), [id]);
    }
}
