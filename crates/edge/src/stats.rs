//! Counters for people and for `/metrics`. They decide nothing.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use http::StatusCode;
use model::ServiceKey;

/// A reading of all counters. They begin at 0 with the edge's start, or with the service's first table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    pub services: BTreeMap<ServiceKey, ServiceCounters>,
    /// Requests that reached no service: unknown host, malformed.
    pub unrouted: u64,
    /// Client connections open now.
    pub connections: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServiceCounters {
    /// Answers by class: 1xx (upgrades) at 0, 5xx at 4.
    pub by_class: [u64; 5],
    pub in_flight: u64,
    /// Attempts that failed before any answer and were made again.
    pub retries: u64,
    /// Endpoints passed over because they refused a connection.
    pub ejections: u64,
    /// Body bytes to clients.
    pub bytes_out: u64,
    /// Body bytes from clients.
    pub bytes_in: u64,
}

#[derive(Debug, Default)]
pub struct ServiceStats {
    by_class: [AtomicU64; 5],
    pub retries: AtomicU64,
    pub ejections: AtomicU64,
    pub bytes_out: AtomicU64,
    pub bytes_in: AtomicU64,
}

impl ServiceStats {
    pub fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5);
        self.by_class[class - 1].fetch_add(1, Relaxed);
    }

    pub fn read(&self, in_flight: u64) -> ServiceCounters {
        ServiceCounters {
            by_class: std::array::from_fn(|i| self.by_class[i].load(Relaxed)),
            in_flight,
            retries: self.retries.load(Relaxed),
            ejections: self.ejections.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
        }
    }
}
