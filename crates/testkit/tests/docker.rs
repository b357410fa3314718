//! The ground on which containers are tried, tried itself: it starts, it serves, it can be killed, and it leaves
//! nothing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must end, and say where")]

use std::{fs, path::Path, process::Command, time::Duration};

use serde_json::{Value, json};
use testkit::{
    docker::{Engine, Image, Registry, Wire},
    http::{self, Request},
    proc,
    setpoint::free_port,
};

const SOON: Duration = Duration::from_secs(20);

/// A container of the program on a network, published on a port of this machine.
fn published(image: &str, network: &str, port: u16) -> Value {
    json!({
        "Image": image,
        "ExposedPorts": { "8080/tcp": {} },
        "HostConfig": {
            "NetworkMode": network,
            "PortBindings": { "8080/tcp": [{ "HostIp": "127.0.0.1", "HostPort": port.to_string() }] },
        },
    })
}

#[track_caller]
fn get(port: u16, path: &str) -> http::Response {
    let address = ([127, 0, 0, 1], port).into();
    testkit::until(&format!("{path} answers on {port}"), SOON, || {
        http::send(address, Request::new("GET", "app", path)).ok()
    })
}

fn mounts_below(folder: &Path) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let below = mounts.lines().filter(|line| line.contains(folder.to_str().unwrap()));
    below.map(str::to_owned).collect()
}

fn processes_below(folder: &Path) -> Vec<String> {
    let below = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(&format!("{}/", folder.display())).then_some(line)
    });
    below.collect()
}

#[test]
fn an_image_out_of_a_registry_serves_on_a_published_port_and_is_killed_with_its_engine_and_all_is_gone() {
    let Some(mut engine) = Engine::own() else { return };
    let Some(registry) = Registry::shared() else { return };
    let image = Image::new(&registry.image("smoke:1"), "v1").label("kind", "smoke").push(&registry);
    assert_eq!(registry.tags("smoke"), ["1"]);
    let api = engine.api().clone();
    api.pull(&image.pinned);
    let known = &api.images()[0];
    assert_eq!(known["RepoDigests"], json!([image.pinned]));
    assert_eq!(known["Id"], json!(image.id));

    let network = api.create_network("smoke", &json!({}));
    let port = free_port().port();
    let web = api.run("web", &published(&image.pinned, "smoke", port));
    assert_eq!(get(port, "/").text(), "v1");
    let app = api.main_pid(&web);
    assert!(proc::is_alive(app));

    engine.kill9();
    assert!(!api.answers());
    assert!(proc::is_alive(app), "a container lives on without its engine");
    engine.start();
    api.wait_until_ended(&web);
    api.start(&web);
    assert_eq!(get(port, "/").text(), "v1");

    let folder = engine.data().parent().unwrap().to_owned();
    let bridge = format!("/sys/class/net/br-{}", &network[..12]);
    assert!(Path::new(&bridge).exists());
    let app = api.main_pid(&web);
    drop(engine);
    assert!(!proc::is_alive(app));
    assert_eq!(processes_below(&folder), [""; 0]);
    assert_eq!(mounts_below(&folder), [""; 0]);
    assert!(!folder.exists() && !Path::new(&bridge).exists());
}

#[test]
fn containers_of_one_network_call_each_other_by_name() {
    let Some(engine) = Engine::shared() else { return };
    let api = engine.api();
    let image = Image::new("names:1", "front").build(&engine);
    api.create_network("names", &json!({}));
    let port = free_port().port();
    let front = api.run("names-front", &published(&image, "names", port));
    let back = json!({ "Image": image, "Cmd": ["back"], "HostConfig": { "NetworkMode": "names" } });
    let back = api.run("names-back", &back);
    testkit::until("the other one answers", SOON, || {
        (get(port, "/ask?names-back:8080").text() == "back").then_some(())
    });
    assert_eq!(get(port, "/ask?nobody:8080").status, 404);
    for container in [front, back] {
        api.remove(&container);
    }
    api.remove_network("names");
    api.remove_image("names:1");
}

