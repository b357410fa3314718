//! What operations on containers do, in tasks of their own: on a copy of what they need, since the agent goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use model::{
    Timestamp,
    assignment::Assigned,
    observation::Copied,
    spec::{DriftMode, Workload},
};
use tokio::sync::Notify;

use super::{
    Context, Event, FailureKind, Launched, Outcome, StartFailure, Started,
    containers::{Look, Repair},
    job::{Job, Keep},
};
use crate::{
    container::{
        Record, Seen, ask,
        engine::Error as EngineError,
        failure::Failure,
        look::{self, Machine, Wanted},
        names, notes,
        order::Order,
        output, registry,
        work::Work,
    },
    ledger::Folder,
    logs,
    process::files,
    site::Difference,
};

/// Between words about a pull.
const TOLD_EVERY: Duration = Duration::from_millis(250);

pub(super) fn order<'a>(
    cx: &'a Context,
    assigned: &'a Assigned,
    folder: &Folder,
    port: Option<u16>,
) -> Option<Order<'a>> {
    let Workload::Container(container) = &assigned.content.workload else { return None };
    Some(Order {
        cluster: &cx.config.cluster,
        id: &assigned.id,
        digest: assigned.release,
        release: &assigned.content,
        container,
        nonce: "",
        publish: true,
        port,
        host: &cx.config.host,
        image_workdir: None,
        image_stop: None,
        work: folder.work(),
        binds: BTreeMap::new(),
        own_volumes: BTreeMap::new(),
    })
}

impl Job {
    pub(super) fn is_container(&self) -> bool {
        matches!(self.assigned.content.workload, Workload::Container(_))
    }

    fn work<'a>(&'a self, cx: &'a Context) -> Result<Work<'a>, StartFailure> {
        let order = order(cx, &self.assigned, &self.folder, self.state.port);
        let order = order.ok_or_else(|| StartFailure::ordinary("it is no container".into()))?;
        Ok(Work {
            engine: &cx.engine,
            policy: &cx.config.policy,
            order,
            folder: &self.folder,
            data: &cx.config.data,
            unwanted: &self.unwanted,
        })
    }

    /// Its folder with its files, its image, its network and volumes, its container.
    async fn make(&self, cx: &Context) -> Result<Record, StartFailure> {
        self.folder.create(&self.assigned).map_err(|error| StartFailure::ordinary(error.to_string()))?;
        self.folder.write_state(&self.state).map_err(|error| StartFailure::ordinary(error.to_string()))?;
        let mut work = self.work(cx)?;
        self.place_files(&work).map_err(|failure| cx.failed(failure, None))?;
        let mut told = std::time::Instant::now();
        let mut progress = |progress: registry::Progress| {
            // Often enough for a progress bar, and for the planner to see that it goes on.
            if told.elapsed() > TOLD_EVERY || progress.layers_done == progress.layers {
                told = std::time::Instant::now();
                let copied =
                    Copied { files: progress.layers_done, total: progress.layers, bytes: progress.done() };
                let _ = cx.events.try_send(Event::Pulled { id: self.id.clone(), copied, progress });
            }
        };
        let made = work.make(self.record.clone(), &mut progress).await;
        // What was asked may have been done: the ledger knows more of it than we did before.
        made.map_err(|failure| cx.failed(failure, Record::read(&self.folder).ok().flatten()))
    }

    fn place_files(&self, work: &Work<'_>) -> Result<(), Failure> {
        files::put(&self.folder.work(), &work.order.files()?, files::Writing::InPlace)?;
        Ok(())
    }

    /// Starts the container that is there, or makes it anew: what is in the way of a restart is looked for only once it has
    /// failed.
    pub(super) async fn start_container(&self, cx: &Context, lives: bool) -> Result<Launched, StartFailure> {
        let policy = &self.assigned.content.stop;
        if let Some(id) = self.record.as_ref().and_then(|record| record.id.as_ref()).filter(|_| lives) {
            ask::stop(&cx.engine, id, policy)
                .await
                .map_err(|error| lives_on(cx.failed(error.into(), None)))?;
        }
        let work = self.work(cx)?;
        self.folder.write_state(&self.state).map_err(|error| StartFailure::ordinary(error.to_string()))?;
        if self.assigned.drift.mode == DriftMode::Correct {
            self.place_files(&work).map_err(|failure| cx.failed(failure, None))?;
        }
        work.check_policy().map_err(|failure| cx.failed(failure, None))?;
        let began = cx.now();
        if let Some(mut record) = self.record.clone().filter(|record| record.id.is_some()) {
            match work.start(&mut record).await {
                Ok(seen) => return self.launched(record, seen, began),
                Err(Failure::Engine(EngineError::NotFound(_))) => {}
                Err(failure) => return Err(self.give_up(cx, failure, record).await),
            }
            self.clear_away(cx, &record).await?;
        }
        let mut record = self.make(cx).await?;
        match work.start(&mut record).await {
            Ok(seen) => self.launched(record, seen, began),
            Err(failure) => Err(self.give_up(cx, failure, record).await),
        }
    }

