//! What handlers take from a request: keys and ids from the path, bounded JSON bodies, the terms of a write.
//! Everything else about a request is refused here, with the place of the fault.

use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream, Bytes},
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::QueryRejection},
    http::{HeaderMap, Method, StatusCode, Uri, header, request::Parts},
};
use futures_util::StreamExt;
use model::{DeploymentId, Digest, InstanceId, IntentSeq, NodeId, ServiceKey, TokenName, manifest::nearest};
use serde::de::DeserializeOwned;

use super::{Api, problem::Problem, table::Query as Parameter};
use crate::Terms;

/// Declarations: a manifest has at most 1 MiB of text, and more with its defaults written out.
pub const MAX_DECLARATION: usize = 16 << 20;
pub const MAX_BODY: usize = 1 << 20;
/// Between two pieces of a body.
pub const BODY_PAUSE: Duration = Duration::from_secs(30);
/// What is still read of a body that is refused.
pub const LISTEN_ON: u64 = 64 << 20;
const LISTEN_FOR: Duration = Duration::from_secs(5);
const MAX_KEY: usize = 255;
const OPENAPI: &str = "GET /api/v1/openapi.json says what this route takes";

/// `{project}/{name}` of the path.
#[derive(Debug, Clone)]
pub struct Key(pub ServiceKey);

impl FromRequestParts<Api> for Key {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        let Path((project, name)) = path::<(String, String)>(parts).await?;
        let key = (|| Ok(ServiceKey { project: project.parse()?, name: name.parse()? }))();
        key.map(Self).map_err(|error: model::id::InvalidId| {
            Problem::not_found("invalid_name", error.to_string(), "`setpoint status` lists the names")
        })
    }
}

async fn path<T: DeserializeOwned + Send>(parts: &mut Parts) -> Result<Path<T>, Problem> {
    let read = Path::<T>::from_request_parts(parts, &()).await;
    read.map_err(|_| {
        Problem::not_found(
            "invalid_name",
            "the path holds something that is no name",
            "`setpoint status` lists the names",
        )
    })
}

macro_rules! id_of_the_path {
    ($(#[$doc:meta])* $name:ident, $id:ty, $help:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name(pub $id);

        impl FromRequestParts<Api> for $name {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
                let Path(text) = path::<String>(parts).await?;
                let id = text.parse().map(Self);
                id.map_err(|error: <$id as std::str::FromStr>::Err| Problem::not_found("invalid_id", error.to_string(), $help))
            }
        }
    };
}

id_of_the_path!(OfDeployment, DeploymentId, "`setpoint deployments SERVICE` lists them");
id_of_the_path!(OfInstance, InstanceId, "`setpoint status SERVICE` lists them");
id_of_the_path!(OfArtifact, Digest, "an upload answers with its digest");
id_of_the_path!(OfNode, NodeId, "`setpoint node list` lists them");
id_of_the_path!(OfToken, TokenName, "`setpoint token list` lists them");
id_of_the_path!(OfPass, u64, "`setpoint explain SERVICE` lists the recorded passes");

/// The parameters after `?`; the router lets none pass that its route does not know.
#[derive(Debug)]
pub struct Asked<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Api> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(error) => Err(bad_query(&error)),
        }
    }
}

fn bad_query(error: &QueryRejection) -> Problem {
    let why = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    Problem::bad_request("bad_query", why, OPENAPI)
}

/// A parameter that is passed over would be taken for one that was heeded. Its value is not repeated: it may be a secret.
pub fn check_query(uri: &Uri, known: &[Parameter]) -> Result<(), Problem> {
    let named = known.iter().map(|(name, ..)| *name);
    let Query(given) =
        Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|error| bad_query(&error))?;
    let Some((unknown, _)) = given.into_iter().find(|(name, _)| !named.clone().any(|known| known == name))
    else {
        return Ok(());
    };
    let shown = model::id::printable(&unknown);
    let message = match nearest(&unknown, named.clone()) {
        Some(name) => format!("unknown parameter `{shown}`; did you mean `{name}`?"),
        None => format!("unknown parameter `{shown}`"),
    };
    let names: Vec<&str> = named.collect();
    let help = match names.as_slice() {
        [] => "this route takes no parameters: leave it out".into(),
        names => format!("known here: {}", names.join(", ")),
    };
    Err(Problem::bad_request("unknown_parameter", message, help).field(shown))
}

