//! Takes the outcome of an operation, and the end of a process.

use decide::{
    health::Health,
    node::{Busy, Install, rest_after},
};
use model::{
    InstanceId, Timestamp,
    container::Network,
    event::Kind,
    observation::{Copied, Exit},
};

use super::{
    Agent, FailureKind, Launched, Outcome, StartFailure, deeds::for_memory, job::watch, operate::random_start,
};
use crate::{
    instance::{Instance, Run},
    life::Life,
    process::{cgroup, live::Origin, ports},
    site,
};

/// Moves to another port, because somebody held the one before, in a row.
const MAX_PORT_MOVES: u32 = 10;

impl Agent {
    pub(super) fn done(&mut self, id: &InstanceId, outcome: Outcome) {
        let now = self.cx.now();
        let Some(instance) = self.instances.get_mut(id) else { return };
        instance.busy = None;
        match outcome {
            Outcome::Installed(result) => self.installed(id, result, now),
            Outcome::Updated(result) => self.updated(id, result, now),
            Outcome::Repaired(repair) => self.repaired(id, repair),
            Outcome::Made(result) => self.made(id, result, now),
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

    fn updated(&mut self, id: &InstanceId, result: Result<site::View, String>, now: Timestamp) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        instance.check.put_back += 1;
        let tried = instance.to_put_back();
        match result {
            Ok(view) => {
                instance.failures = 0;
                instance.rests_until = None;
                instance.trouble = None;
                instance.note_stuck(&tried, |_| None);
                self.see(id, view);
                self.watch_site(id);
            }
            Err(message) => {
                instance.rests_until = Some(now + rest_after(instance.failures));
                instance.failures += 1;
                instance.note_stuck(&tried, |_| Some(message.clone()));
                instance.trouble = Some(format!("it cannot be put right: {message}"));
                // What could be put back has been.
                self.compare(id, &[], true);
            }
        }
    }

    fn started(&mut self, id: &InstanceId, result: Result<Launched, StartFailure>, now: Timestamp) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        // The run that was ended for it is over, or lives on.
        instance.ended_for = None;
        instance.unstarted = result.as_ref().err().map(|failure| failure.message.clone());
        if result.is_ok() {
            instance.failures = 0;
        }
        // Unless it was done, what was counted has not been tried.
        instance.state.granted = result.as_ref().is_err_and(|failure| failure.kind == FailureKind::Away);
        match result {
            Ok(Launched::Container(started)) => self.container_started(id, *started),
            Ok(Launched::Process { pidfd, identity, prepared, began }) => {
                let (cluster, resources) = (&self.cx.config.cluster, &instance.assigned.content.resources);
                instance.without = cgroup::without(cluster, id, resources, identity.pid);
                instance.prepared = Some(prepared);
                instance.trouble = None;
                let run = instance.state.runs;
                let health = Health::new(instance.health(), began);
                instance.state.started_at = Some(began);
                instance.state.ready = health.ready;
                match watch(&self.cx, instance, pidfd, identity, run, Origin::Started) {
                    Ok(live) => instance.run = Run::Alive { life: Life::Process(live), health },
                    Err(error) => {
                        instance.run =
                            Run::Unknown { since: now, cause: format!("it cannot be watched: {error}") };
                    }
                }
                let again = if instance.state.attempts.total > 0 { "started again" } else { "started" };
                self.cx.say(
                    instance,
                    Kind::InstanceStarted,
                    format!("{id} {again} with pid {}", identity.pid),
                );
            }
            Err(failure) if failure.kind != FailureKind::Ordinary => self.container_failed(id, failure, now),
            Err(failure) => {
                if let Some(record) = failure.record {
                    instance.hold(*record);
                }
                tracing::warn!(instance = %id, error = failure.message, "it cannot be started");
                // Nothing ran: the budget counts it as an install that failed.
                instance.prepared = None;
                instance.run = Run::NotStarted;
                instance.install = Install::Failed { at: now, message: failure.message };
                Self::remember(instance);
            }
        }
    }

