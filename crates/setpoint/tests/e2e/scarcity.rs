//! No room on the disk, no file descriptors, no time, nobody who listens: less is done for a while, and nothing that
//! was promised is lost.

use serde_json::json;
use testkit::{
    Setpoint,
    disk::Disk,
    fixture::{QUICK, demo},
    proc,
    setpoint::{SOON, pids},
};

use crate::setpoint;

const VERSION: &str = "/env?name=VERSION";

/// Room for the database, its log and a little more.
const MIB: u32 = 16;

fn started(disk: &Disk) -> Setpoint {
    let setpoint = setpoint().data(&disk.path().join("data")).manifest(&version("v0")).start();
    setpoint.wait_until_converged("api");
    setpoint
}

fn version(version: &str) -> String {
    demo(2, &[("VERSION", version)], QUICK)
}

/// Asks for more and more until there is no room. Returns the replicas that were acknowledged last.
fn scale_until_refused(setpoint: &Setpoint) -> u64 {
    let mut acknowledged = 2;
    for round in 0.. {
        let wanted = 1 + round % 2;
        let answer =
            setpoint.ask("POST", "/api/v1/services/default/api/scale", Some(&json!({"replicas": wanted})));
        match answer.status {
            200 => acknowledged = wanted,
            507 => {
                let problem = answer.json();
                assert_eq!(problem["code"], "store_full", "{problem:#}");
                let message = problem["message"].as_str().unwrap_or_default().to_owned();
                assert!(message.contains("free space in the data folder"), "it says what to do: {problem:#}");
                return acknowledged;
            }
            status => panic!("{status}: {}", answer.text()),
        }
        assert!(round < 10_000, "the disk never fills");
    }
    unreachable!()
}

#[test]
fn a_full_disk_refuses_writes_and_serves_and_heals_on() {
    let Some(disk) = Disk::of_mib(MIB) else { return };
    let setpoint = started(&disk);
    let load = setpoint.load("api.localhost", VERSION).start();
    let ballast = disk.fill();
    let acknowledged = scale_until_refused(&setpoint);
    let deployments = setpoint.deployments("api").len();
    let refused = setpoint.apply(&version("v1"), &[]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("free space in the data folder"), "{refused:?}");
    load.go_on_for(50);
    // What was acknowledged holds, also while there is no room: a death is healed.
    let victim = pids(&setpoint.service("api"))[0];
    proc::kill9(victim);
    setpoint.wait_for_service("api", "a process runs in place of the killed one", |api| {
        let now = pids(api);
        !now.contains(&victim)
            && now.len() as u64 == acknowledged
            && api["replicas"] == json!({"desired": acknowledged, "ready": acknowledged})
    });
    drop(ballast);
    setpoint.wait_for_service("api", "it is at rest again", |api| {
        api["state"] == "converged" && api["replicas"]["desired"] == acknowledged
    });
    assert_eq!(setpoint.deployments("api").len(), deployments, "nothing of what was refused was recorded");
    setpoint.apply_ok(&version("v1"), &["--wait"]);
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "v1");
    load.go_on_for(20);
    load.stop().assert_clean(100);
    assert_eq!(setpoint.cli(&["audit"]).code, 0, "the chain of the audit is whole");
}

#[test]
fn a_setpoint_that_is_killed_on_a_full_disk_comes_back_with_all_that_it_acknowledged() {
    let Some(disk) = Disk::of_mib(MIB) else { return };
    let mut setpoint = started(&disk);
    let ballast = disk.fill();
    let acknowledged = scale_until_refused(&setpoint);
    setpoint.kill9();
    setpoint.set_args(&[]);
    // Without any room it may start or refuse to; then it says why.
    if let Err(failed) = setpoint.start() {
        assert!(failed.status.is_some(), "it hangs: {}", failed.stderr);
        let said = failed.stderr.to_lowercase();
        assert!(said.contains("space"), "it says what it lacks: {}", failed.stderr);
        assert!(!said.contains("panicked"), "{}", failed.stderr);
    }
    drop(ballast);
    if !setpoint.is_running() {
        setpoint.restart();
    }
    let api = setpoint.wait_for_service("api", "as acknowledged", |api| {
        api["state"] == "converged" && api["replicas"]["desired"] == acknowledged
    });
    assert_eq!(setpoint.workloads().len(), pids(&api).len());
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "v0");
    setpoint.apply_ok(&version("v1"), &["--wait"]);
}

