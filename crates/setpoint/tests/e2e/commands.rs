//! Commands and their status: what `plan` says, what `logs` shows, what prints without a server.

use std::fs;

use serde_json::Value;
use testkit::{
    fixture::{QUICK, demo},
    setpoint::{SOON, free_port},
};

use crate::setpoint;

#[test]
fn plan_tells_by_its_status_whether_something_would_change() {
    let setpoint = setpoint().manifest(&demo(1, &[("VERSION", "1")], QUICK)).start();
    setpoint.wait_until_converged("api");
    let before = setpoint.status();
    let same = setpoint.cli(&["plan", "-f", "app.yaml"]);
    assert_eq!(same.code, 0, "{same:?}");
    testkit::fixture::folder(&setpoint.work(), &[("app.yaml", &demo(1, &[("VERSION", "2")], QUICK))]);
    let other = setpoint.cli(&["plan", "-f", "app.yaml"]);
    assert_eq!(other.code, 3, "{other:?}");
    assert!(other.stdout.contains("api"), "{other:?}");
    let json = setpoint.cli(&["plan", "-f", "app.yaml", "-o", "json"]);
    assert_eq!(json.code, 3);
    assert_eq!(json.json()["services"][0]["action"], "change");
    let missing = setpoint.cli(&["plan", "-f", "not-there.yaml"]);
    assert_eq!(missing.code, 1, "{missing:?}");
    assert!(missing.stderr.contains("not-there.yaml"), "{missing:?}");
    assert_eq!(setpoint.status(), before, "a plan changes nothing");
    let assumed = "services:\n  api:\n    command: [\"${SETPOINT}\", demo-app]\n    port: dynamic\n";
    setpoint.apply_ok(assumed, &["--wait"]);
    let unchanged = setpoint.json(&["plan", "-f", "app.yaml"]);
    assert_eq!(unchanged["services"][0]["action"], "none");
    assert!(unchanged["services"][0]["notes"].to_string().contains("health"), "{unchanged}");
    let offline = setpoint.bare(&["plan", "-f", "app.yaml", "--offline"]);
    assert_eq!(offline.code, 3, "{offline:?}");
}

#[test]
fn plan_sends_nothing_and_says_how_to_plan_without_a_server() {
    let site = "services:\n  docs:\n    static: ./site\n";
    let mut setpoint = setpoint().file("site/index.html", "never sent").file("docs.yaml", site).start();
    let planned = setpoint.cli(&["plan", "-f", "docs.yaml"]);
    assert_eq!((planned.code, planned.stderr.as_str()), (3, ""), "{planned:?}");
    let digest = model::Digest::of_bytes(b"never sent").to_string();
    let hex = digest.trim_start_matches("sha256:");
    let mut find = std::process::Command::new("find");
    let found = find.arg(setpoint.data()).args(["-name", &format!("*{}*", &hex[4..])]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "it is on the server's disk");
    setpoint.stop();
    let planned = setpoint.cli(&["plan", "-f", "docs.yaml"]);
    assert_eq!(planned.code, 1);
    assert!(planned.stderr.contains("--offline"), "{planned:?}");
}

#[test]
fn what_a_service_cannot_have_or_is_not_is_told_as_it_is() {
    let site = "services:\n  docs:\n    static: ./site\n";
    let setpoint = setpoint().file("site/index.html", "a").manifest(site).start();
    setpoint.wait_until_converged("docs");
    let nobody = setpoint.cli(&["events", "--service", "nope"]);
    assert!(nobody.code == 1 && nobody.stderr.contains("not_declared"), "{nobody:?}");
    let image = setpoint.cli(&["deploy", "docs", "--image", "acme/web:1"]);
    assert!(image.code == 1 && image.stderr.contains("takes no image"), "{image:?}");
    let late = setpoint.cli(&["restart", "docs", "--wait=1ms"]);
    assert!(late.code == 0 || !late.stderr.contains("converged: "), "{late:?}");
    let fed = setpoint.fed(&["apply", "-f", "-", "--wait"], site.as_bytes());
    assert!(fed.code == 0 && fed.stderr.contains("default/docs: converged"), "{fed:?}");
    let folder = setpoint.cli(&["apply", "-f", "site"]);
    assert!(folder.stderr.contains("site: this is a folder"), "{folder:?}");
    let expired = setpoint.cli(&["token", "create", "x", "--expires", "0s"]);
    assert_eq!(expired.code, 2, "{expired:?}");
    setpoint.ok(&["delete", "docs", "--wait"]);
    assert!(
        setpoint.ok(&["events", "--service", "docs"]).contains("deployment.active"),
        "of what was deleted"
    );
}

#[test]
fn plan_says_what_is_assumed_about_health() {
    let setpoint = setpoint().start();
    let yaml = "services:\n  api:\n    command: [\"${SETPOINT}\", demo-app]\n    port: dynamic\n";
    testkit::fixture::folder(&setpoint.work(), &[("app.yaml", yaml)]);
    let plan = setpoint.cli(&["plan", "-f", "app.yaml"]);
    assert_eq!(plan.code, 3, "{plan:?}");
    assert!(plan.stdout.to_lowercase().contains("tcp"), "nothing is ever assumed healthy: {}", plan.stdout);
}

