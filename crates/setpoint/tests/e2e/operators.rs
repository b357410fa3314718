//! What operators do beside services: give out tokens, drain the machine, and watch while the server comes and goes.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    sync::mpsc,
};

use testkit::{
    Output, Setpoint,
    fixture::{QUICK, demo},
    setpoint::{SOON, pids},
};

use crate::setpoint;

const SITE: &str = "project: demo\nservices:\n  docs:\n    static: ./site\n    domains: [docs.localhost]\n";

fn until_all_converged(setpoint: &Setpoint) {
    setpoint.wait_for("all is converged", SOON, |status| {
        status["services"].as_array()?.iter().all(|service| service["state"] == "converged").then_some(())
    });
}

#[test]
fn a_token_of_a_project_deploys_there_and_nowhere_else() {
    let setpoint = setpoint().file("site/index.html", "v1").manifest(SITE).start();
    until_all_converged(&setpoint);
    let token =
        setpoint.ok(&["token", "create", "ci", "--role", "deployer", "--project", "demo", "--expires", "1d"]);
    let token = token.trim();
    let as_ci = |args: &[&str]| -> Output {
        let api = format!("http://{}", setpoint.api());
        let all: Vec<&str> = args.iter().copied().chain(["--api", &api, "--token", token]).collect();
        testkit::command::bounded(setpoint.command(&all))
    };
    std::fs::write(setpoint.work().join("site/index.html"), "v2").unwrap();
    let deployed = as_ci(&["deploy", "demo/docs", "site", "--wait"]);
    assert_eq!(deployed.code, 0, "{deployed:?}");
    assert_eq!(setpoint.get("docs.localhost", "/").text(), "v2");
    for (args, words) in [
        (vec!["delete", "demo/docs"], ["role_too_low", "operator"]),
        (vec!["token", "list"], ["role_too_low", "admin"]),
        (vec!["node", "list"], ["whole_cluster", "without --project"]),
        (vec!["status", "default/api"], ["not_declared", "default/api"]),
    ] {
        let refused = as_ci(&args);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(words.iter().all(|word| refused.stderr.contains(word)), "{args:?}: {refused:?}");
    }
    // A process is code on the machine itself.
    std::fs::write(
        setpoint.work().join("p.yaml"),
        "project: demo\nservices:\n  p: { command: [/bin/true] }\n",
    )
    .unwrap();
    let process = as_ci(&["apply", "-f", "p.yaml"]);
    assert_eq!(process.code, 1, "{process:?}");
    assert!(process.stderr.contains("process_not_allowed") && process.stderr.contains("tokens.processes"));
    let audit = setpoint.json(&["audit"]);
    let by_ci = audit["audit"].as_array().unwrap().iter().filter(|row| row["actor"] == "ci").count();
    assert_eq!(by_ci, 1, "the deploy, and nothing that was refused: {audit:#}");
    assert!(setpoint.ok(&["token", "list"]).contains("ci"));
    setpoint.ok(&["token", "revoke", "ci"]);
    let revoked = as_ci(&["status"]);
    assert_eq!(revoked.code, 1, "{revoked:?}");
    assert!(revoked.stderr.contains("unauthorized"), "{revoked:?}");
    for name in std::fs::read_dir(setpoint.data()).unwrap().map(|entry| entry.unwrap().path()) {
        if name.is_file() {
            let bytes = std::fs::read(&name).unwrap();
            let found = bytes.windows(token.len()).any(|window| window == token.as_bytes());
            assert!(!found, "the token is in {}", name.display());
        }
    }
}

#[test]
fn a_token_survives_a_restart_and_expires() {
    let mut setpoint = setpoint().start();
    let token = setpoint.ok(&["token", "create", "reader"]);
    let brief = setpoint.ok(&["token", "create", "brief", "--expires", "1s"]);
    setpoint.stop();
    setpoint.restart();
    let api = format!("http://{}", setpoint.api());
    let with = |token: &str| {
        testkit::command::bounded(setpoint.command(&["status", "--api", &api, "--token", token.trim()]))
    };
    assert_eq!(with(&token).code, 0);
    testkit::until("it has expired", SOON, || {
        let refused = with(&brief);
        (refused.code == 1 && refused.stderr.contains("token_expired")).then_some(())
    });
}

