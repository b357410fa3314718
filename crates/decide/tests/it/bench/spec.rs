//! Declarations in one line: `process v1 replicas=3 domains=web.localhost` or `site a1 retain=2`.

use std::collections::BTreeMap;

use model::{
    Digest, Millis,
    container::Container,
    release::Release,
    source::{Origin, Repository},
    spec::{
        Check, DeployPolicy, DriftMode, DriftPolicy, Health, OnFailure, Order, Port, Probe, Process,
        Resources, RestartPolicy, ServiceSpec, Site, StopPolicy, Strategy, Template, Workload,
    },
};

/// What the fake runtime does with a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    Good,
    /// Ready when the story says so.
    Manual,
    /// Dies as it starts.
    Crashes,
    CannotInstall,
}

pub fn behaviour(release: &Release) -> Behaviour {
    match release.env.iter().find(|(key, _)| key.as_str() == "IS").map(|(_, value)| value.0.as_str()) {
        Some("manual") => Behaviour::Manual,
        Some("crashing") => Behaviour::Crashes,
        Some("broken") => Behaviour::CannotInstall,
        Some(_) | None => Behaviour::Good,
    }
}

/// The version that a release was declared with.
pub fn version(release: &Release) -> String {
    let version = release.env.iter().find(|(key, _)| key.as_str() == "VERSION");
    let version = version.map(|(_, value)| value.0.clone()).unwrap_or_default();
    match release.image() {
        Some((image, Some(pin))) => format!("{version}({image} as {})", &pin.digest().short()[..4]),
        Some((_, None)) | None => version,
    }
}

pub fn artifact(name: &str) -> Digest {
    Digest::of_bytes(name.as_bytes())
}

/// A commit of a branch of the one repository that there is.
pub fn origin(branch: &str, commit: &str) -> Origin {
    let repository =
        Repository { url: "https://example.com/docs.git".into(), reference: Some(branch.into()) };
    Origin { repository, commit: commit.into(), build: Vec::new(), output: None }
}

pub fn parse(words: &[&str]) -> ServiceSpec {
    let (kind, version) = (words[0], words[1]);
    let mut spec = match kind {
        "process" => process(),
        "site" => site((version != "-").then_some(version)),
        "container" => container(),
        other => panic!("`{other}` is no kind: process, container or site"),
    };
    spec.env.insert("VERSION".parse().unwrap(), Template(version.into()));
    for word in &words[2..] {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        set(&mut spec, name, value);
    }
    spec
}

fn set(spec: &mut ServiceSpec, name: &str, value: &str) {
    let millis = || value.parse::<Millis>().unwrap();
    match name {
        "image" => {
            let Workload::Container(container) = &mut spec.workload else {
                panic!("a container has an image")
            };
            container.image = value.parse().unwrap();
        }
        // A folder with other content, and the same declaration.
        "version" => drop(spec.env.insert("VERSION".parse().unwrap(), Template(value.into()))),
        // Fetched from the branch of a repository, whose content the commit is.
        "branch" => {
            let Workload::Site(site) = &mut spec.workload else { panic!("a site is fetched") };
            let commit = match &spec.env[&"VERSION".parse().unwrap()] {
                Template(version) => version.clone(),
            };
            site.origin = Some(origin(value, &commit));
        }
        "is" => drop(spec.env.insert("IS".parse().unwrap(), Template(value.into()))),
        "replicas" => spec.replicas = value.parse().unwrap(),
        "domains" => {
            spec.domains = value.split(',').filter(|d| !d.is_empty()).map(|d| d.parse().unwrap()).collect();
        }
        "port" => spec.port = Some(Port::Fixed(value.parse().unwrap())),
        "strategy" if value == "recreate" => spec.deploy.strategy = Strategy::Recreate,
        "order" if value == "stop-first" => spec.deploy.order = Order::StopFirst,
        "parallelism" => spec.deploy.parallelism = value.parse().unwrap(),
        "min_healthy" => spec.deploy.min_healthy = millis(),
        "deadline" => spec.deploy.deadline = millis(),
        "drain" => spec.deploy.drain = millis(),
        "on_failure" if value == "pause" => spec.deploy.on_failure = OnFailure::Pause,
        "attempts" => spec.restart.attempts = value.parse().unwrap(),
        "window" => spec.restart.window = millis(),
        "drift" if value == "warn" => spec.drift.mode = DriftMode::Warn,
        "drift" if value == "off" => spec.drift.mode = DriftMode::Off,
        "retain" => spec.retain = value.parse().unwrap(),
        _ => panic!("`{name}={value}` is no option"),
    }
}

fn process() -> ServiceSpec {
    let probe = Some(Probe::new(Check::Http("/healthz".into())));
    let health = Health { startup: probe.clone(), readiness: probe.clone(), liveness: probe, assumed: false };
    let process = Process { command: vec![Template("/bin/app".into())], workdir: None, user: None };
    declare(Workload::Process(process), Some(Port::Dynamic), health)
}

fn container() -> ServiceSpec {
    let container = Container { port: Some(8080), ..Container::new("acme/web:1".parse().unwrap()) };
    ServiceSpec { workload: Workload::Container(container), ..process() }
}

fn site(content: Option<&str>) -> ServiceSpec {
    let site = Site { artifact: content.map(artifact), origin: None, webroot: None, spa: false };
    declare(Workload::Site(site), None, Health::default())
}

fn declare(workload: Workload, port: Option<Port>, health: Health) -> ServiceSpec {
    ServiceSpec {
        workload,
        replicas: 1,
        domains: vec!["web.localhost".parse().unwrap()],
        env: BTreeMap::new(),
        files: BTreeMap::new(),
        port,
        health,
        restart: RestartPolicy::default(),
        stop: StopPolicy::default(),
        deploy: DeployPolicy::default(),
        drift: DriftPolicy::default(),
        resources: Resources::default(),
        retain: 5,
    }
}
