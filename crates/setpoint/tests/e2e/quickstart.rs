//! What the README promises first: one command, and both services answer under `*.localhost`.

use std::path::{Path, PathBuf};

use testkit::setpoint::SOON;

use crate::setpoint;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

#[test]
fn the_first_command_of_the_readme_serves_a_site_and_two_replicas() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let command = "cargo run --release -- up -f examples/quickstart.yaml";
    assert!(readme.contains(command), "the README names `{command}`");
    let example = repository().join("examples/quickstart.yaml");
    let setpoint = setpoint().any_ports().arg("-f").arg(example.to_str().unwrap()).start();

    let docs = setpoint.wait_until_converged("docs");
    let api = setpoint.wait_until_converged("api");
    assert_eq!((&docs["kind"], &api["kind"]), (&"static".into(), &"process".into()));
    assert_eq!(api["replicas"], serde_json::json!({"desired": 2, "ready": 2}));
    let port = setpoint.edge().port();
    assert_eq!(api["urls"], serde_json::json!([format!("http://api.localhost:{port}")]));
    assert_eq!(setpoint.get(&format!("api.localhost:{port}"), "/healthz").status, 200);
    let page = std::fs::read_to_string(repository().join("examples/site/index.html")).unwrap();
    let served = setpoint.get(&format!("docs.localhost:{port}"), "/");
    assert_eq!((served.status, served.text()), (200, page));
}

#[test]
fn off_a_terminal_stdout_is_the_ready_line_alone_and_comes_before_convergence() {
    let slow = testkit::fixture::demo(1, &[("BOOT_DELAY_MS", "1500")], testkit::fixture::QUICK);
    let setpoint = setpoint().manifest(&slow).start();
    assert_eq!(
        setpoint.ready_line(),
        format!("ready api=http://{} edge=http://{}", setpoint.api(), setpoint.edge())
    );
    // What was in the file is recorded by then, and on its way.
    assert_eq!(setpoint.service("api")["state"], "progressing");
    setpoint.wait_until_converged("api");
    assert_eq!(setpoint.further_stdout(), Vec::<String>::new());
    let told = testkit::until("progress on stderr", SOON, || {
        let stderr = setpoint.stderr();
        (stderr.contains("api") && stderr.contains("active")).then_some(stderr)
    });
    assert!(told.lines().count() > 2, "{told}");
}
