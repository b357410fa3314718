//! For operators and their tools: alive, ready, and the sums that the monitoring endpoints promise. Instances of
//! every kind are counted as containers. What the words mean is decided in `decide::monitor`; here it is shown.

use std::{collections::BTreeSet, sync::Arc};

use axum::{Json, extract::State, http::StatusCode};
use decide::{
    monitor::{self, Broken, Checkup, Instances},
    world::World,
};
use model::Timestamp;
use serde_json::{Value, json};

use super::{Api, problem::Problem, services::is_shown, show, take::Write};
use crate::views::{
    ContainerCounts, MonitoringHealth, MonitoringStats, StuckDeployment, StuckDeployments, Time, Triggered,
};

pub async fn health() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// Ready when the store was read, a pass has gone through, and this server decides.
pub async fn ready(State(api): State<Api>) -> Result<Json<Value>, Problem> {
    let not = |message: String| Err(Problem::unavailable("not_ready", message));
    let incomplete = api.control.with_brain(|brain| brain.incomplete.clone());
    let refusal = api.control.with_brain(|brain| {
        brain.refusals().next().map(|(node, why)| format!("node {node} does not take its assignment: {why}"))
    });
    let stats = api.control.pass_stats();
    if !api.control.is_leader() {
        return not("another Setpoint leads".into());
    }
    if let Some(cause) = incomplete {
        return not(format!("the store holds a row that cannot be read: {cause}"));
    }
    if let Some(refusal) = refusal {
        return not(refusal);
    }
    match stats.last_at {
        None => not("the first pass has not gone through yet".into()),
        Some(_) => Ok(Json(json!({ "status": "ready" }))),
    }
}

pub async fn monitoring_health(State(api): State<Api>) -> Json<MonitoringHealth> {
    let issues = api.control.last_issues().await;
    let seen = Seen::of(&api);
    let Instances { total, healthy, unhealthy, stopped, running: _ } = seen.instances();
    let checkups: Vec<(&World, Checkup)> =
        seen.declared().map(|world| (world, monitor::check(world, seen.now))).collect();
    let shown = |(world, checkup): &(&World, Checkup)| show::checkup(world, checkup, issues.get(&world.key));
    Json(MonitoringHealth {
        containers: ContainerCounts { total, healthy, unhealthy, stopped },
        zombies: seen.zombies,
        is_leader: api.control.is_leader(),
        timestamp: Time(seen.now),
        services: checkups.iter().map(shown).collect(),
        projects: show::projects(checkups.iter().map(|(world, checkup)| (&world.key, checkup))),
    })
}

pub async fn monitoring_stats(State(api): State<Api>) -> Json<MonitoringStats> {
    let (seen, passes) = (Seen::of(&api), api.control.pass_stats());
    let Instances { total: _, healthy: _, unhealthy, stopped, running } = seen.instances();
    let Broken { links, missing, files: _ } = seen.broken();
    let worlds = || seen.worlds.iter().map(|world| &**world);
    let projects: BTreeSet<_> = seen.declared().map(|world| &world.key.project).collect();
    Json(MonitoringStats {
        last_reconciliation_time: passes.last_at.map(Time),
        reconciliation_duration: u64::try_from(passes.last_took.as_millis()).unwrap_or(u64::MAX),
        reconciliation_errors: passes.errors,
        active_projects: projects.len() as u64,
        running_containers: running,
        stopped_containers: stopped,
        zombie_containers: seen.zombies,
        deployments_in_progress: worlds().filter(|world| world.open_deployment().is_some()).count() as u64,
        deployments_stuck: worlds().filter(|world| monitor::stuck(world, seen.now).is_some()).count() as u64,
        average_deployment_time: monitor::average_deployment(worlds()).0,
        unhealthy_containers: unhealthy,
        broken_symlinks: links,
        missing_deployments: missing,
    })
}

pub async fn stuck(State(api): State<Api>) -> Json<StuckDeployments> {
    let seen = Seen::of(&api);
    let stuck = seen.worlds.iter().filter_map(|world| {
        let stuck = monitor::stuck(world, seen.now)?;
        Some(StuckDeployment {
            deployment: show::deployment(world.open_deployment()?),
            stuck_since: Time(stuck.since),
            reason: stuck.to_string(),
        })
    });
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

/// All worlds at one moment.
pub struct Seen {
    pub now: Timestamp,
    pub worlds: Vec<Arc<World>>,
    pub zombies: u64,
}

impl Seen {
    pub fn of(api: &Api) -> Self {
        let (worlds, zombies) = api.control.with_brain(|brain| {
            let zombies = monitor::zombies(brain.observations().map(|seen| &**seen));
            (brain.worlds().cloned().collect(), zombies)
        });
        Self { now: api.control.now(), worlds, zombies }
    }

    fn declared(&self) -> impl Iterator<Item = &World> {
        self.worlds.iter().map(|world| &**world).filter(|world| is_shown(world))
    }

    fn instances(&self) -> Instances {
        let mut all = Instances::default();
        self.worlds.iter().for_each(|world| all += Instances::of(world));
        all
    }

    pub fn broken(&self) -> Broken {
        let mut all = Broken::default();
        self.worlds.iter().for_each(|world| all += Broken::of(world));
        all
    }
}
