//! Committing a plan: fenced by term and holder, each decision only onto its parent, all or nothing.

use std::sync::Arc;

use model::{
    RouteRevision, ServiceKey,
    plan::{Decision, Plan},
};

use crate::{
    Changed, Store,
    backend::{Tx, args},
    deployment,
    error::{CommitError, Refusal, Version},
    event,
    event::encode,
    intent,
    journal::{self, JournalEntry, Packed},
    meta, release, service,
    service::Floor,
};

/// What a committed plan has become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    pub latest_event: u64,
    /// Sequence of the last journal line written with it, if there was one.
    pub journal: Option<u64>,
}

const UPDATE_PLAN: &str = "UPDATE services SET plan_seq = $2, next_incarnation = $3, plan = $4 \
     WHERE key = $1 AND plan_seq = $5 AND service IS NOT NULL";
const PURGE: &str = "UPDATE services SET service = NULL, plan = NULL WHERE key = $1";

async fn put_all(tx: &mut Tx, plan: &Plan, journal: &[Packed]) -> Result<Committed, CommitError> {
    meta::fence(tx, plan.term, &plan.holder).await?;
    take_generation(tx, plan).await?;
    for decision in &plan.decisions {
        put_decision(tx, decision).await?;
        event::append(tx, plan.at, &decision.events).await?;
    }
    let journal = journal::append(tx, journal).await?;
    meta::note_time(tx, plan.at).await?;
    Ok(Committed { latest_event: meta::counter(tx, "event_seq").await?, journal })
}

async fn take_generation(tx: &mut Tx, plan: &Plan) -> Result<(), CommitError> {
    if let Err(next) = meta::step(tx, "generation", plan.generation.0).await? {
        let next = model::Generation(next);
        return Err(CommitError::StaleGeneration { asked: plan.generation, next });
    }
    let stored = RouteRevision(meta::counter(tx, "route_revision").await?);
    if plan.route_revision < stored {
        return Err(CommitError::StaleRoutes { asked: plan.route_revision, stored });
    }
    meta::raise(tx, "route_revision", plan.route_revision.0).await?;
    Ok(())
}

async fn put_decision(tx: &mut Tx, decision: &Decision) -> Result<(), CommitError> {
    let key = &decision.key;
    let floor = service::floor(tx, key).await?;
    check(decision, &floor)?;
    if let Some(service) = &decision.service {
        intent::put_service(tx, service, &floor).await?;
    }
    let plan = &decision.plan;
    let row = args![key, plan.seq, plan.next_incarnation, encode(plan)?, floor.plan];
    if tx.execute(UPDATE_PLAN, row).await? != 1 {
        return Err(conflict(decision, &service::floor(tx, key).await?));
    }
    deployment::put(tx, key, &decision.deployments).await?;
    if decision.purge {
        purge(tx, key).await?;
    }
    Ok(())
}

fn check(decision: &Decision, floor: &Floor) -> Result<(), CommitError> {
    let Decision { key, parent, plan, service, .. } = decision;
    let refuse = |why| Err(CommitError::Refused { key: key.clone(), why });
    if !floor.exists || (floor.intent, floor.plan) != (parent.intent, parent.plan) {
        return Err(conflict(decision, floor));
    }
    let mut rising = vec![
        ("plan", floor.plan.0, plan.seq.0, plan.seq > floor.plan),
        (
            "next incarnation",
            floor.next_incarnation.0,
            plan.next_incarnation.0,
            plan.next_incarnation >= floor.next_incarnation,
        ),
    ];
    if let Some(service) = service {
        if service.key != *key {
            return refuse(Refusal::OtherService { other: service.key.clone() });
        }
        rising.push(("intent", floor.intent.0, service.intent_seq.0, service.intent_seq >= floor.intent));
        rising.push((
            "generation",
            floor.generation.0,
            service.generation.0,
            service.generation >= floor.generation,
        ));
    }
    match rising.into_iter().find(|(.., rises)| !rises) {
        Some((what, stored, given, _)) => refuse(Refusal::NotRising { what, stored, given }),
        None => Ok(()),
    }
}

fn conflict(decision: &Decision, floor: &Floor) -> CommitError {
    let found = match floor.exists {
        true => Version::Parent(model::plan::Parent { intent: floor.intent, plan: floor.plan }),
        false => Version::Absent,
    };
    CommitError::Conflict { key: decision.key.clone(), expected: Version::Parent(decision.parent), found }
}

/// The record and all that hangs on it goes; the row with its counters stays.
async fn purge(tx: &mut Tx, key: &ServiceKey) -> Result<(), CommitError> {
    deployment::forget_all(tx, key).await?;
    release::forget_all(tx, key).await?;
    tx.execute(PURGE, args![key]).await?;
    Ok(())
}

impl Store {
    /// Writes the whole plan or nothing of it. Its generation is the one after the stored, and every decision
    /// stands on the intent and plan that are stored.
    pub async fn commit_plan(
        &self,
        plan: Arc<Plan>,
        journal: Vec<JournalEntry>,
    ) -> Result<Committed, CommitError> {
        let store = self.clone();
        Self::finish(async move {
            // Compressed before the writer's turn, so that it is held for the write alone.
            let journal = journal::pack(journal)?;
            let mut tx = store.0.backend.write().await?;
            let committed = put_all(&mut tx, &plan, &journal).await?;
            tx.commit().await?;
            store.0.feed.events_until(committed.latest_event);
            let keys: Arc<[ServiceKey]> = plan.decisions.iter().map(|d| d.key.clone()).collect();
            if !keys.is_empty() {
                store.0.feed.changed(Changed::Plans(keys));
            }
            Ok(committed)
        })
        .await
    }
}
