//! Everything that somebody can do behind our back is seen, told field by field, and undone; what may not be undone is
//! told.

use testkit::{
    Builder, Setpoint,
    docker::{Engine, Image, Registry, Wire},
};

use crate::{container, image, setpoint, setpoint_over, web};

/// Two replicas, of which the first is meddled with while the other serves.
pub struct Stage {
    pub setpoint: Setpoint,
    pub engine: Engine,
}

fn stage() -> Option<Stage> {
    let engine = Engine::shared()?;
    let app = image(&engine, "v1");
    let limits = "resources: { memory: 64MiB }\nrestart: { attempts: 20 }";
    Some(Stage::of(setpoint(&engine).manifest(&web(&app, 2, limits)), engine))
}

/// Another service, at `calm.localhost`, that nobody meddles with.
pub fn with_calm(web: &str, app: &str) -> String {
    format!(
        "{web}  calm:\n    image: {app}\n    port: 8080\n    health: /healthz\n    domains: [calm.localhost]\n"
    )
}

impl Stage {
    pub fn of(builder: Builder, engine: Engine) -> Self {
        let setpoint = builder.start();
        setpoint.wait_until_converged("web");
        Self { setpoint, engine }
    }

    /// Meddles while this host is asked all the time.
    #[track_caller]
    pub fn under_load(&self, host: &str, lost_at_most: usize, meddle: impl FnOnce(&Self)) {
        let load = self.setpoint.load(host, "/").rate(100).start();
        load.go_on_for(10);
        meddle(self);
        load.go_on_for(10);
        let report = load.stop();
        assert!(report.failures().len() <= lost_at_most, "{report}");
    }

    pub fn victim(&self) -> String {
        container(&self.setpoint, &self.engine, 0)
    }

    /// Meddles, and waits until the drift of this path was told, with the engine's word for what was done, and is over.
    #[track_caller]
    fn drifts(&self, path: &str, action: &str, meddle: impl FnOnce(&str)) {
        let victim = self.victim();
        meddle(&victim);
        self.setpoint.wait_for_event("drift.found", &[path, &format!(" by engine: {action}")]);
        self.setpoint.wait_for_event("drift.corrected", &[path]);
        self.setpoint.wait_until_converged("web");
        assert_eq!(self.victim(), victim, "it was put right, not replaced");
        assert_eq!(self.restarts(), 0, "and nobody was disturbed");
    }

    /// Meddles, and waits until it runs again, restarted once. That it did not run was drift, by one of these actions.
    #[track_caller]
    fn restarts_once(&self, actions: &[&str], meddle: impl FnOnce(&str)) {
        let before = self.setpoint.service("web");
        meddle(&self.victim());
        let again =
            |web: &serde_json::Value| web["instances"][0]["restarts"] == 1 && web["state"] == "converged";
        let after = self.setpoint.wait_for_service("web", "it runs again, restarted once", again);
        assert_eq!(before["instances"][0]["id"], after["instances"][0]["id"]);
        assert_eq!(before["instances"][1], after["instances"][1], "the other was not touched");
        let found =
            self.setpoint.wait_for_event("drift.found", &["container/running is false, declared is true"]);
        let told = found["message"].as_str().unwrap();
        assert!(actions.iter().any(|action| told.ends_with(&format!(" by engine: {action}"))), "{told}");
        self.setpoint.wait_for_event("drift.corrected", &["container/running"]);
        let exit = self.setpoint.service("web")["instances"][0]["last_exit"].to_string();
        assert!(exit.contains("(engine: "), "{exit}");
    }

    fn restarts(&self) -> u64 {
        let web = self.setpoint.service("web");
        web["instances"].as_array().unwrap().iter().map(|i| i["restarts"].as_u64().unwrap()).sum()
    }
}

macro_rules! rows {
    ($($name:ident, lost at most $lost:literal => |$stage:ident| $body:expr;)*) => {$(
        #[test]
        fn $name() {
            let Some(stage) = stage() else { return };
            // A request that was being answered by what was killed cannot be saved; all others are.
            stage.under_load("web.localhost", $lost, |$stage| $body);
        }
    )*};
}

