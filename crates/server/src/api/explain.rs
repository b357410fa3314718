//! Why something is as it is: the reasons that the planner stored, in its words. Nothing is made up afterwards; a
//! replay runs the planner again on the world that was recorded.

use std::sync::Arc;

use axum::{Json, extract::State};
use decide::{intent::Refused, status, world::World};
use model::{
    DeploymentId, InstanceId, ServiceKey, Timestamp,
    deployment::Deployment,
    plan::{Decision, Report, StepReport},
    reason::{Change, Waiting},
};
use serde::Deserialize;
use store::JournalLine;

use super::{
    Api,
    problem::Problem,
    show,
    take::{Asked, Key, OfDeployment, OfInstance, OfPass},
};
use crate::{
    Input, RequestError,
    views::{self, Explanation, Time},
};

/// Recorded passes shown.
const SHOWN: usize = 10;
/// Recorded passes looked through for those that say something about one instance or deployment.
const LOOKED_THROUGH: u32 = 200;

/// What is explained: decides which reasons belong to it.
enum Subject<'a> {
    Service,
    Instance {
        id: &'a InstanceId,
        placed: bool,
    },
    /// All reasons while it is open: the work is its.
    Deployment {
        id: &'a DeploymentId,
        opened: Timestamp,
        ended: Option<Timestamp>,
    },
}

pub async fn service(State(api): State<Api>, Key(key): Key) -> Result<Json<Explanation>, Problem> {
    let world = api.control.with_brain(|brain| brain.world(&key).cloned());
    let summary = match &world {
        Some(world) => summary(world, api.control.now()),
        None => "it is not declared".into(),
    };
    let mut explanation = explain(&api, &key, key.to_string(), summary, &Subject::Service).await?;
    explanation.output = world.as_ref().map(|world| last_lines(world, None)).unwrap_or_default();
    if world.is_none() && explanation.journal.is_empty() {
        return Err(Refused::NotDeclared(key).into());
    }
    Ok(Json(explanation))
}

/// Of the instance, or of the first that keeps dying; of one that is gone, what its failed deployment keeps.
fn last_lines(world: &World, id: Option<&InstanceId>) -> Vec<String> {
    let seen = |placed: &&InstanceId| id.is_none_or(|id| id == *placed);
    let mut reports = world.plan.placements.keys().filter(seen).filter_map(|placed| world.report(placed));
    if let Some(told) = reports.find(|told| !told.last_lines.is_empty()) {
        return told.last_lines.clone();
    }
    let Some(id) = id else { return Vec::new() };
    let of_it = |deployment: &&Deployment| {
        deployment.metadata.get("output_of").and_then(|of| of.as_str()) == Some(id.to_string().as_str())
    };
    world.deployments.iter().rfind(of_it).map(kept_lines).unwrap_or_default()
}

fn kept_lines(deployment: &Deployment) -> Vec<String> {
    let lines = deployment.metadata.get("output").and_then(|output| output.as_array());
    lines.into_iter().flatten().filter_map(|line| Some(line.as_str()?.to_owned())).collect()
}

fn summary(world: &World, now: Timestamp) -> String {
    let status::Summary { state, message, desired, ready } = status::summary(world, now);
    let counted = format!("{state}, {ready} of {desired} ready");
    if message.is_empty() { counted } else { format!("{counted}: {message}") }
}

pub async fn instance(
    State(api): State<Api>,
    OfInstance(id): OfInstance,
) -> Result<Json<Explanation>, Problem> {
    let world = api.control.with_brain(|brain| brain.world(&id.service).cloned());
    let placed = world.as_ref().and_then(|world| Some((world, world.plan.placements.get(&id)?)));
    let summary = match placed {
        Some((world, placement)) => told(&show::instance(world, placement)),
        None => "it is gone; what was decided about it is in the journal".into(),
    };
    let is_placed = placed.is_some();
    let mut explanation = explain(
        &api,
        &id.service,
        id.to_string(),
        summary,
        &Subject::Instance { id: &id, placed: is_placed },
    )
    .await?;
    explanation.output = world.as_ref().map(|world| last_lines(world, Some(&id))).unwrap_or_default();
    if !is_placed && explanation.journal.is_empty() {
        return Err(no_such_instance(&id));
    }
    Ok(Json(explanation))
}

