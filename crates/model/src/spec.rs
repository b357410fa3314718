//! A service as declared, normalised: every default filled in, every value checked. The manifest is parsed
//! into this, the API takes it, the store keeps it.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    ArtifactDigest, Bytes, Millis, artifact::RelPath, container::Container, id::InvalidId, source::Origin,
};

pub const MAX_REPLICAS: u32 = 10_000;

/// Everything that a user declares about one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    pub workload: Workload,
    pub replicas: u32,
    pub domains: Vec<Domain>,
    pub env: BTreeMap<EnvKey, Template>,
    pub files: BTreeMap<RelPath, Template>,
    /// Whether the workload listens, and where. `None`: alive is ready.
    pub port: Option<Port>,
    pub health: Health,
    pub restart: RestartPolicy,
    pub stop: StopPolicy,
    pub deploy: DeployPolicy,
    pub drift: DriftPolicy,
    pub resources: Resources,
    /// Earlier releases kept for rollback.
    pub retain: u32,
}

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Workload {
    Site(Site),
    Process(Process),
    Container(Container),
}

impl Workload {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Site(_) => Kind::Site,
            Self::Process(_) => Kind::Process,
            Self::Container(_) => Kind::Container,
        }
    }
}

/// The kinds of services, as `status` prints them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    #[serde(rename = "static")]
    Site,
    Process,
    Container,
}

impl Kind {
    /// Whether it has instances that live and die; a site is a folder.
    pub fn runs(self) -> bool {
        match self {
            Self::Site => false,
            Self::Process | Self::Container => true,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Site => "static",
            Self::Process => "process",
            Self::Container => "container",
        })
    }
}

/// A folder of files that the edge serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// The folder's content; `None` in a declaration whose content comes by `deploy`.
    pub artifact: Option<ArtifactDigest>,
    /// Where the artifact was fetched from; `None` for one that was given as it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Absolute folder in which the top-level entries of the active deployment are linked.
    pub webroot: Option<String>,
    /// Unknown paths get `index.html`, with status 200.
    pub spa: bool,
}

/// A program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Program and arguments; `${NAME}` not yet replaced. A program with a `/` is absolute here.
    pub command: Vec<Template>,
    /// Absolute; `None`: the instance's own folder, where `files` lie.
    pub workdir: Option<String>,
    pub user: Option<String>,
}

/// Text in which `${NAME}` is replaced for each instance and `$$` is a dollar.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Template(pub String);

#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum TemplateError {
    #[error(
        "`${{{0}}}` is not known here: PORT, HOST, SETPOINT_INSTANCE, SETPOINT and the service's own env are; write $$ for a dollar"
    )]
    UnknownName(String),
    #[error("a `$` that begins no `${{NAME}}`: write $$ for a dollar")]
    LoneDollar,
}

impl Template {
    /// Replaces every `${NAME}` by what `lookup` gives for it.
    pub fn render(&self, lookup: impl Fn(&str) -> Option<String>) -> Result<String, TemplateError> {
        let mut out = String::with_capacity(self.0.len());
        let mut rest = self.0.as_str();
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some((name, after)) = rest.strip_prefix('{').and_then(|r| r.split_once('}')) {
                out.push_str(&lookup(name).ok_or_else(|| TemplateError::UnknownName(name.into()))?);
                rest = after;
            } else {
                return Err(TemplateError::LoneDollar);
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    /// The names between `${` and `}`, in order of appearance.
    pub fn names(&self) -> Result<Vec<String>, TemplateError> {
        let names = std::cell::RefCell::new(Vec::new());
        self.render(|name| {
            names.borrow_mut().push(name.to_owned());
            Some(String::new())
        })?;
        Ok(names.into_inner())
    }
}

/// The name of an environment variable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvKey(String);

impl EnvKey {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EnvKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for EnvKey {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let invalid = |expected| InvalidId { what: "variable name", text: s.into(), expected };
        let head = s.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if !head || s.len() > 255 || !s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(invalid("use letters, digits and _, not beginning with a digit"));
        }
        // The loader runs what these name before the program starts, in whatever the program is.
        if s.starts_with("LD_") || s.starts_with("DYLD_") || s == "GCONV_PATH" || s == "BASH_ENV" {
            return Err(invalid(
                "the loader's own variables are not allowed; start the program by a script that sets them",
            ));
        }
        Ok(Self(s.into()))
    }
}

/// A host with an optional path prefix: `api.localhost`, `demo.localhost/api`. The host is lower-case ASCII
/// without port or trailing dot; the path begins with `/` and has no trailing one, `/` alone for the whole host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain {
    pub host: String,
    pub path: String,
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        if self.path == "/" { Ok(()) } else { f.write_str(&self.path) }
    }
}

impl FromStr for Domain {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidId {
            what: "domain",
            text: s.into(),
            expected: "write a host such as app.example.com, or host/path",
        };
        let (host, path) = match s.find('/') {
            Some(at) => (&s[..at], s[at..].trim_end_matches('/')),
            None => (s, ""),
        };
        let host = host.to_ascii_lowercase();
        let label = |l: &str| {
            (1..=63).contains(&l.len())
                && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !l.starts_with('-')
                && !l.ends_with('-')
        };
        let path_ok = path.split('/').skip(1).all(|c| {
            !c.is_empty()
                && c != "."
                && c != ".."
                && c.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b))
        });
        if host.len() > 253 || !host.split('.').all(label) || !path_ok {
            return Err(invalid());
        }
        Ok(Self { host, path: if path.is_empty() { "/".into() } else { path.into() } })
    }
}

/// Where a workload listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Port {
    /// The node gives one at `Install`; it lasts for the instance's life.
    Dynamic,
    /// This one, on each node that runs an instance: a resource of the planner.
    Fixed(u16),
}

