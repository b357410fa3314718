//! Worlds and records as their views: pure, so that every route shows the same thing in the same words.

use std::net::SocketAddr;

use decide::{
    monitor::{self, Alert, Broken, Checkup, Tally, Windows},
    status,
    world::World,
};
use model::{
    ProjectName, ServiceKey, Timestamp,
    deployment::Deployment,
    event::Recorded,
    instance::{Placement, Stage},
    observation::{InstanceReport, Observation},
    plan::Report,
    service::Service,
    spec::Domain,
    status::ServiceHealth,
};

use crate::{
    Issue,
    views::{self, Time},
};

pub fn service(world: &World, edge: Option<SocketAddr>, now: Timestamp) -> views::Service {
    let summary = status::summary(world, now);
    let declared = world.service.known();
    let (kept, placed): (Vec<_>, Vec<_>) =
        world.plan.placements.values().partition(|placement| matches!(placement.stage, Stage::Kept));
    views::Service {
        project: world.key.project.clone(),
        name: world.key.name.clone(),
        kind: declared.map(|service| service.spec.kind()),
        state: summary.state,
        message: summary.message,
        generation: declared.map_or(0, |service| service.generation.0),
        revision: declared.map_or(0, |service| service.intent_seq.0),
        replicas: views::Replicas { desired: summary.desired, ready: summary.ready },
        deployment: shown_deployment(world).map(brief),
        urls: declared.map(|service| urls(domains(world, service), edge)).unwrap_or_default(),
        instances: placed.into_iter().map(|placement| instance(world, placement)).collect(),
        kept: kept.into_iter().map(|placement| instance(world, placement)).collect(),
        owner: declared.map(|service| service.owner.to_string()).unwrap_or_default(),
        scale: declared.and_then(|service| service.scale),
        warnings: warnings(world, now),
    }
}

pub fn projects<'a>(
    checkups: impl IntoIterator<Item = (&'a ServiceKey, &'a Checkup)>,
) -> Vec<views::Project> {
    let shown = |(name, project): (ProjectName, monitor::Project)| {
        let count = |health| project.services.get(&health).copied().unwrap_or_default();
        views::Project {
            name,
            health: project.health,
            services: project.services.values().sum(),
            healthy: count(ServiceHealth::Healthy),
            degraded: count(ServiceHealth::Degraded),
            unhealthy: count(ServiceHealth::Unhealthy),
            stopped: count(ServiceHealth::Stopped),
            unknown: count(ServiceHealth::Unknown),
            message: project.reason,
        }
    };
    monitor::projects(checkups).into_iter().map(shown).collect()
}

pub fn checkup(world: &World, checkup: &Checkup, issue: Option<&Issue>) -> views::ServiceCheckup {
    let ServiceKey { project, name } = &world.key;
    let Windows { ten_minutes, hour, day, total } = checkup.restarts;
    let Broken { links, missing, files } = checkup.broken;
    views::ServiceCheckup {
        project: project.clone(),
        name: name.clone(),
        kind: world.service.known().map(|service| service.spec.kind()),
        health: checkup.health,
        state: checkup.summary.state,
        message: checkup.reason.clone(),
        replicas: views::Replicas { desired: checkup.summary.desired, ready: checkup.summary.ready },
        last_issue: issue.map(|issue| issue.message.clone()),
        last_issue_at: issue.map(|issue| Time(issue.at)),
        restarts: views::RestartCounts { ten_minutes, hour, day, total },
        restart_warnings: checkup.alerts.iter().map(warning).collect(),
        stuck_deployment: checkup.stuck.as_ref().map(|stuck| stuck.deployment.clone()),
        broken_symlinks: links,
        missing_deployments: missing,
        damaged_files: files,
    }
}

fn warning(alert: &Alert) -> views::RestartWarning {
    let ServiceKey { project, name } = &alert.instance.service;
    let instance = &alert.instance;
    views::RestartWarning {
        instance: instance.clone(),
        restarts: alert.restarts as u64,
        message: alert.to_string(),
        logs: format!("/api/v1/services/{project}/{name}/logs?instance={instance}&tail=100"),
    }
}

pub fn pass(tally: Tally) -> views::PassSummary {
    let Tally { checked, drift, repaired, restarted, removed, skipped, failed } = tally;
    views::PassSummary { checked, drift, repaired, restarted, removed, skipped, failed }
}

/// The open one, else the active one, else the latest.
fn shown_deployment(world: &World) -> Option<&Deployment> {
    world.open_deployment().or_else(|| world.active_deployment()).or_else(|| world.latest_deployment())
}

fn brief(deployment: &Deployment) -> views::DeploymentBrief {
    views::DeploymentBrief {
        id: deployment.id.clone(),
        number: deployment.number,
        phase: deployment.phase,
        progress: deployment.progress(),
    }
}

fn warnings(world: &World, now: Timestamp) -> Vec<String> {
    let alerts = monitor::alerts(world, now);
    let alerts = alerts.iter().map(ToString::to_string);
    alerts.chain(monitor::left_alone(world)).chain(monitor::withouts(world)).collect()
}

/// Of the release that is the target: after a restoration the declared ones are those of the release that failed.
fn domains<'a>(world: &'a World, service: &'a Service) -> &'a [Domain] {
    let target = service.target.and_then(|target| world.releases.get(&target));
    target.map_or(&service.spec.domains, |release| &release.domains)
}