pub fn no_such_instance(id: &InstanceId) -> Problem {
    Problem::not_found(
        "no_such_instance",
        format!("no instance {id} is known"),
        "`setpoint status SERVICE` lists them",
    )
}

pub fn no_such_pass(seq: u64) -> Problem {
    Problem::not_found(
        "no_such_pass",
        format!("pass {seq} was never recorded, or is no longer kept"),
        "`setpoint explain SERVICE` lists the recorded passes",
    )
}

fn told(instance: &views::Instance) -> String {
    let ready = if instance.ready { "ready" } else { "not ready" };
    let mut told = format!("{} and {ready} at {}", instance.state, instance.node);
    if instance.restarts > 0 {
        told.push_str(&format!(", {} restarts", instance.restarts));
    }
    if let Some(exit) = &instance.last_exit {
        told.push_str(&format!(", the last run ended with {exit}"));
    }
    if !instance.message.is_empty() {
        told.push_str(&format!(": {}", instance.message));
    }
    told
}

pub async fn deployment(
    State(api): State<Api>,
    OfDeployment(id): OfDeployment,
) -> Result<Json<Explanation>, Problem> {
    let Some(found) = api.control.store().deployment(&id).await? else { return gone(&api, &id).await };
    let subject = Subject::Deployment { id: &id, opened: found.started_at, ended: found.ended_at };
    let explanation = explain(&api, &found.service, id.to_string(), outcome(&found), &subject).await?;
    Ok(Json(Explanation { output: kept_lines(&found), ..explanation }))
}

/// A deployment goes with its service; its events and the recorded passes stay.
async fn gone(api: &Api, id: &DeploymentId) -> Result<Json<Explanation>, Problem> {
    let events = api.control.store().events_of_deployment(id).await?;
    let of_service = events.iter().find_map(|recorded| recorded.event.service.clone());
    let (Some(key), Some(first), Some(last)) = (of_service, events.first(), events.last()) else {
        return Err(RequestError::NoDeployment(id.clone()).into());
    };
    let subject = Subject::Deployment { id, opened: first.at, ended: Some(last.at) };
    let summary = format!("it went with {key}, which was deleted; the last of it: {}", last.event.message);
    let explanation = explain(api, &key, id.to_string(), summary, &subject).await?;
    Ok(Json(Explanation { steps: Vec::new(), holds_until: None, ..explanation }))
}

fn outcome(deployment: &Deployment) -> String {
    let Deployment { number, phase, cause, service, message, .. } = deployment;
    let progress = deployment.progress();
    let told = format!("#{number} of {service}, by {cause}, is {phase} ({progress}%)");
    if message.is_empty() { told } else { format!("{told}: {message}") }
}

async fn explain(
    api: &Api,
    key: &ServiceKey,
    subject: String,
    summary: String,
    about: &Subject<'_>,
) -> Result<Explanation, Problem> {
    let latest =
        api.control.with_brain(|brain| brain.latest(key).map(|latest| (latest.at, latest.report.clone())));
    let lines = api.control.store().journal_of(key, LOOKED_THROUGH, None).await?;
    // After a start, until the first pass, the last recorded reasons are the newest there are.
    let latest = latest.or_else(|| lines.first().map(|line| (line.at, line.report.clone())));
    let steps =
        latest.as_ref().map(|(at, report)| show::steps(&only(report, *at, about))).unwrap_or_default();
    Ok(Explanation {
        subject,
        summary,
        at: latest.as_ref().map(|(at, _)| Time(*at)),
        holds_until: latest.and_then(|(_, report)| report.holds_until).map(Time),
        steps,
        journal: journal(&lines, about),
        output: Vec::new(),
    })
}

