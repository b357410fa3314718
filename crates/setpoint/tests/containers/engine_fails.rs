//! The engine itself fails: unknown is not absent. Nothing is made beside what may live, and when it is back everything
//! is as it was.

use std::time::Duration;

use testkit::{
    Setpoint,
    docker::{Engine, Wire},
    load::{Answer, Load},
    setpoint::SOON,
    until,
};

use crate::{container, image, setpoint, setpoint_over, web};

/// Once each has been told that the engine is back.
#[track_caller]
fn untouched(setpoint: &Setpoint, before: &serde_json::Value) {
    let same =
        |web: &serde_json::Value| web["state"] == "converged" && web["instances"] == before["instances"];
    setpoint.wait_for_service("web", "nothing was touched", same);
}

/// Two containers, and a process beside them, at `calm.localhost`, which no engine has anything to do with.
fn with_calm(app: &str) -> String {
    let calm = "  calm:\n    command: [\"${SETPOINT}\", demo-app]\n    health: /healthz\n    domains: [calm.localhost]\n";
    format!("{}{calm}", web(app, 2, "restart: { attempts: 20 }"))
}

/// Both containers serve again, and are led to.
#[track_caller]
fn wait_until_both_serve(setpoint: &Setpoint) -> serde_json::Value {
    let again = |web: &serde_json::Value| web["state"] == "converged" && web["replicas"]["ready"] == 2;
    let after = setpoint.wait_for_service("web", "both serve again", again);
    until("they are led to", SOON, || (setpoint.get("web.localhost", "/").status == 200).then_some(()));
    after
}

/// How long a load has gone on: to its newest answer.
fn so_far(load: &Load) -> Duration {
    load.report().answers.iter().map(|answer| answer.due).max().unwrap_or_default()
}

/// What an engine ends with itself is missing until it is back; nothing was before that, and nothing is from now on.
#[track_caller]
fn assert_missing_since(load: Load, ends: Duration) {
    let back = so_far(&load);
    load.go_on_for(100);
    let report = load.stop();
    let meanwhile = |answer: &&Answer| answer.due >= ends && answer.due <= back;
    assert!(report.failures().iter().all(meanwhile), "from {ends:?} to {back:?}: {report}");
}

#[test]
fn traffic_goes_on_while_the_engine_hangs_or_is_dead() {
    let Some(mut engine) = Engine::own() else { return };
    let setpoint = setpoint(&engine).manifest(&with_calm(&image(&engine, "v1"))).start();
    setpoint.wait_until_converged("calm");
    let before = setpoint.wait_until_converged("web");
    let calm = setpoint.load("calm.localhost", "/").rate(100).start();
    let load = setpoint.load("web.localhost", "/").rate(100).start();
    engine.pause();
    setpoint.wait_for_event("engine.away", &["does not answer"]);
    load.go_on_for(50);
    engine.go_on();
    setpoint.wait_for_event("engine.back", &[]);
    untouched(&setpoint, &before);
    engine.kill9();
    let away = |web: &serde_json::Value| {
        web["instances"][0]["message"].as_str().is_some_and(|message| message.contains("does not answer"))
    };
    let meanwhile = setpoint.wait_for_service("web", "it is told that the engine is away", away);
    assert_eq!(meanwhile["replicas"]["ready"], 2, "what certainly lives serves: {meanwhile:#}");
    load.go_on_for(50);
    // Without live-restore, a starting engine ends what it finds; what is missing returns.
    let ends = so_far(&load);
    engine.start();
    let after = wait_until_both_serve(&setpoint);
    assert_eq!(after["instances"][0]["id"], before["instances"][0]["id"], "nothing was made beside them");
    assert_eq!(engine.docker(&["ps", "-aq"]).lines().count(), 2);
    assert_missing_since(load, ends);
    calm.stop().assert_clean(200);
}

#[test]
fn a_command_that_the_engine_cannot_run_is_no_verdict_on_the_container() {
    let Some(engine) = Engine::own() else { return };
    let app = image(&engine, "v1");
    let probe = "exec: [/app, check], interval: 200ms, timeout: 1500ms, fall: 2";
    let health = format!("health: {{ readiness: {{ {probe} }}, liveness: {{ {probe} }} }}");
    let manifest = web(&app, 2, "restart: { attempts: 20 }").replace("health: /healthz", &health);
    let setpoint = setpoint(&engine).manifest(&manifest).start();
    let before = setpoint.wait_until_converged("web");
    let load = setpoint.load("web.localhost", "/").rate(100).start();
    engine.pause();
    setpoint.wait_for_event("engine.away", &["does not answer"]);
    // Long enough for a liveness probe to fail as often as it may, and more.
    load.go_on_for(300);
    engine.go_on();
    setpoint.wait_for_event("engine.back", &[]);
    load.go_on_for(100);
    load.stop().assert_clean(300);
    untouched(&setpoint, &before);
}

