//! Settings: the file, then the environment (`SETPOINT__SECTION__KEY`), then flags. Each value knows where it came
//! from.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use decide::{collect::Schedule, policy::Policy};
use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Env, Format, Serialized, Toml},
    value::{Dict, Map},
};
use model::{Bytes, Millis};
use serde::{Deserialize, Serialize};

use super::Error;
use crate::cli::{
    args::{self, LogFormat, LongRunning},
    json::Json,
    output,
};

const FILE: &str = "setpoint.toml";
/// Where a value came from that the command line has.
const FLAGS: &str = "flags";
const ENV: &str = "SETPOINT__";
pub const API_PORT: u16 = 7400;
const EDGE_PORT: u16 = 8080;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub api: Api,
    pub edge: Edge,
    pub reconcile: Reconcile,
    pub log: Log,
    pub containers: Containers,
    pub tokens: Tokens,
    pub gc: Gc,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    pub listen: SocketAddr,
    /// Host names besides loopback's under which it answers.
    pub allowed_hosts: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Edge {
    pub listen: SocketAddr,
    /// Of a request's body; more is answered with 413. None is no limit.
    pub max_body: Option<Bytes>,
    /// Of a request's line and headers; more is answered with 431.
    pub max_header: Bytes,
    /// Until an answer begins; then 504. Long polls need more than they wait.
    pub response_timeout: Millis,
}

impl Edge {
    pub fn limits(&self) -> edge::Limits {
        edge::Limits {
            max_body: self.max_body.map(|bytes| bytes.0),
            header_bytes: usize::try_from(self.max_header.0).unwrap_or(usize::MAX),
            response_head: self.response_timeout.as_duration(),
            ..edge::Limits::default()
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reconcile {
    /// Between full passes.
    pub every: Millis,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `text` or `json`.
    pub format: LogFormat,
    /// A level, or a filter such as `info,server=debug`.
    pub level: String,
}

/// What tokens that were given out may beyond their role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tokens {
    /// Whether they may declare and deploy processes, which are code on the machine itself.
    pub processes: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Containers {
    /// The engine, as in `DOCKER_HOST`, which counts where this is empty.
    pub host: String,
    /// Folders of the machine that containers may mount.
    pub binds: Vec<String>,
    /// Whether containers may have the machine's own network.
    pub host_network: bool,
    /// Capabilities over the machine that containers may add.
    pub capabilities: Vec<String>,
}

impl Containers {
    pub fn engine(&self) -> String {
        let of_environment = || std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
        let named = Some(self.host.clone()).filter(|host| !host.is_empty()).or_else(of_environment);
        named.unwrap_or_else(|| "unix:///var/run/docker.sock".into())
    }

    pub fn policy(&self) -> Policy {
        Policy {
            binds: self.binds.clone(),
            host_network: self.host_network,
            capabilities: self.capabilities.clone(),
        }
    }
}

/// When what nothing needs is removed without being asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gc {
    pub every: Millis,
    /// At once from so much of the engine's disk on.
    pub full_percent: u8,
    /// Between looks at the disk.
    pub look: Millis,
}

impl Gc {
    pub fn schedule(&self) -> Schedule {
        Schedule { every: self.every, full_percent: self.full_percent }
    }
}

impl Default for Gc {
    fn default() -> Self {
        Self { every: Millis::mins(60), full_percent: 85, look: Millis::secs(60) }
    }
}

impl Default for Api {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, API_PORT)), allowed_hosts: Vec::new() }
    }
}

