//! One Setpoint, started from the built binary with a folder and ports of its own. It ends with the test, and the
//! test fails when anything that it started lives on.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{proc, wait};

mod asked;

pub use asked::{find, pids};

/// From the start of the program to its `ready` line.
const READY_WITHIN: Duration = SOON;
/// From SIGTERM to the end: drains and grace times included.
const END_WITHIN: Duration = Duration::from_secs(60);
/// Most states come within a second or two; on a machine with other work, later.
pub const SOON: Duration = Duration::from_secs(60);
/// Outside of what the kernel gives to clients, so that a port is free again after a restart.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// What a test says before the start.
#[derive(Debug)]
pub struct Builder {
    exe: PathBuf,
    root: TempDir,
    args: Vec<String>,
    env: Vec<(String, String)>,
    manifest: bool,
    any_ports: bool,
    edge_apart: bool,
    data: PathBuf,
    stderr: PathBuf,
    under: Vec<String>,
}

#[derive(Debug)]
pub struct Setpoint {
    exe: PathBuf,
    root: TempDir,
    args: Vec<String>,
    env: Vec<(String, String)>,
    listen: (SocketAddr, SocketAddr),
    edge_apart: bool,
    data: PathBuf,
    stderr: PathBuf,
    under: Vec<String>,
    running: Option<Running>,
    edge_process: Option<Running>,
    starts: u32,
    api: SocketAddr,
    edge: SocketAddr,
}

#[derive(Debug)]
struct Running {
    child: Child,
    ready: String,
    stdout: mpsc::Receiver<String>,
}

/// Why a start did not come to `ready`.
#[derive(Debug)]
pub struct NotReady {
    pub status: Option<ExitStatus>,
    pub stderr: String,
}

impl Builder {
    /// Writes a file into the folder beside the manifest.
    #[must_use]
    pub fn file(self, path: &str, text: &str) -> Self {
        crate::fixture::folder(&self.work(), &[(path, text)]);
        self
    }

