//! What operations do, in tasks of their own: on a copy of what they need, since the agent goes on.

use std::{sync::Arc, time::Duration};

use decide::node::{drift_policy, rest_after};
use model::{
    InstanceId,
    observation::{Copied, Exit},
    route::{EndpointEvent, EndpointHealth},
    spec::StopPolicy,
};

use super::{Context, Event, FailureKind, Launched, StartFailure};
use crate::{
    container::{Record, ask},
    instance::Instance,
    ledger::Folder,
    life::Ending,
    logs::{self, Went},
    process::{Live, live::Origin, start::Prepared, stop},
    site::{self, Site},
};

/// Watches a process: its address leaves the routes in the very moment in which the kernel says that it ended.
pub(super) fn watch(
    cx: &Arc<Context>,
    instance: &Instance,
    pidfd: sys::PidFd,
    identity: sys::Identity,
    run: u64,
    origin: Origin,
) -> std::io::Result<Live> {
    let first = down(cx, instance);
    let (events, id, clock) = (cx.events.clone(), instance.id.clone(), cx.clock.clone());
    Live::watch(pidfd, identity, run, origin, first, move |status| async move {
        let exit = Exit { at: clock.now(), status, why: None };
        let _ = events.send(Event::Ended { id, run, exit }).await;
    })
}

/// Takes its address out of the routes, when it is called.
pub(super) fn down(cx: &Arc<Context>, instance: &Instance) -> impl FnOnce() + Send + use<> {
    let down = instance.address(&cx.config.host).map(|address| EndpointEvent {
        instance: instance.id.clone(),
        address,
        health: EndpointHealth::Down,
    });
    let outside = cx.clone();
    move || {
        if let Some(down) = down {
            outside.outside.endpoint(down);
        }
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(format!("the operation broke off: {error}")),
    }
}

/// What failed is not tried again at once; news of the instance ends the pause.
pub(super) async fn pause_after<T>(result: &Result<T, String>, failures: u32, hurry: &tokio::sync::Notify) {
    if result.is_err() {
        pause(failures, hurry).await;
    }
}

pub(super) async fn pause(failures: u32, hurry: &tokio::sync::Notify) {
    let pause = Duration::from_millis(rest_after(failures).0);
    let _ = tokio::time::timeout(pause, hurry.notified()).await;
}

/// Ends what lives, in order.
pub(super) async fn end(cx: &Context, living: Ending, policy: &StopPolicy) -> Result<(), String> {
    match living {
        Ending::Process(process) => stop::stop(process, policy).await.map_err(|error| error.to_string()),
        Ending::Container(id) => ask::stop(&cx.engine, &id, policy).await.map_err(|error| error.to_string()),
    }
}

/// What a removal leaves.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Keep {
    pub output: Option<Went>,
    pub current: bool,
    pub webroot: bool,
}

/// What an operation needs of its instance: a copy, since the agent goes on.
pub(super) struct Job {
    pub(super) id: InstanceId,
    pub(super) assigned: Arc<model::assignment::Assigned>,
    pub(super) folder: Folder,
    pub(super) state: crate::ledger::State,
    site: Option<Site>,
    prepared: Option<Arc<Prepared>>,
    pub(super) record: Option<Record>,
    pub(super) unwanted: Arc<tokio::sync::Notify>,
}

impl Job {
    pub(super) fn of(instance: &Instance) -> Self {
        Self {
            id: instance.id.clone(),
            assigned: instance.assigned.clone(),
            folder: instance.folder.clone(),
            state: instance.state.clone(),
            site: instance.site.clone(),
            prepared: instance.prepared.clone(),
            record: instance.record().cloned(),
            unwanted: instance.unwanted.clone(),
        }
    }

    pub(super) fn install(&self, cx: &Context) -> Result<Option<site::View>, String> {
        self.folder.create(&self.assigned).map_err(|error| error.to_string())?;
        self.folder.write_state(&self.state).map_err(|error| error.to_string())?;
        match &self.site {
            Some(site) => self.install_site(cx, site).map(Some).map_err(|error| error.to_string()),
            None => {
                let prepared = self.prepare(cx).map_err(|error| error.to_string())?;
                prepared.place_files(&self.folder).map_err(|error| error.to_string())?;
                Ok(None)
            }
        }
    }

