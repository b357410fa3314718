//! A hand that acts on containers, past the agent.

use super::Play;
use crate::{
    engine::{Container, ContainerId, Maker, State},
    story::Deed,
};

impl Play<'_> {
    pub(super) fn hand(&mut self, nth: usize, deed: Deed) {
        let ours = |maker| maker != Maker::Hand;
        let all: Vec<(usize, ContainerId)> = (0..self.hosts.len())
            .flat_map(|node| self.hosts[node].engine.containers.iter().map(move |(id, c)| (node, *id, c)))
            .filter(|(_, _, container)| ours(container.maker) && container.state != State::Created)
            .map(|(node, id, _)| (node, id))
            .collect();
        let Some((node, id)) = all.get(nth % all.len().max(1)).copied() else { return };
        // It asks the engine too.
        if !self.hosts[node].engine.is_up() {
            return;
        }
        let Some(container) = self.hosts[node].engine.containers.get(&id).cloned() else { return };
        let service = container.labels.instance.service.clone();
        match deed {
            Deed::Stop => {
                if let Some(pid) = container.pid() {
                    self.engine_tells_of_deed(node, id, container.started);
                    self.dies(node, pid, true);
                }
            }
            Deed::Start => {
                if let State::Ended { .. } = container.state {
                    let pid = self.act(node, |host, around| host.engine.run(id, around));
                    // One that a lost ledger had named is nobody's still.
                    if !self.hosts[node].agent.containers().contains(&id) {
                        self.truth.unowned.extend(pid);
                    }
                }
            }
            Deed::Pause => {
                let State::Running { pid } = container.state else { return };
                self.truth.disturbed(self.now, &service);
                self.change(node, id, |container| container.state = State::Paused { pid });
                if let Some(process) = self.hosts[node].machine.processes.get_mut(&pid) {
                    process.frozen = true;
                }
            }
            Deed::Remove => {
                if let Some(pid) = container.pid() {
                    self.engine_tells_of_deed(node, id, container.started);
                    self.dies(node, pid, true);
                }
                self.hosts[node].engine.containers.remove(&id);
                let seen = self.hosts[node].agent.sees_processes();
                self.truth.ends.removed(&container.labels.instance, seen);
                self.engine_tells(node, id);
            }
            Deed::Rename => self.change(node, id, |container| container.name.push_str("-old")),
            Deed::Copy => self.copy(node, &container),
        }
    }

    fn change(&mut self, node: usize, id: ContainerId, change: impl FnOnce(&mut Container)) {
        if let Some(container) = self.hosts[node].engine.containers.get_mut(&id) {
            change(container);
            self.engine_tells(node, id);
        }
    }

    /// From a copied command line: all the labels, another name, no port.
    fn copy(&mut self, node: usize, of: &Container) {
        let copies = self.hosts[node].engine.containers.len();
        let copy = Container {
            name: format!("{}-copy-{copies}", of.name),
            port: None,
            maker: Maker::Hand,
            character: crate::shape::Character::Good,
            state: State::Created,
            ..of.clone()
        };
        let pid = self.act(node, |host, around| {
            let id = host.engine.add(copy);
            host.engine.run(id, around)
        });
        if let Some(pid) = pid {
            self.strange(node, pid);
        }
    }

    pub(super) fn strange(&mut self, node: usize, pid: u32) {
        if let Some(process) = self.hosts[node].machine.processes.get_mut(&pid) {
            process.stranger = true;
        }
        self.strangers.insert(pid);
        self.truth.unowned.insert(pid);
    }
}
