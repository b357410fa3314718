//! kill -9 of Setpoint, at moments of chance and of choice: nothing acknowledged is lost, nothing is there twice.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::Value;
use testkit::{
    Setpoint,
    fixture::{QUICK, demo},
    proc,
    random::{self, Rng},
    setpoint::{SOON, pids},
};

use crate::setpoint;

const VERSION: &str = "/env?name=VERSION";

fn version(version: &str) -> String {
    demo(2, &[("VERSION", version)], QUICK)
}

/// No `-f` at the restart: what was recorded is what counts.
fn restart(setpoint: &mut Setpoint) {
    setpoint.set_args(&[]);
    setpoint.restart();
}

/// Exactly what is declared, by Setpoint's report and by the kernel's.
#[track_caller]
pub fn assert_whole(setpoint: &Setpoint, replicas: usize) {
    let api = setpoint.wait_until_converged("api");
    let reported: BTreeSet<u32> = pids(&api).into_iter().collect();
    let running: BTreeSet<u32> = setpoint.workloads().into_iter().map(|workload| workload.pid).collect();
    assert_eq!(reported, running, "neither an orphan nor a duplicate");
    assert_eq!(running.len(), replicas);
    let deployments = setpoint.deployments("api");
    let active: Vec<&Value> = deployments.iter().filter(|d| d["status"] == "active").collect();
    assert_eq!(active.len(), 1, "exactly one is active: {deployments:#?}");
    let open: Vec<&Value> = deployments.iter().filter(|d| d["ended_at"].is_null()).collect();
    assert!(open.is_empty(), "each has its outcome: {open:#?}");
}

#[test]
fn workloads_live_on_and_are_adopted_with_their_pids() {
    let mut setpoint = setpoint().manifest(&version("v1")).start();
    let before = setpoint.wait_until_converged("api");
    setpoint.kill9();
    assert!(pids(&before).iter().all(|pid| proc::is_alive(*pid)));
    restart(&mut setpoint);
    let after = setpoint.wait_until_converged("api");
    assert_eq!(pids(&after), pids(&before));
    assert_eq!(after["instances"][0]["restarts"], 0, "adopted, not restarted");
    assert_eq!(after["deployment"], before["deployment"]);
    setpoint.wait_for_event("instance.adopted", &[]);
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "v1");
    assert_whole(&setpoint, 2);
}

#[test]
fn traffic_is_back_within_a_second_of_ready() {
    let mut setpoint = setpoint().manifest(&version("v1")).start();
    setpoint.wait_until_converged("api");
    setpoint.kill9();
    restart(&mut setpoint);
    let ready = Instant::now();
    testkit::until("the first answer", SOON, || {
        (setpoint.try_get("api.localhost", VERSION).ok()?.status == 200).then_some(())
    });
    assert!(ready.elapsed() < Duration::from_millis(1500), "it took {:?}", ready.elapsed());
}

#[test]
fn what_died_while_nobody_watched_is_started_again_with_an_unknown_exit() {
    let mut setpoint = setpoint().manifest(&version("v1")).start();
    let before = setpoint.wait_until_converged("api");
    setpoint.kill9();
    let victim = pids(&before)[0];
    proc::kill9(victim);
    testkit::until("it is dead", SOON, || (!proc::is_alive(victim)).then_some(()));
    restart(&mut setpoint);
    let after = setpoint.wait_for_service("api", "it runs again", |api| {
        api["state"] == "converged" && api["instances"][0]["pid"].as_u64() != Some(victim.into())
    });
    assert_eq!(after["instances"][0]["id"], before["instances"][0]["id"]);
    assert_eq!(after["instances"][0]["address"], before["instances"][0]["address"]);
    let exit = after["instances"][0]["last_exit"].as_str().unwrap();
    assert!(exit.contains("unknown"), "nobody saw how it ended: {exit}");
    assert_whole(&setpoint, 2);
}

