//! Nodes: what they run, what is strange there, and what a drain still waits for.

use axum::{Json, extract::State, http::StatusCode, response::Response};
use decide::{
    access::Permit,
    plan::{self, plan_service},
};
use model::{NodeId, node::NodeState, reason::Waiting};

use super::{
    Api,
    access::Allowed,
    once::once,
    problem::Problem,
    requests::Nothing,
    take::{OfNode, Write},
};
use crate::{
    Brain, OperatorError, Terms,
    views::{self, Time},
};

pub async fn list(State(api): State<Api>) -> Json<views::Nodes> {
    let now = api.control.now();
    let nodes = api.control.with_brain(|brain| {
        brain.snapshot.cluster.nodes.keys().filter_map(|id| shown(brain, id, now)).collect()
    });
    Json(views::Nodes { nodes })
}

pub async fn one(State(api): State<Api>, OfNode(id): OfNode) -> Result<Json<views::Node>, Problem> {
    let now = api.control.now();
    let node = api.control.with_brain(|brain| shown(brain, &id, now));
    node.map(Json).ok_or_else(|| OperatorError::NoNode(id).into())
}

pub async fn drain(
    State(api): State<Api>,
    Allowed(permit): Allowed,
    OfNode(id): OfNode,
    Write(Nothing {}, terms): Write<Nothing>,
) -> Result<Response, Problem> {
    drain_or_not(&api, id, true, &permit, &terms).await
}

pub async fn undrain(
    State(api): State<Api>,
    Allowed(permit): Allowed,
    OfNode(id): OfNode,
    Write(Nothing {}, terms): Write<Nothing>,
) -> Result<Response, Problem> {
    drain_or_not(&api, id, false, &permit, &terms).await
}

async fn drain_or_not(
    api: &Api,
    id: NodeId,
    begin: bool,
    permit: &Permit,
    terms: &Terms,
) -> Result<Response, Problem> {
    let effect = async {
        api.control.drain(&id, begin, permit).await?;
        let Json(node) = one(State(api.clone()), OfNode(id)).await?;
        Ok((StatusCode::OK, node))
    };
    once(api, permit, terms, effect).await
}

fn shown(brain: &Brain, id: &NodeId, now: model::Timestamp) -> Option<views::Node> {
    let cluster = &brain.snapshot.cluster;
    let node = cluster.nodes.get(id)?;
    let seen = brain.observation(id);
    let away = seen.and_then(|seen| seen.engine.as_ref()?.away());
    let drain = brain.drain_of(id);
    Some(views::Node {
        id: id.clone(),
        state: state_word(&node.state).into(),
        observed_at: seen.map(|seen| Time(seen.at)),
        complete: seen.is_some_and(|seen| seen.complete),
        instances: cluster.load.get(id).copied().unwrap_or_default(),
        strangers: seen.map(|seen| seen.strangers.iter().map(stranger).collect()).unwrap_or_default(),
        refuses: brain.refusals().get(id).cloned(),
        engine_away: away.map(|away| away.cause.clone()),
        engine_away_since: away.map(|away| Time(away.since)),
        draining_since: drain.map(|drain| Time(drain.since)),
        drained_by: drain.map(|drain| drain.by.clone()),
        remaining: if drain.is_some() { remaining(brain, id, now) } else { Vec::new() },
    })
}

/// What is still there, in the planner's words: what it would say now, before the next pass has said it.
fn remaining(brain: &Brain, id: &NodeId, now: model::Timestamp) -> Vec<views::Remaining> {
    let mut remaining = Vec::new();
    for world in brain.worlds() {
        let placed = || world.plan.placements.values().filter(|p| p.node == *id && p.stage.is_run());
        if placed().next().is_none() {
            continue;
        }
        let (_, report) = plan_service(world, &brain.snapshot.cluster, now);
        for placement in placed() {
            let stuck = plan::waits(&report).find(|waiting| {
                matches!(waiting, Waiting::NowhereToGo { instance, .. } if *instance == placement.id)
            });
            let moves = || format!("{} goes once another one serves elsewhere", placement.id);
            remaining.push(views::Remaining {
                instance: placement.id.clone(),
                moves: stuck.is_none(),
                message: stuck.map_or_else(moves, ToString::to_string),
            });
        }
    }
    remaining
}

fn state_word(state: &NodeState) -> &'static str {
    match state {
        NodeState::Up => "up",
        NodeState::Draining => "draining",
        NodeState::Silent { .. } => "silent",
        NodeState::Lost { .. } => "lost",
    }
}

fn stranger(stranger: &model::observation::Stranger) -> views::Stranger {
    views::Stranger { what: stranger.what.clone(), message: stranger.message.clone() }
}

impl From<OperatorError> for Problem {
    fn from(error: OperatorError) -> Self {
        let message = error.to_string();
        match error {
            OperatorError::NoNode(_) => {
                Self::not_found("no_such_node", message, "`setpoint node list` lists them")
            }
            OperatorError::NoToken(_) => {
                Self::not_found("no_such_token", message, "`setpoint token list` lists them")
            }
            OperatorError::NameTaken(_) => {
                Self::conflict("name_taken", message, "choose another name, or revoke that one first")
                    .field("name")
            }
            OperatorError::NameReserved => {
                Self::unprocessable("name_reserved", message, "choose another name").field("name")
            }
            OperatorError::TooMany => {
                Self::conflict("too_many_tokens", message, "revoke those that nobody uses")
            }
            OperatorError::Store(error) => error.into(),
        }
    }
}
