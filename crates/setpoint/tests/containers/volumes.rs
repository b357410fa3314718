//! Volumes with data that somebody removed: told until they are back, never made anew empty.

use testkit::docker::{Engine, Image, Wire};

use crate::{
    behind::{Stage, with_calm},
    container, image, setpoint, setpoint_over, web,
};

#[test]
fn a_lost_volume_is_told_until_it_is_back_and_what_needs_it_starts_then() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    // No attempt brings it back, and none is counted: it starts because the volume is back.
    let manifest = web(&app, 1, "volumes: [\"data:/data\"]\nrestart: { attempts: 1 }");
    let mut setpoint = setpoint(&engine).manifest(&manifest).start();
    setpoint.wait_until_converged("web");
    let id = container(&setpoint, &engine, 0);
    let volume = engine.inspect(&id, "{{range .Mounts}}{{.Name}}{{end}}");
    setpoint.ok(&["stop", "web", "--wait"]);
    engine.docker(&["volume", "rm", &volume]);
    // Told while nobody needs it yet, by what the engine did.
    let lost = setpoint.wait_for_event("volume.lost", &[&volume, "by engine: destroy"]);
    assert_eq!(lost["service"], "web", "{lost:#}");
    let gone = format!("the volume {volume} is gone since");
    let is_told = |web: &serde_json::Value| web["message"].as_str().unwrap().contains(&gone);
    let stopped = setpoint.wait_for_service("web", "the loss is told", is_told);
    assert_eq!(stopped["state"], "stopped");
    let explained = setpoint.ok(&["explain", "web"]);
    assert!(explained.contains(&gone), "{explained}");
    let health = setpoint.ask("GET", "/api/monitoring/health", None).json();
    let checkup = &health["services"][0];
    assert_eq!(checkup["health"], "degraded", "{health:#}");
    for told in ["message", "lastIssue"] {
        assert!(checkup[told].as_str().unwrap().contains(&gone), "{told}: {health:#}");
    }
    setpoint.kill9();
    setpoint.restart();
    setpoint.wait_for_service("web", "the loss is told after a restart of Setpoint", is_told);
    let events = || setpoint.events().iter().filter(|event| event["kind"] == "volume.lost").count();
    assert_eq!(events(), 1, "once");
    setpoint.ok(&["start", "web"]);
    let failed = |web: &serde_json::Value| {
        web["state"] == "failed" && web["instances"][0]["state"] == "failed" && is_told(web)
    };
    let failed = setpoint.wait_for_service("web", "it cannot start, for want of it", failed);
    assert_eq!(failed["instances"][0]["restarts"], 0, "{failed:#}");
    assert!(engine.try_docker(&["volume", "inspect", &volume]).is_err(), "it is not made anew");
    // Somebody brings it back.
    engine.docker(&["volume", "create", &volume]);
    setpoint.wait_for_event("volume.back", &[&volume]);
    let web = setpoint.wait_until_converged("web");
    assert_eq!(web["message"], "", "nothing is told of it any more: {web:#}");
    assert_eq!(events(), 1);
}

/// Each container has its own of what its image declares as a volume.
#[test]
fn a_volume_that_went_with_its_container_is_told_and_the_other_replica_serves() {
    let Some(engine) = Engine::shared() else { return };
    let tag = "setpoint-test/keeps:1";
    Image::new(tag, "v1").config("Volumes", serde_json::json!({ "/data": {} })).build(&engine);
    let wire = Wire::to(engine.api());
    let manifest = web(tag, 2, "restart: { attempts: 1 }");
    let stage = Stage::of(setpoint_over(&wire).manifest(&manifest), engine);
    stage.under_load("web.localhost", 2, |Stage { setpoint, engine }| {
        let victim = stage.victim();
        let volume = engine.inspect(&victim, "{{range .Mounts}}{{.Name}}{{end}}");
        // Both before anybody looks for them.
        wire.delay("/images/");
        engine.docker(&["rm", "-f", &victim]);
        engine.docker(&["volume", "rm", &volume]);
        wire.delay_no_more();
        setpoint.wait_for_event("volume.lost", &[&volume, "by engine: destroy"]);
        let gone = format!("the volume {volume} was removed by somebody");
        let told = |web: &serde_json::Value| {
            web["state"] == "degraded" && web["message"].as_str().is_some_and(|told| told.contains(&gone))
        };
        let meanwhile = setpoint.wait_for_service("web", "one cannot start, for want of it", told);
        assert_eq!(meanwhile["replicas"]["ready"], 1, "{meanwhile:#}");
        let explained = setpoint.ok(&["explain", "web"]);
        assert!(!explained.contains("is being corrected"), "it waits: {explained}");
        assert!(explained.contains("container/running of default.web.0.0 differs and cannot be put back: "));
        assert!(engine.try_docker(&["volume", "inspect", &volume]).is_err(), "it is not made anew");
        engine.docker(&["volume", "create", &volume]);
        setpoint.wait_for_event("volume.back", &[&volume]);
        let after = setpoint.wait_until_converged("web");
        assert_eq!(after["replicas"]["ready"], 2, "{after:#}");
    });
}

#[test]
fn a_volume_that_is_collected_because_somebody_asked_is_not_lost() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let manifest = web(&app, 1, "volumes: [\"data:/data\"]");
    let setpoint = setpoint(&engine).manifest(&manifest).start();
    setpoint.wait_until_converged("web");
    setpoint.ok(&["delete", "web", "--wait"]);
    let gone = setpoint.json(&["gc", "--volumes"]);
    assert!(gone["things"].as_array().unwrap().iter().any(|thing| thing["kind"] == "volume"), "{gone:#}");
    // One of the same name is made anew; by then every event of before was looked at.
    setpoint.apply_ok(&manifest, &["--wait"]);
    assert!(setpoint.events().iter().all(|event| event["kind"] != "volume.lost"));
}

#[test]
fn a_volume_that_somebody_removed_is_told_and_not_made_anew_empty() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let more = "volumes: [\"data:/data\"]\nrestart: { attempts: 3, backoff: 100ms }";
    let manifest = with_calm(&web(&app, 1, more), &app);
    let setpoint = setpoint(&engine).manifest(&manifest).start();
    for name in ["web", "calm"] {
        setpoint.wait_until_converged(name);
    }
    let load = setpoint.load("calm.localhost", "/").rate(100).start();
    assert_eq!(setpoint.get("web.localhost", "/write?/data/kept").text(), "written");
    let id = container(&setpoint, &engine, 0);
    let volume = engine.inspect(&id, "{{range .Mounts}}{{.Name}}{{end}}");
    setpoint.ok(&["stop", "web", "--wait"]);
    engine.docker(&["volume", "rm", "-f", &volume]);
    setpoint.ok(&["start", "web"]);
    let told = |web: &serde_json::Value| {
        web["instances"][0]["message"]
            .as_str()
            .is_some_and(|message| message.contains("was removed by somebody"))
    };
    setpoint.wait_for_service("web", "the missing volume is named", told);
    assert!(engine.try_docker(&["volume", "inspect", &volume]).is_err(), "it is not made anew");
    // Somebody decides that an empty one will do.
    engine.docker(&["volume", "create", &volume]);
    setpoint.ok(&["restart", "web"]);
    setpoint.wait_until_converged("web");
    load.stop().assert_clean(100);
}
