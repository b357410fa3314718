//! Begins an operation in a task of its own.

use decide::node::{Busy, Install, Operation};
use model::{InstanceId, Timestamp, event::Kind, instance::Attempts, route::EndpointHealth, spec::Port};

use super::{
    Agent, Event, FailureKind, Outcome,
    job::{Job, Keep, blocking, pause, pause_after},
};
use crate::{
    instance::{Instance, Run},
    logs::Went,
    process::ports,
};

impl Agent {
    pub(super) fn operate(&mut self, id: &InstanceId, operation: Operation, now: Timestamp) {
        match operation {
            Operation::Nothing => {}
            Operation::Install { attempts, granted } => self.install(id, attempts, granted, now),
            Operation::Restart { attempts } => self.restart(id, attempts, now),
            Operation::Update => self.update(id, now),
            Operation::Delete => self.delete(id, now),
        }
    }

    fn install(&mut self, id: &InstanceId, attempts: Attempts, granted: bool, now: Timestamp) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        instance.state.attempts = attempts;
        instance.state.granted = granted;
        instance.busy = Some(Busy::Installing);
        if let Err(error) = give_port(&mut self.ports, instance) {
            instance.busy = None;
            instance.install = Install::PortTaken { at: now, message: error.to_string() };
            Self::remember(instance);
            return self.touch(id);
        }
        let (cx, id) = (self.cx.clone(), id.clone());
        let job = Job::of(instance);
        if instance.held.is_some() {
            return super::container_job::make(cx, job);
        }
        tokio::spawn(async move {
            let _permit = cx.files.acquire().await;
            let inner = cx.clone();
            let installed = blocking(move || job.install(&inner)).await;
            let _ = cx.events.send(Event::Done { id, outcome: Outcome::Installed(installed) }).await;
        });
    }

    fn restart(&mut self, id: &InstanceId, attempts: Attempts, now: Timestamp) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        let before = instance.ending();
        if before.is_some() {
            self.cx.say_endpoint(instance, EndpointHealth::Down);
        }
        if let Run::Alive { health, .. } = &instance.run {
            let why = format!("unhealthy: {}", health.message);
            self.cx.say(instance, Kind::InstanceExited, format!("{id} is ended and started again: {why}"));
            instance.ended_for = Some(why);
        }
        instance.state.attempts = attempts;
        instance.state.granted = false;
        instance.state.runs += 1;
        instance.state.started_at = Some(now);
        instance.state.ready = false;
        instance.state.ended_by_us = false;
        instance.busy = Some(Busy::Starting);
        instance.stop_probing();
        let job = Job::of(instance);
        let (cx, id, hurry, failures) =
            (self.cx.clone(), id.clone(), instance.hurry.clone(), instance.failures);
        tokio::spawn(async move {
            let started = job.start(&cx, before).await;
            // How long it has run says nothing of how soon its end is tried again.
            if started.as_ref().is_err_and(|failure| failure.kind == FailureKind::LivesOn) {
                pause(failures, &hurry).await;
            }
            let _ = cx.events.send(Event::Done { id, outcome: Outcome::Started(started) }).await;
        });
    }

    fn update(&mut self, id: &InstanceId, now: Timestamp) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        instance.busy = Some(Busy::Updating);
        let job = Job::of(instance);
        let (cx, id) = (self.cx.clone(), id.clone());
        if instance.held.is_some() {
            let hurry = instance.hurry.clone();
            let (paths, machine) = (instance.to_repair(now), self.engine.machine.clone());
            return super::container_job::repair(cx, job, paths, machine, hurry);
        }
        tokio::spawn(async move {
            let permit = cx.files.acquire().await;
            let inner = cx.clone();
            let updated = blocking(move || job.update(&inner)).await;
            drop(permit);
            let _ = cx.events.send(Event::Done { id, outcome: Outcome::Updated(updated) }).await;
        });
    }

    fn delete(&mut self, id: &InstanceId, now: Timestamp) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        if instance.runs() && instance.report.as_ref().is_some_and(|report| report.ready) {
            self.cx.say_endpoint(instance, EndpointHealth::Down);
        }
        instance.busy = Some(Busy::Stopping { since: now });
        let living = instance.ending();
        let failures = instance.failures;
        let hurry = instance.hurry.clone();
        let failed = instance.state.attempts.total > 0 || !instance.state.ready;
        let went = if failed { Went::Failed } else { Went::Ended };
        let output = instance.runs().then_some(went);
        let job = Job::of(instance);
        let keep = Keep { output, ..self.links_of_others(id) };
        let (cx, id) = (self.cx.clone(), id.clone());
        tokio::spawn(async move {
            let deleted = job.delete(&cx, living, keep).await;
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
}

fn give_port(ports: &mut ports::Ports, instance: &mut Instance) -> Result<(), ports::Error> {
    match (instance.assigned.content.port, instance.state.port) {
        (None, _) => Ok(()),
        (Some(Port::Fixed(port)), _) => {
            ports.take(&instance.id, port)?;
            instance.state.port = Some(port);
            Ok(())
        }
        // Its own from before: it lasts for the instance's life, and is waited for where somebody has taken it.
        (Some(Port::Dynamic), Some(port)) if matches!(instance.install, Install::PortTaken { .. }) => {
            ports.take_back(&instance.id, port)
        }
        (Some(Port::Dynamic), Some(_)) => Ok(()),
        (Some(Port::Dynamic), None) => {
            instance.state.port = Some(ports.give(&instance.id, random_start())?);
            Ok(())
        }
    }
}

pub(super) fn random_start() -> u16 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library's per-map seed, from the kernel's randomness.
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    u16::try_from(random & 0xffff).unwrap_or_default()
}
