//! Which of a pass's changes are events, and in which words.

use model::{
    ServiceKey,
    deployment::Phase,
    event::{Event, Kind},
    plan::Report,
    reason::Change,
};

pub fn of(key: &ServiceKey, report: &Report) -> Vec<Event> {
    super::changes(report).filter_map(|change| event(key, change)).collect()
}

fn event(key: &ServiceKey, change: &Change) -> Option<Event> {
    let (kind, instance, deployment) = match change {
        Change::Placed { instance, .. } | Change::TakenUp { instance, .. } => {
            (Kind::InstancePlaced, Some(instance), None)
        }
        Change::RoutedOut { instance, .. } | Change::Kept { instance } => {
            (Kind::InstanceRetired, Some(instance), None)
        }
        Change::Withdrawn { instance, .. } => (Kind::InstanceStopped, Some(instance), None),
        Change::Gone { instance } => (Kind::InstanceGone, Some(instance), None),
        Change::PhaseReached { deployment, .. } | Change::Restored { deployment, .. } => {
            (Kind::DeploymentPhase, None, Some(deployment))
        }
        Change::DeploymentEnded { deployment, phase, .. } => (ended(*phase), None, Some(deployment)),
        Change::Alert { instance, .. } => (Kind::RestartAlert, Some(instance), None),
        Change::Purged => (Kind::ServicePurged, None, None),
        Change::RoutesChanged { .. } | Change::AttemptsNoted { .. } => return None,
    };
    Some(Event {
        kind,
        service: Some(key.clone()),
        instance: instance.cloned(),
        deployment: deployment.cloned(),
        message: change.to_string(),
    })
}

fn ended(phase: Phase) -> Kind {
    match phase {
        Phase::Active => Kind::DeploymentActive,
        Phase::Failed => Kind::DeploymentFailed,
        Phase::Cancelled => Kind::DeploymentCancelled,
        Phase::Superseded => Kind::DeploymentSuperseded,
        Phase::RolledBack => Kind::DeploymentRolledBack,
        _ => Kind::DeploymentPhase,
    }
}
