//! What all requests share: the served table behind one pointer, and beside it, under a lock that no request
//! takes, what tables come and go with.
//!
//! The order that *drained* rests on. A publication marks the leaving instances retired, stores the table,
//! then raises `generation`. A request loads the table, counts itself in, then reads `generation`: if that has
//! passed its table, it counts itself out and begins again. All of these are sequentially consistent, so
//! either the request sees the new generation, or whoever reads the counts after the publication sees the
//! request.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use model::{
    RouteRevision, ServiceKey, Timestamp,
    route::{EdgeReport, EndpointEvent, EndpointHealth, RouteTable},
};
use tokio::sync::watch;

use crate::{
    balance,
    compiled::{Compiled, Serve, Service, Site},
    config::Config,
    flight::Ticket,
    pool::Target,
    registry::{Registry, carry_over},
    stats::{ServiceStats, Stats},
};

#[derive(Debug)]
pub struct State {
    pub config: Config,
    started: Instant,
    table: ArcSwap<Compiled>,
    generation: AtomicU64,
    registry: Mutex<Registry>,
    changed: watch::Sender<u64>,
    pub unrouted: AtomicU64,
    pub connections: AtomicU64,
}

/// Where a request may go, counted in already.
#[derive(Debug)]
pub enum Admission {
    /// No service has this host and path.
    Unrouted,
    /// The service has no endpoint that may be used, or none that was not tried.
    Unavailable(Arc<Service>),
    Proxy(Arc<Service>, Arc<Target>, Ticket),
    /// With the length of the path prefix by which the site was found.
    Files(Arc<Service>, Arc<Site>, usize, Ticket),
}

impl State {
    pub fn new(config: Config) -> Self {
        Self {
            config,
            started: Instant::now(),
            table: ArcSwap::default(),
            generation: AtomicU64::new(0),
            registry: Mutex::default(),
            changed: watch::channel(0).0,
            unrouted: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        }
    }

    /// Milliseconds since the edge began, never 0.
    pub fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Routes by the served table and counts the request in on what it chose.
    pub fn admit(&self, host: &str, path: &str, tried: &[Arc<Target>]) -> Admission {
        loop {
            let table = self.snapshot();
            let admission = self.choose(&table, host, path, tried);
            if self.is_current(&table) {
                return admission;
            }
        }
    }

    pub fn snapshot(&self) -> arc_swap::Guard<Arc<Compiled>> {
        self.table.load()
    }

    /// Whether no newer table was published before whatever this caller did last.
    pub fn is_current(&self, table: &Compiled) -> bool {
        self.generation.load(Ordering::SeqCst) <= table.generation
    }

    fn choose(&self, table: &Compiled, host: &str, path: &str, tried: &[Arc<Target>]) -> Admission {
        let Some(route) = table.route(host, path) else { return Admission::Unrouted };
        let service = route.service.clone();
        match &route.service.serve {
            Serve::Proxy(endpoints) => match balance::pick(endpoints, tried, self.now()) {
                Some(target) => Admission::Proxy(service, target.clone(), Ticket::take(&target.flight)),
                None => Admission::Unavailable(service),
            },
            Serve::Files(site) => {
                let prefix = if &*route.prefix == "/" { 0 } else { route.prefix.len() };
                Admission::Files(service, site.clone(), prefix, Ticket::take(&site.flight))
            }
            Serve::Nothing => Admission::Unavailable(service),
        }
    }

    pub fn publish(&self, table: &RouteTable) {
        let mut registry = self.registry();
        if registry.served.is_some_and(|served| table.revision <= served) {
            tracing::debug!(revision = %table.revision, "a table not newer than the served one is ignored");
            return;
        }
        let table = &carry_over(table, &registry.table);
        let generation = self.generation.load(Ordering::SeqCst) + 1;
        let compiled = registry.compile(table, generation, &self.changed);
        registry.retire_what_left(table);
        self.table.store(Arc::new(compiled));
        self.generation.store(generation, Ordering::SeqCst);
        registry.served = Some(table.revision);
        registry.table = table.clone();
        registry.forget_drained();
        drop(registry);
        self.changed.send_modify(|n| *n += 1);
    }

    /// The served table, with what was carried over, when it is older than this revision.
    pub fn older_than(&self, revision: RouteRevision) -> Option<RouteTable> {
        let registry = self.registry();
        registry.served.is_none_or(|served| served < revision).then(|| registry.table.clone())
    }

    #[cfg(test)]
    pub fn is_down(&self, instance: &model::InstanceId) -> bool {
        self.registry().overlay.is_down(instance)
    }

