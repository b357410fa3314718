//! `setpoint edge`: the proxy as its own process. It serves the table that it has on disk from its first moment,
//! takes newer ones from the server, and serves on while the server is away.

use std::{future::Future, sync::Arc, time::Duration};

use edge::{
    Edge,
    remote::{Durable, Events, TableFile},
};
use model::{EdgeId, RouteRevision, Timestamp, route::RouteTable};

use super::{
    Error,
    data::{DataDir, random_hex},
    settings::Edge as Settings,
    wire::Wires,
};
use crate::cli::{args, client::Client, output};

/// The server answers sooner when it has a newer table.
const WAIT_SECS: u64 = 20;
const RETRY: Duration = Duration::from_millis(200);
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);

pub async fn run(settings: &Settings, at: &args::Data, end: impl Future<Output = ()>) -> Result<(), Error> {
    let data = DataDir::open(&at.folder()?)?;
    let folder = data.edge();
    std::fs::create_dir_all(&folder)?;
    let _lock = store::DataLock::acquire_edge(data.path())?;
    let id: EdgeId = "edge".parse()?;
    let limits = settings.limits().within(sys::files::raise());
    let config = edge::Config { listen: settings.listen, id, boot: random_hex::<16>()?.parse()?, limits };
    let (edge, server) = Edge::bind(config).await?;
    let (durable, damage) = Durable::start(edge.clone(), TableFile::new(&folder));
    if let Some(damage) = damage {
        tracing::error!(%damage, "the table on the disk cannot be used; nothing is served until the server gives one");
    }
    let mut wires = Wires::new();
    wires.spawn(Events::bind(&folder)?.run(edge.clone()));
    wires.spawn(follow(Arc::new(durable), edge.clone(), at.clone()));
    wires.spawn(report(edge.clone(), at.clone()));
    output::line(&format!("ready edge=http://{}", edge.local_addr()))?;
    server.run(end).await;
    wires.shutdown().await;
    Ok(())
}

/// The server's address and token may change with its restarts, so they are read anew each time.
fn client(at: &args::Data) -> Result<Client, Error> {
    let connection = args::Connection { api: None, token: None, data: at.clone() };
    Ok(connection.client()?)
}

async fn follow(durable: Arc<Durable>, edge: Edge, at: args::Data) {
    loop {
        match next_table(&at, edge.report(Timestamp::ZERO).served).await {
            Ok(Some(table)) => {
                if let Err(error) = keep(&durable, table).await {
                    tracing::error!(%error, "a newer route table cannot be kept, so it is not served yet");
                    tokio::time::sleep(RETRY).await;
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "the server does not answer; the last table is served on");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// On disk before it is served: a restart must not serve less than what was confirmed.
async fn keep(durable: &Arc<Durable>, table: RouteTable) -> Result<(), Error> {
    let durable = Arc::clone(durable);
    Ok(tokio::task::spawn_blocking(move || durable.publish(&table)).await??)
}

async fn next_table(at: &args::Data, known: RouteRevision) -> Result<Option<RouteTable>, Error> {
    Ok(client(at)?.view_if_any(&format!("/edges/routes?wait={WAIT_SECS}&after={known}")).await?)
}

async fn report(edge: Edge, at: args::Data) {
    let mut changed = edge.changed();
    loop {
        changed.mark_unchanged();
        // The server puts its own time in.
        let pause = match tell(&at, &edge).await {
            Ok(()) => SIGN_OF_LIFE,
            Err(error) => {
                tracing::debug!(%error, "the server does not take the report");
                RETRY
            }
        };
        tokio::select! {
            alive = changed.changed() => if alive.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn tell(at: &args::Data, edge: &Edge) -> Result<(), Error> {
    let path = format!("/edges/report?address={}", edge.local_addr());
    client(at)?.post(&path, &edge.report(Timestamp::ZERO)).await?;
    Ok(())
}
