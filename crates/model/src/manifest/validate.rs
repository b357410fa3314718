//! Whether the values of a spec make sense together: one set of checks for a manifest and for a spec that
//! arrives as JSON. Refuses to know where anything was written; `parse` finds the place of each field.

use std::{collections::BTreeSet, fmt};

use super::{decode::nearest, error::MAX_ERRORS};
use crate::{
    Bytes, Millis,
    container::{Container, MountSource, Network},
    id::printable,
    source::Origin,
    spec::{
        Check, Domain, Health, Kind, MAX_REPLICAS, Port, Probe, Process, ServiceSpec, Site, Template,
        TemplateError, Workload,
    },
};

pub const MAX_DOMAINS: usize = 100;
pub const MAX_RETAIN: u32 = 100;
/// Of all rendered files of one service, before `${NAME}` is replaced.
pub const MAX_FILES_BYTES: usize = 1 << 20;
/// A name in the environment of each process.
const INSTANCE: &str = "SETPOINT_INSTANCE";
const MAX_ENTRIES: usize = 1000;
/// Docker's own bound.
const LEAST_MEMORY: Bytes = Bytes(6 << 20);
/// The kernel takes no longer single argument or variable.
const MAX_ARGUMENT: usize = 128 << 10;

/// What Setpoint gives to every process.
pub const BUILT_INS: [&str; 4] = ["PORT", "HOST", "SETPOINT_INSTANCE", "SETPOINT"];

/// A field by the names that the manifest uses; list items are `[n]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldPath(Vec<String>);

impl FieldPath {
    pub fn of(steps: &[&str]) -> Self {
        Self(steps.iter().map(|step| (*step).to_owned()).collect())
    }

    pub fn push(&mut self, step: &str) {
        self.0.push(step.to_owned());
    }

    pub fn pop(&mut self) {
        self.0.pop();
    }

    pub fn last(&self) -> Option<&str> {
        self.0.last().map(String::as_str)
    }

    pub fn steps(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    pub(super) fn item(mut self, at: usize) -> Self {
        self.0.push(format!("[{at}]"));
        self
    }
}

/// `services.api.command[1]`.
impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            if at > 0 && !step.starts_with('[') {
                f.write_str(".")?;
            }
            f.write_str(&printable(step))?;
        }
        Ok(())
    }
}

/// A field of a spec that cannot be as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct FieldError {
    pub code: &'static str,
    pub field: FieldPath,
    pub message: String,
    /// What to do next, where the message does not say it.
    pub help: Option<String>,
}

/// Every mistake that the spec has.
pub fn validate(spec: &ServiceSpec) -> Result<(), Vec<FieldError>> {
    let mut found = Found::default();
    match &spec.workload {
        Workload::Site(site) => found.site(site, spec),
        Workload::Process(process) => found.process(process, spec),
        Workload::Container(container) => found.container(container, spec),
    }
    found.domains(&spec.domains);
    found.policies(spec);
    if found.0.is_empty() { Ok(()) } else { Err(found.0) }
}

/// Whether something in the spec needs a port: `domains`, a probe other than `exec`, or `${PORT}`.
pub fn needs_port(spec: &ServiceSpec) -> Option<&'static str> {
    if !spec.domains.is_empty() {
        return Some("`domains`");
    }
    if probes(&spec.health).any(|(_, probe)| matches!(probe.check, Check::Http(_) | Check::Tcp)) {
        return Some("a health probe by http or tcp");
    }
    let uses_port =
        |template: &Template| template.names().is_ok_and(|names| names.iter().any(|n| n == "PORT"));
    templates(spec).iter().any(|(_, template)| uses_port(template)).then_some("`${PORT}`")
}

pub(super) fn probes(health: &Health) -> impl Iterator<Item = (&'static str, &Probe)> {
    [("startup", &health.startup), ("readiness", &health.readiness), ("liveness", &health.liveness)]
        .into_iter()
        .filter_map(|(name, probe)| probe.as_ref().map(|probe| (name, probe)))
}