rows! {
    a_killed_container_is_started_again, lost at most 2 => |stage| stage.restarts_once(&["kill"], |id| drop(stage.engine.docker(&["kill", id])));
    a_stopped_container_is_started_again, lost at most 2 => |stage| {
        stage.restarts_once(&["stop"], |id| drop(stage.engine.docker(&["stop", "-t", "1", id])))
    };
    a_removed_container_is_made_anew, lost at most 2 => |stage| {
        stage.restarts_once(&["kill", "destroy"], |id| drop(stage.engine.docker(&["rm", "-f", id])))
    };
    a_container_made_anew_by_hand_without_labels_stands_in_nobodys_way, lost at most 2 => |stage| {
        let engine = &stage.engine;
        let name = engine.inspect(&stage.victim(), "{{.Name}}").trim_start_matches('/').to_owned();
        // Under a name of its own first, so that nothing comes in between.
        let other = format!("{name}-by-hand");
        let by_hand =
            engine.docker(&["create", "--name", &other, "--network", "none", &image(engine, "v1")]);
        let mut taken = None;
        stage.restarts_once(&["kill", "destroy"], |id| {
            engine.docker(&["rm", "-f", id]);
            taken = Some(engine.try_docker(&["rename", &by_hand, &name]));
        });
        assert_ne!(stage.victim(), by_hand);
        assert_eq!(engine.inspect(&by_hand, "{{.State.Status}}"), "created", "it was left alone ({taken:?})");
        engine.docker(&["rm", "-f", &by_hand]);
    };
    a_container_that_somebody_restarted_is_held_on, lost at most 2 => |stage| {
        stage.restarts_once(&["stop", "restart"], |id| drop(stage.engine.docker(&["restart", "-t", "1", id])))
    };
    a_paused_container_goes_on, lost at most 2 => |stage| {
        stage.drifts("container/paused", "pause", |id| drop(stage.engine.docker(&["pause", id])))
    };
    a_renamed_container_gets_its_name_back, lost at most 0 => |stage| {
        stage.drifts("container/name", "rename", |id| drop(stage.engine.docker(&["rename", id, &format!("x{}", &id[..12])])))
    };
    a_container_off_its_network_is_put_back, lost at most 2 => |stage| {
        stage.drifts("container/network", "disconnect", |id| {
            let networks = stage.engine.inspect(id, "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}");
            stage.engine.docker(&["network", "disconnect", &networks, id]);
        })
    };
    a_container_that_came_back_without_its_names_gets_them, lost at most 2 => |stage| {
        // By whichever of the two it has heard of when it looks.
        stage.drifts("container/aliases", "", |id| {
            let networks = stage.engine.inspect(id, "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}");
            // Both before anybody looks.
            testkit::proc::stop(stage.setpoint.pid());
            stage.engine.docker(&["network", "disconnect", &networks, id]);
            stage.engine.docker(&["network", "connect", &networks, id]);
            testkit::proc::go_on(stage.setpoint.pid());
        });
        // An engine names it by its host name, and knows no other.
        stage.setpoint.wait_for_event("drift.found", &["container/aliases is web-0, declared is web, web-0"]);
        let found = || stage.setpoint.get("web.localhost", "/resolve?web").text();
        testkit::until("both are found by the service's name", testkit::setpoint::SOON, || {
            (found().split(' ').count() == 2).then_some(())
        })
    };
    changed_limits_are_put_back, lost at most 0 => |stage| {
        stage.drifts("container/memory", "update", |id| {
            stage.engine.docker(&["update", "--memory", "100m", "--memory-swap", "200m", id]);
        });
        assert_eq!(stage.engine.inspect(&stage.victim(), "{{.HostConfig.Memory}}"), "67108864")
    };
    whatever_an_engine_can_limit_is_put_back, lost at most 0 => |stage| {
        for (flag, value, path) in [
            ("--cpu-quota", "50000", "container/cpu_quota"),
            ("--cpu-period", "50000", "container/cpu_period"),
            ("--cpu-shares", "100", "container/cpu_shares"),
            ("--cpuset-cpus", "0", "container/cpuset"),
            ("--memory-reservation", "10m", "container/memory_reservation"),
            ("--pids-limit", "50", "container/pids"),
        ] {
            stage.drifts(path, "update", |id| drop(stage.engine.docker(&["update", flag, value, id])));
        }
        // After all of them, and at rest.
        stage.drifts("container/memory", "update", |id| {
            stage.engine.docker(&["update", "--memory", "100m", "--memory-swap", "200m", id]);
        });
        let found = |event: &&serde_json::Value| event["kind"] == "drift.found";
        let found: Vec<String> =
            stage.setpoint.events().iter().filter(found).map(|event| event["message"].to_string()).collect();
        assert_eq!(found.len(), 8, "each was put right at once and for good: {found:#?}");
    };
    the_engines_own_restart_policy_stays_off, lost at most 0 => |stage| {
        stage.drifts("container/restart_policy", "update", |id| {
            stage.engine.docker(&["update", "--restart", "always", id]);
        });
        assert_eq!(stage.engine.inspect(&stage.victim(), "{{.HostConfig.RestartPolicy.Name}}"), "no")
    };
}

