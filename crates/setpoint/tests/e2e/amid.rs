//! Commands in the middle of a deployment, in each phase that lasts: whatever is asked for, everything comes to rest,
//! each deployment has one outcome, and nothing is left over.

use std::fs;

use serde_json::Value;
use testkit::{
    Setpoint,
    fixture::{demo, script, versioned_site},
    setpoint::{SOON, find},
};

use crate::setpoint;

const VERSION: &str = "/env?name=VERSION";

#[derive(Debug, Clone, Copy, PartialEq)]
enum Command {
    Cancel,
    Scale,
    Stop,
    Start,
    Restart,
    Rollback,
    Delete,
}

use Command::{Cancel, Delete, Restart, Rollback, Scale, Start, Stop};

impl Command {
    /// Given in the middle of the deployment that is open.
    fn give(self, setpoint: &Setpoint, service: &str) {
        let open = setpoint.service(service)["deployment"]["id"].as_str().unwrap().to_owned();
        match self {
            Cancel => setpoint.ok(&["cancel", &open]),
            Scale => setpoint.ok(&["scale", service, "3"]),
            Stop => setpoint.ok(&["stop", service]),
            Start => setpoint.ok(&["start", service]),
            Restart => setpoint.ok(&["restart", service]),
            Rollback => setpoint.ok(&["rollback", service]),
            Delete => setpoint.ok(&["delete", service]),
        };
    }

    /// Of each deployment, the newest first, once all is at rest.
    fn outcomes(self) -> &'static [&'static str] {
        match self {
            // A stop ends what is open; the start after it begins anew.
            Cancel | Rollback | Stop => &["active", "cancelled", "superseded"],
            Scale | Start | Restart => &["active", "superseded"],
            Delete => &[],
        }
    }

    fn serves(self) -> &'static str {
        if matches!(self, Cancel | Rollback) { "v1" } else { "v2" }
    }
}

/// The ends that are told of each deployment that began, the oldest first; `superseded` and `rolled_back` come after an
/// end that was good.
fn ends(setpoint: &Setpoint) -> Vec<Vec<String>> {
    let mut ends: Vec<(String, Vec<String>)> = Vec::new();
    for event in setpoint.events() {
        let kind = event["kind"].as_str().unwrap();
        let Some(word) = kind.strip_prefix("deployment.") else { continue };
        let id = event["deployment"].as_str().unwrap();
        if !ends.iter().any(|(known, _)| known == id) {
            ends.push((id.to_owned(), Vec::new()));
        }
        if ["active", "failed", "cancelled"].contains(&word) {
            ends.iter_mut().filter(|(known, _)| known == id).for_each(|(_, ends)| ends.push(word.to_owned()));
        }
    }
    ends.into_iter().map(|(_, ends)| ends).collect()
}

/// Exactly one end for each deployment that began.
#[track_caller]
fn assert_each_ended_once(setpoint: &Setpoint) {
    let ends = ends(setpoint);
    assert!(ends.iter().all(|ends| ends.len() == 1), "{ends:#?}");
}

/// Of what was deleted only its events are left: what was open had not become active.
#[track_caller]
fn assert_open_was_cancelled(setpoint: &Setpoint) {
    assert_eq!(ends(setpoint), [["active"], ["cancelled"]]);
}

/// What was open ends with the stop, not with what comes after it.
#[track_caller]
fn assert_stop_cancelled(setpoint: &Setpoint, service: &str) {
    assert_eq!(statuses(&setpoint.deployments(service)), ["cancelled", "active"]);
}

/// The same deployments, instances and states after further passes.
#[track_caller]
fn assert_at_rest(setpoint: &Setpoint, service: &str) {
    let look = || {
        let shown = setpoint.service(service);
        (shown["state"].clone(), shown["instances"].clone(), setpoint.deployments(service))
    };
    let before = look();
    setpoint.ok(&["reconcile"]);
    setpoint.ok(&["reconcile"]);
    assert_eq!(look(), before, "at rest nothing changes");
}

