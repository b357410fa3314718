//! Commands that ask and print.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::Stdio,
};

use serde_json::{Value, json};

use crate::{
    Ended,
    fake::{Fake, Reply, applied, deployment, service, services},
    run, setpoint,
};

#[test]
fn a_server_that_is_not_there_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ended = run(dir.path(), &["status", "--api", &format!("http://{free}")]);
    assert_eq!(ended.code, 1);
    assert!(
        ended.stderr.contains(&format!("no Setpoint answers at http://{free}: start one with `setpoint up`")),
        "{ended:?}"
    );
    assert_eq!(ended.stdout, "");
}

#[test]
fn the_data_folder_alone_is_enough_to_find_api_and_token() {
    let dir = tempfile::tempdir().unwrap();
    let fake =
        Fake::start(|_| Reply::json(&services(service("converged", 1, Value::Null)))).in_folder(dir.path());
    let ended = run(dir.path(), &["status"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    assert!(ended.stdout.contains("default/api  process  converged  1/1"), "{}", ended.stdout);
    let asked = &fake.asked()[0];
    assert_eq!(
        (asked.line().as_str(), asked.token.as_deref()),
        ("GET /api/v1/services", Some("Bearer sp_test"))
    );
}

#[test]
fn json_is_what_the_server_said_with_fields_that_are_new() {
    let dir = tempfile::tempdir().unwrap();
    let _fake =
        Fake::start(|_| Reply::json(&services(service("converged", 1, Value::Null)))).in_folder(dir.path());
    let ended = run(dir.path(), &["status", "api", "-o", "json"]);
    assert_eq!(
        serde_json::from_str::<Value>(&ended.stdout).unwrap(),
        services(service("converged", 1, Value::Null))
    );
    assert!(ended.stdout.contains("\n  \"services\": ["), "{}", ended.stdout);
    let yaml = run(dir.path(), &["status", "-o", "yaml"]);
    assert!(yaml.stdout.contains("a_new_field"), "{}", yaml.stdout);
}

#[test]
fn a_refusal_is_told_in_one_line_with_status_1() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(|_| Reply::problem(422, "out_of_range", "too many")).in_folder(dir.path());
    let ended = run(dir.path(), &["scale", "demo/api", "9999"]);
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (1, "error: out_of_range: too many (replicas) — ask for less\n")
    );
    assert_eq!(fake.lines(), ["POST /api/v1/services/demo/api/scale"]);
    assert_eq!(fake.asked()[0].json(), json!({"replicas": 9999}));
}

#[test]
fn a_wrong_token_says_where_a_right_one_is() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(|_| Reply::problem(401, "unauthorized", "a token is needed"));
    let ended = run(dir.path(), &["status", "--api", &fake.url]);
    assert_eq!(ended.code, 1);
    assert!(
        ended.stderr.contains("no token was found") && ended.stderr.contains("--data"),
        "{}",
        ended.stderr
    );
    let ended = run(dir.path(), &["status", "--api", &fake.url, "--token", "sp_secret"]);
    assert!(ended.stderr.contains("not the one") && !ended.stderr.contains("sp_secret"), "{}", ended.stderr);
}

#[test]
fn what_is_no_api_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(|_| Reply::text("<html>"));
    let ended = run(dir.path(), &["status", "--api", &fake.url]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("is another program there?"), "{}", ended.stderr);
}

#[test]
fn usage_errors_have_status_2() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["frobnicate"][..], &["scale", "api"], &["status", "API"], &["plan"]] {
        assert_eq!(run(dir.path(), args).code, 2, "{args:?}");
    }
}

#[test]
fn hostile_text_reaches_no_output_raw() {
    let dir = tempfile::tempdir().unwrap();
    let _fake = Fake::start(|asked| {
        if asked.path.contains("/logs") {
            return Reply::text(b"\x1b]0;owned\x07 \xff \xc2\x9b31m\nsecond\n".to_vec());
        }
        let mut service = service("failed", 0, Value::Null);
        service["message"] = "\u{1b}[2J\u{9b}31m\u{202e}\r\nline".into();
        Reply::json(&services(service))
    })
    .in_folder(dir.path());
    for args in [&["status"][..], &["status", "-o", "json"], &["status", "-o", "yaml"], &["logs", "api"]] {
        let ended = run(dir.path(), args);
        assert_eq!(ended.code, 0, "{ended:?}");
        let raw = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!ended.stdout.chars().any(raw), "{args:?}: {:?}", ended.stdout);
    }
    assert_eq!(run(dir.path(), &["logs", "api"]).stdout, "\\x1b]0;owned\\x07 \\xff \\x9b31m\nsecond\n");
    assert!(run(dir.path(), &["status"]).stdout.contains(r"\x1b[2J\x9b31m"));
}

