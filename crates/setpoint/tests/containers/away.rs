//! Somebody was away, the engine or Setpoint itself: what is told meanwhile and afterwards, and what of it counts.

use serde_json::Value;
use testkit::{
    Setpoint,
    docker::{Engine, Wire},
    proc,
    setpoint::SOON,
    until,
};

use crate::{container, image, setpoint, setpoint_over, web};

fn events<'a>(all: &'a [Value], kind: &str) -> Vec<&'a str> {
    all.iter().filter(|event| event["kind"] == kind).filter_map(|event| event["message"].as_str()).collect()
}

#[test]
fn while_the_engine_is_away_everybody_who_asks_is_told_since_when() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let wire = Wire::to(engine.api());
    let setpoint = setpoint_over(&wire).manifest(&web(&app, 1, "")).start();
    let before = setpoint.wait_until_converged("web");
    assert_eq!(before["message"], "");
    wire.cut();
    setpoint.wait_for_event("engine.away", &[]);
    let told = |web: &Value| {
        let message = web["message"].as_str().unwrap_or_default();
        message.contains("does not answer since 2") && message.contains("what is told of its containers")
    };
    let meanwhile = setpoint.wait_for_service("web", "it is told that its engine is away", told);
    assert_eq!(meanwhile["state"], "converged", "it serves, and nothing else is known: {meanwhile:#}");
    assert_eq!(meanwhile["replicas"]["ready"], 1);
    let nodes = setpoint.json(&["node", "list"]);
    let node = &nodes["nodes"][0];
    assert!(node["engine_away"].as_str().is_some_and(|why| why.contains("does not answer")), "{nodes:#}");
    assert!(node["engine_away_since"].as_str().is_some_and(|since| since.starts_with('2')), "{nodes:#}");
    let table = setpoint.ok(&["node", "list"]);
    assert!(table.contains("does not answer"), "{table}");
    let logs = setpoint.cli(&["logs", "web"]);
    assert_eq!(logs.code, 1, "{logs:?}");
    assert!(logs.stderr.contains("does not answer") && !logs.stderr.contains("log/"), "{logs:?}");
    assert!(logs.stderr.contains("keeps"), "where its output is: {logs:?}");
    wire.mend();
    setpoint.wait_for_event("engine.back", &[]);
    setpoint.wait_for_service("web", "it is over", |web| web["message"] == "" && web["state"] == "converged");
    let node = setpoint.json(&["node", "list"])["nodes"][0].clone();
    assert_eq!(node["engine_away"], Value::Null);
}

/// Without the engine nothing is known of what nobody watched.
#[test]
fn what_cannot_be_known_without_the_engine_is_told_as_unknown() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let wire = Wire::to(engine.api());
    let mut setpoint = setpoint_over(&wire).manifest(&web(&app, 1, "")).start();
    setpoint.wait_until_converged("web");
    wire.cut();
    setpoint.kill9();
    setpoint.restart();
    let told = |web: &Value| {
        web["state"] == "unknown" && web["message"].as_str().is_some_and(|m| m.contains("there is no socket"))
    };
    setpoint.wait_for_service("web", "it is unknown, and why", told);
    wire.mend();
    setpoint.wait_until_converged("web");
}

/// It answers all other questions.
#[test]
fn what_the_engine_cannot_tell_of_is_unknown_and_why_is_told() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let wire = Wire::to(engine.api());
    let mut setpoint = setpoint_over(&wire).manifest(&web(&app, 1, "")).start();
    let before = setpoint.wait_until_converged("web");
    let id = crate::container(&setpoint, &engine, 0);
    setpoint.kill9();
    wire.refuse(&format!("{id}/json"));
    setpoint.restart();
    let told = |web: &Value| {
        web["state"] == "unknown"
            && web["message"].as_str().is_some_and(|m| m.contains("refused by the test"))
    };
    setpoint.wait_for_service("web", "it is unknown, and why", told);
    wire.refuse_no_more();
    let after = setpoint.wait_until_converged("web");
    assert_eq!(testkit::setpoint::pids(&before), testkit::setpoint::pids(&after));
    // What cannot be told of an image is in nobody's way.
    wire.refuse("/images/");
    engine.docker(&["pause", &id]);
    setpoint.wait_for_event("drift.corrected", &["container/paused"]);
}

