//! What the HTTP interface says and takes, as JSON. The server writes these types and the CLI reads the same ones.
//!
//! Owns: names and shapes that scripts rely on. Refuses to know: where the values come from. Readers pass over fields
//! that they do not know, so that an older command reads a newer server; requests refuse them.

use std::{collections::BTreeMap, fmt};

use model::{
    ArtifactDigest, DeploymentId, InstanceId, NodeId, ProjectName, ReleaseDigest, ServiceName, Timestamp,
    TokenName,
    access::Role,
    deployment::Phase,
    spec::Kind,
    status::{ServiceHealth, ServiceState},
};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

mod asked;
mod monitoring;

pub use self::{asked::*, monitoring::*};
pub use crate::intents::{Applied, AppliedService, Declared, Planned};

/// A point in time; RFC 3339 in UTC with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(transparent)]
pub struct Time(#[schemars(with = "String")] pub Timestamp);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let at: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        let ms = u64::try_from(at.as_millisecond()).map_err(serde::de::Error::custom)?;
        Ok(Self(Timestamp(ms)))
    }
}

/// `GET /services`, and with one service `GET /services/{project}/{name}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Services {
    pub services: Vec<Service>,
    /// How the projects of these services are, each with all that it has.
    #[serde(default)]
    pub projects: Vec<Project>,
}

/// A project is as well as the worst of its services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Project {
    pub name: ProjectName,
    /// `healthy`, `degraded`, `unhealthy`, `stopped` or `unknown`.
    #[schemars(with = "String")]
    pub health: ServiceHealth,
    /// About the worst of its services; empty where nobody has to look.
    pub message: String,
    pub services: u64,
    pub healthy: u64,
    pub degraded: u64,
    pub unhealthy: u64,
    pub stopped: u64,
    pub unknown: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Service {
    pub project: ProjectName,
    pub name: ServiceName,
    /// `static` or `process`; null while the declaration cannot be read.
    #[schemars(with = "Option<String>")]
    pub kind: Option<Kind>,
    /// `converged`, `progressing`, `degraded`, `failed`, `stopped` or `unknown`.
    #[schemars(with = "String")]
    pub state: ServiceState,
    pub message: String,
    /// Grows with each change of the declaration.
    pub generation: u64,
    /// Grows with each write, also one that leaves the declaration as it is; the number in the `ETag`.
    #[serde(default)]
    pub revision: u64,
    pub replicas: Replicas,
    /// The open deployment, else the active one, else the latest.
    pub deployment: Option<DeploymentBrief>,
    pub urls: Vec<String>,
    pub instances: Vec<Instance>,
    /// Kept on the disk for a rollback; they do not serve.
    #[serde(default)]
    pub kept: Vec<Instance>,
    /// Who may change the declaration: `api`, a repository, a control plane.
    #[serde(default)]
    pub owner: String,
    /// Set while `scale` owns the number of replicas.
    #[serde(default)]
    pub scale: Option<u32>,
    /// Instances that are restarted too often, what differs and is left so, and those that run without what was
    /// declared; a sentence each.
    #[serde(default)]
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Replicas {
    pub desired: u32,
    pub ready: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeploymentBrief {
    pub id: DeploymentId,
    pub number: u64,
    #[schemars(with = "String")]
    pub phase: Phase,
    /// Percent.
    pub progress: u8,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Instance {
    #[schemars(with = "String")]
    pub id: InstanceId,
    pub ordinal: u32,
    pub node: NodeId,
    /// `pending`, `installing`, `starting`, `running`, `backing_off`, `failed`, `retiring`, `stopping`, `kept` or
    /// `unknown`.
    pub state: String,
    pub ready: bool,
    pub pid: Option<u32>,
    /// `host:port` where it listens.
    pub address: Option<String>,
    pub deployment: Option<DeploymentId>,
    pub restarts: u64,
    #[schemars(with = "String")]
    pub release: ReleaseDigest,
    #[serde(default)]
    pub message: String,
    /// Of a site: whether it is what `current` shows. Absent for what runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<bool>,
    /// For a site: the folder with its files.
    #[serde(default)]
    pub folder: Option<String>,
    #[serde(default)]
    pub started_at: Option<Time>,
    /// How the last run ended, in words.
    #[serde(default)]
    pub last_exit: Option<String>,
}

/// `GET /services/{project}/{name}/spec`: the declaration itself, env values included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Spec {
    pub project: ProjectName,
    pub name: ServiceName,
    pub generation: u64,
    /// The number in the `ETag`.
    #[serde(default)]
    pub revision: u64,
    #[schemars(with = "serde_json::Value")]
    pub spec: model::spec::ServiceSpec,
}

/// `GET /services/{project}/{name}/deployments`, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Deployments {
    pub deployments: Vec<Deployment>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Deployment {
    pub id: DeploymentId,
    pub project: ProjectName,
    pub service: ServiceName,
    pub number: u64,
    /// `queued`, `building`, `active`, `failed`, `cancelled`, `superseded` or `rolled_back`.
    pub status: String,
    #[schemars(with = "String")]
    pub phase: Phase,
    pub progress: u8,
    /// `apply`, `deploy`, `rollback` or `git`.
    pub cause: String,
    #[schemars(with = "String")]
    pub release: ReleaseDigest,
    pub started_at: Time,
    pub phase_updated_at: Time,
    pub ended_at: Option<Time>,
    pub message: String,
    pub metadata: BTreeMap<String, serde_json::Value>,
}

/// `GET /events`, oldest first; as server-sent events one `Event` each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Events {
    pub events: Vec<Event>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    pub seq: u64,
    pub at: Time,
    /// Such as `deployment.active`.
    pub kind: String,
    pub project: Option<ProjectName>,
    pub service: Option<ServiceName>,
    #[schemars(with = "Option<String>")]
    pub instance: Option<InstanceId>,
    pub deployment: Option<DeploymentId>,
    pub message: String,
}

/// `GET …/explain`: why something is as it is. The sentences are those that the planner stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// A service, an instance or a deployment, by its id.
    pub subject: String,
    /// Its state and why, in one sentence.
    pub summary: String,
    /// When the reasons were found; null before the first pass.
    pub at: Option<Time>,
    /// What each step of the last pass decided, in order; steps with nothing to say are left out.
    pub steps: Vec<Step>,
    /// Until then the next pass decides the same, unless something changes; null: until something changes.
    pub holds_until: Option<Time>,
    /// Recorded passes that say something about it, newest first.
    pub journal: Vec<JournalLine>,
    /// The last lines of what keeps dying, or died as it failed.
    #[serde(default)]
    pub output: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    pub step: String,
    pub changed: Vec<String>,
    pub waiting: Vec<String>,
}

