//! Death at every phase boundary: before a plan is committed, after its commit, after its effects were handed out.
//! Whatever the moment, the next start brings the same deployment to its end.

use std::{
    os::unix::process::ExitStatusExt,
    time::{Duration, SystemTime},
};

use testkit::{
    Response, Setpoint,
    fixture::{QUICK, demo, versioned_site},
    http::{self, Request},
    setpoint::SOON,
};

use crate::{crash::assert_whole, setpoint};

const VERSION: &str = "/env?name=VERSION";
const SIGABRT: i32 = 6;
/// From `ready` to the first sign that the work goes on.
const GOES_ON_WITHIN: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Starts it with this point armed, lets it die there, and starts it again without. What is asked for in between is
/// recorded by then; the answer may be lost. Gives the time of the day of the last start.
#[track_caller]
fn die_at(setpoint: &mut Setpoint, point: &str, act: impl FnOnce(&Setpoint)) -> Duration {
    setpoint.kill9();
    setpoint.set_args(&[]);
    setpoint.set_env("FAILPOINTS", point);
    setpoint.restart();
    act(setpoint);
    let status = setpoint.wait_for_end(Duration::from_secs(20));
    assert_eq!(status.signal(), Some(SIGABRT), "{point}: {status}\n{}", setpoint.tail());
    setpoint.unset_env("FAILPOINTS");
    let began = time_of_day();
    setpoint.restart();
    began
}

/// As `die_at`, and what was begun goes on at once: by the times at which it was recorded.
#[track_caller]
fn die_and_go_on_at(setpoint: &mut Setpoint, point: &str, act: impl FnOnce(&Setpoint)) {
    let began = die_at(setpoint, point, act);
    let ready = time_of_day();
    if let Some(first) = first_step_since(setpoint, began) {
        // Also what came before `ready` is in time.
        let late = since(ready, first).filter(|late| *late > GOES_ON_WITHIN);
        assert_eq!(late, None, "{point}: from `ready` until it goes on");
    }
}

fn time_of_day() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Duration::from_millis(u64::try_from(now.as_millis() % DAY.as_millis()).unwrap())
}

/// From one time of the day to a later one, over midnight where need be; `None` when it is an earlier one.
fn since(from: Duration, to: Duration) -> Option<Duration> {
    let passed = if to >= from { to - from } else { to + DAY - from };
    (passed < DAY / 2).then_some(passed)
}

/// When the first step of the newest deployment was recorded after a time of the day; `None` when it had its outcome
/// before. That what lives was found again is no step.
#[track_caller]
fn first_step_since(setpoint: &Setpoint, began: Duration) -> Option<Duration> {
    let service = setpoint.status()["services"][0]["name"].as_str().unwrap().to_owned();
    let newest = setpoint.deployments(&service).remove(0);
    let ended = newest["ended_at"].as_str().map(time_in);
    if ended.is_some_and(|ended| since(began, ended).is_none()) {
        return None;
    }
    let is_step = |event: &serde_json::Value| {
        event["kind"].as_str().unwrap().starts_with("deployment.") && event["deployment"] == newest["id"]
    };
    let first = testkit::until("an event says that it goes on", SOON, || {
        let events = setpoint.events();
        let mut steps =
            events.iter().filter(|event| is_step(event)).map(|event| time_in(event["at"].as_str().unwrap()));
        steps.find(|at| since(began, *at).is_some())
    });
    Some(first)
}

/// The time of the day in `2026-11-21T09:30:00.250Z`.
fn time_in(at: &str) -> Duration {
    let time = at.split_once('T').unwrap().1.trim_end_matches('Z');
    let seconds = time.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().unwrap());
    Duration::from_secs_f64(seconds)
}

