//! What an engine is told when it makes a container. Pure: everything that is looked up comes in.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, HostConfigLogConfig, Mount, MountType,
    NetworkingConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum,
};
use model::{
    ClusterId, InstanceId, ReleaseDigest,
    artifact::RelPath,
    container::{Container, MountSource, Network},
    release::Release,
};

use super::{names, signals};
use crate::process::render::{Error, Names};

/// One container to be made.
#[derive(Debug, Clone)]
pub struct Order<'a> {
    pub cluster: &'a ClusterId,
    pub id: &'a InstanceId,
    pub digest: ReleaseDigest,
    pub release: &'a Release,
    pub container: &'a Container,
    pub nonce: &'a str,
    /// The engine shall lead `port` to the container; otherwise it is reached by its own address.
    pub publish: bool,
    /// Of the machine, on `host`, leading to the container's own.
    pub port: Option<u16>,
    pub host: &'a str,
    /// The image's working directory.
    pub image_workdir: Option<&'a str>,
    /// The image's signal for its end.
    pub image_stop: Option<&'a str>,
    /// The folder with the rendered files.
    pub work: PathBuf,
    /// Where declared binds lead, links followed.
    pub binds: BTreeMap<String, String>,
    /// By path, the volumes that the image declares and the service does not.
    pub own_volumes: BTreeMap<String, String>,
}

