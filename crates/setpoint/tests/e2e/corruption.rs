//! Bytes that changed on the disk: in rows of the database, in its log, in the node's own files. What cannot be read is
//! unknown and left alone; everything else goes on.

use std::{
    fs,
    path::{Path, PathBuf},
};

use testkit::{
    Setpoint,
    fixture::{QUICK, demo},
    proc,
    setpoint::{SOON, find, pids},
};

use crate::setpoint;

const VERSION: &str = "/env?name=VERSION";

/// `api` and `web`, two of each.
fn both(web: &str) -> String {
    let api = demo(2, &[("VERSION", "one-of-api")], QUICK);
    let web = demo(2, &[("VERSION", web)], QUICK).replace("api", "web");
    format!("{api}{}", web.replace("services:\n", ""))
}

fn started() -> Setpoint {
    let setpoint = setpoint().manifest(&both("v1")).arg("--keep").start();
    setpoint.wait_until_converged("api");
    setpoint.wait_until_converged("web");
    setpoint
}

/// Ends in order, so that everything is in the one file; the workloads run on.
fn end(setpoint: &mut Setpoint) -> PathBuf {
    let status = setpoint.terminate();
    assert!(status.success(), "{status}");
    setpoint.set_args(&["--keep"]);
    setpoint.data().join("setpoint.db")
}

/// Changes every occurrence of some bytes that comes behind `before`, to as many others.
#[track_caller]
fn change(path: &Path, before: &str, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(path).unwrap();
    let (mut at, mut changed) = (0, 0);
    while let Some(found) = position(&bytes[at..], before.as_bytes()) {
        let start = at + found;
        // A row is no longer than this.
        let end = (start + 2000).min(bytes.len());
        if let Some(found) = position(&bytes[start..end], from.as_bytes()) {
            bytes[start + found..start + found + to.len()].copy_from_slice(to.as_bytes());
            changed += 1;
        }
        at = start + before.len();
    }
    assert!(changed > 0, "`{before}` … `{from}` is nowhere in {}", path.display());
    fs::write(path, bytes).unwrap();
}

