//! Carries whole values between the parts of one process: assignments down, observations and reports up, the route
//! table to the edge, endpoint events from the node to the edge.

use std::{io::ErrorKind, path::Path, sync::Arc, time::Duration};

use edge::Edge;
use model::{
    NodeId,
    event::Kind,
    route::{EndpointEvent, EndpointHealth},
};
use node::{AssignError, Clock as _, Node};
use server::Control;
use tokio::{sync::mpsc, task::JoinSet};

use super::clock::Clock;

/// An edge in this process says so this often that it lives; it is called lost after 10 s.
const SIGN_OF_LIFE: Duration = Duration::from_secs(4);
/// How long an edge may be too busy to take a `Ready`.
const READY_TRIES: u32 = 100;
const READY_PAUSE: Duration = Duration::from_millis(20);
const ASSIGN_AGAIN: Duration = Duration::from_secs(1);
/// What is told of an exit waits this long for what is told of its repair.
const AFTER_AN_EXIT: Duration = Duration::from_millis(25);
/// Events of a node recorded in one transaction.
const EVENTS_AT_ONCE: usize = 256;

/// The tasks that carry; they end when it is dropped.
pub type Wires = JoinSet<()>;

pub fn node(wires: &mut Wires, control: &Control, node: &Node, id: &NodeId) {
    wires.spawn(assign(control.clone(), node.clone(), id.clone()));
    wires.spawn(observe(control.clone(), node.clone()));
    wires.spawn(record(control.clone(), node.clone()));
    wires.spawn(look(control.clone(), node.clone()));
}

async fn assign(control: Control, node: Node, id: NodeId) {
    let mut assignments = control.feeds().assignments;
    loop {
        let assignment = assignments.borrow_and_update().get(&id).cloned();
        let refused = match assignment {
            Some(assignment) => node.assign(assignment).await.err(),
            None => None,
        };
        control.assigned(&id, refused.as_ref().map(ToString::to_string));
        if let Some(error) = &refused {
            tracing::error!(%error, "the node did not take its assignment");
        }
        // A ledger that could not be written is tried again; whatever else was refused stays refused.
        let again = matches!(refused, Some(AssignError::Ledger(_)));
        tokio::select! {
            changed = assignments.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(ASSIGN_AGAIN), if again => {}
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

/// A pass that somebody asks for looks at what is really there, and not only at what was told last.
async fn look(control: Control, node: Node) {
    let mut looks = control.feeds().looks;
    while looks.changed().await.is_ok() {
        looks.mark_unchanged();
        node.look().await;
    }
}

async fn record(control: Control, node: Node) {
    let mut events = node.events();
    let mut batch = Vec::new();
    while events.recv_many(&mut batch, EVENTS_AT_ONCE).await > 0 {
        // Its replacement is on its way: an fsync now would hold up the writes that it waits for. It is told in one
        // transaction with what follows.
        if batch.iter().any(|event| event.kind == Kind::InstanceExited) {
            tokio::time::sleep(AFTER_AN_EXIT).await;
            while let Ok(more) = events.try_recv() {
                batch.push(more);
            }
        }
        control.node_events(std::mem::take(&mut batch)).await;
    }
}

pub fn edge(wires: &mut Wires, control: &Control, node: &Node, edge: &Edge, clock: Clock) {
    let sink = edge.clone();
    node.endpoint_events(Arc::new(move |event| sink.endpoint_event(&event)));
    wires.spawn(publish(control.clone(), edge.clone()));
    wires.spawn(report(control.clone(), edge.clone(), clock));
}

/// Endpoint events for an edge that runs apart, by its socket. Nobody listening is an edge that is not there: it learns
/// from its next table. A `Ready` that an edge was too busy to take is sent again, because only it lifts a `Down`.
pub fn edge_apart(wires: &mut Wires, node: &Node, folder: &Path) -> std::io::Result<()> {
    let sender = edge::remote::EventSender::new(folder)?;
    let (tell, mut told) = mpsc::unbounded_channel::<EndpointEvent>();
    node.endpoint_events(Arc::new(move |event| drop(tell.send(event))));
    wires.spawn(async move {
        while let Some(event) = told.recv().await {
            for _ in 0..READY_TRIES {
                let full = matches!(sender.send(&event), Err(error) if error.kind() == ErrorKind::WouldBlock);
                if !full || event.health == EndpointHealth::Down {
                    break;
                }
                tokio::time::sleep(READY_PAUSE).await;
            }
        }
    });
    Ok(())
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
