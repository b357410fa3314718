//! From what was written to the normalised spec: defaults filled in, relative paths made absolute, the port
//! and the probes that follow from the rest. Refuses to know files: paths are resolved as text.

use std::collections::BTreeSet;

use super::{
    SiteSource, SourceFrom,
    decode::{Cx, List, Parsed, Text},
    raw::{self, DriftForm, GitForm, HealthForm, HealthMap, PortForm, ProbeMap, StaticForm, StaticMap},
    validate::{FieldError, FieldPath, needs_port, not_applicable, validate},
};
use crate::{
    Bytes,
    container::{Capabilities, Capability, Container, LogLimit, Mount, MountSource, Network},
    id::printable,
    image::ImageRef,
    source::{Repository, build_mistakes},
    spec::{
        Check, DeployPolicy, DriftPolicy, Health, Kind, Port, Probe, Process, Resources, RestartPolicy,
        ServiceSpec, Site, StopPolicy, Template, Workload,
    },
};

/// The spec of one service, or `None` with its mistakes reported.
pub(super) fn lower(
    mut raw: raw::Service,
    base: &str,
    cx: &mut Cx<'_>,
) -> Option<(ServiceSpec, Option<SiteSource>)> {
    let before = cx.errors.len();
    let (workload, source) = workload(&mut raw, base, cx)?;
    let spec = spec(workload, raw, cx);
    if cx.errors.len() == before {
        for error in validate(&spec).err().unwrap_or_default() {
            cx.error_at(error);
        }
    }
    (cx.errors.len() == before).then_some((spec, source))
}

fn workload(raw: &mut raw::Service, base: &str, cx: &mut Cx<'_>) -> Option<(Workload, Option<SiteSource>)> {
    match (raw.site.take(), raw.image.take(), raw.command.take()) {
        (Some(form), None, None) => {
            refuse_process_keys(raw, cx);
            refuse_container_keys(raw, Kind::Site, cx);
            let (site, source) = site(form, base, cx);
            Some((Workload::Site(site), source))
        }
        (None, None, Some(command)) => {
            refuse_container_keys(raw, Kind::Process, cx);
            Some((Workload::Process(process(command.0, raw, base)), None))
        }
        (None, Some(image), command) => {
            Some((Workload::Container(container(image.0, command, raw, base, cx)), None))
        }
        (Some(_), image, _) => {
            let other = if image.is_some() { "image" } else { "command" };
            let message = format!("a service has either `static` or `{other}`: make two services of it");
            cx.error_at(mistake("conflict", &[other], message));
            None
        }
        (None, None, None) => {
            let message = "the service does not say what it is: give it `static` (a folder), `command` (a program) or \
                           `image` (a container)";
            cx.error_at(mistake("missing_key", &[], message));
            None
        }
    }
}

fn mistake(code: &'static str, field: &[&str], message: impl Into<String>) -> FieldError {
    FieldError { code, field: FieldPath::of(field), message: message.into(), help: None }
}

/// Keys whose presence alone is a mistake; what a spec can hold is refused by `validate`.
fn refuse_process_keys(raw: &raw::Service, cx: &mut Cx<'_>) {
    let given = [
        ("env", raw.env.is_some()),
        ("files", raw.files.is_some()),
        ("port", raw.port.is_some()),
        ("health", raw.health.is_some()),
        ("restart", raw.restart.is_some()),
        ("stop", raw.stop.is_some()),
        ("resources", raw.resources.is_some()),
        ("user", raw.user.is_some()),
        ("workdir", raw.workdir.is_some()),
    ];
    for (key, _) in given.into_iter().filter(|(_, given)| *given) {
        cx.error_at(mistake("not_applicable", &[key], not_applicable(key)));
    }
}

fn refuse_container_keys(raw: &raw::Service, kind: Kind, cx: &mut Cx<'_>) {
    let given = [
        ("entrypoint", raw.entrypoint.is_some()),
        ("volumes", raw.volumes.is_some()),
        ("tmpfs", raw.tmpfs.is_some()),
        ("read_only", raw.read_only.is_some()),
        ("network", raw.network.is_some()),
        ("capabilities", raw.capabilities.is_some()),
        ("logs", raw.logs.is_some()),
    ];
    for (key, _) in given.into_iter().filter(|(_, given)| *given) {
        let message = format!("`{key}` applies to a container alone; this is a {kind} service");
        cx.error_at(mistake("not_applicable", &[key], message));
    }
}

