//! When to ask about which instance again: one time per instance, the earliest first.

use std::collections::{BTreeMap, BTreeSet};

use model::{InstanceId, Timestamp};

#[derive(Debug, Default)]
pub struct Timers {
    due: BTreeSet<(Timestamp, InstanceId)>,
    at: BTreeMap<InstanceId, Timestamp>,
}

impl Timers {
    /// Replaces the instance's time.
    pub fn set(&mut self, id: &InstanceId, at: Option<Timestamp>) {
        if let Some(before) = self.at.remove(id) {
            self.due.remove(&(before, id.clone()));
        }
        if let Some(at) = at {
            self.at.insert(id.clone(), at);
            self.due.insert((at, id.clone()));
        }
    }

    pub fn next(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes one instance whose time has come.
    pub fn pop(&mut self, now: Timestamp) -> Option<InstanceId> {
        let (at, _) = self.due.first()?;
        if *at > now {
            return None;
        }
        let (_, id) = self.due.pop_first()?;
        self.at.remove(&id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_has_one_time_and_the_earliest_comes_first() {
        let ids: Vec<InstanceId> = (0..3).map(|n| format!("default.api.{n}.1").parse().unwrap()).collect();
        let mut timers = Timers::default();
        timers.set(&ids[0], Some(Timestamp(5)));
        timers.set(&ids[1], Some(Timestamp(3)));
        timers.set(&ids[2], Some(Timestamp(1)));
        timers.set(&ids[2], None);
        timers.set(&ids[0], Some(Timestamp(2)));
        assert_eq!(timers.next(), Some(Timestamp(2)));
        assert_eq!(timers.pop(Timestamp(1)), None);
        assert_eq!(timers.pop(Timestamp(9)), Some(ids[0].clone()));
        assert_eq!(timers.pop(Timestamp(9)), Some(ids[1].clone()));
        assert_eq!((timers.pop(Timestamp(9)), timers.next()), (None, None));
    }
}
