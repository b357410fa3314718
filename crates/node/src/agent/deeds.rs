//! What engines tell that was done to containers, laid to what is found of them: why a run ended, since when a field
//! differs.

use decide::outage::OWN_END;
use model::{InstanceId, event::Kind, observation::Exit};

use super::{
    Agent,
    compare::{describe, drift_of, is_excused},
};
use crate::{
    container::{
        deeds::{Deed, Of, RUNNING_PATH, is_before, not_running},
        signals,
    },
    instance::{Instance, Run},
};

impl Agent {
    pub(super) fn note_deed(&mut self, id: &InstanceId, deed: Option<Deed>) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        let (Some(deed), Some(record)) = (deed, instance.record()) else { return };
        if !matches!(deed.of, Of::Run { .. } | Of::Memory) {
            if let Some(held) = &mut instance.held {
                held.deeds.note(deed);
            }
            return;
        }
        let earlier = record.started.as_deref().is_some_and(|began| is_before(deed.at, began));
        let run = record.run.saturating_sub(u64::from(earlier));
        let asks = signals::of_stop(&instance.assigned.content.stop, record.stop_signal.as_deref());
        let stop = signals::number(asks).unwrap_or(libc::SIGTERM);
        let asked = instance.state.asked_to_end;
        let Some(held) = instance.held.as_mut().filter(|_| asked != Some(run)) else { return };
        held.deeds.note_end(run, deed, stop);
        self.lay_end_to_deed(id);
        self.lay_end_to_memory(id);
        self.touch(id);
    }

    /// A run that somebody had the engine end is drift until the next one. Its end and the engine's word come in any
    /// order, and the next run may have begun by then.
    pub(super) fn lay_end_to_deed(&mut self, id: &InstanceId) {
        let now = self.cx.now();
        let Some(instance) = self.instances.get_mut(id) else { return };
        let (Some(run), Some(exit)) = (instance.state.ended_run, &mut instance.state.last_exit) else {
            return;
        };
        let Some(deed) = instance.held.as_ref().and_then(|held| held.deeds.why_ended(run, exit.status))
        else {
            return;
        };
        let (since, by) = (deed.at.min(now), deed.by());
        // Nobody has told of it yet.
        let first = exit.why.is_none();
        // Also of the engine itself: it tells what it ends at its start like what it was asked for.
        let is_anothers =
            exit.why.as_ref().is_some_and(|why| why == OWN_END) || (!first && !exit.is_by_engine());
        if is_anothers || exit.why.as_ref() == Some(&by) {
            return;
        }
        exit.why = Some(by.clone());
        let last = exit.clone();
        let over = !matches!(instance.run, Run::Ended { .. } | Run::Unknown { .. });
        if let Run::Ended { exit: of_run, .. } = &mut instance.run {
            of_run.clone_from(&last);
        }
        let found = not_running();
        // What the engine did by its own end is nobody's meddling.
        let is_own = instance.outage.is_some_and(|outage| outage.explains(None, &last));
        if !is_own && !is_excused(instance, &found) {
            let drift = drift_of(found, since, Some(by));
            if first {
                self.cx.say(instance, Kind::DriftFound, describe(&drift));
            }
            match (over, first) {
                (true, true) => self.cx.say(instance, Kind::DriftCorrected, corrected(id)),
                (true, false) => {}
                (false, _) => drop(instance.drift.insert(drift.path.clone(), drift)),
            }
            Self::note_drift(instance);
        }
        if instance.busy.is_none() {
            Self::remember(instance);
        }
    }

    /// The kernel ended a run for want of memory, which its engine did not know when it was asked how it ended.
    fn lay_end_to_memory(&mut self, id: &InstanceId) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        let (Some(run), Some(exit)) = (instance.state.ended_run, instance.state.last_exit.clone()) else {
            return;
        };
        let Some(why) = for_memory(instance, run, &exit) else { return };
        let exit = Exit { why: Some(why), ..exit };
        self.cx.say(instance, Kind::InstanceExited, format!("{id} ended with {exit}"));
        instance.state.last_exit = Some(exit.clone());
        if let Run::Ended { exit: of_run, .. } = &mut instance.run {
            *of_run = exit;
        }
        if instance.busy.is_none() {
            Self::remember(instance);
        }
    }

    /// A run has begun.
    pub(super) fn runs_again(&mut self, id: &InstanceId) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        if instance.drift.remove(RUNNING_PATH).is_some() {
            self.cx.say(instance, Kind::DriftCorrected, corrected(id));
            Self::note_drift(instance);
        }
    }

    /// A look has seen what came of them, unless something was told since it began.
    pub(super) fn deeds_seen(&mut self, id: &InstanceId) {
        let held = self.instances.get_mut(id).and_then(|instance| instance.held.as_mut());
        if let Some(held) = held.filter(|held| !held.look_again) {
            held.deeds.seen();
        }
    }

    pub(super) fn doubt_deeds(&mut self) {
        for held in self.instances.values_mut().filter_map(|instance| instance.held.as_mut()) {
            held.deeds.doubt();
        }
    }
}

/// Why a run ended, where that was want of memory and nothing else is known.
pub(super) fn for_memory(instance: &Instance, run: u64, exit: &Exit) -> Option<String> {
    let is_open = exit.why.as_ref().is_none_or(|why| why == OWN_END);
    let held = instance.held.as_ref().filter(|held| is_open && held.deeds.ended_for_memory(run, exit))?;
    Some(held.record.as_ref()?.limits.clone().unwrap_or_default().out_of_memory())
}

fn corrected(id: &InstanceId) -> String {
    format!("{RUNNING_PATH} of {id} is as declared again")
}
