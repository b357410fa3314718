//! What endpoint events have subtracted from the table. It never adds.
//!
//! An entry is kept when its instance is not in the table yet: a death may be told before the table that names
//! the instance arrives. It ends with a `Ready` at the address that the table names, or when a table no longer names the instance.

use std::collections::BTreeMap;

use model::InstanceId;

/// More than this many instances down and unknown at once means that the table is late; the oldest are forgotten.
const MAX_ENTRIES: usize = 16_384;

#[derive(Debug, Default)]
pub struct Overlay {
    down: BTreeMap<InstanceId, Entry>,
    events: u64,
}

#[derive(Debug)]
struct Entry {
    /// Which event it was.
    event: u64,
    /// It is ready again, at an address that the table does not name yet: what listens at the one that it names may be
    /// somebody else by now.
    ready_at: Option<String>,
}

impl Overlay {
    pub fn down(&mut self, instance: InstanceId) {
        self.note(instance, None);
    }

    /// Ready elsewhere: still down where the table leads to.
    pub fn moved(&mut self, instance: InstanceId, address: &str) {
        self.note(instance, Some(address.to_owned()));
    }

    fn note(&mut self, instance: InstanceId, ready_at: Option<String>) {
        self.events += 1;
        self.down.insert(instance, Entry { event: self.events, ready_at });
        if self.down.len() > MAX_ENTRIES {
            self.forget_oldest();
        }
    }

    /// A table names this address for it.
    pub fn named(&mut self, instance: &InstanceId, address: &str) {
        if self.down.get(instance).is_some_and(|entry| entry.ready_at.as_deref() == Some(address)) {
            self.down.remove(instance);
        }
    }

    pub fn lift(&mut self, instance: &InstanceId) {
        self.down.remove(instance);
    }

    pub fn is_down(&self, instance: &InstanceId) -> bool {
        self.down.contains_key(instance)
    }

    fn forget_oldest(&mut self) {
        let oldest =
            self.down.iter().min_by_key(|(_, entry)| entry.event).map(|(instance, _)| instance.clone());
        if let Some(instance) = oldest {
            self.down.remove(&instance);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(n: u64) -> InstanceId {
        format!("default.api.0.{n}").parse().unwrap()
    }

    #[test]
    fn a_death_is_remembered_until_ready_and_the_memory_is_bounded() {
        let mut overlay = Overlay::default();
        for n in 0..=MAX_ENTRIES as u64 {
            overlay.down(instance(n));
        }
        assert!(!overlay.is_down(&instance(0)), "the oldest is forgotten");
        assert!(overlay.is_down(&instance(1)));
        overlay.lift(&instance(1));
        assert!(!overlay.is_down(&instance(1)));
    }
}
