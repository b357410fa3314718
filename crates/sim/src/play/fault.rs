//! What breaks, and what is put back once the faults have healed.

use std::collections::BTreeSet;

use model::{Millis, ServiceKey, node::Drain};

use super::{Event, Host, Play};
use crate::{
    ends::{End, Whose},
    engine::{Container, ContainerId, Maker},
    machine::Process,
    node::Happens,
    story::{Damage, Ending, Fault},
};

impl Play<'_> {
    pub(super) fn fault(&mut self, fault: Fault) {
        let until = |lasts: Millis| self.now + lasts;
        match fault {
            Fault::ServerCrash { down } => self.server_crash(down),
            Fault::CrashAtCommit { after, down } => self.crash_at_commit = Some((after, down)),
            Fault::UnknownOutcome { made } => self.store.next_unknown = Some(made),
            Fault::NodeCrash { node, down } => {
                self.agent_ends(node);
                self.hosts[node].agent.crash();
                self.after(down, Event::AtNode { node, what: Happens::Up });
            }
            Fault::Reboot { node, down } => self.reboot(node, down),
            Fault::LedgerLost { node } => self.lose_ledger(node),
            Fault::EdgeRestart { edge, down } => {
                self.edges[edge].stop();
                self.after(down, Event::EdgeUp { edge });
            }
            Fault::EngineHangs { node, lasts } => self.engine_hangs(node, lasts),
            Fault::EngineEnds { node, down, ending } => self.engine_ends(node, down, ending),
            Fault::EngineManner { node, manner, lasts } => {
                let until = until(lasts);
                self.hosts[node].engine.trouble(manner, until);
            }
            Fault::Hand { nth, deed } => self.hand(nth, deed),
            Fault::Kill { nth } => {
                if let Some((node, pid)) = self.nth_process(nth) {
                    self.dies(node, pid, true);
                }
            }
            Fault::Sick { nth, lasts } => {
                let until = until(lasts);
                let Some((node, pid)) = self.nth_process(nth) else { return };
                if let Some(process) = self.hosts[node].machine.processes.get_mut(&pid) {
                    process.sick_until = until;
                    let service = process.id.service.clone();
                    self.truth.disturbed(self.now, &service);
                }
            }
            Fault::Damage { nth, kind } => self.damage(nth, kind),
            Fault::Stranger => self.stranger(),
            Fault::Drained { node, lasts } => {
                self.drain(node, true);
                self.after(lasts, Event::Undrained { node });
            }
            Fault::Unreadable { service, lasts } => {
                self.unreadable.insert(self.story.shapes[service].key.clone());
                self.after(lasts, Event::Readable { service });
                self.server_reads();
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

    pub(super) fn drain(&mut self, node: usize, begins: bool) {
        let id = self.hosts[node].agent.id.clone();
        match begins {
            true => drop(self.store.drains.insert(id, Drain { since: self.now, by: "an operator".into() })),
            false => drop(self.store.drains.remove(&id)),
        }
        let drains = self.store.drains.clone();
        self.server_told(|view| view.set_drains(drains));
    }

    fn nth_process(&self, nth: usize) -> Option<(usize, u32)> {
        let live = self.hosts.iter().enumerate().flat_map(|(node, host)| {
            host.machine.live().filter(|(_, process)| !process.stranger).map(move |(pid, _)| (node, pid))
        });
        let live: Vec<(usize, u32)> = live.collect();
        live.get(nth % live.len().max(1)).copied()
    }

    fn reboot(&mut self, node: usize, down: Millis) {
        self.agent_ends(node);
        self.hosts[node].agent.reboot();
        self.engine_ends(node, down, Ending::LeavesThem);
        for pid in self.hosts[node].machine.live().map(|(pid, _)| pid).collect::<Vec<_>>() {
            self.strangers.remove(&pid);
            self.dies(node, pid, true);
        }
        self.after(down, Event::AtNode { node, what: Happens::Up });
        if node < self.edges.len() {
            self.edges[node].stop();
            self.after(down, Event::EdgeUp { edge: node });
        }
    }

    /// A start under way is not known to have been made, and costs another attempt.
    fn agent_ends(&mut self, node: usize) {
        let agent = &self.hosts[node].agent;
        for (id, release) in agent.starts_under_way() {
            let unknown = End::new(self.now, &agent.id, Whose::Unclear);
            self.truth.ends.ended(self.now, &id, release, unknown);
        }
    }

    fn lose_ledger(&mut self, node: usize) {
        self.ledger_was_lost = true;
        let host = &mut self.hosts[node];
        host.agent.lose_ledger();
        host.engine.forgotten();
        self.truth.ledger_lost(self.now, &host.agent.id, &host.machine);
        // The agent is new: nothing that was under way to the old one reaches it, and nothing that it has asked is done.
        self.queue.retain(|_, event| {
            !matches!(event, Event::AtNode { node: at, what: Happens::Offered(_) | Happens::EngineDoes { .. } } if *at == node)
        });
        self.after(Millis(50), Event::AtNode { node, what: Happens::Up });
    }

    fn damage(&mut self, nth: usize, kind: Damage) {
        let links = self.hosts.iter().enumerate().flat_map(|(node, host)| {
            host.machine.links.iter().map(move |(service, shown)| (node, service.clone(), shown.clone()))
        });
        let sites: Vec<(usize, ServiceKey, String)> = links.collect();
        let Some((node, service, shown)) = sites.get(nth % sites.len().max(1)).cloned() else { return };
        self.by_hand.insert(service.clone());
        let machine = &mut self.hosts[node].machine;
        match kind {
            Damage::File => {
                if let Some(folder) = machine.folders.get_mut(&shown) {
                    folder.damaged = true;
                }
            }
            Damage::Folder => drop(machine.folders.remove(&shown)),
            Damage::Link => drop(machine.links.insert(service, "/somewhere".into())),
        }
        self.node(node, |agent, around| agent.nudge(around));
    }

    /// A process with our marks that nobody of us has started.
    fn stranger(&mut self) {
        let Some((node, pid)) = self.nth_process(0) else { return };
        let machine = &mut self.hosts[node].machine;
        let Some(like) = machine.processes.get(&pid) else { return };
        let mut id = like.id.clone();
        id.incarnation.0 += 1_000_000;
        let (release, character) = (like.release, crate::shape::Character::Good);
        let pid = machine.spawn(id, release, character, None, self.now, &mut self.rng);
        self.strange(node, pid);
    }

    /// All faults end.
    pub(super) fn heal(&mut self) {
        self.told("faults heal".into());
        self.healed = true;
        self.net.heal();
        self.unreadable.clear();
        self.server_reads();
        for node in 0..self.hosts.len() {
            self.drain(node, false);
        }
        self.crash_at_commit = None;
        self.store.next_unknown = None;
        for host in &mut self.hosts {
            host.engine.heal(self.now);
            for process in host.machine.processes.values_mut() {
                process.sick_until = process.sick_until.min(self.now);
            }
        }
        self.all_up();
    }

    /// An operator removes what no ledger knows since one was lost.
    pub(super) fn clear(&mut self) {
        for node in 0..self.hosts.len() {
            self.clear_node(node);
        }
    }

    fn clear_node(&mut self, node: usize) {
        self.clear_containers(node);
        let host = &self.hosts[node];
        let entries = &host.agent.ledger.entries;
        let known: BTreeSet<u32> = entries.values().filter_map(|entry| entry.pid).collect();
        let orphan = |pid: &u32, process: &Process| {
            self.truth.unowned.contains(pid)
                && !known.contains(pid)
                && !process.stranger
                && process.container.is_none()
        };
        let orphans = host.machine.live().filter(|(pid, process)| orphan(pid, process));
        for pid in orphans.map(|(pid, _)| pid).collect::<Vec<_>>() {
            self.dies(node, pid, true);
        }
        if self.ledger_was_lost {
            let Host { agent, machine, .. } = &mut self.hosts[node];
            let owned: BTreeSet<String> =
                agent.ledger.entries.values().map(|entry| crate::node::folder(&entry.assigned)).collect();
            machine.folders.retain(|path, _| owned.contains(path));
            machine.links.retain(|_, path| owned.contains(path));
        }
    }

    /// Copies go too: with the ledger lost nobody else can tell which one is which.
    fn clear_containers(&mut self, node: usize) {
        let Host { agent, engine, .. } = &self.hosts[node];
        let known = agent.containers();
        let orphan = |id: &ContainerId, container: &Container| match container.maker {
            Maker::Agent => false,
            Maker::Forgotten => !known.contains(id),
            Maker::Hand => self.ledger_was_lost,
        };
        let orphans: Vec<(ContainerId, Option<u32>)> = engine
            .containers
            .iter()
            .filter(|(id, container)| orphan(id, container))
            .map(|(id, container)| (*id, container.pid()))
            .collect();
        for (id, pid) in orphans {
            if let Some(pid) = pid {
                self.strangers.remove(&pid);
                self.dies(node, pid, true);
            }
            self.hosts[node].engine.containers.remove(&id);
        }
    }
}
