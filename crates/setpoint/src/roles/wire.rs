//! Carries whole values between the parts of one process: assignments down, observations and reports up, the route
//! table to the edge, endpoint events from the node to the edge.

use std::{sync::Arc, time::Duration};

use edge::Edge;
use model::NodeId;
use node::{Clock as _, Node};
use server::Control;
use tokio::task::JoinSet;

use super::clock::Clock;

/// An edge that lives says so this often.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
/// Events of a node recorded in one transaction.
const EVENTS_AT_ONCE: usize = 256;

/// The tasks that carry; they end when it is dropped.
pub type Wires = JoinSet<()>;

pub fn node(wires: &mut Wires, control: &Control, node: &Node, id: &NodeId) {
    wires.spawn(assign(control.clone(), node.clone(), id.clone()));
    wires.spawn(observe(control.clone(), node.clone()));
    wires.spawn(record(control.clone(), node.clone()));
}

async fn assign(control: Control, node: Node, id: NodeId) {
    let mut assignments = control.feeds().assignments;
    loop {
        let assignment = assignments.borrow_and_update().get(&id).cloned();
        if let Some(assignment) = assignment
            && let Err(error) = node.assign(assignment).await
        {
            tracing::error!(%error, "the node did not take its assignment");
        }
        if assignments.changed().await.is_err() {
            return;
        }
    }
}

async fn observe(control: Control, node: Node) {
    let mut observations = node.observations();
    loop {
        let observation = Arc::clone(&observations.borrow_and_update());
        control.observe(observation);
        if observations.changed().await.is_err() {
            return;
        }
    }
}

async fn record(control: Control, node: Node) {
    let mut events = node.events();
    let mut batch = Vec::new();
    while events.recv_many(&mut batch, EVENTS_AT_ONCE).await > 0 {
        control.node_events(std::mem::take(&mut batch)).await;
    }
}

pub fn edge(wires: &mut Wires, control: &Control, node: &Node, edge: &Edge, clock: Clock) {
    let sink = edge.clone();
    node.endpoint_events(Arc::new(move |event| sink.endpoint_event(&event)));
    wires.spawn(publish(control.clone(), edge.clone()));
    wires.spawn(report(control.clone(), edge.clone(), clock));
}

async fn publish(control: Control, edge: Edge) {
    let mut routes = control.feeds().routes;
    loop {
        let table = Arc::clone(&routes.borrow_and_update());
        edge.publish(&table);
        if routes.changed().await.is_err() {
            return;
        }
    }
}

async fn report(control: Control, edge: Edge, clock: Clock) {
    let mut changed = edge.changed();
    loop {
        changed.mark_unchanged();
        control.hear(edge.report(clock.now()));
        tokio::select! {
            alive = changed.changed() => if alive.is_err() { return },
            () = tokio::time::sleep(SIGN_OF_LIFE) => {}
        }
    }
}