#[test]
fn drift_says_since_when_and_by_what_as_the_engine_tells() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let manifest = web(&app, 1, "resources: { memory: 64MiB }\ndrift: warn");
    let mut setpoint = setpoint(&engine).manifest(&manifest).start();
    setpoint.wait_until_converged("web");
    let id = container(&setpoint, &engine, 0);
    let mut events =
        engine.api().events(&serde_json::json!({ "event": ["rename", "update", "disconnect", "pause"] }));
    let network = engine.inspect(&id, "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}");
    let mut expected = Vec::new();
    for (path, action, args) in [
        ("container/name", "rename", vec!["rename", &id, "by-hand"]),
        ("container/memory", "update", vec!["update", "--memory", "100m", "--memory-swap", "200m", &id]),
        ("container/memory_swap", "update", vec![]),
        ("container/network", "disconnect", vec!["network", "disconnect", &network, &id]),
    ] {
        if !args.is_empty() {
            engine.docker(&args);
            let about_it = |event: &serde_json::Value| {
                [&event["Actor"]["ID"], &event["Actor"]["Attributes"]["container"]]
                    .iter()
                    .any(|of| **of == id.as_str())
            };
            let event = std::iter::repeat_with(|| events.until(action)).find(about_it).unwrap();
            expected.push((path, action, event["timeNano"].as_u64().unwrap() / 1_000_000));
        } else {
            let (_, _, at) = *expected.last().unwrap();
            expected.push((path, action, at));
        }
    }
    expected.sort();
    let rows = |setpoint: &Setpoint| setpoint.json(&["drift", "web"])["drift"].as_array().unwrap().clone();
    let all = testkit::until("all four differ", testkit::setpoint::SOON, || {
        let rows = rows(&setpoint);
        (rows.len() == expected.len()).then_some(rows)
    });
    for (row, (path, action, at)) in all.iter().zip(&expected) {
        assert_eq!(row["path"], *path);
        assert_eq!(row["by"], format!("engine: {action}"), "{row:#}");
        assert_eq!(row["since"], model::Timestamp(*at).to_string(), "{row:#}");
    }
    let table = setpoint.ok(&["drift"]);
    assert!(table.contains("engine: rename"), "{table}");
    // The same after a restart of Setpoint, and so is what was done meanwhile.
    setpoint.kill9();
    engine.docker(&["pause", &id]);
    let at = events.until("pause")["timeNano"].as_u64().unwrap() / 1_000_000;
    setpoint.restart();
    let later = testkit::until("it is paused too", testkit::setpoint::SOON, || {
        let rows = rows(&setpoint);
        (rows.len() == expected.len() + 1).then_some(rows)
    });
    let (paused, others): (Vec<_>, Vec<_>) =
        later.into_iter().partition(|row| row["path"] == "container/paused");
    assert_eq!(others, all);
    assert_eq!(paused[0]["by"], "engine: pause");
    assert_eq!(paused[0]["since"], model::Timestamp(at).to_string());
    engine.docker(&["unpause", &id]);
}

