//! An edge that serves whole tables and counts what it is told to count.

use std::collections::BTreeMap;

use model::{
    EdgeId, InstanceId, RouteRevision, Timestamp,
    route::{EdgeReport, RouteTable},
};

pub struct Fake {
    pub id: EdgeId,
    pub table: RouteTable,
    /// Requests under way, whether or not the table still leads to them.
    pub in_flight: BTreeMap<InstanceId, u64>,
    /// It goes on with the table that it has.
    pub lags: bool,
    /// Its reports do not arrive.
    pub silent: bool,
    pub heard: Option<EdgeReport>,
}

impl Fake {
    pub fn new(id: EdgeId) -> Self {
        Self {
            id,
            table: RouteTable::default(),
            in_flight: BTreeMap::new(),
            lags: false,
            silent: false,
            heard: None,
        }
    }

    /// A table of a revision that it serves already brings nothing new.
    pub fn offer(&mut self, table: &RouteTable) {
        if !self.lags && table.revision > self.table.revision {
            self.table = table.clone();
        }
    }

    pub fn report(&mut self, now: Timestamp) {
        if self.silent {
            return;
        }
        let routed: Vec<_> =
            self.table.services.values().flat_map(|route| route.backend.instances()).cloned().collect();
        let retired = self.in_flight.iter().filter(|(id, n)| !routed.contains(id) && **n > 0);
        self.heard = Some(EdgeReport {
            edge: self.id.clone(),
            boot: "boot".parse().unwrap(),
            at: now,
            served: RouteRevision(self.table.revision.0),
            in_flight: retired.map(|(id, n)| (id.clone(), *n)).collect(),
        });
    }
}
