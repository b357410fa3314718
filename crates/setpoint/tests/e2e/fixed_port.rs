//! A port that is declared by its number: one instance at a time has it, and somebody else may.

use std::net::TcpListener;

use testkit::{
    Setpoint,
    fixture::{QUICK, demo},
    setpoint::{SOON, free_port, pids},
};

use crate::setpoint;

const VERSION: &str = "/env?name=VERSION";

fn version(port: u16, version: &str) -> String {
    demo(1, &[("VERSION", version)], &format!("{QUICK}\nport: {port}"))
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// The order in which instances started and were gone.
fn coming_and_going(setpoint: &Setpoint) -> Vec<(String, String)> {
    let events = setpoint.events().into_iter();
    let of_interest = events.filter(|e| e["kind"] == "instance.started" || e["kind"] == "instance.gone");
    let word = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    of_interest.map(|event| (word(&event["instance"]), word(&event["kind"]))).collect()
}

#[test]
fn an_update_has_the_gap_that_plan_tells_of_and_no_request_ends_otherwise() {
    let port = free_port().port();
    let setpoint = setpoint().manifest(&version(port, "v1")).start();
    let first = setpoint.wait_until_converged("api");
    assert_eq!(first["instances"][0]["address"], address(port));
    testkit::fixture::folder(&setpoint.work(), &[("next.yaml", &version(port, "v2"))]);
    let planned = setpoint.cli(&["plan", "-f", "next.yaml"]);
    let gap = format!("port {port} is held by the old instance until it has ended");
    assert!(format!("{}{}", planned.stdout, planned.stderr).contains(&gap), "{planned:?}");

    let load = setpoint.load("api.localhost", VERSION).check(|response| match response.status {
        200 => Ok(response.text().trim().to_owned()),
        503 => Ok("nobody".into()),
        status => Err(format!("{status}: {}", response.text())),
    });
    let load = load.start();
    load.go_on_for(20);
    let edge = setpoint.edge();
    let slow = std::thread::spawn(move || {
        testkit::http::send(edge, testkit::http::Request::new("GET", "api.localhost", "/slow?ms=700"))
    });
    testkit::until("a long request is on its way", SOON, || {
        let metrics = setpoint.ask("GET", "/metrics", None).text();
        let in_flight = |line: &&str| line.starts_with("setpoint_edge_requests_in_flight");
        let count = metrics.lines().find(in_flight)?.rsplit(' ').next()?.parse::<f64>().ok()?;
        (count >= 1.0).then_some(())
    });
    for next in ["v2", "v3"] {
        setpoint.apply_ok(&version(port, next), &["--wait"]);
        assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), next);
    }
    assert_eq!(slow.join().unwrap().unwrap().text(), "700 ms\n", "what was begun is answered by who began");
    load.go_on_for(20);
    let report = load.stop();
    report.assert_clean(50);
    let mut served: Vec<_> = report.sequence().into_iter().filter(|word| *word != "nobody").collect();
    served.dedup();
    assert_eq!(served, ["v1", "v2", "v3"]);
    let last = setpoint.wait_until_converged("api");
    assert_eq!(last["instances"][0]["address"], address(port));
    let told = coming_and_going(&setpoint);
    let alternates = told.chunks(2).all(|pair| match pair {
        [(a, started), (b, gone)] => a == b && started == "instance.started" && gone == "instance.gone",
        [(_, started)] => started == "instance.started",
        _ => false,
    });
    assert!(alternates && told.len() == 5, "never two at once: {told:?}");

    let scaled = setpoint.cli(&["scale", "api", "2"]);
    assert_eq!(scaled.code, 1, "{scaled:?}");
    assert!(scaled.stderr.contains(&port.to_string()), "{scaled:?}");
}

