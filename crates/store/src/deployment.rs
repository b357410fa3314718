//! Deployments: their history, and the one way to write them. What must hold between them holds in every
//! transaction: phases move by `model::deployment::next` only, one is open and one active at most, numbers are
//! never reused.

use model::{
    DeploymentId, ReleaseDigest, ServiceKey,
    deployment::{self, Cause, Deployment, Phase},
};

use crate::{
    Store,
    backend::{Row, Tx, args},
    error::{CommitError, Refusal, StoreError},
    event::encode,
    release,
};

const READ: &str = "SELECT content FROM deployments WHERE id = $1";
const HISTORY: &str = "SELECT content FROM deployments WHERE service = $1 ORDER BY number DESC LIMIT $2";
const STORED: &str = "SELECT service, number, release, phase FROM deployments WHERE id = $1";
const OTHER: &str = "SELECT id FROM deployments WHERE service = $1 AND standing = $2 AND id <> $3";
const OPEN: &str = "SELECT id FROM deployments WHERE service = $1 AND standing = 'open'";
const INSERT: &str = "INSERT INTO deployments (id, service, number, release, phase, standing, was_active, intended, content) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
/// Compare-and-swap on the phase.
const UPDATE: &str = "UPDATE deployments SET phase = $2, standing = $3, was_active = $4, content = $5 \
     WHERE id = $1 AND phase = $6";
const NEXT_NUMBER: &str = "SELECT next_deployment FROM services WHERE key = $1";
const TAKE_NUMBER: &str =
    "UPDATE services SET next_deployment = $2 + 1 WHERE key = $1 AND next_deployment <= $2";
const FORGET: &str = "DELETE FROM deployments WHERE service = $1 AND number = $2";
const FORGET_ALL: &str = "DELETE FROM deployments WHERE service = $1";

/// What the unique indexes watch over. Ordered as they must be written: what gives up a place comes before what
/// takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Ended,
    Active,
    Open,
}

impl Standing {
    fn of(phase: Phase) -> Self {
        match phase {
            Phase::Active => Self::Active,
            open if open.is_open() => Self::Open,
            _ => Self::Ended,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Active => "active",
            Self::Open => "open",
        }
    }
}

/// A deployment as far as its next write must agree with it.
struct Before {
    service: ServiceKey,
    number: u64,
    release: ReleaseDigest,
    phase: Phase,
}

impl Before {
    fn read(mut row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            service: row.parse("the service of a deployment")?,
            number: row.int()?,
            release: row.parse("the release of a deployment")?,
            phase: phase(&row.text()?)?,
        })
    }
}

fn phase(word: &str) -> Result<Phase, StoreError> {
    serde_json::from_value(word.into())
        .map_err(|error| StoreError::damaged("the phase of a deployment", &error))
}

/// Whether one event leads from one phase to the other; staying is no step.
fn may_become(from: Phase, to: Phase) -> bool {
    use deployment::Event;
    let event = match to {
        Phase::Active => Event::Succeeded,
        Phase::Failed => Event::Failed,
        Phase::Cancelled => Event::Cancelled,
        Phase::Superseded => Event::Superseded,
        Phase::RolledBack => Event::RolledBack,
        open => Event::Reached(open),
    };
    from == to || deployment::next(from, event).is_ok()
}

fn was_active(phase: Phase) -> u64 {
    u64::from(matches!(phase, Phase::Active | Phase::Superseded | Phase::RolledBack))
}

/// Writes whole deployments of one service, new or advanced.
pub(crate) async fn put(
    tx: &mut Tx,
    key: &ServiceKey,
    deployments: &[Deployment],
) -> Result<(), CommitError> {
    let mut ordered: Vec<&Deployment> = deployments.iter().collect();
    ordered.sort_by_key(|d| (Standing::of(d.phase), d.number));
    for deployment in ordered {
        put_one(tx, key, deployment).await.map_err(|error| match error {
            Stop::Refusal(why) => CommitError::Refused { key: key.clone(), why },
            Stop::Commit(error) => error,
        })?;
    }
    Ok(())
}

enum Stop {
    Refusal(Refusal),
    Commit(CommitError),
}

impl<E: Into<CommitError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Commit(error.into())
    }
}

async fn put_one(tx: &mut Tx, key: &ServiceKey, deployment: &Deployment) -> Result<(), Stop> {
    if deployment.service != *key {
        return Err(Stop::Refusal(Refusal::OtherService { other: deployment.service.clone() }));
    }
    refuse_second(tx, key, deployment).await?;
    match tx.one(STORED, args![&deployment.id]).await? {
        None => insert(tx, key, deployment).await,
        Some(row) => update(tx, &Before::read(row)?, deployment).await,
    }
}

