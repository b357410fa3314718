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

const EACH: &str = "correct what each of `errors` names and send it again";
const AGAIN: &str = "send the same request again in a second";
pub const UPLOAD: &str = "upload it with POST /api/v1/artifacts";

/// A refusal on its way out.
#[derive(Debug, Clone)]
pub struct Problem {
    said: Box<views::Problem>,
    retry_after: Option<u32>,
}

impl Problem {
    /// `help` is what to do next: nobody is refused without it.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>, help: impl Into<String>) -> Self {
        let message: String = message.into();
        let said = views::Problem {
            kind: format!("/api/v1/docs#{code}"),
            title: status.canonical_reason().unwrap_or("Error").into(),
            status: status.as_u16(),
            detail: message.clone(),
            code: code.into(),
            field: None,
            message,
            help: help.into(),
            errors: Vec::new(),
        };
        Self { said: Box::new(said), retry_after: None }
    }

    pub fn bad_request(code: &str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message, help)
    }

    pub fn unprocessable(code: &str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message, help)
    }

    pub fn not_found(code: &str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message, help)
    }

    pub fn conflict(code: &str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message, help)
    }

    /// The same request may succeed soon.
    pub fn unavailable(code: &str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { retry_after: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message, help) }
    }

    /// Asked too often; the same request may succeed after the wait.
    pub fn too_many(code: &str, message: impl Into<String>, wait: Millis) -> Self {
        let seconds = u32::try_from(wait.0.div_ceil(1000)).unwrap_or(u32::MAX);
        let help = "ask again after the time that Retry-After names";
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, code, message, help);
        Self { retry_after: Some(seconds), ..problem }
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
        let help = "what runs and is served stays as it is; stop Setpoint and put the last good backup in place with \
                    `setpoint restore FILE --force`, which moves the data folder aside and deletes nothing";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unreadable", message, help)
    }

    fn errors(mut self, errors: Vec<Fault>) -> Self {
        if let [one] = errors.as_slice() {
            self.said.field.clone_from(&one.field);
            self.said.help = match (&one.help, &one.field) {
                (Some(help), _) => help.clone(),
                (None, Some(field)) => format!("correct {field} and send it again"),
                (None, None) => "correct it and send it again".into(),
            };
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
                    service: Some(conflict.service().clone()),
                    code: conflict.code().into(),
                    field: Some(format!("services.{}.{}", conflict.service().name, conflict.field())),
                    message: conflict.to_string(),
                    help: Some(conflict.help().into()),
                });
                let code = conflicts.first().map_or("conflict", decide::conflict::Conflict::code);
                Self::conflict(code, message, EACH).errors(errors.collect())
            }
            RequestError::Invalid { service, errors } => {
                let code = errors.first().map_or("invalid", |error| error.code);
                let faults = errors.into_iter().map(|error| Fault {
                    service: Some(service.clone()),
                    code: error.code.into(),
                    field: Some(format!("services.{}.{}", service.name, error.field)),
                    message: error.message,
                    help: error.help,
                });
                Self::unprocessable(code, message, EACH).errors(faults.collect())
            }
            RequestError::Image(error) => of_image(&error),
            RequestError::DeclaredImage { service, error } => {
                let problem = of_image(&error);
                let fault = Fault {
                    code: problem.said.code.clone(),
                    field: Some(format!("services.{}.image", service.name)),
                    message: error.to_string(),
                    help: Some(problem.said.help.clone()),
                    service: Some(service),
                };
                problem.errors(vec![fault])
            }
            RequestError::Empty => {
                let help =
                    "name services to declare, or delete one with DELETE /api/v1/services/{project}/{name}";
                Self::unprocessable("declares_nothing", message, help).field("services")
            }
            RequestError::Mismatch { .. } => {
                let help = "read the service again and decide anew with its ETag";
                Self::new(StatusCode::PRECONDITION_FAILED, "revision_mismatch", message, help)
                    .field("If-Match")
            }
            RequestError::KeyReused => key_reused(message),
            RequestError::NoDeployment(_) => {
                Self::not_found("no_such_deployment", message, "`setpoint deployments SERVICE` lists them")
            }
            RequestError::Contended => Self::unavailable("contended", message, AGAIN),
            RequestError::Commit(error) => error.into(),
            RequestError::Store(error) => error.into(),
        }
    }
}

fn of_image(error: &ImageError) -> Problem {
    let message = error.to_string();
    let help = error.help();
    let problem = match error {
        ImageError::NotFound { .. } => Problem::unprocessable("no_such_image", message, help),
        ImageError::Denied { .. } => Problem::unprocessable("image_denied", message, help),
        ImageError::Registry { .. } => {
            Problem::new(StatusCode::BAD_GATEWAY, "registry_failed", message, help)
        }
        ImageError::Engine(_) => Problem::unavailable("no_engine", message, help),
    };
    problem.field("image")
}

