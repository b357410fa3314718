//! Errors as RFC 9457 problem documents: a status, a stable word, a sentence, and what to do next.
//!
//! Owns: which failure gets which status. Refuses to know: how requests are carried out. It never repeats values of
//! a request beyond names: one of them may be a secret.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use decide::intent::Refused;
use model::Millis;
use store::{CommitError, Refusal, StoreError};

use crate::{
    ImageError, RequestError, UploadError,
    views::{self, Fault},
};

/// A refusal on its way out.
#[derive(Debug, Clone)]
pub struct Problem {
    said: Box<views::Problem>,
    retry_after: Option<u32>,
}

impl Problem {
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        let message: String = message.into();
        let said = views::Problem {
            kind: format!("/api/v1/docs#{code}"),
            title: status.canonical_reason().unwrap_or("Error").into(),
            status: status.as_u16(),
            detail: message.clone(),
            code: code.into(),
            field: None,
            message,
            help: None,
            errors: Vec::new(),
        };
        Self { said: Box::new(said), retry_after: None }
    }

    pub fn bad_request(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub fn unprocessable(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    pub fn not_found(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// The same request may succeed soon.
    pub fn unavailable(code: &str, message: impl Into<String>) -> Self {
        Self { retry_after: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message) }
    }

    /// Asked too often; the same request may succeed after the wait.
    pub fn too_many(code: &str, message: impl Into<String>, wait: Millis) -> Self {
        let seconds = u32::try_from(wait.0.div_ceil(1000)).unwrap_or(u32::MAX);
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, code, message);
        Self { retry_after: Some(seconds), ..problem }.help("ask again after the time that Retry-After names")
    }

    /// As a document, for where it is no answer by itself.
    pub fn said(self) -> views::Problem {
        *self.said
    }

    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.said.field = Some(field.into());
        self
    }

    fn unreadable(message: String) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unreadable", message).help(
            "what runs and is served stays as it is; stop Setpoint and put the last good backup in place with \
             `setpoint restore FILE --force`, which moves the data folder aside and deletes nothing",
        )
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.said.help = Some(help.into());
        self
    }

    fn errors(mut self, errors: Vec<Fault>) -> Self {
        if let [one] = errors.as_slice() {
            self.said.field.clone_from(&one.field);
            self.said.help.clone_from(&one.help);
        }
        self.said.errors = errors;
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.said).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() =
            StatusCode::from_u16(self.said.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        let message = error.to_string();
        match error {
            RequestError::Refused(refused) => refused.into(),
            RequestError::Denied(denied) => denied.into(),
            RequestError::Conflict(conflicts) => {
                let errors = conflicts.iter().map(|conflict| Fault {
                    code: conflict.code().into(),
                    field: Some(format!("services.{}.{}", conflict.service().name, conflict.field())),
                    message: conflict.to_string(),
                    help: None,
                });
                let code = conflicts.first().map_or("conflict", decide::conflict::Conflict::code);
                Self::new(StatusCode::CONFLICT, code, message).errors(errors.collect())
            }
            RequestError::Invalid { service, errors } => {
                let code = errors.first().map_or("invalid", |error| error.code);
                let faults = errors.into_iter().map(|error| Fault {
                    code: error.code.into(),
                    field: Some(format!("services.{}.{}", service.name, error.field)),
                    message: error.message,
                    help: error.help,
                });
                Self::unprocessable(code, message).errors(faults.collect())
            }
            RequestError::Image(error) => of_image(&error),
            RequestError::Empty => Self::unprocessable("declares_nothing", message).field("services"),
            RequestError::Mismatch { .. } => {
                Self::new(StatusCode::PRECONDITION_FAILED, "revision_mismatch", message)
                    .field("If-Match")
                    .help("read the service again and decide anew with its ETag")
            }
            RequestError::KeyReused => Self::unprocessable("idempotency_key_reused", message)
                .field("Idempotency-Key")
                .help("choose a new key for a new request"),
            RequestError::NoDeployment(_) => no_deployment(message),
            RequestError::Contended => Self::unavailable("contended", message),
            RequestError::Commit(error) => error.into(),
            RequestError::Store(error) => error.into(),
        }
    }
}