impl Default for Edge {
    fn default() -> Self {
        let limits = edge::Limits::default();
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, EDGE_PORT)),
            max_body: limits.max_body.map(Bytes),
            max_header: Bytes(limits.header_bytes as u64),
            response_timeout: Millis(u64::try_from(limits.response_head.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

impl Default for Reconcile {
    fn default() -> Self {
        Self { every: Millis::secs(30) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "warn".into() }
    }
}

fn layers(file: Option<&Path>) -> Result<Figment, Error> {
    let defaults = Figment::from(Serialized::defaults(Settings::default()));
    let with_file = match file {
        Some(file) if !file.is_file() => {
            return Err(format!(
                "{}: there is no such file; name the settings file with --config",
                file.display()
            )
            .into());
        }
        Some(file) => defaults.merge(Toml::file_exact(file)),
        None if Path::new(FILE).is_file() => defaults.merge(Toml::file_exact(FILE)),
        None => defaults,
    };
    Ok(with_file.merge(Env::prefixed(ENV).split("__")))
}

/// What was said on the command line, so that it is told apart from a default.
struct Flag<T>(&'static str, T);

impl<T: Serialize> Provider for Flag<T> {
    fn metadata(&self) -> Metadata {
        Metadata::named(FLAGS)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Serialized::default(self.0, &self.1).data()
    }
}

/// What is in force for a role.
pub fn of(role: &LongRunning, api: Option<SocketAddr>, edge: Option<SocketAddr>) -> Result<Settings, Error> {
    extract(&all_layers(role, api, edge)?)
}

fn all_layers(
    role: &LongRunning,
    api: Option<SocketAddr>,
    edge: Option<SocketAddr>,
) -> Result<Figment, Error> {
    let mut figment = layers(role.config.as_deref())?;
    if let Some(listen) = api {
        figment = figment.merge(Flag("api.listen", listen));
    }
    if let Some(listen) = edge {
        figment = figment.merge(Flag("edge.listen", listen));
    }
    if let Some(format) = role.log_format {
        figment = figment.merge(Flag("log.format", format));
    }
    if let Some(level) = &role.log_level {
        figment = figment.merge(Flag("log.level", level));
    }
    Ok(figment)
}

fn extract(figment: &Figment) -> Result<Settings, Error> {
    let settings: Settings = figment.extract().map_err(|error| told(&error))?;
    settings.check()?;
    Ok(settings)
}

impl Settings {
    /// What is well written and cannot be meant.
    fn check(&self) -> Result<(), Error> {
        let pauses = [
            ("reconcile.every", self.reconcile.every),
            ("gc.every", self.gc.every),
            ("gc.look", self.gc.look),
        ];
        if let Some((name, pause)) = pauses.into_iter().find(|(_, pause)| *pause < Millis(100)) {
            return Err(format!("settings: `{name}` is {pause}; it is at least 100ms").into());
        }
        if !(1..=100).contains(&self.gc.full_percent) {
            return Err(
                format!("settings: `gc.full_percent` is {}; it is 1 to 100", self.gc.full_percent).into()
            );
        }
        Ok(())
    }
}

fn told(error: &figment::Error) -> Error {
    let place = error.metadata.as_ref().map(origin).unwrap_or_default();
    let line = line_of(error).map(|line| format!(", line {line}")).unwrap_or_default();
    let meant = meant(error).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
    format!("settings{place}{line}: {error}{meant}").into()
}

/// The known name that was probably meant.
fn meant(error: &figment::Error) -> Option<&'static str> {
    match &error.kind {
        figment::error::Kind::UnknownField(name, known) => {
            model::manifest::nearest(name, known.iter().copied())
        }
        _ => None,
    }
}

/// Where the file names what is wrong.
fn line_of(error: &figment::Error) -> Option<usize> {
    let key = match &error.kind {
        figment::error::Kind::UnknownField(name, _) => name,
        _ => error.path.last()?,
    };
    let text = std::fs::read_to_string(error.metadata.as_ref()?.source.as_ref()?.file_path()?).ok()?;
    let names = |line: &str| {
        let rest = line.trim_start().trim_start_matches(['[', '"']).strip_prefix(key.as_str());
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    text.lines().position(names).map(|at| at + 1)
}

fn origin(metadata: &figment::Metadata) -> String {
    match &metadata.source {
        // Where our own defaults are written is of no use to anybody.
        Some(figment::Source::Code(_)) => String::new(),
        Some(source) => format!(" from {source}"),
        None if metadata.name.contains("environment") => " from the environment".into(),
        None if metadata.name == FLAGS => " from the flags".into(),
        None => String::new(),
    }
}

/// A value that is in force.
#[derive(Debug, Serialize)]
struct InForce {
    name: String,
    value: serde_json::Value,
    /// `default` where nobody has said otherwise.
    from: String,
}

/// Prints every value that is in force, and where it came from.
pub fn print(args: &args::Config) -> Result<(), Error> {
    let mut settings = vec![data_folder(&args.role.data)?];
    settings.extend(in_force(&all_layers(&args.role, args.api, args.edge)?)?);
    let document = Json::of(&serde_json::json!({ "settings": settings }))?;
    if !output::document(&document, args.output.format)? {
        for InForce { name, value, from } in settings {
            output::line(&format!("{name} = {value} ({from})"))?;
        }
    }
    Ok(())
}

fn data_folder(data: &args::Data) -> Result<InForce, Error> {
    let of_environment = std::env::var_os("SETPOINT_DATA").map(PathBuf::from);
    let from = match &data.data {
        None => "default",
        said if *said == of_environment => "from the environment",
        Some(_) => "from the flags",
    };
    let folder = data.folder()?.display().to_string();
    Ok(InForce { name: "data".into(), value: folder.into(), from: from.into() })
}

fn in_force(figment: &Figment) -> Result<Vec<InForce>, Error> {
    let settings = extract(figment)?;
    let mut found = Vec::new();
    for (section, keys) in serde_json::to_value(&settings)?.as_object().into_iter().flatten() {
        for (key, value) in keys.as_object().into_iter().flatten() {
            let name = format!("{section}.{key}");
            let from = figment.find_metadata(&name).map(origin).unwrap_or_default();
            let from = if from.is_empty() { "default" } else { from.trim() }.to_owned();
            found.push(InForce { name, value: value.clone(), from });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_text(text: &str) -> Result<Settings, Error> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s.toml");
        std::fs::write(&file, text).unwrap();
        layers(Some(&file)).unwrap().extract().map_err(|error| told(&error))
    }

    #[test]
    fn a_file_changes_what_it_names_and_nothing_else() {
        let settings = of_text("[reconcile]\nevery = \"5s\"\n").unwrap();
        assert_eq!(settings.reconcile.every, Millis::secs(5));
        assert_eq!(settings.api, Api::default());
    }

    #[test]
    fn a_value_comes_from_its_file_or_from_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s.toml");
        std::fs::write(&file, "[reconcile]\nevery = \"5s\"\n").unwrap();
        let figment = layers(Some(&file)).unwrap();
        let from = |path: &str| figment.find_metadata(path).map(origin).unwrap();
        assert_eq!(from("log.level"), "");
        assert!(from("reconcile.every").contains("s.toml"));
    }

    #[test]
    fn a_flag_goes_before_all_else_and_is_told_as_that() {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let figment = layers(None).unwrap().merge(Flag("api.listen", listen));
        let found = in_force(&figment).unwrap();
        let api = found.iter().find(|value| value.name == "api.listen").unwrap();
        assert_eq!((api.value.as_str(), api.from.as_str()), (Some("127.0.0.1:1"), "from the flags"));
    }

    #[test]
    fn a_mistake_names_the_file_and_the_key() {
        let error = of_text("[api]\nlisen = \"127.0.0.1:1\"\n").unwrap_err().to_string();
        assert!(error.contains("lisen") && error.contains("s.toml, line 2"), "{error}");
        assert!(error.contains("did you mean `listen`?"), "{error}");
        let error = of_text("[reconcil]\nevery = \"1s\"\n").unwrap_err().to_string();
        assert!(error.contains("did you mean `reconcile`?"), "{error}");
        let error = of_text("[frobnicate]\n").unwrap_err().to_string();
        assert!(!error.contains("did you mean"), "{error}");
        let error = of_text("[api]\n\nlisten = 7400\n").unwrap_err().to_string();
        assert!(error.contains("s.toml, line 3"), "{error}");
    }

    #[test]
    fn a_pause_of_nothing_is_refused_with_its_name() {
        let mut settings = Settings::default();
        assert!(settings.check().is_ok());
        settings.reconcile.every = Millis(0);
        assert!(settings.check().unwrap_err().to_string().contains("`reconcile.every` is 0s"));
        settings = Settings::default();
        settings.gc.full_percent = 0;
        assert!(settings.check().unwrap_err().to_string().contains("`gc.full_percent`"));
    }

    #[test]
    fn a_settings_file_that_was_named_must_be_there() {
        let error = layers(Some(Path::new("/nowhere/s.toml"))).unwrap_err().to_string();
        assert!(error.contains("/nowhere/s.toml"), "{error}");
    }
}
