//! Tables that arrive, and the requests that follow them.

use std::{collections::BTreeSet, sync::Arc};

use model::{InstanceId, Millis, ServiceKey, route::RouteTable};
use rand::Rng;

use super::{Event, Play, TRAFFIC};
use crate::{edge::Request, machine::EndReason, story::Link};

impl Play<'_> {
    pub(super) fn edge_up(&mut self) {
        if self.edge.up {
            return;
        }
        self.edge.up = true;
        let boot = self.edge.boot;
        self.after(Millis(0), Event::EdgeTick { boot });
    }

    pub(super) fn table_arrives(&mut self, table: &Arc<RouteTable>) {
        if self.edge.offered(table) {
            let routed: BTreeSet<InstanceId> = self
                .edge
                .table
                .services
                .values()
                .flat_map(|route| route.backend.instances())
                .cloned()
                .collect();
            for process in self.machine.processes.values_mut().filter(|process| routed.contains(&process.id))
            {
                process.routed = true;
            }
            self.told(format!("edge serves {}", table.revision));
            self.edge_reports();
        }
    }

    pub(super) fn edge_reports(&mut self) {
        let report = self.edge.report(self.now);
        self.send(Link::EdgeToServer, &Event::EdgeSays(report));
    }

    pub(super) fn traffic(&mut self) {
        self.after(TRAFFIC, Event::Traffic);
        if !self.edge.up {
            return;
        }
        for service in 0..self.story.shapes.len() {
            let key = self.story.shapes[service].key();
            if self.story.shapes[service].is_site {
                self.visit(&key);
            } else {
                self.request(&key);
            }
        }
    }

    /// I9: the folder that the edge serves is whole.
    fn visit(&mut self, key: &ServiceKey) {
        let Some(folder) = self.edge.folder(key) else { return };
        let whole = self.machine.folders.get(folder).is_some_and(|folder| folder.complete);
        if !whole && !self.by_hand.contains(key) {
            let message = format!("{key} is served from {folder}, which is not whole");
            self.truth.fail("I9", self.now, message);
        }
    }

    fn request(&mut self, key: &ServiceKey) {
        let mut endpoints = self.edge.endpoints(key);
        while !endpoints.is_empty() {
            let picked = endpoints.swap_remove(self.rng.random_range(0..endpoints.len()));
            let port = picked.address.rsplit(':').next().and_then(|port| port.parse().ok());
            // Refused at once: another one is tried.
            let Some((pid, process)) = port.and_then(|port| self.machine.listener(port)) else { continue };
            if process.id != picked.instance {
                let found = process.id.clone();
                self.truth.misrouted(self.now, &picked.instance, pid, &found);
                continue;
            }
            if process.told_to_end == Some(EndReason::Removed) {
                self.truth.ended_with_requests(self.now, &picked.instance, 1);
            }
            let request = Request { instance: picked.instance, pid };
            let long = self.rng.random_bool(0.05);
            let takes = Millis(if long {
                self.rng.random_range(2_000..8_000)
            } else {
                self.rng.random_range(5..900)
            });
            let request = self.edge.begin(request);
            let boot = self.edge.boot;
            self.after(takes, Event::RequestEnds { boot, request });
            return;
        }
    }

    pub(super) fn request_ends(&mut self, boot: u64, request: u64) {
        if self.edge.boot != boot {
            return;
        }
        let Some(ended) = self.edge.requests.remove(&request) else { return };
        let last = !self.edge.requests.values().any(|other| other.instance == ended.instance);
        let retired =
            self.edge.table.services.values().all(|r| !r.backend.instances().contains(&ended.instance));
        if last && retired {
            self.edge_reports();
        }
    }
}