fn of_image(error: &ImageError) -> Problem {
    let message = error.to_string();
    let problem = match error {
        ImageError::NotFound { .. } => Problem::unprocessable("no_such_image", message),
        ImageError::Denied { .. } => Problem::unprocessable("image_denied", message),
        ImageError::Registry { .. } => Problem::new(StatusCode::BAD_GATEWAY, "registry_failed", message),
        ImageError::Engine(_) => Problem::unavailable("no_engine", message),
    };
    problem.field("image")
}

fn no_deployment(message: String) -> Problem {
    Problem::not_found("no_such_deployment", message).help("`setpoint deployments SERVICE` lists them")
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let (code, message) = (refused.code(), refused.to_string());
        match refused {
            Refused::NotDeclared(_) | Refused::NoSuchDeployment { .. } => Self::not_found(code, message),
            Refused::Unreadable(..) => Self::unreadable(message),
            Refused::OwnedByAnother { .. }
            | Refused::NoEarlierRelease(_)
            | Refused::NeverActive(_)
            | Refused::NotKept(_)
            | Refused::PortForOne { .. }
            | Refused::AlreadyEnded { .. }
            | Refused::BeingDeleted(_) => Self::new(StatusCode::CONFLICT, code, message),
            Refused::SiteHasNoReplicas(_) | Refused::Replicas(_) => {
                Self::unprocessable(code, message).field("replicas")
            }
            Refused::TakesNoContent { content, .. } => {
                let field = if content == "image" { "image" } else { "artifact" };
                Self::unprocessable(code, message).field(field)
            }
            Refused::NoContent(_) => Self::unprocessable(code, message).field("artifact"),
            Refused::ImageNotResolved { .. } => Self::unavailable(code, message).field("image"),
        }
    }
}

impl From<CommitError> for Problem {
    fn from(error: CommitError) -> Self {
        let message = error.to_string();
        match error {
            CommitError::Store(error) => error.into(),
            CommitError::Refused { why: Refusal::MissingArtifact { .. }, .. } => {
                Self::unprocessable("missing_artifact", message).field("artifact")
            }
            CommitError::Refused { .. } => Self::new(StatusCode::CONFLICT, "refused", message),
            CommitError::StaleTerm { .. } => Self::unavailable("not_the_leader", message),
            CommitError::Conflict { .. }
            | CommitError::StaleGeneration { .. }
            | CommitError::StaleRoutes { .. } => Self::unavailable("contended", message),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::Full { .. } => Self::new(StatusCode::INSUFFICIENT_STORAGE, "store_full", message),
            StoreError::Busy { .. } => Self::unavailable("store_busy", message),
            StoreError::Unreadable { .. } => Self::unreadable(message),
            StoreError::Failed { .. } => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "store_failed", message)
            }
        }
    }
}

impl From<UploadError> for Problem {
    fn from(error: UploadError) -> Self {
        use content::intake::Code;
        let message = error.to_string();
        match error {
            UploadError::Store(error) => error.into(),
            UploadError::Interrupted(_) => Self::bad_request("interrupted", message).help("upload it again"),
            UploadError::Refused(refused) => {
                let status = match refused.code {
                    Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                    Code::Storage => StatusCode::INSUFFICIENT_STORAGE,
                    _ => StatusCode::UNPROCESSABLE_ENTITY,
                };
                let problem = Self::new(status, refused.code.as_str(), message);
                match refused.entry {
                    Some(entry) => problem.field(entry),
                    None => problem,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(error: StoreError) -> (u16, Option<String>) {
        let response = Problem::from(RequestError::Store(error)).into_response();
        let retry =
            response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), retry)
    }

    #[test]
    fn a_store_in_trouble_says_whether_to_try_again() {
        let cause = || String::from("test");
        assert_eq!(answered(StoreError::Full { cause: cause() }), (507, None));
        assert_eq!(answered(StoreError::Busy { cause: cause() }), (503, Some("1".into())));
        assert_eq!(answered(StoreError::Failed { cause: cause() }), (500, None));
        let unreadable = StoreError::Unreadable { subject: "a row".into(), cause: cause() };
        assert_eq!(answered(unreadable), (503, None));
    }
}
