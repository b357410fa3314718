//! What is true on the machine: processes that live or do not, ports with one owner, folders and links. The agent
//! acts on it and looks at it; the invariants are read from it.

use std::collections::BTreeMap;

use model::{InstanceId, ReleaseDigest, ServiceKey, Timestamp};
use rand::{Rng, rngs::StdRng};

use crate::{engine::ContainerId, shape::Character};

#[derive(Debug, Default)]
pub struct Machine {
    /// By pid; the dead stay for the record until they are reaped.
    pub processes: BTreeMap<u32, Process>,
    pub folders: BTreeMap<String, Folder>,
    /// `current` of each site.
    pub links: BTreeMap<ServiceKey, String>,
    next_pid: u32,
}

#[derive(Debug, Clone)]
pub struct Process {
    pub id: InstanceId,
    /// The container that it is the first process of.
    pub container: Option<ContainerId>,
    pub release: ReleaseDigest,
    pub character: Character,
    pub port: Option<u16>,
    pub started: Timestamp,
    /// When it begins to answer, if ever.
    pub answers_at: Option<Timestamp>,
    pub dies_at: Option<Timestamp>,
    pub sick_until: Timestamp,
    /// Its container is paused.
    pub frozen: bool,
    pub told_to_end: Option<EndReason>,
    pub alive: bool,
    /// It merely bears our marks.
    pub stranger: bool,
}

/// Why a process was told to end, by the agent or by its engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// It is not assigned.
    Removed,
    /// It lives and does not work.
    Unhealthy,
    /// Its engine ends.
    WithEngine {
        /// Whoever listens can tell, by the engine's word or by its absence.
        is_told: bool,
    },
}

#[derive(Debug, Clone, Default)]
pub struct Folder {
    pub complete: bool,
    /// By hand; cleared when it is whole again.
    pub damaged: bool,
}

impl Process {
    pub fn answers(&self, now: Timestamp) -> bool {
        self.alive && !self.frozen && now >= self.sick_until && self.answers_at.is_some_and(|at| at <= now)
    }
}

impl Machine {
    /// Pids of different machines differ.
    pub fn of_node(node: usize) -> Self {
        Self { next_pid: u32::try_from(node).unwrap_or_default() * 1_000_000, ..Self::default() }
    }

    pub fn spawn(
        &mut self,
        id: InstanceId,
        release: ReleaseDigest,
        character: Character,
        port: Option<u16>,
        now: Timestamp,
        rng: &mut StdRng,
    ) -> u32 {
        self.next_pid += 1;
        let after = |from: u64, to: u64, rng: &mut StdRng| Timestamp(now.0 + rng.random_range(from..to));
        let quick = after(30, 400, rng);
        let answers_at = match character {
            Character::Good | Character::Stubborn | Character::DiesReady => Some(quick),
            Character::Slow => Some(after(1_500, 4_000, rng)),
            Character::Never | Character::Crash => None,
        };
        let dies_at = match character {
            Character::Crash => Some(after(5, 40, rng)),
            Character::DiesReady => Some(Timestamp(quick.0 + rng.random_range(300..2_500))),
            Character::Good | Character::Slow | Character::Never | Character::Stubborn => None,
        };
        let process = Process {
            id,
            container: None,
            release,
            character,
            port,
            started: now,
            answers_at,
            dies_at,
            sick_until: Timestamp::ZERO,
            frozen: false,
            told_to_end: None,
            alive: true,
            stranger: false,
        };
        self.processes.insert(self.next_pid, process);
        self.next_pid
    }

    pub fn live(&self) -> impl Iterator<Item = (u32, &Process)> {
        self.processes.iter().filter(|(_, process)| process.alive).map(|(pid, process)| (*pid, process))
    }

    /// How many processes were ever started on a first node.
    #[cfg(test)]
    pub fn spawned(&self) -> u32 {
        self.next_pid
    }

    pub fn is_alive(&self, pid: u32) -> bool {
        self.processes.get(&pid).is_some_and(|process| process.alive)
    }

    pub fn listener(&self, port: u16) -> Option<(u32, &Process)> {
        self.live().find(|(_, process)| process.port == Some(port))
    }

    /// The live process, in no container, that bears an instance's marks.
    pub fn marked(&self, id: &InstanceId) -> Option<u32> {
        self.live().find(|(_, process)| process.id == *id && process.container.is_none()).map(|(pid, _)| pid)
    }
}