#[test]
fn logs_are_shown_while_they_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(|_| Reply::text("one\ntwo\n").then_never_ends()).in_folder(dir.path());
    let args = ["logs", "api", "-f", "--tail", "2", "--instance", "default.api.0.7"];
    let mut child = setpoint(dir.path(), &args).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "one");
    assert_eq!(lines.next().unwrap().unwrap(), "two");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(
        fake.lines(),
        ["GET /api/v1/services/default/api/logs?follow=true&instance=default.api.0.7&tail=2"]
    );
}

#[test]
fn a_reader_that_leaves_ends_the_command_quietly() {
    let dir = tempfile::tempdir().unwrap();
    let _fake = Fake::start(|_| Reply::text("line\n".repeat(100_000))).in_folder(dir.path());
    let mut command = setpoint(dir.path(), &["logs", "api"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 5];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let ended = Ended::of(&child.wait_with_output().unwrap());
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
}

#[test]
fn events_are_one_object_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let _fake = Fake::start(|_| {
        let event = |seq: u64| {
            json!({"seq": seq, "at": "2026-11-21T09:30:00.000Z", "kind": "instance.ready", "project": "default",
                "service": "api", "instance": "default.api.0.7", "deployment": null, "message": "it is ready"})
        };
        Reply::json(&json!({"events": [event(1), event(2)]}))
    })
    .in_folder(dir.path());
    let ended = run(dir.path(), &["events", "-o", "json"]);
    let seqs: Vec<_> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].clone())
        .collect();
    assert_eq!(seqs, [1, 2]);
    assert!(ended.stdout.starts_with(r#"{"#), "{}", ended.stdout);
    assert!(run(dir.path(), &["events"]).stdout.contains("instance.ready          it is ready"));
}

#[test]
fn a_manifest_with_mistakes_is_drawn_and_sent_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(|_| Reply::json(&json!({}))).in_folder(dir.path());
    fs::write(dir.path().join("app.yaml"), "services:\n  api:\n    comand: [x]\n").unwrap();
    for command in ["apply", "plan"] {
        let ended = run(dir.path(), &[command, "-f", "app.yaml"]);
        assert_eq!(ended.code, 1);
        assert!(
            ended.stderr.contains("app.yaml:3:5") && ended.stderr.contains("`command`"),
            "{}",
            ended.stderr
        );
    }
    assert_eq!(fake.lines(), [""; 0]);
}

#[test]
fn apply_takes_a_sites_content_in_before_it_declares_it() {
    let dir = tempfile::tempdir().unwrap();
    let digest = format!("sha256:{}", "a".repeat(64));
    let answer = json!({"digest": digest, "files": 1, "bytes": 2});
    let fake = Fake::start(move |asked| {
        if asked.path.ends_with("/artifacts") {
            Reply::json(&answer)
        } else if asked.method == "GET" {
            Reply::problem(404, "no_such_artifact", "it is not stored")
        } else {
            Reply::json(&applied(true, None))
        }
    })
    .in_folder(dir.path());
    fs::create_dir(dir.path().join("site")).unwrap();
    fs::write(dir.path().join("site/index.html"), "hi").unwrap();
    fs::write(dir.path().join("app.yaml"), "services:\n  docs:\n    static: ./site\n").unwrap();
    let ended = run(dir.path(), &["apply", "-f", "app.yaml"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stdout.contains("default/api              changed    deploying"), "{}", ended.stdout);
    let lines = fake.lines();
    assert!(lines[0].starts_with("GET /api/v1/artifacts/sha256:"), "it asks before it sends: {lines:?}");
    assert_eq!(lines[1..], ["POST /api/v1/artifacts", "POST /api/v1/apply"]);
    let asked = &fake.asked()[1..];
    assert_eq!(&asked[0].body[..4], [0x28, 0xb5, 0x2f, 0xfd], "a packed folder is tar.zst");
    assert_eq!(asked[1].json()["services"][0]["spec"]["workload"]["artifact"], json!(digest));
}

#[test]
fn what_was_collected_in_between_is_sent_after_all() {
    let dir = tempfile::tempdir().unwrap();
    let digest = format!("sha256:{}", "a".repeat(64));
    let tries = std::sync::atomic::AtomicU32::new(0);
    let fake = Fake::start(move |asked| {
        let artifact = json!({"digest": digest, "files": 1, "bytes": 2});
        match (asked.method.as_str(), asked.path.as_str()) {
            ("POST", "/api/v1/apply") => match tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                0 => Reply::problem(422, "missing_artifact", "artifact aaaa is not stored"),
                _ => Reply::json(&applied(true, None)),
            },
            _ => Reply::json(&artifact),
        }
    })
    .in_folder(dir.path());
    fs::create_dir(dir.path().join("site")).unwrap();
    fs::write(dir.path().join("site/index.html"), "hi").unwrap();
    fs::write(dir.path().join("app.yaml"), "services:\n  docs:\n    static: ./site\n").unwrap();
    let ended = run(dir.path(), &["apply", "-f", "app.yaml"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stderr.contains("the server has its 1 file, 2 B already"), "{ended:?}");
    let posts: Vec<String> = fake.lines().into_iter().filter(|line| line.starts_with("POST")).collect();
    assert_eq!(posts, ["POST /api/v1/apply", "POST /api/v1/artifacts", "POST /api/v1/apply"]);
}

#[test]
fn a_folder_that_is_not_there_is_told_before_anything_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(|_| Reply::json(&json!({}))).in_folder(dir.path());
    fs::create_dir(dir.path().join("here")).unwrap();
    fs::write(dir.path().join("app.yaml"), "services:\n  a:\n    static: ./here\n  b:\n    static: ./gone\n")
        .unwrap();
    let ended = run(dir.path(), &["apply", "-f", "app.yaml"]);
    assert_eq!(ended.code, 1);
    let told = ended.stderr.contains("services.b.static: ") && ended.stderr.contains("/gone cannot be read");
    assert!(told && ended.stderr.contains("check the path"), "{}", ended.stderr);
    assert_eq!(fake.lines(), [""; 0]);
}

