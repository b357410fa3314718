//! Rolling updates of four replicas that boot for half a second and go on answering for three after SIGTERM: how long
//! until only new ones run, beside Swarm, and what becomes of 500 requests a second meanwhile.

use std::{
    error::Error,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use testkit::{
    Setpoint,
    docker::{Api, Engine},
    load::Load,
    wait,
};

use super::{IMAGE, setpoint, tasks};
use crate::report::{Report, percentile};

const REPLICAS: usize = 4;
const UPDATES: usize = 10;
/// Requests of one update last so long: 15,000 of them.
const EACH: Duration = Duration::from_secs(30);
const RATE: u32 = 250;
const SWARM_UPDATES: usize = 3;
const BOUND: Duration = Duration::from_secs(120);
const ENV: [&str; 2] = ["MODE=late:500", "DRAIN_MS=3000"];

pub fn run(engine: &Engine, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let swarm = Swarm::start(engine.api())?;
    let mut by_swarm = Vec::new();
    for version in 2..2 + SWARM_UPDATES {
        by_swarm.push(swarm.update(version)?);
    }
    drop(swarm);
    let floor = percentile(&mut by_swarm, 0.5);
    report.add_beside("rolling update of 4: swarm, p50", floor, "s", ("swarm", floor));
    let setpoint = setpoint(engine, &manifest(1))?;
    let load = |closing: bool| {
        let options = setpoint.load("app.localhost", "/").rate(RATE);
        if closing { options.closing().start() } else { options.start() }
    };
    let (mut by_us, mut failed, mut asked, mut p99) = (Vec::new(), Vec::new(), 0, Duration::ZERO);
    for version in 2..2 + UPDATES {
        let loads: [Load; 2] = [load(false), load(true)];
        let began = Instant::now();
        setpoint.apply_ok(&manifest(version), &[]);
        by_us.push(all_new(began, version, || ours(&setpoint, engine.api()))?);
        thread::sleep(EACH.saturating_sub(began.elapsed()));
        let mut failed_now = 0;
        for load in loads {
            let told = load.stop();
            failed_now += told.failures().len();
            asked += told.answers.len();
            p99 = p99.max(told.percentile(99));
        }
        failed.push(failed_now);
        setpoint.wait_until_converged("app");
    }
    report.add_beside(
        "rolling update of 4: setpoint, p50",
        percentile(&mut by_us, 0.5),
        "s",
        ("swarm", floor),
    );
    report.add(format!("{UPDATES} rolling updates: requests"), asked as f64, "");
    report.add(
        format!("{UPDATES} rolling updates: requests that failed"),
        failed.iter().sum::<usize>() as f64,
        "",
    );
    let most = failed.iter().max().copied().unwrap_or_default();
    report.add(
        format!("{UPDATES} rolling updates: requests that failed in one of them, the most"),
        most as f64,
        "",
    );
    report.add(format!("{UPDATES} rolling updates: p99, the worst"), p99.as_secs_f64() * 1000.0, "ms");
    Ok(())
}

fn manifest(version: usize) -> String {
    format!(
        "services:\n  app:\n    image: {IMAGE}\n    command: [v{version}]\n    port: 8080\n    replicas: {REPLICAS}\n    \
         health: /healthz\n    domains: [app.localhost]\n    env: {{ MODE: \"late:500\", DRAIN_MS: \"3000\" }}\n    \
         deploy: {{ min_healthy: 0s }}\n"
    )
}

fn ours(setpoint: &Setpoint, api: &Api) -> Vec<Value> {
    api.list(&[&format!("setpoint.cluster={}", setpoint.cluster())])
}

/// Seconds until as many new ones run as there should be, and no old one.
fn all_new(began: Instant, version: usize, list: impl Fn() -> Vec<Value>) -> Result<f64, Box<dyn Error>> {
    let command = format!("/app v{version}");
    let done = || {
        let running: Vec<Value> = list().into_iter().filter(|one| one["State"] == "running").collect();
        (running.len() == REPLICAS && running.iter().all(|one| one["Command"] == command.as_str()))
            .then_some(())
    };
    wait::within(BOUND, done).ok_or("the update does not end")?;
    Ok(began.elapsed().as_secs_f64())
}

struct Swarm {
    api: Api,
    service: String,
}

impl Swarm {
    const NAME: &str = "bench-update";

    fn spec(version: usize) -> Value {
        json!({
            "Name": Self::NAME,
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": IMAGE,
                    "Args": [format!("v{version}")],
                    "Env": ENV,
                    "Healthcheck": {
                        "Test": ["CMD", "/app", "check"],
                        "Interval": 250_000_000, "Timeout": 1_000_000_000, "Retries": 3,
                        "StartPeriod": 5_000_000_000_i64,
                    },
                },
                "Networks": [{ "Target": "bench-scale" }],
                "RestartPolicy": { "Condition": "any", "Delay": 0 },
            },
            "Mode": { "Replicated": { "Replicas": REPLICAS } },
            "UpdateConfig": { "Parallelism": 1, "Order": "start-first", "Delay": 0, "Monitor": 1 },
        })
    }

    fn start(api: &Api) -> Result<Self, Box<dyn Error>> {
        let network = json!({ "Name": "bench-scale", "Driver": "bridge", "Scope": "swarm" });
        // It may be there from before.
        let _ = api.ask("POST", "/networks/create", Some(&network));
        let made = api.ok("POST", "/services/create", Some(&Self::spec(1))).json();
        let service = made["ID"].as_str().unwrap_or_default().to_owned();
        let swarm = Self { api: api.clone(), service };
        all_new(Instant::now(), 1, || tasks(api, Self::NAME))?;
        Ok(swarm)
    }

    fn update(&self, version: usize) -> Result<f64, Box<dyn Error>> {
        let path = format!("/services/{}", self.service);
        let known = self.api.ok("GET", &path, None).json();
        let began = Instant::now();
        let at = &known["Version"]["Index"];
        self.api.ok("POST", &format!("{path}/update?version={at}"), Some(&Self::spec(version)));
        let took = all_new(began, version, || tasks(&self.api, Self::NAME))?;
        let done = || {
            let service = self.api.ok("GET", &path, None).json();
            (service["UpdateStatus"]["State"] == "completed").then_some(())
        };
        wait::within(BOUND, done).ok_or("the swarm does not complete its update")?;
        Ok(took)
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        self.api.ok("DELETE", &format!("/services/{}", self.service), None);
    }
}
