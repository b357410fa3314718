//! Waiting for what was begun: deployments until their outcome, services until they are as asked.
//!
//! Level-triggered: each look asks for the whole state again, so that a server that restarts in between, or an
//! event that is missed, changes nothing but the time.

use std::time::Duration;

use futures_util::future::join_all;
use model::{
    DeploymentId, InstanceId, Millis, ServiceKey, deployment::Phase, spec::Kind, status::ServiceState,
};
use server::views::{self, AppliedService, Deployment, Service};
use tokio::time::{Instant, sleep};

use super::{
    client::{Client, Error, encode},
    progress::{Display, Phases},
    text,
};

const LOOK_EVERY: Duration = Duration::from_millis(150);
/// What failed for as long, without a deployment in sight that could change it, is told as failed.
const TROUBLE_HOLDS: Duration = Duration::from_secs(5);
/// Of the log of an instance that failed.
const LAST_LINES: u32 = 20;

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaited {
    pub service: ServiceKey,
    pub goal: Goal,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// This deployment is active.
    Active(DeploymentId),
    /// Everything is as declared.
    Converged,
    /// As many instances as wanted are ready, and none of these is among them: of a service whose newest release
    /// failed and that serves the one before, no more can be asked.
    Serving {
        instead_of: Vec<InstanceId>,
    },
    Stopped,
    /// The service is no longer there.
    Gone,
}

impl Awaited {
    pub fn of(service: &AppliedService, asked: Goal) -> Self {
        let key = ServiceKey::new(service.project.clone(), service.name.clone());
        let goal = match (asked, &service.deployment) {
            // The deployment that is told of is the one that the request cancelled.
            (asked @ (Goal::Stopped | Goal::Gone), _) => asked,
            (_, Some(id)) if service.changed => Goal::Active(id.clone()),
            (asked, _) => asked,
        };
        Self { service: key, goal }
    }
}

/// Why waiting did not end well. Printed as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NotDone {
    message: String,
    /// The last lines of the instance that failed, safe to print.
    pub log: Vec<String>,
}

/// Waits for all of it at once; gives what did not come about.
pub async fn wait(client: &Client, awaited: &[Awaited], limit: Millis, display: &Display) -> Vec<NotDone> {
    let until = Instant::now() + limit.as_duration();
    let each = awaited.iter().map(|one| async move {
        let phases = display.deployment(&one.service.to_string());
        let mut watch = Watch { client, service: &one.service, until, limit, phases };
        let ended = watch.reach(&one.goal).await;
        watch.phases.end();
        ended.err()
    });
    join_all(each).await.into_iter().flatten().collect()
}

struct Watch<'a> {
    client: &'a Client,
    service: &'a ServiceKey,
    until: Instant,
    limit: Millis,
    phases: Phases,
}

