//! What an engine says of a container, reduced to what we ask for; and how that differs from what it was told. Pure.

use std::collections::{BTreeMap, BTreeSet};

use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum as Status, ContainerUpdateBody, HealthStatusEnum,
    HostConfig, RestartPolicy, RestartPolicyNameEnum,
};
use model::{
    Bytes, Timestamp,
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
    /// When its last run ended.
    pub finished: Option<Timestamp>,
    pub health: Option<Judged>,
    /// Its networks by name, with its address in each.
    pub networks: BTreeMap<String, String>,
    /// In each, the names by which others find it.
    pub aliases: BTreeMap<String, BTreeSet<String>>,
    pub limits: Limits,
    /// The machine's port that leads to it: published for it, or told to it where it has the machine's network.
    pub port: Option<u16>,
}

impl Seen {
    /// It lives, and nobody reaches it: it is not in the network that it must be in, or has no address there.
    pub fn is_off(&self, network: Option<&str>, direct: bool) -> bool {
        let address = network.map(|network| self.networks.get(network));
        let off = |address: Option<&String>| address.is_none_or(|at| direct && at.is_empty());
        self.state.lives() && address.is_some_and(off)
    }
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
        /// The kernel ended it, or something in it, for want of memory.
        memory: bool,
        /// Why it could not be started.
        error: Option<String>,
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
#[serde(default)]
pub struct Limits {
    pub memory: i64,
    pub memory_swap: i64,
    pub memory_reservation: i64,
    pub nano_cpus: i64,
    pub cpu_shares: i64,
    pub cpu_period: i64,
    pub cpu_quota: i64,
    pub cpuset: String,
    pub cpuset_mems: String,
    pub blkio_weight: i64,
    pub pids: i64,
    pub restart: String,
}

impl Seen {
    /// Why its run ended, if the engine tells.
    pub fn why_ended(&self) -> Option<String> {
        let State::Ended { memory: true, .. } = self.state else { return None };
        Some(self.limits.out_of_memory())
    }

    /// When its run began, by the engine's clock.
    pub fn began(&self) -> Option<Timestamp> {
        self.started.as_deref().and_then(time)
    }

    /// When its run ended that nobody watched: the engine's clock is all there is, and may be another than ours. `began`: when
    /// its run did.
    pub fn ended_at(&self, began: Option<Timestamp>, now: Timestamp) -> Timestamp {
        self.finished.map_or(now, |at| at.max(began.unwrap_or(at)).min(now))
    }

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
            finished: state.finished_at.as_deref().and_then(time),
            health: state.health.as_ref().and_then(judged),
            networks: networks
                .into_iter()
                .flatten()
                .map(|(name, end)| (name.clone(), end.ip_address.clone().unwrap_or_default()))
                .collect(),
            aliases: networks
                .into_iter()
                .flatten()
                .map(|(name, end)| (name.clone(), end.aliases.iter().flatten().cloned().collect()))
                .collect(),
            limits: host.map(Limits::of).unwrap_or_default(),
            port: host.and_then(|host| port_of(host, inspected.config.as_ref()?.env.as_deref())),
        })
    }
}