fn position(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

#[test]
fn what_cannot_be_read_is_unknown_and_left_alone_and_the_others_go_on() {
    let damages = [
        ("its record is junk", "{\"key\":\"default/api\",\"generation\"", "{\"key\"", "\u{1}%%%%%"),
        ("its record lost its end", "{\"key\":\"default/api\",\"generation\"", "\"spec\":{", "\"spec\":}"),
        (
            "an illegal phase",
            "\"service\":\"default/api\",\"number\":1",
            "\"phase\":\"active\"",
            "\"phase\":\"actife\"",
        ),
        (
            "its plan is junk",
            "{\"key\":\"default/api\",\"generation\"",
            "\"placements\":{",
            "\"placements\":[",
        ),
        ("another release under the same digest", "default/apisha256", "one-of-api", "two-of-api"),
    ];
    let mut setpoint = started();
    let (api, web) = (pids(&setpoint.service("api")), pids(&setpoint.service("web")));
    for (number, (what, before, from, to)) in damages.into_iter().enumerate() {
        println!("{what}");
        let database = end(&mut setpoint);
        let whole = fs::read(&database).unwrap();
        change(&database, before, from, to);
        setpoint.restart();
        let unknown = setpoint.wait_until_state("api", "unknown");
        assert!(unknown["message"].as_str().unwrap().contains("read"), "{what}: {unknown:#}");
        assert_eq!(
            setpoint.get("api.localhost", VERSION).text().trim(),
            "one-of-api",
            "{what}: it is served"
        );
        // The other one is held, healed and changed.
        let next = format!("w{number}");
        let victim = pids(&setpoint.wait_until_converged("web"))[0];
        proc::kill9(victim);
        setpoint.wait_for_service("web", "it is healed", |web| {
            web["state"] == "converged" && !pids(web).contains(&victim)
        });
        let only_web = both(&next);
        let only_web = format!("services:\n{}", &only_web[only_web.find("  web:").unwrap()..]);
        setpoint.apply_ok(&only_web, &["--wait"]);
        assert_eq!(setpoint.get("web.localhost", VERSION).text().trim(), next, "{what}");
        // Nothing of it is touched, whoever asks.
        for command in [&["scale", "api", "1"][..], &["delete", "api"], &["restart", "api"]] {
            let refused = setpoint.cli(command);
            assert_eq!(refused.code, 1, "{what}: {refused:?}");
            assert!(refused.stderr.contains("read"), "{what}: {refused:?}");
            assert!(refused.stderr.contains("setpoint restore"), "{what}: it says what to do: {refused:?}");
        }
        let again = both(&next);
        let refused = setpoint.apply(&again[..again.find("  web:").unwrap()], &[]);
        assert_eq!(refused.code, 1, "{what}: {refused:?}");
        assert!(refused.stderr.contains("setpoint restore"), "{what}: it says what to do: {refused:?}");
        setpoint.ok(&["reconcile"]);
        assert!(setpoint.ok(&["explain", "api"]).contains("read"), "{what}");
        assert!(api.iter().all(|pid| proc::is_alive(*pid)), "{what}: its processes run on");
        assert_eq!(setpoint.service("api")["state"], "unknown");
        // Readable again, it is as it was.
        let database = end(&mut setpoint);
        let now = fs::read(&database).unwrap();
        assert!(now.len() >= whole.len(), "nothing was dropped");
        change(&database, &before.replace(from, to), to, from);
        setpoint.restart();
        assert_eq!(pids(&setpoint.wait_until_converged("api")), api, "{what}");
        assert_eq!(setpoint.get("api.localhost", VERSION).text().trim(), "one-of-api");
    }
    assert!(pids(&setpoint.service("web")).iter().all(|pid| !web.contains(pid)));
    setpoint.stop_after_keep();
}

#[test]
fn a_log_of_the_database_that_lost_its_end_is_read_as_far_as_it_is_whole() {
    let mut setpoint = started();
    for version in ["v2", "v3"] {
        setpoint.apply_ok(&both(version), &["--wait"]);
    }
    setpoint.kill9();
    let log = setpoint.data().join("setpoint.db-wal");
    let whole = fs::metadata(&log).unwrap().len();
    assert!(whole > 50_000, "{whole}");
    let file = fs::OpenOptions::new().write(true).open(&log).unwrap();
    // As a disk would that lost its last writes: in the middle of a page.
    file.set_len(whole - whole / 10 - 777).unwrap();
    setpoint.set_args(&["--keep"]);
    setpoint.restart();
    setpoint.wait_until_converged("api");
    setpoint.wait_until_converged("web");
    let version = setpoint.get("web.localhost", VERSION).text().trim().to_owned();
    assert!(["v1", "v2", "v3"].contains(&version.as_str()), "{version}");
    testkit::until("two of each, and nothing beside them", SOON, || {
        (setpoint.workloads().len() == 4).then_some(())
    });
    setpoint.apply_ok(&both("v4"), &["--wait"]);
    assert_eq!(setpoint.get("web.localhost", VERSION).text().trim(), "v4");
    setpoint.stop_after_keep();
}

#[test]
fn a_database_that_is_none_is_refused_and_nothing_is_touched() {
    let mut setpoint = started();
    let before: Vec<u32> = setpoint.workloads().into_iter().map(|workload| workload.pid).collect();
    let database = end(&mut setpoint);
    let whole = fs::read(&database).unwrap();
    fs::write(&database, vec![0x5a; whole.len()]).unwrap();
    let failed = setpoint.start().unwrap_err();
    assert!(failed.status.is_some_and(|status| !status.success()), "{failed:?}");
    assert!(failed.stderr.contains("setpoint.db"), "it names the file: {}", failed.stderr);
    assert!(!failed.stderr.contains("panicked"), "{}", failed.stderr);
    assert!(before.iter().all(|pid| proc::is_alive(*pid)));
    fs::write(&database, whole).unwrap();
    setpoint.restart();
    setpoint.wait_until_converged("api");
    let after: Vec<u32> = setpoint.workloads().into_iter().map(|workload| workload.pid).collect();
    assert_eq!(after, before);
    setpoint.stop_after_keep();
}

#[test]
fn a_store_that_is_gone_beside_the_nodes_ledger_is_refused_and_nothing_is_touched() {
    let mut setpoint = started();
    let before = setpoint.workloads();
    let database = end(&mut setpoint);
    let whole = fs::read(&database).unwrap();
    for empty in [true, false] {
        fs::remove_file(&database).unwrap();
        if empty {
            fs::write(&database, "").unwrap();
        }
        let failed = setpoint.start().unwrap_err();
        assert_eq!(failed.status.and_then(|status| status.code()), Some(1), "{failed:?}");
        for told in ["setpoint.db", "setpoint restore", "node.lost", "identity.json"] {
            assert!(failed.stderr.contains(told), "it says what to do ({told}): {}", failed.stderr);
        }
        assert_eq!(database.exists(), empty, "no store is made");
        assert_eq!(setpoint.workloads(), before);
        fs::write(&database, &whole).unwrap();
    }
    setpoint.restart();
    setpoint.wait_until_converged("api");
    assert_eq!(setpoint.workloads(), before);
    setpoint.stop_after_keep();
}

/// What a power loss leaves: files empty, half written or full of zeros, and another boot id.
#[test]
fn torn_files_of_the_nodes_ledger_after_a_reboot_cost_a_restart_and_no_more() {
    let mut setpoint = started();
    end(&mut setpoint);
    let node = setpoint.data().join("node");
    // A reboot ends every process, and the kernel has another id.
    for workload in setpoint.workloads() {
        proc::kill9(workload.pid);
    }
    testkit::until("they are gone", SOON, || setpoint.workloads().is_empty().then_some(()));
    fs::write(node.join("boot.json"), "\"00000000-0000-0000-0000-000000000000\"").unwrap();
    let tear = |kind: usize, bytes: &[u8]| match kind % 3 {
        0 => Vec::new(),
        1 => bytes[..bytes.len() / 2].to_vec(),
        _ => vec![0; bytes.len()],
    };
    let mut torn = 0;
    for folder in fs::read_dir(node.join("instances")).unwrap() {
        let folder = folder.unwrap().path();
        for name in ["state.json", "identity.json"] {
            let path = folder.join(name);
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, tear(torn, &bytes)).unwrap();
            torn += 1;
        }
        // Left by a write that never came to its rename.
        fs::write(folder.join(".state.json.tmp"), "{\"inst").unwrap();
    }
    fs::create_dir(node.join("instances/.new-default.api.7.7")).unwrap();
    fs::write(node.join("instances/.new-default.api.7.7/assigned.json"), "{").unwrap();
    setpoint.restart();
    for service in ["api", "web"] {
        let after = setpoint.wait_until_converged(service);
        assert_eq!(after["replicas"]["ready"], 2);
    }
    assert_eq!(setpoint.workloads().len(), 4, "one of each, none twice");
    assert!(!node.join("instances/.new-default.api.7.7").exists());
    setpoint.stop_after_keep();
}

