//! The whole: the audit trail, a pass on request, the manifest's schema.

use std::time::Duration;

use axum::{Json, extract::State, http::StatusCode, response::Response};
use decide::{plan::plan_service, world::Cluster};
use model::{ServiceKey, Timestamp};
use serde::Deserialize;
use store::AuditError;

use super::{
    Api,
    access::Allowed,
    once::once,
    problem::Problem,
    services::{standing, standing_drift},
    show,
    take::{Asked, Write},
};
use crate::{
    CollectError, Round,
    views::{self, Time},
};

const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;
/// A pass takes milliseconds; one that does not go through is tried again for longer than anybody waits.
const PASS_WAIT: Duration = Duration::from_secs(5);

#[derive(Debug, Deserialize)]
pub struct AuditAsked {
    #[serde(default)]
    after: u64,
    limit: Option<u32>,
}

pub async fn audit(
    State(api): State<Api>,
    Asked(asked): Asked<AuditAsked>,
) -> Result<Json<views::Audit>, Problem> {
    let limit = asked.limit.unwrap_or(PAGE).min(MAX_PAGE);
    let rows = api.control.store().audit_after(asked.after, limit).await?;
    let audit = rows.into_iter().map(|row| views::AuditRow {
        seq: row.seq,
        at: Time(row.at),
        actor: row.entry.actor,
        action: row.entry.action,
        subject: row.entry.subject,
        detail: row.entry.detail,
        hash: row.hash.to_string(),
    });
    Ok(Json(views::Audit { audit: audit.collect() }))
}

pub async fn verify_audit(State(api): State<Api>) -> Result<Json<views::AuditVerified>, Problem> {
    let verified = match api.control.store().verify_audit().await {
        Ok(rows) => views::AuditVerified {
            intact: true,
            rows,
            message: format!("each of {rows} rows follows the one before"),
        },
        Err(error @ AuditError::ChainBroken { seq, .. }) => {
            views::AuditVerified { intact: false, rows: seq.saturating_sub(1), message: error.to_string() }
        }
        Err(AuditError::Store(error)) => return Err(error.into()),
    };
    Ok(Json(verified))
}

pub async fn reconcile(
    State(api): State<Api>,
    Allowed(permit): Allowed,
    Write(asked, terms): Write<views::Reconcile>,
) -> Result<Response, Problem> {
    once(&api, &permit, &terms, pass(&api, asked)).await
}

async fn pass(api: &Api, asked: views::Reconcile) -> Result<(StatusCode, views::Reconciled), Problem> {
    if let Some(key) = &asked.service {
        standing(api, key)?;
    }
    if asked.dry_run {
        return Ok((StatusCode::OK, dry_run(api, asked.service.as_ref())));
    }
    // A pass looks at everything: it costs nothing for what has not changed.
    let round =
        if api.control.is_leader() { api.control.pass_now(asked.confirm, PASS_WAIT).await } else { None };
    let (message, summary) = match round {
        None => {
            api.control.trigger(asked.confirm);
            ("a pass over everything begins now".into(), None)
        }
        Some(Round { trouble: Some(trouble), tally, .. }) => {
            (format!("the pass was not carried out: {trouble}"), Some(tally))
        }
        Some(Round { trouble: None, tally, .. }) => {
            let stands = match standing_drift(api, asked.service.as_ref()) {
                0 => String::new(),
                1 => "; 1 difference stands, as `setpoint drift` shows".into(),
                count => format!("; {count} differences stand, as `setpoint drift` shows"),
            };
            (format!("a pass went through: {tally}{stands}"), Some(tally))
        }
    };
    let reconciled = views::Reconciled {
        triggered: true,
        message,
        summary: summary.map(show::pass),
        services: Vec::new(),
    };
    Ok((StatusCode::ACCEPTED, reconciled))
}

/// What a pass would do now. Each service is planned by itself, as the loop does it.
fn dry_run(api: &Api, only: Option<&ServiceKey>) -> views::Reconciled {
    let (cluster, worlds): (Cluster, Vec<_>) = api.control.with_brain(|brain| {
        let asked = brain.worlds().filter(|world| only.is_none_or(|key| world.key == *key));
        (brain.snapshot.cluster.clone(), asked.cloned().collect())
    });
    let now: Timestamp = api.control.now();
    let would = worlds.iter().map(|world| {
        let (decision, report) = plan_service(world, &cluster, now);
        views::WouldDo {
            project: world.key.project.clone(),
            name: world.key.name.clone(),
            changes: decision.is_some(),
            steps: show::steps(&report),
        }
    });
    let services: Vec<views::WouldDo> = would.filter(|w| w.changes || !w.steps.is_empty()).collect();
    let changing = services.iter().filter(|would| would.changes).count();
    let message = match changing {
        0 => "a pass would change nothing".into(),
        changing => format!("a pass would change {changing} services"),
    };
    views::Reconciled { triggered: false, message, summary: None, services }
}

pub async fn schema() -> Json<serde_json::Value> {
    Json(model::manifest::schema())
}

impl From<CollectError> for Problem {
    fn from(error: CollectError) -> Self {
        let message = error.to_string();
        match error {
            CollectError::Unknown(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unreadable",
                message,
                "repair or delete what cannot be read, then clean up again",
            ),
            CollectError::Inventory(_) => {
                Self::unavailable("no_engine", message, "start the container engine, then clean up again")
            }
        }
    }
}

pub async fn collect(
    State(api): State<Api>,
    Allowed(permit): Allowed,
    Write(views::Collect { dry_run, volumes }, terms): Write<views::Collect>,
) -> Result<Response, Problem> {
    let asked = model::collect::Asked { dry_run, volumes };
    once(&api, &permit, &terms, collected(&api, asked)).await
}

async fn collected(
    api: &Api,
    asked: model::collect::Asked,
) -> Result<(StatusCode, views::CollectedThings), Problem> {
    let collected = api.control.collect(asked).await?;
    let things = views::CollectedThings {
        dry_run: asked.dry_run,
        bytes: collected.iter().filter(|one| one.kept_because.is_none()).map(|one| one.bytes).sum(),
        things: collected
            .into_iter()
            .map(|one| views::CollectedThing {
                kind: one.kind.word().into(),
                name: one.name,
                bytes: one.bytes,
                kept_because: one.kept_because,
            })
            .collect(),
    };
    Ok((StatusCode::OK, things))
}
