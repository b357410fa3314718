//! Images that mean harm or nonsense, and what they say: told in words, bounded in time, and the good release serves.

use serde_json::json;
use testkit::docker::{Engine, Image};

use crate::{container, image, setpoint, web};

/// What an engine refuses, or a kernel: the release fails with its reason, and nothing that serves was touched.
#[test]
fn an_image_that_cannot_run_fails_with_its_reason_and_the_good_one_serves() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let patience = "restart: { attempts: 1, backoff: 100ms }";
    let setpoint = setpoint(&engine).manifest(&web(&app, 1, patience)).start();
    let before = setpoint.wait_until_converged("web");
    let load = setpoint.load("web.localhost", "/").rate(50).start();
    let bad = |name: &str| Image::new(&format!("setpoint-test/hostile:{name}"), "bad");
    let volumes: serde_json::Value = (0..100).map(|nth| (format!("/data/{nth}"), json!({}))).collect();
    for (name, image, expected) in [
        ("user", bad("user").user("no-such-user"), "no-such-user"),
        ("program", bad("program").config("Entrypoint", json!(["/not-there"])), "/not-there"),
        ("words", bad("words").config("Entrypoint", json!(["/\u{1b}[2Jnot-there"])), "not-there"),
        ("folder", bad("folder").workdir("/app/is/a/program"), "not a directory"),
        ("length", bad("length").config("Entrypoint", json!(["/".repeat(1_000_000)])), "1000000 bytes"),
        ("depth", bad("depth").workdir(&"/deep".repeat(10_000)), "50000 bytes"),
        ("length-user", bad("length-user").user(&"u".repeat(1_000_000)), "uuuu"),
        ("volumes", bad("volumes").config("Volumes", volumes), "it declares 100 volumes, and at most 64"),
        ("nothing", bad("nothing").config("Entrypoint", json!(null)).config("Cmd", json!(null)), "o command"),
    ] {
        image.build(&engine);
        let manifest = web(&format!("setpoint-test/hostile:{name}"), 1, patience);
        let output = setpoint.apply(&manifest.replace("deadline: 60s", "deadline: 5s"), &["--wait=60s"]);
        assert_eq!(output.code, 1, "{name}: {output:?}");
        assert!(output.stderr.contains(expected), "{name}: {output:?}");
        assert!(!output.stderr.contains('\u{1b}'), "{name}: {output:?}");
        assert!(output.stderr.len() < 20_000, "{name}: {}", output.stderr.len());
        let alone = |web: &serde_json::Value| web["instances"].as_array().unwrap().len() == 1;
        let after = setpoint.wait_for_service("web", "the good one is alone again", alone);
        assert_eq!(testkit::setpoint::pids(&after), testkit::setpoint::pids(&before), "{name}");
    }
    let report = load.stop();
    report.assert_clean(50);
    assert_eq!(report.sequence(), ["v1"]);
}

/// Whatever an image says of itself is not taken for ours, and gives it nothing.
#[test]
fn what_an_image_claims_gives_it_nothing() {
    let Some(engine) = Engine::shared() else { return };
    let tag = "setpoint-test/hostile:claims";
    Image::new(tag, "claims")
        .label("setpoint.cluster", "another")
        .label("setpoint.instance", "default.other.0.1")
        .label("setpoint.nonce", "guessed")
        .label("\u{1b}]0;title\u{7}", "\u{1b}[31m")
        .env("PORT", "1")
        .env("HOST", "203.0.113.1")
        .config("Volumes", json!({ "/etc": {}, "/var/run/docker.sock": {} }))
        .config("StopSignal", json!("SIGNOTHING"))
        .build(&engine);
    let setpoint = setpoint(&engine).manifest(&web(tag, 1, "")).start();
    let service = setpoint.wait_until_converged("web");
    let id = container(&setpoint, &engine, 0);
    let labels = engine.inspect(&id, "{{json .Config.Labels}}");
    let labels: serde_json::Value = serde_json::from_str(&labels).unwrap();
    assert_eq!(labels["setpoint.cluster"], setpoint.cluster().as_str());
    assert_eq!(labels["setpoint.instance"], service["instances"][0]["id"]);
    assert_ne!(labels["setpoint.nonce"], "guessed");
    assert_eq!(setpoint.get("web.localhost", "/env?PORT").text(), "8080");
    assert_eq!(setpoint.get("web.localhost", "/env?HOST").text(), "0.0.0.0");
    assert!(!setpoint.ok(&["explain", "web"]).contains('\u{1b}'));
}

#[test]
fn megabyte_lines_and_control_codes_are_kept_within_bounds_and_harm_nobody() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let setpoint =
        setpoint(&engine).manifest(&web(&app, 1, "logs: { max_size: 1MiB, max_files: 2 }")).start();
    setpoint.wait_until_converged("web");
    for _ in 0..8 {
        assert_eq!(setpoint.get("web.localhost", "/log-bytes?1000000").status, 200);
    }
    assert_eq!(setpoint.get("web.localhost", "/log-escapes").status, 200);
    assert_eq!(setpoint.get("web.localhost", "/log?the-last-word").status, 200);
    let read = testkit::until("the last word is there", testkit::setpoint::SOON, || {
        let read = setpoint.ok(&["logs", "web", "--tail", "100"]);
        read.contains("the-last-word").then_some(read)
    });
    assert!(!read.contains('\u{1b}'), "what a terminal would obey is escaped");
    let id = container(&setpoint, &engine, 0);
    let log = engine.inspect(&id, "{{.LogPath}}");
    let folder = std::path::Path::new(&log).parent().unwrap();
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let logs = files.filter(|entry| entry.file_name().to_string_lossy().contains("-json.log"));
    let bytes: u64 = logs.map(|entry| entry.metadata().unwrap().len()).sum();
    assert!(bytes < 4 << 20, "{bytes} bytes are kept");
    assert_eq!(setpoint.get("web.localhost", "/").text(), "v1");
}
