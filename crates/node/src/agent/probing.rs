//! Probes of living processes: never two of one check at a time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use decide::health::{Due, Purpose};
use model::{
    InstanceId, Timestamp,
    spec::{Check, Probe},
};

use super::{Agent, Context, Event};
use crate::{
    instance::{Instance, Run},
    probe::{self, Failure, Patience, Target},
    process::{lookup, render::Names},
};

/// After a probe that could not be made.
const NOT_MADE: Duration = Duration::from_millis(500);

impl Agent {
    /// Begins what is due, and says when the next is.
    pub(super) fn probe(cx: &Arc<Context>, instance: &mut Instance, now: Timestamp) -> Option<Timestamp> {
        let Run::Alive { life, health } = &instance.run else { return None };
        if instance.busy.is_some_and(|busy| matches!(busy, decide::node::Busy::Stopping { .. })) {
            return None;
        }
        // Its address may be somebody else's by now, and what is asked inside is of no use to anybody.
        if instance.is_off_network() {
            return None;
        }
        let spec = instance.health();
        let (due, next) = health.due(spec, now);
        let run = life.run();
        // A start is waited for as it happens; a ready process that refuses is news at once.
        let patience = if health.ready { Duration::ZERO } else { Probe::INTERVAL_UNTIL_READY.as_duration() };
        for due in due {
            // What the engine probes is told by it.
            if due.check == Check::Image || instance.probing.iter().any(|(check, _)| *check == due.check) {
                continue;
            }
            let prepared = target(cx, instance, &due.check)
                .and_then(|target| Ok((target, command(cx, instance, &due.check)?)));
            let check = due.check.clone();
            let (cx, id) = (cx.clone(), instance.id.clone());
            let probing = tokio::spawn(async move {
                let (result, began) = match prepared {
                    Ok((target, command)) => {
                        let told = |message| {
                            let check = due.check.clone();
                            Event::NotProbed { id: id.clone(), run, check, message }
                        };
                        verdict(&cx, &target, &due, command, Patience(patience), told).await
                    }
                    Err(error) => (Err(error), now),
                };
                // Counted from its begin: the next is due an interval later, however long this one waited.
                let probed =
                    Event::Probed { id, run, check: due.check, purposes: due.purposes, result, at: began };
                let _ = cx.events.send(probed).await;
            });
            instance.probing.push((check, probing.abort_handle()));
        }
        next
    }

    pub(super) fn probed(
        &mut self,
        id: &InstanceId,
        run: u64,
        check: &Check,
        purposes: &[Purpose],
        result: Result<(), String>,
        at: Timestamp,
    ) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        let spec = instance.health().clone();
        let Run::Alive { life, health } = &mut instance.run else { return };
        if life.run() != run {
            return;
        }
        instance.probing.retain(|(probing, _)| probing != check);
        instance.not_probed.retain(|(waiting, _)| waiting != check);
        if !life.has_ended() {
            // What it says is true at its end, but a failure's time is its begin.
            let at = if result.is_ok() { self.cx.clock.now() } else { at };
            let before = (health.ready, health.started);
            *health = health.after(&spec, purposes, result, at);
            if before != (health.ready, health.started) {
                instance.state.ready = health.ready;
                instance.state.port_moves = 0;
                Self::remember(instance);
            }
        }
        self.touch(id);
    }

    pub(super) fn not_probed(&mut self, id: &InstanceId, run: u64, check: Check, message: String) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        if instance.life().is_some_and(|life| life.run() == run) {
            instance.not_probed.retain(|(waiting, _)| *waiting != check);
            instance.not_probed.push((check, message));
            self.touch(id);
        }
    }
}

/// Probes until the target has been asked: what we lack ourselves is no verdict on it.
async fn verdict(
    cx: &Context,
    target: &Target,
    due: &Due,
    command: Vec<String>,
    patience: Patience,
    told: impl Fn(String) -> Event,
) -> (Result<(), String>, Timestamp) {
    let mut last = None;
    loop {
        let began = cx.now();
        match probe::probe(target, &due.check, command.clone(), due.timeout, patience).await {
            Ok(()) => return (Ok(()), began),
            Err(Failure::Unhealthy(message)) => return (Err(message), began),
            Err(Failure::NotMade(message)) => {
                tracing::debug!(%message, "a probe could not be made, which says nothing about the workload");
                if last.as_ref() != Some(&message) {
                    last = Some(message.clone());
                    let _ = cx.events.send(told(message)).await;
                }
                tokio::time::sleep(NOT_MADE).await;
            }
        }
    }
}

/// With what a command needs, where the check is one.
pub(super) fn target(cx: &Context, instance: &Instance, check: &Check) -> Result<Target, String> {
    let mut target = Target {
        host: cx.config.host.clone(),
        port: instance.state.port,
        cwd: instance.folder.work(),
        env: BTreeMap::new(),
        user: None,
        inside: super::containers::inside(cx, instance),
    };
    if let Some((address, port)) = super::containers::direct(instance) {
        (target.host, target.port) = (address, Some(port));
    } else if instance.record().is_some_and(|record| record.direct) {
        // No port of the machine leads to it.
        target.port = None;
    }
    if let (Check::Exec(_), Some(process)) = (check, instance.process()) {
        let inherited = &cx.surroundings.inherited;
        target.env = names(cx, instance).environment(inherited).map_err(|error| error.to_string())?;
        let user =
            process.user.as_deref().map(lookup::user).transpose().map_err(|error| error.to_string())?;
        target.user = user.flatten().map(|user| (user.credentials.uid, user.credentials.gid));
    }
    Ok(target)
}

fn names<'a>(cx: &'a Context, instance: &'a Instance) -> Names<'a> {
    Names {
        id: &instance.id,
        host: &cx.config.host,
        port: instance.state.port,
        setpoint: &cx.config.setpoint_exe,
        env: &instance.assigned.content.env,
    }
}

fn command(cx: &Context, instance: &Instance, check: &Check) -> Result<Vec<String>, String> {
    let Check::Exec(words) = check else { return Ok(Vec::new()) };
    if instance.container().is_some() {
        return super::containers::command(cx, instance, words);
    }
    let names = names(cx, instance);
    words.iter().map(|word| names.render("health", word).map_err(|error| error.to_string())).collect()
}