/// `None` also for the year 1, by which an engine says "never".
fn time(text: &str) -> Option<Timestamp> {
    let at: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(at.as_millisecond()).ok().map(Timestamp)
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
            let error = state.error.as_ref().filter(|error| !error.is_empty());
            State::Ended {
                exit: exit.map_or(ExitStatus::Unknown, exit_status),
                memory: state.oom_killed == Some(true),
                error: error.map(|error| one_line(error)),
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
            cpuset_mems: host.cpuset_mems.clone().unwrap_or_default(),
            blkio_weight: host.blkio_weight.map_or(0, i64::from),
            pids: host.pids_limit.unwrap_or_default().max(0),
            restart: match restart {
                None | Some(RestartPolicyNameEnum::EMPTY | RestartPolicyNameEnum::NO) => "no".into(),
                Some(other) => other.to_string(),
            },
        }
    }

    pub fn out_of_memory(&self) -> String {
        let limit = u64::try_from(self.memory).ok().filter(|limit| *limit > 0);
        match limit {
            Some(limit) => format!("out of memory: its limit is {}", Bytes(limit)),
            None => "out of memory: the machine has no more".into(),
        }
    }

    fn each(&self) -> [(&'static str, String); 12] {
        [
            ("memory", self.memory.to_string()),
            ("memory_swap", self.memory_swap.to_string()),
            ("memory_reservation", self.memory_reservation.to_string()),
            ("nano_cpus", self.nano_cpus.to_string()),
            ("cpu_shares", self.cpu_shares.to_string()),
            ("cpu_period", self.cpu_period.to_string()),
            ("cpu_quota", self.cpu_quota.to_string()),
            ("cpuset", self.cpuset.clone()),
            ("cpuset_mems", self.cpuset_mems.clone()),
            ("blkio_weight", self.blkio_weight.to_string()),
            ("pids", self.pids.to_string()),
            ("restart_policy", self.restart.clone()),
        ]
    }

    /// What brings these values back where `seen` differs and the field is `wanted`, and nothing else: an engine refuses
    /// some values beside others. It takes 0 for "as it is", so that what had no limit gets all that the machine has, or
    /// what the kernel gives to whoever has none.
    pub fn restore(
        &self,
        seen: &Self,
        machine: &Machine,
        wanted: impl Fn(&str) -> bool,
    ) -> ContainerUpdateBody {
        let (told, mut now) = (self.normal(machine), seen.normal(machine));
        now.leave_out(&told, wanted);
        let number =
            |told: i64, now: i64, none: i64| (told != now).then_some(if told == 0 { none } else { told });
        let set = |told: &str, now: &str, none: &str| {
            (told != now).then(|| if told.is_empty() { none } else { told }.to_owned())
        };
        let memory = (told.memory, told.memory_swap) != (now.memory, now.memory_swap);
        ContainerUpdateBody {
            // Of the two, an engine takes neither beyond the other.
            memory: memory.then_some(if told.memory == 0 { machine.memory } else { told.memory }),
            memory_swap: memory.then_some(if told.memory_swap == 0 {
                machine.swap()
            } else {
                told.memory_swap
            }),
            memory_reservation: number(
                told.memory_reservation,
                now.memory_reservation,
                machine.no_reservation(),
            ),
            nano_cpus: number(told.nano_cpus, now.nano_cpus, machine.nano_cpus),
            cpu_shares: number(told.cpu_shares, now.cpu_shares, SHARES),
            cpu_period: number(told.cpu_period, now.cpu_period, PERIOD),
            cpu_quota: number(told.cpu_quota, now.cpu_quota, -1),
            cpuset_cpus: set(&told.cpuset, &now.cpuset, &machine.cpus()),
            cpuset_mems: set(&told.cpuset_mems, &now.cpuset_mems, &machine.memories),
            blkio_weight: number(told.blkio_weight, now.blkio_weight, WEIGHT)
                .and_then(|weight| u16::try_from(weight).ok()),
            pids_limit: (told.pids != now.pids).then_some(if told.pids == 0 { -1 } else { told.pids }),
            restart_policy: (told.restart != now.restart).then_some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            ..ContainerUpdateBody::default()
        }
    }

    /// Takes the values of the fields that are not `wanted`.
    fn leave_out(&mut self, told: &Self, wanted: impl Fn(&str) -> bool) {
        macro_rules! each {
            ($($name:literal $field:ident),*) => {
                $(if !wanted($name) {
                    self.$field.clone_from(&told.$field);
                })*
            };
        }
        each!(
            "memory" memory, "memory_swap" memory_swap, "memory_reservation" memory_reservation,
            "nano_cpus" nano_cpus, "cpu_shares" cpu_shares, "cpu_period" cpu_period, "cpu_quota" cpu_quota,
            "cpuset" cpuset, "cpuset_mems" cpuset_mems, "blkio_weight" blkio_weight, "pids" pids,
            "restart_policy" restart
        );
    }

    /// The same, where the whole machine counts as no limit.
    fn normal(&self, machine: &Machine) -> Self {
        let none_if = |value: i64, all: i64| if value == all { 0 } else { value };
        let void_if = |value: &String, all: &str| if value == all { String::new() } else { value.clone() };
        Self {
            memory: none_if(self.memory, machine.memory),
            memory_swap: none_if(none_if(self.memory_swap, -1), machine.swap()),
            memory_reservation: none_if(self.memory_reservation, machine.no_reservation()),
            nano_cpus: none_if(self.nano_cpus, machine.nano_cpus),
            cpu_shares: none_if(self.cpu_shares, SHARES),
            cpu_period: none_if(self.cpu_period, PERIOD),
            cpu_quota: none_if(self.cpu_quota, -1),
            cpuset: void_if(&self.cpuset, &machine.cpus()),
            cpuset_mems: void_if(&self.cpuset_mems, &machine.memories),
            blkio_weight: none_if(self.blkio_weight, WEIGHT),
            ..self.clone()
        }
    }
}

/// What the kernel or the engine gives to a container that was told nothing.
const SHARES: i64 = 1024;
/// Microseconds.
const PERIOD: i64 = 100_000;
const WEIGHT: i64 = 500;

