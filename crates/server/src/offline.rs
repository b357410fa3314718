//! What an apply would do where nothing is declared and one empty node is up: `setpoint plan --offline`.

use std::collections::{BTreeMap, BTreeSet};

use decide::{conflict::Claims, intent, world::Cluster};
use model::{
    ArtifactDigest, Digest, NodeId, Timestamp,
    image::ImagePin,
    node::{Node, NodeState},
    service::Owner,
};
use store::Floor;

use crate::{
    Declared, Planned, RequestError,
    api::problem::Problem,
    brain,
    intents::{Decided, check_declared, intent_of, planned},
    views,
};

/// `entries` are the top-level names of contents. A refusal is the one that a server would answer with.
pub fn plan_offline(
    services: &[Declared],
    entries: &BTreeMap<ArtifactDigest, BTreeSet<String>>,
    node: &NodeId,
    now: Timestamp,
) -> Result<Vec<Planned>, Box<views::Problem>> {
    plan(services, entries, node, now).map_err(|error| Box::new(Problem::from(error).said()))
}

fn plan(
    services: &[Declared],
    entries: &BTreeMap<ArtifactDigest, BTreeSet<String>>,
    node: &NodeId,
    now: Timestamp,
) -> Result<Vec<Planned>, RequestError> {
    check_declared(services)?;
    let empty = Node { id: node.clone(), state: NodeState::Up, reserved_ports: Vec::new() };
    let cluster = Cluster { nodes: BTreeMap::from([(node.clone(), empty)]), ..Cluster::default() };
    let decide = |Declared { key, spec }: &Declared| {
        let world = brain::absent(key, Floor::default());
        let images = intent::unresolved(&world, spec).map(|image| {
            // Nobody is asked: what it stands for stays open.
            let pin = ImagePin::Registry(Digest::of_bytes(image.as_str().as_bytes()));
            (image, pin)
        });
        let outcome = intent::apply(&world, spec, &Owner::Api, &images.into_iter().collect(), now)?;
        Ok(Decided { world, outcome })
    };
    let decided = services.iter().map(decide).collect::<Result<Vec<_>, RequestError>>()?;
    let intents = decided.iter().filter_map(|d| Some((&d.world, intent_of(d)?)));
    let conflicts = Claims::new(intents, std::iter::empty()).conflicts(entries);
    if !conflicts.is_empty() {
        return Err(RequestError::Conflict(conflicts));
    }
    Ok(decided.iter().map(|decided| planned(decided, &cluster, now)).collect())
}
