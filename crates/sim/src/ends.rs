//! Ends of runs and the restarts that follow them, counted where they happen: whose doing each end was, and how many
//! restarts that allows.
//!
//! Owns: the world's truth of what a budget may spend. Refuses to know: what an agent has counted.

use std::collections::BTreeMap;

use decide::retry::MOST_FREE;
use model::{InstanceId, Millis, NodeId, ReleaseDigest, ServiceKey, Slot, Timestamp, assignment::Assigned};

use crate::{
    engine::Engine,
    play::Host,
    shape::{ATTEMPTS, WINDOW},
};

/// Between the decision to start and the start.
const START_SLACK: Millis = Millis(4_000);
/// Between the end of a run and the restart that is counted for it: pauses, an agent and an engine that are away.
const RESTARTED_WITHIN: Millis = Millis(30_000);
/// An engine has said within this time how a run ended.
const TOLD_WITHIN: Millis = Millis(3_000);

#[derive(Default)]
pub struct Ends {
    starts: BTreeMap<Attempted, Vec<(Timestamp, InstanceId)>>,
    ends: BTreeMap<(ServiceKey, Slot, ReleaseDigest), Vec<End>>,
    asked: BTreeMap<ServiceKey, u64>,
}

/// What restarts are counted by; a user's word begins anew.
type Attempted = (ServiceKey, Slot, ReleaseDigest, u64);

/// An end of a run that was not told to end by Setpoint, or a start that failed.
#[derive(Debug, Clone)]
pub struct End {
    pub at: Timestamp,
    pub node: NodeId,
    pub whose: Whose,
    /// Only who has seen it knows of it: the engine has nothing of it any more.
    pub is_gone: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// A restart after it is an attempt.
    Workload,
    /// The engine's, and its agent could know: a restart after it is none.
    Engine,
    /// Nobody can tell, so that a restart after it may be one.
    Unclear,
}

impl End {
    pub fn new(at: Timestamp, node: &NodeId, whose: Whose) -> Self {
        Self { at, node: node.clone(), whose, is_gone: false }
    }
}

impl Ends {
    /// Nobody knows any more what was counted for what.
    pub fn forget(&mut self) {
        self.starts.clear();
        self.ends.clear();
    }

    pub fn asked(&mut self, service: &ServiceKey) {
        *self.asked.entry(service.clone()).or_default() += 1;
    }

    /// Says if there were more restarts in a window than there may be.
    pub fn started(&mut self, now: Timestamp, id: &InstanceId, release: ReleaseDigest) -> Option<String> {
        let era = self.asked.get(&id.service).copied().unwrap_or_default();
        let free = self.free_restarts(now, id, release);
        let key = (id.service.clone(), id.slot, release, era);
        let starts = self.starts.entry(key).or_default();
        starts.push((now, id.clone()));
        let window_began = now - Millis(WINDOW.0 - START_SLACK.0);
        let recent = starts.iter().filter(|(at, _)| *at > window_began);
        let of_this = recent.clone().filter(|(_, other)| other == id).count();
        let began_here =
            starts.iter().find(|(_, other)| other == id).is_some_and(|(at, _)| *at > window_began);
        let restarts = of_this - usize::from(began_here);
        let in_slot = recent.count();
        let allowed = ATTEMPTS as usize + free;
        (restarts > allowed || in_slot > 2 * (allowed + 1))
            .then(|| format!("{id} was restarted {restarts} times in a window, {in_slot} times in its slot"))
    }

    /// No more than so many, whatever happens to engines.
    fn free_restarts(&self, now: Timestamp, id: &InstanceId, release: ReleaseDigest) -> usize {
        self.recent(now - WINDOW, id, release, |end| end.whose != Whose::Workload).min(MOST_FREE)
    }

    /// Of ends that a restart since then may be about.
    fn recent(
        &self,
        restarted: Timestamp,
        id: &InstanceId,
        release: ReleaseDigest,
        wanted: impl Fn(&End) -> bool,
    ) -> usize {
        let of_slot = self.ends.get(&(id.service.clone(), id.slot, release));
        let recent = |end: &&End| end.at + RESTARTED_WITHIN > restarted && wanted(end);
        of_slot.map_or(0, |ends| ends.iter().filter(recent).count())
    }

    /// What a restart may follow.
    pub fn ended(&mut self, now: Timestamp, id: &InstanceId, release: ReleaseDigest, end: End) {
        // What ends that often may do so by itself.
        let often = self.recent(now - WINDOW, id, release, |_| true) >= MOST_FREE;
        let whose = if often && end.whose == Whose::Engine { Whose::Unclear } else { end.whose };
        let of_slot = self.ends.entry((id.service.clone(), id.slot, release)).or_default();
        of_slot.push(End { whose, ..end });
    }

    /// An agent that begins knows of outages by when its engine has begun.
    pub fn agent_begins(&mut self, node: &NodeId, engine: &Engine) {
        let of_node = self.ends.values_mut().flatten().filter(|end| end.node == *node);
        for end in of_node.filter(|end| end.whose == Whose::Engine) {
            if end.is_gone || !engine.explains(end.at) {
                end.whose = Whose::Unclear;
            }
        }
    }

    /// What ended right before, nobody can tell from what ended with it.
    pub fn engine_goes(&mut self, now: Timestamp, node: &NodeId) {
        let of_node = self.ends.values_mut().flatten().filter(|end| end.node == *node);
        for end in of_node.filter(|end| end.whose == Whose::Workload && end.at + TOLD_WITHIN > now) {
            end.whose = Whose::Unclear;
        }
    }

    /// What has ended is gone, and with it when it did; `seen`: an agent knows by the kernel.
    pub fn removed(&mut self, id: &InstanceId, seen: bool) {
        let of_slot =
            self.ends.iter_mut().filter(|((service, slot, _), _)| *service == id.service && *slot == id.slot);
        for end in of_slot.flat_map(|(_, ends)| ends).filter(|end| end.whose == Whose::Engine) {
            end.is_gone = true;
            if !seen {
                end.whose = Whose::Unclear;
            }
        }
    }

    /// Says if more attempts are spent than there were ends that may be laid to the workload.
    pub fn overspent(&self, now: Timestamp, host: &Host) -> Option<String> {
        host.agent.ledger.entries.iter().find_map(|(id, entry)| {
            let Assigned { release, restart, attempts, .. } = &*entry.assigned;
            let attempts = entry.attempts.floor(attempts);
            let spent = attempts.at.iter().filter(|at| **at + restart.window > now).count();
            // Whoever has spent all of a window waits for it to be over.
            let ends = self.recent(now - WINDOW - WINDOW, id, *release, |end| end.whose != Whose::Engine);
            (spent > ends)
                .then(|| format!("{id} has spent {spent} attempts, and {ends} ends may be its own doing"))
        })
    }
}
