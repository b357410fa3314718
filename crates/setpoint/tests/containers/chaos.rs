//! Setpoint killed at moments that chance gives, in the middle of whatever it does with its containers: it adopts
//! them, makes none twice, and whoever asks through an edge apart does not notice. `SETPOINT_SEED` repeats a story.

use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::{
    Setpoint,
    docker::Engine,
    random::{self, Rng},
    setpoint::{SOON, pids},
};

use crate::{image, setpoint, web};

const ROUNDS: u32 = 10;

#[derive(Debug, Clone, Copy)]
enum Act {
    Apply,
    ApplyBad,
    Scale,
    Restart,
    Rollback,
    Nothing,
}

const ACTS: [Act; 6] = [Act::Apply, Act::ApplyBad, Act::Scale, Act::Restart, Act::Rollback, Act::Nothing];

fn manifest(image: &str, version: u32, mode: &str) -> String {
    let more = format!(
        "env: {{ VERSION: \"{version}\", MODE: \"{mode}\", DRAIN_MS: \"100\" }}\nrestart: {{ attempts: 3, backoff: 100ms }}"
    );
    web(image, 2, &more).replace("deadline: 60s", "deadline: 15s")
}

/// What is refused (nothing to go back to) is refused: then nothing changes.
fn act(setpoint: &Setpoint, act: Act, image: &str, round: u32, random: &mut impl Rng) {
    match act {
        Act::Apply => drop(setpoint.apply_ok(&manifest(image, round, "late:300"), &[])),
        Act::ApplyBad => drop(setpoint.apply_ok(&manifest(image, round, "exit:3"), &[])),
        Act::Scale => drop(setpoint.ok(&["scale", "web", &random.random_range(2..5).to_string()])),
        Act::Restart => drop(setpoint.ok(&["restart", "web"])),
        Act::Rollback => drop(setpoint.cli(&["rollback", "web"])),
        Act::Nothing => {}
    }
}

fn pause(random: &mut impl Rng, at_most: u64) {
    let due = Instant::now() + Duration::from_millis(random.random_range(0..at_most));
    testkit::until("the moment has come", SOON, || (Instant::now() >= due).then_some(()));
}

fn is_at_rest(web: &Value) -> bool {
    let wanted = &web["replicas"]["desired"];
    ["converged", "degraded"].contains(&web["state"].as_str().unwrap())
        && &web["replicas"]["ready"] == wanted
        && web["instances"].as_array().unwrap().len() as u64 == wanted.as_u64().unwrap()
}

#[test]
fn however_often_setpoint_is_killed_its_containers_live_on_and_none_is_made_twice() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let mut random = random::seeded();
    let mut setpoint = setpoint(&engine).edge_apart().start();
    setpoint.apply_ok(&manifest(&app, 0, ""), &["--wait"]);
    let load = setpoint.load("web.localhost", "/").rate(100).start();
    for round in 1..=ROUNDS {
        let chosen = ACTS[random.random_range(0..ACTS.len())];
        println!("round {round}: {chosen:?} at {:?}", load.report().answers.last().map(|answer| answer.due));
        let before = match chosen {
            Act::Nothing => Some(setpoint.wait_for_service("web", "it is at rest", is_at_rest)),
            _ => None,
        };
        act(&setpoint, chosen, &app, round, &mut random);
        pause(&mut random, 1500);
        setpoint.kill9();
        pause(&mut random, 300);
        setpoint.restart();
        if let Some(before) = before {
            let after = setpoint.wait_for_service("web", "it is at rest again", is_at_rest);
            assert_eq!(pids(&after), pids(&before), "they were adopted");
        }
    }
    let label = format!("label=setpoint.cluster={}", setpoint.cluster());
    setpoint.wait_for_service("web", "it is at rest, by its report and by the engine's", |web| {
        let mut reported = pids(web);
        reported.sort_unstable();
        let all = engine.docker(&["ps", "-aq", "--filter", &label]);
        // One may go in between.
        let pid =
            |id: &str| engine.try_docker(&["inspect", "--format", "{{.State.Pid}}", id]).ok()?.parse().ok();
        let mut listed: Vec<u32> = all.lines().filter_map(pid).collect();
        listed.sort_unstable();
        is_at_rest(web) && listed == reported
    });
    let deployments = setpoint.deployments("web");
    assert!(deployments.iter().all(|d| !d["ended_at"].is_null()), "{deployments:#?}");
    assert_eq!(deployments.iter().filter(|d| d["status"] == "active").count(), 1, "{deployments:#?}");
    load.stop().assert_clean(100);
    setpoint.ok(&["delete", "web", "--wait"]);
    assert!(engine.docker(&["ps", "-aq", "--filter", &label]).is_empty());
}
