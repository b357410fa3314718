//! Everything that is declared reaches the container, and what nobody declared is the careful choice.

use testkit::docker::Engine;

use crate::{container, image, setpoint, web};

#[test]
fn what_is_declared_is_what_runs() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let more = "command: [told]\nuser: \"1234:55\"\nworkdir: /work\nenv: { LOG: info, SELF: \"${SETPOINT_INSTANCE}\" }\n\
                files: { conf/app.yaml: \"port ${PORT}\" }\ntmpfs: [/scratch]\nread_only: true\n\
                volumes: [\"data:/data\"]\nresources: { memory: 64MiB, cpus: 0.5, pids: 50 }\n\
                capabilities: { drop: [CHOWN] }\nlogs: { max_size: 1MiB, max_files: 2 }";
    let setpoint = setpoint(&engine).manifest(&web(&app, 1, more)).start();
    let service = setpoint.wait_until_converged("web");
    assert_eq!(service["kind"], "container");
    let says = |path: &str| setpoint.get("web.localhost", path).text();
    assert_eq!(says("/"), "told");
    assert_eq!(says("/env?LOG"), "info");
    assert_eq!(says("/env?SELF"), service["instances"][0]["id"].as_str().unwrap());
    assert_eq!(says("/cwd"), "/work");
    assert_eq!(says("/read?conf/app.yaml"), "port 8080");
    let status = says("/status");
    assert!(status.contains("Uid:\t1234\t") && status.contains("Gid:\t55\t"), "{status}");
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(status.contains("CapEff:\t0000000000000000"), "another user than root has none: {status}");
    assert_eq!(says("/write?/scratch/a"), "written");
    assert_eq!(setpoint.get("web.localhost", "/write?/etc-a").status, 403, "nothing else can be written");
    let id = container(&setpoint, &engine, 0);
    let engine_says = |template: &str| engine.inspect(&id, template);
    assert_eq!(engine_says("{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}"), "67108864 67108864");
    assert_eq!(engine_says("{{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}"), "500000000 50");
    assert_eq!(engine_says("{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.Privileged}}"), "no false");
    assert_eq!(engine_says("{{.HostConfig.LogConfig.Config}}"), "map[max-file:2 max-size:1048576]");
    assert_eq!(engine_says("{{.Config.StopSignal}}"), "SIGTERM");
}

#[test]
fn services_of_a_project_reach_each_other_by_name_and_others_do_not() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let service = |name: &str| {
        format!(
            "  {name}:\n    image: {app}\n    port: 8080\n    command: [{name}]\n    domains: [{name}.localhost]\n"
        )
    };
    let manifest = format!(
        "services:\n{}{}---\nproject: other\nservices:\n{}",
        service("web"),
        service("api"),
        service("apart")
    );
    let setpoint = setpoint(&engine).manifest(&manifest).start();
    for name in ["web", "api"] {
        setpoint.wait_until_converged(name);
    }
    let asked = || setpoint.get("web.localhost", "/ask?api:8080").text();
    assert_eq!(asked(), "api");
    assert_eq!(
        setpoint.get("web.localhost", "/ask?apart:8080").status,
        404,
        "another project's name is not known"
    );
}

#[test]
fn output_is_read_followed_and_kept_when_the_container_is_gone() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let noisy = web(&app, 1, "env: { MODE: noisy }");
    let setpoint = setpoint(&engine).manifest(&noisy).start();
    let service = setpoint.wait_until_converged("web");
    let id = service["instances"][0]["id"].as_str().unwrap().to_owned();
    let output = setpoint.ok(&["logs", "web"]);
    assert!(output.contains("v1 listens on 0.0.0.0:8080"), "{}", output.len());
    assert!(!output.contains('\u{1b}'), "what a terminal would obey is escaped");
    setpoint.ok(&["delete", "web", "--wait"]);
    let kept = setpoint.ok(&["logs", "web", "--instance", &id, "--tail", "2"]);
    assert!(kept.contains("ends"), "{kept}");
    assert!(engine.containers(&setpoint, &id).is_empty());
}

#[test]
fn an_images_own_check_is_honoured_where_none_is_declared() {
    let Some(engine) = Engine::shared() else { return };
    let tag = "setpoint-test/checked:1";
    testkit::docker::Image::new(tag, "checked").healthcheck(1000).build(&engine);
    let manifest = format!(
        "services:\n  web:\n    image: {tag}\n    port: 8080\n    domains: [web.localhost]\n    restart: {{ attempts: 20 }}\n"
    );
    let setpoint = setpoint(&engine).manifest(&manifest).start();
    let before = setpoint.wait_until_converged("web");
    setpoint.get("web.localhost", "/ill");
    setpoint.wait_for_event("instance.unready", &["image's check fails"]);
    let restarted =
        |web: &serde_json::Value| web["instances"][0]["restarts"] == 1 && web["state"] == "converged";
    let after = setpoint.wait_for_service("web", "it is restarted and well", restarted);
    assert_ne!(before["instances"][0]["pid"], after["instances"][0]["pid"]);
    assert_eq!(before["instances"][0]["id"], after["instances"][0]["id"]);
}

#[test]
fn what_keeps_dying_is_degraded_with_its_reason_and_its_output() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let dying = web(&app, 1, "env: { MODE: \"exit:3\" }\nrestart: { attempts: 2, backoff: 100ms }");
    let setpoint = setpoint(&engine).manifest(&dying).start();
    setpoint.wait_for_event("deployment.failed", &["3"]);
    let failed = setpoint.deployments("web");
    let error = failed[0]["metadata"]["error"].as_str().unwrap_or_default().to_owned();
    assert!(error.contains("exit status 3"), "{error}: {failed:#?}");
    let output = setpoint.ok(&["logs", "web", "--tail", "100"]);
    assert!(output.contains("ends at once with 3"), "{output}");
}