/// Every text of a spec in which names are replaced.
fn templates(spec: &ServiceSpec) -> Vec<(FieldPath, &Template)> {
    let mut all = Vec::new();
    let commands: Vec<(&str, &[Template])> = match &spec.workload {
        Workload::Site(_) => Vec::new(),
        Workload::Process(process) => vec![("command", &process.command)],
        Workload::Container(container) => {
            [("entrypoint", &container.entrypoint), ("command", &container.command)]
                .into_iter()
                .filter_map(|(key, command)| Some((key, command.as_deref()?)))
                .collect()
        }
    };
    for (key, command) in commands {
        let args = command.iter().enumerate();
        all.extend(args.map(|(at, arg)| (FieldPath::of(&[key]).item(at), arg)));
    }
    all.extend(spec.env.iter().map(|(key, value)| (FieldPath::of(&["env", key.as_str()]), value)));
    all.extend(spec.files.iter().map(|(path, text)| (FieldPath::of(&["files", path.as_str()]), text)));
    for (name, probe) in probes(&spec.health) {
        if let Check::Exec(command) = &probe.check {
            let path = FieldPath::of(&["health", name, "exec"]);
            all.extend(command.iter().enumerate().map(|(at, arg)| (path.clone().item(at), arg)));
        }
    }
    all
}

/// Where an engine mounts the kernel's own view of things: nothing starts with something else there. Below `/dev` and
/// `/sys` there are places for others, such as `/dev/shm`.
fn of_the_kernel(path: &str) -> Option<&'static str> {
    let steps: Vec<&str> = path.split('/').filter(|step| !matches!(*step, "" | ".")).collect();
    match steps.as_slice() {
        ["proc", ..] => Some("/proc"),
        ["sys"] => Some("/sys"),
        ["dev"] => Some("/dev"),
        _ => None,
    }
}

#[derive(Default)]
struct Found(Vec<FieldError>);

impl Found {
    fn error(&mut self, code: &'static str, field: FieldPath, message: impl Into<String>) {
        self.0.push(FieldError { code, field, message: message.into(), help: None });
    }

    fn error_with_help(
        &mut self,
        code: &'static str,
        field: FieldPath,
        message: impl Into<String>,
        help: &str,
    ) {
        self.0.push(FieldError { code, field, message: message.into(), help: Some(help.into()) });
    }

    fn site(&mut self, site: &Site, spec: &ServiceSpec) {
        if let Some(webroot) = &site.webroot {
            self.absolute(FieldPath::of(&["static", "webroot"]), webroot);
        }
        for (keys, message) in site.origin.iter().flat_map(Origin::mistakes) {
            let keys: Vec<&str> = std::iter::once("static").chain(keys.iter().map(String::as_str)).collect();
            self.error("invalid_value", FieldPath::of(&keys), message);
        }
        if spec.replicas > 1 {
            let message = "`replicas` does not apply to a static service: every edge serves the one folder";
            self.error("not_applicable", FieldPath::of(&["replicas"]), message);
        }
        let given = [
            ("env", !spec.env.is_empty()),
            ("files", !spec.files.is_empty()),
            ("port", spec.port.is_some()),
            ("health", probes(&spec.health).next().is_some()),
        ];
        for (key, _) in given.into_iter().filter(|(_, given)| *given) {
            self.error("not_applicable", FieldPath::of(&[key]), not_applicable(key));
        }
    }

    fn process(&mut self, process: &Process, spec: &ServiceSpec) {
        self.command(FieldPath::of(&["command"]), &process.command);
        if process.command.first().is_some_and(|program| program.0.contains('/') && !is_rooted(&program.0)) {
            let message = "the program's path is not absolute";
            self.error("invalid_value", FieldPath::of(&["command"]).item(0), message);
        }
        if let Some(workdir) = &process.workdir {
            self.absolute(FieldPath::of(&["workdir"]), workdir);
        }
        if let Some(user) = &process.user {
            self.user(user);
        }
        self.range("replicas", spec.replicas, 0, MAX_REPLICAS);
        self.port(spec);
        self.health(&spec.health);
        self.files(spec);
        self.templates(spec);
    }

