//! The HTTP interface: `/api/v1`, health, metrics, monitoring.
//!
//! Owns: routes, their documents, access, limits, and what errors look like. Refuses to know: how things are decided
//! or run; handlers ask [`Control`] and show what it says.
//!
//! Reads as: `table` lists the routes and who may use them, `guard` recognises who asks, `access` lets pass who may, `take` reads requests, the handlers' modules
//! answer, `show` and `problem` give answers their form, `serve` holds the listener.

mod access;
mod artifacts;
mod backup;
mod cluster;
mod edges;
mod events;
mod exec;
mod explain;
mod guard;
mod logs;
mod metrics;
mod monitoring;
mod nodes;
mod once;
mod openapi;
mod page;
pub(crate) mod problem;
mod requests;
mod serve;
mod services;
mod sessions;
mod show;
mod stats;
mod table;
mod take;
#[cfg(test)]
mod tests;
mod tokens;

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::Request,
    middleware::{self, Next},
    response::IntoResponse,
};
use decide::throttle::{Rate, Throttle};
use model::{Millis, TokenName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Control;

pub use guard::{Hosts, Token};
pub use metrics::{Family, MoreMetrics};
pub use serve::serve;
pub use sessions::{ExecError, LogError, Sessions};

/// Streams (events, logs, commands) at once.
const MAX_STREAMS: usize = 256;
/// Edges that wait for a newer route table at once. Their own, since traffic depends on them and not on who reads logs.
const MAX_FEEDS: usize = 256;
/// Uploads at once.
const MAX_UPLOADS: usize = 8;

/// What the interface needs beside [`Control`].
#[derive(Clone)]
pub struct Config {
    pub token: Token,
    pub hosts: Hosts,
    pub sessions: Arc<dyn Sessions>,
    pub more_metrics: Vec<MoreMetrics>,
    pub limits: Limits,
}

/// How often somebody may ask.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests without a valid token, of each address.
    pub failures: Rate,
    /// Requests of each token that was given out.
    pub requests: Rate,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            failures: Rate { burst: 20, every: Millis(1000) },
            requests: Rate { burst: 200, every: Millis(20) },
        }
    }
}

impl Config {
    /// `allowed_hosts` are host names besides loopback's.
    pub fn new(token: impl AsRef<str>, allowed_hosts: Vec<String>, sessions: impl Sessions) -> Self {
        Self {
            token: Token::new(token.as_ref()),
            hosts: Hosts::new(allowed_hosts),
            sessions: Arc::new(sessions),
            more_metrics: Vec::new(),
            limits: Limits::default(),
        }
    }

    /// Adds metrics of another part, read at each request.
    #[must_use]
    pub fn with_metrics(mut self, more: impl Fn() -> Vec<Family> + Send + Sync + 'static) -> Self {
        self.more_metrics.push(Arc::new(more));
        self
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

/// What handlers share.
#[derive(Clone)]
struct Api(Arc<Inner>);

struct Inner {
    control: Control,
    token: Token,
    hosts: Hosts,
    sessions: Arc<dyn Sessions>,
    more_metrics: Vec<MoreMetrics>,
    answers: metrics::Answers,
    openapi: Bytes,
    streams: Arc<Semaphore>,
    feeds: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
    keyed: once::Running,
    failures: Mutex<Throttle<IpAddr>>,
    requests: Mutex<Throttle<TokenName>>,
}

impl std::ops::Deref for Api {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Api {
    fn new(control: Control, config: Config, openapi: Bytes) -> Self {
        let Config { token, hosts, sessions, more_metrics, limits } = config;
        Self(Arc::new(Inner {
            control,
            token,
            hosts,
            sessions,
            more_metrics,
            answers: metrics::Answers::default(),
            openapi,
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            feeds: Arc::new(Semaphore::new(MAX_FEEDS)),
            uploads: Arc::new(Semaphore::new(MAX_UPLOADS)),
            keyed: once::Running::default(),
            failures: Mutex::new(Throttle::new(limits.failures)),
            requests: Mutex::new(Throttle::new(limits.requests)),
        }))
    }

    /// A place for one more edge that waits for routes.
    fn feed(&self) -> Result<OwnedSemaphorePermit, problem::Problem> {
        let full = ("too_many_feeds", "too many edges wait for routes");
        place(&self.feeds, full, "ask again without `wait`, or run fewer edges")
    }

    /// A place for one more stream.
    fn stream(&self) -> Result<OwnedSemaphorePermit, problem::Problem> {
        let full = ("too_many_streams", "too many streams are open");
        place(&self.streams, full, "close one, or ask for a page instead")
    }
}

fn place(
    places: &Arc<Semaphore>,
    (code, message): (&'static str, &str),
    help: &'static str,
) -> Result<OwnedSemaphorePermit, problem::Problem> {
    places.clone().try_acquire_owned().map_err(|_| problem::Problem::unavailable(code, message, help))
}

/// The whole interface as one service.
pub fn router(control: Control, config: Config) -> Router {
    let routes = table::routes();
    let openapi = serde_json::to_vec_pretty(&openapi::document(&routes)).unwrap_or_default();
    let api = Api::new(control, config, openapi.into());
    let mut router = Router::new();
    for route in routes {
        let (api, access) = (api.clone(), route.access);
        let check = middleware::from_fn(move |request: Request, next: Next| {
            let api = api.clone();
            async move { access::check(&api, access, request, next).await }
        });
        let known = middleware::from_fn(move |request: Request, next: Next| async move {
            match take::check_query(request.uri(), route.query) {
                Ok(()) => next.run(request).await,
                Err(problem) => problem.into_response(),
            }
        });
        router = router.route(route.path, route.handler.route_layer(known).route_layer(check));
    }
    router
        .fallback(services::nothing_there)
        .method_not_allowed_fallback(services::wrong_method)
        .layer(middleware::from_fn_with_state(api.clone(), guard::guard))
        .with_state(api)
}
