//! What a server lets containers have of its machine. Deploying is running code; these are the powers beyond that,
//! off unless the machine's owner allows them.

use model::{
    container::{Container, MountSource, Network},
    manifest::{FieldError, FieldPath},
    spec::{ServiceSpec, Workload},
};
use serde::{Deserialize, Serialize};

/// The default allows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Absolute folders of the machine that may be mounted, with all below them.
    pub binds: Vec<String>,
    pub host_network: bool,
    /// Capabilities over the machine itself, such as NET_ADMIN.
    pub capabilities: Vec<String>,
}

impl Policy {
    /// `path` is absolute and without `..`. Links in it are for the node to resolve, which asks again.
    pub fn allows_bind(&self, path: &str) -> bool {
        self.binds.iter().any(|allowed| {
            let allowed = allowed.trim_end_matches('/');
            path.strip_prefix(allowed).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

/// What of a declaration the policy forbids.
pub fn forbidden(policy: &Policy, spec: &ServiceSpec) -> Vec<FieldError> {
    match &spec.workload {
        Workload::Site(_) | Workload::Process(_) => Vec::new(),
        Workload::Container(container) => forbidden_to(policy, container),
    }
}

/// The same, of one container.
pub fn forbidden_to(policy: &Policy, container: &Container) -> Vec<FieldError> {
    let mut found = Vec::new();
    for (at, mount) in container.volumes.iter().enumerate() {
        if let MountSource::Bind(path) = &mount.source
            && !policy.allows_bind(path)
        {
            let field = FieldPath::of(&["volumes", &format!("[{at}]")]);
            let help = "use a volume of its own, `name:/inside`; or let the machine's owner add the folder to \
                        `containers.binds` in setpoint.toml";
            found.push(error(
                field,
                format!("the folder {path} of the machine is not allowed to be mounted"),
                help,
            ));
        }
    }
    if container.network == Network::Host && !policy.host_network {
        let help = "leave `network` out; or let the machine's owner set `containers.host_network = true` in setpoint.toml";
        found.push(error(
            FieldPath::of(&["network"]),
            "the machine's own network is not allowed".into(),
            help,
        ));
    }
    for add in container.capabilities.unusual() {
        if !policy.capabilities.iter().any(|allowed| allowed.eq_ignore_ascii_case(add.as_str())) {
            let help = "leave it out; or let the machine's owner add it to `containers.capabilities` in setpoint.toml";
            let field = FieldPath::of(&["capabilities", "add"]);
            found.push(error(field, format!("{add} is power over the machine and is not allowed"), help));
        }
    }
    found
}

fn error(field: FieldPath, message: String, help: &str) -> FieldError {
    FieldError { code: "forbidden_by_policy", field, message, help: Some(help.into()) }
}

#[cfg(test)]
mod tests {
    use model::container::Mount;

    use super::*;

    fn bind(path: &str) -> Mount {
        Mount { source: MountSource::Bind(path.into()), target: "/in".into(), read_only: true }
    }

    fn fields(policy: &Policy, change: impl FnOnce(&mut Container)) -> Vec<String> {
        let mut container = Container::new("acme/web:1".parse().unwrap());
        change(&mut container);
        forbidden_to(policy, &container).into_iter().map(|error| error.field.to_string()).collect()
    }

    #[test]
    fn by_default_nothing_of_the_machine_is_given() {
        let none = Policy::default();
        let volume = MountSource::Volume("data".parse().unwrap());
        let own = Mount { source: volume, target: "/data".into(), read_only: false };
        assert!(fields(&none, |c| c.volumes = vec![own.clone()]).is_empty());
        assert_eq!(fields(&none, |c| c.volumes = vec![own, bind("/srv/a")]), ["volumes[1]"]);
        assert_eq!(fields(&none, |c| c.network = Network::Host), ["network"]);
        let powers = |c: &mut Container| {
            c.capabilities.add = ["NET_RAW", "SYS_ADMIN"].map(|name| name.parse().unwrap()).into();
        };
        assert_eq!(fields(&none, powers), ["capabilities.add"]);
        let all =
            Policy { binds: vec!["/".into()], host_network: true, capabilities: vec!["sys_admin".into()] };
        assert!(
            fields(&all, |c| (powers(c), c.network = Network::Host, c.volumes = vec![bind("/etc")]).0)
                .is_empty()
        );
    }

    #[test]
    fn a_folder_is_allowed_with_what_is_below_it_and_no_more() {
        let policy = Policy { binds: vec!["/srv/data/".into()], ..Policy::default() };
        for (path, allowed) in [
            ("/srv/data", true),
            ("/srv/data/web", true),
            ("/srv/database", false),
            ("/srv", false),
            ("/", false),
            ("/var/run/docker.sock", false),
        ] {
            assert_eq!(policy.allows_bind(path), allowed, "{path}");
        }
    }
}
