//! Tokens: given out once, known by their digest alone, and taken back.

use std::{fs::File, io::Read};

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use data_encoding::HEXLOWER;
use decide::access::is_valid;
use model::{Digest, Timestamp, access::Grant};
use store::{StoreError, Stored};

use super::{
    Api,
    access::Allowed,
    once::{Turn, repeated, turn},
    problem::Problem,
    requests::Nothing,
    take::{OfToken, Write},
};
use crate::views::{self, Time};

const BYTES: usize = 32;

pub async fn list(State(api): State<Api>) -> Json<views::Tokens> {
    let now = api.control.now();
    let tokens = api.control.issued(|issued| issued.iter().map(|one| shown(&one.grant, now)).collect());
    Json(views::Tokens { tokens })
}

pub async fn create(
    State(api): State<Api>,
    Allowed(permit): Allowed,
    Write(asked, terms): Write<views::NewToken>,
) -> Result<Response, Problem> {
    let claim = match turn(&api, &permit, &terms).await? {
        Turn::Repeated(stored) => return shown_again(&api, stored),
        Turn::First(claim) => claim,
    };
    let seed = random()?;
    let token = api.token.derive(&seed);
    let digest = Digest::of_bytes(token.as_bytes());
    let views::NewToken { name, role, project, expires_in } = asked;
    let grant = api.control.grant(name, role, project, expires_in, &permit);
    let kept = views::CreatedToken { token: seed, grant: shown(&grant, api.control.now()) };
    let response = serde_json::to_string(&kept).unwrap_or_default();
    let answer = claim.as_ref().map(|claim| claim.answer(StatusCode::CREATED, response));
    api.control.give_out(grant, digest, &permit, answer).await?;
    Ok((StatusCode::CREATED, Json(views::CreatedToken { token, grant: kept.grant })).into_response())
}

/// The kept answer has the seed in the token's place: no token is stored.
fn shown_again(api: &Api, stored: Stored) -> Result<Response, Problem> {
    let unreadable = |error: serde_json::Error| StoreError::Unreadable {
        subject: "a kept answer".into(),
        cause: error.to_string(),
    };
    let mut kept: views::CreatedToken = serde_json::from_str(&stored.response).map_err(unreadable)?;
    kept.token = api.token.derive(&kept.token);
    Ok(repeated(stored.status, serde_json::to_string(&kept).unwrap_or_default()))
}

pub async fn revoke(
    State(api): State<Api>,
    Allowed(permit): Allowed,
    OfToken(name): OfToken,
    Write(Nothing {}, terms): Write<Nothing>,
) -> Result<Response, Problem> {
    let claim = match turn(&api, &permit, &terms).await? {
        Turn::Repeated(stored) => return Ok(repeated(stored.status, stored.response)),
        Turn::First(claim) => claim,
    };
    let answer = claim.as_ref().map(|claim| claim.answer(StatusCode::NO_CONTENT, String::new()));
    api.control.take_back(&name, &permit, answer).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// From the kernel's generator.
fn random() -> Result<String, Problem> {
    let mut bytes = [0; BYTES];
    let failed = |error: std::io::Error| {
        Problem::unavailable(
            "no_randomness",
            format!("/dev/urandom cannot be read: {error}"),
            "give the server its /dev",
        )
    };
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).map_err(failed)?;
    Ok(HEXLOWER.encode(&bytes))
}

fn shown(grant: &Grant, now: Timestamp) -> views::Token {
    let Grant { name, role, project, created_at, created_by, expires_at } = grant.clone();
    views::Token {
        name,
        role,
        project,
        created_at: Time(created_at),
        created_by,
        expires_at: expires_at.map(Time),
        expired: !is_valid(grant, now),
    }
}
