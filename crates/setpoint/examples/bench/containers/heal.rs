//! From `kill -9` of a container's first process to its replacement listening, on the machine's network: what a bridge
//! costs on top is the engine's. The floor is a controller that does nothing but start a container at the event of its
//! death.

use std::{
    error::Error,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use testkit::{
    Setpoint,
    docker::{Api, Engine},
    setpoint::free_port,
    wait,
};

use super::{IMAGE, setpoint, swarm_service, tasks};
use crate::{
    heal::{kill_to_listening, listening},
    report::{Report, percentile},
};

/// Kills of each peer.
const KILLS: usize = 15;
/// The engine doubles its pause before a restart when the container has lived for less than ten seconds.
const LONG_LIVED: Duration = Duration::from_millis(10_600);
/// Before the next kill, for those who count fast crashes.
const UPTIME: Duration = Duration::from_millis(1500);
const BOUND: Duration = Duration::from_secs(60);

trait Peer {
    fn name(&self) -> &'static str;
    /// Which process to kill in this round, and where its replacement will listen.
    fn victim(&self, round: usize) -> Result<(u64, SocketAddr), Box<dyn Error>>;
}

pub fn run(engine: &Engine, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let api = engine.api();
    // The first is the floor.
    let peers: [Box<dyn Peer>; 4] = [
        Box::new(Controller::start(api)?),
        Box::new(Always::start(api)?),
        Box::new(Swarm::start(api)?),
        Box::new(Ours::start(engine)?),
    ];
    thread::sleep(LONG_LIVED);
    let mut samples = peers.each_ref().map(|_| Vec::new());
    for round in 0..KILLS {
        for (peer, samples) in peers.iter().zip(&mut samples) {
            let (pid, address) = peer.victim(round)?;
            let took = kill_to_listening(pid, address);
            samples.push(took.map_err(|error| format!("{}: {error}", peer.name()))?);
        }
        thread::sleep(UPTIME);
    }
    let floor = percentile(&mut samples[0], 0.5);
    for (peer, samples) in peers.iter().zip(&mut samples) {
        for (share, shown) in [(0.5, "p50"), (0.99, "p99")] {
            let what = format!("container heal: {}, {shown}", peer.name());
            report.add_beside(what, percentile(samples, share), "ms", ("events p50", floor));
        }
    }
    Ok(())
}

/// A container on the machine's network; its id and where it listens.
fn run_container(api: &Api, restart: &str) -> Result<(String, SocketAddr), Box<dyn Error>> {
    let address = free_port();
    let spec = json!({
        "Image": IMAGE,
        "Env": [format!("PORT={}", address.port())],
        "HostConfig": { "NetworkMode": "host", "RestartPolicy": { "Name": restart } },
    });
    let id = api.run(&format!("bench-{}", address.port()), &spec);
    listening(address, Instant::now())?;
    Ok((id, address))
}

/// Hears of a death and starts the same container again.
struct Controller {
    api: Api,
    id: String,
    address: SocketAddr,
}

impl Controller {
    fn start(api: &Api) -> Result<Self, Box<dyn Error>> {
        let (id, address) = run_container(api, "no")?;
        let mut events = api.events(&json!({ "type": ["container"], "event": ["die"], "container": [id] }));
        let (acting, container) = (api.clone(), id.clone());
        thread::spawn(move || {
            while events.read().is_ok() {
                acting.start(&container);
            }
        });
        Ok(Self { api: api.clone(), id, address })
    }
}

impl Peer for Controller {
    fn name(&self) -> &'static str {
        "start at the event"
    }

    fn victim(&self, _: usize) -> Result<(u64, SocketAddr), Box<dyn Error>> {
        Ok((self.api.main_pid(&self.id).into(), self.address))
    }
}

/// The engine's own restarts. Each container is killed once: at the second time the engine waits for longer.
struct Always {
    api: Api,
    containers: Vec<(String, SocketAddr)>,
}

impl Always {
    fn start(api: &Api) -> Result<Self, Box<dyn Error>> {
        let containers = (0..KILLS).map(|_| run_container(api, "always")).collect::<Result<_, _>>()?;
        Ok(Self { api: api.clone(), containers })
    }
}

impl Drop for Always {
    fn drop(&mut self) {
        self.containers.iter().for_each(|(id, _)| self.api.remove(id));
    }
}

impl Peer for Always {
    fn name(&self) -> &'static str {
        "restart policy always"
    }

    fn victim(&self, round: usize) -> Result<(u64, SocketAddr), Box<dyn Error>> {
        let (id, address) = &self.containers[round];
        Ok((self.api.main_pid(id).into(), *address))
    }
}

struct Swarm {
    api: Api,
    service: String,
    address: SocketAddr,
}

impl Swarm {
    const NAME: &str = "bench-heal";

    fn start(api: &Api) -> Result<Self, Box<dyn Error>> {
        let address = free_port();
        let service = swarm_service(api, Self::NAME, "host", &[format!("PORT={}", address.port())], 1);
        listening(address, Instant::now())?;
        Ok(Self { api: api.clone(), service, address })
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        self.api.ok("DELETE", &format!("/services/{}", self.service), None);
    }
}

impl Peer for Swarm {
    fn name(&self) -> &'static str {
        "swarm, no delay"
    }

    fn victim(&self, _: usize) -> Result<(u64, SocketAddr), Box<dyn Error>> {
        let found = wait::within(BOUND, || tasks(&self.api, Self::NAME).into_iter().next());
        let container = found.ok_or("the swarm runs no container")?;
        let id = container["Id"].as_str().ok_or("a container has no id")?;
        Ok((self.api.main_pid(id).into(), self.address))
    }
}

struct Ours {
    setpoint: Setpoint,
}

impl Ours {
    fn start(engine: &Engine) -> Result<Self, Box<dyn Error>> {
        let port = free_port().port();
        let manifest = format!(
            "services:\n  app:\n    image: {IMAGE}\n    network: host\n    port: {port}\n    env: {{ PORT: \"{port}\" }}\n    \
             health: /healthz\n    restart: {{ attempts: 1000 }}\n"
        );
        Ok(Self { setpoint: setpoint(engine, &manifest)? })
    }
}

impl Peer for Ours {
    fn name(&self) -> &'static str {
        "setpoint"
    }

    fn victim(&self, _: usize) -> Result<(u64, SocketAddr), Box<dyn Error>> {
        // Not `converged`: what is killed so often is degraded.
        let is_ready = |app: &Value| app["instances"][0]["ready"] == true;
        let app = self.setpoint.wait_for_service("app", "its container is ready", is_ready);
        let instance = &app["instances"][0];
        let pid = instance["pid"].as_u64().ok_or("the instance has no pid")?;
        let address = instance["address"].as_str().ok_or("the instance has no address")?;
        Ok((pid, address.parse()?))
    }
}
