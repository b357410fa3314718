//! What is left over is collected, and nothing that may be needed.

use testkit::docker::{Engine, Image, Registry};

use crate::{image, setpoint, web};

#[test]
fn images_go_once_no_release_needs_them_and_others_stay() {
    let Some(engine) = Engine::shared() else { return };
    let Some(registry) = Registry::start() else { return };
    let tags = ["1", "2", "3"].map(|n| registry.image(&format!("old:{n}")));
    for tag in &tags {
        Image::new(tag, "old").label("of", tag).push(&registry);
    }
    let foreign = image(&engine, "v1");
    let manifest = |tag: &str| web(tag, 1, "retain: 1");
    let setpoint = setpoint(&engine).manifest(&manifest(&tags[0])).start();
    setpoint.wait_until_converged("web");
    for tag in &tags[1..] {
        setpoint.apply_ok(&manifest(tag), &["--wait"]);
    }
    let would = setpoint.json(&["gc", "--dry-run"]);
    let things = would["things"].as_array().unwrap();
    assert!(
        things.iter().all(|thing| thing["kind"] == "image" && thing["bytes"].as_u64().unwrap() > 0),
        "{would:#}"
    );
    setpoint.ok(&["rollback", "web", "--wait"]);
    setpoint.ok(&["delete", "web", "--wait"]);
    let gone = testkit::until(
        "the releases are forgotten and their images collected",
        testkit::setpoint::SOON,
        || {
            let gone = setpoint.json(&["gc"]);
            (gone["things"].as_array().unwrap().len() >= 3).then_some(gone)
        },
    );
    assert!(gone["bytes"].as_u64().unwrap() > 0, "{gone:#}");
    assert!(engine.docker(&["images", "-q", &registry.image("old")]).is_empty());
    engine.docker(&["image", "inspect", &foreign]);
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
