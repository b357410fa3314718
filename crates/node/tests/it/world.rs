//! A node on a folder of its own, assignments for it, and waiting for states with a bound.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use model::{
    ArtifactDigest, Generation, InstanceId, Millis, Term, Timestamp,
    artifact::Artifact,
    assignment::{Assigned, Assignment, Stamp},
    instance::Attempts,
    observation::{InstanceReport, Observation},
    release::Release,
    route::EndpointEvent,
    spec::{
        Check, DriftPolicy, Health, Port, Probe, Process, Resources, RestartPolicy, Site, StopPolicy,
        Template, Workload,
    },
};
use node::{BootClock, Config, ContentSource, Node, Unavailable};

#[derive(Debug, Default)]
pub struct Contents(Mutex<BTreeMap<ArtifactDigest, Artifact>>);

impl ContentSource for Contents {
    fn artifact(&self, digest: &ArtifactDigest) -> Result<Artifact, Unavailable> {
        let known = self.0.lock().unwrap();
        known.get(digest).cloned().ok_or(Unavailable { digest: *digest, why: "not here".into() })
    }
}

pub struct World {
    pub dir: tempfile::TempDir,
    pub contents: Arc<Contents>,
    pub generation: u64,
    pub config: Config,
    /// Of every node started here: closed when its agent has ended.
    agents: Mutex<Vec<tokio::sync::watch::Receiver<Arc<Observation>>>>,
}

pub struct Running {
    pub node: Node,
    pub endpoints: Arc<Mutex<Vec<EndpointEvent>>>,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let exe = std::env::current_exe().unwrap();
        let mut config = Config::new(dir.path(), "cluster01".parse().unwrap(), "local".parse().unwrap(), exe);
        config.files_interval = Duration::from_millis(200);
        config.logs.interval = Duration::from_millis(100);
        Self { dir, contents: Arc::default(), generation: 0, config, agents: Mutex::default() }
    }

    pub async fn start(&self) -> Running {
        let node = Node::start(self.config.clone(), self.contents.clone(), Arc::new(BootClock::start()))
            .await
            .unwrap();
        self.agents.lock().unwrap().push(node.observations());
        let endpoints: Arc<Mutex<Vec<EndpointEvent>>> = Arc::default();
        let seen = endpoints.clone();
        node.endpoint_events(Arc::new(move |event| seen.lock().unwrap().push(event)));
        Running { node, endpoints }
    }

    pub fn assignment(&mut self, instances: &[Assigned]) -> Arc<Assignment> {
        self.generation += 1;
        Arc::new(Assignment {
            cluster: self.config.cluster.clone(),
            node: self.config.node.clone(),
            stamp: stamp(1, "a", self.generation),
            instances: instances.iter().map(|a| (a.id.clone(), Arc::new(a.clone()))).collect(),
            held: Default::default(),
        })
    }

    pub fn folder(&self, assigned: &Assigned) -> PathBuf {
        self.config.data.join("instances").join(assigned.id.to_string())
    }

    pub fn blobs(&self) -> content::Blobs {
        content::Blobs::open(&self.config.blobs).unwrap()
    }

    /// A site of these files, stored.
    pub fn artifact(&self, files: &[(&str, &str)]) -> ArtifactDigest {
        let blobs = self.blobs();
        let mut artifact = Artifact::default();
        for (path, text) in files {
            let (digest, size) = blobs.put(&mut text.as_bytes()).unwrap();
            let file = model::artifact::File { digest, size, executable: false };
            artifact.files.insert(path.parse().unwrap(), file);
        }
        let digest = artifact.digest();
        self.contents.0.lock().unwrap().insert(digest, artifact);
        digest
    }
}

/// Workloads outlive their node; they must not outlive their test. An agent that has not ended yet would heal them.
impl Drop for World {
    fn drop(&mut self) {
        let began = std::time::Instant::now();
        let agents = std::mem::take(&mut *self.agents.lock().unwrap());
        while agents.iter().any(|agent| agent.has_changed().is_ok())
            && began.elapsed() < Duration::from_secs(5)
        {
            std::thread::yield_now();
        }
        while began.elapsed() < Duration::from_secs(5) {
            let left = processes_in(self.dir.path());
            if left.is_empty() {
                return;
            }
            for process in left.into_iter().filter_map(|pid| sys::PidFd::open(pid).ok()) {
                let _ = process.signal(libc::SIGKILL);
            }
        }
    }
}

pub fn stamp(term: u64, holder: &str, generation: u64) -> Stamp {
    Stamp { term: Term(term), holder: holder.parse().unwrap(), generation: Generation(generation) }
}