    fn container(&mut self, container: &Container, spec: &ServiceSpec) {
        for (key, command) in [("entrypoint", &container.entrypoint), ("command", &container.command)] {
            if let Some(command) = command {
                self.command(FieldPath::of(&[key]), command);
            }
        }
        if let Some(workdir) = &container.workdir {
            self.absolute(FieldPath::of(&["workdir"]), workdir);
        }
        if let Some(user) = &container.user {
            user.splitn(2, ':').for_each(|part| self.user(part));
        }
        self.mounts(container);
        self.container_port(container, spec);
        if !(1..=100).contains(&container.log.max_files) || container.log.max_size < Bytes(4096) {
            let message = "at least one file of 4KiB is kept, and at most 100";
            self.error("out_of_range", FieldPath::of(&["logs"]), message);
        }
        if spec.resources.memory.is_some_and(|memory| memory < LEAST_MEMORY) {
            let message = format!("an engine starts no container with less than {LEAST_MEMORY}");
            self.error("out_of_range", FieldPath::of(&["resources", "memory"]), message);
        }
        self.range("replicas", spec.replicas, 0, MAX_REPLICAS);
        self.health(&spec.health);
        self.files(spec);
        self.templates(spec);
    }

    fn mounts(&mut self, container: &Container) {
        if container.volumes.len() + container.tmpfs.len() > MAX_ENTRIES {
            let message = format!("a container has at most {MAX_ENTRIES} volumes");
            return self.error("out_of_range", FieldPath::of(&["volumes"]), message);
        }
        let mut seen = BTreeSet::new();
        for (at, mount) in container.volumes.iter().enumerate() {
            let field = FieldPath::of(&["volumes"]).item(at);
            self.target(field.clone(), &mount.target, &mut seen);
            if let MountSource::Bind(path) = &mount.source {
                self.absolute(field, path);
            }
        }
        for (at, (path, size)) in container.tmpfs.iter().enumerate() {
            let field = FieldPath::of(&["tmpfs"]).item(at);
            self.target(field.clone(), path, &mut seen);
            if size.is_some_and(|size| size.0 == 0) {
                self.error("out_of_range", field, "a folder in memory has a size of at least 1B");
            }
        }
    }

