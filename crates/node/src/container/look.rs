//! What an engine says of a container, reduced to what we ask for; and how that differs from what it was told. Pure.

use std::collections::BTreeMap;

use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum as Status, ContainerUpdateBody, HealthStatusEnum,
    HostConfig, RestartPolicy, RestartPolicyNameEnum,
};
use model::{
    container::{Container, Network},
    observation::ExitStatus,
    spec::Resources,
};
use serde::{Deserialize, Serialize};

use crate::site::Difference;

/// One container as its engine describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub id: String,
    pub name: String,
    pub state: State,
    /// Void unless it runs.
    pub pid: Option<u32>,
    /// When its present or last run began, in the engine's words; only ever compared.
    pub started: Option<String>,
    pub health: Option<Judged>,
    /// Its networks by name, with its address in each.
    pub networks: BTreeMap<String, String>,
    pub limits: Limits,
    /// The machine's port that leads to it: published for it, or told to it where it has the machine's network.
    pub port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Made and never started.
    Created,
    Running,
    /// Frozen by somebody: it lives and does nothing.
    Paused,
    /// Its end, with what the engine said of it.
    Ended {
        exit: ExitStatus,
        why: Option<String>,
    },
    /// On its way out, or half of it is gone.
    Dead,
}

impl State {
    pub fn lives(&self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// What the engine's own probing of an image's HEALTHCHECK says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    Starting,
    Healthy,
    Unhealthy(String),
}

/// What can be changed of a container behind our back. The values are the engine's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub memory: i64,
    pub memory_swap: i64,
    pub memory_reservation: i64,
    pub nano_cpus: i64,
    pub cpu_shares: i64,
    pub cpu_period: i64,
    pub cpu_quota: i64,
    pub cpuset: String,
    pub pids: i64,
    pub restart: String,
}

impl Seen {
    pub fn of(inspected: &ContainerInspectResponse) -> Option<Self> {
        let state = inspected.state.as_ref()?;
        let host = inspected.host_config.as_ref();
        let networks = inspected.network_settings.as_ref().and_then(|network| network.networks.as_ref());
        Some(Self {
            id: inspected.id.clone()?,
            name: inspected.name.as_deref().unwrap_or_default().trim_start_matches('/').to_owned(),
            state: state_of(state),
            pid: state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0),
            started: state.started_at.clone().filter(|at| !at.starts_with("0001-")),
            health: state.health.as_ref().and_then(judged),
            networks: networks
                .into_iter()
                .flatten()
                .map(|(name, end)| (name.clone(), end.ip_address.clone().unwrap_or_default()))
                .collect(),
            limits: host.map(Limits::of).unwrap_or_default(),
            port: host.and_then(|host| port_of(host, inspected.config.as_ref()?.env.as_deref())),
        })
    }
}

fn port_of(host: &HostConfig, env: Option<&[String]>) -> Option<u16> {
    if host.network_mode.as_deref() == Some("host") {
        return env?.iter().find_map(|line| line.strip_prefix("PORT="))?.parse().ok();
    }
    let mut bindings = host.port_bindings.as_ref()?.values().flatten().flatten();
    bindings.next()?.host_port.as_ref()?.parse().ok()
}

fn state_of(state: &bollard::models::ContainerState) -> State {
    match state.status {
        Some(Status::CREATED) => State::Created,
        Some(Status::RUNNING | Status::RESTARTING) => State::Running,
        Some(Status::PAUSED) => State::Paused,
        Some(Status::REMOVING | Status::DEAD) => State::Dead,
        Some(Status::EXITED | Status::STOPPING | Status::EMPTY) | None => {
            let exit = state.exit_code.and_then(|code| i32::try_from(code).ok());
            let oom = state.oom_killed == Some(true);
            let error = state.error.as_ref().filter(|error| !error.is_empty());
            State::Ended {
                exit: exit.map_or(ExitStatus::Unknown, exit_status),
                why: oom
                    .then(|| "it had reached its memory limit".to_owned())
                    .or_else(|| error.map(|error| one_line(error))),
            }
        }
    }
}

/// An engine gives 128 and the number of the signal that ended the first process.
pub fn exit_status(code: i32) -> ExitStatus {
    match code {
        129..=192 => ExitStatus::Signal(code - 128),
        code => ExitStatus::Code(code),
    }
}

