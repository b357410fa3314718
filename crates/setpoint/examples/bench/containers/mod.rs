//! Containers held on a real engine, beside what the engine does by itself, what Swarm does, and what somebody with the
//! engine's interface and nothing else could do at best. Peers take turns within one run. An engine of its own is
//! started for it, with an image of one small program.

mod heal;
mod rest;
mod scale;
mod update;

use std::error::Error;

use serde_json::{Value, json};
use testkit::{
    Setpoint,
    docker::{Api, Engine, Image},
    setpoint::free_port,
};

use crate::{idle::binary, report::Report};

const IMAGE: &str = "setpoint-bench/app:1";

type Bench = fn(&Engine, &mut Report) -> Result<(), Box<dyn Error>>;

const ALL: [(&str, Bench); 4] = [
    ("container-heal", heal::run),
    ("container-scale", scale::run),
    ("container-update", update::run),
    ("container-rest", rest::run),
];

pub fn run(report: &mut Report, runs: impl Fn(&str) -> bool) -> Result<(), Box<dyn Error>> {
    let wanted: Vec<Bench> = ALL.iter().filter(|(name, _)| runs(name)).map(|(_, bench)| *bench).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let Some(engine) = Engine::own() else { return Ok(()) };
    Image::new(IMAGE, "v1").build(&engine);
    // On ports of its own: another engine on this machine may have a swarm too.
    let listen = free_port().to_string();
    let swarm = json!({ "ListenAddr": listen, "AdvertiseAddr": listen, "DataPathPort": free_port().port() });
    engine.api().ok("POST", "/swarm/init", Some(&swarm));
    wanted.iter().try_for_each(|bench| bench(&engine, report))?;
    engine.api().ok("POST", "/swarm/leave?force=1", None);
    // Made by the swarm under a name that is the machine's, not the engine's.
    engine.api().remove_network("docker_gwbridge");
    Ok(())
}

/// A Setpoint that holds containers of this engine.
fn setpoint(engine: &Engine, manifest: &str) -> Result<Setpoint, Box<dyn Error>> {
    let exe = binary()?;
    let setpoint = Setpoint::with(exe.to_str().ok_or("the binary's path is no text")?)
        .env("DOCKER_HOST", engine.host())
        .env("SETPOINT__CONTAINERS__HOST_NETWORK", "true")
        .manifest(manifest)
        .start();
    setpoint.wait_until_converged("app");
    Ok(setpoint)
}

/// A service of the swarm; its id.
fn swarm_service(api: &Api, name: &str, network: &str, env: &[String], replicas: usize) -> String {
    let service = json!({
        "Name": name,
        "TaskTemplate": {
            "ContainerSpec": { "Image": IMAGE, "Env": env },
            "Networks": [{ "Target": network }],
            "RestartPolicy": { "Condition": "any", "Delay": 0 },
        },
        "Mode": { "Replicated": { "Replicas": replicas } },
    });
    let made = api.ok("POST", "/services/create", Some(&service)).json();
    made["ID"].as_str().unwrap_or_default().to_owned()
}

/// The running containers of a service of the swarm.
fn tasks(api: &Api, name: &str) -> Vec<Value> {
    let all = api.list(&[&format!("com.docker.swarm.service.name={name}")]);
    all.into_iter().filter(|container| container["State"] == "running").collect()
}