/// One recorded pass over a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JournalLine {
    pub seq: u64,
    pub at: Time,
    /// Whether something was decided, or only waited for.
    pub decided: bool,
    pub steps: Vec<Step>,
}

/// `GET /journal/{seq}`; with `replay=true` also what the planner decides today from the recorded world.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Journal {
    pub seq: u64,
    pub at: Time,
    pub project: ProjectName,
    pub service: ServiceName,
    pub steps: Vec<Step>,
    pub holds_until: Option<Time>,
    /// What was decided, as recorded; a changed declaration is named without its content.
    pub decision: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Replay {
    /// Byte for byte what was recorded: the decision and the reasons.
    pub identical: bool,
    pub message: String,
    pub steps: Vec<Step>,
    pub decision: Option<serde_json::Value>,
}

/// `GET /drift`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Drifts {
    pub drift: Vec<Drift>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Drift {
    pub project: ProjectName,
    pub service: ServiceName,
    #[schemars(with = "String")]
    pub instance: InstanceId,
    pub path: String,
    /// Null: it should not be there.
    pub declared: Option<String>,
    /// Null: it is not there.
    pub observed: Option<String>,
    pub since: Time,
    pub by: Option<String>,
    /// Why it cannot be put back, where that is known.
    pub stuck: Option<String>,
}

/// `POST /artifacts`, `GET /artifacts/{digest}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Artifact {
    #[schemars(with = "String")]
    pub digest: ArtifactDigest,
    pub files: u64,
    /// Unpacked.
    pub bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Nodes {
    pub nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Node {
    pub id: NodeId,
    /// `up`, `draining`, `silent` or `lost`.
    pub state: String,
    /// Of its last observation; null before the first.
    pub observed_at: Option<Time>,
    /// Whether it has looked at everything since it started.
    pub complete: bool,
    /// Instances placed there.
    pub instances: u32,
    /// What was found there and belongs to nobody.
    pub strangers: Vec<Stranger>,
    /// Why it does not take what it is assigned; null when it does.
    #[serde(default)]
    pub refuses: Option<String>,
    /// Why its container engine does not answer; null when it does, or when it has none.
    #[serde(default)]
    pub engine_away: Option<String>,
    #[serde(default)]
    pub engine_away_since: Option<Time>,
    /// Set while it is being drained.
    #[serde(default)]
    pub draining_since: Option<Time>,
    #[serde(default)]
    pub drained_by: Option<String>,
    /// While it is being drained: what is still there, and why.
    #[serde(default)]
    pub remaining: Vec<Remaining>,
}

/// An instance at a node that is being drained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Remaining {
    #[schemars(with = "String")]
    pub instance: InstanceId,
    /// Whether another node takes it; if not, it stays.
    pub moves: bool,
    pub message: String,
}

