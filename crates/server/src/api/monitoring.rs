//! For operators and their tools: alive, ready, and the sums that the monitoring endpoints promise. Instances of
//! every kind are counted as containers.

use std::{collections::BTreeSet, sync::Arc};

use axum::{Json, extract::State, http::StatusCode};
use decide::world::World;
use model::{
    Millis, Timestamp,
    deployment::{Deployment, Phase},
    instance::{Placement, Stage},
    observation::{InstanceReport, State as InstanceState},
};
use serde_json::{Value, json};

use super::{Api, problem::Problem, show, take::Write};
use crate::views::{ContainerCounts, MonitoringHealth, MonitoringStats, StuckDeployments, Time, Triggered};

/// Without progress for this long, a deployment counts as stuck.
const STUCK_AFTER: Millis = Millis::mins(5);

pub async fn health() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// Ready when the store was read, a pass has gone through, and this server decides.
pub async fn ready(State(api): State<Api>) -> Result<Json<Value>, Problem> {
    let not = |message: String| Err(Problem::unavailable("not_ready", message));
    let incomplete = api.control.with_brain(|brain| brain.incomplete.clone());
    let stats = api.control.pass_stats();
    if !api.control.is_leader() {
        return not("another Setpoint leads".into());
    }
    if let Some(cause) = incomplete {
        return not(format!("the store holds a row that cannot be read: {cause}"));
    }
    match stats.last_at {
        None => not("the first pass has not gone through yet".into()),
        Some(_) => Ok(Json(json!({ "status": "ready" }))),
    }
}

pub async fn monitoring_health(State(api): State<Api>) -> Json<MonitoringHealth> {
    let sums = Sums::of(&api);
    Json(MonitoringHealth {
        containers: sums.containers,
        zombies: sums.zombies,
        is_leader: api.control.is_leader(),
        timestamp: Time(sums.now),
    })
}

pub async fn monitoring_stats(State(api): State<Api>) -> Json<MonitoringStats> {
    let (sums, passes) = (Sums::of(&api), api.control.pass_stats());
    Json(MonitoringStats {
        last_reconciliation_time: passes.last_at.map(Time),
        reconciliation_duration: u64::try_from(passes.last_took.as_millis()).unwrap_or(u64::MAX),
        reconciliation_errors: passes.errors,
        active_projects: sums.projects,
        running_containers: sums.running,
        stopped_containers: sums.containers.stopped,
        zombie_containers: sums.zombies,
        deployments_in_progress: sums.open.len() as u64,
        deployments_stuck: sums.stuck().count() as u64,
        average_deployment_time: sums.average_deployment_time,
        unhealthy_containers: sums.containers.unhealthy,
        broken_symlinks: sums.broken_symlinks,
        missing_deployments: sums.missing_deployments,
    })
}

pub async fn stuck(State(api): State<Api>) -> Json<StuckDeployments> {
    let sums = Sums::of(&api);
    let stuck = sums.stuck().map(|open| show::deployment(&open.deployment));
    Json(StuckDeployments { deployments: stuck.collect() })
}

pub async fn trigger(
    State(api): State<Api>,
    Write(super::requests::Nothing {}, _): Write<super::requests::Nothing>,
) -> (StatusCode, Json<Triggered>) {
    api.control.trigger(false);
    let message = "a pass over everything begins now".into();
    (StatusCode::ACCEPTED, Json(Triggered { success: true, message }))
}

/// An open deployment and what says whether it moves.
struct Open {
    deployment: Deployment,
    progressed_at: Timestamp,
    deadline: Millis,
}

#[derive(Default)]
struct Sums {
    now: Timestamp,
    containers: ContainerCounts,
    running: u64,
    zombies: u64,
    projects: u64,
    open: Vec<Open>,
    average_deployment_time: u64,
    broken_symlinks: u64,
    missing_deployments: u64,
}

impl Sums {
    fn of(api: &Api) -> Self {
        let (worlds, strangers): (Vec<Arc<World>>, usize) = api.control.with_brain(|brain| {
            let strangers = brain.observations().map(|seen| seen.strangers.len()).sum();
            (brain.worlds().cloned().collect(), strangers)
        });
        let mut sums = Self { now: api.control.now(), zombies: strangers as u64, ..Self::default() };
        let declared = worlds.iter().filter(|world| !world.service.is_absent());
        sums.projects = declared.map(|world| &world.key.project).collect::<BTreeSet<_>>().len() as u64;
        for world in &worlds {
            world.plan.placements.values().for_each(|placement| sums.instance(world, placement));
            sums.open.extend(open_of(world));
        }
        sums.average_deployment_time = average(&worlds);
        sums
    }

    fn instance(&mut self, world: &World, placement: &Placement) {
        if matches!(placement.stage, Stage::Kept) {
            return;
        }
        let report = world.report(&placement.id);
        let state = report.map(|report| &report.state);
        self.containers.total += 1;
        self.running += u64::from(state == Some(&InstanceState::Running));
        match report {
            Some(report) if is_stopped(report) => self.containers.stopped += 1,
            Some(report) if report.ready => self.containers.healthy += 1,
            Some(_) | None => self.containers.unhealthy += 1,
        }
        for drift in report.into_iter().flat_map(|report| &report.drift) {
            let link = drift.path == "site/current" || drift.path.starts_with("webroot/");
            self.broken_symlinks += u64::from(link);
            self.missing_deployments += u64::from(!link && drift.path == "site" && drift.observed.is_none());
        }
    }

    fn stuck(&self) -> impl Iterator<Item = &Open> {
        self.open.iter().filter(|open| {
            let still = self.now.since(open.progressed_at);
            still >= STUCK_AFTER || still >= open.deadline
        })
    }
}

fn is_stopped(report: &InstanceReport) -> bool {
    matches!(report.state, InstanceState::Failed { .. } | InstanceState::BackingOff { .. })
}

fn open_of(world: &World) -> Option<Open> {
    let deployment = world.open_deployment()?.clone();
    let progressed_at = world.plan.rollout.progressed_at.max(deployment.phase_updated_at);
    let deadline = world.service.known().map_or(STUCK_AFTER, |service| service.spec.deploy.deadline);
    Some(Open { deployment, progressed_at, deadline })
}

/// From the beginning to the outcome, of the known deployments that became active.
fn average(worlds: &[Arc<World>]) -> u64 {
    let became_active =
        |d: &&Deployment| matches!(d.phase, Phase::Active | Phase::Superseded | Phase::RolledBack);
    let took: Vec<u64> = worlds
        .iter()
        .flat_map(|world| world.deployments.iter().filter(became_active))
        .filter_map(|deployment| Some(deployment.ended_at?.since(deployment.started_at).0))
        .collect();
    if took.is_empty() { 0 } else { took.iter().sum::<u64>() / took.len() as u64 }
}
