//! What an engine was asked to do and did not answer, has no room for, or never ends: nothing is made twice, nothing good
//! is touched, and it is told.

use testkit::{
    Setpoint,
    docker::{Engine, Registry, Wire},
    setpoint::SOON,
    until,
};

use crate::{image, setpoint_over, web};

/// The containers of this Setpoint, whatever they are called.
fn containers(setpoint: &Setpoint, engine: &Engine) -> usize {
    let label = format!("label=setpoint.cluster={}", setpoint.cluster());
    engine.docker(&["ps", "-aq", "--filter", &label]).lines().count()
}

/// Answers to requests whose line holds `what` are lost: the engine has done it, and nobody hears of it.
fn lose(wire: &Wire, what: &str, ask: impl FnOnce()) {
    let before = wire.kept_back();
    wire.swallow(what);
    ask();
    until("the answer is lost", SOON, || (wire.kept_back() > before).then_some(()));
    wire.swallow_no_more();
    wire.drop_connections();
}

#[test]
fn what_was_done_without_an_answer_is_found_and_not_done_again() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let wire = Wire::to(engine.api());
    let setpoint = setpoint_over(&wire).start();
    lose(&wire, "/containers/create", || drop(setpoint.apply_ok(&web(&app, 2, ""), &[])));
    let web_after_create = setpoint.wait_until_converged("web");
    assert_eq!(containers(&setpoint, &engine), 2, "{web_after_create:#}");
    let load = setpoint.load("web.localhost", "/").rate(100).start();
    lose(&wire, "/start", || drop(setpoint.ok(&["scale", "web", "3"])));
    let ready = |web: &serde_json::Value| web["replicas"]["ready"] == 3 && web["state"] == "converged";
    let after_start = setpoint.wait_for_service("web", "three are ready", ready);
    assert_eq!(containers(&setpoint, &engine), 3);
    let restarts: Vec<_> = after_start["instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["restarts"].as_u64().unwrap())
        .collect();
    assert_eq!(restarts, [0, 0, 0], "what was started is not started again: {}", setpoint.stderr());
    lose(&wire, "/stop", || drop(setpoint.ok(&["scale", "web", "2"])));
    let gone = |web: &serde_json::Value| web["instances"].as_array().unwrap().len() == 2;
    setpoint.wait_for_service("web", "one is gone", gone);
    lose(&wire, "DELETE", || drop(setpoint.ok(&["scale", "web", "1"])));
    let gone = |web: &serde_json::Value| web["instances"].as_array().unwrap().len() == 1;
    setpoint.wait_for_service("web", "another one is gone", gone);
    assert_eq!(containers(&setpoint, &engine), 1);
    load.go_on_for(10);
    load.stop().assert_clean(100);
}

/// An engine remembers its newest events.
#[test]
fn what_was_done_while_nobody_listened_is_told_with_its_time() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let wire = Wire::to(engine.api());
    let setpoint = setpoint_over(&wire).manifest(&web(&app, 1, "drift: warn")).start();
    setpoint.wait_until_converged("web");
    let id = crate::container(&setpoint, &engine, 0);
    let mut events = engine.api().events(&serde_json::json!({ "event": ["pause"], "container": [id] }));
    wire.refuse("/");
    wire.drop_connections();
    setpoint.wait_for_event("engine.away", &[]);
    engine.docker(&["pause", &id]);
    let at = events.until("pause")["timeNano"].as_u64().unwrap() / 1_000_000;
    wire.refuse_no_more();
    let row = until("it is told that it is paused, and by what", SOON, || {
        let rows = setpoint.json(&["drift", "web"])["drift"].as_array().unwrap().clone();
        rows.into_iter().find(|row| row["by"] == "engine: pause")
    });
    assert_eq!(row["path"], "container/paused");
    assert_eq!(row["since"], model::Timestamp(at).to_string());
    engine.docker(&["unpause", &id]);
}

