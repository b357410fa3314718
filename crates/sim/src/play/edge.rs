//! Tables that arrive, and the requests that follow them.

use std::sync::Arc;

use model::{Millis, ServiceKey, route::RouteTable};
use rand::Rng;

use super::{Event, Play, TRAFFIC};
use crate::{edge::Request, machine::EndReason, story::Link};

impl Play<'_> {
    pub(super) fn edge_up(&mut self, edge: usize) {
        if self.edges[edge].up {
            return;
        }
        self.edges[edge].up = true;
        let boot = self.edges[edge].boot;
        self.after(Millis(0), Event::EdgeTick { edge, boot });
    }

    pub(super) fn table_arrives(&mut self, edge: usize, table: &Arc<RouteTable>) {
        if self.edges[edge].offered(table) {
            self.told(format!("edge {edge} serves {}", table.revision));
            self.truth.routed(self.now, table);
            self.edge_reports(edge);
        }
    }

    pub(super) fn edge_reports(&mut self, edge: usize) {
        let report = self.edges[edge].report(self.now);
        self.send(Link::EdgeToServer(edge), &Event::EdgeSays(report));
    }

    pub(super) fn traffic(&mut self) {
        self.after(TRAFFIC, Event::Traffic);
        for edge in 0..self.edges.len() {
            if self.edges[edge].up {
                for shape in &self.story.shapes {
                    self.visit(edge, &shape.key);
                    self.request(edge, &shape.key);
                }
            }
        }
    }

    /// I9: the folder that the edge serves is whole.
    fn visit(&mut self, edge: usize, key: &ServiceKey) {
        let Some(folder) = self.edges[edge].folder(key) else { return };
        let whole =
            |host: &super::Host| host.machine.folders.get(folder).is_some_and(|folder| folder.complete);
        if !self.hosts.iter().any(whole) && !self.by_hand.contains(key) {
            let message = format!("{key} is served from {folder}, which is not whole");
            self.truth.fail("I9", self.now, message);
        }
    }

    /// The node of an address, and its port.
    fn resolve(&self, address: &str) -> Option<(usize, u16)> {
        let (node, port) = address.rsplit_once(':')?;
        let node = self.hosts.iter().position(|host| host.agent.id.as_str() == node)?;
        Some((node, port.parse().ok()?))
    }

    fn request(&mut self, edge: usize, key: &ServiceKey) {
        let mut endpoints: Vec<_> = self.edges[edge].endpoints(key).cloned().collect();
        while !endpoints.is_empty() {
            let picked = endpoints.swap_remove(self.rng.random_range(0..endpoints.len()));
            let Some((node, port)) = self.resolve(&picked.address) else { continue };
            // Refused at once: another one is tried.
            let Some((pid, process)) = self.hosts[node].machine.listener(port) else { continue };
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
            let request = self.edges[edge].begin(request);
            let boot = self.edges[edge].boot;
            self.after(takes, Event::RequestEnds { edge, boot, request });
            return;
        }
    }

    pub(super) fn request_ends(&mut self, edge: usize, boot: u64, request: u64) {
        if self.edges[edge].boot != boot {
            return;
        }
        let Some(ended) = self.edges[edge].requests.remove(&request) else { return };
        let last = !self.edges[edge].requests.values().any(|other| other.instance == ended.instance);
        let mut routes = self.edges[edge].table.services.values();
        let retired = routes.all(|route| !route.backend.instances().contains(&ended.instance));
        if last && retired {
            self.edge_reports(edge);
        }
    }
}