/// With its network it loses its address: it takes no request and is not asked how it is, and least of all is somebody
/// else.
#[test]
fn a_container_that_is_left_off_its_network_is_out_of_the_routes_until_it_is_back() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let probe = "interval: 200ms, timeout: 200ms";
    // So late that no probe has failed as often as it may before everything is looked at.
    let health = format!(
        "health: {{ readiness: {{ http: /healthz, {probe}, fall: 60 }}, liveness: {{ http: /healthz, {probe}, fall: 3 }} }}"
    );
    let manifest = web(&app, 2, "drift: warn").replace("health: /healthz", &health);
    let setpoint = setpoint(&engine).manifest(&manifest).start();
    let before = setpoint.wait_until_converged("web");
    let id = container(&setpoint, &engine, 0);
    let network = engine.inspect(&id, "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}");
    engine.docker(&["network", "disconnect", &network, &id]);
    let off = |web: &serde_json::Value| {
        let first = &web["instances"][0];
        first["ready"] == false
            && first["message"].as_str().is_some_and(|message| message.contains("off its network"))
    };
    let meanwhile = setpoint.wait_for_service("web", "it is not ready, and why", off);
    assert_eq!(meanwhile["replicas"]["ready"], 1, "{meanwhile:#}");
    let load = setpoint.load("web.localhost", "/").rate(100).start();
    // As long as it takes a liveness probe to end what it cannot reach, and more.
    load.go_on_for(200);
    load.stop().assert_clean(200);
    let still = setpoint.service("web");
    assert!(off(&still) && still["instances"][0]["restarts"] == 0, "{still:#}");
    engine.docker(&["network", "connect", "--alias", "web", "--alias", "web-0", &network, &id]);
    let back = |web: &serde_json::Value| web["replicas"]["ready"] == 2 && web["state"] == "converged";
    let after = setpoint.wait_for_service("web", "it is back", back);
    assert_eq!(testkit::setpoint::pids(&after), testkit::setpoint::pids(&before));
    let events = setpoint.events();
    let probed_another = |event: &&serde_json::Value| event["message"].to_string().contains("127.0.0.1:");
    assert_eq!(events.iter().find(probed_another), None);
}

#[test]
fn limits_that_nobody_declared_are_taken_away_again() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let setpoint = setpoint(&engine).manifest(&web(&app, 1, "")).start();
    let before = setpoint.wait_until_converged("web");
    let id = container(&setpoint, &engine, 0);
    engine.docker(&["update", "--memory", "100m", "--memory-swap", "200m", "--cpu-shares", "100", &id]);
    setpoint.wait_for_event("drift.corrected", &["container/memory"]);
    setpoint.wait_for_event("drift.corrected", &["container/cpu_shares"]);
    let after = setpoint.wait_until_converged("web");
    assert_eq!(after["instances"][0]["pid"], before["instances"][0]["pid"]);
    let pid = u32::try_from(after["instances"][0]["pid"].as_u64().unwrap()).unwrap();
    assert!(memory_limit(pid).is_none_or(|bytes| bytes > 1 << 30), "{:?}", memory_limit(pid));
}

/// As the kernel has it, of either version of control groups; `None`: there is none.
fn memory_limit(pid: u32) -> Option<u64> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path =
        |of: &str| groups.lines().find_map(|line| line.split_once(of).map(|(_, path)| path.to_owned()));
    let file = match (path(":memory:"), path("0::")) {
        (Some(path), _) => format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes"),
        (None, path) => format!("/sys/fs/cgroup{}/memory.max", path.unwrap()),
    };
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}")).trim().parse().ok()
}

