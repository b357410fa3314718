//! Reading services: status, one service, its declaration, its deployments, its drift.

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use decide::{access::Permit, intent::Refused, monitor, world::World};
use model::{IntentSeq, ServiceKey, Timestamp};
use serde::Deserialize;
use std::sync::Arc;

use super::{
    Api,
    access::Allowed,
    problem::Problem,
    show,
    take::{Asked, Key, OfDeployment},
};
use crate::{RequestError, views};

/// Deployments told of at most.
const HISTORY: u32 = 200;

pub async fn list(State(api): State<Api>, Allowed(permit): Allowed) -> Json<views::Services> {
    let edge = api.control.edge_address();
    let worlds: Vec<Arc<World>> = api.control.with_brain(|brain| brain.worlds().cloned().collect());
    let now = api.control.now();
    let shown = || worlds.iter().filter(|world| is_shown(world) && permit.sees(Some(&world.key.project)));
    let services = shown().map(|world| show::service(world, edge, now)).collect();
    Json(views::Services { services, projects: projects(shown(), now) })
}

fn projects<'a>(worlds: impl Iterator<Item = &'a Arc<World>>, now: Timestamp) -> Vec<views::Project> {
    let checkups: Vec<_> = worlds.map(|world| (&world.key, monitor::check(world, now))).collect();
    show::projects(checkups.iter().map(|(key, checkup)| (*key, checkup)))
}

pub async fn one(State(api): State<Api>, Key(key): Key) -> Result<Response, Problem> {
    let world = standing(&api, &key)?;
    let now = api.control.now();
    let shown = show::service(&world, api.control.edge_address(), now);
    let etag = etag(IntentSeq(shown.revision));
    let of_project = |other: &&Arc<World>| other.key.project == key.project && is_shown(other);
    let worlds: Vec<Arc<World>> =
        api.control.with_brain(|brain| brain.worlds().filter(of_project).cloned().collect());
    let services = views::Services { services: vec![shown], projects: projects(worlds.iter(), now) };
    Ok(([(header::ETAG, etag)], Json(services)).into_response())
}

pub async fn spec(State(api): State<Api>, Key(key): Key) -> Result<Response, Problem> {
    let world = standing(&api, &key)?;
    let Some(service) = world.service.known() else {
        return Err(Refused::Unreadable(key, "see `setpoint explain`".into()).into());
    };
    Ok(([(header::ETAG, etag(service.intent_seq))], Json(show::spec(service))).into_response())
}

pub async fn deployments(State(api): State<Api>, Key(key): Key) -> Result<Json<views::Deployments>, Problem> {
    let stored = api.control.store().deployments(&key, HISTORY).await?;
    if stored.is_empty() {
        standing(&api, &key)?;
    }
    Ok(Json(views::Deployments { deployments: stored.iter().map(show::deployment).collect() }))
}

pub async fn deployment(
    State(api): State<Api>,
    OfDeployment(id): OfDeployment,
) -> Result<Json<views::Deployment>, Problem> {
    let stored = api.control.store().deployment(&id).await?;
    let found = stored.ok_or(RequestError::NoDeployment(id))?;
    Ok(Json(show::deployment(&found)))
}

pub async fn drift(
    State(api): State<Api>,
    Allowed(permit): Allowed,
    Key(key): Key,
) -> Result<Json<views::Drifts>, Problem> {
    standing(&api, &key)?;
    Ok(Json(drifts(&api, &permit, Some(&key))))
}

#[derive(Debug, Deserialize)]
pub struct DriftOf {
    service: Option<ServiceKey>,
}

pub async fn all_drift(
    State(api): State<Api>,
    Allowed(permit): Allowed,
    Asked(asked): Asked<DriftOf>,
) -> Json<views::Drifts> {
    Json(drifts(&api, &permit, asked.service.as_ref()))
}

fn drifts(api: &Api, permit: &Permit, only: Option<&ServiceKey>) -> views::Drifts {
    let observations: Vec<_> = api.control.with_brain(|brain| brain.observations().cloned().collect());
    let drift = observations.iter().flat_map(|observation| show::drift(observation, only));
    let sees = |row: &views::Drift| permit.sees(Some(&row.instance.service.project));
    views::Drifts { drift: drift.filter(sees).collect() }
}

/// How many differences stand now, in all services or in one.
pub fn standing_drift(api: &Api, only: Option<&ServiceKey>) -> usize {
    api.control.with_brain(|brain| brain.observations().map(|seen| show::drift(seen, only).count()).sum())
}

/// What `GET` of a service gives and `If-Match` takes.
pub fn etag(revision: IntentSeq) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{revision}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// The world of a service that is declared, or cannot be read.
pub fn standing(api: &Api, key: &ServiceKey) -> Result<Arc<World>, Problem> {
    let world = api.control.with_brain(|brain| brain.world(key).cloned());
    world.filter(|world| is_shown(world)).ok_or_else(|| Refused::NotDeclared(key.clone()).into())
}

pub fn is_shown(world: &World) -> bool {
    !world.service.is_absent()
}

pub async fn nothing_there(request: axum::extract::Request) -> Problem {
    let path = model::id::printable(request.uri().path());
    Problem::not_found(
        "no_such_route",
        format!("there is nothing at {path}"),
        "GET /api/v1/openapi.json lists every route",
    )
}

pub async fn wrong_method(request: axum::extract::Request) -> Problem {
    let (method, path) = (request.method(), model::id::printable(request.uri().path()));
    let message = format!("{method} is not possible at {path}");
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
        "the header Allow names what is possible",
    )
}
