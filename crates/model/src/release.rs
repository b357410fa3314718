//! A release: the immutable tuple that an instance runs. What is not in it (replicas, the deploy, drift and
//! restart policies, retention) may change without replacing an instance.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Digest, ReleaseDigest,
    artifact::RelPath,
    image::{ImagePin, ImageRef},
    source::Origin,
    spec::{Domain, EnvKey, Health, Port, Resources, ServiceSpec, StopPolicy, Template, Workload},
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    pub workload: Workload,
    pub domains: Vec<Domain>,
    pub env: BTreeMap<EnvKey, Template>,
    pub files: BTreeMap<RelPath, Template>,
    pub port: Option<Port>,
    pub health: Health,
    pub stop: StopPolicy,
    pub resources: Resources,
}

impl Release {
    /// The release that a declaration stands for.
    pub fn of(spec: &ServiceSpec) -> Self {
        Self {
            workload: spec.workload.clone(),
            domains: spec.domains.clone(),
            env: spec.env.clone(),
            files: spec.files.clone(),
            port: spec.port,
            health: spec.health.clone(),
            stop: spec.stop.clone(),
            resources: spec.resources.clone(),
        }
    }

    pub fn digest(&self) -> ReleaseDigest {
        Digest::of_value(self)
    }

    pub fn artifact(&self) -> Option<crate::ArtifactDigest> {
        match &self.workload {
            Workload::Site(site) => site.artifact,
            Workload::Process(_) | Workload::Container(_) => None,
        }
    }

    /// The commit that its content was made from, where it was fetched.
    pub fn origin(&self) -> Option<&Origin> {
        match &self.workload {
            Workload::Site(site) => site.origin.as_ref(),
            Workload::Process(_) | Workload::Container(_) => None,
        }
    }

    /// Whether there is something to run: a site declared without content waits for a `deploy`, and an image is resolved
    /// before it is run.
    pub fn is_complete(&self) -> bool {
        match &self.workload {
            Workload::Site(site) => site.artifact.is_some(),
            Workload::Process(_) => true,
            Workload::Container(container) => container.pin.is_some(),
        }
    }

    /// For a container, its image by name and as pinned.
    pub fn image(&self) -> Option<(&ImageRef, Option<ImagePin>)> {
        match &self.workload {
            Workload::Container(container) => Some((&container.image, container.pin)),
            Workload::Site(_) | Workload::Process(_) => None,
        }
    }

    /// The same with its image pinned; what is no container has none.
    #[must_use]
    pub fn pinned(mut self, pin: Option<ImagePin>) -> Self {
        if let Workload::Container(container) = &mut self.workload {
            container.pin = pin;
        }
        self
    }
}