/// A list does not show limits: a change whose event was lost is found by looking closely.
#[test]
fn what_no_event_tells_and_no_list_shows_is_found_all_the_same() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let wire = Wire::to(engine.api());
    let limits = "resources: { memory: 64MiB }";
    let setpoint =
        setpoint_over(&wire).env("SETPOINT__RECONCILE__EVERY", "5s").manifest(&web(&app, 2, limits)).start();
    setpoint.wait_until_converged("web");
    // From now on streams of events are silent.
    wire.swallow("/events");
    wire.drop_connections();
    setpoint.wait_for_event("engine.back", &[]);
    setpoint.wait_until_converged("web");
    for slot in 0..2 {
        let id = container(&setpoint, &engine, slot);
        engine.docker(&["update", "--memory", "100m", "--memory-swap", "200m", &id]);
        let bound = std::time::Duration::from_secs(60);
        testkit::until("it is put back", bound, || {
            (engine.inspect(&id, "{{.HostConfig.Memory}}") == "67108864").then_some(())
        });
    }
}

#[test]
fn what_cannot_be_put_right_is_in_nobodys_way() {
    let Some(Stage { mut setpoint, engine }) = stage() else { return };
    let victim = container(&setpoint, &engine, 0);
    let name = engine.inspect(&victim, "{{.Name}}").trim_start_matches('/').to_owned();
    // Somebody takes its name while nobody looks.
    setpoint.kill9();
    engine.docker(&["rename", &victim, &format!("x{}", &victim[..12])]);
    let foreign = engine.docker(&["create", "--name", &name, "--network", "none", &image(&engine, "v1")]);
    setpoint.restart();
    setpoint.wait_for_event("drift.found", &["container/name"]);
    engine.docker(&["update", "--memory", "100m", "--memory-swap", "200m", &victim]);
    engine.docker(&["pause", &victim]);
    // Between two tries at the name it rests for up to ten seconds.
    let mut last = String::new();
    let done = testkit::wait::within(std::time::Duration::from_secs(60), || {
        last = engine.inspect(&victim, "{{.HostConfig.Memory}} {{.State.Paused}}");
        (last == "67108864 false").then_some(())
    });
    assert!(done.is_some(), "{last}: {:#}", setpoint.service("web"));
    engine.docker(&["rm", "-f", &foreign]);
    setpoint.wait_for_event("drift.corrected", &["container/name"]);
    setpoint.wait_until_converged("web");
}

#[test]
fn a_container_that_dies_while_its_image_cannot_be_fetched_is_started_again_at_once() {
    let Some(engine) = Engine::shared() else { return };
    let Some(registry) = Registry::start() else { return };
    let tag = registry.image("hangs:1");
    Image::new(&tag, "v1").label("of", "hangs").push(&registry);
    let setpoint = setpoint(&engine).manifest(&web(&tag, 1, "restart: { attempts: 20 }")).start();
    setpoint.wait_until_converged("web");
    let id = container(&setpoint, &engine, 0);
    let image = engine.inspect(&id, "{{.Image}}");
    registry.hang();
    engine.docker(&["rmi", "-f", &engine.inspect(&image, "{{index .RepoDigests 0}}")]);
    setpoint.wait_for_event("drift.found", &["image is missing"]);
    engine.docker(&["kill", &id]);
    let bound = std::time::Duration::from_secs(10);
    testkit::wait::until("it runs again, whatever the registry does", bound, || {
        let web = setpoint.service("web");
        (web["instances"][0]["restarts"] == 1 && web["replicas"]["ready"] == 1).then_some(())
    });
}

#[test]
fn an_image_whose_name_was_taken_away_is_fetched_again() {
    let Some(engine) = Engine::shared() else { return };
    let Some(registry) = Registry::start() else { return };
    let tag = registry.image("untagged:1");
    Image::new(&tag, "v1").label("of", "untagged").push(&registry);
    let stage = Stage::of(setpoint(&engine).manifest(&web(&tag, 2, "")), engine);
    let before = stage.setpoint.service("web");
    stage.under_load("web.localhost", 0, |Stage { setpoint, engine }| {
        // An engine deletes no image in use, but takes its names away.
        let image = engine.inspect(&stage.victim(), "{{.Image}}");
        let name = engine.inspect(&image, "{{index .RepoDigests 0}}");
        engine.docker(&["rmi", "-f", &name]);
        setpoint.wait_for_event("drift.found", &["image is missing", "by engine: "]);
        setpoint.wait_for_event("drift.corrected", &["image"]);
        engine.docker(&["image", "inspect", &name]);
        let after = setpoint.wait_until_converged("web");
        assert_eq!(after["instances"], before["instances"], "what runs was not disturbed");
    });
}