    /// The manifest that `up` is given.
    #[must_use]
    pub fn manifest(mut self, yaml: &str) -> Self {
        self.manifest = true;
        self.file("app.yaml", yaml)
    }

    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.into());
        self
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The kernel chooses the ports; after a restart they are others.
    #[must_use]
    pub fn any_ports(mut self) -> Self {
        self.any_ports = true;
        self
    }

    /// The edge is a process of its own: `setpoint server` beside `setpoint edge`.
    #[must_use]
    pub fn edge_apart(mut self) -> Self {
        self.edge_apart = true;
        self
    }

    /// The data folder is this one.
    #[must_use]
    pub fn data(mut self, folder: &Path) -> Self {
        self.data = folder.into();
        self
    }

    /// It is started by this command, which becomes it.
    #[must_use]
    pub fn under(mut self, command: &[&str]) -> Self {
        self.under = command.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// What it says goes there; nobody looks at it in the messages of failures.
    #[must_use]
    pub fn stderr(mut self, file: &Path) -> Self {
        self.stderr = file.into();
        self
    }

    pub fn work(&self) -> PathBuf {
        self.root.path().join("work")
    }

    #[track_caller]
    pub fn start(self) -> Setpoint {
        match self.try_start() {
            Ok(setpoint) => setpoint,
            Err((_, failed)) => panic!("it did not get ready: {:?}\n{}", failed.status, failed.stderr),
        }
    }

    /// A Setpoint that is described and does not run.
    pub fn described(self) -> Setpoint {
        let Self { exe, root, mut args, env, manifest, any_ports, edge_apart, data, stderr, under } = self;
        if manifest {
            args.extend(["-f".into(), root.path().join("work/app.yaml").to_str().unwrap().into()]);
        }
        let listen = match any_ports {
            true => ("127.0.0.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()),
            false => (free_port(), free_port()),
        };
        Setpoint {
            exe,
            root,
            args,
            env,
            listen,
            edge_apart,
            data,
            stderr,
            under,
            running: None,
            edge_process: None,
            starts: 0,
            api: listen.0,
            edge: listen.1,
        }
    }

    /// The Setpoint comes along with the failure, so that its folder can be looked at.
    pub fn try_start(self) -> Result<Setpoint, (Box<Setpoint>, NotReady)> {
        let mut setpoint = self.described();
        match setpoint.start() {
            Ok(()) => Ok(setpoint),
            Err(failed) => Err((Box::new(setpoint), failed)),
        }
    }
}

/// A port that nobody listens on at this moment, and that no other call of this process gets. Chance would give two
/// tests the same one now and then, before either listens.
pub fn free_port() -> SocketAddr {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let count = u32::try_from(PORTS.len()).unwrap();
    let free = |_| {
        let next = std::process::id().wrapping_mul(16).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + u16::try_from(next % count).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        TcpListener::bind(address).ok().map(|_| address)
    };
    (0..1000).find_map(free).unwrap()
}

impl Setpoint {
    /// `exe` is `env!("CARGO_BIN_EXE_setpoint")` of the test.
    pub fn with(exe: &str) -> Builder {
        let root = tempfile::Builder::new().prefix("setpoint-test-").tempdir().unwrap();
        fs::create_dir(root.path().join("work")).unwrap();
        let (data, stderr) = (root.path().join("data"), root.path().join("stderr.log"));
        Builder {
            exe: exe.into(),
            root,
            data,
            stderr,
            under: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
            manifest: false,
            any_ports: false,
            edge_apart: false,
        }
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// The folder where the manifest lies.
    pub fn work(&self) -> PathBuf {
        self.root.path().join("work")
    }

    pub fn api(&self) -> SocketAddr {
        self.api
    }

    pub fn edge(&self) -> SocketAddr {
        self.edge
    }

    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("it runs").child.id()
    }

    /// The `ready` line.
    pub fn ready_line(&self) -> &str {
        &self.running.as_ref().expect("it runs").ready
    }

    /// What was printed on stdout after the `ready` line so far.
    pub fn further_stdout(&self) -> Vec<String> {
        self.running.as_ref().map(|running| running.stdout.try_iter().collect()).unwrap_or_default()
    }

    pub fn token(&self) -> String {
        fs::read_to_string(self.data().join("token")).unwrap().trim().into()
    }

    /// The mark by which this Setpoint's containers are told from another's, once its node has accepted something.
    #[track_caller]
    pub fn cluster(&self) -> String {
        let path = self.data().join("node/accepted.json");
        let accepted = crate::until("its node accepts something", SOON, || fs::read_to_string(&path).ok());
        let accepted: Value = serde_json::from_str(&accepted).unwrap();
        accepted["cluster"].as_str().unwrap().into()
    }

    /// Everything on stderr since the first start.
    pub fn stderr(&self) -> String {
        // A device has no end.
        if self.stderr.starts_with("/dev") {
            String::new()
        } else {
            fs::read_to_string(&self.stderr).unwrap_or_default()
        }
    }

    /// A command of the same binary without any of the environment's settings.
    pub fn command(&self, args: &[&str]) -> Command {
        self.prepared(Command::new(&self.exe), args)
    }

    fn prepared(&self, mut command: Command, args: &[&str]) -> Command {
        command.args(args).current_dir(self.work());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SETPOINT")) {
            command.env_remove(name);
        }
        command.env("HOME", self.root.path()).envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    // ── its life ──

    /// Starts it, as often as one likes: the ports stay.
    pub fn start(&mut self) -> Result<(), NotReady> {
        assert!(self.running.is_none(), "it runs already");
        let (api, edge) = (self.listen.0.to_string(), self.listen.1.to_string());
        let data = self.data();
        let data = data.to_str().unwrap();
        let mut args = match self.edge_apart {
            false => vec!["up", "--data", data, "--api", &api, "--edge", &edge],
            true => vec!["server", "--data", data, "--api", &api],
        };
        args.extend(self.args.iter().map(String::as_str));
        let running = self.launch(&args)?;
        let named = |key: &str| address_in(&running.ready, key);
        self.api = named("api").unwrap_or(self.api);
        self.edge = named("edge").unwrap_or(self.edge);
        self.running = Some(running);
        self.starts += 1;
        if self.edge_apart && self.edge_process.is_none() {
            self.start_edge()?;
        }
        Ok(())
    }

    /// The edge as a process of its own.
    pub fn start_edge(&mut self) -> Result<(), NotReady> {
        let (data, edge) = (self.data(), self.listen.1.to_string());
        let running = self.launch(&["edge", "--data", data.to_str().unwrap(), "--edge", &edge])?;
        self.edge = address_in(&running.ready, "edge").unwrap_or(self.edge);
        self.edge_process = Some(running);
        Ok(())
    }

    fn launch(&self, args: &[&str]) -> Result<Running, NotReady> {
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.stderr).unwrap();
        let began = log.metadata().unwrap().len();
        let mut command = match self.under.split_first() {
            None => self.command(args),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(&self.exe);
                self.prepared(command, args)
            }
        };
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let stdout = lines_of(child.stdout.take().unwrap());
        match stdout.recv_timeout(READY_WITHIN) {
            Ok(ready) => {
                assert!(ready.starts_with("ready "), "the first line on stdout is `{ready}`");
                Ok(Running { child, ready, stdout })
            }
            Err(_) => {
                let gone = wait::within(Duration::from_secs(2), || child.try_wait().unwrap());
                let _ = child.kill();
                let _ = child.wait();
                let stderr = self.stderr().get(usize::try_from(began).unwrap()..).unwrap_or("").to_owned();
                Err(NotReady { status: gone, stderr })
            }
        }
    }

    #[track_caller]
    pub fn restart(&mut self) {
        if let Err(failed) = self.start() {
            panic!("it did not get ready again: {:?}\n{}", failed.status, failed.stderr);
        }
    }

    /// What `up` is given besides its addresses, from the next start on.
    pub fn set_args(&mut self, args: &[&str]) {
        self.args = args.iter().map(|arg| (*arg).to_owned()).collect();
    }

    pub fn set_env(&mut self, name: &str, value: &str) {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.into(), value.into()));
    }

    pub fn unset_env(&mut self, name: &str) {
        self.env.retain(|(known, _)| known != name);
    }

    /// kill -9: it can do nothing about it.
    #[track_caller]
    pub fn kill9(&mut self) {
        let mut running = self.running.take().expect("it runs");
        running.child.kill().unwrap();
        running.child.wait().unwrap();
    }

    #[track_caller]
    pub fn kill9_edge(&mut self) {
        let mut running = self.edge_process.take().expect("the edge runs");
        running.child.kill().unwrap();
        running.child.wait().unwrap();
    }

    /// Waits until it has ended by itself, as at a failpoint.
    #[track_caller]
    pub fn wait_for_end(&mut self, bound: Duration) -> ExitStatus {
        let mut running = self.running.take().expect("it runs");
        match wait::within(bound, || running.child.try_wait().unwrap()) {
            Some(status) => status,
            None => {
                self.running = Some(running);
                panic!("it did not end within {bound:?}\n{}", self.tail());
            }
        }
    }

    /// Whether it has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        self.running.as_mut().is_some_and(|running| running.child.try_wait().unwrap().is_none())
    }

    /// SIGTERM, and the status with which it ends.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        proc::terminate(self.pid());
        self.wait_for_end(END_WITHIN)
    }

    /// SIGTERM: it ends well and leaves nothing.
    #[track_caller]
    pub fn stop(&mut self) {
        let status = self.terminate();
        assert!(status.success(), "it ended with {status}\n{}", self.tail());
        let left = self.workloads();
        assert!(left.is_empty(), "orphans after SIGTERM: {left:?}\n{}", self.tail());
    }

    /// As `stop`, of one that was told to leave its workloads: started once more without that, it takes them over.
    #[track_caller]
    pub fn stop_after_keep(&mut self) {
        assert!(self.terminate().success(), "{}", self.tail());
        self.set_args(&[]);
        self.restart();
        self.stop();
    }

    fn kill_what_is_left(&self) {
        wait::within(Duration::from_secs(5), || {
            let left = self.workloads();
            left.iter().for_each(|workload| proc::kill9(workload.pid));
            left.is_empty().then_some(())
        });
    }
}

