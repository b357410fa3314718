//! Images: resolved once, pinned, fetched, and refused with what to do.

use testkit::docker::{Engine, Image, Registry};

use crate::{container, image, setpoint, web};

#[test]
fn a_tag_that_moves_changes_nothing_until_somebody_deploys() {
    let Some(engine) = Engine::shared() else { return };
    let Some(registry) = Registry::start() else { return };
    let tag = registry.image("moving:1");
    Image::new(&tag, "first").push(&registry);
    let setpoint = setpoint(&engine).manifest(&web(&tag, 1, "")).start();
    setpoint.wait_until_converged("web");
    let says = || setpoint.get("web.localhost", "/").text();
    assert_eq!(says(), "first");
    Image::new(&tag, "second").push(&registry);
    setpoint.apply_ok(&web(&tag, 2, ""), &["--wait"]);
    setpoint.wait_until_converged("web");
    assert_eq!(says(), "first", "another replica of the same release");
    setpoint.ok(&["deploy", "web", "--wait"]);
    assert_eq!(says(), "second");
    setpoint.ok(&["rollback", "web", "--wait"]);
    assert_eq!(says(), "first", "the whole release is back, though its tag is not");
    setpoint.apply_ok(&web(&tag, 2, ""), &["--wait"]);
    assert_eq!(says(), "first", "applying the unchanged declaration changes nothing");
}

#[test]
fn a_tag_that_moves_in_the_middle_of_a_rollout_does_not_split_it() {
    let Some(engine) = Engine::shared() else { return };
    let Some(registry) = Registry::start() else { return };
    let tag = registry.image("split:1");
    let app = image(&engine, "v1");
    let setpoint = setpoint(&engine).manifest(&web(&app, 3, "")).start();
    setpoint.wait_until_converged("web");
    let load = setpoint.load("web.localhost", "/").rate(100).start();
    Image::new(&tag, "second").push(&registry);
    setpoint.apply_ok(&web(&tag, 3, "env: { MODE: \"late:500\" }"), &[]);
    testkit::until("the first of them serves", testkit::setpoint::SOON, || {
        load.report().words().contains_key("second").then_some(())
    });
    Image::new(&tag, "third").push(&registry);
    let done = |web: &serde_json::Value| {
        web["state"] == "converged" && web["instances"].as_array().unwrap().len() == 3
    };
    setpoint.wait_for_service("web", "the rollout is over", done);
    load.go_on_for(50);
    let report = load.stop();
    report.assert_clean(100);
    let words = report.words();
    assert!(words.keys().all(|word| ["v1", "second"].contains(word)), "{words:?}");
    let images = [0, 1, 2].map(|slot| engine.inspect(&container(&setpoint, &engine, slot), "{{.Image}}"));
    assert!(images.iter().all(|image| *image == images[0]), "{images:?}");
}

#[test]
fn a_registry_that_freezes_in_the_middle_of_a_pull_holds_up_one_release_and_no_service() {
    let Some(engine) = Engine::shared() else { return };
    let Some(registry) = Registry::start() else { return };
    let app = image(&engine, "v1");
    let patience = "restart: { attempts: 1, backoff: 100ms }";
    let setpoint = setpoint(&engine).manifest(&web(&app, 1, patience)).start();
    let before = setpoint.wait_until_converged("web");
    let load = setpoint.load("web.localhost", "/").rate(50).start();
    let tag = registry.image("frozen:1");
    // Long enough on its way to be stopped there.
    Image::new(&tag, "v2").file("ballast", vec![7; 200 << 20]).push(&registry);
    setpoint.apply_ok(&web(&tag, 1, patience).replace("deadline: 60s", "deadline: 5s"), &[]);
    let begun = |event: &serde_json::Value| event["message"].to_string().contains("copying_files");
    testkit::until("it is being fetched", testkit::setpoint::SOON, || {
        setpoint.events().iter().any(begun).then_some(())
    });
    registry.hang();
    let failed = setpoint.wait_for_event("deployment.failed", &["no progress within 5s"]);
    assert_eq!(failed["service"], "web", "{failed}");
    let after = setpoint.wait_for_service("web", "it is what it was", |web| {
        web["instances"].as_array().unwrap().len() == 1 && web["replicas"]["ready"] == 1
    });
    assert_eq!(after["instances"][0]["pid"], before["instances"][0]["pid"]);
    load.stop().assert_clean(50);
    registry.go_on();
    setpoint.apply_ok(&web(&tag, 1, patience), &[]);
    setpoint.ok(&["deploy", "web", "--wait=60s"]);
    assert_eq!(setpoint.get("web.localhost", "/").text(), "v2");
}

