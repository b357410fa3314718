//! What can go wrong with the store, whose fault it is and whether trying again helps.

use std::path::PathBuf;

use model::{
    ArtifactDigest, DeploymentId, Generation, Holder, IntentSeq, ReleaseDigest, RouteRevision, ServiceKey,
    Term, deployment::Phase, plan::Parent,
};

/// Any operation. None of these says that a record is absent.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error(
        "no space is left for the store ({cause}): nothing was written; free space in the data folder and try again"
    )]
    Full { cause: String },
    #[error("the store is busy ({cause}): try again")]
    Busy { cause: String },
    #[error("the store holds something that cannot be read: {subject}: {cause}")]
    Unreadable { subject: String, cause: String },
    #[error("the store failed ({cause}): check the disk of the data folder")]
    Failed { cause: String },
}

impl StoreError {
    /// Whether the same call may succeed later without anybody repairing the store.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Full { .. } | Self::Busy { .. } => true,
            Self::Unreadable { .. } | Self::Failed { .. } => false,
        }
    }

    /// Whether space is what lacks: the API answers 507.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    pub(crate) fn unreadable(subject: impl Into<String>, cause: impl ToString) -> Self {
        Self::Unreadable { subject: subject.into(), cause: cause.to_string() }
    }

    /// Says where JSON is damaged, not what stands there: serde_json quotes values, and one may be a secret.
    pub(crate) fn damaged(subject: impl Into<String>, error: &serde_json::Error) -> Self {
        use serde_json::error::Category;
        let cause = match error.classify() {
            Category::Eof => "its JSON ends too early",
            Category::Syntax => "it is not JSON",
            Category::Data => "it is JSON of something else, or of another version",
            Category::Io => "it could not be read",
        };
        Self::unreadable(subject, format!("{cause} (line {}, column {})", error.line(), error.column()))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "{} was written by a newer Setpoint (schema {found}, this one knows {known}): start that version, or restore a backup made by this one",
        .path.display()
    )]
    TooNew { path: PathBuf, found: u64, known: u64 },
    #[error("{} is on a network filesystem ({kind}), where its locks do not hold: choose a folder on a local disk with --data", .path.display())]
    NetworkFilesystem { path: PathBuf, kind: &'static str },
    #[error("cannot open the store {}: {source}. Check that the folder exists and that this user may write to it", .path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("cannot open the store {}: {source}", .path.display())]
    Store { path: PathBuf, source: StoreError },
}

impl OpenError {
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Store { source, .. } => source.is_retryable(),
            Self::TooNew { .. } | Self::NetworkFilesystem { .. } | Self::Io { .. } => false,
        }
    }
}

/// Why a commit wrote nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    #[error("term {} of {} is over: {}", .asked.0, .asked.1, held_by(.held))]
    StaleTerm { asked: (Term, Holder), held: Option<(Term, Holder)> },
    #[error("{key} has moved: expected {expected}, found {found}; read it again and decide anew")]
    Conflict { key: ServiceKey, expected: Version, found: Version },
    #[error("the plan is for generation {asked}, but the next one is {next}: plan again")]
    StaleGeneration { asked: Generation, next: Generation },
    #[error("the plan's route revision {asked} is older than the stored {stored}: plan again")]
    StaleRoutes { asked: RouteRevision, stored: RouteRevision },
    #[error("{key} was not written: {why}")]
    Refused { key: ServiceKey, why: Refusal },
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn held_by(held: &Option<(Term, Holder)>) -> String {
    match held {
        Some((term, holder)) => format!("{holder} holds term {term}"),
        None => "no term has begun".into(),
    }
}

impl CommitError {
    /// Whether the same commit, unchanged, may succeed later. A conflict needs a new decision instead.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::StaleTerm { .. }
            | Self::Conflict { .. }
            | Self::StaleGeneration { .. }
            | Self::StaleRoutes { .. }
            | Self::Refused { .. } => false,
        }
    }

    pub fn is_full(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_full())
    }
}

/// What a commit expected of a service, or found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Absent,
    Intent(IntentSeq),
    Parent(Parent),
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent => f.write_str("no such service"),
            Self::Intent(intent) => write!(f, "intent {intent}"),
            Self::Parent(Parent { intent, plan }) => write!(f, "intent {intent} and plan {plan}"),
        }
    }
}

/// A write that no order of events could make right: the caller's mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("its {what} would go from {stored} to {given}, but it only rises")]
    NotRising { what: &'static str, stored: u64, given: u64 },
    #[error("it is about another service, {other}")]
    OtherService { other: ServiceKey },
    #[error("deployment {deployment} is {from} and cannot become {to}")]
    IllegalPhase { deployment: DeploymentId, from: Phase, to: Phase },
    #[error("deployment {deployment} is {phase}, and so would be {other}: a service has one such at most")]
    SecondDeployment { deployment: DeploymentId, other: DeploymentId, phase: &'static str },
    #[error("deployment {deployment} has number {given}, but the next is {next}: numbers are never reused")]
    NumberReused { deployment: DeploymentId, given: u64, next: u64 },
    #[error("deployment {deployment} would change its {what}")]
    Immutable { deployment: DeploymentId, what: &'static str },
    #[error("release {} is not stored", .release.short())]
    MissingRelease { release: ReleaseDigest },
    #[error("artifact {} is not stored: upload it first", .artifact.short())]
    MissingArtifact { artifact: ArtifactDigest },
    #[error("deployment {deployment} is still open, so the service cannot be purged")]
    PurgedWhileOpen { deployment: DeploymentId },
}
