//! Everything that is declared reaches the container, and what nobody declared is the careful choice.

use testkit::docker::{Engine, Image, Wire};

use crate::{container, image, setpoint, setpoint_over, web};

#[test]
fn what_is_declared_is_what_runs() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let more = "command: [told]\nuser: \"1234:55\"\nworkdir: /work\nenv: { LOG: info, SELF: \"${SETPOINT_INSTANCE}\" }\n\
                files: { conf/app.yaml: \"port ${PORT}\" }\ntmpfs: [/scratch, \"/small:1MiB\"]\nread_only: true\n\
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
    // What nearly every image needs but CHOWN: DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID, NET_BIND_SERVICE.
    let kept: u64 = [1, 3, 5, 6, 7, 10].into_iter().map(|bit| 1 << bit).sum();
    assert!(status.contains(&format!("CapBnd:\t{kept:016x}")), "{status}");
    assert_eq!(says("/write?/scratch/a"), "written");
    assert_eq!(setpoint.get("web.localhost", "/write?/etc-a").status, 403, "nothing else can be written");
    let mounts = says("/read?/proc/mounts");
    let small = mounts.lines().find(|line| line.contains(" /small ")).unwrap_or_default();
    assert!(small.starts_with("tmpfs ") && small.contains("size=1024k"), "{mounts}");
    let id = container(&setpoint, &engine, 0);
    let engine_says = |template: &str| engine.inspect(&id, template);
    assert_eq!(engine_says("{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}"), "67108864 67108864");
    assert_eq!(engine_says("{{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}"), "500000000 50");
    assert_eq!(engine_says("{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.Privileged}}"), "no false");
    assert_eq!(engine_says("{{.HostConfig.LogConfig.Config}}"), "map[max-file:2 max-size:1048576]");
    assert_eq!(engine_says("{{.Config.StopSignal}}"), "SIGTERM");
}

/// What its image asks to be ended with is what ends it in order, unless something else is declared.
#[test]
fn a_container_is_ended_as_its_image_asks_unless_declared_otherwise() {
    let Some(engine) = Engine::shared() else { return };
    let tag = "setpoint-test/ends:by-quit";
    Image::new(tag, "v1").config("StopSignal", serde_json::json!("SIGQUIT")).build(&engine);
    let setpoint = setpoint(&engine).manifest(&web(tag, 1, "")).start();
    setpoint.wait_until_converged("web");
    let asked = || {
        let id = container(&setpoint, &engine, 0);
        engine.try_docker(&["inspect", "--format", "{{.Config.StopSignal}}", &id]).unwrap_or_default()
    };
    assert_eq!(asked(), "SIGQUIT");
    setpoint.apply_ok(&web(tag, 1, "").replace("stop: { ", "stop: { signal: SIGINT, "), &["--wait=60s"]);
    // The old one may still be at its end.
    testkit::until("as declared", testkit::setpoint::SOON, || (asked() == "SIGINT").then_some(()));
}

#[test]
fn what_does_not_hear_is_killed_after_its_grace_and_the_other_replica_serves() {
    let Some(engine) = Engine::shared() else { return };
    let probe = "interval: 200ms, timeout: 1s, fall: 2";
    let health =
        format!("health: {{ readiness: {{ http: /healthz }}, liveness: {{ http: /healthz, {probe} }} }}");
    let manifest = web(&image(&engine, "v1"), 2, "env: { MODE: deaf }\nrestart: { attempts: 20 }");
    let setpoint = setpoint(&engine).manifest(&manifest.replace("health: /healthz", &health)).start();
    let before = setpoint.wait_until_converged("web");
    let id = container(&setpoint, &engine, 0);
    let mut events = engine.api().events(&serde_json::json!({ "event": ["kill"], "container": [id] }));
    let load = setpoint.load("web.localhost", "/").rate(100).start();
    let at = before["instances"][0]["address"].as_str().unwrap().to_owned();
    testkit::http::send(at.parse().unwrap(), testkit::http::Request::new("GET", &at, "/ill")).unwrap();
    let [asked, killed] = ["15", "9"].map(|signal| {
        let event = events.until("kill");
        assert_eq!(event["Actor"]["Attributes"]["signal"], signal, "{event:#}");
        event["timeNano"].as_u64().unwrap() / 1_000_000
    });
    assert!((3000..6000).contains(&(killed - asked)), "it had {} ms", killed - asked);
    let again = |web: &serde_json::Value| web["instances"][0]["restarts"] == 1 && web["state"] == "converged";
    let after = setpoint.wait_for_service("web", "it is started again", again);
    let exit = after["instances"][0]["last_exit"].as_str().unwrap();
    assert!(exit.starts_with("signal 9 (unhealthy: "), "{exit}");
    assert_eq!(after["instances"][1], before["instances"][1], "the other was not touched");
    load.stop().assert_clean(100);
}