#[test]
fn an_image_that_cannot_be_had_is_refused_and_the_good_release_serves() {
    let Some(engine) = Engine::shared() else { return };
    let Some(registry) = Registry::start() else { return };
    let app = image(&engine, "v1");
    let setpoint = setpoint(&engine).manifest(&web(&app, 1, "")).start();
    setpoint.wait_until_converged("web");
    for (bad, expected) in
        [(registry.image("nowhere:1"), "does not exist"), ("127.0.0.1:1/web:1".into(), "check that it is up")]
    {
        let output = setpoint.apply(&web(&bad, 1, ""), &[]);
        assert_eq!(output.code, 1, "{bad}");
        assert!(output.stderr.contains(expected), "{bad}: {output:?}");
    }
    for bad in ["Acme/Web:1", "web:1:2", "--privileged"] {
        let output = setpoint.apply(&web(&format!("\"{bad}\""), 1, ""), &[]);
        assert_eq!(output.code, 1, "{bad}");
        assert!(
            output.stderr.contains("is not a valid image") || output.stderr.contains(":3:"),
            "{bad}: {output:?}"
        );
    }
    assert_eq!(setpoint.get("web.localhost", "/").text(), "v1");
    assert_eq!(setpoint.deployments("web").len(), 1, "nothing was begun");
}

#[test]
fn a_registry_with_a_password_is_asked_with_what_docker_login_stored() {
    let Some(engine) = Engine::shared() else { return };
    let Some(registry) = Registry::with_password() else { return };
    let tag = registry.image("private:1");
    let host = registry.address().to_string();
    Image::new(&tag, "private").push(&registry);
    let folder = tempfile::tempdir().unwrap();
    let config = |name: &str, text: &str| {
        let folder = folder.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.json"), text).unwrap();
        folder.display().to_string()
    };
    let app = image(&engine, "v1");
    let mut setpoint =
        setpoint(&engine).manifest(&web(&app, 1, "")).env("DOCKER_CONFIG", &config("none", "{}")).start();
    setpoint.wait_until_converged("web");
    let refused = setpoint.apply(&web(&tag, 1, ""), &[]);
    assert!(refused.code == 1 && refused.stderr.contains("docker login"), "{refused:?}");
    // me:wrong
    let wrong = format!("{{\"auths\":{{\"{host}\":{{\"auth\":\"bWU6d3Jvbmc=\"}}}}}}");
    setpoint.set_env("DOCKER_CONFIG", &config("wrong", &wrong));
    std::fs::write(setpoint.work().join("app.yaml"), web(&app, 1, "")).unwrap();
    setpoint.kill9();
    setpoint.restart();
    setpoint.wait_until_converged("web");
    let refused = setpoint.apply(&web(&tag, 1, ""), &[]);
    assert!(refused.code == 1 && refused.stderr.contains("docker login"), "{refused:?}");
    for told in [&refused.stderr, &setpoint.stderr()] {
        assert!(!told.contains("bWU6d3Jvbmc") && !told.contains("me:wrong"), "{told}");
    }
    assert_eq!(setpoint.deployments("web").len(), 1, "nothing was begun");
    assert_eq!(setpoint.get("web.localhost", "/").text(), "v1");
    // me:secret
    let auth = format!("{{\"auths\":{{\"{host}\":{{\"auth\":\"bWU6c2VjcmV0\"}}}}}}");
    setpoint.set_env("DOCKER_CONFIG", &config("me", &auth));
    setpoint.kill9();
    setpoint.restart();
    setpoint.wait_until_converged("web");
    setpoint.apply_ok(&web(&tag, 1, ""), &["--wait"]);
    assert_eq!(setpoint.get("web.localhost", "/").text(), "private");
    // A program that keeps them.
    let tag = registry.image("private:2");
    Image::new(&tag, "kept").push(&registry);
    let helper = folder.path().join("docker-credential-test");
    let answers = r#"{"ServerURL":"","Username":"me","Secret":"secret"}"#;
    testkit::fixture::script(&helper, &format!("[ \"$1 $(cat)\" = 'get {host}' ] && echo '{answers}'"));
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    setpoint.set_env("PATH", &path);
    let kept = format!("{{\"credHelpers\":{{\"{host}\":\"test\"}}}}");
    setpoint.set_env("DOCKER_CONFIG", &config("kept", &kept));
    setpoint.kill9();
    setpoint.restart();
    setpoint.wait_until_converged("web");
    setpoint.apply_ok(&web(&tag, 1, ""), &["--wait"]);
    assert_eq!(setpoint.get("web.localhost", "/").text(), "kept");
}