impl Drop for Setpoint {
    /// Ends it in order; a test that came to its end fails when something lives on.
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.tail());
        }
        let was_running = self.running.is_some();
        let mut trouble = None;
        if let Some(mut running) = self.running.take() {
            proc::terminate(running.child.id());
            if wait::within(END_WITHIN, || running.child.try_wait().ok().flatten()).is_none() {
                trouble = Some("it did not end after SIGTERM".to_owned());
                let _ = running.child.kill();
                let _ = running.child.wait();
            }
        }
        if let Some(mut edge) = self.edge_process.take() {
            let _ = edge.child.kill();
            let _ = edge.child.wait();
        }
        let left = self.workloads();
        self.kill_what_is_left();
        if was_running && !self.edge_apart && !left.is_empty() {
            trouble = Some(format!("orphans: {left:?}"));
        }
        if let Some(trouble) = trouble.filter(|_| !std::thread::panicking()) {
            panic!("{trouble}\n{}", self.tail());
        }
    }
}

fn address_in(ready: &str, key: &str) -> Option<SocketAddr> {
    let start = format!("{key}=http://");
    ready
        .split(' ')
        .find_map(|word| word.strip_prefix(&start))
        .and_then(|address| address.trim().parse().ok())
}

fn lines_of(stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (lines, received) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    received
}
