//! What the node says to others: the observation, the edge's overlay, and events for people.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use model::{
    InstanceId, Timestamp,
    event::{Event, Kind},
    observation::{InstanceReport, State},
    route::{EndpointEvent, EndpointHealth},
};
use tokio::sync::mpsc;

use super::{Agent, Context};
use crate::{
    container::output,
    instance::{Instance, LastLines},
    logs,
    publish::Publisher,
};

/// Called in the moment something is known; it must not block.
pub type EndpointSink = Arc<dyn Fn(EndpointEvent) + Send + Sync>;

/// Of the output of what keeps dying, told with it; within the bound in bytes long lines are cut.
const LAST_LINES: usize = 100;
const LAST_BYTES: usize = 32 << 10;
/// Of a container's output so much is read for it.
const READ: usize = 1 << 20;

/// Events kept for a reader that is slow or has not come yet; beyond that the oldest are dropped.
const EVENTS: usize = 10_000;

/// Who listens.
#[derive(Default)]
pub struct Outside {
    sinks: Mutex<Vec<EndpointSink>>,
    events: Mutex<Events>,
}

#[derive(Default)]
struct Events {
    early: VecDeque<Event>,
    reader: Option<mpsc::Sender<Event>>,
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outside").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outside {
    pub fn add_sink(&self, sink: EndpointSink) {
        lock(&self.sinks).push(sink);
    }

    pub fn endpoint(&self, event: EndpointEvent) {
        let sinks = lock(&self.sinks).clone();
        for sink in sinks {
            sink(event.clone());
        }
    }

    /// The reader of events, instead of the one before. What happened before the first comes is not lost.
    pub fn read_events(&self) -> mpsc::Receiver<Event> {
        let (tell, reader) = mpsc::channel(EVENTS);
        let mut events = lock(&self.events);
        for event in events.early.drain(..) {
            let _ = tell.try_send(event);
        }
        events.reader = Some(tell);
        reader
    }

    pub fn event(&self, event: Event) {
        tracing::info!(kind = event.kind.word(), instance = ?event.instance, "{}", event.message);
        let mut events = lock(&self.events);
        let unread = match &events.reader {
            Some(reader) => match reader.try_send(event) {
                Ok(()) => return,
                Err(mpsc::error::TrySendError::Closed(event)) => event,
                Err(mpsc::error::TrySendError::Full(event)) => {
                    tracing::warn!(
                        kind = event.kind.word(),
                        "nobody reads events fast enough; this one is dropped"
                    );
                    return;
                }
            },
            None => event,
        };
        events.reader = None;
        if events.early.len() == EVENTS {
            events.early.pop_front();
        }
        events.early.push_back(unread);
    }
}

impl Context {
    pub fn say(&self, instance: &Instance, kind: Kind, message: impl Into<String>) {
        self.outside.event(Event {
            kind,
            service: Some(instance.id.service.clone()),
            instance: Some(instance.id.clone()),
            deployment: Some(instance.assigned.deployment.clone()),
            message: message.into(),
        });
    }

    pub fn say_endpoint(&self, instance: &Instance, health: EndpointHealth) {
        if let Some(address) = instance.address(&self.config.host) {
            self.outside.endpoint(EndpointEvent { instance: instance.id.clone(), address, health });
        }
    }
}

impl Agent {
    /// Puts the instance's report into the observation, and says what has changed since the one before.
    pub(super) fn tell(
        cx: &Context,
        instance: &mut Instance,
        step: &decide::node::Step,
        publisher: &mut Publisher,
        now: Timestamp,
    ) {
        note_last_lines(cx, instance, step);
        let report = instance.report(step, &cx.config.host, now);
        if instance.report.as_deref() == Some(&report) {
            return;
        }
        let before = instance.report.take();
        Self::tell_readiness(cx, instance, before.as_deref(), &report);
        Self::tell_failure(cx, instance, &report);
        let report = Arc::new(report);
        instance.report = Some(report.clone());
        publisher.put(report);
    }

    fn tell_readiness(
        cx: &Context,
        instance: &mut Instance,
        before: Option<&InstanceReport>,
        now: &InstanceReport,
    ) {
        let was = before.is_some_and(|report| report.ready);
        if was == now.ready {
            return;
        }
        if instance.runs() {
            cx.say_endpoint(instance, if now.ready { EndpointHealth::Ready } else { EndpointHealth::Down });
        }
        if now.ready {
            cx.say(instance, Kind::InstanceReady, format!("{} is ready", instance.id));
        } else if matches!(now.state, State::Running | State::Starting) && !now.message.is_empty() {
            cx.say(instance, Kind::InstanceUnready, format!("{} is not ready: {}", instance.id, now.message));
        }
    }

    fn tell_failure(cx: &Context, instance: &mut Instance, now: &InstanceReport) {
        let (tells, told) = decide::node::tells_failure(instance.state.told_failed, &now.state);
        if std::mem::replace(&mut instance.state.told_failed, told) != told && instance.busy.is_none() {
            Self::remember(instance);
        }
        if tells {
            let id = &instance.id;
            let service = &id.service;
            let message = format!(
                "{id} has failed after {} restarts: {}; its last output: `setpoint logs {service} --instance {id} --tail 100`",
                now.attempts.total, now.message
            );
            cx.say(instance, Kind::InstanceFailed, message);
        }
    }
}

/// What keeps dying is told with what it said last, until it is ready again.
fn note_last_lines(cx: &Context, instance: &mut Instance, step: &decide::node::Step) {
    let run = instance.state.runs;
    let ended = matches!(step.state, State::BackingOff { .. } | State::Failed { .. });
    if step.ready {
        instance.last_lines = LastLines::default();
    } else if ended && instance.last_lines.run != run {
        let lines = match instance.record().and_then(|record| record.id.clone()) {
            Some(container) => {
                ask_for_last_lines(cx, instance, run, container);
                std::mem::take(&mut instance.last_lines.lines)
            }
            None => {
                let files = logs::all(&instance.folder.log(), cx.config.logs.files);
                logs::last_lines(&files, LAST_LINES, LAST_BYTES)
            }
        };
        instance.last_lines = LastLines { run, lines };
    }
}

/// Its engine keeps what a container said. One that does not answer leaves what was known.
fn ask_for_last_lines(cx: &Context, instance: &Instance, run: u64, container: String) {
    let (engine, events, id) = (cx.engine.clone(), cx.events.clone(), instance.id.clone());
    tokio::spawn(async move {
        match output::last(&engine, &container, LAST_LINES, READ).await {
            Ok(said) => {
                let lines = logs::within(&said, LAST_BYTES);
                let _ = events.send(super::Event::LastLines { id, run, lines }).await;
            }
            Err(error) => tracing::debug!(instance = %id, %error, "its last output cannot be told"),
        }
    });
}

impl Agent {
    pub(super) fn last_lines_told(&mut self, id: &InstanceId, run: u64, lines: Vec<String>) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        if instance.last_lines.run == run {
            instance.last_lines.lines = lines;
            self.touch(id);
        }
    }
}
