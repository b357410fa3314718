//! The network of a project on one engine: made when its first container needs it, gone with the last.

use std::{path::Path, time::Duration};

use bollard::{
    models::{EndpointSettings, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest},
    query_parameters::ListNetworksOptionsBuilder,
};
use model::{ClusterId, ProjectName, collect::Held, collect::Kind};

use super::{
    engine::{Engine, Error, QUESTION, WORK},
    failure::Failure,
    names, notes,
    work::ignore_conflict,
};

/// Held for reading while a container is put into a network, for writing while one is removed.
pub static NETWORKS: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());

/// For so long others wait with it until nothing is being made.
pub const UNUSED: Duration = Duration::from_secs(10);

/// One at a time: an engine makes two networks of one name when it is asked twice at once.
static MAKING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// One project's network. What it is called is in `names`, whether it is ours in `notes`.
#[derive(Debug, Clone, Copy)]
pub struct ProjectNetwork<'a> {
    pub engine: &'a Engine,
    /// The node's own folder.
    pub data: &'a Path,
    pub cluster: &'a ClusterId,
    pub project: &'a ProjectName,
}

impl ProjectNetwork<'_> {
    fn name(&self) -> String {
        names::network(self.cluster, self.project)
    }

    /// Makes it where it is not there. Returns whether what is in it is reached from this machine by its own address.
    pub async fn ensure(&self) -> Result<bool, Failure> {
        match self.find().await {
            Ok(Some(here)) => return Ok(here),
            Ok(None) => {}
            Err(Failure::Engine(error)) if error.is_ambiguous() => {}
            Err(failure) => return Err(failure),
        }
        let _making = MAKING.lock().await;
        match self.find().await {
            Ok(Some(here)) => return Ok(here),
            Ok(None) => {}
            Err(Failure::Engine(error)) if error.is_ambiguous() => return self.one_of_several().await,
            Err(failure) => return Err(failure),
        }
        let name = self.name();
        let mut labels = names::of_project(self.cluster, self.project);
        labels.insert(names::NONCE.into(), notes::network_nonce(self.data, &name)?);
        let request = NetworkCreateRequest {
            name,
            driver: Some("bridge".into()),
            labels: Some(labels),
            ..NetworkCreateRequest::default()
        };
        let client = self.engine.client().await?;
        match self.engine.within(WORK, client.create_network(request)).await {
            Ok(made) => Ok(is_here(Some(&made.id))),
            Err(Error::Refused { message, .. }) if message.contains("address pool") => {
                Err(Failure::NoAddresses { project: self.project.clone(), message })
            }
            // One that was given up has come just now.
            Err(error @ Error::Conflict(_)) => self.find().await?.ok_or_else(|| error.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// One that bears our cluster's mark is used, also when the note of it is lost; any other is somebody else's.
    async fn find(&self) -> Result<Option<bool>, Failure> {
        let name = self.name();
        let client = self.engine.client().await?;
        let network = match self.engine.within(QUESTION, client.inspect_network(&name, None)).await {
            Ok(network) => network,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let cluster = network.labels.as_ref().and_then(|labels| labels.get(names::CLUSTER));
        if cluster.map(String::as_str) != Some(self.cluster.as_str()) {
            return Err(Failure::ForeignNetwork { name });
        }
        Ok(Some(is_here(network.id.as_deref())))
    }

    /// An engine makes a second network of one name when a creation that was given up is carried out late, and from then
    /// on answers for neither. Of ours, those that nobody uses go, until one is left.
    async fn one_of_several(&self) -> Result<bool, Failure> {
        let name = self.name();
        let client = self.engine.client().await?;
        let mut ours: Vec<String> = ours(self.engine, self.data, self.cluster)
            .await?
            .into_iter()
            .filter(|network| network.name == name)
            .map(|network| network.id)
            .collect();
        ours.sort();
        for id in ours.clone() {
            if ours.len() == 1 {
                break;
            }
            match self.engine.within(QUESTION, client.remove_network(&id)).await {
                Err(error) if !error.is_not_found() => {
                    tracing::debug!(%name, %error, "one that is used is kept by the engine");
                }
                Ok(()) | Err(_) => ours.retain(|one| *one != id),
            }
        }
        let network = self.engine.within(QUESTION, client.inspect_network(&name, None)).await?;
        Ok(is_here(network.id.as_deref()))
    }

    pub async fn connect(&self, container: &str, endpoint: EndpointSettings) -> Result<(), Failure> {
        self.ensure().await?;
        let client = self.engine.client().await?;
        let request =
            NetworkConnectRequest { container: container.to_owned(), endpoint_config: Some(endpoint) };
        ignore_conflict(self.engine.within(QUESTION, client.connect_network(&self.name(), request)).await)
    }

    pub async fn disconnect(&self, container: &str) -> Result<(), Failure> {
        let client = self.engine.client().await?;
        let request = NetworkDisconnectRequest { container: container.to_owned(), force: Some(false) };
        match self.engine.within(QUESTION, client.disconnect_network(&self.name(), request)).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Of a project that has no container here any more. One that somebody uses, or that is not ours, stays.
    pub async fn remove(&self) {
        let Ok(_unused) = tokio::time::timeout(UNUSED, NETWORKS.write()).await else {
            return tracing::info!(name = self.name(), "containers are being made; `gc` removes the network");
        };
        let name = self.name();
        let removed = async {
            let client = self.engine.client().await?;
            for network in ours(self.engine, self.data, self.cluster).await? {
                if network.name == name {
                    self.engine.within(QUESTION, client.remove_network(&network.id)).await?;
                }
            }
            Ok::<_, Failure>(notes::forget_network(self.data, &name)?)
        };
        if let Err(error) = removed.await {
            tracing::info!(%name, %error, "the network of a project without containers stays");
        }
    }
}

struct Ours {
    id: String,
    name: String,
}

/// Those that we have made: each bears the mark that is noted for its name.
async fn ours(engine: &Engine, data: &Path, cluster: &ClusterId) -> Result<Vec<Ours>, Failure> {
    Ok(marked(engine, data, cluster).await?.0)
}

/// The names of those that bear our cluster's mark and that we have not made.
pub async fn strange(engine: &Engine, data: &Path, cluster: &ClusterId) -> Result<Vec<String>, Failure> {
    Ok(marked(engine, data, cluster).await?.1)
}

/// All that bear our cluster's mark: ours, and the names of others.
async fn marked(
    engine: &Engine,
    data: &Path,
    cluster: &ClusterId,
) -> Result<(Vec<Ours>, Vec<String>), Failure> {
    let client = engine.client().await?;
    let options = ListNetworksOptionsBuilder::default().filters(&names::marked(cluster)).build();
    let found = engine.within(QUESTION, client.list_networks(Some(options))).await?;
    let noted = notes::networks(data)?;
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for network in found {
        let (Some(name), Some(id)) = (network.name, network.id) else { continue };
        let mark = network.labels.and_then(|mut labels| labels.remove(names::NONCE));
        if mark.is_some() && noted.get(&name) == mark.as_ref() {
            ours.push(Ours { id, name });
        } else {
            others.push(name);
        }
    }
    Ok((ours, others))
}

pub async fn held(engine: &Engine, data: &Path, cluster: &ClusterId) -> Result<Vec<Held>, Failure> {
    let client = engine.client().await?;
    let mut held = Vec::new();
    for Ours { id, name } in ours(engine, data, cluster).await? {
        let Ok(network) = engine.within(QUESTION, client.inspect_network(&id, None)).await else { continue };
        let used = network.containers.is_some_and(|containers| !containers.is_empty());
        held.push(Held { kind: Kind::Network, name, bytes: 0, used });
    }
    Ok(held)
}

/// An engine in this kernel has the bridge of its network among our interfaces. One elsewhere (in another machine, or as a
/// user without rights of its own) has not.
fn is_here(network: Option<&str>) -> bool {
    let bridge = network.and_then(|id| id.get(..12)).map(|id| format!("/sys/class/net/br-{id}"));
    bridge.is_some_and(|bridge| Path::new(&bridge).exists())
}