#[test]
fn a_health_check_of_the_image_is_carried_out_and_told() {
    let Some(engine) = Engine::shared() else { return };
    let api = engine.api();
    let image = Image::new("checked:1", "v1").healthcheck(100).build(&engine);
    api.create_network("checked", &json!({}));
    let port = free_port().port();
    let mut events = api.events(&json!({ "type": ["container"], "container": ["checked"] }));
    let id = api.run("checked", &published(&image, "checked", port));
    events.until("health_status: healthy");
    get(port, "/ill");
    events.until("health_status: unhealthy");
    // Its end is told, with the code.
    let _ = http::send(([127, 0, 0, 1], port).into(), Request::new("GET", "app", "/end?7"));
    assert_eq!(events.until("die")["Actor"]["Attributes"]["exitCode"], "7");
    assert!(api.logs(&id).contains("told to end with 7"));
    api.remove(&id);
    api.remove_network("checked");
    api.remove_image("checked:1");
}

#[test]
fn a_registry_with_a_password_lets_only_its_user_in() {
    let Some(engine) = Engine::shared() else { return };
    let Some(registry) = Registry::with_password() else { return };
    Image::new(&registry.image("secret:1"), "v1").push(&registry);
    let stranger = Request::new("GET", &registry.host(), "/v2/secret/tags/list");
    assert_eq!(http::send(registry.address(), stranger).unwrap().status, 401);
    let refused = engine.api().try_pull(&registry.image("secret:1")).unwrap_err();
    assert!(refused.contains("no basic auth credentials"), "{refused}");
}

#[test]
fn a_paused_engine_answers_nobody_and_live_restore_keeps_containers() {
    let Some(mut engine) = Engine::options().live_restore().start() else { return };
    let api = engine.api().clone();
    let image = Image::new("kept:1", "v1").build(&engine);
    let id = api.run("kept", &json!({ "Image": image, "HostConfig": { "NetworkMode": "none" } }));
    let app = api.main_pid(&id);
    engine.pause();
    assert!(!api.answers());
    engine.go_on();
    testkit::until("it answers again", SOON, || api.answers().then_some(()));
    engine.hide_socket();
    assert!(!api.answers());
    engine.show_socket();
    assert!(api.answers());
    engine.kill9();
    engine.start();
    assert_eq!(api.main_pid(&id), app, "adopted, not restarted");
    engine.stop();
    engine.start();
    assert_eq!(api.main_pid(&id), app);
}

#[test]
fn an_engine_whose_disk_is_full_says_so() {
    let Some(engine) = Engine::options().disk(24 << 20).start() else { return };
    let Some(registry) = Registry::shared() else { return };
    let full = engine.data().join("full");
    let mut fill = Command::new("dd");
    fill.args(["if=/dev/zero", "bs=1M"]).arg(format!("of={}", full.display()));
    assert!(!fill.output().unwrap().status.success());
    let image = Image::new(&registry.image("big:1"), "v1").file("more", vec![7; 1 << 20]).push(&registry);
    let refused = engine.api().try_pull(&image.pinned).unwrap_err();
    assert!(refused.contains("no space left on device"), "{refused}");
    fs::remove_file(full).unwrap();
    engine.api().pull(&image.pinned);
}

#[test]
fn a_wire_loses_the_answer_to_what_was_done_and_can_be_cut() {
    let Some(engine) = Engine::shared() else { return };
    let image = Image::new("wired:1", "v1").build(&engine);
    let wire = Wire::to(engine.api());
    let mut events = wire.api().events(&json!({ "container": ["wired"] }));
    wire.swallow("POST /containers/create");
    let create = json!({ "Image": image });
    let bound = Duration::from_secs(1);
    let asked = wire.api().ask_within(bound, "POST", "/containers/create?name=wired", Some(&create));
    assert!(asked.is_err(), "{asked:?}");
    assert_eq!(wire.kept_back(), 1);
    assert_eq!(events.until("create")["Actor"]["Attributes"]["name"], "wired");
    engine.api().inspect("wired");
    wire.block();
    assert!(!wire.api().answers());
    wire.unblock();
    assert!(wire.api().answers());
    wire.cut();
    assert!(events.read().is_err() && !wire.api().answers() && engine.api().answers());
    wire.mend();
    assert!(wire.api().answers());
    engine.api().remove("wired");
    engine.api().remove_image("wired:1");
}