fn processes_die(moment: &str) {
    let version = |version: &str| demo(2, &[("VERSION", version)], QUICK);
    let mut setpoint = setpoint().manifest(&version("start")).start();
    setpoint.wait_until_converged("api");
    for (number, phase) in
        (2..).zip(["copying_files", "starting", "updating_routes", "health_check", "active", "superseded"])
    {
        let point = format!("phase.{phase}.{moment}");
        die_and_go_on_at(&mut setpoint, &point, |setpoint| {
            setpoint.apply(&version(phase), &[]);
        });
        assert_whole(&setpoint, 2);
        assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), phase, "{point}");
        let deployments = setpoint.deployments("api");
        assert_eq!(
            deployments[0]["number"], number,
            "{point}: the same deployment went on: {deployments:#?}"
        );
    }
}

fn sites_die(moment: &str) {
    let builder = setpoint();
    versioned_site(&builder.work().join("site"), "start", 20);
    let yaml = "services:\n  docs:\n    static: ./site\n    domains: [docs.localhost]\n";
    let mut setpoint = builder.manifest(yaml).start();
    setpoint.wait_until_converged("docs");
    for (number, phase) in
        (2..).zip(["copying_files", "creating_symlinks", "updating_routes", "active", "superseded"])
    {
        let point = format!("phase.{phase}.{moment}");
        versioned_site(&setpoint.work().join("site"), phase, 20);
        die_and_go_on_at(&mut setpoint, &point, |setpoint| {
            setpoint.cli(&["deploy", "docs", "site"]);
        });
        setpoint.wait_until_converged("docs");
        assert_eq!(setpoint.get("docs.localhost", "/").text(), phase, "{point}");
        assert_eq!(setpoint.get("docs.localhost", "/part/19.txt").text(), format!("{phase} 19\n"), "{point}");
        let deployments = setpoint.deployments("docs");
        assert_eq!(
            (&deployments[0]["number"], &deployments[0]["status"]),
            (&number.into(), &"active".into())
        );
        assert_eq!(deployments.iter().filter(|d| d["status"] == "active").count(), 1, "{point}");
    }
}

fn failures_die(moment: &str) {
    let good = demo(1, &[("VERSION", "good")], QUICK);
    let mut setpoint = setpoint().manifest(&good).start();
    setpoint.wait_until_converged("api");
    let bad = demo(1, &[("FAIL_START", "1")], &format!("{QUICK}\nrestart: {{ attempts: 1, backoff: 50ms }}"));
    die_and_go_on_at(&mut setpoint, &format!("phase.failed.{moment}"), |setpoint| {
        setpoint.apply(&bad, &[]);
    });
    setpoint.wait_for_service("api", "the good release is back", |api| {
        api["state"] == "degraded" && api["replicas"]["ready"] == 1
    });
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "good");
    let deployments = setpoint.deployments("api");
    let told: Vec<_> = deployments.iter().map(|d| d["status"].as_str().unwrap()).collect();
    assert_eq!(told, ["active", "failed", "superseded"], "each has its outcome once: {deployments:#?}");
    assert_eq!(setpoint.workloads().len(), 1);
}

fn rollbacks_die(moment: &str) {
    let version = |version: &str| demo(2, &[("VERSION", version)], QUICK);
    let mut setpoint = setpoint().manifest(&version("v1")).start();
    setpoint.wait_until_converged("api");
    setpoint.apply_ok(&version("v2"), &["--wait"]);
    die_and_go_on_at(&mut setpoint, &format!("phase.rolled_back.{moment}"), |setpoint| {
        setpoint.cli(&["rollback", "api"]);
    });
    assert_whole(&setpoint, 2);
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "v1", "{moment}");
    assert_eq!(outcomes(&setpoint), ["active", "rolled_back", "superseded"], "{moment}");
}

fn cancellations_die(moment: &str) {
    let version = |version: &str, delay| demo(2, &[("VERSION", version), ("BOOT_DELAY_MS", delay)], QUICK);
    let mut setpoint = setpoint().manifest(&version("v1", "0")).start();
    setpoint.wait_until_converged("api");
    // What is starting takes its time whatever happens.
    die_at(&mut setpoint, &format!("phase.cancelled.{moment}"), |setpoint| {
        setpoint.apply_ok(&version("v2", "3000"), &[]);
        let api = setpoint
            .wait_for_service("api", "it is starting", |api| api["deployment"]["phase"] == "starting");
        setpoint.cli(&["cancel", api["deployment"]["id"].as_str().unwrap()]);
    });
    assert_whole(&setpoint, 2);
    // Not recorded is not asked for.
    let (serves, expected) = match moment {
        "before" => ("v2", &["active", "superseded"][..]),
        _ => ("v1", &["active", "cancelled", "superseded"][..]),
    };
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), serves, "{moment}");
    assert_eq!(outcomes(&setpoint), expected, "{moment}");
}

