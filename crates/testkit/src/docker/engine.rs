//! An engine of a test's own, that it may kill, stop, hang and cut off; and one that all tests of a run share.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::{
    api::Api,
    ground::{self, Ground, Owner},
    programs,
};
use crate::{Setpoint, proc, wait};

/// From the start of the program until it answers: 0.4 s on an idle machine. Without live restore it first ends the
/// containers that lived on while it was dead, which takes their whole grace when they ignore the signal.
const ANSWERS_WITHIN: Duration = Duration::from_secs(120);
const ENDS_WITHIN: Duration = Duration::from_secs(120);

/// What an engine is started with.
#[derive(Debug, Clone, Default)]
pub struct Options {
    args: Vec<String>,
    disk: Option<u64>,
}

impl Options {
    /// Containers live on while the engine is away, and are adopted when it is back.
    #[must_use]
    pub fn live_restore(self) -> Self {
        self.arg("--live-restore")
    }

    /// A further argument of dockerd.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Its data lies on a disk of its own with so many bytes, which a test can fill.
    #[must_use]
    pub fn disk(mut self, bytes: u64) -> Self {
        self.disk = Some(bytes);
        self
    }

    /// `None`: this machine cannot have one, which is said.
    #[track_caller]
    pub fn start(self) -> Option<Engine> {
        if programs::lack("dockerd") {
            return None;
        }
        let ground = Ground::claim(Owner::Value);
        if let Some(bytes) = self.disk {
            let data = ground.folder.join("data");
            fs::create_dir_all(&data).unwrap();
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "setpoint-test"]).arg(data);
            assert!(mount.status().unwrap().success(), "no disk of {bytes} bytes");
        }
        let api = Api::at(&socket(&ground));
        let mut engine = Engine { args: self.args, child: None, api, ground: Some(ground) };
        engine.start();
        Some(engine)
    }
}

/// One engine. It ends with this value and everything in it, unless it is the run's.
#[derive(Debug)]
pub struct Engine {
    args: Vec<String>,
    child: Option<Child>,
    api: Api,
    /// `None`: it is somebody else's to end. Last, since it clears the folder.
    ground: Option<Ground>,
}

impl Engine {
    pub fn options() -> Options {
        Options::default()
    }

    /// An engine that the test may kill. `None`: this machine cannot have one, which is said.
    #[track_caller]
    pub fn own() -> Option<Self> {
        Self::options().start()
    }

    /// The engine of all tests of this run: started by the first that asks, ended when the run has ended. A test
    /// names what it makes there so that no other test means the same, takes it away in the end, and neither
    /// restarts nor counts the whole.
    pub fn shared() -> Option<Self> {
        if programs::lack("dockerd") {
            return None;
        }
        let good = |text: &str| Api::at(Path::new(text)).answers();
        let text = ground::once_per_run("engine", good, |owner| {
            let ground = Ground::claim(Owner::Process(owner));
            let mut child = launch(&ground, &[]);
            let socket = socket(&ground);
            wait_until_answers(&Api::at(&socket), &ground, &mut child);
            socket.to_str().unwrap().into()
        });
        Some(Self { args: Vec::new(), child: None, api: Api::at(Path::new(&text)), ground: None })
    }

    /// The engine's HTTP interface, in the test's own hands.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// As `DOCKER_HOST` takes it.
    pub fn host(&self) -> &str {
        self.api.host()
    }

    fn ground(&self) -> &Ground {
        self.ground.as_ref().expect("an engine of one's own")
    }

    /// Where its data lie.
    pub fn data(&self) -> PathBuf {
        self.ground().folder.join("data")
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("an engine of one's own that runs").id()
    }

    // ── what somebody does by hand ──

    /// With the engine's own command line; its stdout.
    #[track_caller]
    pub fn docker(&self, args: &[&str]) -> String {
        match self.try_docker(args) {
            Ok(stdout) => stdout,
            Err(stderr) => panic!("docker {args:?}: {stderr}"),
        }
    }

    /// The same, where failing is an answer.
    pub fn try_docker(&self, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new("docker");
        command.args(["-H", self.host()]).args(args).env_remove("DOCKER_HOST");
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// The containers of this instance of this Setpoint, newest first. Others on the same engine have instances of
    /// the same name.
    pub fn containers(&self, setpoint: &Setpoint, instance: &str) -> Vec<String> {
        let cluster = format!("setpoint.cluster={}", setpoint.cluster());
        let found = self.api.list(&[&cluster, &format!("setpoint.instance={instance}")]);
        found.iter().map(|container| container["Id"].as_str().unwrap().to_owned()).collect()
    }

    /// What a template of `docker inspect` gives.
    #[track_caller]
    pub fn inspect(&self, container: &str, template: &str) -> String {
        self.docker(&["inspect", "--format", template, container])
    }

    // ── its life ──

    /// Starts it again, and waits until it answers.
    #[track_caller]
    pub fn start(&mut self) {
        self.begin();
        let child = self.child.as_mut().expect("it has begun");
        wait_until_answers(&self.api, self.ground.as_ref().expect("an engine of one's own"), child);
    }

    /// Starts it and does not wait.
    #[track_caller]
    pub fn begin(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        self.child = Some(launch(self.ground(), &self.args));
    }

    /// kill -9. Its containers live on without it, and so do their shims; its containerd dies with it.
    #[track_caller]
    pub fn kill9(&mut self) {
        let mut child = self.child.take().expect("it runs");
        let containerd = containerd(&self.ground().folder);
        child.kill().unwrap();
        child.wait().unwrap();
        // By its parent's death signal, a moment later.
        if let Some(pid) = containerd {
            wait::until("its containerd has ended", ENDS_WITHIN, || (!proc::is_alive(pid)).then_some(()));
        }
    }

    /// SIGTERM, and its end: containers are stopped first, unless it has live restore.
    #[track_caller]
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        proc::terminate(child.id());
        let ended = wait::within(ENDS_WITHIN, || child.try_wait().unwrap());
        assert!(ended.is_some(), "it does not end\n{}", self.tail());
    }

