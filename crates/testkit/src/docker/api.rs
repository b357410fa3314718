//! The engine's HTTP interface in a test's own hands: what a person, another program or bad luck does to containers.
//! No call here retries or repairs; one that must succeed ends the test with the engine's answer.

use std::{
    fmt::Write,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    http::{Connection, Request, Response, Stream},
    wait,
};

/// Stopping a container that ignores its signal is the longest that a call takes.
const TIMEOUT: Duration = Duration::from_secs(60);
/// An event that comes late on a busy machine.
const EVENT_WITHIN: Duration = Duration::from_secs(30);

/// An engine that somebody else may have started, known by its socket.
#[derive(Debug, Clone)]
pub struct Api {
    socket: PathBuf,
    host: String,
}

impl Api {
    pub fn at(socket: &Path) -> Self {
        Self { socket: socket.into(), host: format!("unix://{}", socket.display()) }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The value for DOCKER_HOST.
    pub fn host(&self) -> &str {
        &self.host
    }

    // ── calls ──

    /// On a connection of its own, which waits at most so long for each part of the answer.
    pub fn ask_within(
        &self,
        bound: Duration,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> io::Result<Response> {
        let request = Request::new(method, "docker", path).header("Connection", "close");
        let request = match body {
            Some(body) => request.header("Content-Type", "application/json").body(body.to_string()),
            None => request,
        };
        Connection::open_unix(&self.socket, bound)?.send(&request)
    }

    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> io::Result<Response> {
        self.ask_within(TIMEOUT, method, path, body)
    }

    /// A call that must succeed. 304, "it is so already", is success.
    #[track_caller]
    pub fn ok(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        match self.ask(method, path, body) {
            Ok(response) if response.status < 400 => response,
            Ok(response) => panic!("{method} {path}: {} {}", response.status, response.text()),
            Err(error) => panic!("{method} {path}: {error}"),
        }
    }

    /// Whether it answers now, and soon.
    pub fn answers(&self) -> bool {
        let pong = self.ask_within(Duration::from_secs(1), "GET", "/_ping", None);
        pong.is_ok_and(|pong| pong.status == 200)
    }

    // ── containers ──

    /// Creates a container as the engine's interface describes it; its id.
    #[track_caller]
    pub fn create(&self, name: &str, spec: &Value) -> String {
        let answer = self.ok("POST", &format!("/containers/create?name={name}"), Some(spec)).json();
        answer["Id"].as_str().unwrap().into()
    }

    /// Creates and starts; its id.
    #[track_caller]
    pub fn run(&self, name: &str, spec: &Value) -> String {
        let id = self.create(name, spec);
        self.start(&id);
        id
    }

    #[track_caller]
    pub fn start(&self, id: &str) {
        self.ok("POST", &format!("/containers/{id}/start"), None);
    }

    /// As `docker stop`: the container's own signal, then SIGKILL after so many seconds.
    #[track_caller]
    pub fn stop(&self, id: &str, seconds: u32) {
        self.ok("POST", &format!("/containers/{id}/stop?t={seconds}"), None);
    }

    #[track_caller]
    pub fn restart(&self, id: &str) {
        self.ok("POST", &format!("/containers/{id}/restart?t=1"), None);
    }

    #[track_caller]
    pub fn kill(&self, id: &str, signal: &str) {
        self.ok("POST", &format!("/containers/{id}/kill?signal={signal}"), None);
    }

    #[track_caller]
    pub fn pause(&self, id: &str) {
        self.ok("POST", &format!("/containers/{id}/pause"), None);
    }

    #[track_caller]
    pub fn unpause(&self, id: &str) {
        self.ok("POST", &format!("/containers/{id}/unpause"), None);
    }

    #[track_caller]
    pub fn rename(&self, id: &str, name: &str) {
        self.ok("POST", &format!("/containers/{id}/rename?name={name}"), None);
    }

    /// As `docker update`: memory, cpu, restart policy.
    #[track_caller]
    pub fn update(&self, id: &str, change: &Value) {
        self.ok("POST", &format!("/containers/{id}/update"), Some(change));
    }

    /// As `docker rm -f`, with its anonymous volumes.
    #[track_caller]
    pub fn remove(&self, id: &str) {
        self.ok("DELETE", &format!("/containers/{id}?force=1&v=1"), None);
    }

    #[track_caller]
    pub fn inspect(&self, id: &str) -> Value {
        self.try_inspect(id).unwrap_or_else(|| panic!("no container {id}"))
    }

    /// Nothing when the engine says that there is no such container; an engine that cannot be asked ends the test.
    #[track_caller]
    pub fn try_inspect(&self, id: &str) -> Option<Value> {
        let path = format!("/containers/{id}/json");
        match self.ask("GET", &path, None) {
            Ok(response) if response.status == 200 => Some(response.json()),
            Ok(response) if response.status == 404 => None,
            other => panic!("GET {path}: {other:?}"),
        }
    }

    /// Every container in any state with all of these labels (`name` or `name=value`).
    #[track_caller]
    pub fn list(&self, labels: &[&str]) -> Vec<Value> {
        let filter = encoded(&json!({ "label": labels }).to_string());
        let answer = self.ok("GET", &format!("/containers/json?all=1&filters={filter}"), None).json();
        answer.as_array().unwrap().clone()
    }

    /// The process in the container that is its first.
    #[track_caller]
    pub fn main_pid(&self, id: &str) -> u32 {
        let state = &self.inspect(id)["State"];
        u32::try_from(state["Pid"].as_u64().unwrap()).unwrap()
    }

    /// Stdout and stderr so far, in the engine's order.
    #[track_caller]
    pub fn logs(&self, id: &str) -> String {
        let path = format!("/containers/{id}/logs?stdout=1&stderr=1");
        let body = self.ok("GET", &path, None).body;
        let (mut out, mut rest) = (Vec::new(), body.as_slice());
        // Eight bytes before each piece: the stream's number, three zeros, its length.
        while let Some((head, tail)) = rest.split_at_checked(8) {
            let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
            let (piece, tail) = tail.split_at(length.min(tail.len()));
            out.extend_from_slice(piece);
            rest = tail;
        }
        String::from_utf8_lossy(&out).into_owned()
    }

    // ── networks and volumes ──

    #[track_caller]
    pub fn create_network(&self, name: &str, labels: &Value) -> String {
        let body = json!({ "Name": name, "CheckDuplicate": true, "Labels": labels });
        self.ok("POST", "/networks/create", Some(&body)).json()["Id"].as_str().unwrap().into()
    }

    #[track_caller]
    pub fn remove_network(&self, name: &str) {
        self.ok("DELETE", &format!("/networks/{name}"), None);
    }

    #[track_caller]
    pub fn connect(&self, network: &str, id: &str) {
        self.ok("POST", &format!("/networks/{network}/connect"), Some(&json!({ "Container": id })));
    }

    #[track_caller]
    pub fn disconnect(&self, network: &str, id: &str) {
        let body = json!({ "Container": id, "Force": true });
        self.ok("POST", &format!("/networks/{network}/disconnect"), Some(&body));
    }

    #[track_caller]
    pub fn networks(&self) -> Vec<Value> {
        self.ok("GET", "/networks", None).json().as_array().unwrap().clone()
    }

    #[track_caller]
    pub fn create_volume(&self, name: &str, labels: &Value) {
        self.ok("POST", "/volumes/create", Some(&json!({ "Name": name, "Labels": labels })));
    }

    #[track_caller]
    pub fn remove_volume(&self, name: &str) {
        self.ok("DELETE", &format!("/volumes/{name}?force=1"), None);
    }

    #[track_caller]
    pub fn volumes(&self) -> Vec<Value> {
        let answer = self.ok("GET", "/volumes", None).json();
        answer["Volumes"].as_array().cloned().unwrap_or_default()
    }

    // ── images ──

    #[track_caller]
    pub fn images(&self) -> Vec<Value> {
        self.ok("GET", "/images/json", None).json().as_array().unwrap().clone()
    }

    #[track_caller]
    pub fn pull(&self, reference: &str) {
        if let Err(error) = self.try_pull(reference) {
            panic!("{reference}: {error}");
        }
    }

    /// Fetches an image. Most failures are told within the stream of a good answer.
    #[track_caller]
    pub fn try_pull(&self, reference: &str) -> Result<(), String> {
        let path = format!("/images/create?fromImage={}", encoded(reference));
        let answer = self.ask("POST", &path, None).unwrap();
        let failed = answer.status >= 400 || answer.text().contains("\"error\"");
        if failed { Err(answer.text()) } else { Ok(()) }
    }

    #[track_caller]
    pub fn tag(&self, image: &str, repository: &str, tag: &str) {
        self.ok("POST", &format!("/images/{image}/tag?repo={}&tag={tag}", encoded(repository)), None);
    }

    /// As `docker rmi -f`: also takes the tag from an image that is in use.
    #[track_caller]
    pub fn remove_image(&self, reference: &str) {
        self.ok("DELETE", &format!("/images/{reference}?force=1"), None);
    }

    /// As `docker load`.
    #[track_caller]
    pub fn load(&self, archive: Vec<u8>) {
        let request = Request::new("POST", "docker", "/images/load?quiet=1")
            .header("Content-Type", "application/x-tar")
            .header("Connection", "close")
            .body(archive);
        let sent = Connection::open_unix(&self.socket, TIMEOUT).and_then(|mut c| c.send(&request));
        let answer = sent.unwrap();
        assert!(answer.status == 200 && !answer.text().contains("\"error\""), "load: {}", answer.text());
    }

    // ── what happens ──

    /// Events from now on; `filters` as the engine describes them, `{}` for all.
    #[track_caller]
    pub fn events(&self, filters: &Value) -> Events {
        let request =
            Request::new("GET", "docker", &format!("/events?filters={}", encoded(&filters.to_string())));
        let opened = Connection::open_unix(&self.socket, EVENT_WITHIN).and_then(|c| c.stream(&request));
        Events(opened.unwrap())
    }

    /// Waits for a state of a container, which is there.
    #[track_caller]
    pub fn wait_for(&self, id: &str, sentence: &str, look: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = wait::within(EVENT_WITHIN, || {
            last = self.try_inspect(id)?;
            look(&last).then(|| last.clone())
        });
        found.unwrap_or_else(|| panic!("not within {EVENT_WITHIN:?}: {sentence}: {:#}", last["State"]))
    }

    #[track_caller]
    pub fn wait_until_running(&self, id: &str) -> Value {
        self.wait_for(id, "it runs", |container| container["State"]["Running"] == true)
    }

    #[track_caller]
    pub fn wait_until_ended(&self, id: &str) -> Value {
        self.wait_for(id, "it has ended", |container| container["State"]["Status"] == "exited")
    }
}

/// What happens in an engine, as it tells.
#[derive(Debug)]
pub struct Events(Stream);

impl Events {
    /// The next event; an error when the engine has cut the stream, or was silent for too long.
    pub fn read(&mut self) -> io::Result<Value> {
        let line = self.0.line()?;
        let line =
            line.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "the stream has ended"))?;
        serde_json::from_str(&line).map_err(io::Error::other)
    }

    /// Reads on until an event with this action.
    #[track_caller]
    pub fn until(&mut self, action: &str) -> Value {
        loop {
            let event = self.read().unwrap();
            if event["Action"] == action {
                return event;
            }
        }
    }
}

/// For a query: all but letters, digits and what certainly needs no escape.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => out.push(byte.into()),
            _ => write!(out, "%{byte:02X}").unwrap(),
        }
    }
    out
}
