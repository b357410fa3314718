//! A server with its interface on a socket, and a node and an edge in a box.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use decide::{access::Rules, throttle::Rate};
use futures_util::future::BoxFuture;
use model::{
    InstanceId, Millis, NodeId, Timestamp,
    assignment::{Assigned, Assignment},
    drift::Drift,
    event::{Event, Kind},
    instance::Attempts,
    observation::{Engine, EngineAway, Exit, ExitStatus, InstanceReport, Observation, State, Stranger},
    plan::Plan,
    route::EdgeReport,
    session::{Exec, Input, Output, Usage},
};
use serde_json::{Value, json};
use store::Store;
use testkit::http::{self, Request, Response};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::{mpsc, oneshot},
};

use crate::{
    Control,
    api::{self, ExecError, LogError, Sessions},
    views,
};

pub const TOKEN: &str = "sp_0123456789abcdef0123456789abcdef";
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Bench {
    pub control: Control,
    pub address: SocketAddr,
    /// While false, the node says nothing new.
    pub node_reports: Arc<AtomicBool>,
    /// What the node says of its engine: 0 nothing, 1 that it answers, 2 that it does not.
    engine: Arc<AtomicU8>,
    /// Milliseconds by which the server's clock is ahead.
    ahead: Arc<AtomicU64>,
    stop: Option<oneshot::Sender<()>>,
    served: Option<tokio::task::JoinHandle<std::io::Result<()>>>,
    runtime: Runtime,
    data: tempfile::TempDir,
}

impl Bench {
    pub fn start() -> Self {
        // Tests ask more often than anybody may.
        let often = Rate { burst: 1_000_000, every: Millis(1) };
        Self::start_with(api::Limits { failures: often, requests: often }, Rules::default())
    }

    /// On what an earlier one has left.
    pub fn start_on(data: tempfile::TempDir) -> Self {
        let often = Rate { burst: 1_000_000, every: Millis(1) };
        Self::start_with_on(api::Limits { failures: often, requests: often }, Rules::default(), data)
    }

    pub fn start_with(limits: api::Limits, rules: Rules) -> Self {
        Self::start_with_on(limits, rules, tempfile::tempdir().unwrap())
    }

