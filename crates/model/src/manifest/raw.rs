//! The manifest as it is written: every key, in the one list that parses it, describes it in the JSON
//! Schema and prints its reference. Defaults here are for the reader; `lower` takes them from `spec`.

use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{
    decode::{
        Count, Cx, Decode, Dict, FieldDoc, Flag, Form, Later, List, Mapping, OneOf, Parsed, Text, Words,
        decode_items, doc, inline_schema, mapping, mapping_schema, parse_key, words,
    },
    error::Span,
    yaml::{Node, Value},
};
use crate::{
    Bytes, Millis, ProjectName, ServiceName,
    artifact::RelPath,
    container::{Capability, Network},
    id::printable,
    image::ImageRef,
    spec::{Domain, DriftMode, EnvKey, MAX_REPLICAS, OnFailure, Order, Signal, Strategy},
};

/// Keys of what is built. The builder that learns them takes them out of here.
pub(super) const BUILD_KEYS: Later = &[
    ("build", "building an image is not part of this build yet; build it, and declare `image`"),
    (
        "git",
        "building a service from a repository is not part of this build yet; declare `static`, `command` or `image`",
    ),
];

mapping! {
    /// One YAML document. A file may hold several, also of different projects.
    Document ("the manifest") {
        /// The namespace that owns the services.
        "project" project: Parsed<ProjectName> = "default",
        /// The services by name: 1 to 63 of a-z, 0-9 and -.
        "services" services: Services,
    }
}

mapping! {
    /// One service. It has `static`, `command` or `image`; what does not apply to its kind is an error.
    Service ("a service") later BUILD_KEYS {
        /// A folder of files that the edge serves: a path, or a map.
        "static" site: StaticForm,
        /// A container's image: `acme/web:1.4`, `registry.example.com/acme/web@sha256:…`. A tag is resolved once, when the
        /// release is made; `setpoint deploy` resolves it anew.
        "image" image: Parsed<ImageRef>,
        /// A program and its arguments. `command[0]` with a `/` is relative to the file, without one it is found by PATH.
        /// With `image`, what the container is told instead of the image's own command.
        /// `${NAME}` is replaced by PORT, HOST, SETPOINT_INSTANCE, SETPOINT or an env value; `$$` is a dollar.
        "command" command: Command,
        /// With `image`: instead of the image's own entrypoint.
        "entrypoint" entrypoint: Command,
        /// Instances that shall run; with 0, none.
        "replicas" replicas: Count<0, MAX_REPLICAS> = 1,
        /// Hosts, with an optional path prefix, under which the edge serves it: `app.example.com`, `example.com/api`.
        "domains" domains: List<Parsed<Domain>>,
        /// Environment variables. Values may use `${PORT}`, `${HOST}`, `${SETPOINT_INSTANCE}`, `${SETPOINT}`.
        "env" env: Dict<EnvKey, Text>,
        /// Files that are written into each instance's folder, with `${NAME}` replaced; a change is a new release. With
        /// `image` they are seen below its working directory, and cannot be written there.
        "files" files: Dict<RelPath, Text>,
        /// The port on which it listens. A number is that port of the machine, for one replica. With `dynamic`, or
        /// when `domains`, `health` or `${PORT}` need one, it is given as `${PORT}`. Otherwise there is none.
        /// With `image`, the number on which it listens inside; each instance gets a port of the machine that leads there.
        "port" port: PortForm,
        /// An HTTP path for all three probes, or a map. Without it a service with a port is probed by TCP.
        "health" health: HealthForm,
        /// How often and how fast it is restarted in place.
        "restart" restart: Restart,
        /// How it is asked to end.
        "stop" stop: Stop,
        /// How a new release replaces the old one.
        "deploy" deploy: Deploy,
        /// What happens when what runs differs from what is declared: `correct`, `warn`, `off`, or a map.
        "drift" drift: DriftForm = "correct",
        /// Limits of one instance.
        "resources" resources: ResourceLimits,
        /// With `image`: `name:/inside` for a volume of the project, `./folder:/inside` for a folder of the machine (which
        /// the server's settings must allow); with `:ro` behind it, it cannot be written.
        "volumes" volumes: List<Text>,
        /// With `image`: folders in memory, `/tmp` or `/tmp:64MiB`.
        "tmpfs" tmpfs: List<Text>,
        /// With `image`: nothing but `volumes` and `tmpfs` can be written.
        "read_only" read_only: Flag = false,
        /// With `image`: `project` lets the project's services reach each other by name, `host` is the machine's own network
        /// (which the server's settings must allow), `none` is none.
        "network" network: OneOf<Network> = "project",
        /// With `image`: what it may do beside what nearly every image needs.
        "capabilities" capabilities: CapabilityMap,
        /// With `image`: how much of its output the engine keeps.
        "logs" logs: LogsMap,
        /// The user as whom it runs: a name or a number. Without it, Setpoint's own. With `image`, one of the image's users,
        /// also `uid:gid`; without it, the image's own.
        "user" user: Text,
        /// The working directory, relative to the file. Without it, the instance's own folder, where `files` lie. With `image`,
        /// absolute inside; without it, the image's own.
        "workdir" workdir: Text,
        /// Earlier releases that are kept for rollback.
        "retain" retain: Count<0, 100> = 5,
    }
}

