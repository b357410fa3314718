//! What is left over is collected, and nothing that may be needed.

use testkit::docker::{Engine, Image, Registry, Wire};

use crate::{image, setpoint, setpoint_over, web};

#[test]
fn images_go_once_no_release_needs_them_and_others_stay() {
    let Some(engine) = Engine::shared() else { return };
    let Some(mut registry) = Registry::start() else { return };
    let tags = ["1", "2", "3"].map(|n| registry.image(&format!("old:{n}")));
    let digests = tags.clone().map(|tag| Image::new(&tag, "old").label("of", &tag).push(&registry).digest);
    let foreign = image(&engine, "v1");
    let manifest = |tag: &str| web(tag, 1, "retain: 1");
    let wire = Wire::to(engine.api());
    let setpoint = setpoint_over(&wire).manifest(&manifest(&tags[0])).start();
    setpoint.wait_until_converged("web");
    for tag in &tags[1..] {
        setpoint.apply_ok(&manifest(tag), &["--wait"]);
    }
    // Of one that stays: it is in the way of no other.
    wire.refuse(&format!("{}/json", digests[1].trim_start_matches("sha256:")));
    let image = |thing: &serde_json::Value| thing["kind"] == "image" && thing["bytes"].as_u64().unwrap() > 0;
    let things = testkit::until("the first release is forgotten", testkit::setpoint::SOON, || {
        let things = setpoint.json(&["gc", "--dry-run"])["things"].as_array().unwrap().clone();
        (!things.is_empty()).then_some(things)
    });
    assert!(things.len() == 1 && things.iter().all(image), "its image alone: {things:#?}");
    let gone = setpoint.json(&["gc"]);
    assert_eq!(gone["things"][0]["name"], things[0]["name"], "{gone:#}");
    assert!(wire.refusals() > 0);
    wire.refuse_no_more();
    // What a rollback needs is here, whatever became of the registry.
    registry.destroy();
    setpoint.ok(&["rollback", "web", "--wait"]);
    setpoint.ok(&["delete", "web", "--wait"]);
    let gone = testkit::until(
        "the releases are forgotten and their images collected",
        testkit::setpoint::SOON,
        || {
            let gone = setpoint.json(&["gc"]);
            (gone["things"].as_array().unwrap().len() >= 2).then_some(gone)
        },
    );
    assert!(gone["bytes"].as_u64().unwrap() > 0, "{gone:#}");
    assert!(engine.docker(&["images", "-q", &registry.image("old")]).is_empty());
    engine.docker(&["image", "inspect", &foreign]);
}

#[test]
fn images_go_on_schedule_also_those_whose_name_was_taken_away_and_nobody_elses() {
    let Some(engine) = Engine::shared() else { return };
    let Some(registry) = Registry::start() else { return };
    let tags = ["1", "2", "3"].map(|n| registry.image(&format!("timed:{n}")));
    let ids = tags.clone().map(|tag| Image::new(&tag, "timed").label("of", &tag).push(&registry).id);
    // Somebody's, without a name: another took it.
    let foreign = Image::new("setpoint-test/foreign:1", "before").label("of", &tags[0]).build(&engine);
    Image::new("setpoint-test/foreign:1", "after").label("of", &tags[0]).build(&engine);
    let has = |id: &str| engine.try_docker(&["image", "inspect", id]).is_ok();
    assert_eq!(engine.inspect(&foreign, "{{len .RepoTags}}"), "0");
    let manifest = |tag: &str| web(tag, 1, "retain: 1\ndrift: warn");
    let builder = setpoint(&engine).env("SETPOINT__GC__EVERY", "500ms").env("SETPOINT__GC__LOOK", "100ms");
    let setpoint = builder.manifest(&manifest(&tags[0])).start();
    setpoint.wait_until_converged("web");
    let name = engine.inspect(&ids[0], "{{index .RepoDigests 0}}");
    engine.docker(&["rmi", "-f", &name]);
    assert_eq!(engine.inspect(&ids[0], "{{len .RepoDigests}}"), "0", "what runs keeps it alone");
    for tag in &tags[1..] {
        setpoint.apply_ok(&manifest(tag), &["--wait"]);
    }
    setpoint.wait_for_event("gc.collected", &[&name]);
    assert!(!has(&ids[0]), "it is gone");
    assert!(has(&ids[1]) && has(&ids[2]), "what runs and what a rollback needs is here");
    assert!(has(&foreign), "nobody's is left alone");
    engine.docker(&["rmi", "-f", &foreign, "setpoint-test/foreign:1"]);
}