fn journal(lines: &[JournalLine], about: &Subject<'_>) -> Vec<views::JournalLine> {
    let shown = lines.iter().map(|line| views::JournalLine {
        seq: line.seq,
        at: Time(line.at),
        decided: line.decision.is_some(),
        steps: show::steps(&only(&line.report, line.at, about)),
    });
    shown.filter(|line| !line.steps.is_empty()).take(SHOWN).collect()
}

/// The part of a report that belongs to the subject.
fn only(report: &Report, at: Timestamp, about: &Subject<'_>) -> Report {
    let keep = |step: &StepReport| StepReport {
        changed: step.changed.iter().filter(|change| about.has_change(change, at)).cloned().collect(),
        waiting: step.waiting.iter().filter(|waiting| about.has_waiting(waiting, at)).cloned().collect(),
    };
    let Report { classify, lost, drift, rollout, place, routes, retire, holds_until } = report;
    Report {
        classify: keep(classify),
        lost: keep(lost),
        drift: keep(drift),
        rollout: keep(rollout),
        place: keep(place),
        routes: keep(routes),
        retire: keep(retire),
        holds_until: *holds_until,
    }
}

impl Subject<'_> {
    fn has_change(&self, change: &Change, at: Timestamp) -> bool {
        match self {
            Self::Service => true,
            Self::Instance { id, .. } => instance_of_change(change) == Some(*id),
            Self::Deployment { id, .. } => self.was_open(at) || deployment_of_change(change, id),
        }
    }

    fn has_waiting(&self, waiting: &Waiting, at: Timestamp) -> bool {
        match self {
            Self::Service => true,
            // What holds the whole service up holds each of its instances up.
            Self::Instance { id, placed } => instance_of_waiting(waiting).map_or(*placed, |of| of == *id),
            Self::Deployment { id, .. } => {
                self.was_open(at) || matches!(waiting, Waiting::Paused { deployment } if deployment == *id)
            }
        }
    }

    fn was_open(&self, at: Timestamp) -> bool {
        match self {
            Self::Deployment { opened, ended, .. } => *opened <= at && ended.is_none_or(|ended| at <= ended),
            Self::Service | Self::Instance { .. } => false,
        }
    }
}

fn instance_of_change(change: &Change) -> Option<&InstanceId> {
    match change {
        Change::Placed { instance, .. }
        | Change::TakenUp { instance, .. }
        | Change::Kept { instance }
        | Change::RoutedOut { instance, .. }
        | Change::Withdrawn { instance, .. }
        | Change::Gone { instance }
        | Change::AttemptsNoted { instance, .. }
        | Change::Alert { instance, .. } => Some(instance),
        Change::RoutesChanged { .. }
        | Change::PhaseReached { .. }
        | Change::DeploymentEnded { .. }
        | Change::Restored { .. }
        | Change::Purged => None,
    }
}

fn deployment_of_change(change: &Change, id: &DeploymentId) -> bool {
    match change {
        Change::PhaseReached { deployment, .. } | Change::DeploymentEnded { deployment, .. } => {
            deployment == id
        }
        Change::Restored { deployment, failed, .. } => deployment == id || failed == id,
        Change::Placed { .. }
        | Change::TakenUp { .. }
        | Change::Kept { .. }
        | Change::RoutedOut { .. }
        | Change::Withdrawn { .. }
        | Change::Gone { .. }
        | Change::RoutesChanged { .. }
        | Change::AttemptsNoted { .. }
        | Change::Alert { .. }
        | Change::Purged => false,
    }
}

