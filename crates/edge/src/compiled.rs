//! A route table made ready for serving: immutable, found by host and then by the longest path prefix.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, atomic::AtomicUsize},
};

use model::ServiceKey;

use crate::{flight::Flight, pool::Target, stats::ServiceStats};

/// One table as served.
#[derive(Debug, Default)]
pub struct Compiled {
    /// Counts the tables of this edge; rises with each publication.
    pub generation: u64,
    pub hosts: HashMap<Box<str>, Host>,
}

/// Routes of one host, the longest prefix first.
#[derive(Debug, Default)]
pub struct Host {
    routes: Vec<Route>,
}

#[derive(Debug)]
pub struct Route {
    /// `/`, or `/a/b` without a trailing slash.
    pub prefix: Box<str>,
    pub service: Arc<Service>,
}

#[derive(Debug)]
pub struct Service {
    pub key: ServiceKey,
    pub stats: Arc<ServiceStats>,
    pub serve: Serve,
}

#[derive(Debug)]
pub enum Serve {
    Proxy(Endpoints),
    Files(Arc<Site>),
    Nothing,
}

/// The endpoints of one service, with the place where the next tie begins.
#[derive(Debug)]
pub struct Endpoints {
    pub all: Vec<Weighted>,
    pub turn: AtomicUsize,
}

#[derive(Debug)]
pub struct Weighted {
    pub weight: u32,
    pub target: Arc<Target>,
}

#[derive(Debug)]
pub struct Site {
    pub flight: Arc<Flight>,
    pub folder: PathBuf,
    pub spa: bool,
}

impl Compiled {
    pub fn add(&mut self, host: &str, prefix: &str, service: &Arc<Service>) {
        self.hosts.entry(host.into()).or_default().add(prefix, service);
    }

    pub fn route(&self, host: &str, path: &str) -> Option<&Route> {
        self.hosts.get(host)?.routes.iter().find(|route| is_below(path, &route.prefix))
    }
}

impl Host {
    fn add(&mut self, prefix: &str, service: &Arc<Service>) {
        let at = self.routes.partition_point(|route| route.prefix.len() >= prefix.len());
        self.routes.insert(at, Route { prefix: prefix.into(), service: service.clone() });
    }
}

/// Whether a path is a prefix or below it, on a segment's boundary: `/api` covers `/api` and `/api/x`, not `/apix`.
fn is_below(path: &str, prefix: &str) -> bool {
    prefix == "/" || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compiled(prefixes: &[String]) -> Compiled {
        let mut table = Compiled::default();
        for (n, prefix) in prefixes.iter().enumerate() {
            let service = Service {
                key: format!("default/s{n}").parse().unwrap(),
                stats: Arc::default(),
                serve: Serve::Nothing,
            };
            table.add("a.localhost", prefix, &Arc::new(service));
        }
        table
    }

    fn check(table: &Compiled, path: &str, expected: Option<&str>) {
        assert_eq!(table.route("a.localhost", path).map(|r| &*r.prefix), expected, "{path}");
    }

    #[test]
    fn the_longest_prefix_wins_on_segment_boundaries() {
        let table = compiled(&["/api".into(), "/api/v1".into(), "/".into()]);
        check(&table, "/api", Some("/api"));
        check(&table, "/api/", Some("/api"));
        check(&table, "/api/x", Some("/api"));
        check(&table, "/apix", Some("/"));
        check(&table, "/api/v1", Some("/api/v1"));
        check(&table, "/api/v1/users", Some("/api/v1"));
        check(&table, "/api/v12", Some("/api"));
        check(&table, "*", Some("/"));
        assert!(table.route("b.localhost", "/").is_none());
    }

    /// The same rule, said segment by segment.
    fn naive<'a>(prefixes: &'a [String], path: &str) -> Option<&'a str> {
        let segments = |s: &str| s.split('/').map(str::to_owned).collect::<Vec<_>>();
        let covers = |prefix: &str| prefix == "/" || segments(path).starts_with(&segments(prefix));
        prefixes.iter().map(String::as_str).filter(|p| covers(p)).max_by_key(|p| p.len())
    }

    fn path(depth: usize) -> impl Strategy<Value = String> {
        proptest::collection::vec("[ab]{1,2}", 0..=depth).prop_map(|parts| format!("/{}", parts.join("/")))
    }

    proptest! {
        #[test]
        fn routing_equals_the_naive_model(prefixes in proptest::collection::btree_set(path(3), 0..8), path in path(5)) {
            let prefixes: Vec<String> = prefixes.into_iter().collect();
            let table = compiled(&prefixes);
            prop_assert_eq!(table.route("a.localhost", &path).map(|r| &*r.prefix), naive(&prefixes, &path));
        }
    }
}
