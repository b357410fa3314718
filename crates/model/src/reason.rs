//! Typed reasons: what a step of the planner changed and what it waits for. Each has one sentence, which CLI,
//! dashboard and journal print alike.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    DeploymentId, EdgeId, InstanceId, Millis, NodeId, ReleaseDigest, RouteRevision, Timestamp,
    deployment::Phase,
    instance::RetireReason,
    observation::{EngineAway, LostVolume},
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Change {
    Placed {
        instance: InstanceId,
        node: NodeId,
        release: ReleaseDigest,
        because: PlaceReason,
    },
    /// A kept folder is taken up again.
    TakenUp {
        instance: InstanceId,
        release: ReleaseDigest,
    },
    Kept {
        instance: InstanceId,
    },
    RoutedOut {
        instance: InstanceId,
        revision: RouteRevision,
        because: RetireReason,
    },
    Withdrawn {
        instance: InstanceId,
        drained: Drained,
    },
    Gone {
        instance: InstanceId,
    },
    RoutesChanged {
        revision: RouteRevision,
        endpoints: usize,
    },
    PhaseReached {
        deployment: DeploymentId,
        phase: Phase,
    },
    DeploymentEnded {
        deployment: DeploymentId,
        phase: Phase,
        message: String,
    },
    /// The previous release becomes the target again.
    Restored {
        deployment: DeploymentId,
        release: ReleaseDigest,
        failed: DeploymentId,
    },
    AttemptsNoted {
        instance: InstanceId,
        total: u64,
    },
    /// It is restarted too often.
    Alert {
        instance: InstanceId,
        restarts: usize,
        within: Millis,
        message: String,
    },
    Purged,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlaceReason {
    Missing,
    Rollout,
    NodeLost,
    NodeDrained,
}

/// How an instance's last requests ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drained {
    /// It had no routes.
    Unrouted,
    /// Every edge has said that nothing is in flight.
    Empty,
    /// The drain time was over with this many requests still in flight.
    Cut { in_flight: u64 },
    /// An edge did not report in time and counts as lost.
    EdgeSilent,
    /// An edge reports and had not taken it out of its routes when its time was over.
    EdgeBehind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Waiting {
    /// The declaration could not be read: nothing is changed.
    ServiceUnknown {
        cause: String,
    },
    /// The node has not told of this instance yet, or cannot.
    InstanceUnknown {
        instance: InstanceId,
    },
    NodeUnknown {
        node: NodeId,
        since: Timestamp,
    },
    /// Nothing that is decided for this node has an effect there.
    NodeRefuses {
        node: NodeId,
        cause: String,
    },
    /// Its node is being drained, and no other takes it: it is not stopped before something else serves.
    NowhereToGo {
        instance: InstanceId,
        node: NodeId,
        rejected: Vec<String>,
    },
    NoRelease,
    Installing {
        instance: InstanceId,
    },
    NotReady {
        instance: InstanceId,
        message: String,
    },
    BackingOff {
        instance: InstanceId,
        until: Timestamp,
    },
    AttemptsSpent {
        instance: InstanceId,
        until: Option<Timestamp>,
    },
    /// The strategy lets no more instances run at once.
    Surge {
        running: u32,
        limit: u32,
    },
    /// Old instances stay until new ones take their traffic.
    Successor {
        instance: InstanceId,
    },
    /// The old ones must be gone first (`recreate`, `stop-first`).
    Predecessors {
        left: u32,
    },
    NoNode {
        considered: u32,
        rejected: Vec<String>,
    },
    PortTaken {
        port: u16,
        node: NodeId,
        by: InstanceId,
    },
    /// More are wanted than can run: a fixed port is there once at each node.
    PortForOne {
        port: u16,
        wanted: u32,
        nodes: u32,
    },
    EdgesServe {
        revision: RouteRevision,
    },
    /// No edge has reported yet; then there is none.
    EdgeReports {
        until: Timestamp,
    },
    Drain {
        instance: InstanceId,
        in_flight: u64,
        until: Timestamp,
    },
    /// These edges report and still route to it by an older table. Without `until` it stays for as long as they do.
    EdgesBehind {
        instance: InstanceId,
        edges: Vec<EdgeId>,
        until: Option<Timestamp>,
    },
    NodeConfirms {
        instance: InstanceId,
    },
    SiteSwitch {
        instance: InstanceId,
    },
    Held {
        until: Timestamp,
    },
    /// The release failed and `on_failure` is `pause`, or there is nothing to go back to.
    Paused {
        deployment: DeploymentId,
    },
    Drift {
        instance: InstanceId,
        path: String,
        corrected: bool,
        /// Why it cannot be put back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stuck: Option<String>,
    },
    /// It runs, and its node cannot give it all that was declared.
    Without {
        instance: InstanceId,
        cause: String,
    },
    /// Nothing is done to its containers there, and nothing new is known of them.
    EngineAway {
        node: NodeId,
        away: EngineAway,
    },
    /// Nothing that needs it is started.
    VolumeLost {
        node: NodeId,
        volume: LostVolume,
    },
    /// It was decided and could not be recorded, so that it has not happened.
    NotCommitted {
        cause: String,
    },
    Confirmation {
        removals: u32,
        running: u32,
    },
    Deadline {
        at: Timestamp,
        after: Millis,
    },
}

impl fmt::Display for RetireReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replaced => "a newer one has taken its place",
            Self::ScaledDown => "the service was scaled down",
            Self::Stopped => "the service was stopped",
            Self::Deleted => "the service was deleted",
            Self::Abandoned => "its release was given up",
            Self::Expired => "more earlier releases are kept than declared",
            Self::NodeLost => "its node is lost",
            Self::NodeDrained => "its node is being drained",
        })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Placed { instance, node, release, because } => {
                let why = match because {
                    PlaceReason::Missing => "fewer run than declared",
                    PlaceReason::Rollout => "the target release is rolled out",
                    PlaceReason::NodeLost => "its node is lost",
                    PlaceReason::NodeDrained => "another node is being drained",
                };
                write!(f, "{instance} placed at {node} with release {}: {why}", release.short())
            }
            Self::TakenUp { instance, release } => {
                write!(f, "{instance} taken up again: its release {} is the target", release.short())
            }
            Self::Kept { instance } => write!(f, "{instance} is kept on the disk for a rollback"),
            Self::RoutedOut { instance, revision, because } => {
                write!(f, "{instance} leaves the routes with revision {revision}: {because}")
            }
            Self::Withdrawn { instance, drained } => match drained {
                Drained::Unrouted => write!(f, "{instance} is stopped; it had no routes"),
                Drained::Empty => write!(f, "{instance} is stopped; nothing was in flight"),
                Drained::Cut { in_flight } => {
                    write!(
                        f,
                        "{instance} is stopped; its drain time was over with {in_flight} requests in flight"
                    )
                }
                Drained::EdgeSilent => {
                    write!(f, "{instance} is stopped; an edge no longer reports and counts as lost")
                }
                Drained::EdgeBehind => {
                    write!(f, "{instance} is stopped; an edge had not taken it out of its routes in time")
                }
            },
            Self::Gone { instance } => write!(f, "{instance} is gone"),
            Self::RoutesChanged { revision, endpoints } => {
                write!(f, "routes changed to {endpoints} endpoints with revision {revision}")
            }
            Self::PhaseReached { deployment, phase } => write!(f, "deployment {deployment} reached {phase}"),
            Self::DeploymentEnded { deployment, phase, message } if message.is_empty() => {
                write!(f, "deployment {deployment} is {phase}")
            }
            Self::DeploymentEnded { deployment, phase, message } => {
                write!(f, "deployment {deployment} is {phase}: {message}")
            }
            Self::Restored { deployment, release, failed } => write!(
                f,
                "release {} is the target again by deployment {deployment}, because {failed} did not become active",
                release.short()
            ),
            Self::AttemptsNoted { instance, total } => {
                write!(f, "{instance} was restarted {total} times so far")
            }
            Self::Alert { instance, restarts, within, message } => {
                let service = &instance.service;
                write!(
                    f,
                    "{instance} was restarted {restarts} times within {within}: {message}; its last output: \
                     `setpoint logs {service} --instance {instance} --tail 100`"
                )
            }
            Self::Purged => f.write_str("every node has confirmed; the record is gone"),
        }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServiceUnknown { cause } => {
                write!(f, "the declaration cannot be read, so nothing is changed: {cause}")
            }
            Self::NotCommitted { cause } => {
                write!(f, "what was decided is not recorded yet, so it has not happened: {cause}")
            }
            Self::InstanceUnknown { instance } => write!(f, "the node has not told of {instance} yet"),
            Self::NodeUnknown { node, since } => write!(f, "node {node} has not been heard of since {since}"),
            Self::NodeRefuses { node, cause } => {
                write!(f, "node {node} does not take its assignment: {cause}")
            }
            Self::NowhereToGo { instance, node, rejected } if rejected.is_empty() => {
                write!(
                    f,
                    "{instance} stays at {node}, which is being drained: there is no other node to take it"
                )
            }
            Self::NowhereToGo { instance, node, rejected } => {
                let why = rejected.join("; ");
                write!(f, "{instance} stays at {node}, which is being drained: no other node takes it: {why}")
            }
            Self::NoRelease => {
                f.write_str("nothing has been deployed yet: `setpoint deploy` gives it a release")
            }
            Self::Installing { instance } => write!(f, "{instance} is being installed"),
            Self::NotReady { instance, message } if message.is_empty() => {
                write!(f, "{instance} is not ready yet")
            }
            Self::NotReady { instance, message } => write!(f, "{instance} is not ready yet: {message}"),
            Self::BackingOff { instance, until } => {
                write!(f, "{instance} died and is started again at {until}")
            }
            Self::AttemptsSpent { instance, until: Some(until) } => {
                write!(f, "{instance} has spent its restart attempts; the next is possible at {until}")
            }
            Self::AttemptsSpent { instance, until: None } => {
                write!(f, "{instance} has failed and is not started again without a change")
            }
            Self::Surge { running, limit } => {
                write!(f, "{running} instances run and the strategy allows {limit}")
            }
            Self::Successor { instance } => write!(f, "{instance} stays until a new one takes its traffic"),
            Self::Predecessors { left } => write!(f, "{left} old instances must be gone first"),
            Self::NoNode { considered, rejected } => {
                write!(f, "no node takes it: {considered} considered; {}", rejected.join("; "))
            }
            Self::PortTaken { port, node, by } => write!(f, "port {port} at {node} belongs to {by}"),
            Self::PortForOne { port, wanted, nodes } => write!(
                f,
                "port {port} is there once at each node: {nodes} of {wanted} replicas can run; `setpoint scale` sets their number"
            ),
            Self::EdgesServe { revision } => write!(f, "every edge must serve route revision {revision}"),
            Self::EdgeReports { until } => {
                write!(
                    f,
                    "no edge has reported yet; until {until} one is waited for, then it goes on without any"
                )
            }
            Self::Drain { instance, in_flight, until } => {
                write!(
                    f,
                    "{instance} has {in_flight} requests in flight; it is stopped at {until} at the latest"
                )
            }
            Self::EdgesBehind { instance, edges, until } => {
                let names: Vec<&str> = edges.iter().map(EdgeId::as_str).collect();
                write!(
                    f,
                    "{instance} may still be routed to by an older table of edge {}; ",
                    names.join(", ")
                )?;
                match until {
                    Some(until) => write!(f, "it is stopped at {until} at the latest"),
                    None => f.write_str("it stays until that edge serves the newer one or is stopped"),
                }
            }
            Self::NodeConfirms { instance } => write!(f, "its node must confirm that {instance} is gone"),
            Self::SiteSwitch { instance } => write!(f, "`current` must point to {instance}"),
            Self::Held { until } => write!(f, "all is ready and must hold until {until}"),
            Self::Without { instance, cause } => write!(f, "{instance} runs, and {cause}"),
            Self::Paused { deployment } => {
                write!(
                    f,
                    "deployment {deployment} failed; nothing more is replaced until a new intent: apply a corrected \
                     declaration, `setpoint deploy` another release, or `setpoint rollback` to an earlier one"
                )
            }
            Self::Drift { instance, path, corrected: true, stuck: Some(why) } => {
                write!(f, "{path} of {instance} differs and cannot be put back: {why}")
            }
            Self::Drift { instance, path, corrected: true, stuck: None } => {
                write!(f, "{path} of {instance} differs and is being corrected")
            }
            Self::Drift { instance, path, corrected: false, .. } => {
                write!(f, "{path} of {instance} differs; its drift mode only warns")
            }
            Self::EngineAway { node, away: EngineAway { since, cause } } => write!(
                f,
                "the container engine at {node} does not answer since {since}, and what is told of its containers is \
                 what is known without it: {cause}"
            ),
            Self::VolumeLost { node, volume } => write!(f, "at {node} {volume}"),
            Self::Confirmation { removals, running } => write!(
                f,
                "{removals} of {running} instances would go without an intent that names them: confirm with `setpoint reconcile --confirm`"
            ),
            Self::Deadline { at, after } => write!(f, "it fails at {at}, {after} after the last progress"),
        }
    }
}