    /// It takes connections and answers none, until it goes on.
    pub fn pause(&self) {
        proc::stop(self.pid());
        // The signal is sent at once and takes effect when each thread comes by.
        wait::until("every thread has stopped", ENDS_WITHIN, || proc::is_stopped(self.pid()).then_some(()));
    }

    pub fn go_on(&self) {
        proc::go_on(self.pid());
    }

    /// Its socket is gone: nobody gets a new connection. Those that are open stay.
    pub fn hide_socket(&self) {
        fs::rename(self.api.socket(), self.api.socket().with_extension("hidden")).unwrap();
    }

    pub fn show_socket(&self) {
        fs::rename(self.api.socket().with_extension("hidden"), self.api.socket()).unwrap();
    }

    /// The end of its log, for a failure's message.
    pub fn tail(&self) -> String {
        self.ground.as_ref().map_or(String::new(), tail)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.tail());
        }
        if let Some(mut child) = self.child.take() {
            // The ground ends everything; this only collects the process.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn socket(ground: &Ground) -> PathBuf {
    ground.folder.join("engine.sock")
}

/// The live process that wrote its pid there.
fn containerd(folder: &Path) -> Option<u32> {
    let text = fs::read_to_string(folder.join("exec/containerd/containerd.pid")).ok()?;
    text.trim().parse().ok().filter(|pid| proc::is_alive(*pid))
}

fn launch(ground: &Ground, args: &[String]) -> Child {
    use std::os::unix::process::CommandExt;
    ground.let_pass();
    let folder = &ground.folder;
    // dockerd takes the pid of a zombie, or a pid that has become another process, for an engine that still runs, and
    // does not start; with containerd's it waits for that to answer.
    for stale in ["engine.pid", "exec/containerd/containerd.pid"] {
        let path = folder.join(stale);
        let pid = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
        if !pid.is_some_and(proc::is_alive) {
            let _ = fs::remove_file(path);
        }
    }
    let log = File::options().create(true).append(true).open(folder.join("engine.log")).unwrap();
    let path = |name: &str| folder.join(name).into_os_string();
    let mut command = Command::new("dockerd");
    command.arg("-H").arg(format!("unix://{}", socket(ground).display()));
    command.arg("--data-root").arg(path("data"));
    command.arg("--exec-root").arg(path("exec"));
    command.arg("--pidfile").arg(path("engine.pid"));
    // A file that is not there: the machine's own settings are not for this engine.
    command.arg("--config-file").arg(path("engine.json"));
    command.args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-masq=false"]);
    command.args(["--exec-opt", "native.cgroupdriver=cgroupfs"]);
    command.args(["--cgroup-parent", &format!("/{}", ground.cgroup())]);
    command.args(["--default-address-pool", &format!("base={},size=24", ground.subnet())]);
    command.args(["--insecure-registry", "127.0.0.0/8"]);
    // For names that nobody here has, nobody outside is asked; the engine's own resolver then gives no answer at all.
    command.args(["--dns", "127.0.0.1", "--dns-opt", "timeout:1", "--dns-opt", "attempts:1"]);
    command.args(args);
    // Nothing from the surroundings; a group of its own, so that a signal for the test does not reach it.
    command.env_clear().env("PATH", programs::path()).env("HOME", folder).process_group(0);
    fs::write(folder.join("engine.json"), "{}").unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

#[track_caller]
fn wait_until_answers(api: &Api, ground: &Ground, child: &mut Child) {
    let mut ended = None;
    let answered = wait::within(ANSWERS_WITHIN, || {
        ended = child.try_wait().unwrap();
        (ended.is_some() || api.answers()).then_some(())
    });
    assert!(answered.is_some() && ended.is_none(), "the engine does not answer: {ended:?}\n{}", tail(ground));
}

fn tail(ground: &Ground) -> String {
    let log = fs::read(ground.folder.join("engine.log")).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    // How it finds its containerd, and what that is made of, fills most of the log.
    let tells = |line: &&str| !line.contains("module=grpc") && !line.contains("loading plugin");
    let lines: Vec<&str> = log.lines().filter(tells).collect();
    format!("── engine ──\n{}", lines[lines.len().saturating_sub(40)..].join("\n"))
}
