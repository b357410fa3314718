//! What breaks, and what is put back once the faults have healed.

use std::collections::BTreeSet;

use model::{Millis, ServiceKey};

use super::{Event, Play};
use crate::story::{Damage, Fault};

impl Play<'_> {
    pub(super) fn fault(&mut self, fault: Fault) {
        let until = |lasts: Millis| self.now + lasts;
        match fault {
            Fault::ServerCrash { down } => self.server_crash(down),
            Fault::CrashAtCommit { after, down } => self.crash_at_commit = Some((after, down)),
            Fault::UnknownOutcome { made } => self.store.next_unknown = Some(made),
            Fault::NodeCrash { down } => {
                self.agent.crash();
                self.after(down, Event::NodeUp);
            }
            Fault::Reboot { down } => self.reboot(down),
            Fault::LedgerLost => self.lose_ledger(),
            Fault::EdgeRestart { down } => {
                self.edge.stop();
                self.after(down, Event::EdgeUp);
            }
            Fault::Kill { nth } => {
                if let Some(pid) = self.nth_process(nth) {
                    self.dies(pid, true);
                }
            }
            Fault::Sick { nth, lasts } => {
                let until = until(lasts);
                let Some(pid) = self.nth_process(nth) else { return };
                if let Some(process) = self.machine.processes.get_mut(&pid) {
                    process.sick_until = until;
                    let service = process.id.service.clone();
                    self.truth.disturbed(self.now, &service);
                }
            }
            Fault::Damage { nth, kind } => self.damage(nth, kind),
            Fault::Stranger => self.stranger(),
            Fault::Unreadable { service, lasts } => {
                self.unreadable.insert(self.story.shapes[service].key());
                self.after(lasts, Event::Readable { service });
                self.look();
            }
            Fault::Lossy { lasts, .. }
            | Fault::Delayed { lasts, .. }
            | Fault::Repeating { lasts, .. }
            | Fault::Cut { lasts, .. } => {
                let until = until(lasts);
                self.net.trouble(fault, until);
            }
        }
    }

    fn nth_process(&self, nth: usize) -> Option<u32> {
        let live: Vec<u32> =
            self.machine.live().map(|(pid, _)| pid).filter(|pid| !self.strangers.contains(pid)).collect();
        live.get(nth % live.len().max(1)).copied()
    }

    fn reboot(&mut self, down: Millis) {
        self.agent.reboot();
        for pid in self.machine.live().map(|(pid, _)| pid).collect::<Vec<_>>() {
            self.strangers.remove(&pid);
            self.dies(pid, true);
        }
        self.edge.stop();
        self.after(down, Event::NodeUp);
        self.after(down, Event::EdgeUp);
    }

    fn lose_ledger(&mut self) {
        self.ledger_was_lost = true;
        self.agent.lose_ledger();
        self.truth.ledger_lost(self.now, &self.machine);
        // The agent is new: nothing that was under way to the old one reaches it.
        self.queue.retain(|_, event| !matches!(event, Event::ToNode(_)));
        self.after(Millis(50), Event::NodeUp);
    }

    fn damage(&mut self, nth: usize, kind: Damage) {
        let sites: Vec<(ServiceKey, String)> = self.machine.links.clone().into_iter().collect();
        let Some((service, shown)) = sites.get(nth % sites.len().max(1)).cloned() else { return };
        self.by_hand.insert(service.clone());
        match kind {
            Damage::File => {
                if let Some(folder) = self.machine.folders.get_mut(&shown) {
                    folder.damaged = true;
                }
            }
            Damage::Folder => drop(self.machine.folders.remove(&shown)),
            Damage::Link => drop(self.machine.links.insert(service, "/somewhere".into())),
        }
        self.node(|agent, around| agent.nudge(around));
    }

    /// A process with our marks that nobody of us has started.
    fn stranger(&mut self) {
        let Some((_, like)) = self.machine.live().next() else { return };
        let mut id = like.id.clone();
        id.incarnation.0 += 1_000_000;
        let (release, character) = (like.release, crate::shape::Character::Good);
        let pid = self.machine.spawn(id, release, character, None, self.now, &mut self.rng);
        self.strangers.insert(pid);
        self.truth.unowned.insert(pid);
    }

    /// All faults end.
    pub(super) fn heal(&mut self) {
        self.told("faults heal".into());
        self.healed = true;
        self.net.heal();
        self.unreadable.clear();
        self.crash_at_commit = None;
        self.store.next_unknown = None;
        for process in self.machine.processes.values_mut() {
            process.sick_until = process.sick_until.min(self.now);
        }
        for event in [Event::ServerUp, Event::NodeUp, Event::EdgeUp] {
            self.after(Millis(0), event);
        }
    }

    /// An operator removes what no ledger knows since one was lost.
    pub(super) fn clear(&mut self) {
        let known: BTreeSet<u32> = self.agent.ledger.entries.values().filter_map(|entry| entry.pid).collect();
        let orphans = self.machine.live().map(|(pid, _)| pid).filter(|pid| self.truth.unowned.contains(pid));
        let orphans: Vec<u32> =
            orphans.filter(|pid| !known.contains(pid) && !self.strangers.contains(pid)).collect();
        for pid in orphans {
            self.dies(pid, true);
        }
        if self.ledger_was_lost {
            let owned: BTreeSet<String> = self
                .agent
                .ledger
                .entries
                .values()
                .map(|entry| crate::node::folder(&entry.assigned))
                .collect();
            self.machine.folders.retain(|path, _| owned.contains(path));
            self.machine.links.retain(|_, path| owned.contains(path));
        }
    }
}
