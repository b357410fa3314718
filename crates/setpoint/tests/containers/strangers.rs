//! What bears our labels, or a name of ours, and is in no ledger is somebody else's: it is told once, is never touched,
//! and is never used as if it were ours.

use serde_json::{Value, json};
use testkit::{Setpoint, docker::Engine, setpoint::SOON, until};

use crate::{image, setpoint, web};

/// How often a stranger with this name was told.
fn told(setpoint: &Setpoint, name: &str) -> usize {
    let is_about = |event: &&Value| {
        event["kind"] == "stranger.found" && event["message"].as_str().is_some_and(|told| told.contains(name))
    };
    setpoint.events().iter().filter(is_about).count()
}

fn nodes_strangers(setpoint: &Setpoint) -> String {
    setpoint.json(&["node", "list"])["nodes"][0]["strangers"].to_string()
}

/// Labels are no ownership: whoever copies a command line has them, also before we have made anything.
#[test]
fn a_container_that_had_our_labels_before_our_first_is_a_stranger() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let mut setpoint = setpoint(&engine).start();
    let labels = json!({
        "setpoint.cluster": setpoint.cluster(), "setpoint.instance": "default.web.0.0", "setpoint.nonce": "copied",
    });
    let name = format!("theirs-{}", setpoint.cluster());
    let theirs = engine.api().run(&name, &json!({ "Image": app, "Cmd": ["theirs"], "Labels": labels }));
    let pid = engine.api().main_pid(&theirs);
    setpoint.apply_ok(&web(&app, 1, ""), &[]);
    let web = setpoint.wait_until_converged("web");
    assert_eq!(web["instances"][0]["id"], "default.web.0.0");
    assert_ne!(web["instances"][0]["pid"], pid, "it has one of its own: {web:#}");
    until("it is told", SOON, || (told(&setpoint, &name) == 1).then_some(()));
    assert!(nodes_strangers(&setpoint).contains(&name));
    for _ in 0..3 {
        setpoint.ok(&["reconcile"]);
    }
    setpoint.kill9();
    setpoint.restart();
    setpoint.wait_until_converged("web");
    until("it is known again", SOON, || nodes_strangers(&setpoint).contains(&name).then_some(()));
    assert_eq!(told(&setpoint, &name), 1, "once");
    setpoint.ok(&["delete", "web", "--wait"]);
    assert_eq!(engine.api().main_pid(&theirs), pid, "nobody touched it");
    engine.api().remove(&theirs);
    setpoint.ok(&["reconcile"]);
    until("nobody is strange any more", SOON, || (!nodes_strangers(&setpoint).contains(&name)).then_some(()));
}

/// The same instance, its ledger lost with its container: the store's assignment counts as one.
#[test]
fn a_container_whose_ledger_was_lost_is_taken_over_and_no_stranger() {
    let Some(engine) = Engine::shared() else { return };
    let mut setpoint = setpoint(&engine).manifest(&web(&image(&engine, "v1"), 1, "")).arg("--keep").start();
    let before = setpoint.wait_until_converged("web");
    for lost in ["node/instances", "node"] {
        setpoint.kill9();
        std::fs::remove_dir_all(setpoint.data().join(lost)).unwrap();
        setpoint.restart();
        let after = setpoint.wait_until_converged("web");
        assert_eq!(after["instances"][0]["pid"], before["instances"][0]["pid"], "{lost}: {after:#}");
    }
    assert_eq!(told(&setpoint, ""), 0, "{:#?}", setpoint.events());
    setpoint.stop_after_keep();
}

#[test]
fn networks_and_volumes_with_our_labels_that_are_in_no_ledger_are_told_once() {
    let Some(engine) = Engine::shared() else { return };
    let manifest = web(&image(&engine, "v1"), 1, "volumes: [\"data:/data\"]");
    let mut setpoint = setpoint(&engine).manifest(&manifest).start();
    setpoint.wait_until_converged("web");
    let name = format!("foreign-{}", setpoint.cluster());
    let labels = json!({ "setpoint.cluster": setpoint.cluster(), "setpoint.project": "default" });
    engine.api().create_network(&name, &labels);
    engine.api().create_volume(&name, &labels);
    let things = [format!("network {name}"), format!("volume {name}")];
    setpoint.ok(&["reconcile"]);
    for thing in &things {
        until(thing, SOON, || (told(&setpoint, thing) == 1).then_some(()));
        assert!(nodes_strangers(&setpoint).contains(thing.as_str()));
    }
    setpoint.ok(&["reconcile"]);
    setpoint.kill9();
    setpoint.restart();
    setpoint.wait_until_converged("web");
    for thing in &things {
        until(thing, SOON, || nodes_strangers(&setpoint).contains(thing.as_str()).then_some(()));
        assert_eq!(told(&setpoint, thing), 1, "once");
    }
    setpoint.ok(&["delete", "web", "--wait"]);
    setpoint.ok(&["gc", "--volumes"]);
    for kind in ["network", "volume"] {
        engine.docker(&[kind, "rm", &name]);
    }
    assert_eq!(told(&setpoint, "default.data"), 0, "its own is none");
    assert_eq!(told(&setpoint, ""), 2);
}

/// What is in it is somebody's: it is neither written to nor shown to a workload as if it were its own.
#[test]
fn a_volume_of_our_name_that_is_not_ours_is_not_used() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let setpoint = setpoint(&engine).start();
    let name = format!("default.data.{}", &setpoint.cluster()[..6]);
    engine.api().create_volume(&name, &json!({}));
    setpoint.apply_ok(&web(&app, 1, "volumes: [\"data:/data\"]\nrestart: { attempts: 1 }"), &[]);
    let words = format!("docker volume create --label setpoint.cluster={} {name}", setpoint.cluster());
    let says =
        |web: &Value| web["instances"][0]["message"].as_str().is_some_and(|told| told.contains(&words));
    let web = setpoint.wait_for_service("web", "it is told what to do", says);
    assert_eq!(
        (&web["instances"][0]["state"], &web["instances"][0]["restarts"]),
        (&json!("starting"), &json!(0))
    );
    setpoint.ok(&["gc", "--volumes"]);
    engine.docker(&["volume", "inspect", &name]);
    engine.docker(&["volume", "rm", &name]);
    // Made for it by somebody on purpose, with what is to be in it.
    let ours = json!({ "setpoint.cluster": setpoint.cluster() });
    engine.api().create_volume(&name, &ours);
    setpoint.wait_until_converged("web");
    assert_eq!(setpoint.get("web.localhost", "/write?/data/a").text(), "written");
    assert_eq!(told(&setpoint, &name), 0, "it is in use, and no stranger");
}
