//! What instances use of their machines, measured when it is asked for.

use axum::{Json, extract::State};
use decide::intent::Refused;
use model::{InstanceId, ServiceKey};
use serde::Deserialize;

use super::{Api, access::Allowed, problem::Problem, services::standing, take::Asked};
use crate::views;

#[derive(Debug, Deserialize)]
pub struct StatsAsked {
    service: Option<ServiceKey>,
}

pub async fn stats(
    State(api): State<Api>,
    Allowed(permit): Allowed,
    Asked(StatsAsked { service }): Asked<StatsAsked>,
) -> Result<Json<views::Usages>, Problem> {
    if let Some(key) = &service {
        if !permit.sees(Some(&key.project)) {
            return Err(Refused::NotDeclared(key.clone()).into());
        }
        standing(&api, key)?;
    }
    let asked = |key: &ServiceKey| {
        permit.sees(Some(&key.project)) && service.as_ref().is_none_or(|asked| asked == key)
    };
    let running: Vec<InstanceId> = api.control.with_brain(|brain| {
        let worlds = brain.worlds().filter(|world| asked(&world.key));
        let placements = worlds.flat_map(|world| world.plan.placements.values());
        placements
            .filter(|placement| placement.stage.is_run())
            .map(|placement| placement.id.clone())
            .collect()
    });
    let usage = api.sessions.usage(running).await.into_iter().map(|usage| views::Usage {
        project: usage.instance.service.project.clone(),
        service: usage.instance.service.name.clone(),
        instance: usage.instance,
        cpus: (usage.cpus * 1000.0).round() / 1000.0,
        memory: usage.memory,
        memory_limit: usage.memory_limit,
        processes: usage.processes,
    });
    Ok(Json(views::Usages { usage: usage.collect() }))
}