mapping! {
    /// Where a site comes from and how it is served. Without a source, its content comes by `setpoint deploy`.
    StaticMap ("`static`") {
        /// A folder, relative to the file.
        "path" path: Text,
        /// An archive (tar, tar.gz, tar.zst, zip), relative to the file.
        "archive" archive: Text,
        /// A repository: `URL`, `URL#REF`, or a map. It is fetched where the command runs, with the Git of who runs it. What
        /// it stands for is looked up once, and again by `setpoint deploy SERVICE`.
        "git" git: GitForm,
        /// Commands that `sh -c` runs one after the other, where the command runs, in the source's folder, before `output` is
        /// taken. Of an archive and of a repository that is a copy; of `path` it is the folder itself, and what differs
        /// after a build is a new release.
        "build" build: List<Text>,
        /// The folder below the source that is served, instead of the whole.
        "output" output: Parsed<RelPath>,
        /// A folder, relative to the file, in which the site's top-level entries are linked for another web server.
        "webroot" webroot: Text,
        /// Whether unknown paths get `index.html`, with status 200.
        "spa" spa: Flag = false,
    }
}

mapping! {
    /// A Git repository.
    GitMap ("`git`") {
        /// `https://…`, `http://…`, `ssh://…` or `user@host:path`.
        "url" url: Text,
        /// A branch, a tag or a whole commit id. Without it, the repository's own default.
        "ref" reference: Text,
    }
}

mapping! {
    /// The three probes of an instance. Those left out are not made; a service with a port that has neither
    /// `startup` nor `readiness` is probed by TCP for both.
    HealthMap ("`health`") {
        /// Until its first success nothing else is probed; its grace bounds the start.
        "startup" startup: ProbeMap,
        /// Whether traffic may go there.
        "readiness" readiness: ProbeMap,
        /// Whether it must be restarted.
        "liveness" liveness: ProbeMap,
    }
}

mapping! {
    /// One probe: exactly one of `http`, `tcp`, `exec`.
    ProbeMap ("a probe") {
        /// GET of this path on the instance's port; 200 to 399 is success.
        "http" http: Text,
        /// The instance's port accepts a connection.
        "tcp" tcp: TcpForm,
        /// This command, run in the instance's folder with its env, exits 0.
        "exec" exec: Command,
        /// Time between probes once ready; until then every 100ms.
        "interval" interval: Parsed<Millis> = "10s",
        /// A probe that takes longer has failed. A command in a container has this time from its begin.
        "timeout" timeout: Parsed<Millis> = "5s",
        /// Successes in a row that make it healthy.
        "rise" rise: Count<1, 100> = 1,
        /// Failures in a row that make it unhealthy.
        "fall" fall: Count<1, 100> = 3,
        /// After the start, failures do not count until this has passed or a probe has succeeded.
        "grace" grace: Parsed<Millis> = "60s",
    }
}

mapping! {
    /// Restarts in place. The first is immediate; then the backoff doubles.
    Restart ("`restart`") {
        /// The wait before the second restart.
        "backoff" backoff: Parsed<Millis> = "1s",
        /// The longest wait.
        "max_backoff" max_backoff: Parsed<Millis> = "60s",
        /// Restarts within `window`, after which it is `failed`.
        "attempts" attempts: Count<0, 1000> = 5,
        /// Restarts older than this are forgotten.
        "window" window: Parsed<Millis> = "10m",
    }
}