/// `GET /tokens`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Tokens {
    pub tokens: Vec<Token>,
}

/// What a token grants; never the token itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    pub name: TokenName,
    pub role: Role,
    /// One project alone; null: the whole cluster.
    pub project: Option<ProjectName>,
    pub created_at: Time,
    pub created_by: String,
    pub expires_at: Option<Time>,
    pub expired: bool,
}

/// The one time that a token is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CreatedToken {
    pub token: String,
    #[serde(flatten)]
    pub grant: Token,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stranger {
    pub what: String,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Audit {
    pub audit: Vec<AuditRow>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AuditRow {
    pub seq: u64,
    pub at: Time,
    pub actor: String,
    pub action: String,
    pub subject: String,
    pub detail: serde_json::Value,
    pub hash: String,
}

/// `GET /audit/verify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditVerified {
    pub intact: bool,
    /// Rows that follow one from the other, from the first on.
    pub rows: u64,
    pub message: String,
}

/// Answer of `POST /plan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Plans {
    pub services: Vec<Planned>,
}

/// Answer of `POST /reconcile`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reconciled {
    /// False for a dry run.
    pub triggered: bool,
    pub message: String,
    /// What the pass came to, with what has happened since the one before; null for a dry run, and where the pass has
    /// not gone through yet.
    #[serde(default)]
    pub summary: Option<PassSummary>,
    /// For a dry run: what a pass would do now, service by service.
    #[serde(default)]
    pub services: Vec<WouldDo>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PassSummary {
    /// Services that were looked at.
    pub checked: u64,
    /// Differences found.
    pub drift: u64,
    /// Differences that are no longer there.
    pub repaired: u64,
    pub restarted: u64,
    /// Instances that are gone, confirmed by their nodes.
    pub removed: u64,
    /// Services not looked at, because nothing of them had changed, or because they cannot be read.
    pub skipped: u64,
    /// Deployments and instances that failed, and passes that were not carried out.
    pub failed: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WouldDo {
    pub project: ProjectName,
    pub name: ServiceName,
    pub changes: bool,
    pub steps: Vec<Step>,
}

/// RFC 9457, with what a script and a person need besides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// A relative reference to the page about `code`.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    /// A stable word.
    pub code: String,
    /// Where in the request, if it is one place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The same as `detail`.
    pub message: String,
    /// What to do next.
    #[serde(default)]
    pub help: String,
    /// Every fault, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Fault>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fault {
    /// Of which service, where it is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub service: Option<model::ServiceKey>,
    pub code: String,
    pub field: Option<String>,
    pub message: String,
    pub help: Option<String>,
}

/// `GET /stats`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Usages {
    pub usage: Vec<Usage>,
}

/// What a running instance uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    #[schemars(with = "String")]
    pub instance: InstanceId,
    pub project: ProjectName,
    pub service: ServiceName,
    /// Processors kept busy: 0.25 is a quarter of one.
    pub cpus: f64,
    /// Bytes in memory: of containers without cached files, of processes what is resident.
    pub memory: u64,
    /// Bytes, where a limit is declared.
    pub memory_limit: Option<u64>,
    pub processes: u64,
}

/// How a command that was run inside an instance ended; the last message about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExecEnded {
    /// Its exit status; 128 and the number of the signal where one ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// Why it was not run, or what is not known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CollectedThings {
    pub dry_run: bool,
    /// Of all that went, or would go. Layers that images share are counted with each.
    pub bytes: u64,
    pub things: Vec<CollectedThing>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CollectedThing {
    /// `image`, `network` or `volume`.
    pub kind: String,
    pub name: String,
    pub bytes: u64,
    /// Why it is still there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_because: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_survives_its_text_form() {
        let time = Time(Timestamp(1_795_253_400_250));
        let text = serde_json::to_string(&time).unwrap();
        assert_eq!(text, "\"2026-11-21T09:30:00.250Z\"");
        assert_eq!(serde_json::from_str::<Time>(&text).unwrap(), time);
        assert!(serde_json::from_str::<Time>("\"yesterday\"").is_err());
    }
}
