//! Begins an operation in a task of its own, and takes its outcome.

use std::{sync::Arc, time::Duration};

use decide::{
    health::Health,
    node::{Busy, Install, Operation},
};
use model::{
    InstanceId, Timestamp,
    event::Kind,
    instance::Attempts,
    observation::{Copied, Exit, ExitStatus},
    route::{EndpointEvent, EndpointHealth},
    spec::Port,
};
use tokio::sync::oneshot;

use super::{Agent, Context, Event, Launched, Outcome, StartFailure, Workloads};
use crate::{
    instance::{Instance, Run},
    ledger::Folder,
    logs,
    process::{
        Live,
        live::{Handle, Origin},
        ports,
        start::Prepared,
        stop,
    },
    site::{self, Site},
};

/// Moves to another port, because somebody held the one before, in a row.
const MAX_PORT_MOVES: u32 = 10;
/// After operations that failed in a row.
const PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(10);

impl Agent {
    pub(super) fn operate(&mut self, id: &InstanceId, operation: Operation, now: Timestamp) {
        match operation {
            Operation::Nothing => {}
            Operation::Install { attempts } => self.install(id, attempts, now),
            Operation::Restart { attempts } => self.restart(id, attempts, now),
            Operation::Update => self.update(id),
            Operation::Delete => self.delete(id, now),
        }
    }

