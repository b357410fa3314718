//! The route table, the edge's report, and the endpoint event: all that the edge and the rest say to each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{BootId, EdgeId, InstanceId, RouteRevision, ServiceKey, Timestamp, spec::Domain};

/// Which host and path goes where. One immutable value; an edge serves one whole table at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    pub revision: RouteRevision,
    pub services: BTreeMap<ServiceKey, Arc<ServiceRoute>>,
    /// Services whose declaration could not be read: an edge keeps what it has of them.
    #[serde(default)]
    pub held: BTreeSet<ServiceKey>,
}

/// One service's part of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRoute {
    /// Revision of the table in which this part last changed.
    pub revision: RouteRevision,
    pub domains: Vec<Domain>,
    pub backend: Backend,
    /// When the declaration of these domains first led somewhere; `None` where it has not yet, or no longer declares
    /// them.
    #[serde(default)]
    pub taken: Option<Timestamp>,
}

impl RouteTable {
    /// Each domain has one owner: where several lead it, as while it moves from one to another, the one that took it last.
    pub fn owners(&self) -> BTreeMap<&Domain, &ServiceKey> {
        let mut owners: BTreeMap<&Domain, (&ServiceKey, &ServiceRoute)> = BTreeMap::new();
        let right = |route: &ServiceRoute| (route.taken, route.backend != Backend::Nothing);
        for (key, route) in &self.services {
            for domain in &route.domains {
                let owner = owners.entry(domain).or_insert((key, route));
                if right(route) > right(owner.1) {
                    *owner = (key, route);
                }
            }
        }
        owners.into_iter().map(|(domain, (key, _))| (domain, key)).collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// Requests go to one of these; none: 503 with Retry-After.
    Proxy { endpoints: Vec<Endpoint> },
    /// Files below this folder. Also counted in flight by instance.
    Files { instance: InstanceId, folder: String, spa: bool },
    /// Declared, and nothing serves it yet: 503 with Retry-After.
    Nothing,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub instance: InstanceId,
    /// `host:port` as observed.
    pub address: String,
    pub weight: u32,
}

impl Backend {
    /// The instances that take requests.
    pub fn instances(&self) -> BTreeSet<&InstanceId> {
        match self {
            Self::Proxy { endpoints } => endpoints.iter().map(|e| &e.instance).collect(),
            Self::Files { instance, .. } => [instance].into(),
            Self::Nothing => BTreeSet::new(),
        }
    }
}

/// Up, from an edge: what it serves and what is still in flight on what was retired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeReport {
    pub edge: EdgeId,
    /// Tells a restarted edge, whose counts began anew, from the one before it.
    pub boot: BootId,
    pub at: Timestamp,
    /// Every new request is routed by this revision or a later one.
    pub served: RouteRevision,
    /// Requests in flight (upgraded connections among them) on instances that are not in the served table.
    /// An instance in neither this map nor the table has none.
    pub in_flight: BTreeMap<InstanceId, u64>,
}

/// From a node to an edge on the same machine: an overlay on the table that only subtracts. `Ready` of the same
/// instance lifts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointEvent {
    pub instance: InstanceId,
    pub address: String,
    pub health: EndpointHealth,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointHealth {
    Down,
    Ready,
}