#[test]
fn a_health_command_that_does_not_end_is_ended_and_counts() {
    let Some(engine) = Engine::shared() else { return };
    let setpoint = setpoint(&engine).manifest(&stays(&image(&engine, "v1"))).start();
    setpoint.wait_for_service("web", "the command's time is over", is_over_its_time);
    no_more_than_one_runs(&engine, &container(&setpoint, &engine, 0));
}

/// An engine under load begins what it was asked for long after, also what nobody waits for any more.
#[test]
fn a_health_command_that_the_engine_begins_late_is_ended_and_does_not_count() {
    let Some(engine) = Engine::shared() else { return };
    let wire = Wire::to(engine.api());
    let setpoint = setpoint_over(&wire).manifest(&stays(&image(&engine, "v1"))).start();
    setpoint.wait_for_service("web", "the command is tried", is_over_its_time);
    wire.delay("/start");
    let told = |web: &serde_json::Value| {
        let message = web["instances"][0]["message"].as_str().unwrap_or_default();
        message.contains("the engine did not begin the health command")
    };
    setpoint.wait_for_service("web", "it is told that the engine has not begun it", told);
    wire.delay_no_more();
    no_more_than_one_runs(&engine, &container(&setpoint, &engine, 0));
}

fn is_over_its_time(web: &serde_json::Value) -> bool {
    web["instances"][0]["message"].as_str().is_some_and(|message| message.contains("did not end within"))
}

/// A service whose health command never ends.
fn stays(app: &str) -> String {
    let health = "health: { readiness: { exec: [/app, stay], interval: 200ms, timeout: 300ms } }";
    web(app, 1, "").replace("health: /healthz", health)
}

/// Whenever one looks there is the service itself, and at most the command that is being tried.
fn no_more_than_one_runs(engine: &Engine, id: &str) {
    let running = || engine.docker(&["top", id]).lines().skip(1).count();
    for _ in 0..5 {
        testkit::until("one of them is seen", testkit::setpoint::SOON, || (running() == 2).then_some(()));
        testkit::until("it is ended", testkit::setpoint::SOON, || (running() == 1).then_some(()));
    }
}

#[test]
fn a_container_that_dies_while_the_engine_is_away_is_unknown_and_not_replaced() {
    let Some(mut engine) = Engine::own() else { return };
    let app = image(&engine, "v1");
    let setpoint = setpoint(&engine).manifest(&web(&app, 2, "restart: { attempts: 20 }")).start();
    let before = setpoint.wait_until_converged("web");
    let load = setpoint.load("web.localhost", "/").rate(100).start();
    engine.kill9();
    let pid = u32::try_from(before["instances"][0]["pid"].as_u64().unwrap()).unwrap();
    testkit::proc::kill9(pid);
    let unknown = |web: &serde_json::Value| web["instances"][0]["state"] == "unknown";
    let meanwhile = setpoint.wait_for_service("web", "it is unknown", unknown);
    assert_eq!(meanwhile["instances"].as_array().unwrap().len(), 2, "nothing is placed beside it");
    load.go_on_for(50);
    let report = load.stop();
    // A request that was being answered by what was killed cannot be saved; the other answers all others.
    assert!(report.failures().len() <= 2, "{report}");
    engine.start();
    let again = |web: &serde_json::Value| web["state"] == "converged" && web["replicas"]["ready"] == 2;
    setpoint.wait_for_service("web", "both serve again", again);
}

#[test]
fn an_engine_that_is_restarted_in_order_gets_its_containers_back() {
    let Some(mut engine) = Engine::own() else { return };
    let setpoint = setpoint(&engine).manifest(&with_calm(&image(&engine, "v1"))).start();
    setpoint.wait_until_converged("calm");
    let before = setpoint.wait_until_converged("web");
    let [load, calm] =
        ["web.localhost", "calm.localhost"].map(|host| setpoint.load(host, "/").rate(100).start());
    load.go_on_for(50);
    let ends = so_far(&load);
    engine.stop();
    engine.start();
    let after = wait_until_both_serve(&setpoint);
    for slot in 0..2 {
        assert_eq!(before["instances"][slot]["id"], after["instances"][slot]["id"]);
    }
    assert_eq!(engine.docker(&["ps", "-aq"]).lines().count(), 2);
    assert_missing_since(load, ends);
    calm.stop().assert_clean(200);
}