    fn install(&mut self, id: &InstanceId, attempts: Attempts, now: Timestamp) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        instance.state.attempts = attempts;
        instance.busy = Some(Busy::Installing);
        if let Err(error) = give_port(&mut self.ports, instance) {
            instance.busy = None;
            instance.install = Install::Failed { at: now, message: error.to_string() };
            Self::remember(instance);
            return self.touch(id);
        }
        let (cx, id) = (self.cx.clone(), id.clone());
        let job = Job::of(instance);
        tokio::spawn(async move {
            let _permit = cx.files.acquire().await;
            let inner = cx.clone();
            let installed = blocking(move || job.install(&inner)).await;
            let _ = cx.events.send(Event::Done { id, outcome: Outcome::Installed(installed) }).await;
        });
    }

    fn restart(&mut self, id: &InstanceId, attempts: Attempts, now: Timestamp) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        let before = instance.live().map(Live::handle);
        if before.is_some() {
            self.cx.say_endpoint(instance, EndpointHealth::Down);
        }
        instance.state.attempts = attempts;
        instance.state.runs += 1;
        instance.state.started_at = Some(now);
        instance.state.ready = false;
        instance.state.ended_by_us = false;
        instance.busy = Some(Busy::Starting);
        instance.stop_probing();
        let job = Job::of(instance);
        let (cx, id) = (self.cx.clone(), id.clone());
        tokio::spawn(async move {
            let started = job.start(&cx, before).await;
            let _ = cx.events.send(Event::Done { id, outcome: Outcome::Started(started) }).await;
        });
    }

    fn update(&mut self, id: &InstanceId) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        instance.busy = Some(Busy::Updating);
        let job = Job::of(instance);
        let (cx, id, hurry, failures) =
            (self.cx.clone(), id.clone(), instance.hurry.clone(), instance.failures);
        tokio::spawn(async move {
            let permit = cx.files.acquire().await;
            let inner = cx.clone();
            let updated = blocking(move || job.update(&inner)).await;
            drop(permit);
            pause_after(&updated, failures, &hurry).await;
            let _ = cx.events.send(Event::Done { id, outcome: Outcome::Updated(updated) }).await;
        });
    }

    fn delete(&mut self, id: &InstanceId, now: Timestamp) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        if instance.process().is_some() && instance.report.as_ref().is_some_and(|report| report.ready) {
            self.cx.say_endpoint(instance, EndpointHealth::Down);
        }
        instance.busy = Some(Busy::Stopping { since: now });
        let process = instance.live().map(Live::handle);
        let failures = instance.failures;
        let hurry = instance.hurry.clone();
        let failed = instance.state.attempts.total > 0 || !instance.state.ready;
        let keep = failed && instance.process().is_some();
        let job = Job::of(instance);
        let keep = Keep { output: keep, ..self.links_of_others(id) };
        let (cx, id) = (self.cx.clone(), id.clone());
        tokio::spawn(async move {
            let deleted = job.delete(&cx, process, keep).await;
            pause_after(&deleted, failures, &hurry).await;
            let _ = cx.events.send(Event::Done { id, outcome: Outcome::Deleted(deleted) }).await;
        });
    }

    /// What another deployment of the same service has taken over, or is about to: its links are not this one's to
    /// remove.
    fn links_of_others(&self, id: &InstanceId) -> Keep {
        let Some(going) = self.instances.get(id).and_then(|instance| instance.site.as_ref()) else {
            return Keep::default();
        };
        let same_service = |other: &&Instance| other.id.service == id.service && other.id != *id;
        let mut keep = Keep::default();
        for other in self.instances.values().filter(same_service) {
            if let Some(site) = other.site.as_ref().filter(|_| other.wanted && other.assigned.current) {
                keep.current = true;
                keep.webroot |= site.webroot == going.webroot;
            }
        }
        keep
    }

    pub(super) fn done(&mut self, id: &InstanceId, outcome: Outcome) {
        let now = self.cx.now();
        let Some(instance) = self.instances.get_mut(id) else { return };
        instance.busy = None;
        match outcome {
            Outcome::Installed(result) => self.installed(id, result, now),
            Outcome::Updated(result) => self.updated(id, result),
            Outcome::Started(result) => self.started(id, result, now),
            Outcome::Deleted(result) => return self.deleted(id, result),
            Outcome::Stopped(result) => self.stopped(id, result),
        }
        self.touch(id);
    }

    fn installed(&mut self, id: &InstanceId, result: Result<Option<site::View>, String>, now: Timestamp) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        match result {
            Ok(view) => {
                instance.install = Install::Whole;
                instance.state.installed = true;
                Self::remember(instance);
                self.unsynced.insert(instance.folder.path().to_owned());
                if let Some(view) = view {
                    self.see(id, view);
                    self.watch_site(id);
                }
            }
            Err(message) => {
                instance.install =
                    Install::Failed { at: now, message: format!("it cannot be installed: {message}") };
                Self::remember(instance);
            }
        }
    }

    fn updated(&mut self, id: &InstanceId, result: Result<site::View, String>) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        match result {
            Ok(view) => {
                instance.failures = 0;
                instance.trouble = None;
                self.see(id, view);
                self.watch_site(id);
            }
            Err(message) => {
                instance.failures += 1;
                instance.trouble = Some(format!("it cannot be put right: {message}"));
            }
        }
    }

    fn started(&mut self, id: &InstanceId, result: Result<Launched, StartFailure>, now: Timestamp) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        match result {
            Ok(Launched { pidfd, identity, prepared, began }) => {
                instance.prepared = Some(prepared);
                instance.trouble = None;
                let run = instance.state.runs;
                let health = Health::new(&instance.assigned.content.health, began);
                instance.state.started_at = Some(began);
                instance.state.ready = health.ready;
                match watch(&self.cx, instance, pidfd, identity, run, Origin::Started) {
                    Ok(live) => instance.run = Run::Alive { live, health },
                    Err(error) => {
                        instance.run =
                            Run::Unknown { since: now, cause: format!("it cannot be watched: {error}") };
                    }
                }
                if instance.assigned.content.resources.millicpus.is_some() {
                    tracing::warn!(instance = %id, "`cpus` is not enforced for processes: start it through a tool that does");
                }
                let again = if instance.state.attempts.total > 0 { "started again" } else { "started" };
                self.cx.say(
                    instance,
                    Kind::InstanceStarted,
                    format!("{id} {again} with pid {}", identity.pid),
                );
            }
            Err(failure) => {
                // Nothing ran: the budget counts it as an install that failed.
                instance.prepared = None;
                instance.run = Run::NotStarted;
                instance.install = Install::Failed { at: now, message: failure.message };
                Self::remember(instance);
            }
        }
    }

    /// The kernel has said that a process ended.
    pub(super) fn ended(&mut self, id: &InstanceId, run: u64, status: ExitStatus) {
        let now = self.cx.now();
        let Some(instance) = self.instances.get_mut(id) else { return };
        let Run::Alive { live, health } = &instance.run else { return };
        if live.run != run {
            return;
        }
        let was_ready = health.ready;
        let exit = Exit { at: now, status };
        instance.stop_probing();
        instance.state.ready = false;
        instance.state.ended_run = Some(run);
        instance.state.last_exit = Some(exit.clone());
        instance.run = Run::Ended { started: instance.state.started_at, exit };
        let asked = matches!(instance.busy, Some(Busy::Starting | Busy::Stopping { .. }));
        if !asked {
            self.cx.say(instance, Kind::InstanceExited, format!("{id} ended with {status}"));
            if !was_ready {
                self.move_port(id);
            }
        }
        self.touch(id);
        self.remember_end(id);
    }

    /// The start task writes the state with its count; where none was begun it is written here.
    fn remember_end(&mut self, id: &InstanceId) {
        if let Some(instance) = self.instances.get_mut(id)
            && instance.busy.is_none()
        {
            Self::remember(instance);
        }
    }

    /// It ended before it was ready, and somebody else holds its port: another port, and no attempt.
    fn move_port(&mut self, id: &InstanceId) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        let Some(port) = instance.state.port else { return };
        if ports::is_free(&self.cx.config.host, port) {
            return;
        }
        if !instance.has_dynamic_port() {
            let taken = ports::Error::Taken { port, host: self.cx.config.host.clone() };
            instance.trouble = Some(taken.to_string());
            return;
        }
        if instance.state.port_moves >= MAX_PORT_MOVES {
            return;
        }
        self.ports.release(id);
        if let Ok(other) = self.ports.give(id, random_start()) {
            tracing::info!(instance = %id, port, other, "its port was taken by another program; it gets another");
            instance.state.port = Some(other);
            instance.state.port_moves += 1;
            instance.prepared = None;
            instance.run = Run::NotStarted;
        }
    }

    fn deleted(&mut self, id: &InstanceId, result: Result<(), String>) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        if let Err(message) = result {
            instance.failures += 1;
            instance.trouble = Some(format!("it cannot be removed: {message}"));
            return self.touch(id);
        }
        self.cx.say(instance, Kind::InstanceGone, format!("{id} is gone"));
        self.forget_site(id);
        self.ports.release(id);
        self.timers.set(id, None);
        self.log_cuts.remove(id);
        let again = self.instances.remove(id).filter(|instance| instance.wanted);
        self.publisher.remove(id);
        if let Some(instance) = again {
            // Assigned once more while it went: it begins anew.
            let fresh =
                Instance::new(instance.assigned.clone(), instance.folder.clone(), &self.cx.config.sites);
            self.instances.insert(id.clone(), fresh);
            self.touch(id);
        }
    }

    pub(super) fn copied(&mut self, id: &InstanceId, copied: Copied) {
        if let Some(instance) = self.instances.get_mut(id) {
            instance.copied = Some(copied);
        }
        self.touch(id);
    }

    /// Writes what must outlive the agent. While an operation runs, that operation's own copy is the one on disk.
    pub(super) fn remember(instance: &Instance) {
        if !instance.folder.path().is_dir() {
            return;
        }
        if let Err(error) = instance.folder.write_state(&instance.state) {
            tracing::warn!(instance = %instance.id, %error, "its state is held in memory alone");
        }
    }

    pub(super) fn shut_down(&mut self, workloads: Workloads, done: oneshot::Sender<()>) {
        self.ending = Some((workloads, done));
        if workloads == Workloads::Stop {
            let ids: Vec<_> = self.instances.keys().cloned().collect();
            for id in &ids {
                self.stop_for_good(id);
            }
        }
        for instance in self.instances.values() {
            instance.hurry.notify_one();
        }
    }

    /// The mark comes before the signal: what ends from here on is no crash.
    fn stop_for_good(&mut self, id: &InstanceId) {
        let now = self.cx.now();
        let Some(instance) = self.instances.get_mut(id).filter(|instance| instance.busy.is_none()) else {
            return;
        };
        instance.state.ended_by_us = true;
        Self::remember(instance);
        let Some(process) = instance.live().map(Live::handle) else { return };
        self.cx.say_endpoint(instance, EndpointHealth::Down);
        instance.busy = Some(Busy::Stopping { since: now });
        let policy = instance.assigned.content.stop.clone();
        let (cx, id) = (self.cx.clone(), id.clone());
        tokio::spawn(async move {
            let stopped = stop::stop(process, &policy).await.map_err(|error| error.to_string());
            let _ = cx.events.send(Event::Done { id, outcome: Outcome::Stopped(stopped) }).await;
        });
        let id = instance.id.clone();
        self.touch(&id);
    }

    fn stopped(&mut self, id: &InstanceId, result: Result<(), String>) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        match result {
            Ok(()) => {
                instance.run = Run::NotStarted;
                self.cx.say(instance, Kind::InstanceStopped, format!("{id} was ended with Setpoint"));
            }
            Err(message) => instance.trouble = Some(message),
        }
        Self::remember(instance);
    }

    /// Starts and ends under way are waited for; what was started meanwhile is then ended too.
    pub(super) fn is_over(&mut self) -> bool {
        let Some((workloads, _)) = &self.ending else { return false };
        if *workloads == Workloads::Stop {
            let late: Vec<_> = self
                .instances
                .values()
                .filter(|instance| {
                    instance.busy.is_none() && instance.live().is_some() && !is_hopeless(instance)
                })
                .map(|instance| instance.id.clone())
                .collect();
            for id in &late {
                self.stop_for_good(id);
            }
        }
        // A folder that is half placed stays half placed, and is none: only processes must not be left between.
        let between =
            |instance: &Instance| matches!(instance.busy, Some(Busy::Starting | Busy::Stopping { .. }));
        !self.instances.values().any(between)
    }

    pub(super) fn end(&mut self) {
        self.publisher.publish(self.cx.now());
        if let Some((_, done)) = self.ending.take() {
            let _ = done.send(());
        }
    }
}