    fn install_site(&self, cx: &Context, site: &Site) -> Result<site::View, site::Error> {
        let artifact = self.artifact(cx)?;
        let total = u64::try_from(artifact.files.len()).unwrap_or(u64::MAX);
        let mut told = std::time::Instant::now();
        let mut progress = |progress: content::Progress| {
            // Often enough for a progress bar, and for the planner to see that it goes on.
            if told.elapsed() > Duration::from_millis(100) || progress.files == total {
                told = std::time::Instant::now();
                let copied = Copied { files: progress.files, total, bytes: 0 };
                let _ = cx.events.try_send(Event::Copied { id: self.id.clone(), copied });
            }
        };
        site.install(&cx.blobs, &artifact, &mut progress)?;
        site.check(&artifact, false, content::place::Depth::Whole)
    }

    fn artifact(&self, cx: &Context) -> Result<model::artifact::Artifact, site::Error> {
        let digest = self.assigned.content.artifact().ok_or(site::Error::NoContent)?;
        Ok(cx.content.artifact(&digest)?)
    }

    pub(super) fn update(&self, cx: &Context) -> Result<site::View, String> {
        match &self.site {
            Some(site) => self.update_site(cx, site).map_err(|error| error.to_string()),
            None => self.update_files(cx).map_err(|error| error.to_string()),
        }
    }

    fn update_site(&self, cx: &Context, site: &Site) -> Result<site::View, site::Error> {
        let update = site::Update {
            drift: drift_policy(&self.assigned, self.state.switched),
            current: self.assigned.current,
            switched: self.state.switched,
        };
        site.update(&cx.blobs, &self.artifact(cx)?, &update)
    }

    fn update_files(&self, cx: &Context) -> Result<site::View, crate::process::start::Error> {
        let mut prepared = self.prepare(cx)?;
        let all = prepared.files.clone();
        // Somebody may have removed all of it.
        self.folder.create(&self.assigned)?;
        prepared.files.retain(|file, _| site::corrects(&self.assigned.drift, &format!("files/{file}")));
        prepared.place_files(&self.folder)?;
        Ok(super::compare::view_of_files(&self.folder, &all))
    }

    fn prepare(&self, cx: &Context) -> Result<Prepared, crate::process::start::Error> {
        let model::spec::Workload::Process(process) = &self.assigned.content.workload else {
            return Err(crate::process::lookup::Error::Empty.into());
        };
        cx.surroundings.prepare(&self.id, &self.assigned.content, process, self.state.port, &self.folder)
    }

    /// Ends what lives, then starts. Nothing here waits for the disk to be synced.
    pub(super) async fn start(&self, cx: &Context, before: Option<Ending>) -> Result<Launched, StartFailure> {
        if self.is_container() {
            return self.start_container(cx, before.is_some()).await;
        }
        if let Some(before) = before {
            let ended = end(cx, before, &self.assigned.content.stop).await;
            ended.map_err(|message| StartFailure {
                kind: FailureKind::LivesOn,
                ..StartFailure::ordinary(message)
            })?;
        }
        let prepared = match &self.prepared {
            Some(prepared) => prepared.clone(),
            None => Arc::new(self.prepare(cx)?),
        };
        if self.prepared.is_none() || self.assigned.drift.mode == model::spec::DriftMode::Correct {
            prepared.place_files(&self.folder)?;
        }
        let began = cx.now();
        let (pidfd, identity) = prepared.start(&self.folder, &self.state, &cx.surroundings.boot).await?;
        Ok(Launched::Process { pidfd, identity, prepared, began })
    }

    pub(super) async fn delete(
        self,
        cx: &Arc<Context>,
        living: Option<Ending>,
        keep: Keep,
    ) -> Result<(), String> {
        if self.is_container() {
            self.delete_container(cx, keep).await?;
        } else if let Some(living) = living {
            end(cx, living, &self.assigned.content.stop).await?;
        }
        let _permit = cx.files.acquire().await;
        let cx = cx.clone();
        blocking(move || {
            if let Some(went) = keep.output.filter(|_| !self.is_container()) {
                let files = logs::all(&self.folder.log(), cx.config.logs.files);
                if let Err(error) = cx.kept.keep(&self.id, &files, went) {
                    tracing::warn!(instance = %self.id, %error, "its output could not be kept");
                }
            }
            if let Some(site) = &self.site {
                site.remove(!keep.current, !keep.webroot).map_err(|error| error.to_string())?;
            }
            self.folder.remove().map_err(|error| error.to_string())
        })
        .await
    }
}