/// Of every deployment, the newest first.
fn outcomes(setpoint: &Setpoint) -> Vec<String> {
    setpoint.deployments("api").iter().map(|d| d["status"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn processes_die_before_the_commit() {
    processes_die("before");
}

#[test]
fn processes_die_after_the_commit() {
    processes_die("after_commit");
}

#[test]
fn processes_die_after_the_effect() {
    processes_die("after_effect");
}

#[test]
fn sites_die_before_the_commit() {
    sites_die("before");
}

#[test]
fn sites_die_after_the_commit() {
    sites_die("after_commit");
}

#[test]
fn sites_die_after_the_effect() {
    sites_die("after_effect");
}

#[test]
fn failures_die_before_and_after() {
    for moment in ["before", "after_commit", "after_effect"] {
        failures_die(moment);
    }
}

#[test]
fn rollbacks_die_before_and_after() {
    for moment in ["before", "after_commit", "after_effect"] {
        rollbacks_die(moment);
    }
}

#[test]
fn cancellations_die_before_and_after() {
    for moment in ["before", "after_commit", "after_effect"] {
        cancellations_die(moment);
    }
}

#[test]
fn a_death_before_a_written_down_process_may_run_leaves_neither_an_orphan_nor_a_duplicate() {
    let version = |version: &str| demo(2, &[("VERSION", version)], QUICK);
    let mut setpoint = setpoint().manifest(&version("v1")).start();
    setpoint.wait_until_converged("api");
    die_and_go_on_at(&mut setpoint, "start.gated", |setpoint| {
        setpoint.apply(&version("v2"), &[]);
    });
    assert_whole(&setpoint, 2);
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "v2");
    // What waits behind its gate looks like the Setpoint that made it.
    let data = setpoint.data();
    testkit::until("nothing else of Setpoint is left", SOON, || {
        (testkit::proc::with_argument(data.to_str().unwrap()) == [setpoint.pid()]).then_some(())
    });
}

/// A deployment of whoever calls over HTTP under a key: the answer, or nothing where it was lost.
fn ask_once(setpoint: &Setpoint, path: &str, body: &serde_json::Value, key: &str) -> Option<Response> {
    let request = Request::new("POST", &setpoint.api().to_string(), path)
        .header("Authorization", &format!("Bearer {}", setpoint.token()))
        .header("Content-Type", "application/json")
        .header("Idempotency-Key", key);
    http::send(setpoint.api(), request.body(body.to_string())).ok()
}

/// The body of an apply, as the command makes it.
fn declaration(setpoint: &Setpoint, yaml: &str) -> serde_json::Value {
    let parsed = model::manifest::parse(yaml, "app.yaml", setpoint.work().to_str().unwrap()).unwrap();
    let services = parsed.services.iter();
    let services: Vec<_> =
        services.map(|declared| serde_json::json!({ "key": declared.key, "spec": declared.spec })).collect();
    serde_json::json!({ "services": services })
}

/// Dies at this point of what is asked for, and is asked for the same again: before it has ended, and after.
#[track_caller]
fn asked_again_after_death(
    setpoint: &mut Setpoint,
    service: &str,
    point: &str,
    path: &str,
    body: &serde_json::Value,
) {
    let before = setpoint.deployments(service).len();
    let mut answers = Vec::new();
    die_at(setpoint, point, |setpoint| answers.extend(ask_once(setpoint, path, body, point)));
    let again = |setpoint: &Setpoint| ask_once(setpoint, path, body, point).unwrap();
    answers.push(again(setpoint));
    answers.push(again(setpoint));
    setpoint.wait_until_converged(service);
    answers.push(again(setpoint));
    for answer in &answers {
        assert_eq!(
            (answer.status, answer.text()),
            (200, answers[0].text()),
            "{point}: always the same answer"
        );
    }
    setpoint.wait_until_converged(service);
    let deployments = setpoint.deployments(service);
    assert_eq!(deployments.len(), before + 1, "{point}: one deployment, however often it was asked for");
    assert_eq!(deployments.iter().filter(|d| d["status"] == "active").count(), 1, "{point}");
    assert!(deployments.iter().all(|d| !d["ended_at"].is_null()), "{point}: {deployments:#?}");
}

const MOMENTS: [&str; 3] = ["before", "after_commit", "after_effect"];

#[test]
fn an_apply_under_a_key_is_one_deployment_wherever_a_process_dies() {
    let version = |version: &str| demo(2, &[("VERSION", version)], QUICK);
    let mut setpoint = setpoint().manifest(&version("start")).start();
    setpoint.wait_until_converged("api");
    let queued = MOMENTS.map(|moment| format!("phase.queued.{moment}"));
    let later = ["copying_files", "starting", "updating_routes", "health_check", "active"]
        .map(|phase| format!("phase.{phase}.after_commit"));
    for point in queued.iter().chain(&later) {
        let body = declaration(&setpoint, &version(point));
        asked_again_after_death(&mut setpoint, "api", point, "/api/v1/apply", &body);
        assert_whole(&setpoint, 2);
        assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), point);
    }
}

