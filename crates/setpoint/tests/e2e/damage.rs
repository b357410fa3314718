//! Every kind of hand-made damage to a site and to rendered files: noticed, named and put back.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use testkit::{
    Setpoint,
    fixture::{QUICK, demo, versioned_site},
};

use crate::setpoint;

/// Noticed within 2 s; put back at once, on a busy machine.
const HEALED_WITHIN: Duration = Duration::from_secs(6);

/// What one does to it, where the site is, and a word of the path that an event must name.
type Damage<T> = (&'static str, fn(&T), &'static str);

struct Places {
    site: PathBuf,
    active: PathBuf,
    webroot: PathBuf,
}

fn remove(path: PathBuf) {
    match fs::symlink_metadata(&path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

const TO_A_SITE: &[Damage<Places>] = &[
    ("a file is changed", |p| fs::write(p.active.join("index.html"), "hacked").unwrap(), "index.html"),
    (
        "a file is changed to the same length",
        |p| fs::write(p.active.join("part/1.txt"), "v1 X\n").unwrap(),
        "part/1.txt",
    ),
    ("a file is removed", |p| remove(p.active.join("part/0.txt")), "part/0.txt"),
    ("a file is emptied", |p| fs::write(p.active.join("part/2.txt"), "").unwrap(), "part/2.txt"),
    ("a file is added", |p| fs::write(p.active.join("part/extra.php"), "<?php").unwrap(), "part/extra.php"),
    ("a folder is added", |p| fs::create_dir_all(p.active.join("new/folder")).unwrap(), "new"),
    ("a folder is removed", |p| remove(p.active.join("part")), "part"),
    (
        "a file's mode is changed",
        |p| fs::set_permissions(p.active.join("index.html"), fs::Permissions::from_mode(0o777)).unwrap(),
        "index.html",
    ),
    (
        "a file becomes a folder",
        |p| {
            remove(p.active.join("part/0.txt"));
            fs::create_dir(p.active.join("part/0.txt")).unwrap();
        },
        "part/0.txt",
    ),
    (
        "a file becomes a link out of the site",
        |p| {
            remove(p.active.join("part/1.txt"));
            symlink("/etc/passwd", p.active.join("part/1.txt")).unwrap();
        },
        "part/1.txt",
    ),
    (
        "a folder becomes a file",
        |p| {
            remove(p.active.join("part"));
            fs::write(p.active.join("part"), "in the way").unwrap();
        },
        "part",
    ),
    (
        "a file is renamed",
        |p| fs::rename(p.active.join("part/2.txt"), p.active.join("part/3.txt")).unwrap(),
        "part/2.txt",
    ),
    ("the whole deployment is removed", |p| remove(p.active.clone()), "site"),
    (
        "the whole deployment is moved away",
        |p| fs::rename(&p.active, p.site.parent().unwrap().join("elsewhere")).unwrap(),
        "site",
    ),
    ("current is removed", |p| remove(p.site.join("current")), "current"),
    (
        "current points elsewhere",
        |p| {
            remove(p.site.join("current"));
            symlink("/tmp", p.site.join("current")).unwrap();
        },
        "current",
    ),
    (
        "current dangles",
        |p| {
            remove(p.site.join("current"));
            symlink("deployment-gone", p.site.join("current")).unwrap();
        },
        "current",
    ),
    (
        "current becomes a folder",
        |p| {
            remove(p.site.join("current"));
            fs::create_dir(p.site.join("current")).unwrap();
            fs::write(p.site.join("current/work.txt"), "somebody's work").unwrap();
        },
        "current",
    ),
    (
        "current becomes a file",
        |p| {
            remove(p.site.join("current"));
            fs::write(p.site.join("current"), "no link").unwrap();
        },
        "current",
    ),
    ("a link of the webroot is removed", |p| remove(p.webroot.join("index.html")), "webroot/index.html"),
    (
        "a link of the webroot points into an old deployment",
        |p| {
            remove(p.webroot.join("part"));
            symlink(p.active.join("part"), p.webroot.join("part")).unwrap();
        },
        "webroot/part",
    ),
    ("the webroot is removed", |p| remove(p.webroot.clone()), "webroot/"),
];

/// Everything as declared, seen from outside.
fn is_whole(setpoint: &Setpoint, places: &Places) -> Option<()> {
    let expected = ["index.html", "part/0.txt", "part/1.txt", "part/2.txt"];
    let text = |file: &str| match file.strip_prefix("part/").and_then(|f| f.strip_suffix(".txt")) {
        Some(number) => format!("v1 {number}\n"),
        None => "v1".into(),
    };
    let is_file = |path: &Path| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file());
    for file in expected {
        let path = places.active.join(file);
        let served = setpoint.try_get("docs.localhost", &format!("/{file}")).ok()?;
        let through = fs::read_to_string(places.site.join("current").join(file)).ok()?;
        let linked = fs::read_to_string(places.webroot.join(file)).ok()?;
        if !is_file(&path) || through != text(file) || linked != text(file) || served.text() != text(file) {
            return None;
        }
    }
    let count = |folder: &str| fs::read_dir(places.active.join(folder)).map(Iterator::count).ok();
    let mode = fs::metadata(places.active.join("index.html")).ok()?.permissions().mode() & 0o777;
    let link = fs::read_link(places.site.join("current")).ok()?;
    let link_is_relative = Some(link.as_os_str()) == places.active.file_name();
    let webroot_link = fs::read_link(places.webroot.join("part")).ok()?;
    let through_current = webroot_link.to_str()?.contains("/current/");
    (count("") == Some(2) && count("part") == Some(3) && mode != 0o777 && link_is_relative && through_current)
        .then_some(())
}

#[test]
fn every_damage_to_a_site_is_named_and_put_back_in_the_same_folder() {
    let builder = setpoint();
    let webroot = builder.work().join("www");
    versioned_site(&builder.work().join("site"), "v1", 3);
    let yaml = format!(
        "services:\n  docs:\n    static: {{ path: ./site, webroot: {} }}\n    domains: [docs.localhost]\n",
        webroot.display()
    );
    let setpoint = builder.manifest(&yaml).start();
    let docs = setpoint.wait_until_converged("docs");
    let site = setpoint.data().join("sites/default/docs");
    let active = site.join(format!("deployment-{}", docs["deployment"]["id"].as_str().unwrap()));
    let places = Places { site, active, webroot };
    testkit::until("the site is whole at first", HEALED_WITHIN, || is_whole(&setpoint, &places));
    let mut seen = last_event(&setpoint);
    for (what, damage, path) in TO_A_SITE {
        let began = Instant::now();
        damage(&places);
        testkit::until(&format!("healed: {what}"), HEALED_WITHIN, || is_whole(&setpoint, &places));
        println!("{what}: healed after {:?}", began.elapsed());
        let told = |kind: &str| {
            testkit::until(&format!("{kind} names {path}: {what}"), HEALED_WITHIN, || {
                let events = setpoint.events();
                let mut new = events.iter().filter(|event| event["seq"].as_u64() > Some(seen));
                new.find(|event| event["kind"] == kind && event["message"].as_str().unwrap().contains(path))
                    .map(drop)
            });
        };
        told("drift.found");
        told("drift.corrected");
        seen = last_event(&setpoint);
    }
    let docs = setpoint.wait_until_converged("docs");
    assert_eq!(docs["deployment"]["number"], 1, "healed in the same deployment");
    let aside = fs::read_dir(&places.site).unwrap().map(|entry| entry.unwrap().path());
    let kept = aside.filter(|path| path.join("work.txt").exists()).count();
    assert_eq!(kept, 1, "a folder in the place of `current` is moved aside, not deleted");
    assert!(Path::new("/etc/passwd").metadata().unwrap().len() > 5, "no link was followed");
    assert_eq!(setpoint.json(&["drift"])["drift"], serde_json::json!([]));
}

fn last_event(setpoint: &Setpoint) -> u64 {
    setpoint.events().last().and_then(|event| event["seq"].as_u64()).unwrap_or(0)
}

#[test]
fn somebody_elses_file_in_the_webroot_is_reported_and_left_alone() {
    let builder = setpoint();
    let webroot = builder.work().join("www");
    versioned_site(&builder.work().join("site"), "v1", 1);
    let yaml = format!(
        "services:\n  docs:\n    static: {{ path: ./site, webroot: {} }}\n    domains: [docs.localhost]\n",
        webroot.display()
    );
    let setpoint = builder.manifest(&yaml).start();
    setpoint.wait_until_converged("docs");
    remove(webroot.join("index.html"));
    fs::write(webroot.join("index.html"), "somebody's work").unwrap();
    setpoint.wait_for_event("drift.found", &["webroot/index.html"]);
    setpoint.ok(&["reconcile"]);
    let drift = setpoint.json(&["drift", "docs"]);
    assert_eq!(drift["drift"][0]["path"], "webroot/index.html", "{drift:#}");
    let why = "cannot be put back: what is there is not Setpoint's, and is left alone";
    assert!(setpoint.ok(&["drift", "docs"]).contains(why));
    setpoint.wait_for_service("docs", "the state says so too", |docs| {
        docs["message"].as_str().unwrap().ends_with(why)
    });
    assert_eq!(fs::read_to_string(webroot.join("index.html")).unwrap(), "somebody's work");
}

#[test]
fn damage_done_while_setpoint_is_away_is_found_at_the_start() {
    let builder = setpoint();
    versioned_site(&builder.work().join("site"), "v1", 3);
    let mut setpoint =
        builder.manifest("services:\n  docs:\n    static: ./site\n    domains: [docs.localhost]\n").start();
    let docs = setpoint.wait_until_converged("docs");
    setpoint.kill9();
    let site = setpoint.data().join("sites/default/docs");
    let active = site.join(format!("deployment-{}", docs["deployment"]["id"].as_str().unwrap()));
    fs::write(active.join("index.html"), "hacked").unwrap();
    remove(active.join("part"));
    remove(site.join("current"));
    setpoint.set_args(&[]);
    setpoint.restart();
    testkit::until("it is whole again", HEALED_WITHIN, || {
        let page = fs::read_to_string(site.join("current/index.html")).ok()?;
        let part = setpoint.try_get("docs.localhost", "/part/1.txt").ok()?;
        (page == "v1" && part.text() == "v1 1\n").then_some(())
    });
}

/// From where content is put back, this one is gone.
fn lose_content(setpoint: &Setpoint, text: &str) {
    let stored = setpoint.data().join("blobs/blobs");
    let blobs =
        fs::read_dir(stored).unwrap().flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
    let is_lost = |path: &PathBuf| fs::read(path).unwrap() == text.as_bytes();
    fs::remove_file(blobs.map(|entry| entry.unwrap().path()).find(is_lost).unwrap()).unwrap();
}

/// A file whose content is nowhere any more cannot be put back; everything else can.
#[test]
fn what_cannot_be_put_back_is_in_no_way_of_the_rest() {
    let builder = setpoint();
    versioned_site(&builder.work().join("site"), "v1", 3);
    let setpoint =
        builder.manifest("services:\n  docs:\n    static: ./site\n    domains: [docs.localhost]\n").start();
    setpoint.wait_until_converged("docs");
    lose_content(&setpoint, "v1 1\n");
    let current = setpoint.data().join("sites/default/docs/current");
    remove(current.join("part/1.txt"));
    setpoint.wait_for_service("docs", "the reason is told", |docs| {
        docs["message"].as_str().unwrap().contains("differs and cannot be put back: ")
    });
    let explained = setpoint.ok(&["explain", "docs"]);
    assert!(explained.contains("differs and cannot be put back: ") && !explained.contains("being corrected"));
    // What is looked at before it, and what after.
    remove(current.join("index.html"));
    remove(current.join("part/2.txt"));
    remove(current.clone());
    testkit::until("the rest is put back", testkit::setpoint::SOON, || {
        let text = |file: &str| fs::read_to_string(current.join(file)).ok();
        (text("index.html")? == "v1" && text("part/2.txt")? == "v1 2\n").then_some(())
    });
}

const WARNED: &str =
    "services:\n  docs:\n    static: ./site\n    domains: [docs.localhost]\n    drift: warn\n";

/// `v2` of a site is shown; gives the folder in which `v1` is kept for a rollback.
fn shown_after_kept() -> (Setpoint, PathBuf) {
    let builder = setpoint();
    let site = builder.work().join("site");
    versioned_site(&site, "v1", 3);
    let setpoint = builder.manifest(WARNED).start();
    let first = setpoint.wait_until_converged("docs");
    versioned_site(&site, "v2", 3);
    setpoint.apply_ok(WARNED, &["--wait"]);
    let kept = format!("sites/default/docs/deployment-{}", first["deployment"]["id"].as_str().unwrap());
    let kept = setpoint.data().join(kept);
    (setpoint, kept)
}

/// A folder that is kept for a rollback, and from which somebody took a file, is shown only once it is whole: also where
/// drift is only warned of.
#[test]
fn a_kept_folder_that_was_damaged_is_whole_before_it_is_shown_again() {
    let (setpoint, kept) = shown_after_kept();
    let taken = kept.join("part/1.txt");
    remove(taken.clone());
    testkit::until("it is put back", testkit::setpoint::SOON, || taken.exists().then_some(()));
    let load = setpoint.load("docs.localhost", "/part/1.txt").rate(100).start();
    setpoint.ok(&["rollback", "docs", "--wait"]);
    load.go_on_for(50);
    load.stop().assert_clean(50);
    assert_eq!(setpoint.get("docs.localhost", "/part/1.txt").text(), "v1 1\n");
}

/// Going back to it fails instead, and what is shown goes on being shown.
#[test]
fn a_kept_folder_that_cannot_be_made_whole_is_not_shown() {
    let (setpoint, kept) = shown_after_kept();
    setpoint.apply_ok(&format!("{WARNED}    deploy: {{ deadline: 3s }}\n"), &["--wait"]);
    lose_content(&setpoint, "v1 1\n");
    remove(kept.join("part/1.txt"));
    let load = setpoint.load("docs.localhost", "/part/1.txt").rate(100).start();
    let output = setpoint.cli(&["rollback", "docs", "--wait=60s"]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("no progress within 3s"), "{output:?}");
    load.go_on_for(50);
    load.stop().assert_clean(50);
    assert_eq!(setpoint.get("docs.localhost", "/part/1.txt").text(), "v2 1\n");
    let current = setpoint.data().join("sites/default/docs/current/part/1.txt");
    assert_eq!(fs::read_to_string(current).unwrap(), "v2 1\n");
}

#[test]
fn damaged_rendered_files_are_put_back_while_the_workload_runs_on() {
    let more = format!("{QUICK}\nfiles: {{ config.txt: \"declared\\n\", etc/deep.txt: deep }}");
    let setpoint = setpoint().manifest(&demo(1, &[], &more)).start();
    let before = setpoint.wait_until_converged("api");
    let folder = setpoint.workloads()[0].cwd.clone();
    let damages: [Damage<Path>; 6] = [
        ("all of it removed", |f| remove(f.to_owned()), "config.txt"),
        ("changed", |f| fs::write(f.join("config.txt"), "hacked!!\n").unwrap(), "config.txt"),
        ("removed", |f| remove(f.join("config.txt")), "config.txt"),
        ("its folder removed", |f| remove(f.join("etc")), "etc/deep.txt"),
        (
            "replaced by a folder",
            |f| {
                remove(f.join("config.txt"));
                fs::create_dir(f.join("config.txt")).unwrap();
            },
            "config.txt",
        ),
        (
            "replaced by a link",
            |f| {
                remove(f.join("config.txt"));
                symlink("/etc/passwd", f.join("config.txt")).unwrap();
            },
            "config.txt",
        ),
    ];
    let mut seen = last_event(&setpoint);
    for (what, damage, path) in damages {
        damage(&folder);
        testkit::until(&format!("put back: {what}"), HEALED_WITHIN, || {
            let config = fs::symlink_metadata(folder.join("config.txt")).ok()?;
            let text = fs::read_to_string(folder.join("config.txt")).ok()?;
            let deep = fs::read_to_string(folder.join("etc/deep.txt")).ok()?;
            (config.is_file() && text == "declared\n" && deep == "deep").then_some(())
        });
        testkit::until(&format!("an event names {path}: {what}"), HEALED_WITHIN, || {
            let events = setpoint.events();
            let mut new = events.iter().filter(|event| event["seq"].as_u64() > Some(seen));
            new.find(|e| e["kind"] == "drift.corrected" && e["message"].as_str().unwrap().contains(path))
                .map(drop)
        });
        seen = last_event(&setpoint);
    }
    let after = setpoint.wait_until_converged("api");
    assert_eq!(after["instances"][0]["pid"], before["instances"][0]["pid"], "nobody was restarted for it");
}