#[test]
fn as_root_it_has_what_is_kept_and_what_was_added_and_nothing_that_was_dropped() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let more = "capabilities: { add: [NET_RAW], drop: [CHOWN, KILL] }";
    let setpoint = setpoint(&engine).manifest(&web(&app, 1, more)).start();
    setpoint.wait_until_converged("web");
    let has: u64 = [1, 3, 6, 7, 10, 13].into_iter().map(|bit| 1 << bit).sum();
    let status = setpoint.get("web.localhost", "/status").text();
    assert!(status.contains(&format!("CapEff:\t{has:016x}")), "{has:016x}: {status}");
}

#[test]
fn without_a_network_it_has_its_own_machine_alone() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let manifest = format!("services:\n  web:\n    image: {app}\n    network: none\n");
    let setpoint = setpoint(&engine).manifest(&manifest).start();
    let web = setpoint.wait_until_converged("web");
    let pid = web["instances"][0]["pid"].as_u64().unwrap();
    let devices = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
    let names: Vec<&str> =
        devices.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim()).collect();
    assert_eq!(names, ["lo"], "{devices}");
    assert!(web["instances"][0]["address"].is_null(), "{web:#}");
    let project = format!("default.{}", &setpoint.cluster()[..6]);
    assert!(
        engine.try_docker(&["network", "inspect", &project]).is_err(),
        "nobody needs the project's network"
    );
}

#[test]
fn with_the_machines_network_it_listens_on_the_port_that_it_is_given() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let fixed = testkit::setpoint::free_port().port();
    let service = |name: &str, port: &str| {
        format!(
            "  {name}:\n    image: {app}\n    network: host\n    port: {port}\n    health: /healthz\n    domains: [{name}.localhost]\n"
        )
    };
    let manifest =
        format!("services:\n{}{}", service("given", "dynamic"), service("fixed", &fixed.to_string()));
    let builder = setpoint(&engine).env("SETPOINT__CONTAINERS__HOST_NETWORK", "true");
    let setpoint = builder.manifest(&manifest).start();
    let address = |name: &str| {
        let service = setpoint.wait_until_converged(name);
        service["instances"][0]["address"].as_str().unwrap().parse::<std::net::SocketAddr>().unwrap()
    };
    assert!((31000..=32767).contains(&address("given").port()));
    assert_eq!(address("fixed").port(), fixed);
    for name in ["given", "fixed"] {
        let host = format!("{name}.localhost");
        assert_eq!(setpoint.get(&host, "/").text(), "v1");
        assert_eq!(setpoint.get(&host, "/env?PORT").text(), address(name).port().to_string());
    }
}

/// As with a process: it is nobody's fault, it is told, and it is over when the port is free.
#[test]
fn with_the_machines_network_a_port_that_somebody_took_is_told_and_costs_no_attempt() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let port = testkit::setpoint::free_port().port();
    let manifest = format!(
        "services:\n  web:\n    image: {app}\n    network: host\n    port: {port}\n    health: /healthz\n    \
         restart: {{ attempts: 1 }}\n"
    );
    let wire = Wire::to(engine.api());
    let builder = setpoint_over(&wire).env("SETPOINT__CONTAINERS__HOST_NETWORK", "true");
    let setpoint = builder.manifest(&manifest).start();
    let web = setpoint.wait_until_converged("web");
    // Once dead it frees the port, and is started again only when somebody has it.
    wire.delay("/start");
    let pid = web["instances"][0]["pid"].as_u64().unwrap();
    testkit::proc::kill9(u32::try_from(pid).unwrap());
    let taken = testkit::until("its port is free", testkit::setpoint::SOON, || {
        std::net::TcpListener::bind(("127.0.0.1", port)).ok()
    });
    wire.delay_no_more();
    let sentence = format!("port {port} at 127.0.0.1 is taken by another program");
    let told = |web: &serde_json::Value| web["message"].as_str().is_some_and(|told| told.contains(&sentence));
    let meanwhile = setpoint.wait_for_service("web", "it is told that its port is taken", told);
    assert_eq!(meanwhile["instances"][0]["state"], "starting", "{meanwhile:#}");
    let restarts = meanwhile["instances"][0]["restarts"].as_u64().unwrap();
    // It is looked at every second.
    let spent = testkit::wait::within(std::time::Duration::from_secs(4), || {
        let web = setpoint.service("web");
        (web["instances"][0]["restarts"].as_u64() > Some(restarts) || !told(&web)).then_some(web)
    });
    assert_eq!(spent, None, "it waits, and spends nothing");
    drop(taken);
    let again = |web: &serde_json::Value| web["state"] == "converged" && web["replicas"]["ready"] == 1;
    // It was the only attempt.
    setpoint.wait_for_service("web", "it has its port again", again);
}