/// A JSON body of at most [`MAX_BODY`], with the terms of the write. An empty body stands for an empty object.
#[derive(Debug)]
pub struct Write<T>(pub T, pub Terms);

/// The same for declarations, which may be long.
#[derive(Debug)]
pub struct Declaration<T>(pub T, pub Terms);

impl<T: DeserializeOwned> FromRequest<Api> for Write<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &Api) -> Result<Self, Problem> {
        let (value, terms) = write(request, MAX_BODY).await?;
        Ok(Self(value, terms))
    }
}

impl<T: DeserializeOwned> FromRequest<Api> for Declaration<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &Api) -> Result<Self, Problem> {
        let (value, terms) = write(request, MAX_DECLARATION).await?;
        Ok(Self(value, terms))
    }
}

async fn write<T: DeserializeOwned>(request: Request, limit: usize) -> Result<(T, Terms), Problem> {
    let (parts, body) = request.into_parts();
    let body = read(&parts.headers, body, limit).await?;
    if !body.is_empty() && !is_json(&parts.headers) {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not_json",
            "the body must be JSON",
            "send `Content-Type: application/json`",
        )
        .field("Content-Type"));
    }
    let terms = terms(&parts.method, &parts.uri, &parts.headers, &body)?;
    let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
    Ok((parse(text)?, terms))
}

fn is_json(headers: &HeaderMap) -> bool {
    let named = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    named.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Problem> {
    if announced(headers).is_some_and(|length| length > LISTEN_ON) {
        return Err(too_large(limit));
    }
    let mut pieces = body.into_data_stream();
    let mut whole = Vec::new();
    loop {
        match tokio::time::timeout(BODY_PAUSE, pieces.next()).await {
            Err(_) => return Err(too_slow()),
            Ok(None) => return Ok(whole.into()),
            Ok(Some(Err(_))) => {
                return Err(Problem::bad_request(
                    "bad_body",
                    "the body ended too early",
                    "send it again, whole",
                ));
            }
            Ok(Some(Ok(piece))) if whole.len() + piece.len() > limit => {
                listen_on(pieces).await;
                return Err(too_large(limit));
            }
            Ok(Some(Ok(piece))) => whole.extend_from_slice(&piece),
        }
    }
}

pub fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads on a while and throws it away: who is still sending does not see the answer before it has sent.
async fn listen_on(mut pieces: BodyDataStream) {
    let mut left = LISTEN_ON;
    let rest = async {
        while let Some(Ok(piece)) = pieces.next().await {
            left = left.saturating_sub(piece.len() as u64);
            if left == 0 {
                return;
            }
        }
    };
    // Either way it is answered now.
    let _ = tokio::time::timeout(LISTEN_FOR, rest).await;
}

fn too_large(limit: usize) -> Problem {
    let message = format!("the body may have at most {} KiB", limit >> 10);
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        message,
        "send less at once: fewer services, or a site's content as an artifact",
    )
}

pub fn too_slow() -> Problem {
    let message = format!("nothing more of the body came for {} s", BODY_PAUSE.as_secs());
    Problem::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", message, "send it again, without a pause")
}

/// Text that is no JSON is 400, JSON that says something else 422; both name line and column.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    use serde_json::error::Category;
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let fault = |error: &serde_json::Error, path: String| {
        // Where the text is cut off there is no field to name.
        let field = Some(path).filter(|path| path != "." && !path.contains('?')).unwrap_or_default();
        let problem = match error.classify() {
            Category::Data => Problem::unprocessable("invalid", without_values(&error.to_string()), OPENAPI),
            Category::Syntax | Category::Eof | Category::Io => {
                Problem::bad_request("not_json", without_values(&error.to_string()), "send valid JSON")
            }
        };
        if field.is_empty() { problem } else { problem.field(field) }
    };
    let value = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| fault(error.inner(), error.path().to_string()))?;
    deserializer.end().map_err(|error| fault(&error, String::new()))?;
    // serde also reads a struct from a list of its fields' values.
    match text.trim_ascii_start().first() {
        Some(b'{') => Ok(value),
        Some(_) | None => Err(Problem::unprocessable("invalid", "the body must be a JSON object", OPENAPI)),
    }
}