/// Not even SIGKILL ended it.
fn is_hopeless(instance: &Instance) -> bool {
    instance.state.ended_by_us && instance.trouble.is_some()
}

fn give_port(ports: &mut ports::Ports, instance: &mut Instance) -> Result<(), ports::Error> {
    match (instance.assigned.content.port, instance.state.port) {
        (None, _) => Ok(()),
        (Some(Port::Fixed(port)), _) => {
            ports.take(&instance.id, port)?;
            instance.state.port = Some(port);
            Ok(())
        }
        // Its own from before: it lasts for the instance's life.
        (Some(Port::Dynamic), Some(_)) => Ok(()),
        (Some(Port::Dynamic), None) => {
            instance.state.port = Some(ports.give(&instance.id, random_start())?);
            Ok(())
        }
    }
}

fn random_start() -> u16 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library's per-map seed, from the kernel's randomness.
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    u16::try_from(random & 0xffff).unwrap_or_default()
}

/// Watches a process: its address leaves the routes in the very moment in which the kernel says that it ended.
pub(super) fn watch(
    cx: &Arc<Context>,
    instance: &Instance,
    pidfd: sys::PidFd,
    identity: sys::Identity,
    run: u64,
    origin: Origin,
) -> std::io::Result<Live> {
    let down = instance.address(&cx.config.host).map(|address| EndpointEvent {
        instance: instance.id.clone(),
        address,
        health: EndpointHealth::Down,
    });
    let outside = cx.clone();
    let first = move || {
        if let Some(down) = down {
            outside.outside.endpoint(down);
        }
    };
    let (events, id) = (cx.events.clone(), instance.id.clone());
    Live::watch(pidfd, identity, run, origin, first, move |status| async move {
        let _ = events.send(Event::Ended { id, run, status }).await;
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(format!("the operation broke off: {error}")),
    }
}

/// What failed is not tried again at once; news of the instance ends the pause.
async fn pause_after<T>(result: &Result<T, String>, failures: u32, hurry: &tokio::sync::Notify) {
    if result.is_err() {
        let pause = PAUSE.saturating_mul(1 << failures.min(10)).min(MAX_PAUSE);
        let _ = tokio::time::timeout(pause, hurry.notified()).await;
    }
}

/// What a removal leaves.
#[derive(Debug, Clone, Copy, Default)]
struct Keep {
    output: bool,
    current: bool,
    webroot: bool,
}

/// What an operation needs of its instance: a copy, since the agent goes on.
struct Job {
    id: InstanceId,
    assigned: Arc<model::assignment::Assigned>,
    folder: Folder,
    state: crate::ledger::State,
    site: Option<Site>,
    prepared: Option<Arc<Prepared>>,
}

impl Job {
    fn of(instance: &Instance) -> Self {
        Self {
            id: instance.id.clone(),
            assigned: instance.assigned.clone(),
            folder: instance.folder.clone(),
            state: instance.state.clone(),
            site: instance.site.clone(),
            prepared: instance.prepared.clone(),
        }
    }

    fn install(&self, cx: &Context) -> Result<Option<site::View>, String> {
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
                let copied = Copied { files: progress.files, total };
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

    fn update(&self, cx: &Context) -> Result<site::View, String> {
        match &self.site {
            Some(site) => self.update_site(cx, site).map_err(|error| error.to_string()),
            None => self.update_files(cx).map_err(|error| error.to_string()),
        }
    }

    fn update_site(&self, cx: &Context, site: &Site) -> Result<site::View, site::Error> {
        let update = site::Update {
            drift: self.assigned.drift.clone(),
            current: self.assigned.current,
            switched: self.state.switched,
        };
        site.update(&cx.blobs, &self.artifact(cx)?, &update)
    }

    fn update_files(&self, cx: &Context) -> Result<site::View, crate::process::start::Error> {
        let mut prepared = self.prepare(cx)?;
        let all = prepared.files.clone();
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
    async fn start(&self, cx: &Context, before: Option<Handle>) -> Result<Launched, StartFailure> {
        if let Some(before) = before {
            let stopped = stop::stop(before, &self.assigned.content.stop).await;
            stopped.map_err(|error| StartFailure { message: error.to_string() })?;
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
        Ok(Launched { pidfd, identity, prepared, began })
    }

    async fn delete(self, cx: &Arc<Context>, process: Option<Handle>, keep: Keep) -> Result<(), String> {
        if let Some(process) = process {
            let stopped = stop::stop(process, &self.assigned.content.stop).await;
            stopped.map_err(|error| error.to_string())?;
        }
        let _permit = cx.files.acquire().await;
        let cx = cx.clone();
        blocking(move || {
            if keep.output {
                let files = logs::all(&self.folder.log(), cx.config.logs.files);
                if let Err(error) = cx.kept.keep(&self.id, &files) {
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