    fn target<'a>(&mut self, field: FieldPath, path: &'a str, seen: &mut BTreeSet<&'a str>) {
        self.absolute(field.clone(), path);
        let path = path.trim_end_matches('/');
        if path.is_empty() || path.contains([':', ',']) {
            let message = "what is mounted needs a folder of its own inside, without colons and commas";
            self.error("invalid_value", field, message);
        } else if let Some(kernels) = of_the_kernel(path) {
            let message = format!("`{kernels}` is the kernel's inside a container: mount it somewhere else");
            self.error("invalid_value", field, message);
        } else if !seen.insert(path) {
            self.error("conflict", field, format!("`{}` is mounted twice", printable(path)));
        }
    }

    fn container_port(&mut self, container: &Container, spec: &ServiceSpec) {
        let field = FieldPath::of(&["port"]);
        if container.port == Some(0) {
            return self.error("out_of_range", field, "a port is a number from 1 to 65535");
        }
        let wanted = match (container.network, container.port, spec.port) {
            (Network::Project, Some(_), Some(Port::Dynamic))
            | (Network::Host, None, Some(Port::Dynamic))
            | (Network::Project | Network::Host | Network::None, None, None) => {
                let Some(cause) = needs_port(spec).filter(|_| spec.port.is_none()) else { return };
                let message =
                    format!("{cause} needs `port`: the number on which the container listens inside");
                return self.error("missing_key", field, message);
            }
            (Network::Host, Some(port), Some(Port::Fixed(fixed))) if port == fixed => return self.port(spec),
            (Network::Project, None, Some(_)) => {
                "with the project's network, `port` is the number on which the container listens inside"
            }
            (Network::None, _, _) => "without a network there is no `port`",
            (Network::Project | Network::Host, _, _) => "`port` does not fit the container's network",
        };
        self.error("conflict", field, wanted);
    }

    fn command(&mut self, field: FieldPath, command: &[Template]) {
        if command.first().is_none_or(|program| program.0.is_empty()) {
            return self.error("invalid_value", field, "a command begins with a program");
        }
        if command.len() > MAX_ENTRIES {
            self.error("out_of_range", field, format!("a command has at most {MAX_ENTRIES} parts"));
        }
    }

    /// A name or a number, as the system's own files of users hold them.
    fn user(&mut self, user: &str) {
        let name = user.strip_suffix('$').unwrap_or(user);
        let head = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        let tail = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        if !head || !tail || user.len() > 64 {
            let message = format!("`{}` is not a user: write a name or a number", printable(user));
            self.error("invalid_value", FieldPath::of(&["user"]), message);
        }
    }

    fn port(&mut self, spec: &ServiceSpec) {
        let field = FieldPath::of(&["port"]);
        match spec.port {
            None => {
                if let Some(cause) = needs_port(spec) {
                    let message = format!("the service has no port, but {cause} needs one");
                    self.error("conflict", field, message);
                }
            }
            Some(Port::Dynamic) => {}
            Some(Port::Fixed(0)) => self.error("out_of_range", field, "a port is a number from 1 to 65535"),
            Some(Port::Fixed(port)) if spec.replicas > 1 => {
                let message = format!(
                    "`port: {port}` is one port of the machine, which cannot be shared by {} replicas",
                    spec.replicas
                );
                let help = "remove `port` and give the program \"${PORT}\", or declare one replica";
                self.error_with_help("conflict", field, message, help);
            }
            Some(Port::Fixed(_)) => {}
        }
    }

    fn health(&mut self, health: &Health) {
        for (name, probe) in probes(health) {
            let field = |key| FieldPath::of(&["health", name, key]);
            match &probe.check {
                Check::Http(path) => self.http_path(field("http"), path),
                Check::Tcp | Check::Image => {}
                Check::Exec(command) => self.command(field("exec"), command),
            }
            self.duration(field("interval"), probe.interval, Millis(100), Millis::mins(60));
            self.duration(field("timeout"), probe.timeout, Millis(10), Millis::mins(10));
            self.duration(field("grace"), probe.grace, Millis::ZERO, Millis::mins(24 * 60));
            for (key, value) in [("rise", probe.rise), ("fall", probe.fall)] {
                if !(1..=100).contains(&value) {
                    let message = format!("`{key}` is {value}; a whole number from 1 to 100 is expected");
                    self.error("out_of_range", field(key), message);
                }
            }
        }
    }

    fn http_path(&mut self, field: FieldPath, path: &str) {
        let ok = path.starts_with('/')
            && path.len() <= 2048
            && path.bytes().all(|b| b.is_ascii_graphic() && b != b'#' && b != b'\\');
        if !ok {
            let message =
                format!("`{}` is not an HTTP path: it begins with / and has no spaces", printable(path));
            self.error("invalid_value", field, message);
        }
    }

    fn files(&mut self, spec: &ServiceSpec) {
        let field = FieldPath::of(&["files"]);
        let total: usize = spec.files.values().map(|text| text.0.len()).sum();
        if total > MAX_FILES_BYTES || spec.files.len() > MAX_ENTRIES {
            let message = format!(
                "`files` hold {total} bytes; at most {MAX_FILES_BYTES} in {MAX_ENTRIES} files are allowed"
            );
            self.error("out_of_range", field, message);
        }
        let names: BTreeSet<&str> = spec.files.keys().map(|path| path.as_str()).collect();
        for path in &names {
            let mut folders = path.match_indices('/').map(|(at, _)| &path[..at]);
            if let Some(folder) = folders.find(|folder| names.contains(folder)) {
                let message = format!("`{}` is both a file and a folder", printable(folder));
                self.error("conflict", FieldPath::of(&["files", path]), message);
            }
        }
    }

    fn templates(&mut self, spec: &ServiceSpec) {
        if spec.env.len() > MAX_ENTRIES {
            let message = format!("`env` has at most {MAX_ENTRIES} variables");
            return self.error("out_of_range", FieldPath::of(&["env"]), message);
        }
        if spec.env.keys().any(|key| key.as_str() == INSTANCE) {
            let message = format!(
                "{INSTANCE} says which instance a process is, and is given by Setpoint; leave it out"
            );
            return self.error("invalid_value", FieldPath::of(&["env", INSTANCE]), message);
        }
        let own: BTreeSet<&str> = spec.env.keys().map(|key| key.as_str()).collect();
        for (field, template) in templates(spec) {
            let in_file = field.steps().next() == Some("files");
            if template.0.contains('\0') || (!in_file && template.0.len() > MAX_ARGUMENT) {
                let message = format!("text here has no NUL and at most {MAX_ARGUMENT} bytes");
                self.error("invalid_value", field.clone(), message);
            }
            // Values of env that refer to each other could do so in a circle.
            let in_env = field.steps().next() == Some("env");
            let given = |name: &str| {
                BUILT_INS.contains(&name) && (name != "SETPOINT" || spec.kind() == Kind::Process)
            };
            let known = |name: &str| given(name) || (!in_env && own.contains(name));
            if self.0.len() >= MAX_ERRORS {
                return;
            }
            match template.names() {
                Err(error) => self.error("template", field, error.to_string()),
                Ok(names) => {
                    if let Some(name) = names.into_iter().find(|name| !known(name)) {
                        let words =
                            BUILT_INS.into_iter().chain(own.iter().copied()).filter(|word| known(word));
                        let message = unknown_name(&name, in_env, nearest(&name, words));
                        self.error("template", field, message);
                    }
                }
            }
        }
    }

    fn domains(&mut self, domains: &[Domain]) {
        if domains.len() > MAX_DOMAINS {
            let message = format!("a service has at most {MAX_DOMAINS} domains, not {}", domains.len());
            self.error("out_of_range", FieldPath::of(&["domains"]), message);
        }
        let mut seen = BTreeSet::new();
        for (at, domain) in domains.iter().enumerate() {
            if !seen.insert(domain) {
                let message = format!("`{domain}` is here twice");
                self.error("conflict", FieldPath::of(&["domains"]).item(at), message);
            }
        }
    }

    fn policies(&mut self, spec: &ServiceSpec) {
        let (restart, deploy) = (&spec.restart, &spec.deploy);
        let day = Millis::mins(24 * 60);
        self.duration(FieldPath::of(&["restart", "backoff"]), restart.backoff, Millis(10), day);
        self.duration(FieldPath::of(&["restart", "max_backoff"]), restart.max_backoff, restart.backoff, day);
        self.duration(FieldPath::of(&["restart", "window"]), restart.window, Millis::secs(1), Millis::MAX);
        self.range_at(FieldPath::of(&["restart", "attempts"]), restart.attempts, 0, 1000);
        self.duration(FieldPath::of(&["stop", "grace"]), spec.stop.grace, Millis::ZERO, Millis::mins(60));
        self.range_at(FieldPath::of(&["deploy", "parallelism"]), deploy.parallelism, 1, MAX_REPLICAS);
        self.duration(FieldPath::of(&["deploy", "deadline"]), deploy.deadline, Millis::secs(1), day);
        // What must hold for longer than the deadline would never become active.
        self.duration(
            FieldPath::of(&["deploy", "min_healthy"]),
            deploy.min_healthy,
            Millis::ZERO,
            deploy.deadline,
        );
        self.duration(FieldPath::of(&["deploy", "drain"]), deploy.drain, Millis::ZERO, Millis::mins(60));
        self.range("retain", spec.retain, 0, MAX_RETAIN);
        self.drift(&spec.drift.ignore);
        self.resources(spec);
    }

    fn drift(&mut self, ignore: &[String]) {
        let field = FieldPath::of(&["drift", "ignore"]);
        if ignore.len() > MAX_ENTRIES {
            self.error("out_of_range", field.clone(), format!("at most {MAX_ENTRIES} paths are ignored"));
        }
        for (at, path) in ignore.iter().enumerate().filter(|(_, path)| path.is_empty() || path.len() > 4096) {
            let message = format!("`{}` is not a drift path: `setpoint drift` shows them", printable(path));
            self.error("invalid_value", field.clone().item(at), message);
        }
    }

    fn resources(&mut self, spec: &ServiceSpec) {
        if spec.resources.memory.is_some_and(|memory| memory < Bytes(1 << 20)) {
            let message = "a limit below 1MiB lets no program start";
            self.error("out_of_range", FieldPath::of(&["resources", "memory"]), message);
        }
        let max = super::raw::MAX_CPUS * 1000;
        if spec.resources.pids.is_some() && spec.kind() != Kind::Container {
            let message = format!("`pids` applies to a container alone; this is a {} service", spec.kind());
            self.error("not_applicable", FieldPath::of(&["resources", "pids"]), message);
        }
        if spec.resources.millicpus.is_some_and(|cpus| !(1..=max).contains(&cpus)) {
            let message = format!("cpus are from 0.001 to {}", super::raw::MAX_CPUS);
            self.error("out_of_range", FieldPath::of(&["resources", "cpus"]), message);
        }
    }

    fn absolute(&mut self, field: FieldPath, path: &str) {
        let whole = path.starts_with('/') && path.len() <= 4096 && !path.chars().any(char::is_control);
        if !whole || path.split('/').any(|part| part == "..") {
            let message = format!("`{}` is not an absolute path without ..", printable(path));
            self.error("invalid_value", field, message);
        }
    }

    fn range(&mut self, key: &str, value: u32, min: u32, max: u32) {
        self.range_at(FieldPath::of(&[key]), value, min, max);
    }

    fn range_at(&mut self, field: FieldPath, value: u32, min: u32, max: u32) {
        if !(min..=max).contains(&value) {
            let key = field.last().unwrap_or_default().to_owned();
            let message = format!("`{key}` is {value}; a whole number from {min} to {max} is expected");
            self.error("out_of_range", field, message);
        }
    }

    fn duration(&mut self, field: FieldPath, value: Millis, min: Millis, max: Millis) {
        if !(min..=max).contains(&value) {
            let key = field.last().unwrap_or_default().to_owned();
            self.error("out_of_range", field, format!("`{key}` is {value}; {min} to {max} is expected"));
        }
    }
}

fn is_rooted(program: &str) -> bool {
    // `${SETPOINT}` and the like are whole paths once they are replaced.
    program.starts_with('/') || program.starts_with("${")
}

/// Why a key of processes is refused for a site.
pub(super) fn not_applicable(key: &str) -> String {
    let why = match key {
        "health" => ": it is ready when its folder is whole and checked",
        "port" => ": the edge serves it; `domains` say where",
        _ => "",
    };
    format!("`{key}` does not apply to a {} service{why}", Kind::Site)
}

fn unknown_name(name: &str, in_env: bool, guess: Option<&str>) -> String {
    let mut message = if in_env {
        format!("`${{{}}}` is not known in env: only {} are", printable(name), BUILT_INS.join(", "))
    } else {
        TemplateError::UnknownName(printable(name)).to_string()
    };
    if let Some(guess) = guess {
        message.push_str("; did you mean `${");
        message.push_str(guess);
        message.push_str("}`?");
    }
    message
}