/// An engine gives addresses anew when it starts. What leads to a container follows it: the routes, and the names inside its
/// network.
#[test]
fn whatever_address_a_restarted_engine_gives_everything_leads_to_it() {
    let Some(mut engine) = Engine::own() else { return };
    let app = image(&engine, "v1");
    let setpoint = setpoint(&engine).manifest(&web(&app, 2, "restart: { attempts: 20 }")).start();
    let before = setpoint.wait_until_converged("web");
    let address =
        |web: &serde_json::Value, slot: usize| web["instances"][slot]["address"].as_str().unwrap().to_owned();
    let ours = container(&setpoint, &engine, 0);
    let network = engine.inspect(&ours, "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}");
    engine.docker(&[
        "run",
        "-d",
        "--restart",
        "always",
        "--network",
        &network,
        "--name",
        "other",
        &app,
        "other",
    ]);
    engine.stop();
    engine.start();
    // It comes with the engine itself, and takes the first address.
    let again = |web: &serde_json::Value| web["state"] == "converged" && web["replicas"]["ready"] == 2;
    let after = setpoint.wait_for_service("web", "both serve again", again);
    assert!((0..2).any(|slot| address(&before, slot) != address(&after, slot)), "{before:#} {after:#}");
    for slot in 0..2 {
        let (id, at) = (&after["instances"][slot]["id"], address(&after, slot));
        assert_eq!(before["instances"][slot]["id"], *id, "it is the same instance");
        let ip = at.split(':').next().unwrap();
        let resolved = || setpoint.get("web.localhost", &format!("/resolve?web-{slot}")).text();
        testkit::until("its name leads to it", testkit::setpoint::SOON, || (resolved() == ip).then_some(()));
    }
    let mut served = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let answer = setpoint.get("web.localhost", "/instance");
        assert_eq!(answer.status, 200);
        served.insert(answer.text());
    }
    let placed: std::collections::BTreeSet<String> =
        (0..2).map(|slot| after["instances"][slot]["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(served, placed, "both are led to, and nobody else");
}

#[test]
fn without_an_engine_a_container_is_refused_and_everything_else_goes_on() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let manifest = testkit::fixture::demo(1, &[], testkit::fixture::QUICK);
    let setpoint =
        crate::setpoint(&engine).env("DOCKER_HOST", "unix:///nonexistent/s").manifest(&manifest).start();
    setpoint.wait_until_converged("api");
    let output = setpoint.apply(&web(&app, 1, ""), &[]);
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains("/nonexistent/s") && output.stderr.contains("DOCKER_HOST"), "{output:?}");
    setpoint.wait_until_converged("api");
}

#[test]
fn setpoint_killed_at_any_moment_adopts_its_containers() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let mut setpoint = setpoint(&engine).manifest(&web(&app, 2, "")).start();
    let before = setpoint.wait_until_converged("web");
    let ids = [0, 1].map(|slot| container(&setpoint, &engine, slot));
    setpoint.kill9();
    setpoint.restart();
    let after = setpoint.wait_until_converged("web");
    for slot in 0..2 {
        assert_eq!(before["instances"][slot]["pid"], after["instances"][slot]["pid"]);
        assert_eq!(after["instances"][slot]["restarts"], 0);
        assert_eq!(container(&setpoint, &engine, slot), ids[slot]);
    }
}

#[test]
fn what_somebody_did_while_the_engine_was_out_of_reach_is_undone_when_it_is_not() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let wire = Wire::to(engine.api());
    let more = "resources: { memory: 64MiB }\nrestart: { attempts: 20 }";
    let setpoint = crate::setpoint_over(&wire).manifest(&web(&app, 2, more)).start();
    let before = setpoint.wait_until_converged("web");
    let [first, second] = [0, 1].map(|slot| container(&setpoint, &engine, slot));
    let name = engine.inspect(&second, "{{.Name}}");
    let load = setpoint.load("web.localhost", "/").rate(100).start();
    wire.cut();
    setpoint.wait_for_event("engine.away", &[]);
    engine.docker(&["update", "--memory", "100m", "--memory-swap", "200m", &first]);
    engine.docker(&["rename", &second, &format!("x{}", &second[..12])]);
    load.go_on_for(50);
    wire.mend();
    setpoint.wait_for_event("engine.back", &[]);
    setpoint.wait_for_event("drift.corrected", &["container/memory"]);
    setpoint.wait_for_event("drift.corrected", &["container/name"]);
    let after = setpoint.wait_until_converged("web");
    assert_eq!(engine.inspect(&first, "{{.HostConfig.Memory}}"), "67108864");
    assert_eq!(engine.inspect(&second, "{{.Name}}"), name);
    assert_eq!(testkit::setpoint::pids(&after), testkit::setpoint::pids(&before), "nobody was disturbed");
    load.stop().assert_clean(100);
}