/// The unique indexes would refuse it too, but name nobody.
async fn refuse_second(tx: &mut Tx, key: &ServiceKey, deployment: &Deployment) -> Result<(), Stop> {
    let standing = Standing::of(deployment.phase);
    if standing == Standing::Ended {
        return Ok(());
    }
    match tx.one(OTHER, args![key, standing.word(), &deployment.id]).await? {
        None => Ok(()),
        Some(mut row) => Err(Stop::Refusal(Refusal::SecondDeployment {
            deployment: deployment.id.clone(),
            other: row.parse("the id of a deployment")?,
            phase: standing.word(),
        })),
    }
}

async fn insert(tx: &mut Tx, key: &ServiceKey, new: &Deployment) -> Result<(), Stop> {
    if tx.execute(TAKE_NUMBER, args![key, new.number]).await? == 0 {
        let next = tx.one(NEXT_NUMBER, args![key]).await?.map_or(Ok(1), |mut row| row.int())?;
        let (deployment, given) = (new.id.clone(), new.number);
        return Err(Stop::Refusal(Refusal::NumberReused { deployment, given, next }));
    }
    if new.phase.is_open() {
        release::require(tx, key, new.release).await?;
    }
    let (phase, standing) = (new.phase.to_string(), Standing::of(new.phase).word());
    let (was_active, intended) = (was_active(new.phase), u64::from(new.cause != Cause::Restore));
    let (number, content) = (new.number, encode(new)?);
    let row = args![&new.id, key, number, &new.release, phase, standing, was_active, intended, content];
    tx.execute(INSERT, row).await?;
    Ok(())
}

async fn update(tx: &mut Tx, before: &Before, after: &Deployment) -> Result<(), Stop> {
    let deployment = || after.id.clone();
    let changed = [
        ("service", before.service != after.service),
        ("number", before.number != after.number),
        ("release", before.release != after.release),
    ];
    if let Some((what, _)) = changed.into_iter().find(|(_, changed)| *changed) {
        return Err(Stop::Refusal(Refusal::Immutable { deployment: deployment(), what }));
    }
    let illegal = || {
        Stop::Refusal(Refusal::IllegalPhase { deployment: deployment(), from: before.phase, to: after.phase })
    };
    if !may_become(before.phase, after.phase) {
        return Err(illegal());
    }
    let (phase, standing) = (after.phase.to_string(), Standing::of(after.phase).word());
    let row =
        args![&after.id, phase, standing, was_active(after.phase), encode(after)?, before.phase.to_string()];
    if tx.execute(UPDATE, row).await? == 1 { Ok(()) } else { Err(illegal()) }
}

/// Forgets the history of a purged service, in which nothing may be open.
pub(crate) async fn forget_all(tx: &mut Tx, key: &ServiceKey) -> Result<(), CommitError> {
    if let Some(mut row) = tx.one(OPEN, args![key]).await? {
        let deployment = row.parse("the id of a deployment")?;
        return Err(CommitError::Refused { key: key.clone(), why: Refusal::PurgedWhileOpen { deployment } });
    }
    tx.execute(FORGET_ALL, args![key]).await?;
    Ok(())
}

pub(crate) async fn forget(tx: &mut Tx, key: &ServiceKey, number: u64) -> Result<u64, StoreError> {
    tx.execute(FORGET, args![key, number]).await
}

impl Store {
    /// At most `limit` deployments of a service, newest first.
    pub async fn deployments(&self, key: &ServiceKey, limit: u32) -> Result<Vec<Deployment>, StoreError> {
        let mut tx = self.0.backend.read().await?;
        let rows = tx.all(HISTORY, args![key, u64::from(limit)]).await?;
        rows.into_iter().map(|mut row| row.json("a deployment")).collect()
    }

    pub async fn deployment(&self, id: &DeploymentId) -> Result<Option<Deployment>, StoreError> {
        let mut tx = self.0.backend.read().await?;
        tx.one(READ, args![id]).await?.map(|mut row| row.json("a deployment")).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_has_its_word_in_the_store() {
        for phase_of in Phase::ALL {
            assert_eq!(phase(&phase_of.to_string()).unwrap(), phase_of);
        }
    }

    #[test]
    fn an_outcome_is_left_only_from_active() {
        for from in Phase::ALL.into_iter().filter(|phase| phase.is_ended()) {
            for to in Phase::ALL.into_iter().filter(|to| *to != from) {
                let may = from == Phase::Active && matches!(to, Phase::Superseded | Phase::RolledBack);
                assert_eq!(may_become(from, to), may, "{from} → {to}");
            }
        }
    }
}