    fn start_with_on(limits: api::Limits, rules: Rules, data: tempfile::TempDir) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let ahead = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = oneshot::channel::<()>();
        let node_reports = Arc::new(AtomicBool::new(true));
        let engine = Arc::new(AtomicU8::new(0));
        let (control, address, served) = runtime.block_on(async {
            let control = control(data.path(), ahead.clone(), rules).await;
            tokio::spawn(node(control.clone(), node_reports.clone(), engine.clone()));
            tokio::spawn(edge(control.clone()));
            control.edge_is_at("127.0.0.1:8080".parse().unwrap());
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let config = api::Config { limits, ..api::Config::new(TOKEN, Vec::new(), Workloads) };
            let router = api::router(control.clone(), config);
            let served = tokio::spawn(api::serve(listener, router, async {
                let _ = stopped.await;
            }));
            (control, address, served)
        });
        Self {
            control,
            address,
            node_reports,
            engine,
            ahead,
            stop: Some(stop),
            served: Some(served),
            runtime,
            data,
        }
    }

    /// The same data, with another server on it.
    pub fn restart(mut self) -> Self {
        self.shut_down();
        self.control.stop();
        self.runtime.block_on(self.control.store().close());
        let Self { data, runtime, .. } = self;
        drop(runtime);
        Self::start_on(data)
    }

    pub fn data(&self) -> &std::path::Path {
        self.data.path()
    }

    /// What the node says of its engine from now on.
    pub fn engine_answers(&self, answers: bool) {
        self.engine.store(if answers { 1 } else { 2 }, Ordering::SeqCst);
    }

    pub fn collects_by(&self, collector: impl crate::Collect + 'static) {
        let _entered = self.runtime.enter();
        let schedule = decide::collect::Schedule { every: model::Millis::MAX, full_percent: 85 };
        self.control.collects_by(collector, schedule, std::time::Duration::from_secs(3600));
    }

    /// Waits until the edge serves a service's newest routes, and a pass has taken that in: it is progress.
    pub fn until_served(&self, service: &str) {
        let key = service.parse().unwrap();
        self.until("its edge serves its routes", || {
            self.control.with_brain(|brain| {
                let world = brain.world(&key)?;
                let route = world.plan.route.as_ref()?;
                world.edges.values().any(|edge| edge.served >= route.revision).then_some(())
            })
        });
        self.post("/api/v1/reconcile", &serde_json::json!({}));
    }

    /// For the server, so much time passes at once.
    pub fn pass_time(&self, by: Millis) {
        self.ahead.fetch_add(by.0, Ordering::SeqCst);
    }

    /// What the node says has happened.
    pub fn happens(&self, kind: Kind, service: &str, message: &str) {
        let event = Event {
            kind,
            service: Some(service.parse().unwrap()),
            instance: None,
            deployment: None,
            message: message.into(),
        };
        self.runtime.block_on(self.control.node_events(vec![event]));
    }

    /// A plan without decisions, of this server's term, that is so many revisions of the routes ahead. Where the server itself
    /// commits in the same moment, another is made.
    pub fn commit_past_the_server(&self, routes: u64) {
        let commit = || {
            let plan = self.control.with_brain(|brain| Plan {
                term: brain.snapshot.term,
                holder: brain.snapshot.holder.clone(),
                at: brain.snapshot.now,
                generation: brain.snapshot.cluster.generation.next(),
                route_revision: model::RouteRevision(brain.snapshot.cluster.route_revision.0 + routes),
                decisions: Vec::new(),
            });
            self.runtime.block_on(self.control.store().commit_plan(Arc::new(plan), Vec::new())).ok()
        };
        testkit::until("a plan is committed past the server", PATIENCE, commit);
    }

    /// Ends the server, and waits for that.
    pub fn shut_down(&mut self) {
        drop(self.stop.take());
        let served = self.served.take().unwrap();
        let ended = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, served).await });
        ended.unwrap().unwrap().unwrap();
    }

    pub fn request(&self, method: &str, path: &str) -> Request {
        Request::new(method, &self.address.to_string(), path)
            .header("Authorization", &format!("Bearer {TOKEN}"))
    }

    /// A request with another token.
    pub fn request_as(&self, token: &str, method: &str, path: &str) -> Request {
        Request::new(method, &self.address.to_string(), path)
            .header("Authorization", &format!("Bearer {token}"))
            .header("Accept", "application/json")
    }

    /// Gives out a token.
    #[track_caller]
    pub fn token(&self, asked: &Value) -> String {
        let created = self.post("/api/v1/tokens", asked);
        assert_eq!(created.status, 201, "{}", created.text());
        created.json()["token"].as_str().unwrap().to_owned()
    }

    pub fn send(&self, request: Request) -> Response {
        let answer = http::send(self.address, request).unwrap();
        if answer.header("content-type") == Some("application/problem+json") {
            let problem = answer.json();
            let helps = problem["help"].as_str().is_some_and(|help| !help.is_empty());
            assert!(helps, "it does not say what to do: {problem}");
        }
        answer
    }

    pub fn get(&self, path: &str) -> Response {
        self.send(self.request("GET", path))
    }

    /// A GET that must succeed.
    #[track_caller]
    pub fn read(&self, path: &str) -> Value {
        let response = self.get(path);
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        response.json()
    }

    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.send(self.json("POST", path, body))
    }

    pub fn json(&self, method: &str, path: &str, body: &Value) -> Request {
        self.request(method, path).header("Content-Type", "application/json").body(body.to_string())
    }

    /// Declares what a manifest says.
    #[track_caller]
    pub fn apply(&self, manifest: &str) -> Value {
        let response = self.post("/api/v1/apply", &declaration(manifest));
        assert_eq!(response.status, 200, "{}", response.text());
        response.json()
    }

    #[track_caller]
    pub fn service(&self, path: &str) -> views::Service {
        let shown: views::Services =
            serde_json::from_value(self.read(&format!("/api/v1/services/{path}"))).unwrap();
        shown.services.into_iter().next().unwrap()
    }

    #[track_caller]
    pub fn wait_for_state(&self, path: &str, state: &str) -> views::Service {
        testkit::until(&format!("{path} is {state}"), PATIENCE, || {
            let service = self.service(path);
            (service.state.to_string() == state).then_some(service)
        })
    }

    pub fn until<T>(&self, sentence: &str, look: impl FnMut() -> Option<T>) -> T {
        testkit::until(sentence, PATIENCE, look)
    }

    /// Everything that a refused request must leave as it is.
    pub fn recorded(&self) -> Value {
        json!({
            "events": self.read("/api/v1/events?after=0&limit=1000"),
            "audit": self.read("/api/v1/audit?after=0&limit=1000"),
            "services": self.read("/api/v1/services"),
        })
    }
}