mapping! {
    /// The end of an instance.
    Stop ("`stop`") {
        /// The signal that asks it to end; of a container the default is what its image names, if it names one.
        "signal" signal: OneOf<Signal> = "SIGTERM",
        /// After this comes SIGKILL.
        "grace" grace: Parsed<Millis> = "10s",
    }
}

mapping! {
    /// Deployments.
    Deploy ("`deploy`") {
        /// `rolling` replaces instances batch by batch; `recreate` stops all old ones first.
        "strategy" strategy: OneOf<Strategy> = "rolling",
        /// Whether a new instance is ready before its predecessor goes, or comes after it.
        "order" order: OneOf<Order> = "start-first",
        /// Instances of one batch.
        "parallelism" parallelism: Count<1, MAX_REPLICAS> = 1,
        /// How long the whole must hold before the deployment is active.
        "min_healthy" min_healthy: Parsed<Millis> = "2s",
        /// Time without progress after which a deployment fails.
        "deadline" deadline: Parsed<Millis> = "10m",
        /// How long requests in flight may take to end on an instance that goes.
        "drain" drain: Parsed<Millis> = "10s",
        /// `rollback` brings the whole previous release back; `pause` leaves everything as it is.
        "on_failure" on_failure: OneOf<OnFailure> = "rollback",
    }
}

mapping! {
    /// Drift: what runs differs from what is declared.
    DriftMap ("`drift`") {
        /// Whether drift is corrected, only reported, or not looked for.
        "mode" mode: OneOf<DriftMode> = "correct",
        /// Paths, with `*` for any text, that are not reported.
        "ignore" ignore: List<Text>,
    }
}

mapping! {
    /// Limits of one instance; what is left out is not limited.
    ResourceLimits ("`resources`") {
        /// Memory: `256MiB`.
        "memory" memory: Parsed<Bytes>,
        /// Cores: `0.5`.
        "cpus" cpus: Cpus,
        /// Processes and threads of a container.
        "pids" pids: Count<1, MAX_PIDS>,
    }
}

mapping! {
    /// What a container may do. By default it keeps CHOWN, DAC_OVERRIDE, FOWNER, KILL, NET_BIND_SERVICE, SETGID and SETUID.
    CapabilityMap ("`capabilities`") {
        /// More, such as `NET_RAW`. What concerns the machine itself takes a setting of the server.
        "add" add: List<Parsed<Capability>>,
        /// Less.
        "drop" drop: List<Parsed<Capability>>,
    }
}

mapping! {
    /// The output that an engine keeps of a container.
    LogsMap ("`logs`") {
        /// The longest file.
        "max_size" max_size: Parsed<Bytes> = "10MiB",
        /// Files of that length.
        "max_files" max_files: Count<1, 100> = 3,
    }
}

pub(super) const MAX_PIDS: u32 = 4_194_304;

/// The services of a document, each decoded by itself: a mistake in one hides nothing of another.
#[derive(Debug)]
pub(super) struct Services(pub Vec<Entry>);

#[derive(Debug)]
pub(super) struct Entry {
    /// Its place among the services of the document.
    pub at: usize,
    /// As written.
    pub key: String,
    pub name: ServiceName,
    pub span: Span,
    pub service: Service,
}

inline_schema!([] Services, |g| json_schema!({
    "type": "object", "minProperties": 1, "additionalProperties": g.subschema_for::<Service>()
}));

impl Decode for Services {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        if is_empty(&node.value) {
            cx.declares_nothing(node.span);
            return None;
        }
        let mut entries = Vec::new();
        for (at, (key, node)) in cx.map(node, "a map of services by name")?.iter().enumerate() {
            cx.within(&key.text, |cx| {
                let before = cx.errors.len();
                let name = parse_key(key, cx);
                let service = Service::decode(node, cx);
                if let (Some(name), Some(service), true) = (name, service, cx.errors.len() == before) {
                    entries.push(Entry { at, key: key.text.clone(), name, span: key.span, service });
                }
            });
        }
        Some(Self(entries))
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Scalar(scalar) => scalar.is_null(),
        Value::Map(entries) => entries.is_empty(),
        Value::List(_) => false,
    }
}

/// `static: ./site` or a map.
#[derive(Debug)]
pub(super) enum StaticForm {
    Path(String),
    Map(StaticMap),
}