#[test]
fn a_disk_that_becomes_full_is_cleaned_up_at_once() {
    const MIB: u64 = 1 << 20;
    let Some(engine) = Engine::options().disk(96 * MIB).start() else { return };
    let Some(registry) = Registry::start() else { return };
    let tags = ["1", "2", "3"].map(|n| registry.image(&format!("full:{n}")));
    for tag in &tags {
        Image::new(tag, "full").label("of", tag).push(&registry);
    }
    let manifest = |tag: &str| web(tag, 1, "retain: 1");
    // The next time by the clock is an hour away.
    let wire = Wire::to(engine.api());
    let builder =
        setpoint_over(&wire).env("SETPOINT__GC__LOOK", "100ms").env("SETPOINT__GC__FULL_PERCENT", "70");
    let setpoint = builder.manifest(&manifest(&tags[0])).start();
    setpoint.wait_until_converged("web");
    for tag in &tags[1..] {
        setpoint.apply_ok(&manifest(tag), &["--wait"]);
    }
    let would_go = || setpoint.json(&["gc", "--dry-run"])["things"].as_array().unwrap().len();
    testkit::until("the first image is needed no more", testkit::setpoint::SOON, || {
        (would_go() == 1).then_some(())
    });
    let kinds = || setpoint.events().iter().filter(|event| event["kind"] == "gc.collected").count();
    assert_eq!(kinds(), 0, "there is room");
    // Nothing can be collected at first: it is tried again.
    wire.refuse("/volumes");
    let mib = usize::try_from(MIB).unwrap();
    std::fs::write(engine.data().join("ballast"), vec![b'x'; 68 * mib]).unwrap();
    testkit::until("it was tried", testkit::setpoint::SOON, || (wire.refusals() > 0).then_some(()));
    wire.refuse_no_more();
    setpoint.wait_for_event("gc.collected", &["full@sha256:"]);
    assert_eq!(would_go(), 0);
    assert_eq!(setpoint.get("web.localhost", "/").text(), "full");
}

#[test]
fn volumes_with_data_go_only_when_asked_for() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let setpoint = setpoint(&engine).manifest(&web(&app, 1, "volumes: [\"data:/data\"]")).start();
    setpoint.wait_until_converged("web");
    assert_eq!(setpoint.get("web.localhost", "/write?/data/a").text(), "written");
    setpoint.ok(&["delete", "web", "--wait"]);
    let kinds = |args: &[&str]| -> Vec<String> {
        let things = setpoint.json(args)["things"].as_array().unwrap().clone();
        things.iter().map(|thing| thing["kind"].as_str().unwrap().to_owned()).collect()
    };
    assert!(!kinds(&["gc"]).contains(&"volume".into()));
    assert!(kinds(&["gc", "--volumes", "--dry-run"]).contains(&"volume".into()));
    assert!(kinds(&["gc", "--volumes"]).contains(&"volume".into()));
    assert!(kinds(&["gc", "--volumes", "--dry-run"]).is_empty());
}