#[test]
fn logs_show_the_output_of_each_instance_and_its_end() {
    let yaml = "services:\n  talk:\n    command: [sh, -c, 'for n in 1 2 3 4 5; do echo said $$n by $$SETPOINT_INSTANCE; done; echo oops >&2; sleep 1000']\n    \
                replicas: 2\n    stop: { grace: 1s }\n";
    let setpoint = setpoint().manifest(yaml).start();
    let talk = setpoint.wait_until_converged("talk");
    let logs = testkit::until("both have said all", SOON, || {
        let logs = setpoint.ok(&["logs", "talk"]);
        (logs.matches("oops").count() == 2).then_some(logs)
    });
    assert_eq!(logs.matches("said 3").count(), 2, "{logs}");
    let first = talk["instances"][0]["id"].as_str().unwrap();
    let one = setpoint.ok(&["logs", "talk", "--instance", first]);
    assert_eq!((one.matches("said 3").count(), one.matches("oops").count()), (1, 1), "{one}");
    assert!(one.contains(first), "{one}");
    let tail = setpoint.ok(&["logs", "talk", "--instance", first, "--tail", "2"]);
    assert_eq!(tail.lines().count(), 2, "{tail}");
}

#[test]
fn control_characters_of_a_workload_do_not_reach_the_terminal() {
    let yaml = "services:\n  rude:\n    command: [sh, -c, 'printf \"\\033[31mred\\007\\n\"; sleep 1000']\n    \
                stop: { grace: 1s }\n";
    let setpoint = setpoint().manifest(yaml).start();
    setpoint.wait_until_converged("rude");
    let logs = testkit::until("its line", SOON, || {
        Some(setpoint.ok(&["logs", "rude"])).filter(|logs| logs.contains("red"))
    });
    assert!(!logs.contains('\x1b') && !logs.contains('\x07'), "{logs:?}");
}

