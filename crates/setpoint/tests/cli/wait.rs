//! `--wait`: what it follows, how it ends.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::{
    fake::{Asked, Fake, Reply, applied, deployment, service, services},
    run,
};

const ID: &str = "k3n5q7r2t4v6";

/// An API that begins a deployment, which goes through these looks; the last one stays.
fn deploying(looks: Vec<Value>, serves: u32) -> impl Fn(&Asked) -> Reply + Send + Sync {
    let next = AtomicUsize::new(0);
    move |asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("POST", _) => Reply::json(&applied(true, Some(ID))),
        ("GET", path) if path.contains("/deployments/") => {
            let at = next.fetch_add(1, Ordering::Relaxed).min(looks.len() - 1);
            Reply::json(&looks[at])
        }
        ("GET", path) if path.contains("/logs?") => {
            Reply::text("starting\npanicked at \u{1b}[31m'no database'\n")
        }
        _ => Reply::json(&services(service(
            if serves > 0 { "degraded" } else { "failed" },
            serves,
            Value::Null,
        ))),
    }
}

#[test]
fn an_active_deployment_ends_the_wait_well() {
    let dir = tempfile::tempdir().unwrap();
    let looks =
        vec![deployment("queued", 5, ""), deployment("starting", 80, ""), deployment("active", 100, "")];
    let _fake = Fake::start(deploying(looks, 1)).in_folder(dir.path());
    let ended = run(dir.path(), &["deploy", "api", "--wait"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(
        ended.stderr,
        "default/api: deployment #4: queued (5%)\ndefault/api: deployment #4: starting (80%)\n\
         default/api: deployment #4: active (100%)\n"
    );
}

#[test]
fn a_failed_deployment_is_told_with_its_reason_and_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let looks = vec![deployment("starting", 80, ""), deployment("failed", 80, "exit status 101")];
    let fake = Fake::start(deploying(looks, 1)).in_folder(dir.path());
    let ended = run(dir.path(), &["restart", "api", "--wait"]);
    assert_eq!(ended.code, 1);
    for words in [
        "deployment #4 failed in starting: exit status 101; what was before it serves",
        "the last lines of default.api.0.7:",
        r"panicked at \x1b[31m'no database'",
    ] {
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
    }
    assert!(fake.lines().iter().any(|line| line.contains("logs?instance=default.api.0.7&tail=20")));
}

#[test]
fn a_failure_is_told_once_the_old_release_serves() {
    let dir = tempfile::tempdir().unwrap();
    let looked = AtomicUsize::new(0);
    let fake = Fake::start(move |asked: &Asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("POST", _) => Reply::json(&applied(true, Some(ID))),
        ("GET", path) if path.contains("/deployments/") => Reply::json(&deployment(
            if looked.load(Ordering::Relaxed) == 0 { "starting" } else { "failed" },
            80,
            "bad",
        )),
        ("GET", path) if path.contains("/logs?") => Reply::text(""),
        _ => match looked.fetch_add(1, Ordering::Relaxed) {
            0..4 => Reply::json(&services(service("progressing", 0, Value::Null))),
            _ => Reply::json(&services(service("degraded", 1, Value::Null))),
        },
    })
    .in_folder(dir.path());
    let ended = run(dir.path(), &["rollback", "api", "--wait=20s"]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("bad; what was before it serves"), "{}", ended.stderr);
    assert!(fake.lines().iter().filter(|line| *line == "GET /api/v1/services/default/api").count() >= 5);
}