#[test]
fn what_somebody_had_the_engine_do_while_setpoint_was_dead_is_told_as_if_it_had_lived() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let mut setpoint = setpoint(&engine).manifest(&web(&app, 2, "restart: { attempts: 20 }")).start();
    setpoint.wait_until_converged("web");
    let [killed, died] = [0, 1].map(|slot| container(&setpoint, &engine, slot));
    let pid = setpoint.service("web")["instances"][1]["pid"].as_u64().unwrap();
    let mut told = engine.api().events(&serde_json::json!({ "event": ["kill"], "container": [killed] }));
    setpoint.kill9();
    engine.docker(&["kill", &killed]);
    let at = told.until("kill")["timeNano"].as_u64().unwrap() / 1_000_000;
    proc::kill9(u32::try_from(pid).unwrap());
    until("its engine knows of its end", SOON, || {
        (engine.inspect(&died, "{{.State.Running}}") == "false").then_some(())
    });
    setpoint.restart();
    let since = model::Timestamp(at).to_string();
    let how = format!("container/running is false, declared is true, since {since} by engine: kill");
    setpoint.wait_for_event("drift.found", &[&how]);
    setpoint.wait_for_event("drift.corrected", &["container/running"]);
    setpoint.wait_for_event("instance.exited", &["default.web.1", "signal 9", "while Setpoint was away"]);
    let again = |web: &Value| {
        (0..2).all(|slot| web["instances"][slot]["restarts"] == 1) && web["state"] == "converged"
    };
    setpoint.wait_for_service("web", "both run again", again);
    assert_eq!(events(&setpoint.events(), "drift.found").len(), 1, "of the other nobody knows who did it");
}

/// What Setpoint itself asked for is nobody's doing, also when it hears of it afterwards.
#[test]
fn what_setpoint_itself_ended_is_no_drift_when_it_is_back() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let mut setpoint = setpoint(&engine).manifest(&web(&app, 2, "")).start();
    setpoint.wait_until_converged("web");
    setpoint.terminate();
    setpoint.restart();
    let again = |web: &Value| web["state"] == "converged" && web["replicas"]["ready"] == 2;
    setpoint.wait_for_service("web", "both run again", again);
    setpoint.ok(&["restart", "web", "--wait"]);
    setpoint.kill9();
    setpoint.restart();
    let after = setpoint.wait_for_service("web", "both run on", again);
    let all = setpoint.events();
    assert_eq!(events(&all, "drift.found"), Vec::<&str>::new(), "{all:#?}");
    assert_eq!(after["instances"][0]["restarts"], 0);
}

#[test]
fn a_failure_is_told_once_whoever_comes_and_goes() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let wire = Wire::to(engine.api());
    let more = "restart: { attempts: 2, backoff: 100ms, max_backoff: 100ms }";
    let mut setpoint = setpoint_over(&wire).manifest(&web(&app, 1, more)).start();
    setpoint.wait_until_converged("web");
    let failed = |web: &Value| web["instances"][0]["state"] == "failed";
    until("its attempts are spent", SOON, || {
        let web = setpoint.service("web");
        if failed(&web) {
            return Some(());
        }
        if let Some(pid) = web["instances"][0]["pid"].as_u64() {
            proc::kill9(u32::try_from(pid).unwrap());
        }
        None
    });
    setpoint.wait_for_event("instance.failed", &[]);
    wire.cut();
    setpoint.wait_for_event("engine.away", &[]);
    let unknown = |web: &Value| web["instances"][0]["state"] == "unknown";
    setpoint.wait_for_service("web", "nothing is known of it", unknown);
    wire.mend();
    setpoint.wait_for_event("engine.back", &[]);
    setpoint.wait_for_service("web", "it is as it was", failed);
    setpoint.kill9();
    setpoint.restart();
    setpoint.wait_for_service("web", "it is as it was", failed);
    let all = setpoint.events();
    assert_eq!(events(&all, "instance.failed").len(), 1, "{all:#?}");
}

