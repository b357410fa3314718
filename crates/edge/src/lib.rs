//! The edge: the built-in layer-7 proxy and static file server.
//!
//! Owns: the listener, strict reading of requests, routing, balancing, the health overlay, upstream
//! connections, files of sites, and the one count that says *drained*.
//! Refuses to know: the database, what should run, and how a route table came to be. It is given whole tables
//! and swaps them as one value.
//!
//! Reads as: `listener` accepts, `wire` refuses ambiguous bytes, `serve` takes a request through `host`,
//! `state` (route, pick, count in), then `proxy` (`headers`, `pool`, `body`, `tunnel`) or `files`.

mod balance;
mod body;
mod closing;
mod compiled;
mod config;
mod failure;
mod files;
mod flight;
mod headers;
mod host;
mod listener;
mod overlay;
mod pool;
mod problem;
mod proxy;
mod registry;
pub mod remote;
mod serve;
mod state;
mod stats;
mod tunnel;
mod wire;

use std::{net::SocketAddr, sync::Arc};

use model::{
    RouteRevision, Timestamp,
    route::{EdgeReport, EndpointEvent, RouteTable},
};
use tokio::sync::watch;

pub use config::{Config, Limits};
pub use listener::{BindError, Server};
pub use stats::{ServiceCounters, Stats};

/// A handle on a running edge: cheap to clone, all of them the same edge.
#[derive(Debug, Clone)]
pub struct Edge {
    state: Arc<state::State>,
    local: SocketAddr,
}

impl Edge {
    /// Takes the address. Connections wait in the backlog until [`Server::run`].
    pub async fn bind(config: Config) -> Result<(Self, Server), BindError> {
        let listener = listener::listen(config.listen)?;
        let local = listener.local_addr().map_err(|error| BindError::other(config.listen, error))?;
        let state = Arc::new(state::State::new(config));
        Ok((Self { state: state.clone(), local }, Server::new(listener, state)))
    }

    /// The address taken; tells the port when the configured one was 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Serves this table from now on: every request routed after the return uses it or a later one. A table
    /// that is not newer than the served one is ignored.
    pub fn publish(&self, table: &RouteTable) {
        self.state.publish(table);
    }

    /// Subtracts an endpoint at once, or gives it back. Never adds one that the table does not name.
    pub fn endpoint_event(&self, event: &EndpointEvent) {
        self.state.endpoint_event(event);
    }

    /// What is served, and what is in flight on instances that the served table no longer names.
    pub fn report(&self, at: Timestamp) -> EdgeReport {
        self.state.report(at)
    }

    /// Changes whenever the report's meaning does: a table was published, a retired instance has drained.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.state.changed()
    }

    /// The served table when it is older than this revision.
    fn older_than(&self, revision: RouteRevision) -> Option<RouteTable> {
        self.state.older_than(revision)
    }

    #[cfg(test)]
    fn is_down(&self, instance: &model::InstanceId) -> bool {
        self.state.is_down(instance)
    }

    /// Counters of the services in the served table, and of what reached none.
    pub fn stats(&self) -> Stats {
        self.state.stats()
    }
}