/// serde quotes a value that has the wrong type. It may be a secret in the wrong place, so only its type is told.
fn without_values(message: &str) -> String {
    for what in ["invalid type: string ", "invalid value: string "] {
        if let (Some(at), Some(rest)) = (message.find(what), message.rfind(", expected ")) {
            return format!("{}{}{}", &message[..at], what.trim_end(), &message[rest..]);
        }
    }
    message.into()
}

fn terms(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Result<Terms, Problem> {
    Ok(Terms {
        if_match: headers
            .get(header::IF_MATCH)
            .map(|value| revision(value.as_bytes()))
            .transpose()?
            .flatten(),
        idempotency: idempotency_key(headers)?.map(|key| {
            let request = [method.as_str().as_bytes(), uri.path().as_bytes(), body].join(&b'\n');
            (key, Digest::of_bytes(&request))
        }),
    })
}

/// `"3"` as the ETag of a service shows it; `*` is met by whatever is there.
fn revision(value: &[u8]) -> Result<Option<IntentSeq>, Problem> {
    let bad = || {
        Problem::bad_request(
            "bad_if_match",
            "If-Match must be the ETag of a service, such as \"3\"",
            "read the service and send the ETag of that answer",
        )
        .field("If-Match")
    };
    let text = std::str::from_utf8(value).map_err(|_| bad())?.trim();
    if text == "*" {
        return Ok(None);
    }
    let number = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let digits = number.bytes().all(|b| b.is_ascii_digit());
    number.parse().ok().filter(|_| digits).map(|n| Some(IntentSeq(n))).ok_or_else(bad)
}

pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut given = headers.get_all("idempotency-key").iter();
    let (first, second) = (given.next(), given.next());
    let Some(first) = first else { return Ok(None) };
    let text = first.to_str().ok().filter(|text| second.is_none() && (1..=MAX_KEY).contains(&text.len()));
    let message = format!("Idempotency-Key must be one text of 1 to {MAX_KEY} visible characters");
    text.map(|text| Some(text.into())).ok_or_else(|| {
        Problem::bad_request(
            "bad_idempotency_key",
            message,
            "send one new random text per request, a UUID for example",
        )
        .field("Idempotency-Key")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::Scale;

    #[test]
    fn faults_name_their_place_and_no_value() {
        let fault = |text: &str| format!("{:?}", parse::<Scale>(text.as_bytes()).unwrap_err());
        assert!(
            fault(r#"{"replicas": "hunter2, expected"}"#)
                .contains("invalid type: string, expected a whole number from 0 to 10000 at line 1")
        );
        for number in ["-1", "1.5", "null", "[2]"] {
            let told = fault(&format!(r#"{{"replicas": {number}}}"#));
            assert!(
                told.contains("from 0 to 10000") && told.contains(r#"field: Some("replicas")"#),
                "{told}"
            );
        }
        let cut = fault(r#"{"repli"#);
        assert!(cut.contains("line 1 column 7") && cut.contains("field: None"), "{cut}");
        assert!(!fault(r#"{"replicas": "hunter2, expected"}"#).contains("hunter2"));
        assert!(fault(r#"{"replicas": 1} x"#).contains("trailing characters"));
        assert!(fault("{").contains("line 1 column 1"));
        assert!(
            fault(&"[".repeat(100_000)).contains("not_json")
                || fault(&"[".repeat(100_000)).contains("invalid")
        );
    }

    #[test]
    fn an_etag_is_a_revision() {
        assert_eq!(revision(b"\"3\"").unwrap(), Some(IntentSeq(3)));
        assert_eq!(revision(b"*").unwrap(), None);
        for bad in ["", "\"\"", "W/\"3\"", "+3", "\"-1\"", "\"1\",\"2\"", "\"99999999999999999999\""] {
            assert!(revision(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
