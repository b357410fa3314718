//! Who is who across tables: an instance keeps its count, an endpoint its connections, a service its counters.
//! Lives under a lock that no request takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use model::{
    InstanceId, RouteRevision, ServiceKey,
    route::{Backend, RouteTable, ServiceRoute},
};
use tokio::sync::watch;

use crate::{
    compiled::{Compiled, Endpoints, Serve, Service, Site, Weighted},
    flight::Flight,
    overlay::Overlay,
    pool::Target,
    stats::ServiceStats,
};

#[derive(Debug, Default)]
pub struct Registry {
    /// None before the first table.
    pub served: Option<RouteRevision>,
    /// As served, with what was carried over.
    pub table: RouteTable,
    pub flights: BTreeMap<InstanceId, Arc<Flight>>,
    pub targets: BTreeMap<(InstanceId, String), Arc<Target>>,
    pub stats: BTreeMap<ServiceKey, Arc<ServiceStats>>,
    pub overlay: Overlay,
}

/// A table with the services that it holds taken from the one before: their declaration could not be read, and
/// what cannot be read is not gone.
pub fn carry_over(table: &RouteTable, before: &RouteTable) -> RouteTable {
    let mut whole = table.clone();
    for key in &table.held {
        if let Some(kept) = before.services.get(key) {
            whole.services.entry(key.clone()).or_insert_with(|| kept.clone());
        }
    }
    whole
}

impl Registry {
    pub fn compile(&mut self, table: &RouteTable, generation: u64, changed: &watch::Sender<u64>) -> Compiled {
        let mut compiled = Compiled { generation, ..Compiled::default() };
        let owners = table.owners();
        for (key, route) in &table.services {
            let service = Arc::new(self.service(key, route, changed));
            for domain in route.domains.iter().filter(|domain| owners.get(domain) == Some(&key)) {
                compiled.add(&domain.host, &domain.path, &service);
            }
        }
        compiled
    }

    fn service(&mut self, key: &ServiceKey, route: &ServiceRoute, changed: &watch::Sender<u64>) -> Service {
        let stats = self.stats.entry(key.clone()).or_default().clone();
        let serve = match &route.backend {
            Backend::Proxy { endpoints } => {
                let all = endpoints.iter().map(|e| Weighted {
                    weight: e.weight,
                    target: self.target(&e.instance, &e.address, changed),
                });
                Serve::Proxy(Endpoints { all: all.collect(), turn: 0.into() })
            }
            Backend::Files { instance, folder, spa } => Serve::Files(Arc::new(Site {
                flight: self.flight(instance, changed),
                folder: folder.into(),
                spa: *spa,
            })),
            Backend::Nothing => Serve::Nothing,
        };
        Service { key: key.clone(), stats, serve }
    }

    fn flight(&mut self, instance: &InstanceId, changed: &watch::Sender<u64>) -> Arc<Flight> {
        let new = || Arc::new(Flight::new(instance.clone(), changed.clone()));
        let flight = self.flights.entry(instance.clone()).or_insert_with(new);
        flight.set_retired(false);
        flight.set_down(self.overlay.is_down(instance));
        flight.clone()
    }

    /// Whether the table leads to the instance, and to another address.
    pub fn is_elsewhere(&self, instance: &InstanceId, address: &str) -> bool {
        self.targets_of(instance).next().is_some()
            && !self.targets.contains_key(&(instance.clone(), address.to_owned()))
    }

    fn target(&mut self, instance: &InstanceId, address: &str, changed: &watch::Sender<u64>) -> Arc<Target> {
        self.overlay.named(instance, address);
        let flight = self.flight(instance, changed);
        let key = (instance.clone(), address.to_owned());
        self.targets.entry(key).or_insert_with(|| Arc::new(Target::new(flight, address))).clone()
    }

    pub fn targets_of<'a>(&'a self, instance: &'a InstanceId) -> impl Iterator<Item = &'a Arc<Target>> {
        let from = (instance.clone(), String::new());
        self.targets.range(from..).take_while(move |((id, _), _)| id == instance).map(|(_, target)| target)
    }

    pub fn retire_what_left(&mut self, table: &RouteTable) {
        let named: BTreeSet<_> =
            table.services.values().flat_map(|route| route.backend.instances()).collect();
        let left = self.flights.values().filter(|f| !f.is_retired() && !named.contains(&f.instance));
        for flight in left {
            flight.set_retired(true);
            self.overlay.lift(&flight.instance);
        }
        self.close_targets_not_in(table);
        self.stats.retain(|key, _| table.services.contains_key(key));
    }

    fn close_targets_not_in(&mut self, table: &RouteTable) {
        let mut named = BTreeSet::new();
        for route in table.services.values() {
            if let Backend::Proxy { endpoints } = &route.backend {
                named.extend(endpoints.iter().map(|e| (&e.instance, e.address.as_str())));
            }
        }
        self.targets.retain(|(instance, address), target| {
            let stays = named.contains(&(instance, address.as_str()));
            if !stays {
                target.close_idle(true);
            }
            stays
        });
    }

    /// Only after the generation was raised: until then a request of the table before may still count itself
    /// in, and its flight must be found.
    pub fn forget_drained(&mut self) {
        self.flights.retain(|_, flight| !flight.is_retired() || flight.count() > 0);
    }
}