#[test]
fn an_archive_is_sent_as_it_is_and_a_refused_one_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(|asked| match asked.path.ends_with("/artifacts") {
        true => Reply::problem(422, "unknown_format", "this is no archive"),
        false => Reply::json(&services(json!({"project": "default", "name": "docs", "kind": "static",
            "state": "stopped", "message": "", "generation": 1, "replicas": {"desired": 1, "ready": 0},
            "deployment": null, "urls": [], "instances": []}))),
    })
    .in_folder(dir.path());
    let archive = vec![7u8; 300_000];
    fs::write(dir.path().join("site.tar"), &archive).unwrap();
    let ended = run(dir.path(), &["deploy", "docs", "site.tar"]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("unknown_format: this is no archive"), "{}", ended.stderr);
    assert!(fake.asked().last().unwrap().body == archive);
}

#[test]
fn what_cannot_be_deployed_is_refused_before_anything_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let fake =
        Fake::start(|_| Reply::json(&services(service("converged", 1, Value::Null)))).in_folder(dir.path());
    for (args, word) in [
        (&["deploy", "api", "--git", "https://x/y#z"][..], "is a process and takes no content"),
        (&["deploy", "api", "."][..], "is a process and takes no content"),
    ] {
        let ended = run(dir.path(), args);
        assert_eq!(ended.code, 1);
        assert!(ended.stderr.contains(word), "{}", ended.stderr);
    }
    assert!(fake.lines().iter().all(|line| line.starts_with("GET ")), "{:?}", fake.lines());
}

#[test]
fn plan_tells_by_its_status_whether_something_would_change() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("app.yaml"), "services:\n  api:\n    command: [\"true\"]\n").unwrap();
    for (action, code) in [("none", 0), ("create", 3), ("delete", 3)] {
        let _fake = Fake::start(move |_| {
            Reply::json(
                &json!({"services": [{"project": "default", "name": "api", "action": action, "message": "m",
                "changes": ["c"], "waiting": ["w"], "notes": ["n"]}]}),
            )
        })
        .in_folder(dir.path());
        assert_eq!(run(dir.path(), &["plan", "-f", "app.yaml"]).code, code);
    }
    fs::remove_file(dir.path().join("api")).unwrap();
    assert_eq!(run(dir.path(), &["plan", "-f", "app.yaml", "--api", "http://127.0.0.1:1"]).code, 1);
    assert_eq!(run(dir.path(), &["plan", "-f", "missing.yaml"]).code, 1);
}

