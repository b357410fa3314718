//! Telling: the complete observation, and at once to the edge what concerns an endpoint.

use std::sync::Arc;

use decide::node::Step;
use model::{
    InstanceId, Timestamp,
    observation::{InstanceReport, Observation},
    route::{EndpointEvent, EndpointHealth},
};

use super::{
    Agent, Around, Entry, FIRST_LOOK, HEARTBEAT, Happens, address, container::Contained, folder, is_site,
    shows,
};
use crate::{machine::Machine, play::Out};

impl Agent {
    pub(super) fn tell(&mut self, around: &mut Around<'_>) {
        let now = around.now;
        let boot = self.boot_id();
        self.told += 1;
        let Some(memory) = &mut self.memory else { return };
        let complete = now.since(memory.since) >= FIRST_LOOK;
        if !complete {
            around.out.push(Out::At(memory.since + FIRST_LOOK, Happens::Look { epoch: self.epoch }));
            memory.next_look = Some(memory.since + FIRST_LOOK);
        }
        let known = self.ledger.entries.iter().filter_map(|(id, entry)| {
            let pid = entry.pid.or(memory.held.get(id).and_then(Contained::pid));
            let report = report(id, entry, pid, memory.steps.get(id)?, around.machine);
            let before = memory.sent.as_ref().and_then(|(_, sent)| sent.instances.get(id));
            // Equal reports are the same pointer.
            let same = before.filter(|before| ***before == report).map(Arc::clone);
            Some((id.clone(), same.unwrap_or_else(|| Arc::new(report))))
        });
        // A first look that has not come far.
        let seen = known.take(if complete { usize::MAX } else { 1 });
        let observation = Observation {
            node: self.id.clone(),
            boot,
            sequence: now.0 * 1_000 + self.told % 1_000,
            at: now,
            accepted: self.ledger.accepted.as_ref().map(|accepted| accepted.stamp.clone()),
            instances: seen.collect(),
            lost_volumes: Vec::new(),
            strangers: Vec::new(),
            engine: None,
            complete,
        };
        let is_new = memory.sent.as_ref().is_none_or(|(at, sent)| {
            now.since(*at) >= HEARTBEAT
                || (sent.instances != observation.instances
                    || sent.accepted != observation.accepted
                    || sent.complete != observation.complete)
        });
        if is_new {
            let observation = Arc::new(observation);
            memory.sent = Some((now, Arc::clone(&observation)));
            around.out.push(Out::NodeSays(observation));
        }
    }
}

pub(super) fn endpoint(entry: &Entry, health: EndpointHealth) -> Option<Out> {
    let instance = entry.assigned.id.clone();
    Some(Out::Endpoint(EndpointEvent { instance, address: address(entry)?, health }))
}

fn report(
    id: &InstanceId,
    entry: &Entry,
    pid: Option<u32>,
    step: &Step,
    machine: &Machine,
) -> InstanceReport {
    InstanceReport {
        id: id.clone(),
        release: entry.assigned.release,
        state: step.state.clone(),
        ready: step.ready && (is_site(entry) || entry.ready),
        ready_since: Timestamp::ZERO,
        pid,
        container: entry.record.as_ref().and_then(|r| r.id).map(|id| id.to_string()),
        address: address(entry),
        folder: is_site(entry).then(|| folder(&entry.assigned)),
        current: shows(entry, machine),
        started_at: entry.started,
        attempts: entry.attempts.clone(),
        last_exit: entry.last_exit.clone(),
        message: step.message.clone(),
        without: None,
        last_lines: Vec::new(),
        copied: None,
        drift: Vec::new(),
    }
}
