//! Tokens: given out once, known by their digest alone, and taken back.

use std::{fs::File, io::Read};

use axum::{Json, extract::State, http::StatusCode};
use data_encoding::HEXLOWER;
use decide::access::is_valid;
use model::{Digest, Timestamp, access::Grant};

use super::{
    Api,
    access::Allowed,
    problem::Problem,
    take::{OfToken, Write},
};
use crate::views::{self, Time};

/// So that a token is known as ours wherever it turns up.
const PREFIX: &str = "sp_";
const BYTES: usize = 32;

pub async fn list(State(api): State<Api>) -> Json<views::Tokens> {
    let now = api.control.now();
    let tokens = api.control.issued(|issued| issued.iter().map(|one| shown(&one.grant, now)).collect());
    Json(views::Tokens { tokens })
}

pub async fn create(
    State(api): State<Api>,
    Allowed(permit): Allowed,
    Write(asked, _): Write<views::NewToken>,
) -> Result<(StatusCode, Json<views::CreatedToken>), Problem> {
    let token = random()?;
    let digest = Digest::of_bytes(token.as_bytes());
    let views::NewToken { name, role, project, expires_in } = asked;
    let grant = api.control.give_out(name, role, project, expires_in, digest, &permit).await?;
    let grant = shown(&grant, api.control.now());
    Ok((StatusCode::CREATED, Json(views::CreatedToken { token, grant })))
}

pub async fn revoke(
    State(api): State<Api>,
    Allowed(permit): Allowed,
    OfToken(name): OfToken,
) -> Result<StatusCode, Problem> {
    api.control.take_back(&name, &permit).await?;
    Ok(StatusCode::NO_CONTENT)
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
    Ok(format!("{PREFIX}{}", HEXLOWER.encode(&bytes)))
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