pub fn key_reused(message: String) -> Problem {
    Problem::unprocessable("idempotency_key_reused", message, "choose a new key for a new request")
        .field("Idempotency-Key")
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let (code, message, help) = (refused.code(), refused.to_string(), refused.help());
        match refused {
            Refused::NotDeclared(_) | Refused::NoSuchDeployment { .. } => {
                Self::not_found(code, message, help)
            }
            Refused::Unreadable(..) => Self::unreadable(message),
            Refused::OwnedByAnother { .. }
            | Refused::NoEarlierRelease(_)
            | Refused::NeverActive(_)
            | Refused::NotKept(_)
            | Refused::PortForOne { .. }
            | Refused::AlreadyEnded { .. }
            | Refused::BeingDeleted(_) => Self::conflict(code, message, help),
            Refused::SiteHasNoReplicas(_) | Refused::Replicas(_) => {
                Self::unprocessable(code, message, help).field("replicas")
            }
            Refused::TakesNoContent { content, .. } => {
                let field = if content == "image" { "image" } else { "artifact" };
                Self::unprocessable(code, message, help).field(field)
            }
            Refused::NoContent(_) => Self::unprocessable(code, message, help).field("artifact"),
            Refused::ImageNotResolved { .. } => Self::unavailable(code, message, help).field("image"),
        }
    }
}