#[test]
fn a_deploy_of_a_site_under_a_key_is_one_deployment_wherever_it_dies() {
    let builder = setpoint();
    versioned_site(&builder.work().join("site"), "start", 20);
    let yaml = "services:\n  docs:\n    static: ./site\n    domains: [docs.localhost]\n";
    let mut setpoint = builder.manifest(yaml).start();
    setpoint.wait_until_converged("docs");
    let queued = MOMENTS.map(|moment| format!("phase.queued.{moment}"));
    let later = ["copying_files", "creating_symlinks", "updating_routes", "active"]
        .map(|phase| format!("phase.{phase}.after_commit"));
    for point in queued.iter().chain(&later) {
        let archive = testkit::fixture::tar(&[
            testkit::fixture::Entry::File("index.html", point.as_bytes()),
            testkit::fixture::Entry::File("part/1.txt", point.as_bytes()),
        ]);
        let upload = Request::new("POST", &setpoint.api().to_string(), "/api/v1/artifacts")
            .header("Authorization", &format!("Bearer {}", setpoint.token()))
            .header("Content-Type", "application/octet-stream");
        let taken = http::send(setpoint.api(), upload.body(archive)).unwrap();
        assert!(taken.status < 300, "{}: {}", taken.status, taken.text());
        let body = serde_json::json!({ "artifact": taken.json()["digest"] });
        let path = "/api/v1/services/default/docs/deploy";
        asked_again_after_death(&mut setpoint, "docs", point, path, &body);
        assert_eq!(setpoint.get("docs.localhost", "/").text(), *point);
        assert_eq!(setpoint.get("docs.localhost", "/part/1.txt").text(), *point);
    }
}

#[test]
fn a_rollback_under_a_key_is_one_deployment_wherever_it_dies() {
    let version = |version: &str| demo(2, &[("VERSION", version)], QUICK);
    let mut setpoint = setpoint().manifest(&version("v1")).start();
    setpoint.wait_until_converged("api");
    setpoint.apply_ok(&version("v2"), &["--wait"]);
    let mut serves = "v2";
    for moment in MOMENTS {
        let point = format!("phase.queued.{moment}");
        let path = "/api/v1/services/default/api/rollback";
        asked_again_after_death(&mut setpoint, "api", &point, path, &serde_json::json!({}));
        serves = if serves == "v2" { "v1" } else { "v2" };
        assert_whole(&setpoint, 2);
        assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), serves, "{point}");
    }
}
