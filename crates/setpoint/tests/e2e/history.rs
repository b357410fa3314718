//! Going back: the whole earlier release, and nothing but a new intent brings the later one again.

use std::{fs, path::PathBuf};

use testkit::{
    Setpoint,
    fixture::{QUICK, demo},
};

use crate::setpoint;

const VERSION: &str = "/env?name=VERSION";

fn version(version: &str) -> String {
    demo(2, &[("VERSION", version)], &format!("{QUICK}\nfiles: {{ config.txt: \"{version}\\n\" }}"))
}

/// What lies in the folders of the processes that run now.
pub fn rendered(setpoint: &Setpoint) -> Vec<String> {
    let folders: Vec<PathBuf> = setpoint.workloads().into_iter().map(|workload| workload.cwd).collect();
    folders.iter().map(|folder| fs::read_to_string(folder.join("config.txt")).unwrap()).collect()
}

#[test]
fn a_rollback_under_load_brings_settings_and_files_back() {
    let setpoint = setpoint().manifest(&version("v1")).start();
    setpoint.wait_until_converged("api");
    setpoint.apply_ok(&version("v2"), &["--wait"]);
    setpoint.wait_until_converged("api");
    assert_eq!(rendered(&setpoint), ["v2\n", "v2\n"]);
    let load = setpoint.load("api.localhost", VERSION).start();
    setpoint.ok(&["rollback", "api", "--wait"]);
    setpoint.wait_until_converged("api");
    load.go_on_for(20);
    let report = load.stop();
    report.assert_clean(50);
    assert_eq!(report.sequence().last(), Some(&"v1"));
    assert_eq!(rendered(&setpoint), ["v1\n", "v1\n"]);
    let deployments = setpoint.deployments("api");
    let told: Vec<_> =
        deployments.iter().map(|d| (d["status"].as_str().unwrap(), d["cause"].as_str().unwrap())).collect();
    assert_eq!(told, [("active", "rollback"), ("rolled_back", "apply"), ("superseded", "apply")]);
    assert_eq!(deployments[0]["release"], deployments[2]["release"]);
}

#[test]
fn an_unchanged_apply_after_a_rollback_changes_nothing_and_names_what_is_pinned() {
    let setpoint = setpoint().manifest(&version("v1")).start();
    setpoint.wait_until_converged("api");
    setpoint.apply_ok(&version("v2"), &["--wait"]);
    setpoint.ok(&["rollback", "api", "--wait"]);
    let before = setpoint.wait_until_converged("api");
    let output = setpoint.apply_ok(&version("v2"), &["--wait"]);
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(said.contains("pinned") || said.contains("rolled back") || said.contains("rollback"), "{said}");
    setpoint.ok(&["reconcile"]);
    let after = setpoint.wait_until_converged("api");
    assert_eq!(after["instances"], before["instances"]);
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "v1");
    assert_eq!(setpoint.cli(&["plan", "-f", "app.yaml"]).code, 0, "nothing would change");
    // A changed file is a new intent.
    setpoint.apply_ok(&version("v3"), &["--wait"]);
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "v3");
}

#[test]
fn a_rollback_to_a_named_deployment_and_what_is_refused() {
    let setpoint = setpoint().manifest(&version("v1")).start();
    setpoint.wait_until_converged("api");
    let none = setpoint.cli(&["rollback", "api"]);
    assert_eq!(none.code, 1, "{none:?}");
    assert!(none.stderr.contains("no earlier release"), "{none:?}");
    let first = setpoint.deployments("api")[0]["id"].as_str().unwrap().to_owned();
    for next in ["v2", "v3"] {
        setpoint.apply_ok(&version(next), &["--wait"]);
    }
    setpoint.ok(&["rollback", "api", "--to", &first, "--wait"]);
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "v1");
    let unknown = setpoint.cli(&["rollback", "api", "--to", "doesnotexist"]);
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert!(unknown.stderr.contains("setpoint deployments"), "it says where to look: {unknown:?}");
}

#[test]
fn a_rollback_of_a_bad_release_is_not_rolled_back_itself() {
    let setpoint = setpoint().manifest(&version("v1")).start();
    setpoint.wait_until_converged("api");
    let deadline = QUICK.replace("drain: 5s", "drain: 5s, deadline: 1500ms");
    let bad = demo(2, &[("VERSION", "bad"), ("FAIL_HEALTH", "1")], &deadline);
    assert_eq!(setpoint.apply(&bad, &["--wait=60s"]).code, 1);
    let count = setpoint.deployments("api").len();
    setpoint.ok(&["reconcile"]);
    setpoint.wait_until_state("api", "degraded");
    assert_eq!(setpoint.deployments("api").len(), count, "nothing begins by itself after the restoration");
    let again = setpoint.apply(&bad, &["--wait=60s"]);
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "v1");
    assert_eq!(setpoint.deployments("api").len(), count, "an unchanged file is no new intent: {again:?}");
}