fn site(form: StaticForm, base: &str, cx: &mut Cx<'_>) -> (Site, Option<SiteSource>) {
    let plain = |webroot, spa| Site { artifact: None, origin: None, webroot, spa };
    let map = match form {
        StaticForm::Path(path) => {
            let from = SourceFrom::Path(local(&path, "a folder", &["static"], base, cx));
            return (plain(None, false), Some(SiteSource { from, build: Vec::new(), output: None }));
        }
        StaticForm::Map(map) => map,
    };
    let webroot =
        map.webroot.as_ref().map(|path| local(&path.0, "a folder", &["static", "webroot"], base, cx));
    let site = plain(webroot, map.spa.as_ref().is_some_and(|flag| flag.0));
    (site, source(map, base, cx))
}

fn source(map: StaticMap, base: &str, cx: &mut Cx<'_>) -> Option<SiteSource> {
    let output = map.output.map(|path| path.0);
    let is_built = map.build.is_some();
    let build: Vec<String> = map.build.into_iter().flat_map(|list| list.0).map(|command| command.0).collect();
    for (at, message) in build_mistakes(&build) {
        let field = FieldPath::of(&["static", "build"]).item(at);
        cx.error_at(FieldError { code: "invalid_value", field, message, help: None });
    }
    let from = match (map.path, map.archive, map.git) {
        (Some(path), None, None) => {
            SourceFrom::Path(local(&path.0, "a folder", &["static", "path"], base, cx))
        }
        (None, Some(file), None) => {
            SourceFrom::Archive(local(&file.0, "an archive", &["static", "archive"], base, cx))
        }
        (None, None, Some(git)) => SourceFrom::Git(repository(git, cx)?),
        (None, None, None) => {
            if is_built || output.is_some() {
                let message = "`build` and `output` need a source: `path`, `archive` or `git`";
                cx.error_at(mistake("missing_key", &["static"], message));
            }
            return None;
        }
        _ => {
            let message = "a site has one source: `path`, `archive` or `git`";
            cx.error_at(mistake("conflict", &["static"], message));
            return None;
        }
    };
    Some(SiteSource { from, build, output })
}

/// One that can be fetched; if it cannot, that is reported.
fn repository(git: GitForm, cx: &mut Cx<'_>) -> Option<Repository> {
    let Some(url) = git.url else {
        cx.error_at(mistake("missing_key", &["static", "git"], "a repository has a `url`"));
        return None;
    };
    let repository = Repository { url, reference: git.reference };
    let mistakes = repository.mistakes();
    let is_right = mistakes.is_empty();
    for (key, message) in mistakes {
        cx.error_at(mistake("invalid_value", &["static", "git", key], message));
    }
    is_right.then_some(repository)
}

fn process(command: Vec<String>, raw: &mut raw::Service, base: &str) -> Process {
    let mut command: Vec<Template> = command.into_iter().map(Template).collect();
    if let Some(program) = command.first_mut().filter(|program| is_relative_program(&program.0)) {
        // The folder is no template: a dollar in its name is a dollar.
        *program = Template(resolve(&base.replace('$', "$$"), &program.0));
    }
    let workdir = raw.workdir.take().map(|path| resolve(base, &path.0));
    Process { command, workdir, user: raw.user.take().map(|user| user.0) }
}

fn container(
    image: ImageRef,
    command: Option<raw::Command>,
    raw: &mut raw::Service,
    base: &str,
    cx: &mut Cx<'_>,
) -> Container {
    let templates = |command: raw::Command| command.0.into_iter().map(Template).collect();
    let port = match raw.port.take() {
        Some(PortForm::Fixed(port)) => Some(port),
        Some(PortForm::Dynamic) => {
            // With the machine's own network it listens where it is told to.
            raw.port = Some(PortForm::Dynamic);
            None
        }
        None => None,
    };
    let capabilities = raw.capabilities.take();
    let set = |list: Option<List<Parsed<Capability>>>| {
        list.map_or_else(BTreeSet::new, |list| list.0.into_iter().map(|name| name.0).collect())
    };
    Container {
        entrypoint: raw.entrypoint.take().map(templates),
        command: command.map(templates),
        workdir: raw.workdir.take().map(|path| path.0),
        user: raw.user.take().map(|user| user.0),
        port,
        network: raw.network.take().map_or(Network::default(), |word| word.0),
        volumes: texts(raw.volumes.take())
            .iter()
            .enumerate()
            .filter_map(|(at, text)| mount(text, at, base, cx))
            .collect(),
        tmpfs: texts(raw.tmpfs.take())
            .iter()
            .enumerate()
            .filter_map(|(at, text)| tmpfs(text, at, cx))
            .collect(),
        read_only: raw.read_only.take().is_some_and(|flag| flag.0),
        capabilities: capabilities
            .map(|map| Capabilities { add: set(map.add), drop: set(map.drop) })
            .unwrap_or_default(),
        log: raw.logs.take().map_or_else(LogLimit::default, |logs| {
            let default = LogLimit::default();
            LogLimit {
                max_size: logs.max_size.map_or(default.max_size, |size| size.0),
                max_files: logs.max_files.map_or(default.max_files, |count| count.0),
            }
        }),
        ..Container::new(image)
    }
}

