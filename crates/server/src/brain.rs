//! The view that this server plans from, filled from stored rows; and what is counted of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Deref, DerefMut},
};

use decide::{
    monitor::Outcome,
    view::{self, View},
    world::{Snapshot, World},
};
use model::{Holder, Knowledge, Millis, NodeId, ServiceKey, Term, Timestamp, plan::ServicePlan};
use store::{Counters, Floor, Loaded, ServiceRow};

use crate::counting::{self, Histogram};

/// A node that has not reported for this long may do anything by now: what it said is no longer taken for true (I20).
const STALE_AFTER: Millis = Millis::secs(20);

#[derive(Debug)]
pub struct Brain {
    view: View,
    /// Deployments that have ended since the start, by how, with the time that they took.
    ended: BTreeMap<Outcome, Histogram>,
    /// Some row does not even say whose it is: nothing may be published, because something would be missing.
    pub incomplete: Option<String>,
}

impl Deref for Brain {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

impl DerefMut for Brain {
    fn deref_mut(&mut self) -> &mut View {
        &mut self.view
    }
}

impl Brain {
    pub fn new(term: Term, holder: Holder, counters: Counters, nodes: Vec<NodeId>, now: Timestamp) -> Self {
        let cluster = view::cluster(counters.generation, counters.route_revision, nodes);
        let snapshot = Snapshot { now, term, holder, cluster, worlds: BTreeMap::new() };
        Self {
            view: View::new(snapshot, STALE_AFTER),
            ended: Outcome::ALL.map(|outcome| (outcome, Histogram::new(counting::DEPLOYMENTS))).into(),
            incomplete: None,
        }
    }

    /// Takes in what the store holds of one service; `None`: nothing.
    pub fn take_row(&mut self, key: &ServiceKey, loaded: Option<Loaded>) {
        match loaded {
            None => self.forget(key),
            Some(Loaded::Read(row)) => self.put(world_of(*row)),
            Some(Loaded::Unreadable { cause, plan, .. }) => self.quarantine(key, cause, plan),
            Some(Loaded::Nameless { text, cause }) => self.incomplete = Some(format!("{text}: {cause}")),
        }
    }

    /// It is there and cannot be read: what is known of it stays, and nothing is decided.
    fn quarantine(&mut self, key: &ServiceKey, cause: String, plan: Option<Box<ServicePlan>>) {
        let since = self.snapshot.now;
        let mut world = match self.snapshot.worlds.get(key) {
            Some(world) => (**world).clone(),
            None => {
                World { plan: plan.map(|plan| *plan).unwrap_or_default(), ..absent(key, Floor::default()) }
            }
        };
        world.service = Knowledge::Unknown { since, cause };
        self.put(world);
    }

    /// What must be planned now; also counts what has ended.
    pub fn due(&mut self) -> BTreeSet<ServiceKey> {
        for (outcome, took) in self.view.take_ended() {
            let counted = self.ended.entry(outcome).or_insert_with(|| Histogram::new(counting::DEPLOYMENTS));
            counted.observe(took.as_duration());
        }
        self.view.due()
    }

    pub fn ended(&self) -> &BTreeMap<Outcome, Histogram> {
        &self.ended
    }
}

fn world_of(row: ServiceRow) -> World {
    World {
        key: row.service.key.clone(),
        service: Knowledge::Known(row.service),
        plan: row.plan,
        releases: row.releases,
        deployments: row.deployments,
        next_deployment: row.next_deployment_number,
        seen: BTreeMap::new(),
        edges: BTreeMap::new(),
        refused: BTreeMap::new(),
        lost_volumes: BTreeMap::new(),
        engines_away: BTreeMap::new(),
    }
}

/// The world of a service that is not declared (any more): its counters go on.
pub fn absent(key: &ServiceKey, floor: Floor) -> World {
    World {
        plan: ServicePlan {
            seq: floor.plan,
            next_incarnation: floor.next_incarnation,
            ..ServicePlan::default()
        },
        next_deployment: floor.next_deployment_number,
        ..World::absent(key.clone())
    }
}
