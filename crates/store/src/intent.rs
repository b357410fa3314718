//! Recorded intents: what the API changes, with its events, its audit rows and the answer to repeat, all or
//! nothing.

use std::sync::Arc;

use model::{
    Holder, IntentSeq, ServiceKey, Term, Timestamp,
    deployment::Deployment,
    event::Event,
    plan::{Rollout, ServicePlan},
    release::Release,
    service::Service,
};

use crate::{
    Changed, Store, audit,
    audit::AuditEntry,
    backend::{Tx, args},
    deployment,
    error::{CommitError, Refusal, StoreError, Version},
    event,
    event::encode,
    idempotency,
    idempotency::{Idempotency, Stored},
    meta, release, service,
    service::Floor,
};

/// One mutation of one or several services.
#[derive(Debug, Clone)]
pub struct IntentCommit {
    pub at: Timestamp,
    pub services: Vec<ServiceIntent>,
    pub events: Vec<Event>,
    pub audit: Vec<AuditEntry>,
    pub idempotency: Option<Idempotency>,
}

/// What becomes of one service.
#[derive(Debug, Clone)]
pub struct ServiceIntent {
    pub expected: Expected,
    /// The whole new record; its `intent_seq` is higher than every earlier one of this name, see [`Store::floor`].
    pub service: Service,
    /// Releases that it refers to and that may not be stored yet.
    pub releases: Vec<Release>,
    /// New or changed deployments, whole.
    pub deployments: Vec<Deployment>,
}

/// What the caller saw when it made up its mind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    Absent,
    Intent(IntentSeq),
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum IntentOutcome {
    /// Durable.
    Committed { latest_event: u64 },
    /// The idempotency key has been used: nothing was written, and this was the answer.
    Replayed(Stored),
}

const INSERT: &str = "INSERT INTO services \
     (key, intent_seq, generation, plan_seq, next_incarnation, next_deployment, service, plan) \
     VALUES ($1, $2, $3, 0, 0, 1, $4, $5) ON CONFLICT (key) DO NOTHING";
const REVIVE: &str = "UPDATE services SET intent_seq = $2, generation = $3, service = $4, plan = $5 \
     WHERE key = $1 AND intent_seq = $6 AND service IS NULL";
const UPDATE: &str = "UPDATE services SET intent_seq = $2, generation = $3, service = $4 \
     WHERE key = $1 AND intent_seq = $5 AND service IS NOT NULL";

async fn put_intent(tx: &mut Tx, intent: &ServiceIntent) -> Result<(), CommitError> {
    let key = &intent.service.key;
    let floor = service::floor(tx, key).await?;
    check_expected(key, intent.expected, &floor)?;
    check_rising(&intent.service, &floor)?;
    for release in &intent.releases {
        release::put(tx, key, release).await?;
    }
    put_service(tx, &intent.service, &floor).await?;
    deployment::put(tx, key, &intent.deployments).await
}

fn check_expected(key: &ServiceKey, expected: Expected, floor: &Floor) -> Result<(), CommitError> {
    let expected = match expected {
        Expected::Absent => Version::Absent,
        Expected::Intent(seq) => Version::Intent(seq),
    };
    let found = found(floor);
    if expected == found { Ok(()) } else { Err(CommitError::Conflict { key: key.clone(), expected, found }) }
}

fn found(floor: &Floor) -> Version {
    if floor.exists { Version::Intent(floor.intent) } else { Version::Absent }
}

fn check_rising(service: &Service, floor: &Floor) -> Result<(), CommitError> {
    let refuse = |what, stored, given| {
        let why = Refusal::NotRising { what, stored, given };
        Err(CommitError::Refused { key: service.key.clone(), why })
    };
    if service.intent_seq <= floor.intent {
        return refuse("intent", floor.intent.0, service.intent_seq.0);
    }
    if service.generation < floor.generation {
        return refuse("generation", floor.generation.0, service.generation.0);
    }
    Ok(())
}

/// Writes the record where its floor still is what was read: within one transaction always on SQLite, and where
/// writers run side by side only if none of them was faster.
pub(crate) async fn put_service(tx: &mut Tx, service: &Service, floor: &Floor) -> Result<(), CommitError> {
    let Service { key, intent_seq, generation, .. } = service;
    if let Some(target) = service.target {
        release::require(tx, key, target).await?;
    }
    let record = encode(service)?;
    let written = if floor.exists {
        tx.execute(UPDATE, args![key, *intent_seq, *generation, record, floor.intent]).await?
    } else if *floor == Floor::default() {
        tx.execute(INSERT, args![key, *intent_seq, *generation, record, first_plan(floor)?]).await?
    } else {
        tx.execute(REVIVE, args![key, *intent_seq, *generation, record, first_plan(floor)?, floor.intent])
            .await?
    };
    match written {
        1 => Ok(()),
        _ => {
            let (expected, found) = (found(floor), found(&service::floor(tx, key).await?));
            Err(CommitError::Conflict { key: key.clone(), expected, found })
        }
    }
}

/// The empty plan of a new service, which goes on with the counters of a purged one of its name.
fn first_plan(floor: &Floor) -> Result<String, StoreError> {
    let Floor { plan: seq, next_incarnation, .. } = *floor;
    encode(&ServicePlan { seq, next_incarnation, rollout: Rollout::default(), ..ServicePlan::default() })
}

async fn put_all(
    tx: &mut Tx,
    fence: Option<&(Term, Holder)>,
    commit: &IntentCommit,
) -> Result<IntentOutcome, CommitError> {
    if let Some((term, holder)) = fence {
        meta::fence(tx, *term, holder).await?;
    }
    if let Some(answer) = &commit.idempotency {
        if let Some(stored) = idempotency::find(tx, &answer.scope, &answer.key).await? {
            return Ok(IntentOutcome::Replayed(stored));
        }
        idempotency::keep(tx, commit.at, answer).await?;
    }
    for intent in &commit.services {
        put_intent(tx, intent).await?;
    }
    audit::append(tx, commit.at, &commit.audit).await?;
    event::append(tx, commit.at, &commit.events).await?;
    meta::note_time(tx, commit.at).await?;
    Ok(IntentOutcome::Committed { latest_event: meta::counter(tx, "event_seq").await? })
}

impl Store {
    /// Writes the whole mutation or nothing of it. With a fence, only while that holder has that term.
    pub async fn commit_intents(
        &self,
        fence: Option<(Term, Holder)>,
        commit: IntentCommit,
    ) -> Result<IntentOutcome, CommitError> {
        let store = self.clone();
        Self::finish(async move {
            let mut tx = store.0.backend.write().await?;
            let outcome = put_all(&mut tx, fence.as_ref(), &commit).await?;
            if let IntentOutcome::Committed { latest_event } = outcome {
                tx.commit().await?;
                store.0.feed.events_until(latest_event);
                let keys: Arc<[ServiceKey]> = commit.services.into_iter().map(|i| i.service.key).collect();
                if !keys.is_empty() {
                    store.0.feed.changed(Changed::Intents(keys));
                }
            }
            Ok(outcome)
        })
        .await
    }
}