    pub fn endpoint_event(&self, event: &EndpointEvent) {
        let mut registry = self.registry();
        let down = match event.health {
            EndpointHealth::Down => {
                registry.overlay.down(event.instance.clone());
                true
            }
            EndpointHealth::Ready if registry.is_elsewhere(&event.instance, &event.address) => {
                registry.overlay.moved(event.instance.clone(), &event.address);
                true
            }
            EndpointHealth::Ready => {
                registry.overlay.lift(&event.instance);
                false
            }
        };
        if let Some(flight) = registry.flights.get(&event.instance) {
            flight.set_down(down);
        }
        for target in registry.targets_of(&event.instance) {
            // A process that died or came back has closed them; one that only is not ready loses nothing.
            target.close_idle(false);
            target.restore();
        }
    }

    pub fn report(&self, at: Timestamp) -> EdgeReport {
        let mut registry = self.registry();
        registry.forget_drained();
        let retired = registry.flights.iter().filter(|(_, flight)| flight.is_retired());
        EdgeReport {
            edge: self.config.id.clone(),
            boot: self.config.boot.clone(),
            at,
            served: registry.served.unwrap_or_default(),
            in_flight: retired
                .map(|(id, flight)| (id.clone(), flight.count()))
                .filter(|(_, n)| *n > 0)
                .collect(),
        }
    }

    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub fn stats(&self) -> Stats {
        let registry = self.registry();
        let mut in_flight = BTreeMap::<&ServiceKey, u64>::new();
        for flight in registry.flights.values() {
            *in_flight.entry(&flight.instance.service).or_default() += flight.count();
        }
        let read = |(key, stats): (&ServiceKey, &Arc<ServiceStats>)| {
            (key.clone(), stats.read(in_flight.get(key).copied().unwrap_or(0)))
        };
        Stats {
            services: registry.stats.iter().map(read).collect(),
            unrouted: self.unrouted.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        thread,
    };

    use model::{
        InstanceId,
        route::{Backend, Endpoint, ServiceRoute},
    };

    use super::*;
    use crate::config::Limits;

    fn state() -> State {
        State::new(Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            id: "local".parse().unwrap(),
            boot: "boot".parse().unwrap(),
            limits: Limits::default(),
        })
    }

    fn instance(incarnation: u64) -> InstanceId {
        format!("default.api.0.{incarnation}").parse().unwrap()
    }

    /// Revision r serves instance r alone.
    fn table(revision: u64) -> RouteTable {
        let endpoint = Endpoint { instance: instance(revision), address: "127.0.0.1:1".into(), weight: 1 };
        let route = ServiceRoute {
            revision: RouteRevision(revision),
            domains: vec!["api.localhost".parse().unwrap()],
            backend: Backend::Proxy { endpoints: vec![endpoint] },
            taken: None,
        };
        RouteTable {
            revision: RouteRevision(revision),
            services: [("default/api".parse().unwrap(), Arc::new(route))].into(),
            ..RouteTable::default()
        }
    }

    #[test]
    fn a_domain_that_moves_leads_to_one_service_and_to_the_next_when_that_serves() {
        let state = state();
        let mut moving = table(1);
        let old = moving.services.values().next().unwrap().clone();
        let led = |taken: Option<u64>, backend: Backend| {
            Arc::new(ServiceRoute { taken: taken.map(Timestamp), backend, ..(*old).clone() })
        };
        let to = |incarnation| Backend::Proxy {
            endpoints: vec![Endpoint {
                instance: instance(incarnation),
                address: "127.0.0.1:1".into(),
                weight: 1,
            }],
        };
        moving.services.insert("default/api".parse().unwrap(), led(Some(1), to(1)));
        let mut revision = 1;
        let mut publish = |table: &RouteTable| {
            revision += 1;
            state.publish(&RouteTable { revision: RouteRevision(revision), ..table.clone() });
        };
        for name in ["default/aaa", "default/web"] {
            let mut table = moving.clone();
            table.services.insert(name.parse().unwrap(), led(None, Backend::Nothing));
            publish(&table);
            assert_eq!(
                admitted(state.admit("api.localhost", "/", &[])).0,
                instance(1),
                "{name} is not up yet"
            );
            table.services.insert(name.parse().unwrap(), led(Some(2), to(2)));
            publish(&table);
            assert_eq!(
                admitted(state.admit("api.localhost", "/", &[])).0,
                instance(2),
                "{name} has taken it"
            );
        }
    }

    fn in_flight(state: &State, incarnation: u64) -> u64 {
        state.report(Timestamp(0)).in_flight.get(&instance(incarnation)).copied().unwrap_or(0)
    }