#[test]
fn what_the_kernel_ends_for_want_of_memory_says_so_with_its_limit() {
    const WHY: &str = "out of memory: its limit is 64MiB";
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let more = "resources: { memory: 64MiB }\nrestart: { attempts: 20, backoff: 100ms, max_backoff: 100ms }";
    let setpoint = setpoint(&engine).manifest(&web(&app, 1, more)).start();
    let mut web = setpoint.wait_until_converged("web");
    for times in 1..=4 {
        let address = web["instances"][0]["address"].as_str().unwrap().to_owned();
        let ask = testkit::http::Request::new("GET", &address, "/allocate?200");
        assert!(testkit::http::send(address.parse().unwrap(), ask).is_err(), "it did not survive that");
        let again = |web: &serde_json::Value| {
            web["instances"][0]["restarts"] == times && web["replicas"]["ready"] == 1
        };
        web = setpoint.wait_for_service("web", "it runs again", again);
        assert_eq!(web["instances"][0]["last_exit"], format!("signal 9 ({WHY})"));
    }
    setpoint.wait_for_event("instance.exited", &[WHY]);
    let instance = web["instances"][0]["id"].as_str().unwrap();
    let explained = setpoint.ok(&["explain", instance]);
    assert!(explained.contains(WHY), "{explained}");
    let often = |web: &serde_json::Value| {
        web["message"].to_string().contains(WHY) && web["warnings"].to_string().contains(WHY)
    };
    setpoint.wait_for_service("web", "what ends it too often is told", often);
}

/// An engine may be told by the kernel only after it was asked how the run ended; then its event says so.
#[test]
fn want_of_memory_that_the_engine_tells_of_later_is_why_it_ended_all_the_same() {
    const WHY: &str = "out of memory: its limit is 64MiB";
    let Some(engine) = Engine::shared() else { return };
    let wire = Wire::to(engine.api());
    let manifest = web(&image(&engine, "v1"), 1, "resources: { memory: 64MiB }");
    let setpoint = setpoint_over(&wire).manifest(&manifest).start();
    let before = setpoint.wait_until_converged("web");
    let id = container(&setpoint, &engine, 0);
    let mut events = engine.api().events(&serde_json::json!({ "event": ["oom"], "container": [id] }));
    // It says nothing of the end, and nothing begins anew before it has told.
    wire.delay("/start");
    wire.refuse(&format!("{id}/json"));
    let address = before["instances"][0]["address"].as_str().unwrap().to_owned();
    let ask = testkit::http::Request::new("GET", &address, "/allocate?200");
    assert!(testkit::http::send(address.parse().unwrap(), ask).is_err(), "it did not survive that");
    events.until("oom");
    setpoint.wait_for_event("instance.exited", &["signal 9"]);
    wire.refuse_no_more();
    wire.delay_no_more();
    let again = |web: &serde_json::Value| {
        web["instances"][0]["restarts"] == 1
            && web["replicas"]["ready"] == 1
            && web["instances"][0]["last_exit"] == format!("signal 9 ({WHY})")
    };
    setpoint.wait_for_service("web", "it runs again, and why it ended is told", again);
    setpoint.wait_for_event("instance.exited", &[WHY]);
}

