//! How long a killed process is away, beside the floor of this machine.
//! `cargo run --release -p node --example heal`

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement for people")]

use std::{
    collections::BTreeMap,
    io::Write,
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use model::{
    ArtifactDigest,
    artifact::Artifact,
    assignment::{Assigned, Assignment, Stamp},
    release::Release,
    route::EndpointHealth,
    spec::{Check, Health, Port, Probe, Process, RestartPolicy, Template, Workload},
};
use node::{BootClock, Config, ContentSource, Node, Unavailable, Workloads};

#[derive(Debug)]
struct Nothing;

impl ContentSource for Nothing {
    fn artifact(&self, digest: &ArtifactDigest) -> Result<Artifact, Unavailable> {
        Err(Unavailable { digest: *digest, why: "there are no sites here".into() })
    }
}

fn main() {
    if std::env::var_os("HEAL_APP").is_some() {
        return app();
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(measure());
}

fn app() {
    let (host, port) = (std::env::var("HOST").unwrap(), std::env::var("PORT").unwrap());
    let listener = TcpListener::bind(format!("{host}:{port}")).unwrap();
    for mut stream in listener.incoming().flatten() {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }
}

async fn measure() {
    let dir = tempfile::tempdir().unwrap();
    let exe = std::env::current_exe().unwrap();
    let config = Config::new(dir.path(), "cluster01".parse().unwrap(), "local".parse().unwrap(), exe);
    let node = Node::start(config.clone(), Arc::new(Nothing), Arc::new(BootClock::start())).await.unwrap();
    let endpoint: Arc<Mutex<Vec<(Instant, EndpointHealth)>>> = Arc::default();
    let seen = endpoint.clone();
    node.endpoint_events(Arc::new(move |event| seen.lock().unwrap().push((Instant::now(), event.health))));
    let api = assigned();
    node.assign(Arc::new(Assignment {
        cluster: config.cluster.clone(),
        node: config.node.clone(),
        stamp: Stamp { term: model::Term(1), holder: "a".parse().unwrap(), generation: model::Generation(1) },
        instances: BTreeMap::from([(api.id.clone(), Arc::new(api.clone()))]),
        held: Default::default(),
    }))
    .await
    .unwrap();
    let mut rows = Vec::new();
    for _ in 0..20 {
        let mut observations = node.observations();
        let ready = observations.wait_for(|o| o.instances.get(&api.id).is_some_and(|r| r.ready));
        let report = ready.await.unwrap().instances[&api.id].clone();
        // Longer than a fast crash, so that the next restart is immediate.
        tokio::time::sleep(Duration::from_millis(1050)).await;
        endpoint.lock().unwrap().clear();
        let address = report.address.clone().unwrap();
        let killed = Instant::now();
        sys::PidFd::open(report.pid.unwrap()).unwrap().signal(9).unwrap();
        // The dying one may still take a connection; what counts comes after its death was told.
        let told = endpoint.clone();
        let listening = tokio::task::spawn_blocking(move || {
            loop {
                if !told.lock().unwrap().is_empty() && TcpStream::connect(&address).is_ok() {
                    return killed.elapsed();
                }
            }
        });
        let listening = listening.await.unwrap();
        let mut observations = node.observations();
        let back = observations
            .wait_for(|o| o.instances.get(&api.id).is_some_and(|r| r.ready && r.pid != report.pid));
        back.await.unwrap();
        let observed = killed.elapsed();
        let said = endpoint.lock().unwrap().clone();
        let first =
            |health| said.iter().find(|(_, h)| *h == health).map_or(Duration::ZERO, |(at, _)| *at - killed);
        rows.push([first(EndpointHealth::Down), listening, first(EndpointHealth::Ready), observed]);
    }
    for (column, name) in
        ["out of the routes", "listening again", "in the routes again", "observed ready"].iter().enumerate()
    {
        let mut times: Vec<_> = rows.iter().map(|row| row[column]).collect();
        times.sort();
        println!(
            "{name:>20}: median {:>6} µs, worst {:>6} µs",
            times[times.len() / 2].as_micros(),
            times[times.len() - 1].as_micros()
        );
    }
    floor();
    node.shutdown(Workloads::Stop).await;
}

/// Spawning the same program and connecting to it, with nothing else in between.
fn floor() {
    let exe = std::env::current_exe().unwrap();
    let mut times: Vec<_> = (0..100u16)
        .map(|n| {
            let port = 20_000 + n;
            let began = Instant::now();
            let mut child = std::process::Command::new(&exe)
                .env_clear()
                .envs([("HEAL_APP", "1"), ("HOST", "127.0.0.1"), ("PORT", &port.to_string())])
                .spawn()
                .unwrap();
            while TcpStream::connect(("127.0.0.1", port)).is_err() {}
            let took = began.elapsed();
            child.kill().unwrap();
            child.wait().unwrap();
            took
        })
        .collect();
    times.sort();
    println!(
        "{:>20}: median {:>6} µs, worst {:>6} µs",
        "floor",
        times[times.len() / 2].as_micros(),
        times[times.len() - 1].as_micros()
    );
}

fn assigned() -> Assigned {
    let probe = Some(Probe::new(Check::Http("/".into())));
    let release = Release {
        workload: Workload::Process(Process {
            command: vec![Template("${SETPOINT}".into())],
            workdir: None,
            user: None,
        }),
        domains: vec![],
        env: BTreeMap::from([("HEAL_APP".parse().unwrap(), Template("1".into()))]),
        files: BTreeMap::new(),
        port: Some(Port::Dynamic),
        health: Health { startup: probe.clone(), readiness: probe.clone(), liveness: probe, assumed: false },
        stop: Default::default(),
        resources: Default::default(),
    };
    Assigned {
        id: "default.api.0.1".parse().unwrap(),
        release: release.digest(),
        content: Arc::new(release),
        deployment: "dep1".parse().unwrap(),
        current: false,
        restart: RestartPolicy { attempts: 1000, ..RestartPolicy::default() },
        drift: Default::default(),
        attempts: Default::default(),
    }
}
