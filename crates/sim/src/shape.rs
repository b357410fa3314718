//! The services of the box, and what their releases are like when they run.

use std::collections::BTreeMap;

use decide::intent::Images;
use model::{
    Digest, Millis, ServiceKey,
    container::Container,
    image::{ImagePin, ImageRef},
    release::Release,
    spec::{
        Check, DeployPolicy, Domain, DriftPolicy, EnvKey, Health, Kind, OnFailure, Order, Port, Probe,
        Process, Resources, RestartPolicy, ServiceSpec, Site, StopPolicy, Strategy, Template, Workload,
    },
};

/// Time constants of all services; small, so that a story of two minutes sees all of them pass.
pub const DRAIN: Millis = Millis(3_000);
pub const STOP_GRACE: Millis = Millis(2_000);
pub const DEADLINE: Millis = Millis(15_000);
pub const WINDOW: Millis = Millis(60_000);
pub const ATTEMPTS: u32 = 3;

/// What a release does once it is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Character {
    Good,
    /// Takes seconds to become ready.
    Slow,
    /// Never becomes ready.
    Never,
    /// Becomes ready and dies soon after.
    DiesReady,
    /// Dies as it starts.
    Crash,
    /// Good, and deaf to SIGTERM.
    Stubborn,
}

impl Character {
    const WORDS: [(Self, &'static str); 6] = [
        (Self::Good, "good"),
        (Self::Slow, "slow"),
        (Self::Never, "never"),
        (Self::DiesReady, "dies-ready"),
        (Self::Crash, "crash"),
        (Self::Stubborn, "stubborn"),
    ];

    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(character, _)| *character == self).map_or("good", |(_, word)| word)
    }

    /// Read off a release, as its program would.
    pub fn of(release: &Release) -> Self {
        let told =
            release.env.iter().find(|(key, _)| key.as_str() == "IS").map(|(_, value)| value.0.as_str());
        Self::WORDS
            .iter()
            .find(|(_, word)| Some(*word) == told)
            .map_or(Self::Good, |(character, _)| *character)
    }

    /// Whether it comes up and stays up when nothing disturbs it.
    pub fn is_sound(self) -> bool {
        match self {
            Self::Good | Self::Slow | Self::Stubborn => true,
            Self::Never | Self::DiesReady | Self::Crash => false,
        }
    }
}

/// What stays the same over all releases of one service in a story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    pub key: ServiceKey,
    pub kind: Kind,
    /// What its versions are, by turns; empty: always of its kind.
    pub turns: Vec<Kind>,
    pub replicas: u32,
    pub recreate: bool,
    pub stop_first: bool,
    pub parallelism: u32,
    pub fixed_port: Option<u16>,
    pub pause: bool,
    pub retain: u32,
}

impl Shape {
    pub fn kind_of(&self, version: u32) -> Kind {
        let turn = (version as usize).checked_rem(self.turns.len());
        turn.map_or(self.kind, |turn| self.turns[turn])
    }

    /// Whether it is a folder in some version.
    pub fn may_be_site(&self) -> bool {
        if self.turns.is_empty() { self.kind == Kind::Site } else { self.turns.contains(&Kind::Site) }
    }

    /// New ones come before old ones go.
    pub fn is_start_first(&self) -> bool {
        !self.recreate && !self.stop_first && self.fixed_port.is_none()
    }

    pub fn spec(&self, version: u32, character: Character, policy: u32) -> ServiceSpec {
        let is_site = self.kind_of(version) == Kind::Site;
        let health = if is_site { Health::default() } else { health() };
        let env = [("VERSION", version.to_string()), ("IS", character.word().into())];
        ServiceSpec {
            workload: self.workload(version),
            replicas: if is_site { 1 } else { self.replicas },
            domains: vec![Domain { host: format!("{}.localhost", self.key.name), path: "/".into() }],
            env: env.into_iter().map(|(key, value)| (name::<EnvKey>(key), Template(value))).collect(),
            files: BTreeMap::new(),
            port: match (is_site, self.fixed_port) {
                (true, _) => None,
                (false, Some(port)) => Some(Port::Fixed(port)),
                (false, None) => Some(Port::Dynamic),
            },
            health,
            restart: RestartPolicy {
                backoff: Millis(500),
                max_backoff: Millis(4_000),
                attempts: ATTEMPTS,
                // A declaration that differs in this alone is a new policy and no new release.
                window: Millis(WINDOW.0 + u64::from(policy)),
            },
            stop: StopPolicy { grace: STOP_GRACE, ..StopPolicy::default() },
            deploy: DeployPolicy {
                strategy: if self.recreate { Strategy::Recreate } else { Strategy::Rolling },
                order: if self.stop_first { Order::StopFirst } else { Order::StartFirst },
                parallelism: self.parallelism,
                min_healthy: Millis(1_000),
                deadline: DEADLINE,
                drain: DRAIN,
                on_failure: if self.pause { OnFailure::Pause } else { OnFailure::Rollback },
            },
            drift: DriftPolicy::default(),
            resources: Resources::default(),
            retain: self.retain,
        }
    }

    fn image(&self, version: u32) -> ImageRef {
        name(&format!("registry.local/{}:{version}", self.key.name))
    }

    /// What a registry says of the images that a story asks for.
    pub fn images(&self) -> Images {
        let pin = |version: u32| ImagePin::Registry(Digest::of_bytes(&version.to_le_bytes()));
        (1..10).map(|version| (self.image(version), pin(version))).collect()
    }

    fn workload(&self, version: u32) -> Workload {
        let content = Digest::of_bytes(format!("{} {version}", self.key.name).as_bytes());
        match self.kind_of(version) {
            Kind::Site => {
                Workload::Site(Site { artifact: Some(content), origin: None, webroot: None, spa: false })
            }
            Kind::Process => {
                let command = vec![Template(format!("/bin/{}", self.key.name))];
                Workload::Process(Process { command, workdir: None, user: None })
            }
            Kind::Container => {
                Workload::Container(Container { port: Some(80), ..Container::new(self.image(version)) })
            }
        }
    }
}

fn health() -> Health {
    let probe = Probe {
        interval: Millis(1_000),
        timeout: Millis(500),
        grace: Millis(5_000),
        ..Probe::new(Check::Http("/healthz".into()))
    };
    let probe = Some(probe);
    Health { startup: probe.clone(), readiness: probe.clone(), liveness: probe, assumed: false }
}

/// Names that this crate writes itself.
#[expect(clippy::panic, reason = "a name in this source that is no name is a bug of the simulator")]
pub fn name<T: std::str::FromStr>(text: &str) -> T {
    match text.parse() {
        Ok(name) => name,
        Err(_) => panic!("`{text}` is no name"),
    }
}
