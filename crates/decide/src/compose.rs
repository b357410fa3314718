//! From committed plans to the two messages: a node's complete assignment and the route table.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    ClusterId, InstanceId, NodeId, RouteRevision, ServiceKey,
    assignment::{Assigned, Assignment, Stamp},
    route::RouteTable,
};

use crate::world::World;

/// What a service contributes to a node's assignment. `Err`: it cannot be read, and the node keeps what it has.
pub fn assigned(world: &World, node: &NodeId) -> Result<Vec<Arc<Assigned>>, ServiceKey> {
    let service = world.service.known().ok_or_else(|| world.key.clone())?;
    let placed = world.plan.placements.values().filter(|p| p.stage.is_assigned() && p.node == *node);
    placed
        .map(|placement| {
            let content = world.releases.get(&placement.release).ok_or_else(|| world.key.clone())?;
            Ok(Arc::new(Assigned {
                id: placement.id.clone(),
                release: placement.release,
                content: Arc::clone(content),
                deployment: placement.deployment.clone(),
                current: world.plan.current.as_ref() == Some(&placement.id),
                restart: service.spec.restart.clone(),
                drift: service.spec.drift.clone(),
                attempts: placement.attempts.clone(),
            }))
        })
        .collect()
}

/// A node's whole assignment.
pub fn assignment<'a>(
    cluster: &ClusterId,
    node: &NodeId,
    stamp: Stamp,
    worlds: impl IntoIterator<Item = &'a World>,
) -> Assignment {
    let mut whole = Assignment {
        cluster: cluster.clone(),
        node: node.clone(),
        stamp,
        instances: BTreeMap::<InstanceId, Arc<Assigned>>::new(),
        held: Default::default(),
    };
    for world in worlds {
        match assigned(world, node) {
            Ok(instances) => whole.instances.extend(instances.into_iter().map(|a| (a.id.clone(), a))),
            Err(held) => {
                whole.held.insert(held);
            }
        }
    }
    whole
}

/// The whole route table.
pub fn route_table<'a>(revision: RouteRevision, worlds: impl IntoIterator<Item = &'a World>) -> RouteTable {
    let mut table = RouteTable { revision, ..RouteTable::default() };
    for world in worlds {
        if world.service.is_unknown() {
            table.held.insert(world.key.clone());
        }
        // Where it was last led, also for what cannot be read: an edge that has just started has nothing to keep.
        if let Some(route) = &world.plan.route {
            table.services.insert(world.key.clone(), Arc::clone(route));
        }
    }
    table
}