#[test]
fn what_needs_no_server_prints_without_one() {
    let setpoint = setpoint().described();
    let schema: Value = setpoint.bare(&["schema"]).json();
    assert!(schema["$schema"].is_string() && schema["properties"]["services"].is_object());
    assert!(setpoint.bare(&["schema", "-o", "yaml"]).stdout.contains("\nproperties:\n"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(setpoint.bare(&["completions", shell]).stdout.contains("setpoint"), "{shell}");
    }
    let help = setpoint.bare(&["--help"]);
    assert_eq!(help.code, 0);
    let commands = [
        "up",
        "server",
        "edge",
        "plan",
        "apply",
        "deploy",
        "status",
        "explain",
        "deployments",
        "rollback",
        "cancel",
        "logs",
        "events",
        "audit",
        "drift",
        "scale",
        "stop",
        "start",
        "restart",
        "delete",
        "reconcile",
        "node",
        "token",
        "backup",
        "restore",
        "schema",
        "completions",
    ];
    for command in commands {
        assert!(help.stdout.contains(command), "{command}");
        let own = setpoint.bare(&[command, "--help"]);
        assert_eq!(own.code, 0, "{command}");
        let example = format!("{}{}", own.stdout, setpoint.bare(&[command, "list", "--help"]).stdout);
        assert!(example.contains("Example"), "{command} --help has an example: {}", own.stdout);
    }
    assert_eq!(setpoint.bare(&["--version"]).code, 0);
    let settings = setpoint.bare(&["config", "-o", "json"]).json();
    assert_eq!(settings["settings"][0]["from"], "default", "{settings:#}");
}

/// A document a line.
fn is_a_stream(command: &[&str]) -> bool {
    ["events", "logs"].contains(&command[0])
}

#[test]
fn every_printing_command_prints_table_json_and_yaml() {
    let setpoint = setpoint().manifest(&demo(1, &[], QUICK)).start();
    setpoint.wait_until_converged("api");
    let printing: [&[&str]; 13] = [
        &["logs", "api"],
        &["stats"],
        &["token", "show"],
        &["status"],
        &["status", "api"],
        &["deployments", "api"],
        &["events"],
        &["audit"],
        &["drift"],
        &["explain", "api"],
        &["node", "list"],
        &["token", "list"],
        &["reconcile", "--dry-run"],
    ];
    for command in printing {
        let table = setpoint.ok(command);
        assert!(!table.trim().is_empty(), "{command:?}");
        for form in ["json", "yaml"] {
            let args: Vec<&str> = command.iter().copied().chain(["-o", form]).collect();
            let text = setpoint.ok(&args);
            assert!(!text.trim().is_empty(), "{args:?}");
            let lines =
                text.lines().filter(|line| form == "json" && is_a_stream(command) && !line.is_empty());
            for line in lines {
                serde_json::from_str::<Value>(line).unwrap();
            }
        }
    }
    let log = setpoint.ok(&["logs", "api", "-o", "json"]);
    let first: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    let instance = setpoint.service("api")["instances"][0]["id"].clone();
    assert_eq!(first["instance"], instance, "{log}");
    assert!(first["line"].as_str().is_some_and(|line| !line.is_empty() && !line.contains(" | ")), "{log}");
    let of_one = setpoint.json(&["logs", "api", "--tail", "1", "--instance", instance.as_str().unwrap()]);
    assert_eq!(of_one, first);
    let audit = setpoint.json(&["audit"]);
    assert_eq!(audit["audit"][0]["action"], "apply", "{audit:#}");
}

#[test]
fn every_example_can_be_planned() {
    let setpoint = setpoint().described();
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let files = std::fs::read_dir(examples).unwrap().map(|entry| entry.unwrap().path());
    let manifests: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    assert!(manifests.len() >= 4, "{manifests:?}");
    for manifest in manifests {
        let plan = setpoint.bare(&["plan", "-f", manifest.to_str().unwrap(), "--offline"]);
        assert_eq!(plan.code, 3, "{}: {plan:?}", manifest.display());
    }
}

#[test]
fn the_environment_goes_before_the_file_and_a_flag_before_the_environment() {
    let [of_file, of_environment] = [free_port(), free_port()];
    let builder = setpoint();
    let file = builder.work().join("settings.toml");
    let text = format!("[api]\nlisten = \"{of_file}\"\n[reconcile]\nevery = \"5s\"\n");
    fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let setpoint =
        builder.env("SETPOINT__API__LISTEN", &of_environment.to_string()).arg("--config").arg(file).start();
    // It is always started with `--api`.
    let listens = setpoint.ready_line().to_owned();
    assert!(listens.contains(&format!("api=http://{} ", setpoint.api())), "the flag counts: {listens}");
    assert!(![of_file, of_environment].contains(&setpoint.api()));
    let config = setpoint.bare(&["config", "--config", file, "-o", "json"]).json();
    let in_force = |name: &str| {
        let settings = config["settings"].as_array().unwrap();
        let found = settings.iter().find(|setting| setting["name"] == name).unwrap();
        (found["value"].as_str().unwrap().to_owned(), found["from"].as_str().unwrap().to_owned())
    };
    let (listen, from) = in_force("api.listen");
    assert_eq!((listen, from.contains("environment")), (of_environment.to_string(), true), "{from}");
    let shown = setpoint.bare(&["config", "--config", file, "--api", "127.0.0.1:1"]).stdout;
    assert!(shown.contains("api.listen = \"127.0.0.1:1\" (from the flags)"), "{shown}");
    let (every, from) = in_force("reconcile.every");
    assert_eq!((every.as_str(), from.contains("settings.toml")), ("5s", true), "{from}");
}

#[test]
fn a_log_in_json_has_an_object_on_each_line() {
    let builder = setpoint().arg("--log-format").arg("json").arg("--log-level").arg("info,server=debug");
    let mut setpoint = builder.manifest(&demo(1, &[("VERSION", "v1")], QUICK)).start();
    setpoint.wait_until_converged("api");
    setpoint.apply_ok(&demo(1, &[("VERSION", "v2")], QUICK), &["--wait"]);
    setpoint.stop();
    let stderr = setpoint.stderr();
    let lines: Vec<&str> = stderr.lines().collect();
    for line in &lines {
        let parsed = serde_json::from_str::<serde_json::Value>(line);
        assert!(parsed.as_ref().is_ok_and(serde_json::Value::is_object), "{line}: {parsed:?}");
    }
    assert!(lines.iter().any(|line| line.contains("is active")), "it tells what happens: {stderr}");
    assert!(lines.iter().any(|line| line.contains("\"level\"")), "and logs: {stderr}");
}

#[test]
fn what_is_stopped_is_waited_for_no_longer_than_it_is_stopped() {
    let setpoint = setpoint().manifest(&demo(1, &[("VERSION", "v1")], QUICK)).start();
    setpoint.wait_until_converged("api");
    setpoint.ok(&["stop", "api", "--wait"]);
    let unchanged = setpoint.cli(&["apply", "-f", "app.yaml", "--wait=15s"]);
    assert_eq!(unchanged.code, 0, "{unchanged:?}");
    let changed = demo(1, &[("VERSION", "v2")], QUICK);
    setpoint.apply_ok(&changed, &["--wait=15s"]);
    setpoint.ok(&["scale", "api", "2", "--wait=15s"]);
    assert_eq!(setpoint.workloads(), [], "it is stopped all the while");
    setpoint.ok(&["start", "api", "--wait=30s"]);
    assert_eq!(setpoint.workloads().len(), 2);
    assert_eq!(setpoint.get("api.localhost", "/env?name=VERSION").text().trim(), "v2");
    // What has no content yet waits for its first deployment, and nobody waits for that.
    setpoint.apply_ok("services:\n  docs:\n    static: { spa: true }\n", &["--wait=15s"]);
    assert_eq!(setpoint.service("docs")["state"], "stopped");
}