impl Watch<'_> {
    async fn reach(&mut self, goal: &Goal) -> Result<(), NotDone> {
        match goal {
            Goal::Active(id) => self.deployment(id).await,
            Goal::Converged | Goal::Serving { .. } | Goal::Stopped | Goal::Gone => self.state(goal).await,
        }
    }

    async fn deployment(&mut self, id: &DeploymentId) -> Result<(), NotDone> {
        let mut instances = Vec::new();
        for first in std::iter::once(true).chain(std::iter::repeat(false)) {
            let Some(found) = self.look::<Deployment>(&format!("/deployments/{id}")).await? else {
                return Err(self.not_done(format!("deployment {id} is no longer known")));
            };
            self.phases.reached(found.number, found.phase, found.progress);
            match found.phase {
                Phase::Active | Phase::Superseded => return Ok(()),
                // It was cancelled by the very request, which began nothing in its place.
                Phase::Cancelled if first => return self.state(&Goal::Converged).await,
                Phase::Failed | Phase::Cancelled | Phase::RolledBack => {
                    return Err(self.ended(&found, instances).await);
                }
                Phase::Queued
                | Phase::PullingSource
                | Phase::Building
                | Phase::CopyingFiles
                | Phase::CreatingSymlinks
                | Phase::Starting
                | Phase::UpdatingRoutes
                | Phase::HealthCheck => {}
            }
            self.note_instances(id, &mut instances).await;
            self.pause(&format!("deployment #{} is still in {}", found.number, found.phase)).await?;
        }
        Ok(())
    }

    /// Which instances the deployment has had: once it has failed they may be gone, and only their logs are left.
    async fn note_instances(&self, id: &DeploymentId, known: &mut Vec<InstanceId>) {
        let Ok(Some(service)) = self.service_now().await else { return };
        let of_it = service.instances.into_iter().filter(|instance| instance.deployment.as_ref() == Some(id));
        for instance in of_it.map(|instance| instance.id) {
            if !known.contains(&instance) {
                known.push(instance);
            }
        }
    }

    /// Told once the release before it serves again, or the time is over.
    async fn ended(&mut self, deployment: &Deployment, mut instances: Vec<InstanceId>) -> NotDone {
        self.note_instances(&deployment.id, &mut instances).await;
        let log = self.last_lines(&instances).await;
        let settled = self.settle().await;
        let why = if deployment.message.is_empty() { "no reason is recorded" } else { &deployment.message };
        let at = match deployment.metadata.get("failed_phase").and_then(serde_json::Value::as_str) {
            Some(phase) if deployment.phase == Phase::Failed => format!(" in {phase}"),
            Some(_) | None => String::new(),
        };
        let message = format!("deployment #{} {}{at}: {why}{settled}", deployment.number, deployment.phase);
        NotDone { log, ..self.not_done(message) }
    }

    async fn settle(&mut self) -> &'static str {
        loop {
            match self.service_now().await {
                Ok(Some(service)) if service.state == ServiceState::Progressing => {
                    self.phases.waiting(&service.message);
                }
                Ok(Some(service)) if service.replicas.ready > 0 => return "; what was before it serves",
                Ok(_) => return "; nothing serves",
                Err(error) if error.is_absence() => {}
                Err(_) => return "",
            }
            if self.pause("").await.is_err() {
                return "; what was before it does not serve yet";
            }
        }
    }

    async fn state(&mut self, goal: &Goal) -> Result<(), NotDone> {
        let mut trouble: Option<(Instant, ServiceState)> = None;
        loop {
            let found = self.look::<views::Services>(&self.path()).await?;
            let Some(service) = found.and_then(|found| found.services.into_iter().next()) else {
                return match goal {
                    Goal::Gone => Ok(()),
                    Goal::Active(_) | Goal::Converged | Goal::Serving { .. } | Goal::Stopped => {
                        Err(self.not_done("it is no longer declared".into()))
                    }
                };
            };
            let state = service.state;
            if is_reached(goal, &service) {
                self.phases.waiting(&state.to_string());
                return Ok(());
            }
            self.phases.waiting(&format!(
                "{state}{}{}",
                if service.message.is_empty() { "" } else { ": " },
                service.message
            ));
            trouble = match (state, trouble) {
                (ServiceState::Failed | ServiceState::Degraded, Some((since, before))) if before == state => {
                    Some((since, state))
                }
                (ServiceState::Failed | ServiceState::Degraded, _) => Some((Instant::now(), state)),
                (
                    ServiceState::Converged
                    | ServiceState::Progressing
                    | ServiceState::Stopped
                    | ServiceState::Unknown,
                    _,
                ) => None,
            };
            if matches!(goal, Goal::Converged | Goal::Serving { .. })
                && trouble.is_some_and(|(since, _)| since.elapsed() >= TROUBLE_HOLDS)
            {
                let failed =
                    service.instances.iter().filter(|i| !i.ready).map(|i| i.id.clone()).collect::<Vec<_>>();
                let log = self.last_lines(&failed).await;
                return Err(NotDone { log, ..self.not_done(so_it_is(&service)) });
            }
            self.pause(&lacks(goal, &service)).await?;
        }
    }

    /// `None`: it is not there. While the server is away this waits for it.
    async fn look<T: serde::de::DeserializeOwned>(&mut self, path: &str) -> Result<Option<T>, NotDone> {
        loop {
            match self.client.view(path).await {
                Ok(view) => return Ok(Some(view)),
                Err(error) if error.status() == Some(404) => return Ok(None),
                Err(error) if error.is_absence() => {
                    self.phases.waiting("waiting for the server to answer again");
                    self.pause(&error.to_string()).await?;
                }
                Err(error) => return Err(self.not_done(error.to_string())),
            }
        }
    }

    async fn service_now(&self) -> Result<Option<Service>, Error> {
        match self.client.view(&self.path()).await {
            Ok(views::Services { services, .. }) => Ok(services.into_iter().next()),
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn path(&self) -> String {
        format!("/services/{}", self.service)
    }

    /// Fails when the time is over.
    async fn pause(&self, still: &str) -> Result<(), NotDone> {
        if Instant::now() + LOOK_EVERY > self.until {
            return Err(self.not_done(format!("not done after {}: {still}", self.limit)));
        }
        sleep(LOOK_EVERY).await;
        Ok(())
    }

    /// The log is a help beside the reason; one that cannot be read takes nothing from it.
    async fn last_lines(&self, instances: &[InstanceId]) -> Vec<String> {
        for instance in instances.iter().rev() {
            let id = encode(&instance.to_string());
            let path = format!("/services/{}/logs?instance={id}&tail={LAST_LINES}", self.service);
            let Ok(mut lines) = self.client.follow(&path, "text/plain").await else { continue };
            let mut last = Vec::new();
            while let Ok(Some(line)) = lines.next().await {
                last.push(text::log_line(&line));
            }
            if !last.is_empty() {
                last.insert(0, format!("the last lines of {instance}:"));
                return last;
            }
        }
        Vec::new()
    }

    fn not_done(&self, message: String) -> NotDone {
        NotDone { message: format!("{}: {}", self.service, text::line(&message)), log: Vec::new() }
    }
}

fn so_it_is(service: &views::Service) -> String {
    match service.message.as_str() {
        "" => format!("it is {}", service.state),
        message => format!("it is {}: {message}", service.state),
    }
}

/// How it is, and what of the goal is missing.
fn lacks(goal: &Goal, service: &views::Service) -> String {
    let there = service.instances.len();
    let wanted = service.replicas.desired;
    let still =
        |old: &&views::Instance| matches!(goal, Goal::Serving { instead_of } if instead_of.contains(&old.id));
    let missing = match goal {
        Goal::Active(_) => "its deployment shall be active".to_owned(),
        Goal::Stopped => "it shall be stopped".to_owned(),
        Goal::Gone => format!("it shall be gone, and has {there} instances still"),
        Goal::Serving { .. } if service.instances.iter().any(|old| still(&old)) => {
            let old: Vec<String> =
                service.instances.iter().filter(still).map(|old| old.id.to_string()).collect();
            format!("{} shall be replaced", old.join(", "))
        }
        Goal::Converged | Goal::Serving { .. } if there as u64 > u64::from(wanted) => {
            format!("{wanted} instances are wanted, and {there} are there")
        }
        Goal::Converged | Goal::Serving { .. } => {
            format!("{} of {wanted} are ready", service.replicas.ready)
        }
    };
    format!("{}; {missing}", so_it_is(service))
}

/// Right after a request the server may still tell of the state before: what is too many counts as not yet.
fn is_reached(goal: &Goal, service: &views::Service) -> bool {
    let wanted = usize::try_from(service.replicas.desired).unwrap_or(usize::MAX);
    let enough = !service.kind.is_some_and(Kind::runs) || service.instances.len() <= wanted;
    match goal {
        Goal::Active(_) | Goal::Gone => false,
        Goal::Stopped => service.state == ServiceState::Stopped,
        Goal::Converged => {
            let as_declared = service.state == ServiceState::Converged || is_as_declared(service);
            (as_declared || is_stopped(service)) && enough
        }
        Goal::Serving { instead_of } => {
            let still = service.instances.iter().any(|instance| instead_of.contains(&instance.id));
            let serves =
                service.state == ServiceState::Degraded && service.replicas.ready == service.replicas.desired;
            (service.state == ServiceState::Converged || serves || is_stopped(service)) && enough && !still
        }
    }
}

/// Nothing of it shall run, and nothing does: a declaration that changes while a service is stopped is carried out
/// when it is started, and one that has no release yet waits for a deployment.
fn is_stopped(service: &views::Service) -> bool {
    let no_release = service.deployment.as_ref().is_none_or(|last| last.phase == Phase::Cancelled);
    let nothing_wanted = service.replicas.desired == 0 || no_release;
    service.state == ServiceState::Stopped && nothing_wanted && service.instances.is_empty()
}

/// It is degraded for nothing but what its declaration leaves alone: that is told, and nothing that waiting could
/// change.
fn is_as_declared(service: &views::Service) -> bool {
    service.state == ServiceState::Degraded
        && service.replicas.ready == service.replicas.desired
        && service.warnings.contains(&service.message)
}