impl Order<'_> {
    /// What `${NAME}` stands for inside: with the machine's network its port and address, otherwise the container's own.
    fn names<'n>(&'n self, env: &'n BTreeMap<model::spec::EnvKey, model::spec::Template>) -> Names<'n> {
        let (host, port) = match self.container.network {
            Network::Host => (self.host, self.port),
            Network::Project | Network::None => ("0.0.0.0", self.container.port),
        };
        Names { id: self.id, host, port, setpoint: Path::new("setpoint"), env }
    }

    pub fn files(&self) -> Result<BTreeMap<RelPath, Vec<u8>>, Error> {
        self.names(&self.release.env).files(self.release)
    }

    pub fn command(&self, place: &str, words: &[model::spec::Template]) -> Result<Vec<String>, Error> {
        let names = self.names(&self.release.env);
        words.iter().map(|word| names.render(place, word)).collect()
    }

    pub fn body(&self) -> Result<ContainerCreateBody, Error> {
        let container = self.container;
        let env = self.names(&self.release.env).environment(&[])?;
        let words = |place: &str, words: &Option<Vec<model::spec::Template>>| {
            words.as_ref().map(|words| self.command(place, words)).transpose()
        };
        let network = names::network(self.cluster, &self.id.service.project);
        let inside = container
            .port
            .filter(|_| container.network == Network::Project)
            .map(|port| format!("{port}/tcp"));
        Ok(ContainerCreateBody {
            hostname: (container.network != Network::Host).then(|| self.hostname()),
            user: container.user.clone(),
            exposed_ports: inside.clone().map(|port| vec![port]),
            env: Some(env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()),
            entrypoint: words("entrypoint", &container.entrypoint)?,
            cmd: words("command", &container.command)?,
            image: container.pinned_name(),
            working_dir: container.workdir.clone(),
            labels: Some(self.labels()),
            stop_signal: Some(signals::of_stop(&self.release.stop, self.image_stop).to_owned()),
            stop_timeout: i64::try_from(self.release.stop.grace.0.div_ceil(1000)).ok(),
            host_config: Some(self.host_config(inside, &network)),
            networking_config: (container.network == Network::Project)
                .then(|| NetworkingConfig { endpoints_config: Some([(network, self.endpoint())].into()) }),
            ..ContainerCreateBody::default()
        })
    }

    /// As the service and its slot are called; a kernel takes no more than 64 bytes, and the slot tells them apart.
    fn hostname(&self) -> String {
        const MOST: usize = 63;
        let slot = format!("-{}", self.id.slot.0);
        let name = self.id.service.name.as_str();
        // Names are ASCII.
        let name = name.get(..MOST - slot.len()).unwrap_or(name);
        format!("{}{slot}", name.trim_end_matches('-'))
    }

    fn labels(&self) -> HashMap<String, String> {
        let mut labels = names::of_project(self.cluster, &self.id.service.project);
        labels.insert(names::INSTANCE.into(), self.id.to_string());
        labels.insert(names::SERVICE.into(), self.id.service.name.to_string());
        labels.insert(names::RELEASE.into(), self.digest.to_string());
        labels.insert(names::NONCE.into(), self.nonce.to_owned());
        labels
    }

    /// The names under which others of the project find it.
    pub fn endpoint(&self) -> EndpointSettings {
        EndpointSettings { aliases: Some(names::aliases(self.id)), ..EndpointSettings::default() }
    }

    fn host_config(&self, inside: Option<String>, network: &str) -> HostConfig {
        let (container, resources) = (self.container, &self.release.resources);
        let memory = resources.memory.and_then(|memory| i64::try_from(memory.0).ok());
        let binding =
            |port: u16| PortBinding { host_ip: Some(self.host.into()), host_port: Some(port.to_string()) };
        let published = inside
            .zip(self.port.filter(|_| self.publish))
            .map(|(inside, port)| HashMap::from([(inside, Some(vec![binding(port)]))]));
        HostConfig {
            memory,
            // The same again: none of it is swap.
            memory_swap: memory,
            nano_cpus: resources.millicpus.map(|millis| i64::from(millis) * 1_000_000),
            pids_limit: resources.pids.map(i64::from),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".into()),
                config: Some(HashMap::from([
                    ("max-size".into(), format!("{}", container.log.max_size.0)),
                    ("max-file".into(), container.log.max_files.to_string()),
                ])),
            }),
            network_mode: Some(match container.network {
                Network::Project => network.to_owned(),
                Network::Host => "host".into(),
                Network::None => "none".into(),
            }),
            port_bindings: published,
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            mounts: Some(self.mounts()),
            cap_drop: Some(vec!["ALL".into()]),
            cap_add: Some(container.capabilities.effective().into_iter().map(str::to_owned).collect()),
            readonly_rootfs: Some(container.read_only),
            security_opt: Some(vec!["no-new-privileges".into()]),
            tmpfs: (!container.tmpfs.is_empty()).then(|| {
                let options = |size: &Option<model::Bytes>| {
                    size.map_or_else(String::new, |size| format!("size={}", size.0))
                };
                container.tmpfs.iter().map(|(path, size)| (path.clone(), options(size))).collect()
            }),
            ..HostConfig::default()
        }
    }

    fn mounts(&self) -> Vec<Mount> {
        let mount = |typ, source: String, target: String, read_only| Mount {
            typ: Some(typ),
            source: Some(source),
            target: Some(target),
            read_only: Some(read_only),
            ..Mount::default()
        };
        let declared = self.container.volumes.iter().map(|volume| match &volume.source {
            MountSource::Volume(name) => {
                let name = names::volume(self.cluster, &self.id.service.project, name);
                mount(MountType::VOLUME, name, volume.target.clone(), volume.read_only)
            }
            MountSource::Bind(path) => {
                let leads = self.binds.get(path).unwrap_or(path);
                mount(MountType::BIND, leads.clone(), volume.target.clone(), volume.read_only)
            }
        });
        let files = self.release.files.keys().map(|file| {
            let source = self.work.join(file).display().to_string();
            mount(MountType::BIND, source, self.inside(file), true)
        });
        let own = self
            .own_volumes
            .iter()
            .map(|(path, name)| mount(MountType::VOLUME, name.clone(), path.clone(), false));
        declared.chain(own).chain(files).collect()
    }

    /// Where a rendered file is seen.
    fn inside(&self, file: &RelPath) -> String {
        let workdir =
            self.container.workdir.as_deref().or(self.image_workdir).filter(|dir| dir.starts_with('/'));
        format!("{}/{file}", workdir.unwrap_or("/").trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use model::{
        Digest,
        image::ImagePin,
        manifest,
        spec::{ServiceSpec, Workload},
    };

    use super::*;

    fn spec(lines: &str) -> ServiceSpec {
        let text =
            format!("services:\n  web:\n    image: acme/web:1\n    {}\n", lines.replace('\n', "\n    "));
        let spec = manifest::parse(&text, "web.yaml", "/srv").unwrap().services.remove(0).spec;
        let Workload::Container(mut container) = spec.workload else { panic!() };
        container.pin = Some(ImagePin::Registry(Digest::of_bytes(b"web")));
        ServiceSpec { workload: Workload::Container(container), ..spec }
    }

    fn body(lines: &str) -> ContainerCreateBody {
        let release = Release::of(&spec(lines));
        let Workload::Container(container) = &release.workload else { panic!() };
        let order = Order {
            cluster: &"5f1c2a9988".parse().unwrap(),
            id: &"default.web.0.3".parse().unwrap(),
            digest: release.digest(),
            release: &release,
            container,
            nonce: "n",
            publish: true,
            port: Some(31001),
            host: "127.0.0.1",
            image_workdir: Some("/app"),
            image_stop: Some("SIGQUIT"),
            work: PathBuf::from("/data/work"),
            binds: BTreeMap::new(),
            own_volumes: BTreeMap::new(),
        };
        order.body().unwrap()
    }

    #[test]
    fn what_nobody_declared_is_the_careful_choice() {
        let body = body("port: 8080");
        let host = body.host_config.unwrap();
        assert_eq!(body.image.unwrap(), format!("acme/web@{}", Digest::of_bytes(b"web")));
        assert_eq!(host.restart_policy.unwrap().name, Some(RestartPolicyNameEnum::NO));
        assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
        assert!(!host.cap_add.unwrap().contains(&"NET_RAW".to_owned()));
        assert_eq!(host.security_opt.unwrap(), ["no-new-privileges"]);
        assert_eq!((host.privileged, host.network_mode.as_deref()), (None, Some("default.5f1c2a")));
        let ports = host.port_bindings.unwrap();
        let bound = &ports["8080/tcp"].as_ref().unwrap()[0];
        assert_eq!(
            (bound.host_ip.as_deref(), bound.host_port.as_deref()),
            (Some("127.0.0.1"), Some("31001"))
        );
        let env = body.env.unwrap();
        assert!(env.contains(&"PORT=8080".to_owned()) && env.contains(&"HOST=0.0.0.0".to_owned()), "{env:?}");
        let networks = body.networking_config.unwrap().endpoints_config.unwrap();
        assert_eq!(networks["default.5f1c2a"].aliases.as_ref().unwrap()[0], "web");
        assert_eq!(body.stop_signal.as_deref(), Some("SIGQUIT"), "as the image says");
        assert!(body.cmd.is_none() && body.entrypoint.is_none() && body.user.is_none());
    }

    #[test]
    fn everything_that_is_declared_reaches_the_engine() {
        let body = body(concat!(
            "entrypoint: [/run]\ncommand: [serve, \"${PORT}\"]\nport: 80\nuser: \"10:20\"\nworkdir: /w\n",
            "volumes: [\"data:/data\", \"./etc:/etc/app:ro\"]\ntmpfs: [\"/tmp:1MiB\", /run]\nread_only: true\n",
            "files: { conf/a: \"p ${PORT}\" }\nresources: { memory: 64MiB, cpus: 0.5, pids: 50 }\n",
            "capabilities: { add: [net_raw], drop: [CHOWN] }\nlogs: { max_size: 1MiB, max_files: 2 }\n",
            "stop: { signal: SIGINT, grace: 1500ms }",
        ));
        assert_eq!(body.entrypoint.unwrap(), ["/run"]);
        assert_eq!(body.cmd.unwrap(), ["serve", "80"]);
        assert_eq!((body.user.as_deref(), body.working_dir.as_deref()), (Some("10:20"), Some("/w")));
        assert_eq!((body.stop_signal.as_deref(), body.stop_timeout), (Some("SIGINT"), Some(2)));
        let host = body.host_config.unwrap();
        assert_eq!((host.memory, host.memory_swap), (Some(64 << 20), Some(64 << 20)));
        assert_eq!((host.nano_cpus, host.pids_limit), (Some(500_000_000), Some(50)));
        let mounts: Vec<_> = host
            .mounts
            .unwrap()
            .into_iter()
            .map(|m| (m.source.unwrap(), m.target.unwrap(), m.read_only.unwrap()))
            .collect();
        let expected = [
            ("default.data.5f1c2a", "/data", false),
            ("/srv/etc", "/etc/app", true),
            ("/data/work/conf/a", "/w/conf/a", true),
        ];
        assert_eq!(mounts, expected.map(|(from, to, ro)| (from.to_owned(), to.to_owned(), ro)));
        assert_eq!(host.tmpfs.unwrap()["/tmp"], "size=1048576");
        assert_eq!(host.readonly_rootfs, Some(true));
        let kept = host.cap_add.unwrap();
        assert!(kept.contains(&"NET_RAW".into()) && !kept.contains(&"CHOWN".into()), "{kept:?}");
        let log = host.log_config.unwrap().config.unwrap();
        assert_eq!((log["max-size"].as_str(), log["max-file"].as_str()), ("1048576", "2"));
    }

    #[test]
    fn with_the_machines_network_it_is_told_the_machines_port() {
        let body = body("network: host\nport: dynamic");
        let host = body.host_config.unwrap();
        assert_eq!((host.network_mode.as_deref(), host.port_bindings), (Some("host"), None));
        let env = body.env.unwrap();
        assert!(
            env.contains(&"PORT=31001".to_owned()) && env.contains(&"HOST=127.0.0.1".to_owned()),
            "{env:?}"
        );
        assert!(body.networking_config.is_none() && body.hostname.is_none());
    }
}
