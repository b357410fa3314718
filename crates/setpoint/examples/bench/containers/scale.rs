//! From none to many containers on a bridge, and back. The floor is eight calls to the engine at once: create and start,
//! then remove.

use std::{
    error::Error,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use testkit::{
    Setpoint,
    docker::{Api, Engine},
    wait,
};

use super::{IMAGE, setpoint, swarm_service, tasks};
use crate::report::{Report, percentile};

const COUNT: usize = 50;
const ROUNDS: usize = 2;
const PARALLEL: usize = 8;
const BOUND: Duration = Duration::from_secs(180);
const NETWORK: &str = "bench";

trait Peer {
    fn name(&self) -> &'static str;
    /// Ends when all run.
    fn up(&mut self) -> Result<(), Box<dyn Error>>;
    /// Ends when none is left.
    fn down(&mut self) -> Result<(), Box<dyn Error>>;
}

pub fn run(engine: &Engine, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let api = engine.api();
    api.create_network(NETWORK, &json!({}));
    // The first is the floor.
    let mut peers: [Box<dyn Peer>; 3] = [
        Box::new(Calls { api: api.clone(), ids: Mutex::default() }),
        Box::new(Swarm::start(api)),
        Box::new(Ours::start(engine)?),
    ];
    let mut samples = peers.each_ref().map(|_| (Vec::new(), Vec::new()));
    for _ in 0..ROUNDS {
        for (peer, (ups, downs)) in peers.iter_mut().zip(&mut samples) {
            let began = Instant::now();
            peer.up()?;
            ups.push(began.elapsed().as_secs_f64());
            let began = Instant::now();
            peer.down()?;
            downs.push(began.elapsed().as_secs_f64());
        }
    }
    // Of two, the better one: what else the machine did only makes it slower.
    let best = |samples: &mut Vec<f64>| percentile(samples, 0.0);
    let floor = (best(&mut samples[0].0), best(&mut samples[0].1));
    for (peer, (ups, downs)) in peers.iter().zip(&mut samples) {
        let name = peer.name();
        report.add_beside(format!("0 to {COUNT} containers: {name}"), best(ups), "s", ("calls", floor.0));
        report.add_beside(format!("{COUNT} to 0 containers: {name}"), best(downs), "s", ("calls", floor.1));
    }
    drop(peers);
    api.remove_network(NETWORK);
    Ok(())
}

/// The engine's interface and nothing else.
struct Calls {
    api: Api,
    ids: Mutex<Vec<String>>,
}

impl Calls {
    fn each(&self, call: impl Fn(usize) + Sync) {
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(number) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < COUNT) {
                call(number);
            }
        };
        thread::scope(|scope| (0..PARALLEL).for_each(|_| drop(scope.spawn(work))));
    }
}

impl Peer for Calls {
    fn name(&self) -> &'static str {
        "eight calls at once"
    }

    fn up(&mut self) -> Result<(), Box<dyn Error>> {
        let spec = json!({ "Image": IMAGE, "HostConfig": { "NetworkMode": NETWORK } });
        self.each(|number| {
            let id = self.api.run(&format!("bench-{number}"), &spec);
            self.ids.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(id);
        });
        Ok(())
    }

    fn down(&mut self) -> Result<(), Box<dyn Error>> {
        let ids = std::mem::take(&mut *self.ids.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        self.each(|number| self.api.remove(&ids[number]));
        Ok(())
    }
}

struct Swarm {
    api: Api,
    service: String,
}

impl Swarm {
    const NAME: &str = "bench-scale";

    fn start(api: &Api) -> Self {
        // A bridge like that of the others: without a network of their own, tasks would have none at all here.
        let network = json!({ "Name": Self::NAME, "Driver": "bridge", "Scope": "swarm" });
        api.ok("POST", "/networks/create", Some(&network));
        Self { api: api.clone(), service: swarm_service(api, Self::NAME, Self::NAME, &[], 0) }
    }

    fn scale(&self, count: usize) -> Result<(), Box<dyn Error>> {
        let path = format!("/services/{}", self.service);
        let known = self.api.ok("GET", &path, None).json();
        let (mut spec, version) = (known["Spec"].clone(), &known["Version"]["Index"]);
        spec["Mode"]["Replicated"]["Replicas"] = count.into();
        self.api.ok("POST", &format!("{path}/update?version={version}"), Some(&spec));
        let all = || (tasks(&self.api, Self::NAME).len() == count).then_some(());
        wait::within(BOUND, all).ok_or_else(|| format!("the swarm does not come to {count}").into())
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        self.api.ok("DELETE", &format!("/services/{}", self.service), None);
    }
}

impl Peer for Swarm {
    fn name(&self) -> &'static str {
        "swarm"
    }

    fn up(&mut self) -> Result<(), Box<dyn Error>> {
        self.scale(COUNT)
    }

    fn down(&mut self) -> Result<(), Box<dyn Error>> {
        self.scale(0)
    }
}

struct Ours {
    setpoint: Setpoint,
    api: Api,
}

impl Ours {
    fn start(engine: &Engine) -> Result<Self, Box<dyn Error>> {
        let manifest = format!("services:\n  app:\n    image: {IMAGE}\n    port: 8080\n    replicas: 0\n");
        Ok(Self { setpoint: setpoint(engine, &manifest)?, api: engine.api().clone() })
    }

    fn scale(&self, count: usize) -> Result<(), Box<dyn Error>> {
        self.setpoint.ok(&["scale", "app", &count.to_string()]);
        let cluster = format!("setpoint.cluster={}", self.setpoint.cluster());
        let all = || {
            let held = self.api.list(&[&cluster]);
            let running = held.iter().filter(|container| container["State"] == "running").count();
            (running == count && held.len() == count).then_some(())
        };
        wait::within(BOUND, all).ok_or_else(|| format!("setpoint does not come to {count}").into())
    }
}

impl Peer for Ours {
    fn name(&self) -> &'static str {
        "setpoint"
    }

    fn up(&mut self) -> Result<(), Box<dyn Error>> {
        self.scale(COUNT)
    }

    fn down(&mut self) -> Result<(), Box<dyn Error>> {
        self.scale(0)
    }
}
