//! A real container engine for tests: private, with its own socket and folders, never the system's.
//!
//! `cargo xtask test` starts one for the whole run and names it in `SETPOINT_TEST_ENGINE`; tests that kill or stop the
//! engine, and tests that are run by themselves, start one of their own (about three seconds).
//!
//! What was found about starting one: `--bridge=none` with networks that users define gives names between containers;
//! `iptables` must be installed, since the name server of a network needs it, though the engine itself is told to keep off
//! it: several engines would overwrite each other's rules. Each gets a range of addresses of its own, and its networks are
//! removed before it ends, because its bridges would stay. A killed dockerd leaves its containerd and the shims behind, and the next one does not
//! start beside that containerd: it is killed too. Paths must be short: the socket of a containerd lies deep below.

mod images;
mod registry;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

pub use images::Image;
pub use registry::Registry;

use crate::{proc, wait};

const STARTS_WITHIN: Duration = Duration::from_secs(60);
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// Names the engine that was started for the whole run.
pub const SHARED: &str = "SETPOINT_TEST_ENGINE";

#[derive(Debug)]
pub struct Engine {
    /// `None`: it is somebody else's to end.
    own: Option<Own>,
    host: String,
}

#[derive(Debug)]
struct Own {
    root: PathBuf,
    dockerd: Child,
}

impl Engine {
    /// The run's engine, or one of its own where there is none. `None`: this machine cannot have one, which is said.
    pub fn shared() -> Option<Self> {
        match std::env::var(SHARED) {
            Ok(host) if !host.is_empty() => Some(Self { own: None, host }),
            _ => Self::own(),
        }
    }

    /// One that the test may kill.
    pub fn own() -> Option<Self> {
        if let Some(missing) = missing() {
            println!("skipped: {missing}");
            return None;
        }
        let name = format!("sp-{:08x}", rand::random::<u32>());
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(&root).unwrap();
        let host = format!("unix://{}", root.join("s").display());
        let engine = Self { own: Some(Own { dockerd: dockerd(&root), root }), host };
        engine.wait_until_it_answers();
        Some(engine)
    }

    /// As `DOCKER_HOST` takes it.
    pub fn host(&self) -> &str {
        &self.host
    }

    fn root(&self) -> &Path {
        &self.own.as_ref().expect("an engine of one's own").root
    }

    fn pid(&self) -> u32 {
        self.own.as_ref().expect("an engine of one's own").dockerd.id()
    }

    #[track_caller]
    pub fn wait_until_it_answers(&self) {
        wait::until("the engine answers", STARTS_WITHIN, || self.answers().then_some(()));
    }