#[test]
fn an_upload_that_finds_no_room_leaves_nothing_and_can_be_sent_again() {
    let Some(disk) = Disk::of_mib(MIB) else { return };
    let builder = setpoint().data(&disk.path().join("data"));
    testkit::fixture::versioned_site(&builder.work().join("site"), "v1", 3);
    let yaml = "services:\n  docs:\n    static: ./site\n    domains: [docs.localhost]\n";
    let setpoint = builder.manifest(yaml).start();
    setpoint.wait_until_converged("docs");
    // Not compressible, and larger than what is free.
    let mut state = 1_u64;
    let noise: String = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{state:016x}")
    })
    .take(2 << 20)
    .collect();
    let big = setpoint.work().join("big");
    testkit::fixture::folder(&big, &[("index.html", "v2"), ("noise.txt", &noise)]);
    for _ in 0..3 {
        let refused = setpoint.cli(&["deploy", "docs", "big"]);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.stderr.contains("space"), "{refused:?}");
        assert_eq!(setpoint.get("docs.localhost", "/").text(), "v1");
    }
    std::fs::remove_file(big.join("noise.txt")).unwrap();
    setpoint.ok(&["deploy", "docs", "big", "--wait"]);
    assert_eq!(setpoint.get("docs.localhost", "/").text(), "v2");
    setpoint.wait_until_converged("docs");
}

#[test]
fn a_stderr_that_takes_nothing_more_ends_nothing() {
    let full = std::path::Path::new("/dev/full");
    let mut setpoint = setpoint().stderr(full).manifest(&version("v1")).start();
    setpoint.wait_until_converged("api");
    setpoint.apply_ok(&version("v2"), &["--wait"]);
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "v2");
    assert!(setpoint.is_running());
    setpoint.stop();
}

#[test]
fn few_file_descriptors_shed_load_and_crash_nothing() {
    let setpoint = setpoint().manifest(&version("v1")).start();
    setpoint.wait_until_converged("api");
    let before = pids(&setpoint.service("api"));
    let open = std::fs::read_dir(format!("/proc/{}/fd", setpoint.pid())).unwrap().count();
    limit_files(setpoint.pid(), open as u64 + 12);
    // Many times more than there are descriptors for; each of them may be refused and none may hang for ever.
    let crowd: Vec<_> = (0..200).filter_map(|_| std::net::TcpStream::connect(setpoint.edge()).ok()).collect();
    assert!(crowd.len() > 50, "{}", crowd.len());
    let asked = testkit::http::Connection::open_within(setpoint.edge(), std::time::Duration::from_secs(1));
    let _ = asked.and_then(|mut c| c.send(&testkit::http::Request::new("GET", "api.localhost", "/")));
    drop(crowd);
    testkit::until("it serves again once the crowd has gone", SOON, || {
        (setpoint.try_get("api.localhost", VERSION).ok()?.status == 200).then_some(())
    });
    limit_files(setpoint.pid(), 1024);
    let api = setpoint.wait_until_converged("api");
    assert_eq!(pids(&api), before, "nobody was restarted for it");
    // A death in the middle of it is healed as soon as there is a descriptor.
    let open = std::fs::read_dir(format!("/proc/{}/fd", setpoint.pid())).unwrap().count();
    limit_files(setpoint.pid(), open as u64);
    let crowd: Vec<_> = (0..20).filter_map(|_| std::net::TcpStream::connect(setpoint.edge()).ok()).collect();
    proc::kill9(before[0]);
    testkit::until("it is dead", SOON, || (!proc::is_alive(before[0])).then_some(()));
    limit_files(setpoint.pid(), 1024);
    drop(crowd);
    setpoint.wait_for_service("api", "it is whole again", |api| {
        api["state"] == "converged" && !pids(api).contains(&before[0])
    });
    setpoint.apply_ok(&version("v2"), &["--wait"]);
}

#[test]
fn a_view_that_can_show_nothing_more_ends_nothing_that_it_showed() {
    let mut setpoint = setpoint().manifest(&version("v1")).start();
    let before = pids(&setpoint.wait_until_converged("api"));
    // Its own stream of events is cut, and there is no descriptor for another.
    let open = std::fs::read_dir(format!("/proc/{}/fd", setpoint.pid())).unwrap().count();
    limit_files(setpoint.pid(), open as u64 - 4);
    let port = setpoint.api().port().to_string();
    for end in ["dport", "sport"] {
        let _ = std::process::Command::new("ss").args(["-K", end, "=", &port]).output();
    }
    let due = std::time::Instant::now() + std::time::Duration::from_secs(3);
    testkit::until("it had its time to give up", SOON, || (std::time::Instant::now() >= due).then_some(()));
    assert!(setpoint.is_running(), "{}", setpoint.tail());
    limit_files(setpoint.pid(), 1024);
    assert_eq!(pids(&setpoint.wait_until_converged("api")), before);
    setpoint.apply_ok(&version("v2"), &["--wait"]);
    testkit::until("and it shows again what happens", SOON, || {
        setpoint.stderr().contains("#2").then_some(())
    });
}