/// The body of an apply for a manifest, as the command makes it.
pub fn declaration(manifest: &str) -> Value {
    let parsed = model::manifest::parse(manifest, "test.yaml", "/tmp").unwrap();
    let services: Vec<Value> = parsed
        .services
        .iter()
        .map(|declared| json!({ "key": declared.key, "spec": declared.spec }))
        .collect();
    json!({ "services": services })
}

pub const API: &str = "
services:
  api:
    command: [/bin/sleep, '1000']
    domains: [api.localhost, demo.localhost/api]
    replicas: 2
    deploy: { min_healthy: 0s, drain: 0s }
";

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp(u64::try_from(since.as_millis()).unwrap())
}

async fn control(data: &std::path::Path, ahead: Arc<AtomicU64>, rules: Rules) -> Control {
    let store = Store::open(&data.join("setpoint.db")).await.unwrap();
    let config = crate::Config {
        data: data.into(),
        nodes: vec!["local".parse().unwrap()],
        holder: "test".parse().unwrap(),
        pass_every: Duration::from_secs(30),
        policy: Default::default(),
        rules,
    };
    let clock = move || now() + Millis(ahead.load(Ordering::SeqCst));
    Control::start(store, config, Arc::new(clock)).await.unwrap()
}

/// Reports everything that it is assigned as running and ready.
async fn node(control: Control, reports: Arc<AtomicBool>, engine: Arc<AtomicU8>) {
    let id: NodeId = "local".parse().unwrap();
    let mut assignments = control.feeds().assignments;
    for sequence in 1.. {
        let assignment = assignments.borrow_and_update().get(&id).cloned();
        if reports.load(Ordering::SeqCst)
            && let Some(assignment) = assignment
        {
            let engine = match engine.load(Ordering::SeqCst) {
                0 => None,
                1 => Some(Engine::Answers),
                _ => Some(Engine::Away(EngineAway {
                    since: Timestamp(1_795_253_400_000),
                    cause: "the engine hangs".into(),
                })),
            };
            let seen = observation(&id, sequence, &assignment, control.now());
            control.observe(Arc::new(Observation { engine, ..seen }));
        }
        let _ = tokio::time::timeout(Duration::from_millis(50), assignments.changed()).await;
    }
}

fn observation(node: &NodeId, sequence: u64, assignment: &Assignment, now: Timestamp) -> Observation {
    let reports =
        assignment.instances.values().map(|assigned| (assigned.id.clone(), Arc::new(report(assigned))));
    Observation {
        node: node.clone(),
        boot: "test-boot".parse().unwrap(),
        sequence,
        at: now,
        accepted: Some(assignment.stamp.clone()),
        instances: reports.collect::<BTreeMap<_, _>>(),
        lost_volumes: Vec::new(),
        strangers: vec![Stranger {
            what: "process 7".into(),
            message: "it bears our mark".into(),
            service: None,
        }],
        engine: None,
        complete: true,
    }
}

/// Of a service named `restless`: five restarts, the last a minute ago.
fn attempts(assigned: &Assigned) -> Attempts {
    static BEGAN: std::sync::OnceLock<Timestamp> = std::sync::OnceLock::new();
    if assigned.id.service.name.as_str() != "restless" {
        return Attempts::default();
    }
    let last = *BEGAN.get_or_init(now) - Millis::mins(1);
    let at = [30, 4, 3, 2, 0].map(|minutes| last - Millis::mins(minutes)).to_vec();
    Attempts { at, fast_crashes: 0, total: 5, free: vec![] }
}