    fn answers(&self) -> bool {
        let version = self.command(&["version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["-H", &self.host]).args(args).env("DOCKER_BUILDKIT", "0").env_remove("DOCKER_HOST");
        command
    }

    /// What somebody does by hand; its stdout.
    #[track_caller]
    pub fn docker(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The same, where failing is an answer.
    pub fn try_docker(&self, args: &[&str]) -> Result<String, String> {
        let output = self.command(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// The containers that bear this instance's label, newest first.
    pub fn containers(&self, instance: &str) -> Vec<String> {
        let label = format!("label=setpoint.instance={instance}");
        let listed = self.docker(&["ps", "-a", "-q", "--no-trunc", "--filter", &label]);
        listed.lines().map(str::to_owned).collect()
    }

    /// What a template of `docker inspect` gives.
    #[track_caller]
    pub fn inspect(&self, container: &str, template: &str) -> String {
        self.docker(&["inspect", "--format", template, container])
    }

    pub fn pause(&self) {
        proc::stop(self.pid());
    }

    pub fn go_on(&self) {
        proc::go_on(self.pid());
    }

    /// kill -9, and its containerd with it. Containers live on.
    pub fn kill9(&mut self) {
        let own = self.own.as_mut().expect("an engine of one's own");
        let _ = own.dockerd.kill();
        let _ = own.dockerd.wait();
        kill_containerd(&own.root);
    }

    /// SIGTERM: it ends its containers too.
    pub fn stop(&mut self) {
        let pid = self.pid();
        proc::terminate(pid);
        let own = self.own.as_mut().expect("an engine of one's own");
        let ended = wait::within(ENDS_WITHIN, || own.dockerd.try_wait().ok().flatten());
        assert!(ended.is_some(), "dockerd does not end");
    }

    pub fn start(&mut self) {
        let _ = fs::remove_file(self.root().join("p"));
        let dockerd = dockerd(self.root());
        self.own.as_mut().expect("an engine of one's own").dockerd = dockerd;
        self.wait_until_it_answers();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let Some(own) = &mut self.own else { return };
        proc::go_on(own.dockerd.id());
        // Its containers end with it, unless it cannot.
        let all = self.host.clone();
        let _ = Command::new("sh")
            .arg("-c")
            .arg(format!(
                "docker -H {all} ps -aq | xargs -r docker -H {all} rm -f; docker -H {all} network prune -f"
            ))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        proc::terminate(own.dockerd.id());
        if wait::within(ENDS_WITHIN, || own.dockerd.try_wait().ok().flatten()).is_none() {
            let _ = own.dockerd.kill();
            let _ = own.dockerd.wait();
        }
        kill_containerd(&own.root);
        unmount_below(&own.root);
        let _ = fs::remove_dir_all(&own.root);
    }
}

fn dockerd(root: &Path) -> Child {
    let at = |name: &str| root.join(name).display().to_string();
    let log = fs::OpenOptions::new().create(true).append(true).open(root.join("log")).unwrap();
    Command::new("dockerd")
        .args(["-H", &format!("unix://{}", at("s"))])
        .args(["--data-root", &at("d"), "--exec-root", &at("e"), "--pidfile", &at("p")])
        .args([
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            "--insecure-registry",
            "127.0.0.0/8",
        ])
        .args(["--default-address-pool", &format!("base=10.{},size=24", pool(root))])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Networks of its own: two engines that look for a free range at once take the same one.
fn pool(root: &Path) -> String {
    let name = root.file_name().unwrap_or_default().to_string_lossy();
    let number = u32::from_str_radix(name.trim_start_matches("sp-"), 16).unwrap_or_default();
    format!("{}.{}.0/20", 64 + number % 64, (number >> 8) % 16 * 16)
}

/// Everything of this engine: found by its folder in the command line.
fn kill_containerd(root: &Path) {
    let mark = format!("{}/e", root.display());
    let ours = || {
        let mut pids = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
            let line = String::from_utf8_lossy(&line);
            if line.contains(&mark)
                && line.split('\0').next().is_some_and(|program| program.ends_with("containerd"))
            {
                pids.push(pid);
            }
        }
        pids
    };
    ours().into_iter().for_each(proc::kill9);
    let gone = wait::within(ENDS_WITHIN, || ours().is_empty().then_some(()));
    assert!(gone.is_some(), "its containerd does not end");
}

fn unmount_below(root: &Path) {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let below = format!("{}/", root.display());
    let mut places: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|place| place.starts_with(&below))
        .collect();
    places.sort_unstable();
    for place in places.into_iter().rev() {
        let _ = Command::new("umount").args(["-l", place]).status();
    }
}

/// What this machine lacks for an engine, in one sentence.
fn missing() -> Option<String> {
    if !fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0) {
        return Some("a private container engine needs root".into());
    }
    let there = |program: &&str| {
        let found = Command::new("which").arg(program).stdout(Stdio::null()).status();
        found.is_ok_and(|status| status.success())
    };
    let lacks = ["dockerd", "docker", "iptables"].into_iter().find(|program| !there(program))?;
    Some(format!("{lacks} is missing: install Debian's docker.io and iptables"))
}