#[test]
fn what_setpoint_lacks_itself_is_no_verdict_on_a_workload() {
    let probes = "health: { liveness: { http: /healthz, interval: 100ms, fall: 2 }, \
                  readiness: { http: /healthz, interval: 100ms, fall: 1 } }";
    let setpoint = setpoint().manifest(&version("v1").replace("health: /healthz", probes)).start();
    let before = setpoint.wait_until_converged("api");
    let open = std::fs::read_dir(format!("/proc/{}/fd", setpoint.pid())).unwrap().count();
    limit_files(setpoint.pid(), open as u64 - 4);
    let due = std::time::Instant::now() + std::time::Duration::from_secs(3);
    testkit::until("many probes could not be made", SOON, || {
        (std::time::Instant::now() >= due).then_some(())
    });
    limit_files(setpoint.pid(), 1024);
    let after = setpoint.wait_until_converged("api");
    assert_eq!(pids(&after), pids(&before), "healthy processes run on");
    assert_eq!(after["instances"][0]["restarts"], 0);
    let told = setpoint.events();
    let blamed = told
        .iter()
        .find(|event| ["instance.unready", "instance.exited"].contains(&event["kind"].as_str().unwrap()));
    assert_eq!(blamed, None);
}

#[test]
fn a_crowd_at_the_edge_takes_no_descriptor_from_anything_else() {
    let setpoint = setpoint().under(&["prlimit", "--nofile=200:200"]).manifest(&version("v1")).start();
    let before = pids(&setpoint.wait_until_converged("api"));
    let crowd: Vec<_> = (0..400).filter_map(|_| std::net::TcpStream::connect(setpoint.edge()).ok()).collect();
    assert!(crowd.len() > 300, "{}", crowd.len());
    // Everything but the edge goes on as if nobody stood at its door.
    proc::kill9(before[0]);
    let api = setpoint.wait_for_service("api", "the dead one is replaced", |api| {
        api["state"] == "converged" && !pids(api).contains(&before[0])
    });
    assert_eq!(api["instances"][0]["restarts"], 1);
    setpoint.apply_ok(&version("v2"), &["--wait"]);
    drop(crowd);
    testkit::until("and the edge too once they have gone", SOON, || {
        (setpoint.try_get("api.localhost", VERSION).ok()?.text().trim() == "v2").then_some(())
    });
}

#[test]
fn workloads_are_given_the_limit_of_files_that_setpoint_was_given() {
    let setpoint = setpoint().under(&["prlimit", "--nofile=300:900"]).manifest(&version("v1")).start();
    let api = setpoint.wait_until_converged("api");
    let limits = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = text.lines().find(|line| line.starts_with("Max open files")).unwrap().to_owned();
        line.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u64>>()
    };
    assert_eq!(limits(setpoint.pid()), [900, 900]);
    assert_eq!(limits(pids(&api)[0]), [300, 900]);
}

fn limit_files(pid: u32, count: u64) {
    let done = std::process::Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--nofile={count}:")])
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
}

#[test]
fn a_setpoint_that_was_stopped_for_a_while_goes_on_as_if_nothing_had_been() {
    let setpoint = setpoint().manifest(&version("v1")).start();
    let api = setpoint.wait_until_converged("api");
    let before = pids(&api);
    let restarts = |api: &serde_json::Value| api["instances"][1]["restarts"].clone();
    proc::stop(setpoint.pid());
    // Longer than any sign of life is waited for, and one dies meanwhile.
    let due = std::time::Instant::now() + std::time::Duration::from_secs(8);
    proc::kill9(before[0]);
    testkit::until("the time is over", SOON, || (std::time::Instant::now() >= due).then_some(()));
    proc::go_on(setpoint.pid());
    let after = setpoint.wait_for_service("api", "the dead one is replaced", |api| {
        api["state"] == "converged" && !pids(api).contains(&before[0])
    });
    assert!(pids(&after).contains(&before[1]), "what lived on was left alone: {after:#}");
    assert_eq!(restarts(&after), 0);
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "v1");
    assert_eq!(setpoint.deployments("api").len(), 1);
    setpoint.apply_ok(&version("v2"), &["--wait"]);
}

#[test]
fn a_setpoint_that_was_stopped_in_the_middle_of_a_deployment_brings_it_to_its_end() {
    let setpoint = setpoint().manifest(&version("v1")).start();
    setpoint.wait_until_converged("api");
    setpoint.apply_ok(&demo(2, &[("VERSION", "v2"), ("BOOT_DELAY_MS", "1000")], QUICK), &[]);
    setpoint.wait_for_service("api", "it is starting", |api| api["deployment"]["phase"] == "starting");
    proc::stop(setpoint.pid());
    let due = std::time::Instant::now() + std::time::Duration::from_secs(4);
    testkit::until("the time is over", SOON, || (std::time::Instant::now() >= due).then_some(()));
    proc::go_on(setpoint.pid());
    let api = setpoint.wait_until_converged("api");
    assert_eq!((&api["deployment"]["number"], &api["deployment"]["phase"]), (&2.into(), &"active".into()));
    assert_eq!(setpoint.workloads().len(), 2);
}
