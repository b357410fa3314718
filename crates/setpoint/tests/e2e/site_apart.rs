//! A site through `setpoint edge`: readers notice neither its switches nor the server's death.

use std::{fs, os::unix::fs::MetadataExt};

use testkit::{Load, Setpoint, setpoint::SOON};

use crate::setpoint;

const SITE: &str = "services:\n  docs:\n    static: ./site\n    domains: [docs.localhost]\n    retain: 2\n";
/// Long enough that a reader who saw two versions in one answer would show it.
const LENGTH: usize = 30_000;

fn write(setpoint: &Setpoint, version: &str) {
    let page = version.repeat(LENGTH);
    testkit::fixture::folder(&setpoint.work().join("site"), &[("index.html", &page)]);
}

/// The one letter of which an answer is made.
fn version(response: &testkit::Response) -> Result<String, String> {
    let first = response.body.first().copied().unwrap_or(b'?');
    let whole = response.body.len() == LENGTH && response.body.iter().all(|byte| *byte == first);
    match (response.status, whole) {
        (200, true) => Ok(char::from(first).to_string()),
        (status, _) => Err(format!("{status} with {} bytes, not of one version", response.body.len())),
    }
}

fn started() -> Setpoint {
    let setpoint = setpoint().edge_apart().start();
    write(&setpoint, "a");
    setpoint.apply_ok(SITE, &["--wait"]);
    testkit::until("the edge serves it", SOON, || {
        (version(&setpoint.try_get("docs.localhost", "/").ok()?).ok()? == "a").then_some(())
    });
    setpoint
}

fn loads(setpoint: &Setpoint) -> [Load; 2] {
    let kept = setpoint.load("docs.localhost", "/").rate(100).check(version).start();
    let closing = setpoint.load("docs.localhost", "/index.html").rate(50).closing().check(version).start();
    kept.go_on_for(20);
    [kept, closing]
}

/// None failed, the first and the last answers are of these versions, and each version was read. Around a switch
/// answers overtake each other, so that their order says nothing.
#[track_caller]
fn assert_read(loads: [Load; 2], expected: &[&str]) {
    for load in loads {
        load.go_on_for(20);
        let report = load.stop();
        report.assert_clean(20);
        let sequence = report.sequence();
        assert_eq!((sequence.first(), sequence.last()), (expected.first(), expected.last()), "{sequence:?}");
        let read: Vec<_> = report.words().into_keys().collect();
        let all: std::collections::BTreeSet<_> = expected.iter().copied().collect();
        assert_eq!(read, Vec::from_iter(all));
    }
}

#[test]
fn switches_cost_no_request_and_each_answer_is_of_one_version() {
    let setpoint = started();
    let loads = loads(&setpoint);
    for next in ["b", "c", "d"] {
        write(&setpoint, next);
        setpoint.ok(&["deploy", "docs", "site", "--wait"]);
        assert_eq!(
            version(&setpoint.get("docs.localhost", "/")).unwrap(),
            next,
            "every edge serves it by then"
        );
        loads[0].go_on_for(20);
        loads[1].go_on_for(10);
    }
    setpoint.ok(&["rollback", "docs", "--wait"]);
    assert_read(loads, &["a", "b", "c", "d", "c"]);
    setpoint.ok(&["delete", "docs", "--wait"]);
}

/// An edge that cannot keep a newer table serves the one before: by the folder that it names, which stays.
#[test]
fn an_edge_that_takes_no_newer_routes_goes_on_showing_the_folder_before() {
    let setpoint = started();
    let loads = loads(&setpoint);
    let in_the_way = setpoint.data().join("edge/.routes.json.tmp");
    fs::create_dir(&in_the_way).unwrap();
    let current = setpoint.data().join("sites/default/docs/current/index.html");
    let shown = fs::canonicalize(&current).unwrap();
    let before = fs::metadata(&shown).unwrap().ino();
    write(&setpoint, "b");
    setpoint.ok(&["deploy", "docs", "site"]);
    testkit::until("`current` shows the new one", SOON, || {
        (fs::read(&current).ok()?.first() == Some(&b'b')).then_some(())
    });
    loads[0].go_on_for(100);
    loads[1].go_on_for(50);
    assert_eq!(version(&setpoint.get("docs.localhost", "/")).unwrap(), "a");
    let docs = setpoint.service("docs");
    assert_eq!(docs["deployment"]["phase"], "updating_routes", "it is not served yet: {docs:#}");
    assert_eq!(fs::metadata(&shown).unwrap().ino(), before, "it was not taken away meanwhile");
    fs::remove_dir(&in_the_way).unwrap();
    setpoint.wait_until_converged("docs");
    assert_eq!(version(&setpoint.get("docs.localhost", "/")).unwrap(), "b", "every edge serves it by then");
    assert_read(loads, &["a", "b"]);
    setpoint.ok(&["delete", "docs", "--wait"]);
}

#[test]
fn readers_notice_nothing_of_a_kill_of_the_server_at_rest_and_in_the_middle_of_a_switch() {
    let mut setpoint = started();
    let loads = loads(&setpoint);
    setpoint.kill9();
    loads[0].go_on_for(100);
    setpoint.restart();
    setpoint.wait_until_converged("docs");
    let mut expected = vec!["a"];
    for next in ["b", "c", "d"] {
        write(&setpoint, next);
        setpoint.ok(&["deploy", "docs", "site"]);
        setpoint.kill9();
        loads[0].go_on_for(50);
        setpoint.restart();
        let docs = setpoint.wait_until_converged("docs");
        assert_eq!(docs["deployment"]["phase"], "active");
        testkit::until("the edge serves it", SOON, || {
            (version(&setpoint.get("docs.localhost", "/")).unwrap() == next).then_some(())
        });
        loads[0].go_on_for(20);
        loads[1].go_on_for(10);
        expected.push(next);
    }
    assert_read(loads, &expected);
    assert_eq!(setpoint.deployments("docs").len(), 4);
    setpoint.ok(&["delete", "docs", "--wait"]);
}

#[test]
fn an_edge_that_starts_without_a_server_serves_the_site_by_its_last_table() {
    let mut setpoint = started();
    write(&setpoint, "b");
    setpoint.ok(&["deploy", "docs", "site", "--wait"]);
    setpoint.kill9();
    setpoint.kill9_edge();
    setpoint.start_edge().unwrap();
    testkit::until("it serves what it knew", SOON, || {
        (version(&setpoint.try_get("docs.localhost", "/").ok()?).ok()? == "b").then_some(())
    });
    let loads = loads(&setpoint);
    setpoint.restart();
    setpoint.wait_until_converged("docs");
    write(&setpoint, "c");
    setpoint.ok(&["deploy", "docs", "site", "--wait"]);
    assert_read(loads, &["b", "c"]);
    setpoint.ok(&["delete", "docs", "--wait"]);
}
