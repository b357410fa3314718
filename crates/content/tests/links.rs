//! `current`, the webroot and the watch, against hands that play with them.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use content::{
    Kind,
    links::{self, LinkState, Switched},
    watch::{Seen, Watch},
    webroot::Webroot,
};
use model::artifact::{Artifact, File};

#[test]
fn a_switch_replaces_links_and_moves_everything_else_aside() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("current");
    let to = |target: &str| LinkState::To(target.into());
    assert_eq!(links::read(&link).unwrap(), LinkState::Absent);
    assert_eq!(links::switch(&link, "deployment-1").unwrap(), Switched::Switched);
    assert_eq!(links::switch(&link, "deployment-1").unwrap(), Switched::Unchanged);
    assert_eq!(links::switch(&link, "deployment-2").unwrap(), Switched::Switched);
    assert_eq!(links::read(&link).unwrap(), to("deployment-2"));

    fs::remove_file(&link).unwrap();
    fs::create_dir(&link).unwrap();
    fs::write(link.join("precious"), "p").unwrap();
    assert_eq!(links::read(&link).unwrap(), LinkState::NotALink(Kind::Directory));
    let aside = dir.path().join("current.aside-1");
    assert_eq!(links::switch(&link, "deployment-2").unwrap(), Switched::MovedAside(aside.clone()));
    assert_eq!(fs::read_to_string(aside.join("precious")).unwrap(), "p");
    assert_eq!(links::read(&link).unwrap(), to("deployment-2"));

    fs::remove_file(&link).unwrap();
    fs::write(&link, "a file").unwrap();
    let aside = dir.path().join("current.aside-2");
    assert_eq!(links::switch(&link, "deployment-2").unwrap(), Switched::MovedAside(aside));
    // A crash's leftover is no obstacle.
    symlink("half", dir.path().join(".current.setpoint-tmp")).unwrap();
    assert_eq!(links::switch(&link, "deployment-3").unwrap(), Switched::Switched);
    assert_eq!(links::remove(&link).unwrap(), to("deployment-3"));
    assert_eq!(links::read(&link).unwrap(), LinkState::Absent);
}

fn artifact(paths: &[&str]) -> Artifact {
    let file = File { digest: model::Digest::of_bytes(b""), size: 0, executable: false };
    Artifact { files: paths.iter().map(|path| (path.parse().unwrap(), file)).collect() }
}

#[test]
fn a_webroot_holds_our_links_and_nothing_of_others_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, site) = (dir.path().join("www"), dir.path().join("sites/p/s"));
    let webroot = Webroot { folder: &folder, site: &site };
    let first = artifact(&["index.html", "css/app.css", "taken", "foreign"]);
    assert_eq!(webroot.check(&first).unwrap().len(), 4, "all are missing");

    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("taken"), "somebody's").unwrap();
    symlink("/etc/passwd", folder.join("foreign")).unwrap();
    symlink("/etc/hosts", folder.join("unrelated")).unwrap();
    let climbing = site.join("../../../other");
    symlink(&climbing, folder.join("climbing")).unwrap();
    let conflicts = webroot.apply(&first).unwrap();
    let names: Vec<&OsStr> = conflicts.iter().map(|c| c.entry.as_os_str()).collect();
    assert_eq!(names, ["foreign", "taken"]);
    assert_eq!(fs::read_link(folder.join("css")).unwrap(), site.join("current/css"));
    assert_eq!(webroot.check(&first).unwrap(), conflicts, "only the conflicts are left");

    // The next release has no css; somebody has turned our link elsewhere within our site.
    fs::remove_file(folder.join("index.html")).unwrap();
    symlink(site.join("deployment-0/index.html"), folder.join("index.html")).unwrap();
    let second = artifact(&["index.html"]);
    assert_eq!(webroot.check(&second).unwrap().len(), 2);
    assert_eq!(webroot.apply(&second).unwrap(), []);
    assert_eq!(fs::read_link(folder.join("index.html")).unwrap(), site.join("current/index.html"));
    assert!(fs::symlink_metadata(folder.join("css")).is_err(), "a stale link goes");

    webroot.remove().unwrap();
    let mut left: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["climbing", "foreign", "taken", "unrelated"]);
    assert_eq!(fs::read_to_string(folder.join("taken")).unwrap(), "somebody's");
}

