//! A private registry on a port of its own, from which engines on this machine pull without encryption.

use std::{
    fs::{self, File},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use data_encoding::BASE64;
use serde_json::Value;

use super::{
    ground::{self, Ground, Owner},
    programs,
};
use crate::{
    http::{self, Request, Response},
    proc,
    setpoint::free_port,
    wait,
};

const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// Name and password of the only user of a registry that has users. The line is what `htpasswd -nbB` prints for them.
pub const USER: (&str, &str) = ("me", "secret");
const HTPASSWD: &str = "me:$2y$04$3SufYvRKIcuF0EnYrqGQZO7iIeUz1z0nE3jGI67VGcOS4jbJXSTni\n";

/// A registry. It ends with this value, unless it is the run's.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    locked: bool,
    child: Option<Child>,
    /// `None`: it is somebody else's to end. Last, since it clears the folder.
    ground: Option<Ground>,
}

impl Registry {
    /// One of the test's own, that everybody may read and write. `None`: this machine has no registry, which is said.
    pub fn start() -> Option<Self> {
        Self::own(false)
    }

    /// One that answers nobody but [`USER`].
    pub fn with_password() -> Option<Self> {
        Self::own(true)
    }

    fn own(locked: bool) -> Option<Self> {
        if programs::lack("docker-registry") {
            return None;
        }
        let ground = Ground::claim(Owner::Value);
        let mut registry = Self { address: free_port(), locked, child: None, ground: Some(ground) };
        registry.come_back();
        Some(registry)
    }

    /// The registry of all tests of this run.
    pub fn shared() -> Option<Self> {
        if programs::lack("docker-registry") {
            return None;
        }
        let good = |text: &str| text.parse().is_ok_and(|address| Self::at(address).answers());
        let text = ground::once_per_run("registry", good, |owner| {
            let ground = Ground::claim(Owner::Process(owner));
            let registry = Self::at(free_port());
            let mut child = launch(&ground, &registry);
            registry.wait_until_answers(&mut child);
            registry.address.to_string()
        });
        Some(Self::at(text.parse().unwrap()))
    }

    /// Somebody else's.
    fn at(address: SocketAddr) -> Self {
        Self { address, locked: false, child: None, ground: None }
    }

    /// `HOST:PORT/NAME`, as an image there is called.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// `HOST:PORT`, with which references begin.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn answers(&self) -> bool {
        let asked = http::send(self.address, self.request("GET", "/v2/"));
        asked.is_ok_and(|answer| answer.status == 200)
    }

    #[track_caller]
    fn wait_until_answers(&self, child: &mut Child) {
        let mut ended = None;
        let answered = wait::within(ANSWERS_WITHIN, || {
            ended = child.try_wait().unwrap();
            (ended.is_some() || self.answers()).then_some(())
        });
        assert!(answered.is_some() && ended.is_none(), "the registry does not answer: {ended:?}");
    }

    /// With the credentials, where it wants some.
    pub fn request(&self, method: &str, path: &str) -> Request {
        let request = Request::new(method, &self.host(), path);
        match self.locked {
            true => {
                let secret = BASE64.encode(format!("{}:{}", USER.0, USER.1).as_bytes());
                request.header("Authorization", &format!("Basic {secret}"))
            }
            false => request,
        }
    }

    #[track_caller]
    pub fn send(&self, request: Request) -> Response {
        let shown = format!("{} {}", request.method, request.path);
        http::send(self.address, request).unwrap_or_else(|error| panic!("{shown}: {error}"))
    }

    /// Starts it again on the same port, with what it holds.
    #[track_caller]
    pub fn come_back(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let mut child = launch(self.ground(), self);
        self.wait_until_answers(&mut child);
        self.child = Some(child);
    }

    /// It is down: connections are refused.
    #[track_caller]
    pub fn kill9(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// It is down, and what was pushed is gone.
    pub fn destroy(&mut self) {
        self.kill9();
        fs::remove_dir_all(self.ground().folder.join("registry")).unwrap();
    }

    /// It takes connections and answers nothing.
    pub fn hang(&self) {
        proc::stop(self.pid());
    }

    pub fn go_on(&self) {
        proc::go_on(self.pid());
    }

    fn ground(&self) -> &Ground {
        self.ground.as_ref().expect("a registry of one's own")
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().expect("a registry of one's own that runs").id()
    }

    #[track_caller]
    pub fn tags(&self, repository: &str) -> Vec<String> {
        let answer = self.send(self.request("GET", &format!("/v2/{repository}/tags/list")));
        let tags: Vec<Value> = answer.json()["tags"].as_array().cloned().unwrap_or_default();
        tags.iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect()
    }

    /// Takes an image out of it, by its digest.
    #[track_caller]
    pub fn delete(&self, repository: &str, digest: &str) {
        let answer = self.send(self.request("DELETE", &format!("/v2/{repository}/manifests/{digest}")));
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn launch(ground: &Ground, registry: &Registry) -> Child {
    use std::os::unix::process::CommandExt;
    let folder = &ground.folder;
    let (users, config) = (folder.join("htpasswd"), folder.join("registry.yml"));
    let auth = match registry.locked {
        true => format!("auth:\n  htpasswd:\n    realm: setpoint-test\n    path: {}\n", users.display()),
        false => String::new(),
    };
    let text = format!(
        "version: 0.1\nlog:\n  accesslog:\n    disabled: true\n  level: warn\nstorage:\n  filesystem:\n    \
         rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {}\n{auth}",
        folder.join("registry").display(),
        registry.address,
    );
    fs::write(&config, text).unwrap();
    fs::write(users, HTPASSWD).unwrap();
    let log = File::options().create(true).append(true).open(folder.join("registry.log")).unwrap();
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(config).env_clear().env("PATH", programs::path()).process_group(0);
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}