#[test]
fn a_workload_that_writes_while_setpoint_is_away_neither_dies_nor_blocks() {
    let yaml = "services:\n  writer:\n    command: [sh, -c, 'n=0; while :; do n=$$((n+1)); echo line $$n; sleep 0.02; done']\n    \
                stop: { grace: 1s }\n";
    let mut setpoint = setpoint().manifest(yaml).start();
    let before = setpoint.wait_until_converged("writer");
    let last = |logs: &str| -> u64 {
        let numbers = logs.lines().filter_map(|line| line.rsplit("line ").next()?.trim().parse().ok());
        numbers.max().unwrap_or(0)
    };
    let written = last(&setpoint.ok(&["logs", "writer", "--tail", "5"]));
    setpoint.kill9();
    restart(&mut setpoint);
    let after = setpoint.wait_until_converged("writer");
    assert_eq!(pids(&after), pids(&before));
    testkit::until("its output went on", SOON, || {
        (last(&setpoint.ok(&["logs", "writer", "--tail", "5"])) > written + 20).then_some(())
    });
    let logs = setpoint.ok(&["logs", "writer"]);
    let numbers: Vec<u64> =
        logs.lines().filter_map(|l| l.rsplit("line ").next()?.trim().parse().ok()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "no line is missing");
}

#[test]
fn a_deployment_goes_on_after_the_restart_as_the_same_deployment() {
    let mut setpoint = setpoint().manifest(&version("v1")).start();
    setpoint.wait_until_converged("api");
    let slow = demo(2, &[("VERSION", "v2"), ("BOOT_DELAY_MS", "1500")], QUICK);
    setpoint.apply_ok(&slow, &[]);
    let open =
        setpoint.wait_for_service("api", "it is starting", |api| api["deployment"]["phase"] == "starting");
    setpoint.kill9();
    restart(&mut setpoint);
    let after = setpoint.wait_until_converged("api");
    assert_eq!(after["deployment"]["id"], open["deployment"]["id"]);
    assert_eq!(after["deployment"]["phase"], "active");
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "v2");
    assert_whole(&setpoint, 2);
}

#[test]
fn kills_at_random_moments_in_a_row_of_deployments_leave_exactly_one_of_each() {
    let mut random = random::seeded();
    let mut setpoint = setpoint().manifest(&version("v0")).start();
    setpoint.wait_until_converged("api");
    for round in 1..=6 {
        let name = format!("v{round}");
        let moment = Duration::from_millis(random.random_range(0..1800));
        println!("round {round}: killed {moment:?} after the apply");
        setpoint.apply_ok(&version(&name), &[]);
        let due = Instant::now() + moment;
        testkit::until("the moment has come", SOON, || (Instant::now() >= due).then_some(()));
        setpoint.kill9();
        restart(&mut setpoint);
        if random.random_bool(0.5) {
            setpoint.wait_until_converged("api");
            assert_eq!(
                setpoint.get("api.localhost", VERSION).text().trim(),
                name,
                "acknowledged means durable"
            );
        }
    }
    assert_whole(&setpoint, 2);
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "v6");
    assert_eq!(setpoint.deployments("api").len(), 7, "one for each apply, none more");
}

