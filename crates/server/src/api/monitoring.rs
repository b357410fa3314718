//! For operators and their tools: alive, ready, and the sums that the monitoring endpoints promise. Instances of
//! every kind are counted as containers. What the words mean is decided in `decide::monitor`; here it is shown.

use std::{collections::BTreeSet, sync::Arc};

use axum::{Json, extract::State, http::StatusCode, response::Response};
use decide::{
    monitor::{self, Broken, Checkup, Instances, Zombies},
    world::World,
};
use model::{NodeId, Timestamp, reason::Waiting};
use serde_json::{Value, json};

use super::{
    Api, access::Allowed, once::once, problem::Problem, requests::Nothing, services::is_shown, show,
    take::Write,
};
use crate::views::{
    ContainerCounts, MonitoringHealth, MonitoringStats, StuckDeployment, StuckDeployments, Time, Triggered,
};

pub async fn health() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// Ready when the store was read, a pass has gone through, and this server decides.
pub async fn ready(State(api): State<Api>) -> Result<Json<Value>, Problem> {
    let not = |message: String, help: &str| Err(Problem::unavailable("not_ready", message, help));
    let incomplete = api.control.with_brain(|brain| brain.incomplete.clone());
    let refusal = api.control.with_brain(|brain| {
        brain.refusals().first_key_value().map(|(node, cause)| refuses(node, cause).to_string())
    });
    let stats = api.control.pass_stats();
    if !api.control.is_leader() {
        return not("another Setpoint leads".into(), "ask that one, or wait until this one leads");
    }
    if let Some(cause) = incomplete {
        return not(
            format!("the store holds a row that cannot be read: {cause}"),
            "repair or delete it; `setpoint restore` puts a backup back",
        );
    }
    if let Some(refusal) = refusal {
        return not(
            refusal,
            "put the node's folder and the store of one cluster together; see docs/operations.md",
        );
    }
    match (stats.last_through, stats.trouble) {
        (None, Some(trouble)) => not(
            format!("no pass has gone through since the start: {trouble}"),
            "correct that; passes are tried again by themselves",
        ),
        (None, None) => not("the first pass has not gone through yet".into(), "ask again in a second"),
        (Some(_), _) => Ok(Json(json!({ "status": "ready" }))),
    }
}

fn refuses(node: &NodeId, cause: &str) -> Waiting {
    Waiting::NodeRefuses { node: node.clone(), cause: cause.into() }
}

pub async fn monitoring_health(State(api): State<Api>) -> Json<MonitoringHealth> {
    let issues = api.control.last_issues().await;
    let seen = Seen::of(&api).await;
    let Instances { total, healthy, unhealthy, stopped, running: _ } = seen.instances();
    let checkups: Vec<(&World, Checkup)> =
        seen.declared().map(|world| (world, monitor::check(world, seen.now))).collect();
    let shown = |(world, checkup): &(&World, Checkup)| show::checkup(world, checkup, issues.get(&world.key));
    Json(MonitoringHealth {
        containers: ContainerCounts { total, healthy, unhealthy, stopped },
        zombies: seen.zombies.total(),
        is_leader: api.control.is_leader(),
        timestamp: Time(seen.now),
        services: checkups.iter().map(shown).collect(),
        projects: show::projects(checkups.iter().map(|(world, checkup)| (&world.key, checkup))),
    })
}

pub async fn monitoring_stats(State(api): State<Api>) -> Json<MonitoringStats> {
    let (seen, passes) = (Seen::of(&api).await, api.control.pass_stats());
    let Instances { total: _, healthy: _, unhealthy, stopped, running } = seen.instances();
    let Broken { links, missing, files: _ } = seen.broken();
    let worlds = || seen.worlds.iter().map(|world| &**world);
    let projects: BTreeSet<_> = seen.declared().map(|world| &world.key.project).collect();
    Json(MonitoringStats {
        last_reconciliation_time: passes.last_through.map(Time),
        reconciliation_duration: u64::try_from(passes.last_took.as_millis()).unwrap_or(u64::MAX),
        reconciliation_errors: passes.errors,
        active_projects: projects.len() as u64,
        running_containers: running,
        stopped_containers: stopped,
        zombie_containers: seen.zombies.total(),
        deployments_in_progress: worlds().filter(|world| world.open_deployment().is_some()).count() as u64,
        deployments_stuck: worlds().filter(|world| monitor::stuck(world, seen.now).is_some()).count() as u64,
        average_deployment_time: monitor::average_deployment(worlds()).0,
        unhealthy_containers: unhealthy,
        broken_symlinks: links,
        missing_deployments: missing,
    })
}

pub async fn stuck(State(api): State<Api>) -> Json<StuckDeployments> {
    let seen = Seen::of(&api).await;
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
    Allowed(permit): Allowed,
    Write(Nothing {}, terms): Write<Nothing>,
) -> Result<Response, Problem> {
    let effect = async {
        api.control.trigger(false);
        let message = "a pass over everything begins now".into();
        Ok((StatusCode::ACCEPTED, Triggered { success: true, message }))
    };
    once(&api, &permit, &terms, effect).await
}

/// All worlds at one moment.
pub struct Seen {
    pub now: Timestamp,
    pub worlds: Vec<Arc<World>>,
    pub zombies: Zombies,
}

impl Seen {
    pub async fn of(api: &Api) -> Self {
        let leftovers = api.control.leftovers().await;
        let (worlds, zombies) = api.control.with_brain(|brain| {
            let zombies = Zombies::of(brain.observations().map(|seen| &**seen), &leftovers);
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
