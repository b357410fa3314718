//! Writes that change no declaration, each carried out once for its `Idempotency-Key`: the same request again gets the
//! answer that the first one got. Declarations keep theirs in the transaction of the intent, see [`crate::intents`].
//!
//! Refuses to know: what is carried out.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use decide::access::Permit;
use model::Digest;
use serde::Serialize;
use store::{Idempotency, Stored};

use super::{Api, problem, problem::Problem};
use crate::{RequestError, Terms};

/// Requests under a key that are carried out now, by who sent them.
pub type Running = Arc<Mutex<BTreeSet<(String, String)>>>;

/// A request under a key, for as long as it is carried out.
#[derive(Debug)]
pub struct Claim {
    scope: String,
    key: String,
    digest: Digest,
    running: Running,
}

impl Claim {
    pub fn answer(&self, status: StatusCode, response: String) -> Idempotency {
        let Self { scope, key, digest, running: _ } = self;
        let (scope, key) = (scope.clone(), key.clone());
        Idempotency { scope, key, body_digest: *digest, status: status.as_u16(), response }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&(self.scope.clone(), self.key.clone()));
    }
}

/// Whether a request is to be carried out.
#[derive(Debug)]
pub enum Turn {
    /// With the claim of its key, if it has one.
    First(Option<Claim>),
    /// It was, and this was the answer.
    Repeated(Stored),
}

pub async fn turn(api: &Api, permit: &Permit, terms: &Terms) -> Result<Turn, Problem> {
    let Some((key, digest)) = &terms.idempotency else { return Ok(Turn::First(None)) };
    let (scope, key) = (permit.actor().to_owned(), key.clone());
    {
        let mut running = api.keyed.lock().unwrap_or_else(PoisonError::into_inner);
        if !running.insert((scope.clone(), key.clone())) {
            return Err(Problem::conflict(
                "idempotency_key_in_use",
                "the request with this idempotency key is still being carried out",
                "ask again once it was answered",
            )
            .field("Idempotency-Key"));
        }
    }
    let claim = Claim { scope, key, digest: *digest, running: api.keyed.clone() };
    match api.control.store().idempotent(&claim.scope, &claim.key).await? {
        None => Ok(Turn::First(Some(claim))),
        Some(stored) if stored.body_digest == *digest => Ok(Turn::Repeated(stored)),
        Some(_) => Err(problem::key_reused(RequestError::KeyReused.to_string())),
    }
}

/// Carries it out unless it was, and keeps its answer. When it dies in between, the same request is carried out again:
/// for what may not be done twice the answer goes into the transaction of the effect instead.
pub async fn once<T: Serialize>(
    api: &Api,
    permit: &Permit,
    terms: &Terms,
    effect: impl Future<Output = Result<(StatusCode, T), Problem>>,
) -> Result<Response, Problem> {
    let claim = match turn(api, permit, terms).await? {
        Turn::Repeated(stored) => return Ok(repeated(stored.status, stored.response)),
        Turn::First(claim) => claim,
    };
    let (status, answer) = effect.await?;
    if let Some(claim) = &claim {
        let response = serde_json::to_string(&answer).unwrap_or_default();
        api.control.store().keep_answer(claim.answer(status, response), api.control.now()).await?;
    }
    Ok((status, Json(answer)).into_response())
}

/// The answer that was given before under the same key.
pub fn repeated(status: u16, body: String) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::HeaderName::from_static("idempotent-replayed"), HeaderValue::from_static("true")),
    ];
    (status, headers, body).into_response()
}