/// With the last container that uses it, an image can go for good.
#[test]
fn an_image_that_was_deleted_with_its_container_is_fetched_and_runs_again() {
    let Some(engine) = Engine::shared() else { return };
    let Some(registry) = Registry::start() else { return };
    let tag = registry.image("deleted:1");
    Image::new(&tag, "v1").label("of", "deleted").push(&registry);
    let wire = Wire::to(engine.api());
    let manifest = with_calm(&web(&tag, 1, "restart: { attempts: 1 }"), &image(&engine, "v1"));
    let stage = Stage::of(setpoint_over(&wire).manifest(&manifest), engine);
    stage.setpoint.wait_until_converged("calm");
    stage.under_load("calm.localhost", 0, |Stage { setpoint, engine }| {
        let victim = stage.victim();
        let image = engine.inspect(&victim, "{{.Image}}");
        // Both before anybody looks for it.
        wire.delay("/images/");
        engine.docker(&["rm", "-f", &victim]);
        engine.docker(&["rmi", "-f", &image]);
        wire.delay_no_more();
        let again =
            |web: &serde_json::Value| web["instances"][0]["restarts"] == 1 && web["state"] == "converged";
        setpoint.wait_for_service("web", "it runs again, by its only attempt", again);
        assert_eq!(engine.inspect(&stage.victim(), "{{.Image}}"), image);
    });
}

/// It is in no registry: only who built it can bring it back.
#[test]
fn an_image_of_this_machine_alone_that_was_deleted_is_told_until_it_is_built_again() {
    let Some(engine) = Engine::shared() else { return };
    let tag = "setpoint-test/local:1";
    let local = Image::new(tag, "v1").label("of", "local");
    let id = local.build(&engine);
    let wire = Wire::to(engine.api());
    let more = "restart: { attempts: 20, backoff: 100ms, max_backoff: 1s }";
    let manifest = with_calm(&web(tag, 1, more), &image(&engine, "v1"));
    let stage = Stage::of(setpoint_over(&wire).manifest(&manifest), engine);
    stage.setpoint.wait_until_converged("calm");
    stage.under_load("calm.localhost", 0, |Stage { setpoint, engine }| {
        // Both before anybody looks for it.
        wire.delay("/images/");
        engine.docker(&["rm", "-f", &stage.victim()]);
        engine.docker(&["rmi", "-f", &id]);
        wire.delay_no_more();
        let gone = format!("the image {tag} was built here, is in no registry, and is gone");
        let told = |web: &serde_json::Value| web["message"].as_str().is_some_and(|told| told.contains(&gone));
        setpoint.wait_for_service("web", "it is told what is missing", told);
        local.build(engine);
        let web = setpoint.wait_until_converged("web");
        assert_eq!(web["replicas"]["ready"], 1, "{web:#}");
    });
}

#[test]
fn a_rendered_file_that_somebody_changed_is_mended_where_the_container_sees_it() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let more = "workdir: /work\nfiles: { app.yaml: \"as declared\" }";
    let setpoint = setpoint(&engine).manifest(&web(&app, 1, more)).start();
    let service = setpoint.wait_until_converged("web");
    let id = service["instances"][0]["id"].as_str().unwrap().to_owned();
    let file = setpoint.data().join("node/instances").join(&id).join("work/app.yaml");
    std::fs::write(&file, "changed").unwrap();
    setpoint.wait_for_event("drift.corrected", &["files/app.yaml"]);
    assert_eq!(setpoint.get("web.localhost", "/read?/work/app.yaml").text(), "as declared");
}