pub fn assigned(id: &str, workload: Workload) -> Assigned {
    let release = Release {
        workload,
        domains: vec![],
        env: BTreeMap::new(),
        files: BTreeMap::new(),
        port: None,
        health: Health::default(),
        stop: StopPolicy { grace: Millis(500), ..StopPolicy::default() },
        resources: Resources::default(),
    };
    Assigned {
        id: id.parse().unwrap(),
        release: release.digest(),
        content: Arc::new(release),
        deployment: "dep1".parse().unwrap(),
        current: false,
        restart: RestartPolicy { backoff: Millis(20), ..RestartPolicy::default() },
        drift: DriftPolicy::default(),
        attempts: Attempts::default(),
    }
}

pub fn process(id: &str, command: &[&str]) -> Assigned {
    let command = command.iter().map(|word| Template((*word).into())).collect();
    assigned(id, Workload::Process(Process { command, workdir: None, user: None }))
}

/// A shell script; its dollars are its own.
pub fn shell(id: &str, script: &str) -> Assigned {
    process(id, &["sh", "-c", &script.replace('$', "$$")])
}

pub fn site(id: &str, deployment: &str, artifact: ArtifactDigest, current: bool) -> Assigned {
    let mut site = assigned(
        id,
        Workload::Site(Site { artifact: Some(artifact), origin: None, webroot: None, spa: false }),
    );
    site.deployment = deployment.parse().unwrap();
    site.current = current;
    site
}

/// Changes the release and keeps its digest true.
pub fn with(mut assigned: Assigned, change: impl FnOnce(&mut Release)) -> Assigned {
    let mut release = (*assigned.content).clone();
    change(&mut release);
    assigned.release = release.digest();
    assigned.content = Arc::new(release);
    assigned
}

/// A server that is probed by HTTP.
pub fn server(id: &str) -> Assigned {
    let exe = std::env::current_exe().unwrap();
    let command = [exe.to_str().unwrap(), "app::app", "--exact", "--nocapture"];
    with(process(id, &command), |release| {
        release.env.insert("NODE_TEST_APP".parse().unwrap(), Template("1".into()));
        release.port = Some(Port::Dynamic);
        let probe = Some(Probe::new(Check::Http("/healthz".into())));
        release.health =
            Health { startup: probe.clone(), readiness: probe.clone(), liveness: probe, assumed: false };
    })
}

impl Running {
    /// Ends the node as its death would: workloads run on. Returns when it is gone.
    pub async fn drop(self) {
        let mut observations = self.node.observations();
        drop(self);
        while observations.changed().await.is_ok() {}
    }

    /// Waits until the observation is as asked for; gives it.
    pub async fn until(&self, what: &str, mut holds: impl FnMut(&Observation) -> bool) -> Arc<Observation> {
        let mut observations = self.node.observations();
        let wait = observations.wait_for(|observation| holds(observation));
        match tokio::time::timeout(Duration::from_secs(20), wait).await {
            Ok(Ok(observation)) => observation.clone(),
            Ok(Err(_)) => panic!("the node ended while waiting for: {what}"),
            Err(_) => panic!("not within 20 s: {what}; {:#?}", self.node.observations().borrow().clone()),
        }
    }

    pub async fn until_report(
        &self,
        id: &InstanceId,
        what: &str,
        mut holds: impl FnMut(&InstanceReport) -> bool,
    ) -> Arc<InstanceReport> {
        let seen = self.until(what, |o| o.instances.get(id).is_some_and(|r| holds(r))).await;
        seen.instances[id].clone()
    }

    pub async fn until_ready(&self, id: &InstanceId) -> Arc<InstanceReport> {
        self.until_report(id, "it is ready", |report| report.ready).await
    }

    pub async fn until_gone(&self, id: &InstanceId) {
        self.until("it is gone", |o| !o.instances.contains_key(id)).await;
    }
}

/// Waits for a state outside of the node.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        tokio::task::yield_now().await;
    }
}

pub fn lives(pid: u32) -> bool {
    sys::proc::stat(pid).unwrap().is_some_and(|stat| !stat.zombie)
}

pub fn kill(pid: u32) {
    sys::PidFd::open(pid).unwrap().signal(libc::SIGKILL).unwrap();
}

pub fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Processes whose working directory is below the folder.
pub fn processes_in(folder: &Path) -> Vec<u32> {
    let here =
        |pid: &u32| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
    sys::proc::pids().unwrap().filter(here).collect()
}

pub const LONG_AGO: Timestamp = Timestamp(1);
