//! What is known of each container: looks at it, its life and its end, and what operations on it came to.

use std::collections::BTreeMap;

use decide::{
    health::{Health, Purpose},
    node::Install,
};
use model::{
    InstanceId, Timestamp,
    container::Network,
    event::Kind,
    observation::{Copied, Exit, ExitStatus},
    spec::{Check, Template},
};

use super::{
    Agent, Context, Event, FailureKind, StartFailure, Started,
    container_job::{compare, look as look_at, order, pinned},
};
use crate::{
    container::{
        Record, Seen, deeds,
        engine::Error as EngineError,
        look::{self, Judged, State},
        names,
        probe::Inside,
        record::FoundRun,
        registry,
        watch::Watched,
    },
    instance::{Instance, Run},
    life::Life,
    process::files,
    site,
};

/// What a look at one container found. `None` for an image or files that were not looked at.
#[derive(Debug)]
pub(crate) struct Look {
    pub seen: Seen,
    pub image_missing: Option<bool>,
    pub files: Vec<files::Difference>,
}

/// What putting a container right came to.
#[derive(Debug)]
pub(crate) enum Repair {
    /// What was tried, how it is now, and what of that could not be put right, with why.
    Done { tried: Vec<String>, look: Option<Box<Look>>, left: BTreeMap<String, String> },
    /// Something more urgent came: it ended, or shall end.
    LeftOff,
}

/// After a start of the node: nothing is known of a container before its engine has been asked.
pub(super) fn take_over(instance: &mut Instance, now: Timestamp) {
    match Record::read(&instance.folder) {
        Ok(Some(record)) => {
            instance.hold(record);
            let cause = "its engine has not been asked yet".into();
            instance.run = Run::Unknown { since: now, cause };
            if let Some(held) = &mut instance.held {
                held.unasked = Some(now);
            }
        }
        // Nothing was ever asked of an engine: there is nothing to be unknown.
        Ok(None) => instance.run = Run::NotStarted,
        Err(error) => instance.run = Run::Unknown { since: now, cause: error.to_string() },
    }
}

/// How a probe gets into the container, where that is needed.
pub(super) fn inside(cx: &Context, instance: &Instance) -> Option<Inside> {
    let container = instance.container()?;
    Some(Inside {
        engine: cx.engine.clone(),
        container: instance.record()?.id.clone()?,
        pid: instance.life().filter(|life| life.is_seen()).and_then(Life::pid),
        port: container.port.filter(|_| {
            container.network == Network::Project && !instance.record().is_some_and(|r| r.direct)
        }),
    })
}

/// Where a container is reached by its own address.
pub(super) fn direct(instance: &Instance) -> Option<(String, u16)> {
    let record = instance.record().filter(|record| record.direct)?;
    Some((record.address.clone()?, instance.container()?.port?))
}

pub(super) fn command(cx: &Context, instance: &Instance, words: &[Template]) -> Result<Vec<String>, String> {
    let order =
        order(cx, &instance.assigned, &instance.folder, instance.state.port).ok_or("it is no container")?;
    order.command("health", words).map_err(|error| error.to_string())
}

impl Agent {
    pub(super) fn note_container(&mut self, instance: &Instance) {
        if let Some(container) = instance.record().and_then(|record| record.id.clone()) {
            self.containers.insert(container, instance.id.clone());
        }
    }