#[test]
fn a_release_whose_image_has_gone_from_everywhere_fails_and_the_good_one_serves() {
    let Some(engine) = Engine::shared() else { return };
    let Some(mut registry) = Registry::start() else { return };
    let tag = registry.image("gone:1");
    Image::new(&tag, "gone").label("of", "gone").push(&registry);
    let app = image(&engine, "v1");
    let patience = "restart: { attempts: 2, backoff: 100ms }";
    let setpoint = setpoint(&engine).manifest(&web(&app, 1, patience)).start();
    setpoint.wait_until_converged("web");
    setpoint.ok(&["stop", "web", "--wait"]);
    // Resolved while it is stopped; when it starts, the registry is gone.
    setpoint.apply_ok(&web(&tag, 1, patience), &[]);
    registry.destroy();
    let started = setpoint.cli(&["start", "web", "--wait=60s"]);
    assert_eq!(started.code, 1, "{started:?}");
    let failed = setpoint.deployments("web");
    let error = failed.iter().find_map(|d| d["metadata"]["error"].as_str()).unwrap_or_default().to_owned();
    assert!(error.contains("cannot be fetched"), "{error}: {failed:#?}");
    setpoint.wait_until_state("web", "degraded");
    assert_eq!(setpoint.get("web.localhost", "/").text(), "v1");
}

#[test]
fn what_the_policy_forbids_is_refused_with_the_setting_that_allows_it() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let mut setpoint = setpoint(&engine).manifest(&web(&app, 1, "")).file("shared/a", "from outside").start();
    setpoint.wait_until_converged("web");
    for (more, setting) in [
        ("volumes: [\"/etc:/etc-of-the-machine\"]", "containers.binds"),
        ("volumes: [\"/var/run/docker.sock:/s\"]", "containers.binds"),
        ("network: host", "containers.host_network"),
        ("capabilities: { add: [SYS_ADMIN] }", "containers.capabilities"),
    ] {
        let output = setpoint.apply(&web(&app, 1, more), &[]);
        assert!(output.code == 1 && output.stderr.contains(setting), "{more}: {output:?}");
    }
    setpoint.apply_ok(&web(&app, 1, ""), &[]);
    let shared = setpoint.work().join("shared");
    std::os::unix::fs::symlink("/etc", shared.join("link")).unwrap();
    setpoint.set_env("SETPOINT__CONTAINERS__BINDS", &format!("[\"{}\"]", shared.display()));
    setpoint.kill9();
    setpoint.restart();
    let patience = "restart: { attempts: 1, backoff: 100ms }";
    setpoint.apply_ok(&web(&app, 1, &format!("volumes: [\"./shared:/shared:ro\"]\n{patience}")), &["--wait"]);
    assert_eq!(setpoint.get("web.localhost", "/read?/shared/a").text(), "from outside");
    assert_eq!(setpoint.get("web.localhost", "/write?/shared/b").status, 403);
    // Allowed by its name, and leading elsewhere.
    let tricked = setpoint
        .apply(&web(&app, 1, &format!("volumes: [\"./shared/link:/x\"]\n{patience}")), &["--wait=60s"]);
    assert_eq!(tricked.code, 1);
    assert!(tricked.stderr.contains("leads to /etc"), "{tricked:?}");
    assert_eq!(
        setpoint.get("web.localhost", "/read?/shared/a").text(),
        "from outside",
        "the good one serves"
    );
}

#[test]
fn what_the_policy_no_longer_allows_is_given_to_nothing_that_starts() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let allowed = |setpoint: &mut testkit::Setpoint, folder: &str| {
        setpoint.set_env("SETPOINT__CONTAINERS__BINDS", &format!("[\"{folder}\"]"));
        setpoint.kill9();
        setpoint.restart();
    };
    let mut setpoint = setpoint(&engine).file("shared/a", "from outside").start();
    let shared = setpoint.work().join("shared").display().to_string();
    allowed(&mut setpoint, &shared);
    let patience = "restart: { attempts: 1, backoff: 100ms }";
    let with = format!("volumes: [\"./shared:/shared:ro\"]\n{patience}");
    setpoint.apply_ok(&web(&app, 1, &with), &["--wait"]);
    setpoint.apply_ok(&web(&app, 1, patience), &["--wait"]);
    allowed(&mut setpoint, "/nonexistent");
    let back = setpoint.cli(&["rollback", "web"]);
    assert!(back.code == 1 && back.stderr.contains("containers.binds"), "{back:?}");
    // What runs already runs on; when it ends, it gets nothing that is no longer allowed.
    allowed(&mut setpoint, &shared);
    setpoint.ok(&["rollback", "web", "--wait"]);
    allowed(&mut setpoint, "/nonexistent");
    setpoint.wait_until_converged("web");
    engine.docker(&["kill", &container(&setpoint, &engine, 0)]);
    let told = |web: &serde_json::Value| {
        web["instances"][0]["message"].as_str().is_some_and(|message| message.contains("containers.binds"))
    };
    setpoint.wait_for_service("web", "the setting is named", told);
    assert!(
        engine
            .docker(&["ps", "-q", "--filter", &format!("label=setpoint.cluster={}", setpoint.cluster())])
            .is_empty()
    );
}

#[test]
fn a_container_is_named_in_its_deployment() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let setpoint = setpoint(&engine).manifest(&web(&app, 1, "")).start();
    setpoint.wait_until_converged("web");
    let id = container(&setpoint, &engine, 0);
    assert_eq!(setpoint.deployments("web")[0]["metadata"]["container_id"].as_str(), Some(id.as_str()));
}
