//! What monitoring asks for. Its names are camelCase.

use model::{
    DeploymentId, InstanceId, ProjectName, ServiceName,
    spec::Kind,
    status::{ServiceHealth, ServiceState},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Deployment, Project, Replicas, Time};

/// `GET /api/monitoring/health`; instances of every kind count as containers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MonitoringHealth {
    pub containers: ContainerCounts,
    pub zombies: u64,
    pub is_leader: bool,
    pub timestamp: Time,
    #[serde(default)]
    pub services: Vec<ServiceCheckup>,
    #[serde(default)]
    pub projects: Vec<Project>,
}

/// One service, as an operator asks after it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceCheckup {
    pub project: ProjectName,
    pub name: ServiceName,
    #[schemars(with = "Option<String>")]
    pub kind: Option<Kind>,
    /// `healthy`, `degraded`, `unhealthy`, `stopped` or `unknown`.
    #[schemars(with = "String")]
    pub health: ServiceHealth,
    /// As `setpoint status` has it.
    #[schemars(with = "String")]
    pub state: ServiceState,
    /// Why somebody has to look at it; empty where nobody has to.
    pub message: String,
    pub replicas: Replicas,
    /// What went wrong last, also when that is long over.
    pub last_issue: Option<String>,
    pub last_issue_at: Option<Time>,
    pub restarts: RestartCounts,
    /// Instances that were restarted more than three times within ten minutes.
    pub restart_warnings: Vec<RestartWarning>,
    /// The open deployment, if it stands still.
    pub stuck_deployment: Option<DeploymentId>,
    pub broken_symlinks: u64,
    pub missing_deployments: u64,
    pub damaged_files: u64,
}

/// Of all instances of a service, those that are gone among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestartCounts {
    pub ten_minutes: u64,
    pub hour: u64,
    pub day: u64,
    /// Since the service was declared.
    pub total: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RestartWarning {
    #[schemars(with = "String")]
    pub instance: InstanceId,
    /// Within ten minutes.
    pub restarts: u64,
    pub message: String,
    /// Where its last 100 lines are.
    pub logs: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContainerCounts {
    pub total: u64,
    pub healthy: u64,
    pub unhealthy: u64,
    pub stopped: u64,
}

/// `GET /api/monitoring/stats`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MonitoringStats {
    pub last_reconciliation_time: Option<Time>,
    /// Milliseconds.
    pub reconciliation_duration: u64,
    pub reconciliation_errors: u64,
    pub active_projects: u64,
    pub running_containers: u64,
    pub stopped_containers: u64,
    pub zombie_containers: u64,
    pub deployments_in_progress: u64,
    pub deployments_stuck: u64,
    /// Milliseconds, over the known deployments that became active; 0 without any.
    pub average_deployment_time: u64,
    pub unhealthy_containers: u64,
    pub broken_symlinks: u64,
    pub missing_deployments: u64,
}

/// `GET /api/monitoring/deployments/stuck`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StuckDeployments {
    pub deployments: Vec<StuckDeployment>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StuckDeployment {
    #[serde(flatten)]
    pub deployment: Deployment,
    /// When it last came further.
    pub stuck_since: Time,
    pub reason: String,
}

/// Answer of `POST /api/monitoring/reconcile/trigger`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Triggered {
    pub success: bool,
    pub message: String,
}