/// The machine that the engine runs on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    pub memory: i64,
    pub nano_cpus: i64,
    /// Its memory nodes, as the kernel writes a set: `0`, `0-1`.
    pub memories: String,
    /// Its control groups are those of version 2.
    pub unified: bool,
}

impl Machine {
    /// As the kernel writes a set: `0`, `0-3`.
    fn cpus(&self) -> String {
        match self.nano_cpus / 1_000_000_000 {
            0 | 1 => "0".into(),
            many => format!("0-{}", many - 1),
        }
    }

    /// Bytes of memory and swap together that are as good as no limit. An engine writes none down and tells its
    /// runtime nothing of it, so that an earlier limit would stay, and stand in the way of the one on memory.
    fn swap(&self) -> i64 {
        self.memory.saturating_mul(2)
    }

    /// Bytes. The older control groups know "none"; in the newer -1 would reserve everything, and an engine takes no less
    /// than this.
    fn no_reservation(&self) -> i64 {
        if self.unified { 6 << 20 } else { -1 }
    }
}

/// What a container should be like, for comparing.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub name: &'a str,
    /// The project's network, where it has one.
    pub network: Option<&'a str>,
    /// By which it is found there.
    pub aliases: &'a [String],
    /// As the engine took them at its creation; without that memory, what is declared stands for them.
    pub limits: Option<&'a Limits>,
    pub resources: &'a Resources,
    pub machine: &'a Machine,
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
        // An engine adds names of its own, and keeps those of ours only if whoever connects it names them.
        if let Some(known) = seen.aliases.get(network) {
            let declared = wanted.aliases.join(", ");
            let there: Vec<_> = wanted.aliases.iter().filter(|name| known.contains(*name)).cloned().collect();
            differ("container/aliases".into(), &declared, &there.join(", "));
        }
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
            finished: None,
            health: None,
            networks: [("demo".to_owned(), "172.18.0.2".to_owned())].into(),
            aliases: [("demo".to_owned(), names(&["web", "web-0", "c1"]))].into(),
            limits: Limits { restart: "no".into(), ..Limits::default() },
            port: None,
        }
    }

    #[test]
    fn an_end_that_nobody_watched_is_dated_by_its_engine_within_what_our_clock_allows() {
        let at = |millis: u64| Timestamp(1_000_000 + millis);
        let ended_at = |finished: Option<Timestamp>, began: Option<Timestamp>| {
            Seen { finished, ..seen() }.ended_at(began, at(100))
        };
        assert_eq!(ended_at(Some(at(40)), Some(at(10))), at(40), "not when it was found");
        assert_eq!(ended_at(Some(at(40)), None), at(40));
        assert_eq!(ended_at(Some(at(5)), Some(at(10))), at(10), "the engine's clock is behind");
        assert_eq!(ended_at(Some(at(140)), Some(at(10))), at(100), "or ahead");
        assert_eq!(ended_at(None, Some(at(10))), at(100));
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn machine(unified: bool) -> Machine {
        Machine { memory: 1 << 34, nano_cpus: 2_000_000_000, memories: "0".into(), unified }
    }

    fn paths(change: impl FnOnce(&mut Seen)) -> Vec<String> {
        let told = seen().limits;
        let resources = Resources::default();
        let wanted = Wanted {
            name: "web",
            network: Some("demo"),
            aliases: &["web".to_owned(), "web-0".to_owned()],
            limits: Some(&told),
            resources: &resources,
            machine: &machine(true),
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
        let disconnected = |s: &mut Seen| {
            s.networks.clear();
            s.aliases.clear();
        };
        assert_eq!(paths(disconnected), ["container/network"]);
        let nameless = |s: &mut Seen| s.aliases.insert("demo".into(), names(&["c1"]));
        assert_eq!(paths(|s| drop(nameless(s))), ["container/aliases"]);
        let more = |s: &mut Seen| s.aliases.insert("demo".into(), names(&["web-0", "web", "by-hand"]));
        assert!(paths(|s| drop(more(s))).is_empty());
        assert_eq!(paths(|s| s.limits.memory = 1 << 26), ["container/memory"]);
        assert_eq!(paths(|s| s.limits.restart = "always".into()), ["container/restart_policy"]);
        assert_eq!(paths(|s| s.limits.pids = 9), ["container/pids"]);
    }

    /// As an engine does: what is told is taken, what is not told stays.
    fn updated(seen: &Limits, body: &ContainerUpdateBody) -> Limits {
        let or = |told: Option<i64>, before: i64| told.unwrap_or(before);
        Limits {
            memory: or(body.memory, seen.memory),
            memory_swap: or(body.memory_swap, seen.memory_swap),
            memory_reservation: or(body.memory_reservation, seen.memory_reservation),
            nano_cpus: or(body.nano_cpus, seen.nano_cpus),
            cpu_shares: or(body.cpu_shares, seen.cpu_shares),
            cpu_period: or(body.cpu_period, seen.cpu_period),
            cpu_quota: or(body.cpu_quota, seen.cpu_quota),
            cpuset: body.cpuset_cpus.clone().unwrap_or_else(|| seen.cpuset.clone()),
            cpuset_mems: body.cpuset_mems.clone().unwrap_or_else(|| seen.cpuset_mems.clone()),
            blkio_weight: body.blkio_weight.map_or(seen.blkio_weight, i64::from),
            pids: or(body.pids_limit, seen.pids).max(0),
            restart: if body.restart_policy.is_some() { "no".into() } else { seen.restart.clone() },
        }
    }

    #[test]
    fn every_limit_goes_back_to_what_it_was_and_nothing_else_is_told() {
        let unlimited = seen().limits;
        let limited = Limits {
            memory: 1 << 26,
            memory_swap: 1 << 26,
            memory_reservation: 1 << 25,
            nano_cpus: 500_000_000,
            cpu_shares: 512,
            cpuset: "1".into(),
            cpuset_mems: "0".into(),
            blkio_weight: 300,
            pids: 64,
            ..unlimited.clone()
        };
        let changes: [fn(&mut Limits); 12] = [
            |l| l.memory = 1 << 27,
            |l| l.memory_swap = 1 << 28,
            |l| l.memory_reservation = 1 << 24,
            |l| l.nano_cpus = 1_500_000_000,
            |l| l.cpu_shares = 100,
            |l| l.cpu_period = 50_000,
            |l| l.cpu_quota = 50_000,
            |l| l.cpuset = "0".into(),
            |l| l.cpuset_mems = "1".into(),
            |l| l.blkio_weight = 100,
            |l| l.pids = 9,
            |l| l.restart = "always".into(),
        ];
        for (told, unified) in [(&unlimited, false), (&unlimited, true), (&limited, false), (&limited, true)]
        {
            let machine = machine(unified);
            assert_eq!(
                told.restore(told, &machine, |_| true),
                ContainerUpdateBody::default(),
                "nothing was changed"
            );
            for (number, change) in changes.iter().enumerate() {
                let mut changed = told.clone();
                change(&mut changed);
                assert_ne!(changed.normal(&machine), told.normal(&machine), "{number} is seen");
                let body = told.restore(&changed, &machine, |_| true);
                let after = updated(&changed, &body);
                assert_eq!(after.normal(&machine), told.normal(&machine), "{number}, {body:?}");
                if number != 3 {
                    assert_eq!(body.nano_cpus, None, "an engine refuses it beside a quota or a period");
                }
            }
        }
    }

    #[test]
    fn what_is_not_wanted_is_left_as_it_was_made() {
        let machine = machine(true);
        let told = Limits { cpu_shares: 512, memory: 1 << 26, memory_swap: 1 << 26, ..Limits::default() };
        let seen = Limits { cpu_shares: 100, memory: 1 << 27, memory_swap: 1 << 27, ..told.clone() };
        let body = told.restore(&seen, &machine, |field| field == "cpu_shares");
        assert_eq!((body.cpu_shares, body.memory, body.memory_swap), (Some(512), None, None));
    }

    #[test]
    fn what_is_not_in_its_network_or_has_no_address_there_is_off_it() {
        let off = |network: Option<&str>, direct, change: fn(&mut Seen)| {
            let mut seen = seen();
            change(&mut seen);
            seen.is_off(network, direct)
        };
        let bare = |seen: &mut Seen| drop(seen.networks.insert("demo".into(), String::new()));
        assert!(!off(Some("demo"), true, |_| {}));
        assert!(off(Some("demo"), true, |seen| seen.networks.clear()));
        assert!(off(Some("demo"), false, |seen| seen.networks.clear()));
        assert!(off(Some("demo"), true, bare) && !off(Some("demo"), false, bare), "a port leads there");
        assert!(!off(None, false, |seen| seen.networks.clear()), "the machine's network, or none");
        assert!(!off(Some("demo"), true, |seen| {
            seen.networks.clear();
            seen.state = State::Created;
        }));
    }

    #[test]
    fn an_engine_says_never_by_the_year_one() {
        assert_eq!(time("0001-01-01T00:00:00Z"), None);
        assert_eq!(time("2026-11-27T17:03:45.616123456Z"), Some(Timestamp(1_795_799_025_616)));
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