/// How an instance's state is probed. `None`: not probed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Until the first success nothing else is probed; its grace bounds the start.
    pub startup: Option<Probe>,
    /// Whether traffic may go there.
    pub readiness: Option<Probe>,
    /// Whether it must be restarted.
    pub liveness: Option<Probe>,
    /// True when nobody declared it: TCP on the port was assumed, and `plan` says so.
    pub assumed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    pub check: Check,
    /// Between probes once ready; until then every 100 ms.
    pub interval: Millis,
    pub timeout: Millis,
    /// Successes in a row that make it healthy.
    pub rise: u32,
    /// Failures in a row that make it unhealthy.
    pub fall: u32,
    /// After the start, failures do not count until this has passed or a probe has succeeded.
    pub grace: Millis,
}

impl Probe {
    pub const INTERVAL: Millis = Millis::secs(10);
    pub const INTERVAL_UNTIL_READY: Millis = Millis(100);

    pub fn new(check: Check) -> Self {
        Self {
            check,
            interval: Self::INTERVAL,
            timeout: Millis::secs(5),
            rise: 1,
            fall: 3,
            grace: Millis::secs(60),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// GET of this path on the instance's port; 200 to 399 is success.
    Http(String),
    /// The instance's port accepts a connection.
    Tcp,
    /// This command, run in the instance's folder with its env, exits 0.
    Exec(Vec<Template>),
    /// The HEALTHCHECK of a container's image, as its engine judges it: where nobody declared another.
    Image,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestartPolicy {
    pub backoff: Millis,
    pub max_backoff: Millis,
    pub attempts: u32,
    pub window: Millis,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            backoff: Millis::secs(1),
            max_backoff: Millis::secs(60),
            attempts: 5,
            window: Millis::mins(10),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopPolicy {
    /// `None`: of a container, its image says which; else SIGTERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<Signal>,
    /// After it comes SIGKILL.
    pub grace: Millis,
}

impl Default for StopPolicy {
    fn default() -> Self {
        Self { signal: Some(Signal::Term), grace: Millis::secs(10) }
    }
}

/// The signals that ask a program to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signal {
    #[serde(rename = "SIGTERM")]
    Term,
    #[serde(rename = "SIGINT")]
    Int,
    #[serde(rename = "SIGQUIT")]
    Quit,
    #[serde(rename = "SIGHUP")]
    Hup,
    #[serde(rename = "SIGUSR1")]
    Usr1,
    #[serde(rename = "SIGUSR2")]
    Usr2,
    #[serde(rename = "SIGKILL")]
    Kill,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployPolicy {
    pub strategy: Strategy,
    pub order: Order,
    pub parallelism: u32,
    /// How long the whole must hold after the switch before the deployment is active.
    pub min_healthy: Millis,
    /// Time without progress after which a deployment fails.
    pub deadline: Millis,
    pub drain: Millis,
    pub on_failure: OnFailure,
}

impl Default for DeployPolicy {
    fn default() -> Self {
        Self {
            strategy: Strategy::Rolling,
            order: Order::StartFirst,
            parallelism: 1,
            min_healthy: Millis::secs(2),
            deadline: Millis::mins(10),
            drain: Millis::secs(10),
            on_failure: OnFailure::Rollback,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    Rolling,
    Recreate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    StartFirst,
    StopFirst,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// The previous good release comes back whole.
    Rollback,
    /// Everything stays as it was when the deployment failed.
    Pause,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriftPolicy {
    pub mode: DriftMode,
    /// Drift paths, with `*` for any text, that are not reported.
    pub ignore: Vec<String>,
}

impl Default for DriftPolicy {
    fn default() -> Self {
        Self { mode: DriftMode::Correct, ignore: Vec::new() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftMode {
    Correct,
    Warn,
    Off,
}

/// Limits of one instance. `None`: not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    pub memory: Option<Bytes>,
    /// Thousandths of a core: 500 for `cpus: 0.5`.
    pub millicpus: Option<u32>,
    /// Processes and threads of a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
}

impl ServiceSpec {
    pub fn kind(&self) -> Kind {
        self.workload.kind()
    }
}

crate::text::serde_as_text!(Domain, EnvKey);

#[cfg(test)]
mod tests {
    use super::*;

    fn render(text: &str) -> Result<String, TemplateError> {
        Template(text.into()).render(|name| (name == "PORT").then(|| "31001".into()))
    }

    #[test]
    fn templates_replace_names_and_keep_dollars() {
        assert_eq!(render("--port=${PORT}/x"), Ok("--port=31001/x".into()));
        assert_eq!(render("$$5 $${PORT}"), Ok("$5 ${PORT}".into()));
        assert_eq!(render("${NOPE}"), Err(TemplateError::UnknownName("NOPE".into())));
        for lone in ["$", "$PORT", "a${PORT", "$ "] {
            assert_eq!(render(lone), Err(TemplateError::LoneDollar), "{lone}");
        }
    }

    #[test]
    fn domains_are_canonical() {
        let domain = |s: &str| s.parse::<Domain>().map(|d| d.to_string());
        assert_eq!(domain("API.localhost"), Ok("api.localhost".into()));
        assert_eq!(domain("demo.localhost/api/"), Ok("demo.localhost/api".into()));
        for bad in ["", "/", "a:80", "a..b", "a.", "-a", "a b", "a/../b", "a//b", "http://a", "ä.de", "a/%2e"]
        {
            assert!(domain(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_loaders_variables_are_refused() {
        assert!("LOG".parse::<EnvKey>().is_ok());
        for bad in ["", "A=B", "A\0", "1A", "LD_PRELOAD", "LD_LIBRARY_PATH", "A-B"] {
            assert!(bad.parse::<EnvKey>().is_err(), "{bad:?}");
        }
    }
}