#[test]
fn what_was_made_without_an_answer_goes_with_its_service() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let wire = Wire::to(engine.api());
    let setpoint = setpoint_over(&wire).start();
    lose(&wire, "/containers/create", || {
        setpoint.apply_ok(&web(&app, 1, ""), &[]);
        until("it is being made", SOON, || (wire.kept_back() > 0).then_some(()));
        setpoint.ok(&["delete", "web"]);
    });
    until("the service is gone", SOON, || {
        let status = setpoint.status();
        status["services"].as_array().unwrap().is_empty().then_some(())
    });
    assert_eq!(containers(&setpoint, &engine), 0, "gone is said of what is gone");
}

/// As when an engine carries out a creation that was given up, after the one that was asked for instead.
#[test]
fn a_network_that_comes_twice_holds_up_no_start() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let wire = Wire::to(engine.api());
    let setpoint = setpoint_over(&wire).start();
    wire.delay("/start");
    setpoint.apply_ok(&web(&app, 2, ""), &[]);
    until("both are to start", SOON, || (wire.delays() >= 2).then_some(()));
    let of_cluster =
        |network: &serde_json::Value| network["Labels"]["setpoint.cluster"] == setpoint.cluster();
    let networks = || engine.api().networks().into_iter().filter(of_cluster).collect::<Vec<_>>();
    let [network] = networks().try_into().unwrap();
    let again =
        serde_json::json!({ "Name": network["Name"], "Labels": network["Labels"], "CheckDuplicate": false });
    let made = engine.api().ask("POST", "/networks/create", Some(&again)).unwrap();
    if made.status == 409 {
        println!("this engine makes no two networks of one name, unless it is asked for both at once");
        return;
    }
    wire.delay_no_more();
    let web = setpoint.wait_until_converged("web");
    assert_eq!(networks().len(), 1);
    assert!(web["instances"].as_array().unwrap().iter().all(|i| i["restarts"] == 0), "{web:#}");
}

/// While an engine makes a container that nobody waits for any more, its name is taken and no list shows it.
#[test]
fn a_name_that_nobody_has_yet_is_waited_for() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let wire = Wire::to(engine.api());
    let setpoint = setpoint_over(&wire).start();
    let words = "Conflict. The container name \"/x\" is already in use by container \"5f1c\". You have to remove (or \
                 rename) that container to be able to reuse that name.";
    wire.refuse_with("/containers/create", 409, words);
    setpoint.apply_ok(&web(&app, 1, ""), &[]);
    until("it is asked for again", SOON, || (wire.refusals() >= 3).then_some(()));
    wire.refuse_no_more();
    setpoint.wait_until_converged("web");
    let id = crate::container(&setpoint, &engine, 0);
    let name = engine.docker(&["inspect", "--format", "{{.Name}}", &id]);
    let mark = &setpoint.cluster()[..6];
    assert_eq!(name.trim(), format!("/default.web.0.0.{mark}"), "one name, so that there are never two");
}

#[test]
fn what_is_made_late_and_wanted_by_nobody_is_removed() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let wire = Wire::to(engine.api());
    let setpoint = setpoint_over(&wire).start();
    let label = format!("setpoint.cluster={}", setpoint.cluster());
    let filters =
        serde_json::json!({ "event": ["create", "destroy"], "type": ["container"], "label": [label] });
    let mut events = engine.api().events(&filters);
    wire.delay("/containers/create");
    setpoint.apply_ok(&web(&app, 1, ""), &[]);
    until("it is asked for", SOON, || (wire.delays() > 0).then_some(()));
    setpoint.ok(&["delete", "web"]);
    let mut asked = 0;
    until("the service is gone", SOON, || {
        // It may be asked for once more before its node hears that it is deleted.
        if wire.delays() > asked {
            asked = wire.delays();
            wire.drop_clients();
        }
        let status = setpoint.status();
        status["services"].as_array().unwrap().is_empty().then_some(())
    });
    wire.delay_no_more();
    events.until("create");
    events.until("destroy");
    assert_eq!(containers(&setpoint, &engine), 0);
    assert!(!setpoint.events().iter().any(|event| event["kind"] == "stranger.found"), "it is no stranger's");
}