fn statuses(deployments: &[Value]) -> Vec<&str> {
    deployments.iter().map(|d| d["status"].as_str().unwrap()).collect()
}

/// The first instance of the second release is there at once, the second takes its time.
fn second_is_slow(setpoint: &Setpoint) -> String {
    let run = setpoint.work().join("run");
    let once = setpoint.work().join("once");
    script(&run, &format!("mkdir {} 2>/dev/null || sleep 2\nexec \"$1\" demo-app", once.display()));
    demo(2, &[("VERSION", "v2")], "deploy: { min_healthy: 100ms, drain: 5s }\nstop: { grace: 2s }")
        .replace("[\"${SETPOINT}\", demo-app]", &format!("[{}, \"${{SETPOINT}}\"]", run.display()))
}

fn held_for_long(_: &Setpoint) -> String {
    demo(2, &[("VERSION", "v2")], "deploy: { min_healthy: 2s, drain: 5s }\nstop: { grace: 2s }")
}

fn process_in(phase: &str, next: fn(&Setpoint) -> String, command: Command) {
    eprintln!("── {command:?} in {phase}");
    let first =
        demo(2, &[("VERSION", "v1")], "deploy: { min_healthy: 100ms, drain: 5s }\nstop: { grace: 2s }");
    let setpoint = setpoint().manifest(&first).start();
    setpoint.wait_until_converged("api");
    let load = setpoint.load("api.localhost", VERSION).rate(100).start();
    setpoint.apply_ok(&next(&setpoint), &[]);
    setpoint.wait_for_service("api", "the second deployment is in that phase", |api| {
        api["deployment"]["number"] == 2 && api["deployment"]["phase"] == phase
    });
    let before = setpoint.workloads();
    command.give(&setpoint, "api");
    if command == Delete {
        drop(load);
        setpoint
            .wait_for("nothing is left of it", SOON, |status| find(status, "api").is_none().then_some(()));
        assert_eq!(setpoint.workloads(), []);
        let left = fs::read_dir(setpoint.data().join("node/instances")).unwrap().count();
        assert_eq!(left, 0);
        assert_open_was_cancelled(&setpoint);
        return;
    }
    if command == Stop {
        drop(load);
        setpoint.wait_until_state("api", "stopped");
        assert_stop_cancelled(&setpoint, "api");
        assert_eq!(setpoint.workloads(), []);
        setpoint.ok(&["start", "api"]);
    } else {
        // It serves throughout.
        settle(&setpoint, "api", command);
        load.go_on_for(10);
        load.stop().assert_clean(20);
    }
    settle(&setpoint, "api", command);
    let replicas = if command == Scale { 3 } else { 2 };
    testkit::until("as many run as are declared", SOON, || {
        (setpoint.workloads().len() == replicas).then_some(())
    });
    assert_eq!(setpoint.service("api")["replicas"]["ready"], replicas);
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), command.serves());
    if command == Restart {
        let after = setpoint.workloads();
        let stayed: Vec<_> =
            after.iter().filter(|now| before.iter().any(|then| then.pid == now.pid)).collect();
        assert!(stayed.is_empty(), "each that ran is replaced: {stayed:?}");
    }
    assert_eq!(statuses(&setpoint.deployments("api")), command.outcomes());
    assert_each_ended_once(&setpoint);
    assert_at_rest(&setpoint, "api");
}

/// Nothing is open any more. What was cancelled leaves a service that is not what was declared last.
fn settle(setpoint: &Setpoint, service: &str, command: Command) {
    setpoint.wait_for_service(service, &format!("it is at rest after {command:?}"), |shown| {
        let state = shown["state"].as_str().unwrap();
        let rest = state == "converged" || (command == Cancel && state == "degraded");
        rest && shown["deployment"]["phase"] == "active"
    });
}

