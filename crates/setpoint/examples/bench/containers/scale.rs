//! From none to many containers on a bridge, and back. The floor is eight calls to the engine at once: create and start,
//! then remove by force; beside it the same that asks each to end before, as is owed to what serves. The engine's events
//! tell when all is done: asking it again and again would take of the time that is measured.

use std::{
    collections::BTreeSet,
    error::Error,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use serde_json::{Value, json};
use testkit::{
    Setpoint,
    docker::{Api, Engine},
};

use super::{IMAGE, setpoint, swarm_service};
use crate::report::{Report, percentile};

const COUNT: usize = 50;
const ROUNDS: usize = 2;
const PARALLEL: usize = 8;
const NETWORK: &str = "bench";
/// Events of the engine.
const START: &str = "start";
const REMOVED: &str = "destroy";

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
    let mut peers: [Box<dyn Peer>; 4] = [
        Box::new(Calls::new(api, NETWORK, false)),
        Box::new(Calls::new(api, NETWORK, true)),
        Box::new(Swarm::start(api)),
        Box::new(Ours::start(engine, "port: 8080")?),
    ];
    in_turns(&mut peers, "containers", report)?;
    drop(peers);
    api.remove_network(NETWORK);
    // Nothing listens there: one port would be for one of them.
    let mut peers: [Box<dyn Peer>; 2] = [
        Box::new(Calls::new(api, "host", false)),
        Box::new(Ours::start(engine, "network: host\n    env: { MODE: hang }")?),
    ];
    in_turns(&mut peers, "containers on the host's network", report)
}

/// Each of them up and down, again and again; the first is what the others are compared with.
fn in_turns(peers: &mut [Box<dyn Peer>], what: &str, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let mut samples: Vec<_> = peers.iter().map(|_| (Vec::new(), Vec::new())).collect();
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
        report.add_beside(format!("0 to {COUNT} {what}: {name}"), best(ups), "s", ("calls", floor.0));
        report.add_beside(format!("{COUNT} to 0 {what}: {name}"), best(downs), "s", ("calls", floor.1));
    }
    Ok(())
}

/// Does something, and returns once as many containers with that label have come to it.
fn until_all(api: &Api, label: &str, event: &str, act: impl FnOnce()) -> Result<(), Box<dyn Error>> {
    let filters = json!({ "type": ["container"], "event": [event], "label": [label] });
    let mut events = api.events(&filters);
    act();
    let mut seen = BTreeSet::new();
    while seen.len() < COUNT {
        let event = events.read().map_err(|error| format!("{} of {COUNT} {event}: {error}", seen.len()))?;
        seen.insert(event["Actor"]["ID"].as_str().unwrap_or_default().to_owned());
    }
    let running = |container: &Value| container["State"] == "running";
    let left = api.list(&[label]).iter().filter(|container| running(container)).count();
    let expected = if event == START { COUNT } else { 0 };
    if left == expected { Ok(()) } else { Err(format!("{left} run, not {expected}").into()) }
}

/// The engine's interface and nothing else.
struct Calls {
    api: Api,
    network: &'static str,
    ids: Mutex<Vec<String>>,
    /// Each to end, before it is removed.
    asks: bool,
}

impl Calls {
    fn new(api: &Api, network: &'static str, asks: bool) -> Self {
        Self { api: api.clone(), network, ids: Mutex::default(), asks }
    }

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
        if self.asks { "eight at once, asked to end" } else { "eight calls at once" }
    }

    fn up(&mut self) -> Result<(), Box<dyn Error>> {
        let env: &[&str] = if self.network == "host" { &["MODE=hang"] } else { &[] };
        let spec = json!({ "Image": IMAGE, "Env": env, "HostConfig": { "NetworkMode": self.network } });
        self.each(|number| {
            let id = self.api.run(&format!("bench-{number}"), &spec);
            self.ids.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(id);
        });
        Ok(())
    }

    fn down(&mut self) -> Result<(), Box<dyn Error>> {
        let ids = std::mem::take(&mut *self.ids.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        self.each(|number| {
            if self.asks {
                self.api.stop(&ids[number], 10);
            }
            self.api.remove(&ids[number]);
        });
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

    fn scale(&self, count: usize) {
        let path = format!("/services/{}", self.service);
        let known = self.api.ok("GET", &path, None).json();
        let (mut spec, version) = (known["Spec"].clone(), &known["Version"]["Index"]);
        spec["Mode"]["Replicated"]["Replicas"] = count.into();
        self.api.ok("POST", &format!("{path}/update?version={version}"), Some(&spec));
    }

    fn label() -> String {
        format!("com.docker.swarm.service.name={}", Self::NAME)
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
        until_all(&self.api, &Self::label(), START, || self.scale(COUNT))
    }

    fn down(&mut self) -> Result<(), Box<dyn Error>> {
        until_all(&self.api, &Self::label(), REMOVED, || self.scale(0))
    }
}

struct Ours {
    setpoint: Setpoint,
    api: Api,
}

impl Ours {
    fn start(engine: &Engine, more: &str) -> Result<Self, Box<dyn Error>> {
        let manifest = format!("services:\n  app:\n    image: {IMAGE}\n    {more}\n    replicas: 0\n");
        Ok(Self { setpoint: setpoint(engine, &manifest)?, api: engine.api().clone() })
    }

    fn scale(&self, count: usize, event: &str) -> Result<(), Box<dyn Error>> {
        let label = format!("setpoint.cluster={}", self.setpoint.cluster());
        let scale = || drop(self.setpoint.ok(&["scale", "app", &count.to_string()]));
        until_all(&self.api, &label, event, scale)
    }
}

impl Peer for Ours {
    fn name(&self) -> &'static str {
        "setpoint"
    }

    fn up(&mut self) -> Result<(), Box<dyn Error>> {
        self.scale(COUNT, START)
    }

    fn down(&mut self) -> Result<(), Box<dyn Error>> {
        self.scale(0, REMOVED)
    }
}