fn judged(health: &bollard::models::Health) -> Option<Judged> {
    match health.status? {
        HealthStatusEnum::STARTING => Some(Judged::Starting),
        HealthStatusEnum::HEALTHY => Some(Judged::Healthy),
        HealthStatusEnum::UNHEALTHY => {
            let last = health.log.as_ref().and_then(|log| log.last()).and_then(|last| last.output.as_deref());
            Some(Judged::Unhealthy(one_line(last.unwrap_or_default())))
        }
        HealthStatusEnum::EMPTY | HealthStatusEnum::NONE => None,
    }
}

/// Somebody else's text: one line of it, without what a terminal would obey.
pub fn one_line(text: &str) -> String {
    const MOST: usize = 300;
    let line: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST).collect();
    line
}

impl Limits {
    pub fn of(host: &HostConfig) -> Self {
        let restart = host.restart_policy.as_ref().and_then(|policy| policy.name);
        Self {
            memory: host.memory.unwrap_or_default(),
            memory_swap: host.memory_swap.unwrap_or_default(),
            memory_reservation: host.memory_reservation.unwrap_or_default(),
            nano_cpus: host.nano_cpus.unwrap_or_default(),
            cpu_shares: host.cpu_shares.unwrap_or_default(),
            cpu_period: host.cpu_period.unwrap_or_default(),
            cpu_quota: host.cpu_quota.unwrap_or_default(),
            cpuset: host.cpuset_cpus.clone().unwrap_or_default(),
            pids: host.pids_limit.unwrap_or_default().max(0),
            restart: match restart {
                None | Some(RestartPolicyNameEnum::EMPTY | RestartPolicyNameEnum::NO) => "no".into(),
                Some(other) => other.to_string(),
            },
        }
    }

    fn each(&self) -> [(&'static str, String); 10] {
        [
            ("memory", self.memory.to_string()),
            ("memory_swap", self.memory_swap.to_string()),
            ("memory_reservation", self.memory_reservation.to_string()),
            ("nano_cpus", self.nano_cpus.to_string()),
            ("cpu_shares", self.cpu_shares.to_string()),
            ("cpu_period", self.cpu_period.to_string()),
            ("cpu_quota", self.cpu_quota.to_string()),
            ("cpuset", self.cpuset.clone()),
            ("pids", self.pids.to_string()),
            ("restart_policy", self.restart.clone()),
        ]
    }

    /// What brings these values back. An engine takes 0 for "as it is", so that what was unlimited gets the whole
    /// machine instead.
    pub fn restore(&self, machine: Machine) -> ContainerUpdateBody {
        let or_all = |value: i64, all: i64| Some(if value == 0 { all } else { value });
        ContainerUpdateBody {
            memory: or_all(self.memory, machine.memory),
            memory_swap: or_all(self.memory_swap, -1),
            memory_reservation: (self.memory_reservation != 0).then_some(self.memory_reservation),
            nano_cpus: or_all(self.nano_cpus, machine.nano_cpus),
            cpu_shares: or_all(self.cpu_shares, 1024),
            cpuset_cpus: (!self.cpuset.is_empty()).then(|| self.cpuset.clone()),
            pids_limit: Some(if self.pids == 0 { -1 } else { self.pids }),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            ..ContainerUpdateBody::default()
        }
    }

    /// The same, where the whole machine counts as no limit.
    fn normal(&self, machine: Machine) -> Self {
        let none_if = |value: i64, all: i64| if value == all { 0 } else { value };
        Self {
            memory: none_if(self.memory, machine.memory),
            memory_swap: none_if(self.memory_swap, -1),
            nano_cpus: none_if(self.nano_cpus, machine.nano_cpus),
            cpu_shares: none_if(self.cpu_shares, 1024),
            ..self.clone()
        }
    }
}

/// The machine that the engine runs on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Machine {
    pub memory: i64,
    pub nano_cpus: i64,
}

/// What a container should be like, for comparing.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub name: &'a str,
    /// The project's network, where it has one.
    pub network: Option<&'a str>,
    /// As the engine took them at its creation; without that memory, what is declared stands for them.
    pub limits: Option<&'a Limits>,
    pub resources: &'a Resources,
    pub machine: Machine,
}