    /// One look at a time; what is asked for meanwhile comes after.
    pub(super) fn look_at_container(&mut self, id: &InstanceId, image: bool) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        let (record, busy) = (instance.record().cloned(), instance.busy.is_some());
        let Some(held) = &mut instance.held else { return };
        held.look_at_image |= image;
        if busy || std::mem::replace(&mut held.looking, true) {
            held.look_again = true;
            return;
        }
        held.look_again = false;
        let image = std::mem::take(&mut held.look_at_image);
        let (cx, id) = (self.cx.clone(), id.clone());
        let (assigned, folder, port) =
            (instance.assigned.clone(), instance.folder.clone(), instance.state.port);
        let container = record.as_ref().and_then(|record| record.id.clone());
        tokio::spawn(async move {
            let look = match record {
                Some(record) => look_at(&cx, &assigned, &folder, port, &record, image)
                    .await
                    .map(|look| look.map(Box::new)),
                None => Ok(None),
            };
            let _ = cx.events.send(Event::LookedAt { id, container, look }).await;
        });
    }

    pub(super) fn looked_at(
        &mut self,
        id: &InstanceId,
        container: Option<&str>,
        look: Result<Option<Box<Look>>, EngineError>,
    ) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        let about_another = match (instance.record(), container) {
            (Some(record), Some(asked)) => !record.is_about(asked),
            (Some(record), None) => record.id.is_some(),
            (None, Some(_)) => true,
            (None, None) => false,
        };
        if let Some(held) = &mut instance.held {
            held.looking = false;
        }
        // After an outage it is known from now on.
        self.engine.tell(instance);
        match look {
            // Something is being done there; its own outcome says how it is.
            _ if instance.busy.is_some() => {}
            // It was asked before there was another.
            Ok(_) if about_another => {
                if let Some(held) = &mut instance.held {
                    held.look_again = true;
                }
            }
            Ok(Some(look)) => self.take_look(id, &look),
            Ok(None) => self.container_gone(id),
            Err(error) if error.is_away() => self.engine_silent(error.to_string()),
            Err(error) => {
                tracing::warn!(instance = %id, %error, "its container cannot be looked at");
                if let Run::Unknown { cause, .. } = &mut instance.run {
                    *cause = format!("its engine cannot tell of it: {error}");
                }
                // At the next list.
                if let Some(held) = &mut instance.held {
                    held.glance.clear();
                }
            }
        }
        self.touch(id);
        self.look_again(id);
    }

    /// What was asked for while something else was under way.
    pub(super) fn look_again(&mut self, id: &InstanceId) {
        let again = self.instances.get(id).is_some_and(|instance| {
            instance.busy.is_none()
                && instance.held.as_ref().is_some_and(|held| held.look_again && !held.looking)
        });
        if again {
            self.look_at_container(id, false);
        }
    }

    /// With its ledger lost it was given a port, and has another one already.
    fn follow_port(&mut self, id: &InstanceId, seen: &Seen) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        let Some(port) = seen.port.filter(|port| instance.state.port != Some(*port)) else { return };
        if !instance.has_dynamic_port() {
            return;
        }
        self.ports.release(id);
        self.ports.note(port, id);
        instance.state.port = Some(port);
        Self::remember(instance);
    }

    /// What a look says: of its life first, then of what differs.
    fn take_look(&mut self, id: &InstanceId, look: &Look) {
        self.follow_port(id, &look.seen);
        self.take_state(id, &look.seen);
        let Some(instance) = self.instances.get_mut(id) else { return };
        let Some(held) = &mut instance.held else { return };
        held.image_missing = look.image_missing.unwrap_or(held.image_missing);
        let image_missing = held.image_missing;
        let differences = self.differences(id, look, image_missing);
        self.see(id, site::View { differences, current: false });
        self.deeds_seen(id);
    }

    fn differences(&self, id: &InstanceId, look: &Look, image_missing: bool) -> Vec<site::Difference> {
        let Some(instance) = self.instances.get(id) else { return Vec::new() };
        let Some(record) = instance.record() else { return Vec::new() };
        let machine = &self.engine.machine;
        let mut differences = compare(&self.cx, &instance.assigned, record, &look.seen, machine);
        if image_missing {
            let declared = pinned(&instance.assigned);
            differences.push(site::Difference { path: "image".into(), declared, observed: None, ours: true });
        }
        if !look.seen.state.lives() && instance.state.drift_since.contains_key(deeds::RUNNING_PATH) {
            differences.push(deeds::not_running());
        }
        differences.extend(look.files.iter().map(|difference| site::Difference {
            path: format!("files/{}", difference.file),
            declared: Some(difference.declared.clone()),
            observed: difference.observed.clone(),
            ours: true,
        }));
        differences
    }

    fn take_state(&mut self, id: &InstanceId, seen: &Seen) {
        let now = self.cx.now();
        let network = self.network_of(id);
        let Some(instance) = self.instances.get_mut(id) else { return };
        let started = instance.record().and_then(|record| record.started.clone());
        let of_this_run = instance.record().is_some_and(|record| record.is_run_of(seen));
        let direct = instance.record().is_some_and(|record| record.direct);
        instance.note_network(seen.is_off(network.as_deref(), direct), now);
        match &seen.state {
            State::Running | State::Paused => {
                let known = instance.life().is_some() && started == seen.started;
                if known {
                    self.follow_address(id, seen);
                } else {
                    self.adopt_run(id, seen);
                }
                self.judge(id, seen);
            }
            State::Created => {
                if let Run::Unknown { .. } | Run::Alive { .. } = instance.run {
                    instance.run = Run::NotStarted;
                }
            }
            State::Ended { exit, error, .. } => {
                let began = instance.state.started_at.filter(|_| of_this_run);
                let told = instance.held.as_ref().and_then(|held| held.ended_at);
                let at = told.unwrap_or_else(|| seen.ended_at(began, now));
                let exit = Exit { at, status: *exit, why: seen.why_ended() };
                let error = error.clone();
                match &instance.run {
                    // Looked at before it was started anew.
                    Run::Alive { .. } if !of_this_run => return,
                    Run::Alive { life, .. } => {
                        let run = life.run();
                        self.ended(id, run, exit);
                    }
                    // Whether it ended with its engine is known once that has been listed, and then it is looked at again.
                    Run::Unknown { .. } if self.engine.is_away() => return,
                    Run::Unknown { .. } => {
                        // A start that nobody heard of was made, and what was counted for it is spent.
                        instance.state.granted &= of_this_run;
                        let exit = self.lay_unwatched(id, exit, seen);
                        self.ended_unseen(id, Some(exit));
                    }
                    Run::NotStarted | Run::Ended { .. } => {}
                }
                if let Some(instance) = self.instances.get_mut(id) {
                    instance.trouble = error;
                }
            }
            State::Dead => self.ended_unseen(id, None),
        }
        if let Some(held) = self.instances.get_mut(id).and_then(|instance| instance.held.as_mut()) {
            held.unasked = None;
        }
    }

    /// It runs, and not by a start of ours that we know of: after our own absence, or because somebody started it.
    fn adopt_run(&mut self, id: &InstanceId, seen: &Seen) {
        let now = self.cx.now();
        let network = self.network_of(id);
        let Some(instance) = self.instances.get_mut(id) else { return };
        let Some(mut record) = instance.record().cloned() else { return };
        let same = record.started == seen.started && record.run > 0;
        // A start of ours whose answer was lost.
        let untold = instance.state.granted && matches!(instance.run, Run::Unknown { .. });
        let found = (!same).then(|| record.found_run(instance.state.runs, untold));
        let (run, began) = match found {
            None => (record.run, instance.state.started_at.unwrap_or(now)),
            Some(FoundRun::Tried(run) | FoundRun::New(run)) => (run, now),
        };
        record.started.clone_from(&seen.started);
        record.run = run;
        record.addressed(seen, network.as_deref());
        if record.limits.is_none() && instance.held.as_ref().is_some_and(|held| held.record.is_some()) {
            record.name.clone_from(&seen.name);
        }
        if let Err(error) = record.write(&instance.folder) {
            tracing::warn!(instance = %id, %error, "its container is held in memory alone");
        }
        instance.hold(record);
        instance.state.runs = instance.state.runs.max(run);
        instance.state.started_at = Some(began);
        instance.state.ended_by_us = false;
        instance.state.granted = false;
        let health = if same {
            Health::adopted(instance.health(), began, instance.state.ready, now)
        } else {
            Health::new(instance.health(), began)
        };
        instance.state.ready = health.ready;
        self.watch_container(id, seen, run, health);
        self.runs_again(id);
        if let Some(instance) = self.instances.get(id) {
            let message = match found {
                None => format!("{id} runs on"),
                Some(FoundRun::Tried(_)) => format!("{id} runs: the answer to its start was lost"),
                Some(FoundRun::New(_)) => format!("{id} was started by somebody"),
            };
            self.cx.say(instance, Kind::InstanceAdopted, message);
            Self::remember(instance);
        }
    }

    fn network_of(&self, id: &InstanceId) -> Option<String> {
        let container = self.instances.get(id)?.container()?;
        look::network_of(container, || names::network(&self.cx.config.cluster, &id.service.project))
    }

    /// Taken off its network and put back, it may have another address.
    fn follow_address(&mut self, id: &InstanceId, seen: &Seen) {
        let network = self.network_of(id);
        let Some(instance) = self.instances.get_mut(id) else { return };
        let Some(before) = instance.record() else { return };
        let mut record = before.clone();
        record.addressed(seen, network.as_deref());
        if record == *before || record.address.is_none() {
            return;
        }
        if let Err(error) = record.write(&instance.folder) {
            tracing::warn!(instance = %id, %error, "its address is held in memory alone");
        }
        instance.hold(record);
    }

    fn watch_container(&mut self, id: &InstanceId, seen: &Seen, run: u64, health: Health) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        self.containers.insert(seen.id.clone(), id.clone());
        let first = super::job::down(&self.cx, instance);
        let (events, of) = (self.cx.events.clone(), id.clone());
        let clock = self.cx.clock.clone();
        let first = move || {
            first();
            clock.now()
        };
        let then = move |ended: Result<Exit, EngineError>| async move {
            let event = match ended {
                Ok(exit) => Event::Ended { id: of, run, exit },
                Err(error) => Event::Lost { id: of, run, cause: error.to_string() },
            };
            let _ = events.send(event).await;
        };
        let watched = Watched::watch(self.cx.engine.clone(), run, seen, first, then);
        instance.stop_probing();
        instance.run = Run::Alive { life: Life::Container { watched, pid: seen.pid }, health };
        if let Some(held) = &mut instance.held {
            held.judged = None;
            held.ended_at = None;
        }
    }

    /// Takes what the engine's own probing says, once for each time that it changes its mind.
    fn judge(&mut self, id: &InstanceId, seen: &Seen) {
        let now = self.cx.now();
        let Some(instance) = self.instances.get_mut(id) else { return };
        let spec = instance.health().clone();
        let by_engine = spec.readiness.as_ref().is_some_and(|probe| probe.check == Check::Image);
        let Some(held) = instance.held.as_mut().filter(|_| by_engine) else { return };
        if held.judged == seen.health {
            return;
        }
        held.judged.clone_from(&seen.health);
        let result = match &seen.health {
            Some(Judged::Healthy) => Ok(()),
            Some(Judged::Unhealthy(output)) => Err(format!("its image's check fails: {output}")),
            Some(Judged::Starting) | None => return,
        };
        let Run::Alive { health, .. } = &mut instance.run else { return };
        let purposes = [Purpose::Startup, Purpose::Readiness, Purpose::Liveness];
        *health = health.after(&spec, &purposes, result, now);
        instance.state.ready = health.ready;
        Self::remember(instance);
    }

    /// It ended while nobody watched, or cannot be told from what ended.
    fn ended_unseen(&mut self, id: &InstanceId, exit: Option<Exit>) {
        let now = self.cx.now();
        let Some(instance) = self.instances.get_mut(id) else { return };
        instance.stop_probing();
        instance.state.ready = false;
        if instance.state.ended_by_us || (instance.state.runs == 0 && exit.is_none()) {
            instance.run = Run::NotStarted;
            return;
        }
        let run = instance.record().map(|record| record.run);
        let seen =
            instance.state.last_exit.clone().filter(|_| run.is_some() && instance.state.ended_run == run);
        let told = instance.held.as_mut().and_then(|held| held.ended_at.take());
        let unknown = || Exit { at: told.unwrap_or(now), status: ExitStatus::Unknown, why: None };
        let mut exit = seen.or(exit).unwrap_or_else(unknown);
        if instance.state.ended_run != run {
            if let Some(outage) = instance.outage {
                exit = outage.lay(exit);
            }
            let unasked = instance.held.as_ref().and_then(|held| held.unasked);
            let unwatched = if unasked.is_some_and(|since| exit.at <= since) {
                format!(", at {} while Setpoint was away", exit.at)
            } else {
                String::new()
            };
            self.cx.say(instance, Kind::InstanceExited, format!("{id} ended with {exit}{unwatched}"));
        }
        instance.state.ends(run, exit.clone());
        instance.run = Run::Ended { started: instance.state.started_at, exit };
        Self::remember(instance);
        self.lay_end_to_deed(id);
    }

    /// Somebody removed it. What was in it alone is gone; another is made in its place.
    fn container_gone(&mut self, id: &InstanceId) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        let Some(record) = instance.record().filter(|record| record.id.is_some()).cloned() else {
            // None is there, as far as anybody has told. That a run had ended is written down; a
            // creation that was never answered is no end of one.
            let is_counted = instance.state.granted;
            match (&instance.run, &instance.state.last_exit) {
                (Run::Unknown { .. }, Some(_)) if !is_counted => self.ended_unseen(id, None),
                (Run::Unknown { .. }, _) => instance.run = Run::NotStarted,
                _ => {}
            }
            return;
        };
        if let Some(container) = &record.id {
            self.containers.remove(container);
        }
        let message = format!("the container of {id} was removed by somebody");
        self.cx.say(instance, Kind::InstanceExited, message);
        let record = record.without_container();
        if let Err(error) = record.write(&instance.folder) {
            tracing::warn!(instance = %id, %error, "its container is held in memory alone");
        }
        instance.hold(record);
        match &instance.run {
            Run::Alive { .. } | Run::Unknown { .. } => self.ended_unseen(id, None),
            Run::NotStarted | Run::Ended { .. } => {}
        }
    }

    /// The kernel says that it ended, and the engine says nothing.
    pub(super) fn lost(&mut self, id: &InstanceId, run: u64, cause: String) {
        let now = self.cx.now();
        let Some(instance) = self.instances.get_mut(id) else { return };
        if instance.life().is_none_or(|life| life.run() != run) {
            return;
        }
        instance.stop_probing();
        instance.state.ready = false;
        instance.run = Run::Unknown { since: now, cause };
        if let Some(held) = &mut instance.held {
            held.ended_at = Some(now);
        }
        self.cx.doubt.notify_one();
        self.touch(id);
    }

    pub(super) fn pulled(&mut self, id: &InstanceId, copied: Copied, progress: &registry::Progress) {
        if let Some(instance) = self.instances.get_mut(id) {
            instance.copied = Some(copied);
            instance.trouble = progress.told();
        }
        self.touch(id);
    }

    pub(super) fn made(
        &mut self,
        id: &InstanceId,
        result: Result<Box<Record>, StartFailure>,
        now: Timestamp,
    ) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        instance.trouble = None;
        match result {
            Ok(record) => {
                instance.install = Install::Whole;
                instance.state.installed = true;
                instance.hold((*record).clone());
                Self::remember(instance);
                self.unsynced.insert(instance.folder.path().to_owned());
                self.containers.extend(record.id.map(|container| (container, id.clone())));
                // With its ledger lost it may live already.
                self.look_at_container(id, false);
            }
            Err(failure) if failure.kind == FailureKind::Ordinary => {
                tracing::warn!(instance = %id, error = failure.message, "it cannot be installed");
                if let Some(record) = failure.record {
                    instance.hold(*record);
                }
                instance.install = Install::Failed {
                    at: now,
                    message: format!("it cannot be installed: {}", failure.message),
                };
                Self::remember(instance);
            }
            Err(failure) => self.container_failed(id, failure, now),
        }
    }

    pub(super) fn container_started(&mut self, id: &InstanceId, started: Started) {
        self.follow_port(id, &started.seen);
        let Some(instance) = self.instances.get_mut(id) else { return };
        let Started { record, seen, began } = started;
        let seen = &seen;
        let run = instance.state.runs;
        if let Some(old) = instance.record().and_then(|old| old.id.clone()) {
            self.containers.remove(&old);
        }
        instance.hold(record);
        instance.trouble = None;
        instance.state.started_at = Some(began);
        let health = Health::new(instance.health(), began);
        instance.state.ready = health.ready;
        self.watch_container(id, seen, run, health);
        let again = if self.instances.get(id).is_some_and(|i| i.state.attempts.total > 0) {
            "started again"
        } else {
            "started"
        };
        if let Some(instance) = self.instances.get(id) {
            let short = seen.id.get(..12).unwrap_or(&seen.id);
            self.cx.say(instance, Kind::InstanceStarted, format!("{id} {again} as container {short}"));
        }
        self.runs_again(id);
        // It may be over already.
        self.take_state(id, seen);
        self.look_again(id);
    }

    /// Nothing counts: the engine did not answer, or the port was somebody else's.
    pub(super) fn container_failed(&mut self, id: &InstanceId, failure: StartFailure, now: Timestamp) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        if let Some(record) = failure.record {
            instance.hold(*record);
        }
        match failure.kind {
            FailureKind::PortTaken => {
                if let Some(record) = instance.record().cloned() {
                    instance.hold(record.without_container());
                }
                instance.run = Run::NotStarted;
                instance.trouble = Some(failure.message);
                self.give_another_port(id);
            }
            FailureKind::VolumeGone => {
                if let Some(record) = instance.record().cloned() {
                    let record = record.without_container();
                    if let Err(error) = record.write(&instance.folder) {
                        tracing::warn!(instance = %id, %error, "its container is held in memory alone");
                    }
                    instance.hold(record);
                }
                instance.run = Run::NotStarted;
                instance.install = Install::DataGone { message: failure.message };
                // What was counted has not been tried.
                instance.state.granted = true;
                Self::remember(instance);
                // It may be back by now.
                self.look_at_volumes();
            }
            FailureKind::Prevented => {
                // What was counted has not been tried.
                instance.state.granted = true;
                instance.run = Run::NotStarted;
                // Told also while it is tried again.
                instance.unstarted = Some(failure.message.clone());
                instance.install = Install::Prevented { at: now, message: failure.message };
                Self::remember(instance);
            }
            FailureKind::LivesOn => {
                if let Run::Alive { health, .. } = &instance.run {
                    instance.state.started_at = Some(health.began);
                }
                instance.failures += 1;
                instance.trouble = Some(failure.message);
                Self::remember(instance);
            }
            FailureKind::Away | FailureKind::Ordinary => {
                // What was counted for another try of it has not been tried.
                if matches!(instance.install, Install::Failed { .. } | Install::Prevented { .. }) {
                    instance.install =
                        if instance.state.installed { Install::Whole } else { Install::Absent };
                }
                // What it was asked may have been done.
                if instance.state.installed {
                    instance.run = Run::Unknown { since: now, cause: failure.message.clone() };
                    Self::remember(instance);
                }
                self.engine_silent(failure.message);
            }
        }
    }

    pub(super) fn repaired(&mut self, id: &InstanceId, repair: Repair) {
        let now = self.cx.now();
        let Some(instance) = self.instances.get_mut(id) else { return };
        if let Repair::Done { tried, look, left } = repair {
            instance.check.put_back += 1;
            instance.note_stuck(&tried, |path| left.get(path).cloned());
            // Also of what rests.
            let stuck = instance.drift.values().find_map(|drift| drift.stuck.as_ref());
            let why = left.values().next().or(stuck);
            instance.trouble = why.map(|why| format!("it cannot be put right: {why}"));
            if let Some(held) = &mut instance.held {
                held.rests.take(left.into_keys(), now);
            }
            if let Some(look) = look {
                self.take_look(id, &look);
            }
        }
        self.look_again(id);
    }
}
