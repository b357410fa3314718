//! What our containers, networks and volumes are called, and the labels they bear. Names are for people; who owns a
//! container is written in the ledger.

use std::collections::HashMap;

use model::{ClusterId, InstanceId, ProjectName, container::cluster_mark};

pub const CLUSTER: &str = "setpoint.cluster";
pub const INSTANCE: &str = "setpoint.instance";
pub const SERVICE: &str = "setpoint.service";
pub const RELEASE: &str = "setpoint.release";
/// Of one attempt to create: a container whose creation was never answered is known by it.
pub const NONCE: &str = "setpoint.nonce";
/// Where an image keeps what is in the volume.
pub const PATH: &str = "setpoint.path";
pub const PROJECT: &str = "setpoint.project";

/// `demo.web.0.3.5f1c2a`; with `taken` others of that name, `demo.web.0.3.5f1c2a-1`.
pub fn container(cluster: &ClusterId, id: &InstanceId, taken: u32) -> String {
    let name = format!("{id}.{}", cluster_mark(cluster));
    if taken == 0 { name } else { format!("{name}-{taken}") }
}

/// By which others of its project find a container.
pub fn aliases(id: &InstanceId) -> Vec<String> {
    let name = &id.service.name;
    vec![name.to_string(), format!("{name}-{}", id.slot.0)]
}

pub use model::container::{
    network_name as network, own_volume_name as own_volume, owner_of_volume, volume_name as volume,
};

/// Of everything that belongs to a project as a whole.
pub fn of_project(cluster: &ClusterId, project: &ProjectName) -> HashMap<String, String> {
    [(CLUSTER, cluster.to_string()), (PROJECT, project.to_string())]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
}

/// Finds all that bears our cluster's mark.
pub fn marked(cluster: &ClusterId) -> HashMap<String, Vec<String>> {
    [("label".to_owned(), vec![format!("{CLUSTER}={cluster}")])].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_whose_they_are_and_keep_installations_apart() {
        let cluster: ClusterId = "5f1c2a9988".parse().unwrap();
        let id: InstanceId = "demo.web.0.3".parse().unwrap();
        assert_eq!(container(&cluster, &id, 0), "demo.web.0.3.5f1c2a");
        assert_eq!(container(&cluster, &id, 2), "demo.web.0.3.5f1c2a-2");
        assert_eq!(network(&cluster, &id.service.project), "demo.5f1c2a");
        assert_eq!(volume(&cluster, &id.service.project, &"data".parse().unwrap()), "demo.data.5f1c2a");
    }
}