/// Of the same name, while the one before is still to come.
#[test]
fn what_is_deleted_and_wanted_again_before_its_container_was_made_has_one() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let wire = Wire::to(engine.api());
    let setpoint = setpoint_over(&wire).start();
    wire.delay("/containers/create");
    setpoint.apply_ok(&web(&app, 1, ""), &[]);
    until("it is asked for", SOON, || (wire.delays() > 0).then_some(()));
    setpoint.ok(&["delete", "web"]);
    wire.drop_clients();
    until("it is wanted again", SOON, || (setpoint.apply(&web(&app, 1, ""), &[]).code == 0).then_some(()));
    wire.delay_no_more();
    setpoint.wait_until_converged("web");
    until("the late one is gone", SOON, || (containers(&setpoint, &engine) == 1).then_some(()));
    assert_eq!(setpoint.get("web.localhost", "/").text(), "v1");
    assert!(!setpoint.events().iter().any(|event| event["kind"] == "stranger.found"), "it is no stranger's");
}

#[test]
fn a_pull_that_never_ends_is_given_up_and_the_good_release_serves() {
    let Some(engine) = Engine::shared() else { return };
    let Some(registry) = Registry::start() else { return };
    let app = image(&engine, "v1");
    let wire = Wire::to(engine.api());
    let setpoint = setpoint_over(&wire).manifest(&web(&app, 1, "")).start();
    let before = setpoint.wait_until_converged("web");
    let load = setpoint.load("web.localhost", "/").rate(50).start();
    let tag = registry.image("slow:2");
    testkit::docker::Image::new(&tag, "v2").push(&registry);
    wire.swallow("/images/create");
    let quick = web(&tag, 1, "").replace("deadline: 60s", "deadline: 8s");
    let output = setpoint.apply(&quick, &["--wait=60s"]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("no progress within 8s"), "{output:?}");
    wire.swallow_no_more();
    let after = setpoint.wait_for_service("web", "it is what it was", |web| {
        web["instances"].as_array().unwrap().len() == 1
            && web["instances"][0]["id"] == before["instances"][0]["id"]
    });
    assert_eq!(after["replicas"]["ready"], 1);
    load.stop().assert_clean(20);
    // Afterwards nothing is in the way of the same image.
    setpoint.ok(&["deploy", "web", "--image", &tag, "--wait=60s"]);
    assert_eq!(setpoint.get("web.localhost", "/").text(), "v2");
}

#[test]
fn a_registry_that_hangs_is_waited_for_within_a_bound_and_nothing_is_begun() {
    let Some(engine) = Engine::shared() else { return };
    let Some(registry) = Registry::start() else { return };
    let app = image(&engine, "v1");
    let setpoint = crate::setpoint(&engine).manifest(&web(&app, 1, "")).start();
    setpoint.wait_until_converged("web");
    let tag = registry.image("hung:2");
    testkit::docker::Image::new(&tag, "v2").push(&registry);
    registry.hang();
    let output = setpoint.apply(&web(&tag, 1, ""), &[]);
    assert_eq!(output.code, 1, "{output:?}");
    let whose = format!("the registry {} does not answer", registry.host());
    assert!(output.stderr.contains(&whose) && !output.stderr.contains("the engine"), "{output:?}");
    assert_eq!(setpoint.deployments("web").len(), 1, "nothing was begun");
    registry.go_on();
    setpoint.apply_ok(&web(&tag, 1, ""), &["--wait=60s"]);
    assert_eq!(setpoint.get("web.localhost", "/").text(), "v2");
}