    fn admitted(admission: Admission) -> (InstanceId, Ticket) {
        let Admission::Proxy(_, target, ticket) = admission else { panic!("not admitted: {admission:?}") };
        (target.flight.instance.clone(), ticket)
    }

    #[test]
    fn a_request_that_counts_itself_in_too_late_begins_again() {
        let state = state();
        state.publish(&table(1));
        let snapshot = state.snapshot();
        // The request has its table and is about to choose. Meanwhile it is replaced and reported drained.
        state.publish(&table(2));
        assert_eq!(in_flight(&state, 1), 0);
        let late = admitted(state.choose(&snapshot, "api.localhost", "/", &[]));
        assert_eq!(late.0, instance(1));
        assert!(!state.is_current(&snapshot), "so that `admit` drops the ticket and asks the new table");
        drop(late);
        assert_eq!(admitted(state.admit("api.localhost", "/", &[])).0, instance(2));
    }

    #[test]
    fn a_request_that_counted_itself_in_in_time_is_in_the_report() {
        let state = state();
        state.publish(&table(1));
        let snapshot = state.snapshot();
        let (_, ticket) = admitted(state.choose(&snapshot, "api.localhost", "/", &[]));
        assert!(state.is_current(&snapshot));
        state.publish(&table(2));
        assert_eq!(in_flight(&state, 1), 1);
        let changed = state.changed();
        drop(ticket);
        assert!(changed.has_changed().unwrap(), "the end of the last request is told");
        assert_eq!(in_flight(&state, 1), 0);
    }

    #[test]
    fn what_is_ready_at_another_address_takes_requests_once_the_table_names_it() {
        let state = state();
        state.publish(&table(1));
        let event =
            |health, address: &str| EndpointEvent { instance: instance(1), address: address.into(), health };
        state.endpoint_event(&event(EndpointHealth::Down, "127.0.0.1:1"));
        state.endpoint_event(&event(EndpointHealth::Ready, "127.0.0.1:2"));
        let admitted = || matches!(state.admit("api.localhost", "/", &[]), Admission::Proxy(..));
        assert!(!admitted(), "somebody else may listen at the old address");
        let mut moved = table(1);
        moved.revision = RouteRevision(2);
        for route in moved.services.values_mut() {
            let endpoint = Endpoint { instance: instance(1), address: "127.0.0.1:2".into(), weight: 1 };
            Arc::make_mut(route).backend = Backend::Proxy { endpoints: vec![endpoint] };
        }
        state.publish(&moved);
        assert!(admitted());
    }

    #[test]
    fn an_instance_that_returns_keeps_its_count() {
        let state = state();
        state.publish(&table(1));
        let (_, ticket) = admitted(state.admit("api.localhost", "/", &[]));
        state.publish(&table(2));
        state.publish(&RouteTable { revision: RouteRevision(3), ..table(1) });
        assert_eq!(in_flight(&state, 1), 0, "it is in the table");
        state.publish(&table(4));
        assert_eq!(in_flight(&state, 1), 1, "and still has a request");
        drop(ticket);
        assert_eq!(in_flight(&state, 1), 0);
    }

    /// Threads admit requests without pause while tables are swapped. As soon as a report calls an instance
    /// drained it is stopped; no admitted request may then be found on it.
    #[test]
    fn no_request_is_admitted_to_an_instance_that_was_reported_drained() {
        const SWAPS: u64 = 3000;
        let state = state();
        let stopped: Vec<AtomicBool> = (0..=SWAPS).map(|_| AtomicBool::new(false)).collect();
        let (done, admissions) = (AtomicBool::new(false), AtomicU64::new(0));
        state.publish(&table(1));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !done.load(SeqCst) {
                        let (at, ticket) = admitted(state.admit("api.localhost", "/", &[]));
                        let stopped = &stopped[usize::try_from(at.incarnation.0).unwrap()];
                        assert!(!stopped.load(SeqCst), "{at} was stopped with a request on it");
                        thread::yield_now();
                        assert!(!stopped.load(SeqCst), "{at} was stopped under a request");
                        drop(ticket);
                        admissions.fetch_add(1, SeqCst);
                    }
                });
            }
            for revision in 2..=SWAPS {
                state.publish(&table(revision));
                while in_flight(&state, revision - 1) > 0 {
                    thread::yield_now();
                }
                stopped[usize::try_from(revision - 1).unwrap()].store(true, SeqCst);
            }
            done.store(true, SeqCst);
        });
        assert!(admissions.load(SeqCst) > SWAPS, "there was load");
        let registry = state.registry();
        assert_eq!((registry.flights.len(), registry.targets.len()), (1, 1), "what is gone is forgotten");
    }
}