fn instance_of_waiting(waiting: &Waiting) -> Option<&InstanceId> {
    match waiting {
        Waiting::InstanceUnknown { instance }
        | Waiting::Installing { instance }
        | Waiting::NotReady { instance, .. }
        | Waiting::BackingOff { instance, .. }
        | Waiting::AttemptsSpent { instance, .. }
        | Waiting::Successor { instance }
        | Waiting::Drain { instance, .. }
        | Waiting::EdgesBehind { instance, .. }
        | Waiting::NodeConfirms { instance }
        | Waiting::SiteSwitch { instance }
        | Waiting::NowhereToGo { instance, .. }
        | Waiting::Without { instance, .. }
        | Waiting::Drift { instance, .. } => Some(instance),
        Waiting::ServiceUnknown { .. }
        | Waiting::VolumeLost { .. }
        | Waiting::EngineAway { .. }
        | Waiting::NodeUnknown { .. }
        | Waiting::NodeRefuses { .. }
        | Waiting::NoRelease
        | Waiting::Surge { .. }
        | Waiting::Predecessors { .. }
        | Waiting::NoNode { .. }
        | Waiting::PortTaken { .. }
        | Waiting::PortForOne { .. }
        | Waiting::EdgesServe { .. }
        | Waiting::EdgeReports { .. }
        | Waiting::Held { .. }
        | Waiting::Paused { .. }
        | Waiting::NotCommitted { .. }
        | Waiting::Confirmation { .. }
        | Waiting::Deadline { .. } => None,
    }
}

#[derive(Debug, Deserialize)]
pub struct PassAsked {
    #[serde(default)]
    replay: bool,
}

pub async fn pass(
    State(api): State<Api>,
    OfPass(seq): OfPass,
    Asked(PassAsked { replay }): Asked<PassAsked>,
) -> Result<Json<views::Journal>, Problem> {
    let stored = api.control.store().journal(seq).await?;
    let pass = stored.ok_or_else(|| no_such_pass(seq))?;
    let (line, world) = (pass.line, Arc::new(pass.world));
    let replayed = if replay { Some(replay_of(&line, &world)?) } else { None };
    Ok(Json(views::Journal {
        seq: line.seq,
        at: Time(line.at),
        project: line.key.project.clone(),
        service: line.key.name.clone(),
        steps: show::steps(&line.report),
        holds_until: line.report.holds_until.map(Time),
        decision: line.decision.as_ref().map(without_content),
        replay: replayed,
    }))
}

/// Plans the recorded world again, at its time.
fn replay_of(line: &JournalLine, world: &[u8]) -> Result<views::Replay, Problem> {
    let unreadable = |_| {
        let message =
            format!("the world of pass {} was recorded by another version and cannot be replayed", line.seq);
        Problem::conflict(
            "not_replayable",
            message,
            "read it without `replay`, or replay it with that version",
        )
    };
    let input: Input = serde_json::from_slice(world).map_err(unreadable)?;
    let (decision, report) = decide::plan::plan_service(&input.world, &input.cluster, line.at);
    let same_decision = bytes(&decision) == bytes(&line.decision);
    let same_report = bytes(&report) == bytes(&line.report);
    let message = match (same_decision, same_report) {
        (true, true) => "the planner decides the same again, byte for byte",
        (true, false) => "the planner decides the same for other reasons: it has changed since",
        (false, _) => "the planner decides otherwise now: it has changed since",
    };
    Ok(views::Replay {
        identical: same_decision && same_report,
        message: message.into(),
        steps: show::steps(&report),
        decision: decision.as_ref().map(without_content),
    })
}

fn bytes<T: serde::Serialize>(value: &T) -> Option<Vec<u8>> {
    serde_json::to_vec(value).ok()
}

/// A decision as it is stored, without the declaration that it may carry: env values are nobody's business here.
fn without_content(decision: &Decision) -> serde_json::Value {
    let mut shown = serde_json::to_value(decision).unwrap_or_default();
    if let Some(service) = shown.get_mut("service").and_then(serde_json::Value::as_object_mut) {
        service.remove("spec");
    }
    shown
}