/// What lets the second release go on, and what takes it away.
const ONWARD: [Command; 3] = [Scale, Start, Restart];
const AWAY: [Command; 4] = [Cancel, Stop, Rollback, Delete];

#[test]
fn what_goes_on_while_routes_are_updated_comes_to_rest() {
    ONWARD.into_iter().for_each(|command| process_in("updating_routes", second_is_slow, command));
}

#[test]
fn what_ends_it_while_routes_are_updated_comes_to_rest() {
    AWAY.into_iter().for_each(|command| process_in("updating_routes", second_is_slow, command));
}

#[test]
fn what_goes_on_while_a_release_is_held_comes_to_rest() {
    ONWARD.into_iter().for_each(|command| process_in("health_check", held_for_long, command));
}

#[test]
fn what_ends_it_while_a_release_is_held_comes_to_rest() {
    AWAY.into_iter().for_each(|command| process_in("health_check", held_for_long, command));
}

const SITE: &str = "services:\n  docs:\n    static: ./site\n    domains: [docs.localhost]\n";

/// A site of the second release that is under way when this comes back: at once after the answer, or where the edge
/// does not tell that it serves it.
fn site_in(until_edge: bool, command: Command) {
    eprintln!("── {command:?} of a site, until the edge tells: {until_edge}");
    let files = if until_edge { 5 } else { 300 };
    let builder = if until_edge { setpoint().edge_apart() } else { setpoint() };
    versioned_site(&builder.work().join("site"), "v1", files);
    let mut setpoint = builder.start();
    setpoint.apply_ok(SITE, &["--wait"]);
    versioned_site(&setpoint.work().join("site"), "v2", files);
    if until_edge {
        setpoint.kill9_edge();
        setpoint.ok(&["deploy", "docs", "site"]);
        setpoint.wait_for_service("docs", "it waits for the edge", |docs| {
            docs["deployment"]["number"] == 2 && docs["deployment"]["phase"] == "updating_routes"
        });
    } else {
        setpoint.ok(&["deploy", "docs", "site"]);
    }
    command.give(&setpoint, "docs");
    if until_edge {
        setpoint.start_edge().unwrap();
    }
    if command == Delete {
        setpoint
            .wait_for("nothing is left of it", SOON, |status| find(status, "docs").is_none().then_some(()));
        assert!(!setpoint.data().join("sites/default/docs").exists());
        assert_open_was_cancelled(&setpoint);
        return;
    }
    if command == Stop {
        setpoint.wait_until_state("docs", "stopped");
        assert_stop_cancelled(&setpoint, "docs");
        setpoint.ok(&["start", "docs"]);
    }
    settle(&setpoint, "docs", command);
    testkit::until("the edge serves the right one", SOON, || {
        let page = setpoint.try_get("docs.localhost", "/").ok()?;
        (page.status == 200 && page.text() == command.serves()).then_some(())
    });
    let current = setpoint.data().join("sites/default/docs/current");
    let last = fs::read_to_string(current.join(format!("part/{}.txt", files - 1))).unwrap();
    assert_eq!(last, format!("{} {}\n", command.serves(), files - 1));
    assert_eq!(statuses(&setpoint.deployments("docs")), command.outcomes());
    assert_each_ended_once(&setpoint);
    assert_at_rest(&setpoint, "docs");
    setpoint.ok(&["delete", "docs", "--wait"]);
}

#[test]
fn what_goes_on_while_a_site_is_copied_comes_to_rest() {
    [Start, Restart].into_iter().for_each(|command| site_in(false, command));
}

#[test]
fn what_ends_it_while_a_site_is_copied_comes_to_rest() {
    AWAY.into_iter().for_each(|command| site_in(false, command));
}

#[test]
fn whatever_is_asked_for_while_a_site_waits_for_its_edge_comes_to_rest() {
    [Start, Restart].into_iter().chain(AWAY).for_each(|command| site_in(true, command));
}
