//! What is asked of a started Setpoint, as a user asks it: its commands, its API, what it serves, and what becomes of it.

use std::{fs, process::Command, time::Duration};

use serde_json::Value;

use super::{SOON, Setpoint};
use crate::{
    command::{Output, bounded, bounded_with},
    http::{self, Request, Response},
    load,
    proc::{self, Workload},
    wait,
};

impl Setpoint {
    /// Runs a command against it, with its data folder.
    #[track_caller]
    pub fn cli(&self, args: &[&str]) -> Output {
        let data = self.data();
        let mut all = args.to_vec();
        all.extend(["--data", data.to_str().unwrap()]);
        bounded(self.command(&all))
    }

    /// A command that has no data folder.
    #[track_caller]
    pub fn bare(&self, args: &[&str]) -> Output {
        bounded(self.command(args))
    }

    /// A command against it whose last words may be somebody else's: it is told of the data folder by its environment.
    pub fn asking(&self, args: &[&str]) -> Command {
        let mut command = self.command(args);
        command.env("SETPOINT_DATA", self.data());
        command
    }

    /// Runs such a command, with something on its standard input.
    #[track_caller]
    pub fn fed(&self, args: &[&str], input: &[u8]) -> Output {
        bounded_with(self.asking(args), input)
    }

    /// A command that must succeed; its stdout.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.cli(args);
        assert_eq!(output.code, 0, "{args:?}: {output:?}\n{}", self.tail());
        output.stdout
    }

    /// A command that must succeed; its answer.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        let stdout = self.ok(&args);
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{args:?}: {error} in {stdout}"))
    }

    /// Writes the manifest and applies it.
    #[track_caller]
    pub fn apply(&self, yaml: &str, more: &[&str]) -> Output {
        fs::write(self.work().join("app.yaml"), yaml).unwrap();
        let args: Vec<&str> = ["apply", "-f", "app.yaml"].iter().chain(more).copied().collect();
        self.cli(&args)
    }

    #[track_caller]
    pub fn apply_ok(&self, yaml: &str, more: &[&str]) -> Output {
        let output = self.apply(yaml, more);
        assert_eq!(output.code, 0, "apply: {output:?}\n{}", self.tail());
        output
    }

    /// A request to the API with its token.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        let request = Request::new(method, &self.api.to_string(), path)
            .header("Authorization", &format!("Bearer {}", self.token()));
        let request = match body {
            Some(body) => request.header("Content-Type", "application/json").body(body.to_string()),
            None => request,
        };
        http::send(self.api, request).unwrap()
    }

    /// A GET through the edge.
    #[track_caller]
    pub fn get(&self, host: &str, path: &str) -> Response {
        self.try_get(host, path).unwrap()
    }

    pub fn try_get(&self, host: &str, path: &str) -> std::io::Result<Response> {
        http::send(self.edge, Request::new("GET", host, path))
    }

    /// Constant GETs through the edge, to be started.
    pub fn load(&self, host: &str, path: &str) -> load::Options {
        load::Options::get(self.edge, host, path)
    }

    /// As `setpoint status -o json` prints it.
    pub fn status(&self) -> Value {
        self.try_status().unwrap()
    }

    fn try_status(&self) -> Option<Value> {
        let request = Request::new("GET", &self.api.to_string(), "/api/v1/services")
            .header("Authorization", &format!("Bearer {}", self.token()));
        let response = http::send(self.api, request).ok()?;
        (response.status == 200).then(|| response.json())
    }

    /// One service of the project `default`.
    #[track_caller]
    pub fn service(&self, name: &str) -> Value {
        let status = self.status();
        find(&status, name).cloned().unwrap_or_else(|| panic!("no service {name} in {status:#}"))
    }

    #[track_caller]
    pub fn deployments(&self, name: &str) -> Vec<Value> {
        let answer = self.ask("GET", &format!("/api/v1/services/default/{name}/deployments"), None);
        answer.json()["deployments"].as_array().unwrap().clone()
    }

    /// Every event so far, oldest first.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        let stdout = self.ok(&["events", "-o", "json"]);
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits for a state of the whole.
    #[track_caller]
    pub fn wait_for<T>(
        &self,
        sentence: &str,
        bound: Duration,
        mut look: impl FnMut(&Value) -> Option<T>,
    ) -> T {
        let mut last = Value::Null;
        let found = wait::within(bound, || {
            last = self.try_status()?;
            look(&last)
        });
        match found {
            Some(found) => found,
            None => {
                panic!("not within {bound:?}: {sentence}\n{last:#}\n{}\n{}", self.why(&last), self.tail())
            }
        }
    }

    /// What it says itself of every service and its instances, and what happened last.
    fn why(&self, status: &Value) -> String {
        let told = |args: &[&str]| self.cli(args).stdout;
        let mut why = String::new();
        for service in status["services"].as_array().into_iter().flatten() {
            why += &told(&["explain", service["name"].as_str().unwrap_or_default()]);
            for instance in service["instances"].as_array().into_iter().flatten() {
                why += &told(&["explain", instance["id"].as_str().unwrap_or_default()]);
            }
        }
        let events = told(&["events"]);
        let lines: Vec<&str> = events.lines().collect();
        format!("── explain ──\n{why}── events ──\n{}", lines[lines.len().saturating_sub(60)..].join("\n"))
    }

    /// Waits for a state of one service.
    #[track_caller]
    pub fn wait_for_service(&self, name: &str, sentence: &str, look: impl Fn(&Value) -> bool) -> Value {
        self.wait_for(sentence, SOON, |status| find(status, name).filter(|service| look(service)).cloned())
    }

    #[track_caller]
    pub fn wait_until_state(&self, name: &str, state: &str) -> Value {
        self.wait_for_service(name, &format!("{name} is {state}"), |service| service["state"] == state)
    }

    #[track_caller]
    pub fn wait_until_converged(&self, name: &str) -> Value {
        self.wait_until_state(name, "converged")
    }

    /// Waits for an event of this kind whose message holds all of these words.
    #[track_caller]
    pub fn wait_for_event(&self, kind: &str, words: &[&str]) -> Value {
        let sentence = format!("an event {kind} with {words:?}");
        let mut seen = Vec::new();
        let found = wait::within(SOON, || {
            seen = self.events();
            let fits = |event: &&Value| {
                let message = event["message"].as_str().unwrap_or("");
                event["kind"] == kind && words.iter().all(|word| message.contains(word))
            };
            seen.iter().find(fits).cloned()
        });
        found.unwrap_or_else(|| panic!("not within {SOON:?}: {sentence}\n{seen:#?}\n{}", self.tail()))
    }

    // ── what really runs ──

    pub fn workloads(&self) -> Vec<Workload> {
        proc::workloads(self.root.path())
    }

    /// The end of stderr, for a failure's message.
    pub fn tail(&self) -> String {
        let stderr = self.stderr();
        let lines: Vec<&str> = stderr.lines().collect();
        let from = lines.len().saturating_sub(60);
        format!("── stderr ──\n{}", lines[from..].join("\n"))
    }
}

/// The service of that name in the project `default`, in what `status` prints.
pub fn find<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    let services = status["services"].as_array()?;
    services.iter().find(|service| service["name"] == name && service["project"] == "default")
}

/// The pids of a service's instances, by instance.
pub fn pids(service: &Value) -> Vec<u32> {
    let instances = service["instances"].as_array().into_iter().flatten();
    instances.filter_map(|instance| u32::try_from(instance["pid"].as_u64()?).ok()).collect()
}