#[test]
fn a_container_that_was_removed_while_the_engine_was_out_of_reach_is_made_anew_in_its_place() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let wire = Wire::to(engine.api());
    let setpoint = crate::setpoint_over(&wire).manifest(&web(&app, 2, "restart: { attempts: 20 }")).start();
    let before = setpoint.wait_until_converged("web");
    let load = setpoint.load("web.localhost", "/").rate(100).start();
    load.go_on_for(10);
    wire.cut();
    setpoint.wait_for_event("engine.away", &[]);
    engine.docker(&["rm", "-f", &container(&setpoint, &engine, 0)]);
    let unknown = |web: &serde_json::Value| web["instances"][0]["state"] == "unknown";
    setpoint.wait_for_service("web", "how it ended is unknown", unknown);
    load.go_on_for(50);
    wire.mend();
    let again = |web: &serde_json::Value| web["state"] == "converged" && web["replicas"]["ready"] == 2;
    let after = setpoint.wait_for_service("web", "both serve again", again);
    for slot in 0..2 {
        assert_eq!(after["instances"][slot]["id"], before["instances"][slot]["id"]);
    }
    assert_eq!(after["instances"][1]["pid"], before["instances"][1]["pid"], "the other was not touched");
    // A request that was being answered by what was removed cannot be saved; all others are.
    let report = load.stop();
    assert!(report.failures().len() <= 2, "{:?}", report.words());
}

#[test]
fn an_engine_whose_socket_is_gone_is_waited_for_and_nothing_is_made_twice() {
    let Some(engine) = Engine::options().live_restore().start() else { return };
    let app = image(&engine, "v1");
    let mut setpoint = setpoint(&engine).manifest(&web(&app, 2, "restart: { attempts: 20 }")).start();
    let before = setpoint.wait_until_converged("web");
    engine.hide_socket();
    setpoint.kill9();
    setpoint.restart();
    let load = setpoint.load("web.localhost", "/").rate(100).start();
    setpoint.wait_for_service("web", "it is told where the engine was looked for", |web| {
        web["instances"][0]["message"].as_str().is_some_and(|told| told.contains("there is no socket at"))
    });
    let asked = setpoint.cli(&["scale", "web", "3"]);
    assert_eq!(asked.code, 0, "{asked:?}");
    load.go_on_for(50);
    engine.show_socket();
    let three = |web: &serde_json::Value| web["state"] == "converged" && web["replicas"]["ready"] == 3;
    let after = setpoint.wait_for_service("web", "the third came", three);
    assert_eq!(testkit::setpoint::pids(&after)[..2], testkit::setpoint::pids(&before), "they live on");
    assert_eq!(engine.docker(&["ps", "-aq"]).lines().count(), 3);
    load.stop().assert_clean(100);
}

#[test]
fn containers_that_live_on_without_their_engine_are_adopted_when_it_is_back() {
    let Some(mut engine) = Engine::options().live_restore().start() else { return };
    let app = image(&engine, "v1");
    let setpoint = setpoint(&engine).manifest(&web(&app, 2, "restart: { attempts: 20 }")).start();
    let before = setpoint.wait_until_converged("web");
    let load = setpoint.load("web.localhost", "/").rate(100).start();
    for kill in [false, true] {
        if kill {
            engine.kill9();
        } else {
            engine.stop();
        }
        setpoint.wait_for_service("web", "the engine is away", |web| {
            web["instances"][0]["message"].as_str().is_some_and(|told| told.contains("does not answer"))
        });
        load.go_on_for(50);
        engine.start();
        let back = |web: &serde_json::Value| (0..2).all(|slot| web["instances"][slot]["message"] == "");
        let after = setpoint.wait_for_service("web", "the engine is back", back);
        assert_eq!(after["instances"], before["instances"], "killed: {kill}");
        assert_eq!(engine.docker(&["ps", "-aq"]).lines().count(), 2);
    }
    // And are held as before.
    engine.docker(&["kill", &container(&setpoint, &engine, 0)]);
    let restarted =
        |web: &serde_json::Value| web["instances"][0]["restarts"] == 1 && web["state"] == "converged";
    setpoint.wait_for_service("web", "it is started again", restarted);
    let report = load.stop();
    assert!(report.failures().len() <= 2, "{:?}", report.words());
}