/// As an engine does it: an `entrypoint` takes the place of the image's and of its CMD; a `command` that of its CMD alone.
#[test]
fn entrypoint_and_command_take_the_place_of_what_the_image_says() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let bare = "setpoint-test/bare:1";
    let words = serde_json::json!(["/app", "v1"]);
    let none = serde_json::Value::Null;
    testkit::docker::Image::new(bare, "v1").config("Entrypoint", none).config("Cmd", words).build(&engine);
    let cases = [
        ("plain", &app[..], "", r#"["/app", "v1"]"#),
        ("told", &app, "command: [told]", r#"["/app", "told"]"#),
        ("entered", &app, "entrypoint: [/app, fixed]", r#"["/app", "fixed"]"#),
        (
            "both",
            &app,
            "entrypoint: [/app, \"on ${PORT}\"]\n    command: [told]",
            r#"["/app", "on 8080", "told"]"#,
        ),
        ("bare", bare, "", r#"["/app", "v1"]"#),
        ("bare-told", bare, "command: [/app, told]", r#"["/app", "told"]"#),
        ("bare-entered", bare, "entrypoint: [/app]", r#"["/app"]"#),
    ];
    let mut manifest = "services:\n".to_owned();
    for (name, image, more, _) in cases {
        manifest.push_str(&format!(
            "  {name}:\n    image: {image}\n    port: 8080\n    health: /healthz\n    domains: [{name}.localhost]\n    {more}\n"
        ));
    }
    let setpoint = setpoint(&engine).manifest(&manifest).start();
    for (name, _, _, argv) in cases {
        setpoint.wait_until_converged(name);
        assert_eq!(setpoint.get(&format!("{name}.localhost"), "/argv").text(), argv, "{name}");
    }
}

#[test]
fn another_entrypoint_is_another_release_and_what_somebody_runs_in_its_place_is_corrected() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let setpoint = setpoint(&engine).manifest(&web(&app, 1, "entrypoint: [/app, one]")).start();
    let before = setpoint.wait_until_converged("web");
    setpoint.apply_ok(&web(&app, 1, "entrypoint: [/app, two]"), &["--wait=60s"]);
    let after = setpoint.wait_until_converged("web");
    assert_ne!(before["instances"][0]["id"], after["instances"][0]["id"]);
    assert_eq!(setpoint.get("web.localhost", "/argv").text(), r#"["/app", "two"]"#);
    // Nobody can change it in place: by hand it takes another container of that name.
    let ours = container(&setpoint, &engine, 0);
    let name = engine.inspect(&ours, "{{.Name}}").trim_start_matches('/').to_owned();
    let network = engine.inspect(&ours, "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}");
    engine.docker(&["rm", "-f", &ours]);
    let theirs = engine.docker(&[
        "run",
        "-d",
        "--name",
        &format!("{name}-by-hand"),
        "--network",
        &network,
        "--entrypoint",
        "/app",
        &app,
        "three",
    ]);
    let id = after["instances"][0]["id"].as_str().unwrap();
    testkit::until("it is as declared again", testkit::setpoint::SOON, || {
        let held = engine.containers(&setpoint, id);
        let entered =
            engine.try_docker(&["inspect", "--format", "{{.Config.Entrypoint}}", held.first()?]).ok()?;
        (entered == "[/app two]").then_some(())
    });
    // Its routes follow a moment later.
    let says = || setpoint.get("web.localhost", "/argv").text();
    testkit::until("it serves", testkit::setpoint::SOON, || (says() == r#"["/app", "two"]"#).then_some(()));
    assert_eq!(engine.inspect(&theirs, "{{.State.Status}}"), "running", "what is not ours is left alone");
    engine.docker(&["rm", "-f", &theirs]);
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
fn output_is_followed_from_before_a_container_is_made_and_over_its_ends() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let setpoint =
        setpoint(&engine).manifest(&web(&app, 1, "restart: { attempts: 20, backoff: 100ms }")).start();
    let mut followed = testkit::Followed::of(setpoint.asking(&["logs", "-f", "web"]));
    let mut listens = |times| followed.wait_for_lines("v1 listens on", times);
    listens(1);
    setpoint.wait_until_converged("web");
    for (restarts, end) in [(1, "kill"), (2, "stop")] {
        engine.docker(&[end, &crate::container(&setpoint, &engine, 0)]);
        let again = |web: &serde_json::Value| {
            web["instances"][0]["restarts"] == restarts && web["state"] == "converged"
        };
        setpoint.wait_for_service("web", "it is started again", again);
        listens(1 + usize::try_from(restarts).unwrap());
    }
    // Another container in its place.
    engine.docker(&["rm", "-f", &crate::container(&setpoint, &engine, 0)]);
    listens(4);
    setpoint.ok(&["delete", "web", "--wait"]);
    followed.wait_for_end();
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
fn what_never_comes_up_fails_with_its_reason_and_its_output() {
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

#[test]
fn what_keeps_dying_is_degraded_with_its_reason_and_its_output_until_no_attempt_is_left() {
    const WHY: &str = "it ended with exit status 7";
    let Some(engine) = Engine::shared() else { return };
    let manifest = web(&image(&engine, "v1"), 2, "restart: { attempts: 4, backoff: 100ms }");
    let setpoint = setpoint(&engine).manifest(&manifest).start();
    let mut web = setpoint.wait_until_converged("web");
    let load = setpoint.load("web.localhost", "/").rate(100).start();
    let id = web["instances"][0]["id"].as_str().unwrap().to_owned();
    let end = |web: &serde_json::Value| {
        let at = web["instances"][0]["address"].as_str().unwrap();
        let ask = testkit::http::Request::new("GET", at, "/end?7");
        assert!(testkit::http::send(at.parse().unwrap(), ask).is_err(), "it did not survive that");
    };
    for times in 1..=4 {
        end(&web);
        let again = |web: &serde_json::Value| {
            web["instances"][0]["restarts"] == times && web["replicas"]["ready"] == 2
        };
        web = setpoint.wait_for_service("web", "it runs again", again);
    }
    let told = |health: &str, message: &str| {
        let all = setpoint.ask("GET", "/api/monitoring/health", None).json();
        let (checkup, project) = (&all["services"][0], &all["projects"][0]);
        let fits = checkup["health"] == health && checkup["message"].to_string().contains(message);
        fits.then(|| {
            assert_eq!(project["health"], "degraded", "{all:#}");
            assert!(project["message"].to_string().contains(message), "{all:#}");
            assert!(checkup["lastIssue"].to_string().contains("exit status 7"), "{all:#}");
            checkup.clone()
        })
    };
    let often = format!("was restarted 4 times within 10m: {WHY}");
    let checkup = testkit::until("it is told that it dies too often", testkit::setpoint::SOON, || {
        told("degraded", &often)
    });
    let warning = &checkup["restartWarnings"][0];
    assert_eq!((&warning["instance"], &warning["restarts"]), (&id.as_str().into(), &4.into()), "{checkup:#}");
    let lines = setpoint.ask("GET", warning["logs"].as_str().unwrap(), None).text();
    assert!(lines.contains("last words: told to end with 7"), "{lines}");
    setpoint.wait_for_event("alert.restarts", &[&id, WHY]);
    // Once more, and it is left.
    end(&web);
    let failed =
        |web: &serde_json::Value| web["instances"][0]["state"] == "failed" && web["state"] == "degraded";
    let left = setpoint.wait_for_service("web", "no attempt is left", failed);
    assert_eq!((&left["instances"][0]["restarts"], &left["replicas"]["ready"]), (&4.into(), &1.into()));
    assert!(left["message"].to_string().contains(WHY), "{left:#}");
    testkit::until("that is told too", testkit::setpoint::SOON, || told("degraded", WHY));
    let stats = setpoint.ask("GET", "/api/monitoring/stats", None).json();
    assert_eq!(
        (&stats["runningContainers"], &stats["unhealthyContainers"], &stats["stoppedContainers"]),
        (&1.into(), &1.into(), &0.into()),
        "{stats:#}"
    );
    let explained = setpoint.ok(&["explain", "web"]);
    assert!(explained.contains(WHY) && explained.contains("last words: told to end with 7"), "{explained}");
    let report = load.stop();
    println!("{report}");
    // A request that was being answered by what died cannot be saved; all others are.
    assert!(report.failures().len() <= 5, "{report}");
}

#[test]
fn a_name_as_long_as_names_may_be_is_no_obstacle() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let name = format!("w{}", "x".repeat(62));
    let manifest = web(&app, 1, "").replacen("  web:", &format!("  {name}:"), 1);
    let setpoint = setpoint(&engine).manifest(&manifest).start();
    setpoint.wait_until_converged(&name);
    let host = setpoint.get("web.localhost", "/hostname").text();
    assert!(host.len() <= 63 && host.ends_with("-0"), "{host}");
}
