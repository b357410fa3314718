//! `setpoint server` beside `setpoint edge`: the server's end costs no request and no workload.

use testkit::{
    Setpoint,
    fixture::{QUICK, demo},
    proc,
    setpoint::{SOON, pids},
};

use crate::setpoint;

const VERSION: &str = "/env?name=VERSION";

fn version(version: &str) -> String {
    demo(2, &[("VERSION", version)], QUICK)
}

fn started() -> Setpoint {
    let setpoint = setpoint().edge_apart().start();
    setpoint.apply_ok(&version("v1"), &["--wait"]);
    setpoint.wait_until_converged("api");
    testkit::until("the edge serves it", SOON, || {
        (setpoint.try_get("api.localhost", VERSION).ok()?.status == 200).then_some(())
    });
    setpoint
}

#[test]
fn traffic_goes_on_while_the_server_is_killed_and_comes_back() {
    let mut setpoint = started();
    let before = pids(&setpoint.service("api"));
    let load = setpoint.load("api.localhost", VERSION).start();
    load.go_on_for(50);
    setpoint.kill9();
    load.go_on_for(100);
    assert!(before.iter().all(|pid| proc::is_alive(*pid)));
    setpoint.restart();
    let after = setpoint.wait_until_converged("api");
    assert_eq!(pids(&after), before);
    load.go_on_for(50);
    load.stop().assert_clean(200);
    setpoint.ok(&["delete", "api", "--wait"]);
}

#[test]
fn an_update_through_an_edge_apart_costs_no_request() {
    let setpoint = started();
    let load = setpoint.load("api.localhost", VERSION).start();
    setpoint.apply_ok(&version("v2"), &["--wait"]);
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "v2");
    load.go_on_for(10);
    load.stop().assert_clean(50);
    setpoint.ok(&["delete", "api", "--wait"]);
}

#[test]
fn an_edge_that_starts_without_a_server_serves_its_last_table() {
    let mut setpoint = started();
    setpoint.kill9();
    setpoint.kill9_edge();
    setpoint.start_edge().unwrap();
    testkit::until("it serves what it knew", SOON, || {
        (setpoint.try_get("api.localhost", VERSION).ok()?.status == 200).then_some(())
    });
    setpoint.restart();
    setpoint.wait_until_converged("api");
    setpoint.ok(&["delete", "api", "--wait"]);
}

#[test]
fn a_second_edge_on_the_same_folder_is_refused_and_the_first_goes_on() {
    let setpoint = started();
    let socket = setpoint.data().join("edge/events.sock");
    let before = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&socket).unwrap());
    let second = setpoint.cli(&["edge", "--edge", "127.0.0.1:0"]);
    assert_eq!((second.code, second.stdout.as_str()), (1, ""), "{second:?}");
    assert!(
        second.stderr.contains(setpoint.data().to_str().unwrap()),
        "it names the folder: {}",
        second.stderr
    );
    assert!(second.stderr.contains("stop that one"), "it says what to do: {}", second.stderr);
    let after = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&socket).unwrap());
    assert_eq!(before, after, "the first one hears by its own socket");
    assert_eq!(setpoint.get("api.localhost", VERSION).status, 200);
    setpoint.ok(&["delete", "api", "--wait"]);
}

#[test]
fn the_end_of_a_server_stops_no_workload() {
    let mut setpoint = started();
    let before = pids(&setpoint.service("api"));
    let status = setpoint.terminate();
    assert!(status.success(), "{status}");
    assert!(before.iter().all(|pid| proc::is_alive(*pid)));
    setpoint.restart();
    assert_eq!(pids(&setpoint.wait_until_converged("api")), before);
    setpoint.ok(&["delete", "api", "--wait"]);
}

#[test]
fn an_edge_that_is_killed_costs_what_was_in_flight_and_nothing_else() {
    let mut setpoint = started();
    let before = pids(&setpoint.service("api"));
    for round in 1..=3 {
        setpoint.kill9_edge();
        // The rest does not need it: a death is healed and a release goes out while there is no edge.
        let victim = pids(&setpoint.service("api"))[0];
        proc::kill9(victim);
        setpoint.wait_for_service("api", "it is healed without an edge", |api| {
            api["replicas"]["ready"] == 2 && !pids(api).contains(&victim)
        });
        setpoint.start_edge().unwrap();
        testkit::until("it serves again", SOON, || {
            (setpoint.try_get("api.localhost", VERSION).ok()?.status == 200).then_some(())
        });
        let load = setpoint.load("api.localhost", VERSION).start();
        let next = format!("r{round}");
        setpoint.apply_ok(&version(&next), &["--wait"]);
        load.go_on_for(20);
        load.stop().assert_clean(20);
        assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), next);
    }
    let after = pids(&setpoint.wait_until_converged("api"));
    assert!(after.iter().all(|pid| !before.contains(pid)));
    assert_eq!(setpoint.workloads().len(), 2);
    setpoint.ok(&["delete", "api", "--wait"]);
}

#[test]
fn a_release_goes_out_while_the_edge_is_dead_and_is_served_once_it_is_back() {
    let mut setpoint = started();
    setpoint.kill9_edge();
    setpoint.apply_ok(&version("v2"), &[]);
    setpoint.wait_for_service("api", "the new release is on its way", |api| {
        api["deployment"]["number"] == 2 && api["deployment"]["phase"] != "queued"
    });
    setpoint.start_edge().unwrap();
    let api = setpoint.wait_for("the new release serves", SOON * 3, |status| {
        testkit::setpoint::find(status, "api").filter(|api| api["state"] == "converged").cloned()
    });
    assert_eq!((&api["deployment"]["number"], &api["deployment"]["phase"]), (&2.into(), &"active".into()));
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "v2");
    setpoint.ok(&["delete", "api", "--wait"]);
}
