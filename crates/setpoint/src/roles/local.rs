//! All parts of one machine in one process: what `setpoint up` runs, and without the edge `setpoint server`.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use decide::{access::Rules, policy::Policy};
use edge::Edge;
use model::{ClusterId, EdgeId, NodeId};
use node::{Node, Workloads};
use server::Control;
use store::{DataLock, Store};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use super::{
    Error,
    clock::Clock,
    collect::NodeThings,
    content::StoredContent,
    data::{DataDir, random_hex},
    images::NodeImages,
    metrics,
    sessions::NodeSessions,
    settings::{self, Settings},
    wire::{self, Wires},
};

/// Between looks at the lock of the data folder.
const LOCK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub struct Options {
    pub data: PathBuf,
    pub api: SocketAddr,
    /// Where and within which limits the edge of this process listens; `None`: it runs apart.
    pub edge: Option<settings::Edge>,
    pub pass_every: Duration,
    /// Host names besides loopback's under which the API answers.
    pub allowed_hosts: Vec<String>,
    /// The container engine, as in `DOCKER_HOST`.
    pub engine: String,
    /// What containers may have of the machine.
    pub policy: Policy,
    /// What tokens may beyond their role.
    pub rules: Rules,
    /// When what nothing needs is removed.
    pub gc: settings::Gc,
}

impl Options {
    pub fn of(settings: &Settings, data: PathBuf, with_edge: bool) -> Self {
        Self {
            data,
            api: settings.api.listen,
            edge: with_edge.then(|| settings.edge.clone()),
            pass_every: settings.reconcile.every.as_duration(),
            allowed_hosts: settings.api.allowed_hosts.clone(),
            engine: settings.containers.engine(),
            policy: settings.containers.policy(),
            rules: Rules { processes: settings.tokens.processes },
            gc: settings.gc.clone(),
        }
    }
}

/// All parts, running. They end by [`Running::end`]; when it is dropped instead, workloads live on.
pub struct Running {
    pub control: Control,
    pub api: SocketAddr,
    pub edge: Option<SocketAddr>,
    pub token: String,
    data: DataDir,
    node: Node,
    stop: watch::Sender<bool>,
    servers: Vec<JoinHandle<()>>,
    wires: Wires,
    store: Store,
    lock: Mutex<DataLock>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("api", &self.api).field("edge", &self.edge).finish_non_exhaustive()
    }
}

/// Starts every part. On return API and edge listen, and what was declared before is being held.
pub async fn start(options: Options) -> Result<Running, Error> {
    // Before anything is started that inherits it.
    sys::files::raise();
    let data = DataDir::open(&options.data)?;
    let lock = DataLock::acquire(data.path())?;
    let token = data.token()?;
    let listener = listen("API", "--api", options.api).await?;
    let api = listener.local_addr()?;
    let (stop, stopping) = watch::channel(false);
    let edge = match &options.edge {
        None => None,
        Some(settings) => Some(Edge::bind(edge_config(settings)?).await?),
    };
    let edge_address = edge.as_ref().map(|(edge, _)| edge.local_addr());

    let store = open_store(&data).await?;
    let clock = Clock::start(store.max_time().await?);
    let local: NodeId = "local".parse()?;
    let control =
        Control::start(store.clone(), control_config(&data, &local, &options)?, clock.for_server()).await?;
    let mut wires = Wires::new();
    let node = start_node(&data, &store, &local, clock, &options).await?;
    control.images_are_resolved_by(NodeImages::new(node.clone()));
    control.collects_by(NodeThings::new(node.clone()), options.gc.schedule(), options.gc.look.as_duration());
    let mut servers = Vec::new();
    let mut api_config =
        server::api::Config::new(token.clone(), options.allowed_hosts, NodeSessions::new(node.clone()));
    if let Some((edge, server)) = edge {
        wire::edge(&mut wires, &control, &node, &edge, clock);
        servers.push(tokio::spawn(server.run(until(stopping.clone()))));
        control.edge_is_at(edge.local_addr());
        api_config = api_config.with_metrics(move || metrics::of(&edge));
    } else {
        wire::edge_apart(&mut wires, &node, &data.edge())?;
    }
    wire::node(&mut wires, &control, &node, &local);
    let router = server::api::router(control.clone(), api_config);
    servers.push(tokio::spawn(async move {
        if let Err(error) = server::api::serve(listener, router, until(stopping)).await {
            tracing::error!(%error, "the API ended");
        }
    }));
    data.write("api", &format!("http://{api}\n"), 0o600)?;
    Ok(Running {
        control,
        api,
        edge: edge_address,
        token,
        data,
        node,
        stop,
        servers,
        wires,
        store,
        lock: Mutex::new(lock),
    })
}

