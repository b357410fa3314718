//! What holding many containers costs while nothing happens, in Setpoint and in the engine.

use std::{error::Error, thread, time::Duration};

use testkit::{Setpoint, docker::Engine};

use super::{IMAGE, setpoint};
use crate::{
    procs::{cpu_within, own_kib},
    report::Report,
};

const COUNT: usize = 200;
/// With so many, all that does not grow with their number is there: code that was read in, pools, caches.
const FEW: usize = 20;
/// Two full lists and some hundred probes are in it.
const REST: Duration = Duration::from_secs(60);
const COMES: Duration = Duration::from_secs(600);
/// What a burst of starts took is given back.
const SETTLES: Duration = Duration::from_secs(10);

pub fn run(engine: &Engine, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let manifest = format!("services:\n  app:\n    image: {IMAGE}\n    port: 8080\n    replicas: 0\n");
    let mut setpoint = setpoint(engine, &manifest)?;
    scale(&setpoint, FEW);
    thread::sleep(SETTLES);
    let few = own_kib(setpoint.pid())?;
    scale(&setpoint, COUNT);
    for when in ["in the first minute", "at rest"] {
        let [own, engines] = cpu_within([setpoint.pid(), engine.pid()], REST)?;
        let share = |used: f64| used / REST.as_secs_f64() * 100.0;
        let what = |of: &str| format!("{COUNT} containers {when}: {of}");
        report.add(what("processor time of setpoint"), share(own), "%");
        report.add(what("processor time of dockerd"), share(engines), "%");
    }
    let each = (own_kib(setpoint.pid())? - few) / (COUNT - FEW) as f64;
    report.add(format!("{FEW} to {COUNT} containers: memory of its own for each"), each, "KiB");
    // What the engine needs for itself: its containers live on while nobody asks it anything.
    setpoint.kill9();
    let [alone] = cpu_within([engine.pid()], REST)?;
    let what = format!("{COUNT} containers with nobody asking: processor time of dockerd");
    report.add(what, alone / REST.as_secs_f64() * 100.0, "%");
    setpoint.restart();
    scale(&setpoint, 0);
    Ok(())
}

/// A machine with other work takes minutes.
fn scale(setpoint: &Setpoint, count: usize) {
    setpoint.ok(&["scale", "app", &count.to_string()]);
    setpoint.wait_for("so many are ready, and no others there", COMES, |status| {
        let app = &status["services"][0];
        let there = app["instances"].as_array()?.len();
        (app["replicas"]["ready"] == count && there == count).then_some(())
    });
}