fn report(assigned: &Assigned) -> InstanceReport {
    let is_site = assigned.content.artifact().is_some();
    let drift = Drift {
        path: "files/config.yaml".into(),
        declared: Some("sha256:aaaa".into()),
        observed: Some("sha256:bbbb".into()),
        since: Timestamp(1_795_253_400_000),
        by: None,
        stuck: None,
    };
    InstanceReport {
        id: assigned.id.clone(),
        release: assigned.release,
        state: State::Running,
        ready: true,
        ready_since: Timestamp(0),
        pid: (!is_site).then_some(4711),
        container: None,
        address: (!is_site).then(|| format!("127.0.0.1:{}", 31_000 + assigned.id.slot.0)),
        folder: is_site.then(|| format!("/sites/deployment-{}", assigned.deployment)),
        current: is_site && assigned.current,
        started_at: Some(Timestamp(1_795_253_400_000)),
        attempts: attempts(assigned),
        last_exit: (assigned.id.service.name.as_str() == "restless").then_some(Exit {
            at: Timestamp(1_795_253_400_000),
            status: ExitStatus::Code(7),
            why: None,
        }),
        message: String::new(),
        without: None,
        last_lines: Vec::new(),
        copied: None,
        drift: if assigned.id.service.name.as_str() == "drifting" { vec![drift] } else { Vec::new() },
    }
}

/// Serves every table at once.
async fn edge(control: Control) {
    let mut routes = control.feeds().routes;
    loop {
        let served = routes.borrow_and_update().revision;
        control.hear(EdgeReport {
            edge: "local".parse().unwrap(),
            boot: "test-boot".parse().unwrap(),
            at: control.now(),
            served,
            in_flight: BTreeMap::new(),
        });
        let _ = tokio::time::timeout(Duration::from_millis(500), routes.changed()).await;
    }
}

/// Every placed instance has written two lines; whoever follows gets a third.
pub struct Workloads;

impl Sessions for Workloads {
    fn tail(&self, instance: InstanceId, lines: usize) -> BoxFuture<'_, Result<Vec<u8>, LogError>> {
        Box::pin(async move {
            if instance.slot.0 > 9 {
                return Err(LogError::Unknown(instance));
            }
            let all = ["first\n", "second\n"];
            Ok(all[all.len().saturating_sub(lines)..].concat().into_bytes())
        })
    }

    fn follow(
        &self,
        instance: InstanceId,
        lines: usize,
    ) -> BoxFuture<'_, Result<mpsc::Receiver<Vec<u8>>, LogError>> {
        Box::pin(async move {
            let first = self.tail(instance, lines).await?;
            let (tell, chunks) = mpsc::channel(4);
            tokio::spawn(async move {
                for chunk in [first, b"third\n".to_vec()] {
                    let _ = tell.send(chunk).await;
                }
                tell.closed().await;
            });
            Ok(chunks)
        })
    }

    /// `gone` does not run; all else repeats its input, and ends with 7.
    fn exec(
        &self,
        instance: InstanceId,
        exec: Exec,
        mut input: mpsc::Receiver<Input>,
        output: mpsc::Sender<Output>,
    ) -> BoxFuture<'_, Result<i32, ExecError>> {
        Box::pin(async move {
            if exec.command[0] == "gone" {
                return Err(ExecError::NotRunning(format!("{instance} does not run")));
            }
            while let Some(Input::Bytes(bytes)) = input.recv().await {
                let _ = output.send(Output::Stdout(bytes)).await;
            }
            Ok(7)
        })
    }

    fn usage(&self, instances: Vec<InstanceId>) -> BoxFuture<'_, Vec<Usage>> {
        let of =
            |instance| Usage { instance, cpus: 1.0 / 3.0, memory: 1 << 20, memory_limit: None, processes: 2 };
        Box::pin(async move { instances.into_iter().map(of).collect() })
    }
}