#[test]
fn kills_at_random_moments_while_sites_are_deployed_leave_one_whole_site() {
    let mut random = random::seeded();
    let yaml = "services:\n  docs:\n    static: ./site\n    domains: [docs.localhost]\n";
    let builder = setpoint();
    let site = builder.work().join("site");
    testkit::fixture::versioned_site(&site, "v0", 200);
    let mut setpoint = builder.manifest(yaml).start();
    setpoint.wait_until_converged("docs");
    for round in 1..=6 {
        let version = format!("v{round}");
        testkit::fixture::versioned_site(&site, &version, 200);
        setpoint.ok(&["deploy", "docs", "site"]);
        let due = Instant::now() + Duration::from_millis(random.random_range(0..400));
        testkit::until("the moment has come", SOON, || (Instant::now() >= due).then_some(()));
        setpoint.kill9();
        let folder = setpoint.data().join("sites/default/docs/current");
        let shown = std::fs::read_to_string(folder.join("index.html")).unwrap();
        let part = std::fs::read_to_string(folder.join("part/199.txt")).unwrap();
        assert_eq!(part, format!("{shown} 199\n"), "`current` is one whole deployment at every moment");
        restart(&mut setpoint);
    }
    setpoint.wait_until_converged("docs");
    assert_eq!(setpoint.get("docs.localhost", "/").text(), "v6");
    assert_eq!(setpoint.get("docs.localhost", "/part/7.txt").text(), "v6 7\n");
    let deployments = setpoint.deployments("docs");
    assert_eq!(deployments.iter().filter(|d| d["status"] == "active").count(), 1);
    assert!(deployments.iter().all(|d| !d["ended_at"].is_null()), "{deployments:#?}");
    let folder = setpoint.data().join("sites/default/docs");
    let names =
        || std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let is_whole = |name: &str| match name.strip_prefix(".manifest-") {
        // The hashes beside each deployment.
        Some(of) => of.strip_suffix(".json").is_some_and(|deployment| folder.join(deployment).is_dir()),
        None => name == "current" || folder.join(name).join("part/199.txt").exists(),
    };
    let strange: Vec<String> = names().filter(|name| !is_whole(name)).collect();
    assert!(strange.is_empty(), "no staging is left: {strange:?}");
}

#[test]
fn sigterm_ends_setpoint_and_every_workload() {
    let mut setpoint = setpoint().manifest(&version("v1")).start();
    setpoint.wait_until_converged("api");
    assert_eq!(setpoint.workloads().len(), 2);
    setpoint.stop();
    assert_eq!(setpoint.workloads(), []);
    // At the next start all is as declared, by the same deployment.
    restart(&mut setpoint);
    let after = setpoint.wait_until_converged("api");
    assert_eq!(after["deployment"]["number"], 1);
    assert_eq!(after["instances"][0]["restarts"], 0, "an orderly end is no crash");
    assert_whole(&setpoint, 2);
}

#[test]
fn keep_leaves_the_workloads_to_be_adopted() {
    let mut setpoint = setpoint().manifest(&version("v1")).arg("--keep").start();
    let before = setpoint.wait_until_converged("api");
    let status = setpoint.terminate();
    assert!(status.success(), "{status}");
    assert!(pids(&before).iter().all(|pid| proc::is_alive(*pid)));
    restart(&mut setpoint);
    let after = setpoint.wait_until_converged("api");
    assert_eq!(pids(&after), pids(&before));
}

#[test]
fn sigterm_in_the_middle_of_a_deployment_ends_all_and_the_next_start_goes_on() {
    let mut setpoint = setpoint().manifest(&version("v1")).start();
    setpoint.wait_until_converged("api");
    setpoint.apply_ok(&demo(2, &[("VERSION", "v2"), ("BOOT_DELAY_MS", "800")], QUICK), &[]);
    setpoint.wait_for_service("api", "it is starting", |api| api["deployment"]["phase"] == "starting");
    setpoint.stop();
    restart(&mut setpoint);
    setpoint.wait_until_converged("api");
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "v2");
    assert_whole(&setpoint, 2);
}

#[test]
fn a_delete_that_was_acknowledged_is_finished_after_a_kill() {
    let mut setpoint = setpoint().manifest(&version("v1")).start();
    setpoint.wait_until_converged("api");
    setpoint.ok(&["delete", "api"]);
    setpoint.kill9();
    restart(&mut setpoint);
    setpoint.wait_for("it is gone", SOON, |status| {
        testkit::setpoint::find(status, "api").is_none().then_some(())
    });
    assert_eq!(setpoint.workloads(), []);
}

#[test]
#[cfg(not(feature = "failpoints"))]
fn an_ordinary_build_has_no_failpoints() {
    let phases = ["copying_files", "starting", "updating_routes", "health_check", "active"];
    let points: Vec<String> = phases.iter().map(|phase| format!("phase.{phase}.before")).collect();
    let mut setpoint = setpoint().manifest(&version("v1")).env("FAILPOINTS", &points.join(";")).start();
    setpoint.wait_until_converged("api");
    assert!(setpoint.is_running());
}