/// What lives and is not served is not called gone, and nothing is made beside it.
#[test]
fn a_container_that_the_engine_does_not_stop_is_told_as_living() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let wire = Wire::to(engine.api());
    let manifest = web(&app, 1, "restart: { attempts: 20, backoff: 200ms, max_backoff: 1s }");
    let probe =
        "health: { readiness: { http: /healthz }, liveness: { http: /healthz, interval: 200ms, fall: 2 } }";
    let setpoint = setpoint_over(&wire).manifest(&manifest.replace("health: /healthz", probe)).start();
    let before = setpoint.wait_until_converged("web");
    wire.refuse("/stop");
    let at = before["instances"][0]["address"].as_str().unwrap().to_owned();
    testkit::http::send(at.parse().unwrap(), testkit::http::Request::new("GET", &at, "/ill")).unwrap();
    let told = |web: &serde_json::Value| {
        web["instances"][0]["message"].as_str().is_some_and(|message| message.contains("refused by the test"))
    };
    let meanwhile = setpoint.wait_for_service("web", "the refusal is told", told);
    let instance = &meanwhile["instances"][0];
    assert_eq!(instance["pid"], before["instances"][0]["pid"], "it lives: {meanwhile:#}");
    assert_ne!(instance["state"], "failed", "{meanwhile:#}");
    assert_eq!(containers(&setpoint, &engine), 1);
    wire.refuse_no_more();
    let again = |web: &serde_json::Value| {
        web["replicas"]["ready"] == 1 && web["instances"][0]["pid"] != before["instances"][0]["pid"]
    };
    let after = setpoint.wait_for_service("web", "it was ended and started", again);
    assert!(after["instances"][0]["restarts"].as_u64().unwrap() < 10, "with pauses: {after:#}");
    assert_eq!(containers(&setpoint, &engine), 1);
}

#[test]
fn a_container_whose_ledger_was_lost_keeps_the_port_that_leads_to_it() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let mut setpoint = crate::setpoint(&engine)
        .under(&["unshare", "--mount", "sh", "-c", APART, "apart"])
        .manifest(&web(&app, 1, ""))
        .arg("--keep")
        .start();
    let before = setpoint.wait_until_converged("web");
    setpoint.kill9();
    let instances = setpoint.data().join("node/instances");
    std::fs::remove_dir_all(&instances).unwrap();
    setpoint.restart();
    let again = |web: &serde_json::Value| web["state"] == "converged" && web["replicas"]["ready"] == 1;
    let after = setpoint.wait_for_service("web", "it is adopted", again);
    for same in ["id", "pid", "address"] {
        assert_eq!(after["instances"][0][same], before["instances"][0][same], "{same}");
    }
    // Its routes follow a moment later.
    until("it is served", SOON, || (setpoint.get("web.localhost", "/").text() == "v1").then_some(()));
    // Another instance gets another port.
    setpoint.ok(&["scale", "web", "2"]);
    let two = |web: &serde_json::Value| web["replicas"]["ready"] == 2 && web["state"] == "converged";
    let both = setpoint.wait_for_service("web", "two are ready", two);
    assert_ne!(both["instances"][0]["address"], both["instances"][1]["address"]);
}

#[test]
fn an_engine_without_room_keeps_what_serves_and_says_what_is_full() {
    const MIB: u64 = 1 << 20;
    let Some(engine) = Engine::options().disk(96 * MIB).start() else { return };
    let Some(registry) = Registry::start() else { return };
    let app = image(&engine, "v1");
    let setpoint = crate::setpoint(&engine).manifest(&web(&app, 2, "")).start();
    setpoint.wait_until_converged("web");
    let tag = registry.image("new:2");
    testkit::docker::Image::new(&tag, "v2").push(&registry);
    let ballast = engine.data().join("ballast");
    fill(&ballast);
    let load = setpoint.load("web.localhost", "/").rate(50).start();
    let quick = web(&tag, 2, "").replace("deadline: 60s", "deadline: 5s");
    let output = setpoint.apply(&quick, &["--wait=60s"]);
    assert_eq!(output.code, 1, "{output:?}");
    let told = format!("{} {}", output.stderr, setpoint.ok(&["events", "--service", "web"]));
    assert!(told.contains("no space left on device"), "{told}");
    assert_eq!(setpoint.service("web")["replicas"]["ready"], 2);
    load.stop().assert_clean(20);
    std::fs::remove_file(&ballast).unwrap();
    setpoint.ok(&["deploy", "web", "--image", &tag, "--wait=60s"]);
    assert_eq!(setpoint.get("web.localhost", "/").text(), "v2");
}