/// Within one boot nothing tears by itself: somebody did it, and what may live has nothing started beside it.
#[test]
fn a_torn_file_within_the_same_boot_is_unknown_until_it_can_be_read() {
    let mut setpoint = started();
    end(&mut setpoint);
    let before = setpoint.workloads();
    let path = setpoint.data().join("node/instances");
    let folder = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let folder = folder.into_iter().find(|path| path.to_string_lossy().contains(".api.0.")).unwrap();
    let identity = fs::read(folder.join("identity.json")).unwrap();
    fs::write(folder.join("identity.json"), &identity[..identity.len() / 2]).unwrap();
    setpoint.restart();
    setpoint.wait_for("the instance is unknown", SOON, |status| {
        let api = find(status, "api")?;
        let unknown = |i: &serde_json::Value| i["state"] == "unknown";
        api["instances"].as_array()?.iter().any(unknown).then_some(())
    });
    setpoint.wait_until_converged("web");
    setpoint.ok(&["reconcile"]);
    assert_eq!(setpoint.workloads(), before, "none is started beside what may live");
    fs::write(folder.join("identity.json"), identity).unwrap();
    setpoint.ok(&["reconcile"]);
    setpoint.wait_for("it is known again", std::time::Duration::from_secs(60), |status| {
        (find(status, "api")?["state"] == "converged").then_some(())
    });
    assert_eq!(setpoint.workloads(), before);
    setpoint.stop_after_keep();
}