inline_schema!([] StaticForm, |g| json_schema!({ "anyOf": [{ "type": "string" }, g.subschema_for::<StaticMap>()] }));

impl Decode for StaticForm {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        match &node.value {
            Value::Map(_) => StaticMap::decode(node, cx).map(Self::Map),
            _ => cx.text(node, "a folder, or a map with path, archive or git").map(Self::Path),
        }
    }
}

/// `git: URL#REF` or a map.
#[derive(Debug)]
pub(super) struct GitForm {
    pub url: Option<String>,
    pub reference: Option<String>,
}

inline_schema!([] GitForm, |g| json_schema!({ "anyOf": [{ "type": "string" }, g.subschema_for::<GitMap>()] }));

impl Decode for GitForm {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        if let Value::Map(_) = &node.value {
            let map = GitMap::decode(node, cx)?;
            return Some(Self { url: map.url.map(|t| t.0), reference: map.reference.map(|t| t.0) });
        }
        let text = cx.text(node, "a URL, or a map with url and ref")?;
        let (url, reference) = match text.split_once('#') {
            Some((url, reference)) => (url.to_owned(), Some(reference.to_owned())),
            None => (text, None),
        };
        Some(Self { url: Some(url), reference })
    }
}

/// A program and its arguments.
#[derive(Debug)]
pub(super) struct Command(pub Vec<String>);

inline_schema!([] Command, |g| json_schema!({
    "type": "array", "minItems": 1, "items": g.subschema_for::<Text>()
}));

impl Decode for Command {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        let help = match &node.value {
            Value::Scalar(scalar) if !scalar.text.is_empty() => list_help(&scalar.text),
            _ => "write [program, argument, …]".to_owned(),
        };
        let items = cx.list(node, &help)?;
        Some(Self(decode_items::<Text>(items, cx).into_iter().map(|text| text.0).collect()))
    }
}

/// How a command line is written as a list; by a shell when it needs one.
fn list_help(line: &str) -> String {
    let line = printable(line);
    if line.contains(['|', '&', ';', '<', '>', '*', '`', '"', '\'', '\\', '(']) {
        return format!("a shell is not implied; write [\"sh\", \"-c\", '{}']", line.replace('\'', "''"));
    }
    let words: Vec<String> = line.split_whitespace().map(|word| format!("\"{word}\"")).collect();
    format!("write [{}], or [\"sh\", \"-c\", …] for a shell", words.join(", "))
}

/// `port: 8080` or `port: dynamic`.
#[derive(Debug)]
pub(super) enum PortForm {
    Dynamic,
    Fixed(u16),
}

inline_schema!([] PortForm, |_g| json_schema!({
    "anyOf": [{ "type": "integer", "minimum": 1, "maximum": 65535 }, { "const": "dynamic" }]
}));

impl Decode for PortForm {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        match &node.value {
            Value::Scalar(scalar) if scalar.text == "dynamic" => Some(Self::Dynamic),
            _ => {
                let Count(port) = Count::<1, 65_535>::decode(node, cx)?;
                u16::try_from(port).ok().map(Self::Fixed)
            }
        }
    }
}

/// `health: /healthz` or a map.
#[derive(Debug)]
pub(super) enum HealthForm {
    Path(String),
    Map(Box<HealthMap>),
}

inline_schema!([] HealthForm, |g| json_schema!({
    "anyOf": [{ "type": "string", "pattern": "^/" }, g.subschema_for::<HealthMap>()]
}));

impl Decode for HealthForm {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        match &node.value {
            Value::Map(_) => HealthMap::decode(node, cx).map(|map| Self::Map(Box::new(map))),
            _ => cx.text(node, "an HTTP path, or a map with startup, readiness and liveness").map(Self::Path),
        }
    }
}

/// `tcp: true` or `tcp: {}`.
#[derive(Debug)]
pub(super) struct TcpForm;

inline_schema!([] TcpForm, |_g| json_schema!({ "anyOf": [{ "const": true }, { "type": "object", "maxProperties": 0 }] }));

impl Decode for TcpForm {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        match &node.value {
            Value::Map(entries) if entries.is_empty() => Some(Self),
            Value::Scalar(scalar) if scalar.plain && scalar.text == "true" => Some(Self),
            _ => {
                let help = "the service's own port is probed; a probe that is not wanted is left out";
                cx.error_with_help("wrong_type", node.span, "`tcp` takes `true` and nothing else", help);
                None
            }
        }
    }
}