#[test]
fn somebody_elses_container_with_our_labels_is_told_and_never_touched() {
    let Some(stage) = stage() else { return };
    let Stage { setpoint, engine } = &stage;
    let mut foreign = String::new();
    stage.under_load("web.localhost", 0, |_| {
        foreign = copy_of(engine, &stage.victim());
        setpoint.wait_for_event("stranger.found", &["bears the labels of instance"]);
    });
    let stats = setpoint.ask("GET", "/api/monitoring/stats", None).json();
    assert_eq!(stats["zombieContainers"], 1, "{stats}");
    let of_service = setpoint.ok(&["events", "--service", "web"]);
    assert!(of_service.contains("it bears the labels of instance"), "{of_service}");
    let nodes = setpoint.json(&["node", "list"]);
    let name = engine.inspect(&foreign, "{{.Name}}").trim_start_matches('/').to_owned();
    assert_eq!(nodes["nodes"][0]["strangers"][0]["what"], format!("container {name}"), "{nodes:#}");
    setpoint.ok(&["scale", "web", "0", "--wait"]);
    setpoint.ok(&["delete", "web", "--wait"]);
    assert_eq!(engine.inspect(&foreign, "{{.State.Running}}"), "true");
    engine.docker(&["rm", "-f", &foreign]);
}

#[test]
fn a_network_that_was_made_twice_is_one_again() {
    let Some(stage) = stage() else { return };
    let Stage { setpoint, engine } = &stage;
    let of_cluster =
        |network: &serde_json::Value| network["Labels"]["setpoint.cluster"] == setpoint.cluster();
    let networks =
        || -> Vec<serde_json::Value> { engine.api().networks().into_iter().filter(of_cluster).collect() };
    let [network] = networks().try_into().unwrap();
    // As an engine does that carries out a creation which was given up and asked for again.
    let again =
        serde_json::json!({ "Name": network["Name"], "Labels": network["Labels"], "CheckDuplicate": false });
    let made = engine.api().ask("POST", "/networks/create", Some(&again)).unwrap();
    if made.status == 409 {
        println!("this engine makes no two networks of one name");
        return;
    }
    assert_eq!(networks().len(), 2, "{}", made.text());
    setpoint.ok(&["scale", "web", "3", "--wait=30s"]);
    let left = networks();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0]["Id"], network["Id"], "the one that is used");
    assert_eq!(stage.restarts(), 0);
}

#[test]
fn a_copy_of_a_container_that_was_removed_is_not_taken_for_it() {
    // Whether it was seen to go, or went while nobody looked.
    for away in [false, true] {
        let Some(engine) = Engine::shared() else { return };
        let mut setpoint = setpoint(&engine).edge_apart().start();
        let manifest = web(&image(&engine, "v1"), 2, "restart: { attempts: 20 }");
        setpoint.apply_ok(&manifest, &["--wait"]);
        let victim = container(&setpoint, &engine, 0);
        let copy = copy_of(&engine, &victim);
        let pid = || engine.inspect(&copy, "{{.State.Pid}}").parse::<u64>().unwrap();
        let before = pid();
        let load = setpoint.load("web.localhost", "/").rate(100).start();
        if away {
            setpoint.kill9();
        }
        engine.docker(&["rm", "-f", &victim]);
        load.go_on_for(10);
        if away {
            setpoint.restart();
        }
        let back =
            |web: &serde_json::Value| web["instances"][0]["restarts"] == 1 && web["replicas"]["ready"] == 2;
        let after = setpoint.wait_for_service("web", "another one is made", back);
        assert_ne!(after["instances"][0]["pid"], before, "away: {away}");
        load.go_on_for(10);
        let report = load.stop();
        println!("away: {away}, {report}");
        assert!(report.failures().len() <= 2, "{report}");
        setpoint.ok(&["delete", "web", "--wait"]);
        assert_eq!(pid(), before, "it was never touched, away: {away}");
        engine.docker(&["rm", "-f", &copy]);
    }
}

/// Somebody's container with all the labels of another one.
fn copy_of(engine: &Engine, container: &str) -> String {
    let labels = engine.inspect(container, "{{range $k, $v := .Config.Labels}}--label={{$k}}={{$v}} {{end}}");
    let app = image(engine, "v1");
    let mut args = vec!["run", "-d", "--network", "none"];
    args.extend(labels.split_whitespace());
    args.push(&app);
    engine.docker(&args)
}
