//! The node's own end: workloads are ended in order, or left to be adopted.

use decide::node::Busy;
use model::{InstanceId, event::Kind, route::EndpointHealth};
use tokio::sync::oneshot;

use super::{Agent, Event, Outcome, Workloads, job::end};
use crate::{
    instance::{Instance, Run},
    process::cgroup,
};

impl Agent {
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
            instance.unwanted.notify_one();
        }
    }

    /// The mark comes before the signal: what ends from here on is no crash.
    fn stop_for_good(&mut self, id: &InstanceId) {
        let now = self.cx.now();
        let Some(instance) = self.instances.get_mut(id).filter(|instance| instance.busy.is_none()) else {
            return;
        };
        instance.state.ended_by_us = true;
        let living = instance.ending();
        Self::remember(instance);
        let Some(living) = living else { return };
        self.cx.say_endpoint(instance, EndpointHealth::Down);
        instance.busy = Some(Busy::Stopping { since: now });
        let policy = instance.assigned.content.stop.clone();
        let (cx, id) = (self.cx.clone(), id.clone());
        tokio::spawn(async move {
            let stopped = end(&cx, living, &policy).await;
            let _ = cx.events.send(Event::Done { id, outcome: Outcome::Stopped(stopped) }).await;
        });
        let id = instance.id.clone();
        self.touch(&id);
    }

    pub(super) fn stopped(&mut self, id: &InstanceId, result: Result<(), String>) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        match result {
            Ok(()) => {
                instance.run = Run::NotStarted;
                // Empty groups would stay until the next boot; a start makes them anew.
                cgroup::remove(&self.cx.config.cluster, id);
                self.cx.say(instance, Kind::InstanceStopped, format!("{id} was ended with Setpoint"));
            }
            Err(message) => instance.trouble = Some(message),
        }
        Self::remember(instance);
    }

    /// Starts and ends under way are waited for; what was started meanwhile is then ended too.
    pub(super) fn is_over(&mut self) -> bool {
        let Some((workloads, _)) = &self.ending else { return false };
        let stopping = *workloads == Workloads::Stop;
        if stopping {
            let late: Vec<_> = self
                .instances
                .values()
                .filter(|instance| {
                    instance.busy.is_none() && instance.life().is_some() && !is_hopeless(instance)
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
        let left = |instance: &Instance| {
            stopping && instance.life().is_some() && !(instance.busy.is_none() && is_hopeless(instance))
        };
        !self.instances.values().any(|instance| between(instance) || left(instance))
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