/// Every field that somebody has changed, by the paths that drift has.
pub fn compare(wanted: &Wanted<'_>, seen: &Seen) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut differ = |path: String, declared: &str, observed: &str| {
        if declared != observed {
            let text = |text: &str| Some(text.to_owned());
            found.push(Difference { path, declared: text(declared), observed: text(observed), ours: true });
        }
    };
    differ("container/name".into(), wanted.name, &seen.name);
    if seen.state.lives() {
        differ(
            "container/paused".into(),
            "false",
            if seen.state == State::Paused { "true" } else { "false" },
        );
    }
    if let Some(network) = wanted.network {
        let observed = if seen.networks.contains_key(network) { network } else { "disconnected" };
        differ("container/network".into(), network, observed);
    }
    let declared = wanted.limits.cloned().unwrap_or_else(|| declared(wanted.resources, &seen.limits));
    let (declared, observed) = (declared.normal(wanted.machine), seen.limits.normal(wanted.machine));
    for ((name, declared), (_, observed)) in declared.each().into_iter().zip(observed.each()) {
        differ(format!("container/{name}"), &declared, &observed);
    }
    found
}

/// Where nobody remembers what the engine made of it.
fn declared(resources: &Resources, seen: &Limits) -> Limits {
    let number = |value: Option<u64>| value.and_then(|value| i64::try_from(value).ok()).unwrap_or_default();
    Limits {
        memory: number(resources.memory.map(|memory| memory.0)),
        nano_cpus: number(resources.millicpus.map(|millis| u64::from(millis) * 1_000_000)),
        pids: number(resources.pids.map(u64::from)),
        restart: "no".into(),
        ..seen.clone()
    }
}

/// The name of the network that it must be in.
pub fn network_of(container: &Container, project: impl FnOnce() -> String) -> Option<String> {
    match container.network {
        Network::Project => Some(project()),
        Network::Host | Network::None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        Seen {
            id: "c1".into(),
            name: "web".into(),
            state: State::Running,
            pid: Some(7),
            started: Some("2026-01-01T00:00:00Z".into()),
            health: None,
            networks: [("demo".to_owned(), "172.18.0.2".to_owned())].into(),
            limits: Limits { restart: "no".into(), ..Limits::default() },
            port: None,
        }
    }

    const MACHINE: Machine = Machine { memory: 1 << 34, nano_cpus: 2_000_000_000 };

    fn paths(change: impl FnOnce(&mut Seen)) -> Vec<String> {
        let told = seen().limits;
        let resources = Resources::default();
        let wanted = Wanted {
            name: "web",
            network: Some("demo"),
            limits: Some(&told),
            resources: &resources,
            machine: MACHINE,
        };
        let mut seen = seen();
        change(&mut seen);
        compare(&wanted, &seen).into_iter().map(|difference| difference.path).collect()
    }

    #[test]
    fn each_thing_that_somebody_changed_is_named_and_nothing_else() {
        assert!(paths(|_| {}).is_empty());
        assert_eq!(paths(|s| s.name = "other".into()), ["container/name"]);
        assert_eq!(paths(|s| s.state = State::Paused), ["container/paused"]);
        assert_eq!(paths(|s| s.networks.clear()), ["container/network"]);
        assert_eq!(paths(|s| s.limits.memory = 1 << 26), ["container/memory"]);
        assert_eq!(paths(|s| s.limits.restart = "always".into()), ["container/restart_policy"]);
        assert_eq!(paths(|s| s.limits.pids = 9), ["container/pids"]);
    }

    #[test]
    fn what_was_unlimited_and_got_the_whole_machine_back_is_as_declared() {
        let back = seen().limits.restore(MACHINE);
        let restored = paths(|s| {
            s.limits.memory = back.memory.unwrap();
            s.limits.memory_swap = back.memory_swap.unwrap();
            s.limits.nano_cpus = back.nano_cpus.unwrap();
            s.limits.cpu_shares = back.cpu_shares.unwrap();
        });
        assert!(restored.is_empty(), "{restored:?}");
    }

    #[test]
    fn an_exit_by_signal_is_told_as_one() {
        assert_eq!(exit_status(137), ExitStatus::Signal(9));
        assert_eq!(exit_status(143), ExitStatus::Signal(15));
        assert_eq!(exit_status(3), ExitStatus::Code(3));
        assert_eq!(exit_status(0), ExitStatus::Code(0));
        assert_eq!(exit_status(255), ExitStatus::Code(255));
    }

    #[test]
    fn somebody_elses_text_becomes_one_harmless_line() {
        assert_eq!(one_line("a\u{1b}[2Jb\nc\n"), "a [2Jb c");
        assert_eq!(one_line(&"x".repeat(9999)).len(), 300);
    }
}
