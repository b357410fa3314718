//! Backups: everything in one file, made while the server runs or when it is stopped, and put back whole or not at all.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use testkit::{
    Setpoint,
    fixture::{QUICK, demo, versioned_site},
};

use crate::setpoint;

const VERSION: &str = "/env?name=VERSION";
const DOCS: &str = "  docs:\n    static: ./site\n    domains: [docs.localhost]\n";

fn both(version: &str) -> String {
    format!("{}{DOCS}", demo(2, &[("VERSION", version)], QUICK))
}

/// Two services, each with an earlier release to go back to.
fn deployed() -> Setpoint {
    let builder = setpoint();
    let site = builder.work().join("site");
    versioned_site(&site, "v1", 30);
    let setpoint = builder.manifest(&both("v1")).start();
    setpoint.wait_until_converged("api");
    setpoint.wait_until_converged("docs");
    versioned_site(&site, "v2", 30);
    setpoint.apply_ok(&both("v2"), &["--wait"]);
    setpoint
}

/// What must be the same after a restore: everything but what a new start gives.
fn told(setpoint: &Setpoint) -> Vec<(String, String, String, String)> {
    ["api", "docs"]
        .iter()
        .map(|name| {
            let service = setpoint.wait_until_converged(name);
            let text = |field: &str| service[field].to_string();
            let history = setpoint.deployments(name);
            let history = history.iter().map(|d| format!("{} {} {}", d["id"], d["status"], d["release"]));
            (text("generation"), text("deployment"), text("urls"), history.collect())
        })
        .collect()
}

fn term(setpoint: &Setpoint) -> u64 {
    let file = setpoint.data().join("term-of-test.backup");
    setpoint.json(&["backup", file.to_str().unwrap()])["term"].as_u64().unwrap()
}

#[track_caller]
fn assert_refused(setpoint: &Setpoint, args: &[&str], words: &[&str]) {
    let refused = setpoint.cli(args);
    assert_eq!(refused.code, 1, "{refused:?}");
    for word in words {
        assert!(refused.stderr.contains(word), "{word}: {refused:?}");
    }
}

#[test]
fn a_backup_under_load_brings_everything_back_and_a_rollback_works() {
    let mut setpoint = deployed();
    let (before, token) = (told(&setpoint), setpoint.token());
    let load = setpoint.load("api.localhost", VERSION).start();
    let file = setpoint.root().join("all.backup");
    let name = file.to_str().unwrap();
    let made = setpoint.json(&["backup", name]);
    load.go_on_for(20);
    load.stop().assert_clean(20);
    assert_eq!(made["services"], 2);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "its secrets are ours");
    assert!(setpoint.ok(&["audit"]).contains("backup"), "who took one is on record");
    let at_backup = made["term"].as_u64().unwrap();

    setpoint.stop();
    fs::remove_dir_all(setpoint.data()).unwrap();
    let restored = setpoint.json(&["restore", name]);
    assert_eq!(restored["cluster"], made["cluster"]);
    assert_eq!(setpoint.token(), token, "who had the token has it again");
    // The site comes from the backup alone.
    fs::remove_dir_all(setpoint.work().join("site")).unwrap();
    setpoint.set_args(&[]);
    setpoint.restart();
    assert_eq!(told(&setpoint), before);
    assert!(term(&setpoint) > at_backup + 1_000_000, "ahead of all that nodes may have seen");
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "v2");
    assert_eq!(setpoint.get("docs.localhost", "/part/7.txt").text(), "v2 7\n");
    for service in ["api", "docs"] {
        setpoint.ok(&["rollback", service, "--wait"]);
    }
    assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "v1");
    assert_eq!(setpoint.get("docs.localhost", "/part/7.txt").text(), "v1 7\n");
    let audit = setpoint.ask("GET", "/api/v1/audit/verify", None).json();
    assert_eq!(audit["intact"], true, "{audit}");
}

#[test]
fn a_stopped_data_folder_is_backed_up_too() {
    let mut setpoint = deployed();
    let before = told(&setpoint);
    setpoint.stop();
    let file = setpoint.root().join("stopped.backup");
    let name = file.to_str().unwrap();
    setpoint.ok(&["backup", name]);
    assert_refused(&setpoint, &["restore", name], &["not empty", "--force"]);
    // Without --force nothing has moved.
    setpoint.set_args(&[]);
    setpoint.restart();
    assert_eq!(told(&setpoint), before);
    assert_refused(&setpoint, &["restore", name, "--force"], &["in use by another Setpoint", "pid"]);
    setpoint.stop();
    let restored = setpoint.json(&["restore", name, "--force"]);
    let aside = restored["moved_aside"].as_str().unwrap();
    assert!(Path::new(aside).join("setpoint.db").is_file(), "what was there is kept: {aside}");
    setpoint.restart();
    assert_eq!(told(&setpoint), before);
}

#[test]
fn what_is_cut_or_altered_is_refused_and_nothing_is_put_in_place() {
    let mut setpoint = deployed();
    let file = setpoint.root().join("good.backup");
    setpoint.ok(&["backup", file.to_str().unwrap()]);
    setpoint.stop();
    fs::remove_dir_all(setpoint.data()).unwrap();
    let good = fs::read(&file).unwrap();
    let bad = setpoint.root().join("bad.backup");
    let name = bad.to_str().unwrap();
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for (bytes, words) in [
        (good[..good.len() / 2].to_vec(), ["ends too early", "Nothing was changed"]),
        (good[..good.len() - 1].to_vec(), ["ends too early", "Nothing was changed"]),
        (flipped, ["damaged or was altered", "Nothing was changed"]),
        (b"services: {}\n".to_vec(), ["no bundle", "Nothing was changed"]),
    ] {
        fs::write(&bad, bytes).unwrap();
        assert_refused(&setpoint, &["restore", name], &words);
        assert!(!setpoint.data().exists());
    }
    let left: Vec<_> = fs::read_dir(setpoint.root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("restoring"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert_refused(&setpoint, &["restore", "/nowhere.backup"], &["/nowhere.backup"]);
}

#[test]
fn contents_that_are_damaged_here_end_the_backup_with_the_reason() {
    let setpoint = deployed();
    let file = setpoint.root().join("all.backup");
    let name = file.to_str().unwrap();
    setpoint.ok(&["backup", name]);
    let earlier = fs::read(&file).unwrap();
    let contents = setpoint.data().join("blobs/blobs");
    let prefix = fs::read_dir(&contents).unwrap().next().unwrap().unwrap().path();
    let content = fs::read_dir(prefix).unwrap().next().unwrap().unwrap().path();
    let hash = content.file_name().unwrap().to_str().unwrap().to_owned();
    let size = usize::try_from(fs::metadata(&content).unwrap().len()).unwrap();
    fs::remove_file(&content).unwrap();
    fs::write(&content, "x".repeat(size)).unwrap();
    assert_refused(&setpoint, &["backup", name], &["could not finish", &hash, "damaged"]);
    assert_eq!(fs::read(&file).unwrap(), earlier, "the earlier backup is as it was");
}