    fn launched(&self, mut record: Record, seen: Seen, began: Timestamp) -> Result<Launched, StartFailure> {
        record.run = self.state.runs;
        record.write(&self.folder).map_err(|error| StartFailure::ordinary(error.to_string()))?;
        Ok(Launched::Container(Box::new(Started { record, seen, began })))
    }

    /// Not found may mean its network: then the container is there, bound to what is not, and is made anew.
    async fn clear_away(&self, cx: &Context, record: &Record) -> Result<(), StartFailure> {
        let Some(id) = &record.id else { return Ok(()) };
        ask::remove(&cx.engine, id).await.map_err(|error| cx.failed(error.into(), Some(record.clone())))
    }

    /// A container bound to a port that somebody holds cannot have another: it goes, and is made anew with one.
    async fn give_up(&self, cx: &Context, failure: Failure, record: Record) -> StartFailure {
        let failed = cx.failed(failure, Some(record));
        if failed.kind == FailureKind::PortTaken
            && let Some(record) = &failed.record
            && let Err(error) = self.clear_away(cx, record).await
        {
            return error;
        }
        failed
    }

    /// Its output is kept first: with the container it is gone.
    pub(super) async fn delete_container(&self, cx: &Context, keep: Keep) -> Result<(), String> {
        let told = |error: EngineError| {
            cx.doubt.notify_one();
            error.to_string()
        };
        let work = self.work(cx).map_err(|failure| failure.message)?;
        let record = self.record.clone().unwrap_or_default();
        let found = work.find(&record).await.map_err(|failure| failure.to_string())?;
        if let Some(seen) = found {
            ask::stop(&cx.engine, &seen.id, &self.assigned.content.stop).await.map_err(told)?;
            if let Some(went) = keep.output {
                self.keep_output(cx, &seen.id, went).await;
            }
            ask::remove(&cx.engine, &seen.id).await.map_err(told)?;
        } else if let Some(nonce) = record.unanswered() {
            notes::note_late(&cx.config.data, nonce, cx.now()).map_err(|error| error.to_string())?;
        }
        notes::forget_made(&cx.config.data, &self.id);
        Ok(())
    }

