//! Down: what a node shall run, whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    ClusterId, DeploymentId, Generation, Holder, InstanceId, NodeId, ReleaseDigest, ServiceKey, Term,
    instance::Attempts,
    release::Release,
    spec::{DriftPolicy, RestartPolicy},
};

/// A node's complete assignment. What is not in it shall not run, except for instances of a service in
/// `held`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub stamp: Stamp,
    pub instances: BTreeMap<InstanceId, Arc<Assigned>>,
    /// Services whose desired state could not be read: the node keeps what it has of them.
    pub held: BTreeSet<ServiceKey>,
}

/// Fences every effect of an assignment. Ordered by term, then generation; within a term one holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub term: Term,
    pub holder: Holder,
    pub generation: Generation,
}

/// One instance in an assignment: all that the node needs, so that it can hold it while it is cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assigned {
    pub id: InstanceId,
    pub release: ReleaseDigest,
    pub content: Arc<Release>,
    /// Names the folder `deployment-<id>` of a site.
    pub deployment: DeploymentId,
    /// For a site: `current` and `webroot` shall point here.
    pub current: bool,
    pub restart: RestartPolicy,
    pub drift: DriftPolicy,
    /// The least number of restarts that this node must count.
    pub attempts: Attempts,
}
