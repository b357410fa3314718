//! Sites: placed, switched, healed, removed.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use model::{
    assignment::Assigned,
    event::Kind,
    observation::State,
    spec::{DriftMode, Workload},
};

use crate::world::*;

fn home(world: &World) -> PathBuf {
    world.config.sites.join("default/docs")
}

fn current(world: &World) -> PathBuf {
    fs::read_link(home(world).join("current")).unwrap_or_default()
}

fn with_webroot(assigned: Assigned, webroot: &Path) -> Assigned {
    with(assigned, |release| {
        if let Workload::Site(site) = &mut release.workload {
            site.webroot = Some(webroot.display().to_string());
        }
    })
}

const FILES: [(&str, &str); 4] = [
    ("index.html", "<h1>one</h1>"),
    ("css/app.css", "a{}"),
    ("css/deep/er/x.css", "b{}"),
    ("robots.txt", "no"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_is_placed_whole_and_switched_only_when_it_is_current() {
    let mut world = World::new();
    let run = world.start().await;
    let (one, two) = (world.artifact(&FILES), world.artifact(&[("index.html", "two")]));
    let first = site("default.docs.0.1", "aaa", one, true);
    let second = site("default.docs.0.2", "bbb", two, false);
    run.node.assign(world.assignment(&[first.clone(), second.clone()])).await.unwrap();
    let report = run.until_report(&first.id, "it is current", |r| r.ready && r.current).await;
    assert_eq!(report.state, State::Running);
    let folder = home(&world).join("deployment-aaa");
    assert_eq!(report.folder.as_deref(), folder.to_str());
    assert_eq!(read(folder.join("css/deep/er/x.css")), "b{}");
    assert_eq!(report.copied.map(|copied| (copied.files, copied.total)), Some((4, 4)));
    run.until_ready(&second.id).await;
    assert_eq!(current(&world), Path::new("deployment-aaa"), "a whole folder alone switches nothing");

    // `current` resolves throughout the switch.
    let link = home(&world).join("current/index.html");
    let watching = tokio::task::spawn_blocking(move || {
        let mut opened = 0;
        while read(&link) != "two" {
            assert!(fs::metadata(&link).is_ok(), "ENOENT during a switch");
            opened += 1;
        }
        opened
    });
    let (first, second) = (Assigned { current: false, ..first }, Assigned { current: true, ..second });
    run.node.assign(world.assignment(&[first.clone(), second.clone()])).await.unwrap();
    run.until_report(&second.id, "it is current", |r| r.current).await;
    run.until_report(&first.id, "it is not", |r| !r.current && r.drift.is_empty()).await;
    assert!(watching.await.unwrap() > 0);

    run.node.assign(world.assignment(std::slice::from_ref(&second))).await.unwrap();
    run.until_gone(&first.id).await;
    assert!(!folder.exists());
    assert_eq!(current(&world), Path::new("deployment-bbb"));
    run.node.assign(world.assignment(&[])).await.unwrap();
    run.until_gone(&second.id).await;
    assert!(!home(&world).exists(), "nothing of it is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_damage_is_noticed_by_itself_and_put_back_in_the_same_folder() {
    let mut world = World::new();
    let webroot = world.dir.path().join("webroot");
    let run = world.start().await;
    let docs = with_webroot(site("default.docs.0.1", "aaa", world.artifact(&FILES), true), &webroot);
    run.node.assign(world.assignment(std::slice::from_ref(&docs))).await.unwrap();
    run.until_report(&docs.id, "it is current", |r| r.ready && r.current).await;
    assert_eq!(read(webroot.join("index.html")), "<h1>one</h1>");
    let folder = home(&world).join("deployment-aaa");
    let home = home(&world);
    let whole = |folder: &Path| {
        FILES.iter().all(|(path, text)| read(folder.join(path)) == *text)
            && walk(folder) == 7
            && fs::read_link(home.join("current")).is_ok_and(|to| to == Path::new("deployment-aaa"))
            && read(webroot.join("css/app.css")) == "a{}"
            && fs::symlink_metadata(webroot.join("index.html")).is_ok_and(|meta| meta.is_symlink())
    };
    assert!(whole(&folder));
    type Damage<'a> = (&'a str, Box<dyn Fn(&Path) + 'a>);
    let link = home.join("current");
    let damages: Vec<Damage<'_>> = vec![
        ("a file is missing", Box::new(|f| fs::remove_file(f.join("robots.txt")).unwrap())),
        ("a file is changed", Box::new(|f| fs::write(f.join("css/app.css"), "evil").unwrap())),
        (
            "a file is changed to the same size",
            Box::new(|f| fs::write(f.join("css/app.css"), "b{}").unwrap()),
        ),
        (
            "a file is a folder",
            Box::new(|f| {
                fs::remove_file(f.join("robots.txt")).unwrap();
                fs::create_dir_all(f.join("robots.txt/x")).unwrap();
            }),
        ),
        (
            "a file is a link",
            Box::new(|f| {
                fs::remove_file(f.join("robots.txt")).unwrap();
                symlink("/etc/passwd", f.join("robots.txt")).unwrap();
            }),
        ),
        ("a file too many", Box::new(|f| fs::write(f.join("css/extra.css"), "x").unwrap())),
        (
            "a mode",
            Box::new(|f| {
                fs::set_permissions(f.join("index.html"), fs::Permissions::from_mode(0o600)).unwrap();
            }),
        ),
        ("a deep folder is missing", Box::new(|f| vanish(&world, &f.join("css/deep")))),
        ("the folder is missing", Box::new(|f| vanish(&world, f))),
        ("the folder is renamed", Box::new(|f| fs::rename(f, f.with_extension("away")).unwrap())),
        ("current is missing", Box::new(|_| fs::remove_file(&link).unwrap())),
        (
            "current leads elsewhere",
            Box::new(|_| {
                fs::remove_file(&link).unwrap();
                symlink("/tmp", &link).unwrap();
            }),
        ),
        (
            "current is a folder",
            Box::new(|_| {
                fs::remove_file(&link).unwrap();
                fs::create_dir(&link).unwrap();
                fs::write(link.join("mine"), "precious").unwrap();
            }),
        ),
        ("a webroot link is missing", Box::new(|_| fs::remove_file(webroot.join("css")).unwrap())),
        (
            "a webroot link leads elsewhere in the site",
            Box::new(|_| {
                fs::remove_file(webroot.join("css")).unwrap();
                symlink(home.join("deployment-aaa/css"), webroot.join("css")).unwrap();
            }),
        ),
        ("everything is missing", Box::new(|f| vanish(&world, f.parent().unwrap()))),
        ("a file is changed after all that", Box::new(|f| fs::write(f.join("index.html"), "evil").unwrap())),
    ];
    for (what, damage) in damages {
        let began = Instant::now();
        damage(&folder);
        eventually(what, || whole(&folder)).await;
        assert!(began.elapsed() < Duration::from_secs(2), "{what}: {:?}", began.elapsed());
        run.until_report(&docs.id, what, |r| r.ready && r.current && r.drift.is_empty()).await;
    }
    let aside = walk_names(&home).into_iter().find(|name| name.starts_with("current.aside"));
    // The last damage but one took it along with everything else.
    assert_eq!(aside, None);
    assert_eq!(run.until_ready(&docs.id).await.attempts.total, 0);
}

/// In one step: a removal entry by entry races with its repair.
fn vanish(world: &World, path: &Path) {
    let away = tempfile::tempdir_in(world.dir.path()).unwrap();
    fs::rename(path, away.path().join("gone")).unwrap();
}

fn walk(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let below = |entry: fs::DirEntry| {
        1 + if entry.file_type().is_ok_and(|kind| kind.is_dir()) { walk(&entry.path()) } else { 0 }
    };
    entries.flatten().map(below).sum()
}

fn walk_names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webroot_that_is_left_loses_our_links_and_has_them_again_after_a_rollback() {
    let mut world = World::new();
    let (left, taken) = (world.dir.path().join("left"), world.dir.path().join("taken"));
    let run = world.start().await;
    let first = with_webroot(site("default.docs.0.1", "aaa", world.artifact(&FILES), true), &left);
    run.node.assign(world.assignment(std::slice::from_ref(&first))).await.unwrap();
    run.until_report(&first.id, "it is current", |r| r.current).await;
    fs::write(left.join("theirs.html"), "theirs").unwrap();
    symlink("/tmp", left.join("elsewhere")).unwrap();

    for second in [
        with_webroot(site("default.docs.0.2", "bbb", world.artifact(&FILES), false), &taken),
        site("default.docs.0.3", "ccc", world.artifact(&FILES), false),
    ] {
        let (away, next) =
            (Assigned { current: false, ..first.clone() }, Assigned { current: true, ..second.clone() });
        run.node.assign(world.assignment(&[first.clone(), second.clone()])).await.unwrap();
        run.until_ready(&second.id).await;
        assert_eq!(read(left.join("index.html")), "<h1>one</h1>", "until the switch");
        run.node.assign(world.assignment(&[away, next])).await.unwrap();
        run.until_report(&second.id, "it is current", |r| r.current).await;
        let mut names = walk_names(&left);
        names.sort();
        assert_eq!(names, ["elsewhere", "theirs.html"], "only ours went");
        run.until_report(&first.id, "it is not", |r| !r.current).await;

        run.node.assign(world.assignment(&[first.clone(), second.clone()])).await.unwrap();
        run.until_report(&first.id, "it is current again", |r| r.current && r.drift.is_empty()).await;
        eventually("its links are back", || read(left.join("index.html")) == "<h1>one</h1>").await;
        eventually("the others are gone", || !taken.exists() || walk_names(&taken).is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_in_the_place_of_current_is_kept_aside_and_the_event_names_the_path() {
    let mut world = World::new();
    let run = world.start().await;
    let mut events = run.node.events();
    let docs = site("default.docs.0.1", "aaa", world.artifact(&FILES), true);
    run.node.assign(world.assignment(std::slice::from_ref(&docs))).await.unwrap();
    run.until_report(&docs.id, "it is current", |r| r.current).await;
    let link = home(&world).join("current");
    fs::remove_file(&link).unwrap();
    fs::create_dir(&link).unwrap();
    fs::write(link.join("mine"), "precious").unwrap();
    eventually("it is a link again", || current(&world) == Path::new("deployment-aaa")).await;
    assert_eq!(read(home(&world).join("current.aside-1/mine")), "precious");
    let (mut found, mut corrected) = (None, None);
    while corrected.is_none() {
        let event = tokio::time::timeout(Duration::from_secs(10), events.recv()).await.unwrap().unwrap();
        match event.kind {
            Kind::DriftFound => found = Some(event.message),
            Kind::DriftCorrected => corrected = Some(event.message),
            _ => {}
        }
    }
    assert!(found.unwrap().contains("site/current") && corrected.unwrap().contains("site/current"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drift_that_is_only_warned_about_or_ignored_stays_and_nothing_spins() {
    let mut world = World::new();
    let run = world.start().await;
    let mut docs = site("default.docs.0.1", "aaa", world.artifact(&FILES), true);
    docs.drift.mode = DriftMode::Warn;
    docs.drift.ignore = vec!["site/robots.txt".into()];
    run.node.assign(world.assignment(std::slice::from_ref(&docs))).await.unwrap();
    run.until_report(&docs.id, "it is current", |r| r.current).await;
    let folder = home(&world).join("deployment-aaa");
    fs::write(folder.join("robots.txt"), "all").unwrap();
    fs::write(folder.join("index.html"), "hand-made").unwrap();
    fs::remove_file(home(&world).join("current")).unwrap();
    symlink("/tmp", home(&world).join("current")).unwrap();
    let paths =
        |r: &model::observation::InstanceReport| r.drift.iter().map(|d| d.path.clone()).collect::<Vec<_>>();
    let report =
        run.until_report(&docs.id, "it is told", |r| paths(r) == ["site/current", "site/index.html"]).await;
    let since = report.drift[0].since;
    run.node.look().await;
    let report = run.until_report(&docs.id, "it is told still", |r| r.drift.len() == 2).await;
    assert_eq!(report.drift[0].since, since);
    assert_eq!(read(folder.join("index.html")), "hand-made");
    assert_eq!(current(&world), Path::new("/tmp"));
    run.drop().await;

    // The policy changes while nobody looks; since when it differs is remembered, and that it was told.
    let run = world.start().await;
    let mut events = run.node.events();
    let report = run.until_report(&docs.id, "it is told again", |r| r.drift.len() == 2).await;
    assert_eq!(report.drift[0].since, since);
    while let Ok(event) = events.try_recv() {
        assert_ne!(event.kind, Kind::DriftFound, "{}", event.message);
    }
    docs.drift.mode = DriftMode::Correct;
    run.node.assign(world.assignment(std::slice::from_ref(&docs))).await.unwrap();
    run.until_report(&docs.id, "it is put back", |r| r.drift.is_empty() && r.current).await;
    assert_eq!(read(folder.join("index.html")), "<h1>one</h1>");
    assert_eq!(read(folder.join("robots.txt")), "all", "what is ignored is not put back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drift_that_is_undone_while_nobody_was_there_is_told_to_be_over() {
    let mut world = World::new();
    let run = world.start().await;
    let mut docs = site("default.docs.0.1", "aaa", world.artifact(&FILES), true);
    docs.drift.mode = DriftMode::Warn;
    run.node.assign(world.assignment(std::slice::from_ref(&docs))).await.unwrap();
    run.until_report(&docs.id, "it is current", |r| r.current).await;
    let page = home(&world).join("deployment-aaa/index.html");
    fs::write(&page, "hand-made").unwrap();
    run.until_report(&docs.id, "it differs", |r| r.drift.len() == 1).await;
    run.drop().await;
    fs::write(&page, "<h1>one</h1>").unwrap();
    let run = world.start().await;
    let mut events = run.node.events();
    let told = async { while events.recv().await.unwrap().kind != Kind::DriftCorrected {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), told).await.expect("it is told to be over");
    run.until_report(&docs.id, "it is whole", |r| r.ready && r.drift.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_done_while_nobody_was_there_is_healed_at_the_start() {
    let mut world = World::new();
    let run = world.start().await;
    let docs = site("default.docs.0.1", "aaa", world.artifact(&FILES), true);
    run.node.assign(world.assignment(std::slice::from_ref(&docs))).await.unwrap();
    run.until_report(&docs.id, "it is current", |r| r.current).await;
    run.drop().await;
    let folder = home(&world).join("deployment-aaa");
    fs::write(folder.join("index.html"), "evil").unwrap();
    fs::remove_file(home(&world).join("current")).unwrap();
    let run = world.start().await;
    let seen = run.until("all is looked at", |o| o.complete).await;
    assert!(seen.instances[&docs.id].ready);
    run.until_report(&docs.id, "it is healed", |r| r.current && r.drift.is_empty()).await;
    assert_eq!(read(folder.join("index.html")), "<h1>one</h1>");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_without_its_content_says_so_and_comes_up_when_it_is_there() {
    let mut world = World::new();
    let run = world.start().await;
    let artifact = world.artifact(&[("index.html", "x")]);
    let blob = model::Digest::of_bytes(b"x");
    world.blobs().remove(&blob).unwrap();
    let docs = site("default.docs.0.1", "aaa", artifact, true);
    run.node.assign(world.assignment(std::slice::from_ref(&docs))).await.unwrap();
    let report = run.until_report(&docs.id, "it says so", |r| r.message.contains("upload")).await;
    assert!(!report.ready && !home(&world).join("deployment-aaa").exists());
    world.artifact(&[("index.html", "x")]);
    run.until_report(&docs.id, "it is up", |r| r.ready && r.current).await;
}
