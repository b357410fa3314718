//! What is in the way and no fault of the release is waited for: it is told with what to do, costs no attempt, and once it
//! is out of the way everything goes on by itself.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{
    Setpoint,
    docker::{Engine, Image, Registry, Wire},
    setpoint::SOON,
    until,
};

use crate::{doubts::APART, image, setpoint, setpoint_over, web};

const NO_ROOM: &str = "write /var/lib/docker/tmp/GetImageBlob1: no space left on device";
/// The one attempt of each is not spent.
const ONE: &str = "restart: { attempts: 1 }";

fn wait_until_told(setpoint: &Setpoint, words: &str) {
    let waits = |web: &Value| {
        let instance = &web["instances"][0];
        instance["state"] == "starting"
            && instance["message"].as_str().is_some_and(|told| told.contains(words))
    };
    setpoint.wait_for_service("web", words, waits);
}

fn comes_up(setpoint: &Setpoint, attempts: u64) {
    let web = setpoint.wait_until_converged("web");
    assert_eq!(web["instances"][0]["restarts"], attempts, "{web:#}");
    assert_eq!(web["message"], "", "{web:#}");
}

#[test]
fn a_pull_without_room_waits_and_costs_no_attempt() {
    let Some(engine) = Engine::shared() else { return };
    let Some(registry) = Registry::start() else { return };
    let tag = registry.image("roomless:1");
    Image::new(&tag, "v1").push(&registry);
    let wire = Wire::to(engine.api());
    let setpoint = setpoint_over(&wire).start();
    wire.refuse_with("/images/create", 500, NO_ROOM);
    setpoint.apply_ok(&web(&tag, 1, ONE), &[]);
    wait_until_told(&setpoint, "no space left on device");
    until("it is tried again", SOON, || (wire.refusals() >= 2).then_some(()));
    wire.refuse_no_more();
    comes_up(&setpoint, 0);
}

#[test]
fn a_pull_that_the_death_of_the_engine_cuts_is_begun_anew_and_costs_no_attempt() {
    let Some(mut engine) = Engine::own() else { return };
    let Some(registry) = Registry::start() else { return };
    let tag = registry.image("cut:1");
    Image::new(&tag, "v1").push(&registry);
    let wire = Wire::to(engine.api());
    let setpoint = setpoint_over(&wire).start();
    wire.delay("/images/create");
    setpoint.apply_ok(&web(&tag, 1, ONE), &[]);
    until("it is asked for", SOON, || (wire.delays() > 0).then_some(()));
    registry.hang();
    wire.delay_no_more();
    engine.kill9();
    setpoint.wait_for_event("engine.away", &[]);
    registry.go_on();
    engine.start();
    setpoint.wait_for_event("engine.back", &[]);
    comes_up(&setpoint, 0);
    assert_eq!(setpoint.get("web.localhost", "/").text(), "v1");
}

/// A second try of an install is counted before it is made: what prevents it leaves it the attempt.
#[test]
fn what_is_prevented_at_its_only_attempt_has_it_still() {
    let Some(engine) = Engine::shared() else { return };
    let wire = Wire::to(engine.api());
    let setpoint = setpoint_over(&wire).start();
    wire.refuse_once("/containers/create");
    wire.refuse_with("/containers/create", 500, NO_ROOM);
    setpoint.apply_ok(&web(&image(&engine, "v1"), 1, ONE), &[]);
    wait_until_told(&setpoint, "no space left on device");
    until("it is tried again", SOON, || (wire.refusals() >= 3).then_some(()));
    wire.refuse_no_more();
    comes_up(&setpoint, 1);
}

#[test]
fn names_that_are_all_taken_are_waited_for() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let setpoint = setpoint(&engine).start();
    let name = format!("default.web.0.0.{}", &setpoint.cluster()[..6]);
    let names = (0..20).map(|nth| if nth == 0 { name.clone() } else { format!("{name}-{nth}") });
    let theirs: Vec<String> =
        names.map(|name| engine.api().create(&name, &json!({ "Image": app }))).collect();
    setpoint.apply_ok(&web(&app, 1, ONE), &[]);
    wait_until_told(&setpoint, "20 containers named like");
    theirs.iter().for_each(|id| engine.api().remove(id));
    comes_up(&setpoint, 0);
}

#[test]
fn an_engine_without_free_addresses_is_waited_for() {
    let Some(engine) = Engine::shared() else { return };
    let wire = Wire::to(engine.api());
    let setpoint = setpoint_over(&wire).start();
    let words = "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network";
    wire.refuse_with("/networks/create", 500, words);
    setpoint.apply_ok(&web(&image(&engine, "v1"), 1, ONE), &[]);
    wait_until_told(&setpoint, "docker network prune");
    until("it is tried again", SOON, || (wire.refusals() >= 2).then_some(()));
    wire.refuse_no_more();
    comes_up(&setpoint, 0);
}

#[test]
fn a_network_of_our_name_that_is_not_ours_is_not_joined_and_costs_no_attempt() {
    let Some(engine) = Engine::shared() else { return };
    let setpoint = setpoint(&engine).start();
    let name = format!("default.{}", &setpoint.cluster()[..6]);
    engine.docker(&["network", "create", &name]);
    setpoint.apply_ok(&web(&image(&engine, "v1"), 1, ONE), &[]);
    wait_until_told(&setpoint, "that Setpoint did not make");
    assert_eq!(engine.docker(&["network", "inspect", "--format", "{{len .Containers}}", &name]), "0");
    engine.docker(&["network", "rm", &name]);
    comes_up(&setpoint, 0);
}

#[test]
fn ports_that_are_all_taken_are_waited_for_with_a_pause() {
    let Some(engine) = Engine::shared() else { return };
    let wire = Wire::to(engine.api());
    let setpoint = setpoint_over(&wire).under(&["unshare", "--mount", "sh", "-c", APART, "apart"]).start();
    let words = "driver failed programming external connectivity on endpoint web: Bind for 127.0.0.1:31000 failed: port \
                 is already allocated";
    wire.refuse_with("/start", 500, words);
    setpoint.apply_ok(&web(&image(&engine, "v1"), 1, ONE), &[]);
    wait_until_told(&setpoint, "ports in a row");
    let tried = wire.refusals();
    let again = testkit::wait::within(Duration::from_secs(3), || {
        (wire.refusals() > tried + 1).then_some(wire.refusals())
    });
    assert_eq!(again, None, "it pauses");
    wire.refuse_no_more();
    comes_up(&setpoint, 0);
}
