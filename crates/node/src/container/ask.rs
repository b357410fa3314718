//! What an engine is asked about containers or told to do with one: one call each, bounded, and absence no failure.

use std::{collections::HashMap, time::Duration};

use bollard::{
    models::{ContainerSummary, EndpointSettings, EventMessage, SystemInfo, SystemInfoCgroupVersionEnum},
    query_parameters::{
        EventsOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
        StopContainerOptionsBuilder, WaitContainerOptionsBuilder,
    },
};
use futures_util::{StreamExt, TryStreamExt};
use model::{ClusterId, InstanceId, Timestamp, spec::StopPolicy};

use super::{
    engine::{Engine, Error, QUESTION, WORK},
    look::{Machine, Seen},
    names, watch,
};

/// `None`: there is certainly no such container.
pub async fn inspect(engine: &Engine, id: &str) -> Result<Option<Seen>, Error> {
    let client = engine.client().await?;
    match engine.within(QUESTION, client.inspect_container(id, None)).await {
        Ok(inspected) => Ok(Seen::of(&inspected)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

pub async fn list(
    engine: &Engine,
    filters: HashMap<String, Vec<String>>,
) -> Result<Vec<ContainerSummary>, Error> {
    let client = engine.client().await?;
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    engine.within(QUESTION, client.list_containers(Some(options))).await
}

pub async fn machine(engine: &Engine) -> Result<Machine, Error> {
    let client = engine.client().await?;
    let SystemInfo { ncpu, mem_total, cgroup_version, .. } = engine.within(QUESTION, client.info()).await?;
    // An engine does not tell; one elsewhere most likely has one memory node.
    let memories = std::fs::read_to_string("/sys/devices/system/node/has_memory");
    Ok(Machine {
        memory: mem_total.unwrap_or_default(),
        nano_cpus: ncpu.unwrap_or_default().saturating_mul(1_000_000_000),
        memories: memories.map_or_else(|_| "0".into(), |text| text.trim().to_owned()),
        unified: cgroup_version == Some(SystemInfoCgroupVersionEnum::_2),
    })
}

/// An engine remembers so many of its newest events, and none after its end.
const REMEMBERED: usize = 256;

/// When it began, as far as it can tell by what it has done since. `None`: it remembers too much for that.
pub async fn began(engine: &Engine, now: Timestamp) -> Result<Option<Timestamp>, Error> {
    let client = engine.client().await?;
    // In seconds. Without an end, or with one to come, it would go on to tell.
    let until = format!("{}.{:03}", now.0 / 1000, now.0 % 1000);
    let past = EventsOptionsBuilder::default().since("1").until(&until).build();
    let remembered: Vec<EventMessage> =
        engine.within(QUESTION, client.events(Some(past)).try_collect()).await?;
    let oldest = remembered.iter().filter_map(watch::time).min();
    Ok((remembered.len() < REMEMBERED).then_some(oldest.unwrap_or(now)))
}

/// Asks it to end, gives it its time, ends it.
pub async fn stop(engine: &Engine, id: &str, policy: &StopPolicy) -> Result<(), Error> {
    let client = engine.client().await?;
    let grace = i32::try_from(policy.grace.0.div_ceil(1000)).unwrap_or(i32::MAX);
    let options = StopContainerOptionsBuilder::default().t(grace).build();
    let bound = policy.grace.as_duration() + Duration::from_secs(30);
    match engine.within(bound, client.stop_container(id, Some(options))).await {
        Ok(()) | Err(Error::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Its volumes stay.
pub async fn remove(engine: &Engine, id: &str) -> Result<(), Error> {
    let client = engine.client().await?;
    let options = RemoveContainerOptionsBuilder::default().force(true).build();
    match engine.within(WORK, client.remove_container(id, Some(options))).await {
        Ok(()) | Err(Error::NotFound(_)) => Ok(()),
        // Somebody removes it already; its name is free once it is gone.
        Err(Error::Conflict(message)) if message.contains("in progress") => gone(engine, id).await,
        Err(error) => Err(error),
    }
}

async fn gone(engine: &Engine, id: &str) -> Result<(), Error> {
    let client = engine.client().await?;
    let options = WaitContainerOptionsBuilder::default().condition("removed").build();
    let mut waiting = Box::pin(client.wait_container(id, Some(options)));
    // However it is answered, it is gone or soon will be; making it anew finds out.
    let _ = engine.within(WORK, async { Ok(waiting.next().await.is_some()) }).await?;
    Ok(())
}

/// A container that bears our cluster's mark, as the list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub id: String,
    pub name: String,
    /// Whose it says to be.
    pub instance: Option<InstanceId>,
    pub nonce: String,
    /// State and name and networks: when these are as they were, nothing needs to be asked.
    pub glance: String,
}

pub async fn ours(engine: &Engine, cluster: &ClusterId) -> Result<Vec<Listed>, Error> {
    let found = list(engine, names::marked(cluster)).await?;
    Ok(found.iter().filter_map(listed).collect())
}

pub(super) fn listed(summary: &ContainerSummary) -> Option<Listed> {
    let label = |name: &str| summary.labels.as_ref().and_then(|labels| labels.get(name)).cloned();
    let networks = summary.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    // With each end: off a network and on it again it is another.
    let end = |(name, end): (&String, &EndpointSettings)| (name.clone(), end.endpoint_id.clone());
    let mut networks: Vec<_> = networks.map(|all| all.iter().map(end).collect()).unwrap_or_default();
    networks.sort();
    let name = summary.names.as_ref().and_then(|names| names.first()).cloned().unwrap_or_default();
    let state = summary.state.map(|state| state.to_string()).unwrap_or_default();
    // "Up 3 minutes (healthy)": the time in it would make every look different.
    let health =
        summary.status.as_deref().and_then(|status| status.split_once('(')).map(|(_, health)| health);
    Some(Listed {
        id: summary.id.clone()?,
        instance: label(names::INSTANCE).and_then(|id| id.parse().ok()),
        nonce: label(names::NONCE).unwrap_or_default(),
        glance: format!("{state} {name} {networks:?} {}", health.unwrap_or_default()),
        name: name.trim_start_matches('/').to_owned(),
    })
}