#[test]
fn a_plan_keeps_its_status_when_its_reader_has_seen_enough() {
    let dir = tempfile::tempdir().unwrap();
    let services: String = (0..2000).map(|n| format!("  s{n}:\n    command: [/bin/true]\n")).collect();
    fs::write(dir.path().join("app.yaml"), format!("services:\n{services}")).unwrap();
    for format in ["table", "json"] {
        let mut command = setpoint(dir.path(), &["plan", "-f", "app.yaml", "--offline", "-o", format]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(3), "{format}");
    }
}

#[test]
fn an_offline_plan_needs_no_server_and_shows_every_default() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("site")).unwrap();
    fs::write(dir.path().join("site/index.html"), "hi").unwrap();
    let text =
        "services:\n  api:\n    command: [x, \"${PORT}\"]\n    replicas: 2\n  docs:\n    static: ./site\n";
    fs::write(dir.path().join("app.yaml"), text).unwrap();
    let ended = run(dir.path(), &["plan", "-f", "app.yaml", "--offline", "--effective"]);
    assert_eq!(ended.code, 3, "{ended:?}");
    for word in
        ["default/api", "create", "default.api.1", "default/docs", "TCP", "max_backoff: 60s", "retain: 5"]
    {
        assert!(
            ended.stdout.contains(word) || ended.stdout.contains(&word.replace("60s", "1m")),
            "{word}: {}",
            ended.stdout
        );
    }
    let ended = run(dir.path(), &["plan", "-f", "app.yaml", "--offline", "-o", "json"]);
    let plan: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(plan["services"][0]["action"], "create");
}

#[test]
fn explain_finds_out_what_it_is_asked_about() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(|asked| match asked.path.as_str() {
        "/api/v1/services/default/k3n5q7r2t4v6/explain" => {
            Reply::problem(404, "not_declared", "not declared")
        }
        path if path.ends_with("/explain") => Reply::json(&json!({"subject": "it", "summary": "all is well",
            "at": null, "steps": [{"step": "place", "changed": [], "waiting": ["the node confirms"]}],
            "holds_until": null, "journal": []})),
        _ => Reply::problem(404, "not_found", "not found"),
    })
    .in_folder(dir.path());
    for target in ["demo/api", "default.api.0.7", "k3n5q7r2t4v6"] {
        let ended = run(dir.path(), &["explain", target]);
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(ended.stdout.contains("waits  the node confirms"), "{}", ended.stdout);
    }
    assert_eq!(
        fake.lines(),
        [
            "GET /api/v1/services/demo/api/explain",
            "GET /api/v1/instances/default.api.0.7/explain",
            "GET /api/v1/services/default/k3n5q7r2t4v6/explain",
            "GET /api/v1/deployments/k3n5q7r2t4v6/explain",
        ]
    );
}

#[test]
fn a_replay_that_differs_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(|asked| {
        if asked.path.contains("/deployments/") {
            let known = asked.path.ends_with("/k3n5q7r2t4v6");
            return if known {
                Reply::json(&deployment("active", 100, ""))
            } else {
                Reply::problem(404, "not_found", "no")
            };
        }
        let identical = !asked.path.contains("/journal/2?");
        Reply::json(
            &json!({"seq": 1, "at": "2026-11-21T09:30:00.000Z", "project": "default", "service": "api",
            "steps": [], "holds_until": null, "decision": null,
            "subject": "default/api", "summary": "", "journal": [],
            "replay": {"identical": identical, "message": "as recorded", "steps": [], "decision": null}}),
        )
    })
    .in_folder(dir.path());
    assert_eq!(run(dir.path(), &["explain", "api", "--at", "1"]).code, 0);
    assert_eq!(run(dir.path(), &["explain", "api", "--at", "2"]).code, 1);
    assert!(fake.lines().contains(&"GET /api/v1/journal/1?replay=true".into()));
    assert_eq!(run(dir.path(), &["explain", "k3n5q7r2t4v6", "--at", "1"]).code, 0);
    let other = run(dir.path(), &["explain", "web", "--at", "1"]);
    assert_eq!(other.code, 1);
    assert!(other.stderr.contains("about default/api, not about web"), "{}", other.stderr);
}

#[test]
fn the_token_and_the_schema_need_no_server() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(run(dir.path(), &["token", "show"]).code, 1);
    fs::write(dir.path().join("token"), "sp_x\n").unwrap();
    assert_eq!(run(dir.path(), &["token", "show"]).stdout, "sp_x\n");
    let schema: Value = serde_json::from_str(&run(dir.path(), &["schema"]).stdout).unwrap();
    assert_eq!(schema["title"], "Setpoint manifest");
    assert!(run(dir.path(), &["completions", "bash"]).stdout.contains("_setpoint"));
}
