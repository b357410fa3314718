//! Containers of a real engine, held by the real binary. The engine is private; without one the tests say that they are
//! skipped. What somebody does behind our back is done by the engine's own command line.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must end, and say where")]

mod away;
mod behind;
mod chaos;
mod declared;
mod doubts;
mod engine_fails;
mod hostile;
mod images;
mod leftovers;
mod many;
mod pages;
mod prevented;
mod sessions;
mod strangers;
mod unheard;
mod updates;
mod volumes;

use testkit::{
    Builder, Setpoint,
    docker::{Engine, Image, Wire},
};

/// A Setpoint that holds containers of this engine.
fn setpoint(engine: &Engine) -> Builder {
    Setpoint::with(env!("CARGO_BIN_EXE_setpoint")).env("DOCKER_HOST", engine.host())
}

/// The same over a wire that the test holds.
fn setpoint_over(wire: &Wire) -> Builder {
    Setpoint::with(env!("CARGO_BIN_EXE_setpoint")).env("DOCKER_HOST", wire.host())
}

/// The image of this version, built where the engine is and in no registry.
fn image(engine: &Engine, version: &str) -> String {
    let tag = format!("setpoint-test/app:{version}");
    if engine.try_docker(&["image", "inspect", &tag]).is_err() {
        Image::new(&tag, version).build(engine);
    }
    tag
}

/// A service `web` of so many replicas with a probe over HTTP, and what else is said.
fn web(image: &str, replicas: u32, more: &str) -> String {
    format!(
        "services:\n  web:\n    image: {image}\n    port: 8080\n    replicas: {replicas}\n    health: /healthz\n    \
         domains: [web.localhost]\n    deploy: {{ min_healthy: 500ms, deadline: 60s }}\n    stop: {{ grace: 3s }}\n    {}\n",
        more.replace('\n', "\n    ")
    )
}

/// The container of the instance in this slot.
fn container(setpoint: &Setpoint, engine: &Engine, slot: usize) -> String {
    let web = setpoint.service("web");
    let id = web["instances"][slot]["id"].as_str().unwrap().to_owned();
    engine.containers(setpoint, &id).into_iter().next().unwrap_or_default()
}