impl Running {
    /// Whether workloads had lived on when it started.
    pub fn found_living(&self) -> bool {
        self.node.found_living()
    }

    /// Returns once the data folder is no longer certainly ours, and why: another Setpoint may decide here now.
    /// Whoever hears of it leaves at once, as in a crash.
    pub async fn lost(&self) -> Error {
        loop {
            tokio::time::sleep(LOCK_EVERY).await;
            let kept = self.lock.lock().unwrap_or_else(PoisonError::into_inner).keep();
            if let Err(error) = kept {
                return format!("the lock on the data folder was removed while this Setpoint ran: {error}")
                    .into();
            }
        }
    }

    /// Ends in order: nothing new is decided, requests in flight are answered, then the workloads end or are left
    /// to be adopted.
    pub async fn end(self, workloads: Workloads) {
        let Self { control, data, node, stop, servers, mut wires, store, lock: _lock, .. } = self;
        control.stop();
        data.remove("api");
        let _ = stop.send(true);
        for server in servers {
            if let Err(error) = server.await {
                tracing::warn!(%error, "a listener ended badly");
            }
        }
        node.shutdown(workloads).await;
        wires.shutdown().await;
        store.close().await;
    }
}

/// A node that has taken assignments of a cluster serves no other, and an empty store is no sign that nothing shall run:
/// beside a ledger it is one that was lost (I14).
async fn open_store(data: &DataDir) -> Result<Store, Error> {
    let path = data.store();
    let Some(cluster) = node::Acceptor::cluster_of(data.path())? else {
        return Ok(Store::open(&path).await?);
    };
    if std::fs::metadata(&path).map_or(true, |file| file.len() == 0) {
        return Err(lost(data, &format!("{} is missing or empty", path.display()), &cluster));
    }
    let store = Store::open(&path).await?;
    if *store.cluster_id() != cluster {
        let why = format!("{} is of cluster {}", path.display(), store.cluster_id());
        return Err(lost(data, &why, &cluster));
    }
    Ok(store)
}

fn lost(data: &DataDir, why: &str, cluster: &ClusterId) -> Error {
    let data = data.path().display();
    format!(
        "{why}, but the node in {data}/node holds what cluster {cluster} has declared. Nothing is started, and what runs \
         is left alone. Put a backup back with `setpoint restore FILE --data {data} --force`; or, to begin anew, end \
         what runs (the pids are in {data}/node/instances/*/identity.json) and then `mv {data}/node {data}/node.lost`"
    )
    .into()
}

async fn start_node(
    data: &DataDir,
    store: &Store,
    id: &NodeId,
    clock: Clock,
    options: &Options,
) -> Result<Node, Error> {
    let exe = std::env::current_exe()?;
    let config = node::Config {
        engine: options.engine.clone(),
        policy: options.policy.clone(),
        check_interval: options.pass_every,
        ..node::Config::new(data.path(), store.cluster_id().clone(), id.clone(), exe)
    };
    let content = std::sync::Arc::new(StoredContent::new(store.clone()));
    Ok(Node::start(config, content, std::sync::Arc::new(clock)).await?)
}

fn control_config(data: &DataDir, node: &NodeId, options: &Options) -> Result<server::Config, Error> {
    Ok(server::Config {
        data: data.path().into(),
        nodes: vec![node.clone()],
        holder: random_hex::<16>()?.parse()?,
        pass_every: options.pass_every,
        policy: options.policy.clone(),
        rules: options.rules,
    })
}

fn edge_config(settings: &settings::Edge) -> Result<edge::Config, Error> {
    let id: EdgeId = "local".parse()?;
    Ok(edge::Config {
        listen: settings.listen,
        id,
        boot: random_hex::<16>()?.parse()?,
        limits: settings.limits().within(sys::files::raise()),
    })
}

async fn listen(what: &str, flag: &str, address: SocketAddr) -> Result<TcpListener, Error> {
    // Until the API speaks TLS, it is not offered to a network.
    if !address.ip().is_loopback() {
        return Err(format!(
            "the {what} does not listen on {address} without TLS: anyone on the way could read the token. \
             Use a loopback address with {flag}, and a tunnel to reach it"
        )
        .into());
    }
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("{address} is taken by another program: stop it, or choose another address with {flag}")
                .into()
        }
        _ => format!("cannot listen on {address}: {error}; choose another address with {flag}").into(),
    })
}

async fn until(mut stopping: watch::Receiver<bool>) {
    // A closed channel is the end as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}
