//! A private registry on a port of its own, with or without a password.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{proc, setpoint::free_port, wait};

#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    program: Child,
    folder: TempDir,
}

impl Registry {
    /// `None`: this machine has no registry, which is said.
    pub fn start() -> Option<Self> {
        Self::configured("")
    }

    /// It answers nobody but user `me` with password `secret`.
    pub fn with_password() -> Option<Self> {
        // `htpasswd -nbB me secret`: the registry takes bcrypt alone.
        const HASH: &str = "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";
        Self::configured(HASH)
    }

    fn configured(password: &str) -> Option<Self> {
        let found = Command::new("which").arg("docker-registry").stdout(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            println!("skipped: docker-registry is missing: install Debian's docker-registry");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let address = free_port();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let auth = if password.is_empty() {
            String::new()
        } else {
            fs::write(at("htpasswd"), password).unwrap();
            format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", at("htpasswd"))
        };
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: {address}}}\n{auth}",
            at("data")
        );
        fs::write(at("config.yml"), config).unwrap();
        let program = Command::new("docker-registry")
            .args(["serve", &at("config.yml")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self { address, program, folder };
        let answers = || TcpStream::connect(registry.address).ok().map(drop);
        wait::until("the registry listens", Duration::from_secs(20), answers);
        Some(registry)
    }

    /// `127.0.0.1:PORT/NAME`.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Nobody answers any more, and what was pushed is gone.
    pub fn destroy(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
        let _ = fs::remove_dir_all(self.folder.path().join("data"));
    }

    /// It takes connections and answers nothing.
    pub fn hang(&self) {
        proc::stop(self.program.id());
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}