/// Waits until what was seen satisfies `want`.
fn until(watch: &mut Watch, story: &str, want: impl Fn(&Seen) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut all = Seen::default();
    while !want(&all) {
        assert!(Instant::now() < deadline, "{story}: saw only {all:?}");
        let seen = watch.wait(Duration::from_millis(200)).unwrap();
        all.paths.extend(seen.paths);
        all.gone.extend(seen.gone);
        all.everything |= seen.everything;
    }
}

#[test]
fn a_watch_sees_changes_new_folders_and_the_loss_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let site = dir.path().join("site");
    let tree = site.join("deployment-1");
    fs::create_dir_all(tree.join("css")).unwrap();
    fs::write(tree.join("css/app.css"), "a").unwrap();
    let mut watch = Watch::new().unwrap();
    watch.arm_folder(&site).unwrap();
    watch.arm_tree(&tree).unwrap();
    let names = |path: PathBuf| move |seen: &Seen| seen.paths.iter().any(|hint| path.starts_with(hint));

    fs::write(tree.join("css/app.css"), "b").unwrap();
    until(&mut watch, "a change", names(tree.join("css/app.css")));
    symlink("deployment-1", site.join("current")).unwrap();
    until(&mut watch, "a new link beside", names(site.join("current")));
    fs::remove_file(site.join("current")).unwrap();
    until(&mut watch, "a link removed", names(site.join("current")));

    fs::create_dir_all(tree.join("new/deeper")).unwrap();
    let armed = |watch: &mut Watch, folder: &Path| {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !watch.is_armed(folder) {
            assert!(Instant::now() < deadline, "{} is never armed", folder.display());
            watch.wait(Duration::from_millis(50)).unwrap();
        }
    };
    armed(&mut watch, &tree.join("new/deeper"));
    fs::write(tree.join("new/deeper/x"), "x").unwrap();
    until(&mut watch, "a change in a new folder", names(tree.join("new/deeper/x")));

    fs::rename(tree.join("new"), tree.join("renamed")).unwrap();
    armed(&mut watch, &tree.join("renamed/deeper"));
    fs::write(tree.join("renamed/deeper/x"), "y").unwrap();
    until(&mut watch, "a change in a renamed folder", names(tree.join("renamed/deeper/x")));

    fs::remove_dir_all(&tree).unwrap();
    until(&mut watch, "the tree is gone", |seen| seen.gone.contains(&tree));
    assert!(!watch.is_armed(&tree) && watch.is_armed(&site));
    fs::create_dir(&tree).unwrap();
    until(&mut watch, "it is made again", names(tree.clone()));
    watch.arm_tree(&tree).unwrap();
    fs::write(tree.join("x"), "x").unwrap();
    until(&mut watch, "a change after arming again", names(tree.join("x")));
}

#[test]
fn a_folder_that_cannot_be_watched_ends_no_other_watch() {
    let dir = tempfile::tempdir().unwrap();
    let mut watch = Watch::new().unwrap();
    watch.arm_tree(dir.path()).unwrap();
    // Deeper than any path can name.
    let deep = "d".repeat(250);
    let mut folder = std::fs::File::open(dir.path()).unwrap();
    for _ in 0..20 {
        rustix::fs::mkdirat(&folder, &deep, 0o755.into()).unwrap();
        folder =
            rustix::fs::openat(&folder, &deep, rustix::fs::OFlags::DIRECTORY, 0o755.into()).unwrap().into();
    }
    let mut everything = false;
    for _ in 0..100 {
        everything |= watch.wait(Duration::from_millis(50)).unwrap().everything;
        if everything {
            break;
        }
    }
    assert!(everything, "what lies there is found by looking");
    let file = dir.path().join("changed");
    std::fs::write(&file, "x").unwrap();
    let seen = (0..100).map(|_| watch.wait(Duration::from_millis(50)).unwrap());
    assert!(seen.into_iter().any(|seen| seen.paths.contains(&file)), "the others are watched on");
}

#[test]
fn lost_events_say_look_at_everything() {
    let limit: usize =
        fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    if limit > 200_000 {
        println!("skipped: the kernel queues {limit} events");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut watch = Watch::new().unwrap();
    watch.arm_tree(dir.path()).unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    fs::write(&a, "").unwrap();
    for _ in 0..=limit / 4 {
        // Four events a turn, no two alike in a row, so that the kernel merges none.
        fs::rename(&a, &b).unwrap();
        fs::rename(&b, &a).unwrap();
    }
    until(&mut watch, "an overflow", |seen| seen.everything);
}