    /// The kernel has said that a process ended.
    pub(super) fn ended(&mut self, id: &InstanceId, run: u64, mut exit: Exit) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        let Run::Alive { life, health } = &instance.run else { return };
        if life.run() != run {
            return;
        }
        let was_ready = health.ready;
        exit.why = instance.ended_for.take().or(exit.why);
        exit.why = for_memory(instance, run, &exit).or(exit.why);
        // Found after its engine had gone, it lacks the engine's word for it.
        if let Some(outage) = instance.outage {
            exit = outage.lay(exit);
        }
        let shares_ports = match instance.container() {
            Some(container) => container.network == Network::Host,
            None => true,
        };
        let message = format!("{id} ended with {exit}");
        instance.stop_probing();
        instance.state.ready = false;
        instance.state.ends(Some(run), exit.clone());
        instance.run = Run::Ended { started: instance.state.started_at, exit };
        if instance.busy == Some(Busy::Updating) {
            instance.hurry.notify_one();
        }
        let asked = matches!(instance.busy, Some(Busy::Starting | Busy::Stopping { .. }));
        if !asked {
            self.cx.say(instance, Kind::InstanceExited, message);
            if !was_ready && shares_ports {
                self.move_port(id);
            }
        }
        self.lay_end_to_deed(id);
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

    /// It ended before it was ready, and somebody else holds its port: another port, or this one when it is free, and
    /// no attempt.
    fn move_port(&mut self, id: &InstanceId) {
        let taken = self.instances.get(id).and_then(|instance| instance.state.port);
        if taken.is_some_and(|port| !ports::is_free(&self.cx.config.host, port)) {
            self.give_another_port(id);
        }
    }

    pub(super) fn give_another_port(&mut self, id: &InstanceId) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        let Some(port) = instance.state.port else { return };
        // A container was told its port when it was made.
        let is_told = instance.container().is_some_and(|container| container.network == Network::Host);
        if !instance.has_dynamic_port() || is_told {
            let taken = ports::Error::Taken { port, host: self.cx.config.host.clone() };
            // What is given for its life is given to none of ours meanwhile.
            if !instance.has_dynamic_port() {
                self.ports.release(id);
            }
            instance.prepared = None;
            // What was counted has not been tried.
            instance.state.granted = true;
            instance.run = Run::NotStarted;
            instance.install = Install::PortTaken { at: self.cx.now(), message: taken.to_string() };
            return;
        }
        let (moves, waits) = (instance.state.port_moves, instance.held.is_some());
        // Of what ended by itself the end is counted; what could not even be started goes on after a pause.
        if moves >= MAX_PORT_MOVES && !waits {
            return;
        }
        self.ports.release(id);
        let other = self.ports.give(id, random_start());
        let pauses = waits && (moves >= MAX_PORT_MOVES || other.is_err());
        match other {
            Ok(other) => {
                tracing::info!(instance = %id, port, other, "its port was taken by another program; it gets another");
                instance.state.port = Some(other);
                instance.state.port_moves = moves.saturating_add(1);
                instance.state.granted = true;
                instance.prepared = None;
                instance.run = Run::NotStarted;
            }
            Err(error) => {
                tracing::warn!(instance = %id, port, %error, "its port was taken by another program");
                self.ports.note(port, id);
            }
        }
        if pauses {
            let message =
                format!("{} ports in a row were taken by other programs, {port} last: free some", moves + 1);
            instance.state.granted = true;
            instance.trouble = None;
            // Told also while it is tried again.
            instance.unstarted = Some(message.clone());
            instance.install = Install::Prevented { at: self.cx.now(), message };
            Self::remember(instance);
        }
    }

    fn deleted(&mut self, id: &InstanceId, result: Result<(), String>) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        if let Err(message) = result {
            instance.failures += 1;
            instance.trouble = Some(format!("it cannot be removed: {message}"));
            return self.touch(id);
        }
        cgroup::remove(&self.cx.config.cluster, id);
        self.forget_site(id);
        self.ports.release(id);
        self.timers.set(id, None);
        self.log_cuts.remove(id);
        self.containers.retain(|_, of| of != id);
        let again = self.instances.remove(id).filter(|instance| instance.wanted);
        self.leave_network(id);
        self.publisher.remove(id);
        if let Some(instance) = again {
            // Assigned once more while it went: it begins anew.
            let mut fresh =
                Instance::new(instance.assigned.clone(), instance.folder.clone(), &self.cx.config.sites);
            self.engine.tell(&mut fresh);
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
}
