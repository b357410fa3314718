//! What a workload is given, and what it must not be able to see or to spread.

use std::{fs, os::unix::fs::MetadataExt};

use testkit::{
    fixture::{QUICK, demo, script},
    setpoint::{SOON, pids},
};

use crate::setpoint;

fn environment(pid: u32) -> Vec<(String, String)> {
    let environ = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let text = String::from_utf8(environ).unwrap();
    let pairs = text.split('\0').filter_map(|variable| variable.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn a_workload_gets_its_environment_and_nothing_of_setpoints() {
    let setpoint = setpoint()
        .manifest(&demo(1, &[("GREETING", "hello ${SETPOINT_INSTANCE} at ${HOST}:${PORT} for $$5")], QUICK))
        .env("CANARY_OF_SETPOINT", "must not get through")
        .start();
    let api = setpoint.wait_until_converged("api");
    let environment = environment(pids(&api)[0]);
    let value =
        |name: &str| environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let id = api["instances"][0]["id"].as_str().unwrap();
    let (host, port) = api["instances"][0]["address"].as_str().unwrap().split_once(':').unwrap();
    assert_eq!(
        (value("SETPOINT_INSTANCE"), value("HOST"), value("PORT")),
        (Some(id), Some(host), Some(port))
    );
    assert_eq!(value("GREETING"), Some(format!("hello {id} at {host}:{port} for $5").as_str()));
    assert!(value("PATH").is_some());
    let known = ["PATH", "HOME", "LANG", "TZ", "PORT", "HOST", "SETPOINT_INSTANCE", "GREETING"];
    let strange: Vec<_> = environment.iter().filter(|(name, _)| !known.contains(&name.as_str())).collect();
    assert!(strange.is_empty(), "{strange:?}");
}

#[test]
fn a_workload_inherits_no_open_file_of_setpoint_but_its_output() {
    let setpoint = setpoint().manifest(&demo(1, &[], QUICK)).start();
    let api = setpoint.wait_until_converged("api");
    let data = setpoint.data();
    let links = fs::read_dir(format!("/proc/{}/fd", pids(&api)[0])).unwrap();
    let targets: Vec<_> = links.filter_map(|link| fs::read_link(link.unwrap().path()).ok()).collect();
    let files: Vec<_> = targets.iter().filter(|target| target.starts_with(&data)).collect();
    assert!(
        !files.is_empty() && files.iter().all(|file| file.extension().is_some_and(|e| e == "log")),
        "{targets:?}"
    );
}

#[test]
fn a_command_is_found_beside_the_manifest_and_runs_where_it_is_told_to() {
    let builder = setpoint();
    fs::create_dir(builder.work().join("bin")).unwrap();
    fs::create_dir(builder.work().join("place")).unwrap();
    script(&builder.work().join("bin/run"), "pwd > \"$1\"; exec sleep 1000");
    let yaml = "services:\n  here:\n    command: [./bin/run, here.txt]\n    stop: { grace: 1s }\n  \
                there:\n    command: [./bin/run, there.txt]\n    workdir: ./place\n    stop: { grace: 1s }\n";
    let setpoint = builder.manifest(yaml).start();
    setpoint.wait_until_converged("here");
    setpoint.wait_until_converged("there");
    let said = |path: &std::path::Path| {
        testkit::until("it says where it is", SOON, || {
            fs::read_to_string(path).ok().filter(|text| text.ends_with('\n'))
        })
    };
    let place = setpoint.work().join("place").canonicalize().unwrap();
    assert_eq!(said(&place.join("there.txt")).trim(), place.to_str().unwrap());
    let own =
        setpoint.workloads().into_iter().find(|workload| workload.instance.contains(".here.")).unwrap().cwd;
    assert!(own.starts_with(setpoint.data().canonicalize().unwrap()), "{own:?}");
    assert_eq!(said(&own.join("here.txt")).trim(), own.to_str().unwrap());
}

#[test]
fn a_workload_runs_as_the_user_that_it_names() {
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if !is_root {
        println!("skipped: only root may run a workload as another user");
        return;
    }
    let more = format!("{QUICK}\nuser: nobody\nfiles: {{ config.txt: secret }}");
    let setpoint = setpoint()
        .manifest(
            &demo(1, &[], &more)
                .replace("\"${SETPOINT}\", demo-app", "sleep, '1000'")
                .replace("    health: /healthz\n    domains: [api.localhost]\n", ""),
        )
        .start();
    let api = setpoint.wait_until_converged("api");
    let nobody = 65534;
    let process = fs::metadata(format!("/proc/{}", pids(&api)[0])).unwrap();
    assert_eq!(process.uid(), nobody);
    let file = fs::metadata(setpoint.workloads()[0].cwd.join("config.txt")).unwrap();
    assert_eq!((file.uid(), file.mode() & 0o777), (nobody, 0o600));
}

#[test]
fn a_value_of_the_environment_shows_up_in_no_answer_event_or_log() {
    const CANARY: &str = "canary-7f3a9c51d2";
    let secret = |more: &[(&str, &str)]| {
        let env: Vec<_> = [("PASSWORD", CANARY)].iter().chain(more).copied().collect();
        let files = format!(
            "{QUICK}\nrestart: {{ attempts: 1, backoff: 50ms }}\nfiles: {{ secret.conf: \"key={CANARY}\\n\" }}"
        );
        demo(1, &env, &files)
    };
    let setpoint = setpoint().manifest(&secret(&[])).start();
    let api = setpoint.wait_until_converged("api");
    let folder = setpoint.workloads()[0].cwd.clone();
    fs::write(folder.join("secret.conf"), "damaged").unwrap();
    setpoint.wait_for_event("drift.corrected", &["secret.conf"]);
    testkit::fixture::folder(&setpoint.work(), &[("app.yaml", &secret(&[("FAIL_START", "1")]))]);
    let mut said = setpoint.cli(&["plan", "-f", "app.yaml"]).stdout;
    said += &setpoint.cli(&["plan", "-f", "app.yaml", "-o", "json"]).stdout;
    let failed = setpoint.cli(&["apply", "-f", "app.yaml", "--wait=60s"]);
    assert_eq!(failed.code, 1);
    said += &(failed.stdout + &failed.stderr);
    let id = api["instances"][0]["id"].as_str().unwrap();
    let commands: [&[&str]; 9] = [
        &["status", "-o", "json"],
        &["status", "api"],
        &["events", "-o", "json"],
        &["audit", "-o", "json"],
        &["drift", "-o", "json"],
        &["deployments", "api", "-o", "json"],
        &["explain", "api", "-o", "json"],
        &["explain", id],
        &["node", "list", "-o", "json"],
    ];
    for command in commands {
        said += &setpoint.ok(command);
    }
    for line in setpoint.json(&["explain", "api"])["journal"].as_array().unwrap() {
        said += &setpoint.ok(&["explain", "api", "--at", &line["seq"].to_string(), "-o", "json"]);
    }
    for path in ["/metrics", "/api/monitoring/stats", "/api/v1/services"] {
        said += &setpoint.ask("GET", path, None).text();
    }
    said += &setpoint.stderr();
    let around = said.find(CANARY).map(|at| &said[at.saturating_sub(200)..at]);
    assert_eq!(around, None, "it was said after this");
    let argv = fs::read(format!("/proc/{}/cmdline", pids(&setpoint.service("api"))[0])).unwrap();
    assert!(!String::from_utf8_lossy(&argv).contains(CANARY));
}

/// Nobody but root can take the control groups away.
const WITHOUT_CONTROL_GROUPS: [&str; 5] = [
    "unshare",
    "--mount",
    "sh",
    "-c",
    "mount -t tmpfs none /sys/fs/cgroup && mount -o remount,ro /sys/fs/cgroup && exec \"$0\" \"$@\"",
];

#[test]
fn limits_that_cannot_be_set_are_told_wherever_the_service_is_looked_at() {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        println!("skipped: only root may take control groups away");
        return;
    }
    let limited = demo(1, &[], &format!("{QUICK}\nresources: {{ memory: 64MiB }}"));
    let mut setpoint = setpoint().manifest(&limited).under(&WITHOUT_CONTROL_GROUPS).start();
    let told = |setpoint: &testkit::Setpoint| {
        let api = setpoint.wait_until_converged("api");
        let id = api["instances"][0]["id"].as_str().unwrap();
        let sentence = format!("{id} runs, and its declared limits are not enforced: /sys/fs/cgroup");
        let warning = api["warnings"][0].as_str().unwrap_or_default().to_owned();
        assert!(warning.starts_with(&sentence), "{api:#}");
        assert!(warning.contains("run Setpoint as root, or where control groups are delegated to it"));
        assert_eq!(api["message"], warning);
        for said in
            [setpoint.ok(&["status", "api"]), setpoint.ok(&["explain", "api"]), setpoint.ok(&["explain", id])]
        {
            assert!(said.contains("its declared limits are not enforced"), "{said}");
        }
        pids(&api)
    };
    let first = told(&setpoint);
    // Also of what was only found again.
    setpoint.kill9();
    setpoint.restart();
    assert_eq!(told(&setpoint), first);
    // A release that asks for nothing lacks nothing.
    setpoint.apply_ok(&demo(1, &[], QUICK), &["--wait"]);
    let api = setpoint.wait_until_converged("api");
    assert_eq!((&api["message"], &api["warnings"]), (&"".into(), &serde_json::json!([])));
}

#[test]
fn a_taken_port_costs_no_attempt() {
    // Every second port of the range is somebody else's.
    let taken: Vec<_> = (31_000..32_768_u16)
        .step_by(2)
        .filter_map(|port| std::net::TcpListener::bind(("127.0.0.1", port)).ok())
        .collect();
    let setpoint = setpoint().manifest(&demo(4, &[], QUICK)).start();
    let api = setpoint.wait_until_converged("api");
    let instances = api["instances"].as_array().unwrap();
    assert!(instances.iter().all(|instance| instance["restarts"] == 0), "{api:#}");
    assert!(taken.len() > 500, "{}", taken.len());
}