#[test]
fn a_wait_ends_with_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let _fake = Fake::start(deploying(vec![deployment("building", 30, "")], 1)).in_folder(dir.path());
    let ended = run(dir.path(), &["deploy", "api", "--wait=400ms"]);
    assert_eq!(ended.code, 1);
    assert!(
        ended.stderr.contains("not done after 400ms: deployment #4 is still in building"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_cancelled_deployment_ends_the_wait_badly() {
    let dir = tempfile::tempdir().unwrap();
    let looks = vec![deployment("starting", 80, ""), deployment("cancelled", 80, "as asked")];
    let _fake = Fake::start(deploying(looks, 1)).in_folder(dir.path());
    let ended = run(dir.path(), &["deploy", "api", "--wait"]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("deployment #4 cancelled: as asked"), "{}", ended.stderr);
}

#[test]
fn a_server_that_is_away_for_a_moment_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let looks = AtomicUsize::new(0);
    let _fake = Fake::start(move |asked: &Asked| match asked.method.as_str() {
        "POST" => Reply::json(&applied(true, Some(ID))),
        _ if !asked.path.contains("/deployments/") => {
            Reply::json(&services(service("converged", 1, Value::Null)))
        }
        _ => match looks.fetch_add(1, Ordering::Relaxed) {
            0 => Reply::json(&deployment("starting", 80, "")),
            1 | 2 => Reply::problem(503, "unavailable", "it is starting"),
            _ => Reply::json(&deployment("active", 100, "")),
        },
    })
    .in_folder(dir.path());
    let ended = run(dir.path(), &["deploy", "api", "--wait"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stderr.contains("waiting for the server to answer again"), "{}", ended.stderr);
}

#[test]
fn without_a_deployment_it_waits_until_all_is_as_declared() {
    let dir = tempfile::tempdir().unwrap();
    let looks = AtomicUsize::new(0);
    let fake = Fake::start(move |asked: &Asked| match asked.method.as_str() {
        "POST" => Reply::json(&applied(true, None)),
        _ => match looks.fetch_add(1, Ordering::Relaxed) {
            0..3 => Reply::json(&services(service("progressing", 0, Value::Null))),
            3 => {
                // Right after a scaling down: said to be converged, with an instance too many.
                let mut early = service("converged", 1, Value::Null);
                let extra = early["instances"][0].clone();
                early["instances"].as_array_mut().unwrap().push(extra);
                Reply::json(&services(early))
            }
            _ => Reply::json(&services(service("converged", 1, Value::Null))),
        },
    })
    .in_folder(dir.path());
    assert_eq!(run(dir.path(), &["scale", "api", "1", "--wait"]).code, 0);
    assert!(fake.lines().len() >= 6, "{:?}", fake.lines());
}

#[test]
fn a_restart_is_done_when_new_instances_serve_even_if_the_newest_release_had_failed() {
    let dir = tempfile::tempdir().unwrap();
    let looks = AtomicUsize::new(0);
    let fake = Fake::start(move |asked: &Asked| match asked.method.as_str() {
        "POST" => Reply::json(&applied(true, None)),
        _ => {
            let mut degraded = service("degraded", 1, Value::Null);
            if looks.fetch_add(1, Ordering::Relaxed) >= 4 {
                degraded["instances"][0]["id"] = json!("default.api.0.8");
            }
            Reply::json(&services(degraded))
        }
    })
    .in_folder(dir.path());
    assert_eq!(run(dir.path(), &["restart", "api", "--wait"]).code, 0);
    assert!(fake.lines().len() >= 6, "{:?}", fake.lines());
    assert_eq!(run(dir.path(), &["scale", "api", "1", "--wait"]).code, 0);
}

#[test]
fn what_stays_degraded_ends_an_apply_badly() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("app.yaml"), "services:\n  api:\n    command: [\"true\"]\n").unwrap();
    let _fake = Fake::start(|asked: &Asked| match asked.method.as_str() {
        "POST" => Reply::json(&applied(false, None)),
        _ => {
            let mut degraded = service("degraded", 1, Value::Null);
            degraded["message"] = "deployment #2 failed".into();
            Reply::json(&services(degraded))
        }
    })
    .in_folder(dir.path());
    let ended = run(dir.path(), &["apply", "-f", "app.yaml", "--wait"]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("it is degraded: deployment #2 failed"), "{}", ended.stderr);
}

/// What differs under `drift: warn` is told; nothing that is waited for would change it.
#[test]
fn what_is_degraded_only_by_what_is_left_alone_is_as_declared() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("app.yaml"), "services:\n  api:\n    command: [\"true\"]\n").unwrap();
    let _fake = Fake::start(|asked: &Asked| match asked.method.as_str() {
        "POST" => Reply::json(&applied(false, None)),
        _ => {
            let mut drifted = service("degraded", 1, Value::Null);
            drifted["message"] = "files/a differs".into();
            drifted["warnings"] = json!(["files/a differs"]);
            Reply::json(&services(drifted))
        }
    })
    .in_folder(dir.path());
    assert_eq!(run(dir.path(), &["apply", "-f", "app.yaml", "--wait"]).code, 0);
}

#[test]
fn a_delete_waits_until_the_service_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let looks = AtomicUsize::new(0);
    let fake = Fake::start(move |asked: &Asked| match asked.method.as_str() {
        "DELETE" => Reply::json(&applied(true, None)),
        _ if looks.fetch_add(1, Ordering::Relaxed) < 2 => {
            Reply::json(&services(service("progressing", 1, Value::Null)))
        }
        _ => Reply::problem(404, "not_declared", "gone"),
    })
    .in_folder(dir.path());
    assert_eq!(run(dir.path(), &["delete", "api", "--wait"]).code, 0);
    assert_eq!(fake.lines()[0], "DELETE /api/v1/services/default/api");
}

#[test]
fn without_wait_nothing_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(|_| Reply::json(&applied(true, Some(ID)))).in_folder(dir.path());
    let ended = run(dir.path(), &["deploy", "api", "-o", "json"]);
    assert_eq!(ended.code, 0);
    assert_eq!(serde_json::from_str::<Value>(&ended.stdout).unwrap(), applied(true, Some(ID)));
    assert_eq!(
        fake.lines(),
        ["GET /api/v1/services/default/api/spec", "POST /api/v1/services/default/api/deploy"]
    );
    assert_eq!(fake.asked()[1].json(), json!({"artifact": null}));
}