#[test]
fn what_died_while_there_was_no_room_to_start_it_is_started_once_there_is() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let wire = Wire::to(engine.api());
    let setpoint = setpoint_over(&wire).manifest(&web(&app, 1, "restart: { attempts: 1 }")).start();
    let before = setpoint.wait_until_converged("web");
    wire.refuse_with("/start", 500, "failed to create task: write /run/x: no space left on device");
    testkit::proc::kill9(testkit::setpoint::pids(&before)[0]);
    let told = |web: &serde_json::Value| {
        web["message"].as_str().is_some_and(|told| told.contains("no space left on device"))
    };
    setpoint.wait_for_service("web", "it is told what is full", told);
    until("it is tried again", SOON, || (wire.refusals() >= 2).then_some(()));
    wire.refuse_no_more();
    // By the only attempt.
    let again = |web: &serde_json::Value| web["instances"][0]["restarts"] == 1 && web["state"] == "converged";
    setpoint.wait_for_service("web", "it runs again", again);
}

/// A second try of an install is counted before it is made.
#[test]
fn a_try_whose_answer_was_lost_costs_one_attempt() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let wire = Wire::to(engine.api());
    let setpoint = setpoint_over(&wire).start();
    wire.refuse("/containers/create");
    setpoint.apply_ok(&web(&app, 1, "restart: { attempts: 2, backoff: 2s }"), &[]);
    until("it is tried for the second time", SOON, || (wire.refusals() >= 2).then_some(()));
    wire.refuse_no_more();
    lose(&wire, "/containers/create", || ());
    setpoint.wait_until_converged("web");
    assert_eq!(containers(&setpoint, &engine), 1);
}

fn fill(path: &std::path::Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    for size in [64 << 10, 4096, 1] {
        let block = vec![b'x'; size];
        while file.write_all(&block).is_ok() {}
    }
}

/// Hides the machine's interfaces, as if the engine were in another network.
pub const APART: &str = "mount -t tmpfs none /sys/class/net && exec \"$@\"";

#[test]
fn where_addresses_are_not_reached_a_port_leads_there_and_a_taken_one_is_left_to_its_taker() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let wire = Wire::to(engine.api());
    let setpoint = setpoint_over(&wire)
        .under(&["unshare", "--mount", "sh", "-c", APART, "apart"])
        .manifest(&web(&app, 2, "restart: { attempts: 1 }"))
        .start();
    let web = setpoint.wait_until_converged("web");
    let address = web["instances"][0]["address"].as_str().unwrap().to_owned();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    let load = setpoint.load("web.localhost", "/").rate(100).start();
    load.go_on_for(10);
    // Once dead it frees the port, and is started again only when somebody has it.
    wire.delay("/start");
    testkit::proc::kill9(testkit::setpoint::pids(&web)[0]);
    let taken = until("its port is free", SOON, || std::net::TcpListener::bind(&address).ok());
    wire.delay_no_more();
    let moved = setpoint.wait_for_service("web", "it serves on another port, by its only attempt", |web| {
        web["replicas"]["ready"] == 2 && web["instances"][0]["address"] != address.as_str()
    });
    assert_eq!(moved["instances"][0]["id"], web["instances"][0]["id"]);
    assert_eq!(moved["instances"][1], web["instances"][1], "the other was not touched");
    load.go_on_for(10);
    let report = load.stop();
    println!("{report}");
    // A request that was being answered by what was killed cannot be saved; all others are.
    assert!(report.failures().len() <= 2, "{report}");
    drop(taken);
    // It is led to by its new port.
    let id = moved["instances"][0]["id"].as_str().unwrap();
    let asked = || setpoint.get("web.localhost", "/instance").text();
    until("it is served there", SOON, || (asked() == id).then_some(()));
}