/// An image says where its data are, and its service does not: they outlive the container, and go when asked for.
#[test]
fn what_an_image_keeps_in_volumes_of_its_own_goes_only_when_asked_for() {
    let Some(engine) = Engine::shared() else { return };
    let tag = "setpoint-test/keeps:1";
    let volumes = serde_json::json!({ "/data": {}, "/declared": {}, "/scratch": {} });
    testkit::docker::Image::new(tag, "v1").config("Volumes", volumes).build(&engine);
    let manifest = web(tag, 1, "volumes: [\"own:/declared\"]\ntmpfs: [/scratch]");
    let setpoint = setpoint(&engine).manifest(&manifest).start();
    let before = setpoint.wait_until_converged("web");
    assert_eq!(setpoint.get("web.localhost", "/write?/data/kept").text(), "written");
    let id = crate::container(&setpoint, &engine, 0);
    let places = engine.inspect(&id, "{{range .Mounts}}{{.Destination}}={{.Name}} {{end}}");
    let mut places: Vec<(&str, &str)> =
        places.split_whitespace().filter_map(|place| place.split_once('=')).collect();
    places.sort_unstable();
    let [("/data", kept), ("/declared", declared)] = places.as_slice() else { panic!("{places:?}") };
    // A container that is made anew in its place has them again.
    engine.docker(&["rm", "-f", &id]);
    let again = |web: &serde_json::Value| web["state"] == "converged" && web["instances"][0]["restarts"] == 1;
    let after = setpoint.wait_for_service("web", "it is made anew", again);
    assert_eq!(after["instances"][0]["id"], before["instances"][0]["id"]);
    testkit::until("its data are there", testkit::setpoint::SOON, || {
        (setpoint.get("web.localhost", "/read?/data/kept").status == 200).then_some(())
    });
    setpoint.ok(&["restart", "web", "--wait"]);
    let gc = |args: &[&str]| setpoint.ok(&[&["gc"], args].concat());
    gc(&[]);
    engine.docker(&["volume", "inspect", kept]);
    assert!(gc(&["--volumes", "--dry-run"]).contains(*kept));
    setpoint.ok(&["delete", "web", "--wait"]);
    gc(&["--volumes"]);
    for gone in [kept, declared] {
        assert!(engine.try_docker(&["volume", "inspect", gone]).is_err(), "{gone}");
    }
}

/// What was in a volume is in no backup: after a restore it is missing until somebody brings it back.
#[test]
fn a_volume_that_is_not_there_after_a_restore_is_not_made_anew_empty() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let manifest = web(&app, 1, "volumes: [\"data:/data\"]\nrestart: { attempts: 3, backoff: 100ms }");
    let mut setpoint = setpoint(&engine).manifest(&manifest).start();
    setpoint.wait_until_converged("web");
    assert_eq!(setpoint.get("web.localhost", "/write?/data/kept").text(), "written");
    let volume =
        engine.inspect(&crate::container(&setpoint, &engine, 0), "{{range .Mounts}}{{.Name}}{{end}}");
    let file = setpoint.root().join("all.backup");
    setpoint.ok(&["backup", file.to_str().unwrap()]);
    let id = crate::container(&setpoint, &engine, 0);
    setpoint.stop();
    engine.docker(&["rm", "-f", &id]);
    engine.docker(&["volume", "rm", "-f", &volume]);
    std::fs::remove_dir_all(setpoint.data()).unwrap();
    setpoint.ok(&["restore", file.to_str().unwrap()]);
    setpoint.restart();
    let told = |web: &serde_json::Value| {
        web["instances"][0]["message"].as_str().is_some_and(|message| message.contains(&volume))
    };
    setpoint.wait_for_service("web", "the missing volume is named", told);
    assert!(engine.try_docker(&["volume", "inspect", &volume]).is_err(), "it is not made anew");
    engine.docker(&["volume", "create", &volume]);
    setpoint.ok(&["restart", "web", "--wait"]);
    engine.docker(&["volume", "inspect", &volume]);
    setpoint.ok(&["delete", "web", "--wait"]);
    engine.docker(&["volume", "rm", &volume]);
}