/// `drift: warn` or a map.
#[derive(Debug)]
pub(super) struct DriftForm {
    pub mode: Option<DriftMode>,
    pub ignore: Vec<String>,
}

inline_schema!([] DriftForm, |g| json_schema!({
    "anyOf": [{ "enum": words::<DriftMode>() }, g.subschema_for::<DriftMap>()]
}));

impl Decode for DriftForm {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        if !matches!(node.value, Value::Map(_)) {
            let OneOf(mode) = OneOf::decode(node, cx)?;
            return Some(Self { mode: Some(mode), ignore: Vec::new() });
        }
        let DriftMap { mode, ignore } = DriftMap::decode(node, cx)?;
        let ignore = ignore.map_or_else(Vec::new, |list| list.0.into_iter().map(|text| text.0).collect());
        Some(Self { mode: mode.map(|word| word.0), ignore })
    }
}

/// Cores with up to three decimals, held as thousandths.
#[derive(Debug)]
pub(super) struct Cpus(pub u32);

pub(super) const MAX_CPUS: u32 = 1024;

inline_schema!([] Cpus, |_g| json_schema!({ "type": "number", "minimum": 0.001, "maximum": MAX_CPUS }));

impl Decode for Cpus {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        let expected = format!("a number of cores from 0.001 to {MAX_CPUS} with at most three decimals");
        let text = cx.text(node, &expected)?;
        let plain = matches!(&node.value, Value::Scalar(scalar) if scalar.plain);
        let millis = millicpus(&text).filter(|n| plain && (1..=MAX_CPUS * 1000).contains(n));
        if millis.is_none() {
            let message = format!("`cpus` is `{}`; {expected} is expected, without quotes", printable(&text));
            cx.error("out_of_range", node.span, message);
        }
        millis.map(Self)
    }
}

fn millicpus(text: &str) -> Option<u32> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |s: &str, max| (1..=max).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole, 4) || !digits(decimals, 3) || (whole.len() > 1 && whole.starts_with('0')) {
        return None;
    }
    let thousandths: u32 = format!("{decimals:0<3}").parse().ok()?;
    Some(u32::from_str(whole).ok()? * 1000 + thousandths)
}

impl Words for Strategy {
    const WORDS: &'static [(&'static str, Self)] =
        &[("rolling", Self::Rolling), ("recreate", Self::Recreate)];
}

impl Words for Order {
    const WORDS: &'static [(&'static str, Self)] =
        &[("start-first", Self::StartFirst), ("stop-first", Self::StopFirst)];
}

impl Words for Network {
    const WORDS: &'static [(&'static str, Self)] =
        &[("project", Self::Project), ("host", Self::Host), ("none", Self::None)];
}

impl Words for OnFailure {
    const WORDS: &'static [(&'static str, Self)] = &[("rollback", Self::Rollback), ("pause", Self::Pause)];
}

impl Words for DriftMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("correct", Self::Correct), ("warn", Self::Warn), ("off", Self::Off)];
}

impl Words for Signal {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("SIGTERM", Self::Term),
        ("SIGINT", Self::Int),
        ("SIGQUIT", Self::Quit),
        ("SIGHUP", Self::Hup),
        ("SIGUSR1", Self::Usr1),
        ("SIGUSR2", Self::Usr2),
        ("SIGKILL", Self::Kill),
    ];
}

/// Types with a text form of their own, and how the schema describes it.
macro_rules! forms {
    ($($ty:ty, $expected:literal, $schema:tt;)*) => {$(
        impl Form for $ty {
            const EXPECTED: &'static str = $expected;
            fn schema() -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

forms! {
    ProjectName, "a name", { "type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" };
    ServiceName, "a name", { "type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" };
    Domain, "a host such as app.example.com", { "type": "string" };
    EnvKey, "a variable name", { "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" };
    RelPath, "a relative path", { "type": "string" };
    ImageRef, "an image such as acme/web:1.4", { "type": "string" };
    Capability, "a capability such as NET_RAW", { "type": "string" };
    Millis, "a duration such as 500ms, 30s or 5m", { "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$" };
    Bytes, "a size such as 64MiB", { "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$" };
}