    async fn keep_output(&self, cx: &Context, container: &str, went: logs::Went) {
        let most = usize::try_from(cx.config.logs.kept_bytes).unwrap_or(usize::MAX);
        let kept = match output::last(&cx.engine, container, logs::LINES, most).await {
            Ok(bytes) => cx.kept.keep_bytes(&self.id, bytes, went).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = kept {
            tracing::warn!(instance = %self.id, %error, "its output could not be kept");
        }
    }

    /// Puts back what drifted, and looks again. What could not be put back is named, with why.
    async fn repair(
        &self,
        cx: &Context,
        paths: &[String],
        machine: &Machine,
    ) -> Result<(Look, BTreeMap<String, String>), StartFailure> {
        let record = self.record.clone().unwrap_or_default();
        let work = self.work(cx)?;
        let failed = |failure: Failure| cx.failed(failure, None);
        if paths.iter().any(|path| path.starts_with("files/")) {
            let mut rendered = work.order.files().map_err(|error| failed(error.into()))?;
            rendered.retain(|file, _| paths.contains(&format!("files/{file}")));
            files::put(&self.folder.work(), &rendered, files::Writing::InPlace)
                .map_err(|e| failed(e.into()))?;
        }
        let mut left = work.repair(&record, paths, machine).await;
        let looked = look(cx, &self.assigned, &self.folder, self.state.port, &record, true).await;
        let look = looked.map_err(|error| failed(error.into()))?.ok_or_else(|| {
            StartFailure::ordinary("its container was removed while it was being put right".into())
        })?;
        let differing: BTreeSet<String> = compare(cx, &self.assigned, &record, &look.seen, machine)
            .into_iter()
            .map(|difference| difference.path)
            .collect();
        // What was refused together with others may have been put back all the same.
        left.retain(|path, _| !path.starts_with("container/") || differing.contains(path));
        for path in differing.into_iter().filter(|path| paths.contains(path)) {
            left.entry(path).or_insert_with(|| "the engine agreed, and it is as it was".into());
        }
        Ok((look, left))
    }
}

impl Context {
    /// An engine that is away is asked again at once, so that everybody learns of it.
    fn failed(&self, failure: Failure, record: Option<Record>) -> StartFailure {
        let kind = match &failure {
            Failure::PortTaken(_) => FailureKind::PortTaken,
            Failure::VolumeGone { .. } => FailureKind::VolumeGone,
            failure if failure.is_away() => FailureKind::Away,
            failure if failure.is_outside() => FailureKind::Prevented,
            _ => FailureKind::Ordinary,
        };
        if kind == FailureKind::Away {
            self.doubt.notify_one();
        }
        StartFailure { message: failure.to_string(), kind, record: record.map(Box::new) }
    }
}

/// Unless its engine is away: then nothing is known.
fn lives_on(failure: StartFailure) -> StartFailure {
    match failure.kind {
        FailureKind::Away => failure,
        FailureKind::Ordinary
        | FailureKind::PortTaken
        | FailureKind::Prevented
        | FailureKind::VolumeGone
        | FailureKind::LivesOn => StartFailure { kind: FailureKind::LivesOn, ..failure },
    }
}

pub(super) fn make(cx: Arc<Context>, job: Job) {
    let id = job.id.clone();
    tokio::spawn(async move {
        let made = job.make(&cx).await.map(Box::new);
        let _ = cx.events.send(Event::Done { id, outcome: Outcome::Made(made) }).await;
    });
}

pub(super) fn repair(cx: Arc<Context>, job: Job, paths: Vec<String>, machine: Machine, hurry: Arc<Notify>) {
    let id = job.id.clone();
    // What was said before is no reason to leave off.
    let _before = hurry.notified().now_or_never();
    tokio::spawn(async move {
        let repair = async {
            match job.repair(&cx, &paths, &machine).await {
                Ok((look, left)) => Repair::Done { tried: paths, look: Some(Box::new(look)), left },
                Err(failure) => {
                    let left = paths.iter().map(|path| (path.clone(), failure.message.clone())).collect();
                    Repair::Done { tried: paths, look: None, left }
                }
            }
        };
        let repaired = tokio::select! {
            repaired = repair => repaired,
            () = hurry.notified() => Repair::LeftOff,
        };
        let _ = cx.events.send(Event::Done { id, outcome: Outcome::Repaired(repaired) }).await;
    });
}

/// `None`: there is certainly no such container.
pub(super) async fn look(
    cx: &Context,
    assigned: &Assigned,
    folder: &Folder,
    port: Option<u16>,
    record: &Record,
    image: bool,
) -> Result<Option<Look>, EngineError> {
    let Some(id) = &record.id else { return Ok(None) };
    let Some(seen) = ask::inspect(&cx.engine, id).await? else { return Ok(None) };
    let mut image_missing = None;
    if let Some(name) = assigned.content.image().filter(|_| image).and(pinned(assigned)) {
        image_missing = match registry::inspect(&cx.engine, &name).await {
            Ok(found) => Some(found.is_none()),
            Err(error) if error.is_away() => return Err(error),
            Err(error) => {
                tracing::warn!(%name, %error, "the engine cannot tell of an image");
                None
            }
        };
    }
    let rendered = order(cx, assigned, folder, port).and_then(|order| order.files().ok()).unwrap_or_default();
    let files = if rendered.is_empty() { Vec::new() } else { files::compare(&folder.work(), &rendered) };
    Ok(Some(Look { seen, image_missing, files }))
}

/// How a container differs from what its engine was told.
pub(super) fn compare(
    cx: &Context,
    assigned: &Assigned,
    record: &Record,
    seen: &Seen,
    machine: &Machine,
) -> Vec<Difference> {
    let Workload::Container(container) = &assigned.content.workload else { return Vec::new() };
    let project = &assigned.id.service.project;
    let network = look::network_of(container, || names::network(&cx.config.cluster, project));
    let wanted = Wanted {
        name: &record.name,
        network: network.as_deref(),
        aliases: &names::aliases(&assigned.id),
        limits: record.limits.as_ref(),
        resources: &assigned.content.resources,
        machine,
    };
    look::compare(&wanted, seen)
}

pub(super) fn pinned(assigned: &Assigned) -> Option<String> {
    match &assigned.content.workload {
        Workload::Container(container) => container.pinned_name(),
        Workload::Site(_) | Workload::Process(_) => None,
    }
}