impl From<CommitError> for Problem {
    fn from(error: CommitError) -> Self {
        let message = error.to_string();
        match error {
            CommitError::Store(error) => error.into(),
            CommitError::Refused { why: Refusal::MissingArtifact { .. }, .. } => {
                Self::unprocessable("missing_artifact", message, UPLOAD).field("artifact")
            }
            CommitError::Refused { .. } => {
                let help = "read the service again and decide anew from what it is now";
                Self::conflict("refused", message, help)
            }
            CommitError::StaleTerm { .. } => Self::unavailable("not_the_leader", message, AGAIN),
            CommitError::Conflict { .. }
            | CommitError::StaleGeneration { .. }
            | CommitError::StaleRoutes { .. } => Self::unavailable("contended", message, AGAIN),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::Full { .. } => {
                let help =
                    "free space on the disk of the data folder, then send it again; `setpoint gc` may help";
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "store_full", message, help)
            }
            StoreError::Busy { .. } => Self::unavailable("store_busy", message, AGAIN),
            StoreError::Unreadable { .. } => Self::unreadable(message),
            StoreError::Failed { .. } => {
                let help = "look at the disk of the data folder and at the server's log, then send it again";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "store_failed", message, help)
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
            UploadError::Interrupted(_) => Self::bad_request("interrupted", message, "upload it again"),
            UploadError::Refused(refused) => {
                let status = match refused.code {
                    Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                    Code::Storage => StatusCode::INSUFFICIENT_STORAGE,
                    _ => StatusCode::UNPROCESSABLE_ENTITY,
                };
                let problem = Self::new(status, refused.code.as_str(), message, refused.code.help());
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

    /// Every kind of failure that somebody may be answered with.
    fn kinds() -> Vec<Problem> {
        [refusals(), requests(), commits(), contents(), machines(), denials()].concat()
    }

    fn key() -> model::ServiceKey {
        "default/api".parse().unwrap()
    }

    fn cause() -> String {
        "test".into()
    }

    fn refusals() -> Vec<Problem> {
        let id: model::DeploymentId = "d1".parse().unwrap();
        let image: model::image::ImageRef = "acme/web:1".parse().unwrap();
        let kind = model::spec::Kind::Site;
        let all = [
            Refused::NotDeclared(key()),
            Refused::Unreadable(key(), cause()),
            Refused::OwnedByAnother { service: key(), owner: model::service::Owner::Api },
            Refused::NoEarlierRelease(key()),
            Refused::NeverActive(id.clone()),
            Refused::NotKept(id.clone()),
            Refused::NoSuchDeployment { service: key(), id: "d1".into() },
            Refused::AlreadyEnded { id, phase: model::deployment::Phase::Active },
            Refused::SiteHasNoReplicas(key()),
            Refused::TakesNoContent { service: key(), kind, content: "image" },
            Refused::TakesNoContent { service: key(), kind, content: "artifact" },
            Refused::ImageNotResolved { service: key(), image },
            Refused::NoContent(key()),
            Refused::Replicas(1 << 40),
            Refused::PortForOne { service: key(), port: 80, replicas: 2 },
            Refused::BeingDeleted(key()),
        ];
        all.into_iter().map(|refused| RequestError::Refused(refused).into()).collect()
    }

    fn requests() -> Vec<Problem> {
        let image: model::image::ImageRef = "acme/web:1".parse().unwrap();
        let domain = "api.localhost".parse().unwrap();
        let taken = [
            decide::conflict::Conflict::Domain { service: key(), at: 0, domain, by: key() },
            decide::conflict::Conflict::Port { service: key(), port: 80, by: key() },
            decide::conflict::Conflict::Webroot {
                service: key(),
                webroot: "/srv".into(),
                entry: "a".into(),
                by: key(),
            },
        ];
        let fault = |help| model::manifest::FieldError {
            code: "invalid",
            field: model::manifest::FieldPath::of(&["port"]),
            message: "cannot be so".into(),
            help,
        };
        let invalid = |errors| RequestError::Invalid { service: key(), errors };
        let mut all = vec![
            invalid(vec![fault(None)]),
            invalid(vec![fault(Some("leave it out".into()))]),
            invalid(vec![fault(None), fault(None)]),
            RequestError::Conflict(taken.to_vec()),
            RequestError::Image(ImageError::NotFound { image: image.clone(), cause: cause() }),
            RequestError::Image(ImageError::Denied { image: image.clone(), cause: cause() }),
            RequestError::Image(ImageError::Registry { image, cause: cause() }),
            RequestError::Image(ImageError::Engine(cause())),
            RequestError::DeclaredImage { service: key(), error: ImageError::Engine(cause()) },
            RequestError::Empty,
            RequestError::Mismatch {
                service: key(),
                expected: model::IntentSeq(1),
                found: model::IntentSeq(2),
            },
            RequestError::KeyReused,
            RequestError::NoDeployment("d1".parse().unwrap()),
            RequestError::Contended,
        ];
        all.extend(taken.map(|one| RequestError::Conflict(vec![one])));
        all.into_iter().map(Problem::from).collect()
    }

    fn commits() -> Vec<Problem> {
        let (generation, routes) = (model::Generation(1), model::RouteRevision(1));
        let artifact = model::Digest::of_bytes(b"");
        let stores = [
            StoreError::Full { cause: cause() },
            StoreError::Busy { cause: cause() },
            StoreError::Unreadable { subject: "a row".into(), cause: cause() },
            StoreError::Failed { cause: cause() },
        ];
        let mut all = vec![
            CommitError::StaleTerm { asked: (model::Term(1), "a".parse().unwrap()), held: None },
            CommitError::Conflict {
                key: key(),
                expected: store::Version::Absent,
                found: store::Version::Intent(model::IntentSeq(1)),
            },
            CommitError::StaleGeneration { asked: generation, next: generation },
            CommitError::StaleRoutes { asked: routes, stored: routes },
            CommitError::Refused { key: key(), why: Refusal::MissingArtifact { artifact } },
            CommitError::Refused { key: key(), why: Refusal::OtherService { other: key() } },
        ];
        all.extend(stores.map(CommitError::Store));
        all.into_iter().map(|error| RequestError::Commit(error).into()).collect()
    }

    fn contents() -> Vec<Problem> {
        let refused = |code| {
            let message = "cannot be taken".into();
            UploadError::Refused(content::intake::Error { code, entry: None, message }).into()
        };
        let uploads = content::intake::Code::ALL.into_iter().map(refused);
        uploads.chain([UploadError::Interrupted(cause()).into()]).collect()
    }

    fn machines() -> Vec<Problem> {
        use crate::{
            CollectError, OperatorError,
            api::sessions::{ExecError, LogError},
            backup::BackupError,
        };
        let instance: model::InstanceId = "default.api.0.7".parse().unwrap();
        let io = || std::io::Error::other("test");
        let path = std::path::PathBuf::from("/data");
        let unopened = store::OpenError::Io { path: path.clone(), source: io() };
        vec![
            OperatorError::NoNode("local".parse().unwrap()).into(),
            OperatorError::NoToken("ci".parse().unwrap()).into(),
            OperatorError::NameTaken("ci".parse().unwrap()).into(),
            OperatorError::NameReserved.into(),
            OperatorError::TooMany.into(),
            CollectError::Unknown(cause()).into(),
            CollectError::Inventory(cause()).into(),
            LogError::Unknown(instance.clone()).into(),
            LogError::Failed(instance.clone(), cause()).into(),
            LogError::Away(instance, cause()).into(),
            ExecError::NotRunning(cause()).into(),
            ExecError::Failed(cause()).into(),
            BackupError::Copy(unopened).into(),
            BackupError::Io { path, source: io() }.into(),
        ]
    }

    fn denials() -> Vec<Problem> {
        use decide::access::Denied;
        use model::access::Role;
        let project = || "demo".parse().unwrap();
        let all = [
            Denied::Role { has: Role::Viewer, needs: Role::Admin },
            Denied::OtherProject { of: project(), asked: project() },
            Denied::WholeCluster { of: project() },
            Denied::Process(key()),
        ];
        all.into_iter().map(Problem::from).collect()
    }

    #[test]
    fn every_kind_of_problem_says_what_to_do() {
        let kinds = kinds();
        assert!(kinds.len() > 80, "{}", kinds.len());
        let mute: Vec<String> = kinds
            .into_iter()
            .map(|problem| serde_json::to_value(problem.said()).unwrap())
            .filter(|said| {
                let help = said["help"].as_str().unwrap_or_default();
                help.len() < 10 || said["message"].as_str().is_some_and(|message| message == help)
            })
            .map(|said| said.to_string())
            .collect();
        assert!(mute.is_empty(), "{} say nothing of it:\n{}", mute.len(), mute.join("\n"));
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