#[test]
fn networks_and_volumes_that_only_bear_our_labels_are_never_touched() {
    let Some(engine) = Engine::shared() else { return };
    let app = image(&engine, "v1");
    let setpoint = setpoint(&engine).manifest(&web(&app, 1, "volumes: [\"data:/data\"]")).start();
    setpoint.wait_until_converged("web");
    let container = crate::container(&setpoint, &engine, 0);
    let [network, volume] = [
        "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}",
        "{{range .Mounts}}{{.Name}}{{end}}",
    ]
    .map(|template| engine.inspect(&container, template));
    let labels = |kind: &str, name: &str| -> Vec<String> {
        let template = "{{range $k, $v := .Labels}}--label={{$k}}={{$v}} {{end}}";
        let told = engine.docker(&[kind, "inspect", "--format", template, name]);
        told.split_whitespace().map(str::to_owned).collect()
    };
    let foreign = format!("foreign-{}", setpoint.cluster());
    for (kind, like) in [("network", &network), ("volume", &volume)] {
        let labels = labels(kind, like);
        assert!(labels.iter().any(|label| label.contains("setpoint.cluster")), "{labels:?}");
        let mut args = vec![kind, "create"];
        args.extend(labels.iter().map(String::as_str));
        args.push(&foreign);
        engine.docker(&args);
    }
    setpoint.ok(&["delete", "web", "--wait"]);
    let collected = testkit::until("the volume is collected", testkit::setpoint::SOON, || {
        let things = setpoint.json(&["gc", "--volumes"])["things"].as_array().unwrap().clone();
        things.iter().any(|thing| thing["name"] == volume.as_str()).then_some(things)
    });
    assert!(collected.iter().all(|thing| thing["name"] != foreign.as_str()), "{collected:#?}");
    for kind in ["network", "volume"] {
        engine.docker(&[kind, "inspect", &foreign]);
        engine.docker(&[kind, "rm", &foreign]);
    }
    assert!(engine.try_docker(&["network", "inspect", &network]).is_err(), "its own is gone");
}

/// One that could not go with its project's last container.
#[test]
fn a_network_that_nothing_is_in_goes_with_gc() {
    let Some(engine) = Engine::shared() else { return };
    let wire = Wire::to(engine.api());
    let setpoint = setpoint_over(&wire).manifest(&web(&image(&engine, "v1"), 1, "")).start();
    setpoint.wait_until_converged("web");
    let name = format!("default.{}", &setpoint.cluster()[..6]);
    let gc = |args: &[&str]| setpoint.json(args)["things"].clone();
    assert_eq!(gc(&["gc", "--dry-run"]), serde_json::json!([]), "it is in use");
    wire.refuse(&engine.docker(&["network", "inspect", "--format", "{{.Id}}", &name]));
    setpoint.ok(&["delete", "web", "--wait"]);
    testkit::until("its removal was refused", testkit::setpoint::SOON, || {
        (wire.refusals() > 0).then_some(())
    });
    wire.refuse_no_more();
    let things = testkit::until("nothing needs it any more", testkit::setpoint::SOON, || {
        Some(gc(&["gc", "--dry-run"])).filter(|things| things.as_array().is_some_and(|all| !all.is_empty()))
    });
    assert_eq!(things[0]["kind"], "network", "{things:#}");
    assert_eq!(gc(&["gc"])[0]["name"], name.as_str());
    assert!(engine.try_docker(&["network", "inspect", &name]).is_err(), "it is gone");
    assert_eq!(gc(&["gc", "--dry-run"]), serde_json::json!([]));
}

#[test]
fn the_end_of_setpoint_up_leaves_nothing() {
    let Some(engine) = Engine::own() else { return };
    let app = image(&engine, "v1");
    let mut setpoint = setpoint(&engine).manifest(&web(&app, 2, "")).start();
    setpoint.wait_until_converged("web");
    setpoint.stop();
    assert_eq!(engine.docker(&["ps", "-q"]), "", "nothing runs on");
    setpoint.restart();
    let again = setpoint.wait_until_converged("web");
    assert_eq!(again["instances"][0]["restarts"], 0, "an orderly end is no attempt");
    setpoint.ok(&["delete", "web", "--wait"]);
    assert_eq!(engine.docker(&["ps", "-aq"]), "");
    testkit::until("the project's network goes with its last container", testkit::setpoint::SOON, || {
        engine.docker(&["network", "ls", "-q", "--filter", "label=setpoint.cluster"]).is_empty().then_some(())
    });
}