fn urls(domains: &[Domain], edge: Option<SocketAddr>) -> Vec<String> {
    let Some(edge) = edge else { return Vec::new() };
    let port = if edge.port() == 80 { String::new() } else { format!(":{}", edge.port()) };
    let url = |domain: &Domain| {
        let path = if domain.path == "/" { "" } else { &domain.path };
        format!("http://{}{port}{path}", domain.host)
    };
    domains.iter().map(url).collect()
}

pub fn instance(world: &World, placement: &Placement) -> views::Instance {
    let report = world.report(&placement.id);
    let own = |text: Option<&String>| text.cloned();
    let release = world.releases.get(&placement.release);
    let is_site = release.is_some_and(|release| release.workload.kind() == model::spec::Kind::Site);
    views::Instance {
        id: placement.id.clone(),
        ordinal: placement.id.slot.0,
        node: placement.node.clone(),
        state: state_word(world, placement, report).into(),
        ready: report.is_some_and(|report| report.ready),
        pid: report.and_then(|report| report.pid),
        address: own(report.and_then(|report| report.address.as_ref())),
        // A release may be deployed again: what runs it belongs to the newest.
        deployment: world
            .deployment_of(&placement.release)
            .map(|deployment| deployment.id.clone())
            .or_else(|| Some(placement.deployment.clone())),
        restarts: report
            .map_or(placement.attempts.total, |report| report.attempts.total.max(placement.attempts.total)),
        release: placement.release,
        message: message(world, placement, report),
        current: is_site.then(|| report.is_some_and(|report| report.current)),
        folder: own(report.and_then(|report| report.folder.as_ref())),
        started_at: report.and_then(|report| report.started_at).map(Time),
        last_exit: report.and_then(|report| report.last_exit.as_ref()).map(|exit| exit.to_string()),
    }
}

/// What its node says of it; where that is nothing, that its node does not take what is decided.
fn message(world: &World, placement: &Placement, report: Option<&InstanceReport>) -> String {
    let told = report.map(|report| report.message.clone()).filter(|message| !message.is_empty());
    let refusal = || world.refusal(&placement.node).map(|refusal| refusal.to_string());
    told.or_else(refusal).unwrap_or_default()
}

fn state_word(world: &World, placement: &Placement, report: Option<&InstanceReport>) -> &'static str {
    match &placement.stage {
        Stage::Kept => "kept",
        Stage::Removing { .. } => "stopping",
        Stage::Retiring { .. } => "retiring",
        Stage::Run => match report {
            Some(report) => report.state.word(),
            // Its node has looked at everything and has it still before it.
            None if world.is_gone(&placement.id) => "pending",
            None => "unknown",
        },
    }
}

pub fn deployment(deployment: &Deployment) -> views::Deployment {
    views::Deployment {
        id: deployment.id.clone(),
        project: deployment.service.project.clone(),
        service: deployment.service.name.clone(),
        number: deployment.number,
        status: deployment.phase.status().into(),
        phase: deployment.phase,
        progress: deployment.progress(),
        cause: deployment.cause.to_string(),
        release: deployment.release,
        started_at: Time(deployment.started_at),
        phase_updated_at: Time(deployment.phase_updated_at),
        ended_at: deployment.ended_at.map(Time),
        message: deployment.message.clone(),
        metadata: deployment.metadata.clone(),
    }
}

pub fn event(recorded: &Recorded) -> views::Event {
    let event = &recorded.event;
    views::Event {
        seq: recorded.seq,
        at: Time(recorded.at),
        kind: event.kind.word().into(),
        project: event.service.as_ref().map(|key| key.project.clone()),
        service: event.service.as_ref().map(|key| key.name.clone()),
        instance: event.instance.clone(),
        deployment: event.deployment.clone(),
        message: event.message.clone(),
    }
}

pub fn steps(report: &Report) -> Vec<views::Step> {
    report
        .steps()
        .into_iter()
        .filter(|(_, step)| !step.changed.is_empty() || !step.waiting.is_empty())
        .map(|(name, step)| views::Step {
            step: name.into(),
            changed: step.changed.iter().map(ToString::to_string).collect(),
            waiting: step.waiting.iter().map(ToString::to_string).collect(),
        })
        .collect()
}

pub fn spec(service: &Service) -> views::Spec {
    views::Spec {
        project: service.key.project.clone(),
        name: service.key.name.clone(),
        generation: service.generation.0,
        revision: service.intent_seq.0,
        spec: service.spec.clone(),
    }
}

/// What differs at one node, of all services or of one.
pub fn drift<'a>(
    observation: &'a Observation,
    only: Option<&'a ServiceKey>,
) -> impl Iterator<Item = views::Drift> + 'a {
    let reports =
        observation.instances.values().filter(move |report| only.is_none_or(|key| report.id.service == *key));
    reports.flat_map(|report| {
        report.drift.iter().map(|drift| views::Drift {
            project: report.id.service.project.clone(),
            service: report.id.service.name.clone(),
            instance: report.id.clone(),
            path: drift.path.clone(),
            declared: drift.declared.clone(),
            observed: drift.observed.clone(),
            since: Time(drift.since),
            by: drift.by.clone(),
            stuck: drift.stuck.clone(),
        })
    })
}
