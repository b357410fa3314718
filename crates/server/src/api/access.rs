//! Who may do what, for each route of the table, before its handler runs. What the table does not allow is denied; what
//! is allowed has a [`Permit`], without which the handlers can do nothing.
//!
//! Refuses to know: how somebody was recognised; that is `guard`.

use std::{collections::BTreeMap, fmt};

use axum::{
    extract::{FromRequestParts, Path, Request},
    http::{StatusCode, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use decide::{
    access::{Bearer, Denied, Permit, Place, authorize},
    intent::Refused,
};
use model::{DeploymentId, InstanceId, ProjectName, ServiceKey, access::Role};

use super::{Api, explain, guard, problem::Problem};
use crate::RequestError;

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody, without a token.
    Open,
    Needs(Role, Scope),
}

/// What a route is about. A token of one project sees nothing of others: what is theirs is as if it were not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Something that is nobody's; or a list, from which the handler leaves out what is not for the token.
    Anywhere,
    /// The cluster as a whole: not for a token of one project.
    Cluster,
    /// `{project}/{name}` of the path.
    Service,
    /// The service of the deployment `{id}`.
    Deployment,
    /// The service of the instance `{id}`.
    Instance,
    /// The service of the recorded pass `{seq}`.
    Pass,
    /// What the body names: checked where the request is carried out.
    Body,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (role, scope) = match self {
            Self::Open => return f.write_str("Needs no token."),
            Self::Needs(role, scope) => (role, scope),
        };
        let about = match scope {
            Scope::Anywhere => "of any project",
            Scope::Cluster => "of the whole cluster",
            Scope::Service | Scope::Deployment | Scope::Instance | Scope::Pass | Scope::Body => {
                "of its project or of the whole cluster"
            }
        };
        write!(f, "For the role {role} and above, {about}.")
    }
}

/// Lets a request pass to its handler, with its permit.
pub async fn check(api: &Api, access: Option<Access>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let checked = match access {
        Some(Access::Open) => Ok(None),
        Some(Access::Needs(role, scope)) => permit(api, role, scope, &mut parts).await.map(Some),
        None => Err(nobody()),
    };
    match checked {
        Ok(permit) => {
            if let Some(permit) = permit {
                parts.extensions.insert(permit);
            }
            next.run(Request::from_parts(parts, body)).await
        }
        Err(problem) => problem.into_response(),
    }
}

fn nobody() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "not_allowed",
        "nobody may do this",
        "GET /api/v1/openapi.json says who may do what",
    )
}

async fn permit(api: &Api, role: Role, scope: Scope, parts: &mut Parts) -> Result<Permit, Problem> {
    let Some(bearer) = parts.extensions.get::<Bearer>().cloned() else { return Err(guard::no_token()) };
    // Only for a token of one project does it matter whose something is.
    let owner = match bearer.project() {
        None => None,
        Some(_) => owner(api, scope, parts).await?,
    };
    let place = match (scope, &owner) {
        (Scope::Cluster, _) => Place::Cluster,
        (_, Some(Owner { project, .. })) => Place::Project(project),
        (_, None) => Place::Anywhere,
    };
    authorize(bearer, role, place).map_err(|denied| match (denied, owner) {
        (Denied::OtherProject { .. }, Some(Owner { hidden, .. })) => hidden,
        (denied, _) => denied.into(),
    })
}

/// Whose something is, and what is said to whom it is nothing.
struct Owner {
    project: ProjectName,
    hidden: Problem,
}

/// `None`: nobody's, or it is not there, which the handler says in the same words.
async fn owner(api: &Api, scope: Scope, parts: &mut Parts) -> Result<Option<Owner>, Problem> {
    let named = match Path::<BTreeMap<String, String>>::from_request_parts(parts, &()).await {
        Ok(Path(named)) => named,
        Err(_) => return Ok(None),
    };
    let name = |name: &str| named.get(name).map(String::as_str).unwrap_or_default();
    Ok(match scope {
        Scope::Anywhere | Scope::Cluster | Scope::Body => None,
        Scope::Service => match (name("project").parse(), name("name").parse()) {
            (Ok(project), Ok(name)) => {
                let key = ServiceKey { project, name };
                let hidden = Refused::NotDeclared(key.clone()).into();
                Some(Owner { project: key.project, hidden })
            }
            (_, _) => None,
        },
        Scope::Deployment => match name("id").parse::<DeploymentId>() {
            Ok(id) => {
                let stored = api.control.store().deployment(&id).await?.map(|deployment| deployment.service);
                let service = match stored {
                    Some(service) => Some(service),
                    // It may be gone with its service.
                    None => {
                        let events = api.control.store().events_of_deployment(&id).await?;
                        events.into_iter().find_map(|recorded| recorded.event.service)
                    }
                };
                let hidden = RequestError::NoDeployment(id).into();
                service.map(|service| Owner { project: service.project, hidden })
            }
            Err(_) => None,
        },
        Scope::Instance => name("id").parse::<InstanceId>().ok().map(|id| {
            let hidden = explain::no_such_instance(&id);
            Owner { project: id.service.project, hidden }
        }),
        Scope::Pass => match name("seq").parse() {
            Ok(seq) => {
                let found = api.control.store().journal(seq).await?;
                let hidden = explain::no_such_pass(seq);
                found.map(|pass| Owner { project: pass.line.key.project, hidden })
            }
            Err(_) => None,
        },
    })
}

/// What a handler takes to do anything: the permit of its request.
#[derive(Debug)]
pub struct Allowed(pub Permit);

impl FromRequestParts<Api> for Allowed {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        parts.extensions.get::<Permit>().cloned().map(Self).ok_or_else(nobody)
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let message = denied.to_string();
        let (code, help) = match denied {
            Denied::Role { needs, .. } => {
                let help = format!(
                    "ask for a token with the role {needs}: setpoint token create NAME --role {needs}"
                );
                ("role_too_low", help)
            }
            Denied::OtherProject { asked, .. } => {
                let help = format!("use a token for {asked}, or one of the whole cluster");
                ("other_project", help)
            }
            Denied::WholeCluster { .. } => {
                ("whole_cluster", "use a token that was made without --project".to_owned())
            }
            Denied::Process(_) => {
                let help = "use the token of the data folder on the machine itself, a container instead of a process, \
                            or let the machine's owner set `tokens.processes = true` in setpoint.toml";
                ("process_not_allowed", help.to_owned())
            }
        };
        Self::new(StatusCode::FORBIDDEN, code, message, help)
    }
}