#[test]
fn a_drained_machine_keeps_what_nothing_can_replace_and_says_so() {
    let mut setpoint = setpoint().manifest(&demo(2, &[("VERSION", "v1")], QUICK)).start();
    let before = setpoint.wait_until_converged("api");
    let load = setpoint.load("api.localhost", "/").start();
    let drained = setpoint.ok(&["node", "drain", "local"]);
    assert!(drained.contains("there is no other node to take it"), "{drained}");
    let waited = setpoint.cli(&["node", "drain", "local", "--wait"]);
    assert_eq!(waited.code, 1, "it does not hang: {waited:?}");
    assert!(waited.stderr.contains("2 instances have nowhere to go"), "{waited:?}");
    let listed = setpoint.json(&["node", "list"]);
    assert_eq!(listed["nodes"][0]["state"], "draining", "{listed:#}");
    let explained = setpoint.ok(&["explain", "api"]);
    assert!(explained.contains("is being drained"), "{explained}");
    // What is new waits, and what serves goes on.
    setpoint.apply_ok(&demo(2, &[("VERSION", "v2")], QUICK), &[]);
    testkit::until("the new release waits for a node", SOON, || {
        setpoint.ok(&["explain", "api"]).contains("no node takes it").then_some(())
    });
    load.go_on_for(20);
    load.stop().assert_clean(20);
    assert_eq!(pids(&setpoint.service("api")), pids(&before));
    // It outlives a restart.
    setpoint.kill9();
    setpoint.restart();
    assert_eq!(setpoint.json(&["node", "list"])["nodes"][0]["state"], "draining");
    setpoint.ok(&["node", "undrain", "local"]);
    setpoint.wait_until_converged("api");
    assert_eq!(setpoint.get("api.localhost", "/env?name=VERSION").text().trim(), "v2");
    setpoint.wait_for_event("node.draining", &["local"]);
    setpoint.wait_for_event("node.undrained", &["local"]);
    let unknown = setpoint.cli(&["node", "drain", "nowhere"]);
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert!(unknown.stderr.contains("node list"), "{unknown:?}");
}

#[test]
fn a_watch_says_that_the_server_is_gone_and_goes_on_when_it_is_back() {
    let mut setpoint = setpoint().manifest(&demo(1, &[], QUICK)).start();
    setpoint.wait_until_converged("api");
    let data = setpoint.data();
    let mut command = setpoint.command(&["status", "--watch", "--data", data.to_str().unwrap()]);
    let mut watch = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (tell, told) = mpsc::channel();
    let streams: [Box<dyn std::io::Read + Send>; 2] =
        [Box::new(watch.stdout.take().unwrap()), Box::new(watch.stderr.take().unwrap())];
    for stream in streams {
        let tell = tell.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
    }
    let expect = |words: &str| {
        testkit::until(words, SOON, || told.try_iter().find(|line| line.contains(words)));
    };
    expect("default/api converged");
    setpoint.stop();
    expect("is gone");
    setpoint.restart();
    expect("answers again");
    setpoint.ok(&["scale", "api", "2", "--wait"]);
    expect("2/2");
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn an_apply_of_what_the_server_has_sends_nothing() {
    let setpoint = setpoint().file("site/index.html", "v1").manifest(SITE).start();
    until_all_converged(&setpoint);
    let again = setpoint.cli(&["apply", "-f", "app.yaml"]);
    assert!(again.stderr.contains("the server has its 1 file, 2 B already"), "{again:?}");
    std::fs::write(setpoint.work().join("site/index.html"), "v2").unwrap();
    let changed = setpoint.cli(&["apply", "-f", "app.yaml", "--wait"]);
    assert!(changed.stderr.contains("sent 1 file"), "{changed:?}");
    assert_eq!(setpoint.get("docs.localhost", "/").text(), "v2");
}

#[test]
fn no_control_group_stays_after_an_orderly_end() {
    let yaml = "services:\n  api:\n    command: [sleep, '1000']\n    resources: { memory: 64MiB, cpus: 0.5 }\n    \
                stop: { grace: 1s }\n";
    let mut setpoint = setpoint().manifest(yaml).start();
    let api = setpoint.wait_until_converged("api");
    let group = std::fs::read_to_string(format!("/proc/{}/cgroup", pids(&api)[0])).unwrap();
    let name = group.split(['/', '\n']).find(|part| part.ends_with(".default.api.0.0")).map(str::to_owned);
    let Some(name) = name else {
        eprintln!("skipped: no control groups for us here");
        return;
    };
    let left = || {
        let hierarchies = ["", "cpu", "memory"].map(|h| format!("/sys/fs/cgroup/{h}/setpoint/{name}"));
        hierarchies.into_iter().filter(|path| std::path::Path::new(path).exists()).collect::<Vec<_>>()
    };
    assert!(!left().is_empty());
    setpoint.stop();
    assert_eq!(left(), Vec::<String>::new());
    setpoint.restart();
    setpoint.wait_until_converged("api");
    assert!(!left().is_empty(), "a start makes them anew");
}
