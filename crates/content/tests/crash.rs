//! Killed at every syscall that changes something, `current` resolves to a whole deployment, and a second run
//! finishes. And whoever opens through `current` during a switch always gets one.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::atomic::{AtomicBool, Ordering},
};

use content::{Blobs, intake, links, place};
use model::artifact::Artifact;
use testkit::strace::{self, Step};

/// What takes a folder in, stages it and switches; see `crash/child.rs`.
const PROGRAM: &str = env!("CARGO_BIN_EXE_content-crash-child");

struct Scene {
    dir: tempfile::TempDir,
    artifacts: BTreeMap<&'static str, Artifact>,
}

impl Scene {
    /// An old deployment that is active, and the source of a new one.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut artifacts = BTreeMap::new();
        for (name, text) in [("deployment-old", "old"), ("deployment-new", "new")] {
            let source = dir.path().join(format!("source-{name}"));
            fs::create_dir_all(source.join("css")).unwrap();
            fs::write(source.join("index.html"), format!("{text} index")).unwrap();
            fs::write(source.join("css/app.css"), format!("{text} css")).unwrap();
            let scratch = Blobs::open(&dir.path().join("scratch")).unwrap();
            artifacts.insert(name, intake::from_folder(&scratch, &source, &mut |_| {}).unwrap());
        }
        let scene = Self { dir, artifacts };
        assert!(scene.run(&mut Command::new(PROGRAM), "deployment-old").success());
        scene
    }

    fn run(&self, command: &mut Command, name: &str) -> ExitStatus {
        let source = self.path(&format!("source-{name}"));
        command.arg(self.path("data")).arg(source).arg(name).status().unwrap()
    }

    fn killed_at(&self, syscall: &str, n: u32) -> ExitStatus {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={syscall}"), "-e"]);
        strace.arg(format!("inject={syscall}:signal=KILL:when={n}")).arg(PROGRAM);
        self.run(&mut strace, "deployment-new")
    }

    fn current(&self) -> PathBuf {
        fs::read_link(self.path("data/site/current")).unwrap()
    }

    fn assert_current_is_whole(&self, story: &str) {
        let name = self.current();
        let artifact = &self.artifacts[name.to_str().unwrap()];
        let damage =
            place::check(&self.path("data/site").join(&name), artifact, place::Depth::Whole).unwrap();
        assert!(damage.is_empty(), "{story}: {} is damaged: {damage:?}", name.display());
    }

    /// What lies in the site's folder once nothing is in progress.
    fn assert_at_rest(&self, story: &str) {
        let mut names: Vec<String> = fs::read_dir(self.path("data/site"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let expected = [
            ".manifest-deployment-new.json",
            ".manifest-deployment-old.json",
            "current",
            "deployment-new",
            "deployment-old",
        ];
        assert_eq!(names, expected, "{story}");
        assert_eq!(fs::read_dir(self.path("data/store/tmp")).unwrap().count(), 0, "{story}: tmp is clean");
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }
}

#[test]
fn killed_at_any_syscall_current_is_whole_and_a_second_run_finishes() {
    if !strace::is_there() {
        return;
    }
    let mut kills = 0;
    // One at a time: strace counts the calls of each syscall apart.
    for syscall in [
        "openat",
        "write",
        "fsync",
        "syncfs",
        "rename",
        "renameat",
        "renameat2",
        "symlink",
        "symlinkat",
        "mkdir",
        "mkdirat",
        "unlink",
        "unlinkat",
        "rmdir",
        "fchmod",
        "ioctl",
    ] {
        kills += kill_everywhere(syscall);
    }
    println!("{kills} kill points");
    assert!(kills > 50, "only {kills} kill points: is the injection working?");
}

#[test]
fn every_name_comes_after_its_content_and_is_on_the_disk_itself() {
    if !strace::is_there() {
        return;
    }
    let scene = Scene::new();
    let (data, source) = (scene.path("data"), scene.path("source-deployment-new"));
    let args = [data.as_os_str(), source.as_os_str(), "deployment-new".as_ref()];
    let steps = strace::steps_below(&data, Path::new(PROGRAM), &args, &[]);
    let names = strace::assert_durable_renames(&steps);
    let (blobs, site) = (data.join("store/blobs"), data.join("site"));
    let of_site: Vec<&PathBuf> = names.iter().filter(|name| name.starts_with(&site)).collect();
    let expected = [".manifest-deployment-new.json", "deployment-new", "current"].map(|name| site.join(name));
    assert_eq!(of_site, expected.iter().collect::<Vec<_>>(), "in this order");
    assert_eq!(names.iter().filter(|name| name.starts_with(&blobs)).count(), 2);
    // What `current` leads to is whole on the disk before it does.
    let switch = steps.iter().position(|step| matches!(step, Step::Renamed { to, .. } if *to == expected[2]));
    strace::assert_durable_renames(&steps[..switch.unwrap()]);
}

fn kill_everywhere(syscall: &str) -> u32 {
    const MOST: u32 = 300;
    for n in 1..=MOST {
        let scene = Scene::new();
        let story = format!("killed at {syscall} number {n}");
        let status = scene.killed_at(syscall, n);
        scene.assert_current_is_whole(&story);
        if status.success() {
            assert_eq!(scene.current(), Path::new("deployment-new"), "{story}");
            return n - 1;
        }
        assert_eq!(status.signal(), Some(9), "{story}: {status}");
        assert!(scene.run(&mut Command::new(PROGRAM), "deployment-new").success(), "{story}: second run");
        assert_eq!(scene.current(), Path::new("deployment-new"), "{story}");
        scene.assert_current_is_whole(&story);
        scene.assert_at_rest(&story);
    }
    panic!("{syscall}: still killed after {MOST} calls");
}

#[test]
fn an_opener_never_misses_a_file_during_a_thousand_switches() {
    let scene = Scene::new();
    assert!(scene.run(&mut Command::new(PROGRAM), "deployment-new").success());
    let link = scene.path("data/site/current");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let opener = scope.spawn(|| {
            let mut opened = 0_u64;
            while !done.load(Ordering::Relaxed) {
                let text = fs::read_to_string(link.join("index.html")).expect("current always resolves");
                assert!(text == "old index" || text == "new index", "{text}");
                opened += 1;
            }
            opened
        });
        for n in 0..1000 {
            let name = if n % 2 == 0 { "deployment-old" } else { "deployment-new" };
            links::switch(&link, name).unwrap();
            if opener.is_finished() {
                break; // it has failed; its join says why
            }
        }
        done.store(true, Ordering::Relaxed);
        assert!(opener.join().unwrap() > 0);
    });
}