fn texts(list: Option<List<Text>>) -> Vec<String> {
    list.map_or_else(Vec::new, |list| list.0.into_iter().map(|text| text.0).collect())
}

/// `name:/inside`, `./folder:/inside`, `/folder:/inside`, each with `:ro` or without.
fn mount(text: &str, at: usize, base: &str, cx: &mut Cx<'_>) -> Option<Mount> {
    let step = format!("[{at}]");
    let field = ["volumes", step.as_str()];
    let (text, read_only) = match text.strip_suffix(":ro") {
        Some(text) => (text, true),
        None => (text.strip_suffix(":rw").unwrap_or(text), false),
    };
    let Some((source, target)) = text.split_once(':').filter(|(source, _)| !source.is_empty()) else {
        let message =
            format!("`{}` is not a volume: write name:/inside or ./folder:/inside", printable(text));
        cx.error_at(mistake("invalid_value", &field, message));
        return None;
    };
    let source = if source.starts_with(['/', '.']) {
        MountSource::Bind(local(source, "a folder", &field, base, cx))
    } else {
        match source.parse() {
            Ok(name) => MountSource::Volume(name),
            Err(error) => {
                cx.error_at(mistake("invalid_value", &field, format!("{error}")));
                return None;
            }
        }
    };
    Some(Mount { source, target: target.into(), read_only })
}

/// `/inside` or `/inside:64MiB`.
fn tmpfs(text: &str, at: usize, cx: &mut Cx<'_>) -> Option<(String, Option<Bytes>)> {
    match text.split_once(':') {
        None => Some((text.into(), None)),
        Some((path, size)) => match size.parse() {
            Ok(size) => Some((path.into(), Some(size))),
            Err(error) => {
                cx.error_at(mistake("invalid_value", &["tmpfs", &format!("[{at}]")], format!("{error}")));
                None
            }
        },
    }
}

fn is_relative_program(program: &str) -> bool {
    program.contains('/') && !program.starts_with('/') && !program.starts_with("${")
}

fn spec(workload: Workload, raw: raw::Service, cx: &mut Cx<'_>) -> ServiceSpec {
    let runs = workload.kind().runs();
    let host_port = match &workload {
        Workload::Container(container) => container_port(container),
        Workload::Site(_) | Workload::Process(_) => None,
    };
    let stop = stop(raw.stop, &workload);
    let mut spec = ServiceSpec {
        workload,
        replicas: raw.replicas.map_or(1, |count| count.0),
        domains: raw
            .domains
            .map_or_else(Vec::new, |list| list.0.into_iter().map(|domain| domain.0).collect()),
        env: raw
            .env
            .map(|dict| dict.0)
            .unwrap_or_default()
            .into_iter()
            .map(|(k, v)| (k, Template(v.0)))
            .collect(),
        files: raw
            .files
            .map(|dict| dict.0)
            .unwrap_or_default()
            .into_iter()
            .map(|(k, v)| (k, Template(v.0)))
            .collect(),
        port: match raw.port {
            None => host_port,
            Some(PortForm::Dynamic) => Some(Port::Dynamic),
            Some(PortForm::Fixed(port)) => Some(Port::Fixed(port)),
        },
        health: Health::default(),
        restart: raw.restart.map(restart).unwrap_or_default(),
        stop,
        deploy: raw.deploy.map(deploy).unwrap_or_default(),
        drift: raw.drift.map(drift).unwrap_or_default(),
        resources: raw.resources.map(resources).unwrap_or_default(),
        retain: raw.retain.map_or(DEFAULT_RETAIN, |count| count.0),
    };
    let is_process = matches!(spec.workload, Workload::Process(_));
    if runs {
        spec.health = raw.health.map(|form| health(form, cx)).unwrap_or_default();
        if is_process && spec.port.is_none() && needs_port(&spec).is_some() {
            spec.port = Some(Port::Dynamic);
        }
        assume_tcp(&mut spec);
    }
    spec
}

/// The port of the machine that leads to a container's own.
fn container_port(container: &Container) -> Option<Port> {
    match (container.network, container.port) {
        (Network::Project, Some(_)) => Some(Port::Dynamic),
        (Network::Host, Some(port)) => Some(Port::Fixed(port)),
        (Network::None, _) | (_, None) => None,
    }
}

/// Nothing with a port is assumed healthy: where nobody said how to tell, TCP on the port tells.
fn assume_tcp(spec: &mut ServiceSpec) {
    let health = &mut spec.health;
    if spec.port.is_none() || health.startup.is_some() || health.readiness.is_some() {
        return;
    }
    let tcp = || Some(Probe::new(Check::Tcp));
    *health = Health {
        startup: tcp(),
        readiness: tcp(),
        liveness: health.liveness.take().or_else(tcp),
        assumed: true,
    };
}