#[test]
fn a_port_that_somebody_else_has_is_named_with_what_to_do_and_taken_once_it_is_free() {
    let somebody = TcpListener::bind(free_port()).unwrap();
    let port = somebody.local_addr().unwrap().port();
    let setpoint = setpoint().manifest(&version(port, "v1")).start();
    let said = format!("port {port} at 127.0.0.1 is taken by another program: end it (`ss -ltnp");
    setpoint.wait_for_service("api", "it says that the port is taken", |api| {
        api["message"].as_str().unwrap().contains(&said)
            && api["message"].as_str().unwrap().contains("or declare another port")
    });
    let explained = setpoint.ok(&["explain", "api"]);
    assert!(explained.contains(&said), "{explained}");
    assert_eq!(setpoint.get("api.localhost", "/").status, 503);
    assert_eq!(setpoint.workloads(), [], "nothing is started without it");
    drop(somebody);
    let api = setpoint.wait_until_converged("api");
    assert_eq!((&api["instances"][0]["restarts"], api["message"].as_str()), (&0.into(), Some("")));
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "v1");
    assert_eq!(setpoint.deployments("api").len(), 1);
}

#[test]
fn a_port_that_somebody_takes_between_two_runs_costs_no_attempt() {
    let slow = demo(1, &[("BOOT_DELAY_MS", "1500")], &format!("{QUICK}\nport: {}", free_port().port()));
    let setpoint = setpoint().manifest(&slow).start();
    let first = setpoint.wait_until_converged("api");
    let address = first["instances"][0]["address"].as_str().unwrap().to_owned();
    testkit::proc::kill9(pids(&first)[0]);
    // Before the next one listens.
    let somebody = testkit::until("the port is free", SOON, || TcpListener::bind(&address).ok());
    setpoint.wait_for_service("api", "it waits for its port", |api| {
        let message = api["message"].as_str().unwrap();
        message.contains("taken by another program") && api["instances"][0]["pid"].is_null()
    });
    drop(somebody);
    let after = setpoint.wait_until_converged("api");
    assert_eq!(
        (&after["instances"][0]["id"], &after["instances"][0]["restarts"]),
        (&first["instances"][0]["id"], &1.into())
    );
    assert_eq!(after["instances"][0]["address"], address);
}

#[test]
fn another_port_can_be_declared_instead_of_one_that_is_taken() {
    let somebody = TcpListener::bind(free_port()).unwrap();
    let (taken, free) = (somebody.local_addr().unwrap().port(), free_port().port());
    let setpoint = setpoint().manifest(&version(taken, "v1")).start();
    setpoint.wait_for_service("api", "it says that the port is taken", |api| {
        api["message"].as_str().unwrap().contains("taken by another program")
    });
    setpoint.apply_ok(&version(free, "v2"), &["--wait"]);
    let api = setpoint.wait_until_converged("api");
    assert_eq!(api["instances"][0]["address"], address(free));
    let told: Vec<_> = setpoint.deployments("api").iter().map(|d| d["status"].clone()).collect();
    assert_eq!(told, ["active", "cancelled"]);
    assert_eq!(setpoint.workloads().len(), 1);
}

#[test]
fn a_release_whose_port_is_taken_fails_and_the_earlier_one_is_back() {
    let somebody = TcpListener::bind(free_port()).unwrap();
    let (taken, free) = (somebody.local_addr().unwrap().port(), free_port().port());
    let setpoint = setpoint().manifest(&version(free, "v1")).start();
    setpoint.wait_until_converged("api");
    let bad = version(taken, "v2").replace("drain: 5s", "drain: 5s, deadline: 2s");
    let output = setpoint.apply(&bad, &["--wait=60s"]);
    assert_eq!(output.code, 1, "{output:?}");
    let deployments = setpoint.deployments("api");
    let error = deployments[1]["metadata"]["error"].as_str().unwrap();
    assert!(error.contains(&format!("port {taken}")), "it says what was in the way: {error}");
    let told: Vec<_> = deployments.iter().map(|d| d["status"].clone()).collect();
    assert_eq!(told, ["active", "failed", "superseded"]);
    let api = setpoint.wait_until_state("api", "degraded");
    assert_eq!(
        (&api["instances"][0]["address"], &api["replicas"]["ready"]),
        (&address(free).into(), &1.into())
    );
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "v1");
    assert_eq!(setpoint.workloads().len(), 1);
}
