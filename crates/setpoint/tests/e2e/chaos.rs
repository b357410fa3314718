//! Everything at once, in an order that chance gives: whatever is asked for in the middle of whatever else, readers do
//! not notice, and in the end all is as was asked for last.
//!
//! `SETPOINT_SEED` repeats a story; `SETPOINT_ROUNDS` makes it longer.

use std::time::{Duration, Instant};

use testkit::{
    Setpoint,
    fixture::{QUICK, demo},
    proc,
    random::{self, Rng},
    setpoint::{SOON, pids},
};

use crate::setpoint;

const VERSION: &str = "/env?name=VERSION";

fn rounds(usual: u32) -> u32 {
    std::env::var("SETPOINT_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Apply,
    ApplySlow,
    ApplyBad,
    Scale,
    Restart,
    Rollback,
    Cancel,
    KillWorkload,
    Reconcile,
    KillSetpoint,
}

const HARMLESS: &[Act] = &[
    Act::Apply,
    Act::Apply,
    Act::ApplySlow,
    Act::ApplyBad,
    Act::Scale,
    Act::Restart,
    Act::Rollback,
    Act::Cancel,
    Act::KillWorkload,
    Act::Reconcile,
];

fn version(number: u32, more: &[(&str, &str)]) -> String {
    let number = format!("v{number}");
    let env: Vec<_> = [("VERSION", number.as_str())].iter().chain(more).copied().collect();
    demo(
        2,
        &env,
        &format!(
            "{}\nrestart: {{ attempts: 20, backoff: 100ms }}",
            QUICK.replace("drain: 5s", "drain: 5s, deadline: 2s")
        ),
    )
}

/// What is refused (nothing to cancel, nothing to go back to) is refused: then nothing changes.
fn act(setpoint: &mut Setpoint, act: Act, round: u32, random: &mut impl Rng) {
    match act {
        Act::Apply => drop(setpoint.apply_ok(&version(round, &[]), &[])),
        Act::ApplySlow => drop(setpoint.apply_ok(&version(round, &[("BOOT_DELAY_MS", "700")]), &[])),
        Act::ApplyBad => drop(setpoint.apply_ok(&version(round, &[("FAIL_HEALTH", "1")]), &[])),
        Act::Scale => drop(setpoint.ok(&["scale", "api", &random.random_range(2..5).to_string()])),
        Act::Restart => drop(setpoint.ok(&["restart", "api"])),
        Act::Rollback => drop(setpoint.cli(&["rollback", "api"])),
        Act::Cancel => {
            let id = setpoint.service("api")["deployment"]["id"].as_str().unwrap().to_owned();
            drop(setpoint.cli(&["cancel", &id]));
        }
        Act::KillWorkload => kill_one_of_many(setpoint, random),
        Act::Reconcile => drop(setpoint.ok(&["reconcile"])),
        Act::KillSetpoint => {
            setpoint.kill9();
            setpoint.set_args(&[]);
            setpoint.restart();
        }
    }
}

/// Only where another is there to answer: one alone cannot die unnoticed.
fn kill_one_of_many(setpoint: &Setpoint, random: &mut impl Rng) {
    let api = setpoint.service("api");
    let all = api["instances"].as_array().unwrap();
    let routed = |i: &&serde_json::Value| i["ready"] == true && i["state"] == "running";
    let ready: Vec<u64> = all.iter().filter(routed).filter_map(|i| i["pid"].as_u64()).collect();
    if api["state"] == "converged" && ready.len() > 1 {
        let victim = ready[random.random_range(0..ready.len())];
        proc::kill9(u32::try_from(victim).unwrap());
    }
}

fn pause(random: &mut impl Rng, at_most: u64) {
    let due = Instant::now() + Duration::from_millis(random.random_range(0..at_most));
    testkit::until("the moment has come", SOON, || (Instant::now() >= due).then_some(()));
}

/// At rest, exactly what is declared runs, in the release that the newest good deployment names.
#[track_caller]
fn assert_at_rest(setpoint: &Setpoint) {
    // A death is noticed within milliseconds, not before it happens: the last act may have been a kill.
    let api =
        setpoint.wait_for_service("api", "it comes to rest, by its report and by the kernel's", |api| {
            let wanted = &api["replicas"]["desired"];
            let mut reported = pids(api);
            reported.sort_unstable();
            let mut running: Vec<u32> =
                setpoint.workloads().into_iter().map(|workload| workload.pid).collect();
            running.sort_unstable();
            ["converged", "degraded"].contains(&api["state"].as_str().unwrap())
                && &api["replicas"]["ready"] == wanted
                && api["instances"].as_array().unwrap().len() as u64 == wanted.as_u64().unwrap()
                && running == reported
        });
    let deployments = setpoint.deployments("api");
    let active: Vec<_> = deployments.iter().filter(|d| d["status"] == "active").collect();
    assert_eq!(active.len(), 1, "{deployments:#?}");
    assert!(deployments.iter().all(|d| !d["ended_at"].is_null()), "{deployments:#?}");
    for instance in api["instances"].as_array().unwrap() {
        assert_eq!(instance["release"], active[0]["release"], "{api:#}");
    }
    // The summary of the pass that came to rest may be told a moment after it.
    let told = || {
        let act = |event: &serde_json::Value| event["kind"] != "pass.summary";
        setpoint.events().into_iter().filter(act).collect::<Vec<_>>()
    };
    let rest = told();
    setpoint.ok(&["reconcile"]);
    assert_eq!(told(), rest, "at rest means at rest");
}

#[test]
fn readers_notice_nothing_of_whatever_is_asked_for() {
    let mut random = random::seeded();
    let mut setpoint = setpoint().manifest(&version(0, &[])).start();
    setpoint.wait_until_converged("api");
    let load = setpoint.load("api.localhost", VERSION).rate(100).start();
    let closing = setpoint.load("api.localhost", VERSION).rate(50).closing().start();
    for round in 1..=rounds(12) {
        let chosen = HARMLESS[random.random_range(0..HARMLESS.len())];
        println!("round {round}: {chosen:?} at {:?}", load.report().answers.last().map(|answer| answer.due));
        act(&mut setpoint, chosen, round, &mut random);
        pause(&mut random, 1200);
    }
    assert_at_rest(&setpoint);
    load.stop().assert_clean(100);
    closing.stop().assert_clean(50);
}

#[test]
fn whatever_is_asked_for_and_however_often_it_is_killed_it_comes_to_rest() {
    let mut random = random::seeded();
    let mut setpoint = setpoint().manifest(&version(0, &[])).start();
    setpoint.wait_until_converged("api");
    for round in 1..=rounds(12) {
        let kill = random.random_bool(0.4);
        let chosen = if kill { Act::KillSetpoint } else { HARMLESS[random.random_range(0..HARMLESS.len())] };
        println!("round {round}: {chosen:?}");
        act(&mut setpoint, chosen, round, &mut random);
        pause(&mut random, 900);
    }
    assert_at_rest(&setpoint);
}

#[test]
fn readers_of_an_edge_apart_do_not_notice_that_the_server_is_killed() {
    let mut random = random::seeded();
    let mut setpoint = setpoint().edge_apart().start();
    setpoint.apply_ok(&version(0, &[]), &["--wait"]);
    setpoint.wait_until_converged("api");
    let load = setpoint.load("api.localhost", VERSION).rate(100).start();
    for round in 1..=rounds(10) {
        let kill = random.random_bool(0.4);
        let chosen = if kill { Act::KillSetpoint } else { HARMLESS[random.random_range(0..HARMLESS.len())] };
        println!("round {round}: {chosen:?} at {:?}", load.report().answers.last().map(|answer| answer.due));
        act(&mut setpoint, chosen, round, &mut random);
        pause(&mut random, 1000);
    }
    assert_at_rest(&setpoint);
    load.stop().assert_clean(100);
    setpoint.ok(&["delete", "api", "--wait"]);
}

#[test]
fn readers_of_a_site_see_whole_versions_whatever_is_deployed_and_taken_back() {
    let mut random = random::seeded();
    let builder = setpoint();
    testkit::fixture::versioned_site(&builder.work().join("site"), "v0", 20);
    let yaml = "services:\n  docs:\n    static: ./site\n    domains: [docs.localhost]\n    retain: 2\n";
    let setpoint = builder.manifest(yaml).start();
    setpoint.wait_until_converged("docs");
    let load = setpoint.load("docs.localhost", "/part/7.txt").rate(200).start();
    for round in 1..=rounds(20) {
        match random.random_range(0..4) {
            0 | 1 => {
                testkit::fixture::versioned_site(&setpoint.work().join("site"), &format!("v{round}"), 20);
                setpoint.ok(&["deploy", "docs", "site"]);
            }
            2 => drop(setpoint.cli(&["rollback", "docs"])),
            _ => drop(setpoint.ok(&["reconcile"])),
        }
        pause(&mut random, 250);
    }
    let docs = setpoint.wait_until_converged("docs");
    let report = load.stop();
    report.assert_clean(100);
    assert!(report.words().keys().all(|word| word.starts_with('v') && word.ends_with(" 7")), "{report}");
    let active = setpoint.deployments("docs").into_iter().find(|d| d["status"] == "active").unwrap();
    assert_eq!(active["release"], docs["instances"][0]["release"]);
}