const DEFAULT_RETAIN: u32 = 5;

fn health(form: HealthForm, cx: &mut Cx<'_>) -> Health {
    match form {
        HealthForm::Path(path) => {
            let http = || Some(Probe::new(Check::Http(path.clone())));
            Health { startup: http(), readiness: http(), liveness: http(), assumed: false }
        }
        HealthForm::Map(map) => {
            let HealthMap { startup, readiness, liveness } = *map;
            if startup.is_none() && readiness.is_none() && liveness.is_none() {
                let message = "`health` has no probe: give it startup, readiness or liveness, or remove it";
                cx.error_at(mistake("missing_key", &["health"], message));
            }
            let mut probe = |name, raw: Option<ProbeMap>| raw.and_then(|raw| probe(name, raw, cx));
            Health {
                startup: probe("startup", startup),
                readiness: probe("readiness", readiness),
                liveness: probe("liveness", liveness),
                assumed: false,
            }
        }
    }
}

fn probe(name: &str, raw: ProbeMap, cx: &mut Cx<'_>) -> Option<Probe> {
    let check = match (raw.http, raw.tcp, raw.exec) {
        (Some(path), None, None) => Check::Http(path.0),
        (None, Some(_), None) => Check::Tcp,
        (None, None, Some(command)) => Check::Exec(command.0.into_iter().map(Template).collect()),
        _ => {
            let message =
                format!("`{name}` needs exactly one of `http: /path`, `tcp: true`, `exec: [program, …]`");
            cx.error_at(mistake("conflict", &["health", name], message));
            return None;
        }
    };
    let mut probe = Probe::new(check);
    set(&mut probe.interval, raw.interval);
    set(&mut probe.timeout, raw.timeout);
    set(&mut probe.grace, raw.grace);
    probe.rise = raw.rise.map_or(probe.rise, |count| count.0);
    probe.fall = raw.fall.map_or(probe.fall, |count| count.0);
    Some(probe)
}

/// Replaces a default by what was written.
fn set<T>(value: &mut T, written: Option<Parsed<T>>) {
    if let Some(Parsed(written)) = written {
        *value = written;
    }
}

fn restart(raw: raw::Restart) -> RestartPolicy {
    let mut policy = RestartPolicy::default();
    set(&mut policy.backoff, raw.backoff);
    set(&mut policy.max_backoff, raw.max_backoff);
    set(&mut policy.window, raw.window);
    policy.attempts = raw.attempts.map_or(policy.attempts, |count| count.0);
    policy
}

fn stop(raw: Option<raw::Stop>, workload: &Workload) -> StopPolicy {
    let mut policy = StopPolicy::default();
    policy.signal = policy.signal.filter(|_| !matches!(workload, Workload::Container(_)));
    let Some(raw) = raw else { return policy };
    policy.signal = raw.signal.map(|word| word.0).or(policy.signal);
    set(&mut policy.grace, raw.grace);
    policy
}

fn deploy(raw: raw::Deploy) -> DeployPolicy {
    let mut policy = DeployPolicy::default();
    policy.strategy = raw.strategy.map_or(policy.strategy, |word| word.0);
    policy.order = raw.order.map_or(policy.order, |word| word.0);
    policy.on_failure = raw.on_failure.map_or(policy.on_failure, |word| word.0);
    policy.parallelism = raw.parallelism.map_or(policy.parallelism, |count| count.0);
    set(&mut policy.min_healthy, raw.min_healthy);
    set(&mut policy.deadline, raw.deadline);
    set(&mut policy.drain, raw.drain);
    policy
}

fn drift(raw: DriftForm) -> DriftPolicy {
    let default = DriftPolicy::default();
    DriftPolicy { mode: raw.mode.unwrap_or(default.mode), ignore: raw.ignore }
}

fn resources(raw: raw::ResourceLimits) -> Resources {
    Resources {
        memory: raw.memory.map(|size| size.0),
        millicpus: raw.cpus.map(|cpus| cpus.0),
        pids: raw.pids.map(|count| count.0),
    }
}

/// A path on this machine, absolute.
fn local(path: &str, what: &str, field: &[&str], base: &str, cx: &mut Cx<'_>) -> String {
    // Text such as https://… would become a strange folder, which then is not found.
    if path.is_empty() || path.contains("://") || path.len() > 4096 || path.chars().any(char::is_control) {
        let message = format!("`{}` is not {what}", printable(path));
        cx.error_at(mistake("invalid_value", field, message));
    }
    resolve(base, path)
}

/// `path` seen from the absolute folder `base`, without `.`, `..` and doubled slashes. As text alone: a
/// symbolic link on the way is not followed.
pub(super) fn resolve(base: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{base}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
