//! An edge: one table at a time, requests under way, and a report of both.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use model::{
    EdgeId, InstanceId, ServiceKey, Timestamp,
    route::{Backend, EdgeReport, Endpoint, EndpointEvent, EndpointHealth, RouteTable},
};

use crate::shape::name;

#[derive(Default)]
pub struct Edge {
    number: usize,
    pub up: bool,
    pub boot: u64,
    /// On its disk, so that it serves at once when it comes back.
    pub table: Arc<RouteTable>,
    down: BTreeSet<InstanceId>,
    pub requests: BTreeMap<u64, Request>,
    next_request: u64,
}

#[derive(Debug, Clone)]
pub struct Request {
    pub instance: InstanceId,
    pub pid: u32,
}

impl Edge {
    pub fn new(number: usize) -> Self {
        Self { number, ..Self::default() }
    }

    pub fn id(&self) -> EdgeId {
        name(&format!("e{}", self.number + 1))
    }

    /// Its requests die with it.
    pub fn stop(&mut self) {
        self.up = false;
        self.boot += 1;
        self.requests.clear();
        self.down.clear();
    }

    /// Takes a newer table. Returns whether it did.
    pub fn offered(&mut self, table: &Arc<RouteTable>) -> bool {
        if !self.up || table.revision <= self.table.revision {
            return false;
        }
        let mut next = (**table).clone();
        for held in &table.held {
            if let Some(kept) = self.table.services.get(held) {
                next.services.insert(held.clone(), Arc::clone(kept));
            }
        }
        self.table = Arc::new(next);
        let named: BTreeSet<InstanceId> =
            self.table.services.values().flat_map(|route| route.backend.instances()).cloned().collect();
        self.down.retain(|id| named.contains(id));
        true
    }

    pub fn told(&mut self, event: EndpointEvent) {
        match event.health {
            EndpointHealth::Down => self.down.insert(event.instance),
            EndpointHealth::Ready => self.down.remove(&event.instance),
        };
    }

    /// Where requests of a service go now.
    pub fn endpoints(&self, service: &ServiceKey) -> impl Iterator<Item = &Endpoint> {
        let all = match self.table.services.get(service).map(|route| &route.backend) {
            Some(Backend::Proxy { endpoints }) => endpoints.as_slice(),
            Some(Backend::Files { .. } | Backend::Nothing) | None => &[],
        };
        all.iter().filter(|endpoint| !self.down.contains(&endpoint.instance))
    }

    pub fn folder(&self, service: &ServiceKey) -> Option<&str> {
        match self.table.services.get(service).map(|route| &route.backend) {
            Some(Backend::Files { folder, .. }) => Some(folder),
            Some(Backend::Proxy { .. } | Backend::Nothing) | None => None,
        }
    }

    pub fn begin(&mut self, request: Request) -> u64 {
        self.next_request += 1;
        self.requests.insert(self.next_request, request);
        self.next_request
    }

    pub fn report(&self, now: Timestamp) -> EdgeReport {
        let routed: BTreeSet<&InstanceId> =
            self.table.services.values().flat_map(|route| route.backend.instances()).collect();
        let mut in_flight = BTreeMap::new();
        for request in self.requests.values().filter(|request| !routed.contains(&request.instance)) {
            *in_flight.entry(request.instance.clone()).or_default() += 1;
        }
        EdgeReport {
            edge: self.id(),
            boot: name(&format!("boot-{}", self.boot)),
            at: now,
            served: self.table.revision,
            in_flight,
        }
    }
}
