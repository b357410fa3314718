//! Writes: each becomes one request of `Control`, and its answer is durable.

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use decide::{access::Permit, intent::Content};
use model::{ArtifactDigest, source::Origin};

use super::{
    Api,
    access::Allowed,
    once::repeated,
    problem::Problem,
    take::{Declaration, Key, OfDeployment, Write},
};
use crate::{
    Answer, Applied, Request, Terms,
    views::{self, Apply, Deploy, Rollback, Scale},
};

/// The body of a request that needs nothing more.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

pub async fn apply(
    State(api): State<Api>,
    Allowed(permit): Allowed,
    Declaration(body, terms): Declaration<Apply>,
) -> Result<Response, Problem> {
    let Apply { services, prune, entries: _ } = body;
    carry_out(&api, &permit, &Request::Apply { services, prune: prune.into_iter().collect() }, &terms).await
}

pub async fn plan(
    State(api): State<Api>,
    Allowed(permit): Allowed,
    Declaration(body, _): Declaration<Apply>,
) -> Result<Json<views::Plans>, Problem> {
    let Apply { services, prune, entries } = body;
    let prune = prune.into_iter().collect();
    Ok(Json(views::Plans { services: api.control.dry_run(&services, &prune, entries, &permit).await? }))
}

pub async fn deploy(
    State(api): State<Api>,
    Allowed(permit): Allowed,
    Key(key): Key,
    Write(Deploy { artifact, origin, image }, terms): Write<Deploy>,
) -> Result<Response, Problem> {
    check_origin(artifact.as_ref(), origin.as_ref())?;
    let content = match (artifact, image) {
        (None, None) => Content::Declared,
        (Some(artifact), None) => Content::Artifact(artifact, origin),
        (None, Some(image)) => Content::Image(image),
        (Some(_), Some(_)) => {
            let message = "a deployment takes an artifact or an image, not both";
            return Err(
                Problem::unprocessable("conflict", message, "leave one of the two out").field("image")
            );
        }
    };
    carry_out(&api, &permit, &Request::Deploy { key, content }, &terms).await
}

/// An origin tells of an artifact; whatever else it says is kept and shown.
fn check_origin(artifact: Option<&ArtifactDigest>, origin: Option<&Origin>) -> Result<(), Problem> {
    let Some(origin) = origin else { return Ok(()) };
    if artifact.is_none() {
        let message = "an `origin` says where an `artifact` is from, and there is none";
        return Err(Problem::unprocessable("missing_key", message, "name the artifact").field("artifact"));
    }
    match origin.mistakes().into_iter().next() {
        None => Ok(()),
        Some((keys, message)) => {
            let field = format!("origin.{}", keys.join("."));
            Err(Problem::unprocessable("invalid_value", message, "send what was fetched").field(field))
        }
    }
}

pub async fn rollback(
    State(api): State<Api>,
    Allowed(permit): Allowed,
    Key(key): Key,
    Write(Rollback { to }, terms): Write<Rollback>,
) -> Result<Response, Problem> {
    carry_out(&api, &permit, &Request::Rollback { key, to }, &terms).await
}

pub async fn scale(
    State(api): State<Api>,
    Allowed(permit): Allowed,
    Key(key): Key,
    Write(Scale { replicas }, terms): Write<Scale>,
) -> Result<Response, Problem> {
    carry_out(&api, &permit, &Request::Scale { key, replicas }, &terms).await
}

pub async fn stop(
    State(api): State<Api>,
    Allowed(permit): Allowed,
    Key(key): Key,
    Write(Nothing {}, terms): Write<Nothing>,
) -> Result<Response, Problem> {
    carry_out(&api, &permit, &Request::Stop { key }, &terms).await
}

pub async fn start(
    State(api): State<Api>,
    Allowed(permit): Allowed,
    Key(key): Key,
    Write(Nothing {}, terms): Write<Nothing>,
) -> Result<Response, Problem> {
    carry_out(&api, &permit, &Request::Start { key }, &terms).await
}

pub async fn restart(
    State(api): State<Api>,
    Allowed(permit): Allowed,
    Key(key): Key,
    Write(Nothing {}, terms): Write<Nothing>,
) -> Result<Response, Problem> {
    carry_out(&api, &permit, &Request::Restart { key }, &terms).await
}

pub async fn delete(
    State(api): State<Api>,
    Allowed(permit): Allowed,
    Key(key): Key,
    Write(Nothing {}, terms): Write<Nothing>,
) -> Result<Response, Problem> {
    carry_out(&api, &permit, &Request::Delete { key }, &terms).await
}

pub async fn cancel(
    State(api): State<Api>,
    Allowed(permit): Allowed,
    OfDeployment(deployment): OfDeployment,
    Write(Nothing {}, terms): Write<Nothing>,
) -> Result<Response, Problem> {
    carry_out(&api, &permit, &Request::Cancel { deployment }, &terms).await
}

async fn carry_out(
    api: &Api,
    permit: &Permit,
    request: &Request,
    terms: &Terms,
) -> Result<Response, Problem> {
    match api.control.request(request, terms, permit).await? {
        Answer::Done(applied) => Ok(tagged(Json(&applied).into_response(), &applied)),
        Answer::Repeated { status, body } => {
            // One that another version kept has no ETag at worst.
            let applied = serde_json::from_str(&body).unwrap_or(Applied { services: Vec::new() });
            Ok(tagged(repeated(status, body), &applied))
        }
    }
}

fn tagged(mut response: Response, applied: &Applied) -> Response {
    if let [one] = applied.services.as_slice() {
        let etag = super::services::etag(model::IntentSeq(one.revision));
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}