/// Twice the attempts that there are, in both ways in which an engine goes.
#[test]
fn what_the_engine_ends_by_its_own_end_spends_no_attempt() {
    let Some(mut engine) = Engine::own() else { return };
    let app = image(&engine, "v1");
    let setpoint = setpoint(&engine).manifest(&web(&app, 2, "restart: { attempts: 2 }")).start();
    setpoint.wait_until_converged("web");
    let mut pids = testkit::setpoint::pids(&setpoint.service("web"));
    for kill in [false, true, false, true] {
        if kill {
            engine.kill9();
        } else {
            engine.stop();
        }
        engine.start();
        let others = |web: &Value| {
            let now = testkit::setpoint::pids(web);
            web["state"] == "converged" && now.len() == 2 && now.iter().all(|pid| !pids.contains(pid))
        };
        let after = setpoint.wait_for_service("web", "both run again", others);
        pids = testkit::setpoint::pids(&after);
    }
    let all = setpoint.events();
    assert_eq!(events(&all, "instance.failed"), Vec::<&str>::new());
    assert_eq!(events(&all, "alert.restarts"), Vec::<&str>::new());
    assert_eq!(events(&all, "drift.found"), Vec::<&str>::new(), "nobody touched them");
    // What ends for another reason counts as ever.
    spend(&setpoint, 2);
}

#[test]
fn what_the_engine_ends_by_its_own_end_while_setpoint_is_dead_spends_no_attempt_either() {
    let Some(mut engine) = Engine::own() else { return };
    let app = image(&engine, "v1");
    let mut setpoint = setpoint(&engine).manifest(&web(&app, 2, "restart: { attempts: 2 }")).start();
    let before = setpoint.wait_until_converged("web");
    for (round, kill) in (1..).zip([false, true, false, true]) {
        setpoint.kill9();
        if kill {
            engine.kill9();
        } else {
            engine.stop();
        }
        engine.start();
        setpoint.restart();
        let again = |web: &Value| {
            (0..2).all(|slot| web["instances"][slot]["restarts"] == round) && web["state"] == "converged"
        };
        let after = setpoint.wait_for_service("web", "both run again", again);
        for slot in 0..2 {
            assert_eq!(after["instances"][slot]["id"], before["instances"][slot]["id"], "the same instance");
        }
    }
    assert_eq!(engine.docker(&["ps", "-aq"]).lines().count(), 2, "nothing was made beside them");
    let all = setpoint.events();
    for kind in ["instance.failed", "alert.restarts", "drift.found"] {
        assert_eq!(events(&all, kind), Vec::<&str>::new());
    }
    spend(&setpoint, 2);
}

/// Kills the first instance until it is failed, which takes so many restarts.
fn spend(setpoint: &Setpoint, attempts: u64) {
    let before = setpoint.service("web")["instances"][0]["restarts"].as_u64().unwrap();
    let failed = until("its attempts are spent", SOON, || {
        let first = setpoint.service("web")["instances"][0].clone();
        if first["state"] == "failed" {
            return Some(first);
        }
        if let Some(pid) = first["pid"].as_u64() {
            proc::kill9(u32::try_from(pid).unwrap());
        }
        None
    });
    assert_eq!(failed["restarts"].as_u64().unwrap() - before, attempts, "{failed:#}");
}

/// Whoever follows is told that nothing comes, once, and gets what comes afterwards.
#[test]
fn who_follows_output_is_told_that_it_waits_for_the_engine_and_goes_on_by_itself() {
    let Some(engine) = Engine::shared() else { return };
    let wire = Wire::to(engine.api());
    let setpoint = setpoint_over(&wire).manifest(&web(&image(&engine, "v1"), 1, "")).start();
    setpoint.wait_until_converged("web");
    let mut followed = testkit::Followed::of(setpoint.asking(&["logs", "-f", "web"]));
    followed.wait_for("v1 listens on");
    wire.cut();
    followed.wait_for_words("it is waited for", 1);
    let mut late = testkit::Followed::of(setpoint.asking(&["logs", "-f", "web"]));
    late.wait_for_words("it is waited for", 1);
    wire.mend();
    late.wait_for("v1 listens on");
    setpoint.get("web.localhost", "/log?again");
    followed.wait_for("again");
    late.wait_for("again");
    followed.wait_for_words("it is waited for", 1);
}
