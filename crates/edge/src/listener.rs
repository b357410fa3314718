//! The front door: takes the address, accepts connections within bounds, and at the end lets requests in
//! flight finish.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use crate::{
    closing::{Closing, Stage},
    config::Limits,
    serve::{self, Client},
    state::State,
    wire::Wire,
};

/// Connections that may wait to be accepted; the kernel caps it by net.core.somaxconn.
const BACKLOG: i32 = 4096;

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "the edge cannot listen on {0}: the address is taken. `ss -ltnp 'sport = :{port}'` shows by whom; stop that, or choose another address with --edge",
        port = .0.port()
    )]
    Taken(SocketAddr),
    #[error(
        "the edge may not listen on {0}: ports below 1024 need root or CAP_NET_BIND_SERVICE; choose another address with --edge"
    )]
    NotAllowed(SocketAddr),
    #[error(
        "the edge cannot listen on {0}: this machine has no such address; choose another one with --edge"
    )]
    NoSuchAddress(SocketAddr),
    #[error("the edge cannot listen on {0}: {1}; choose another address with --edge")]
    Other(SocketAddr, io::Error),
}

impl BindError {
    pub(crate) fn other(address: SocketAddr, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::Taken(address),
            io::ErrorKind::PermissionDenied => Self::NotAllowed(address),
            io::ErrorKind::AddrNotAvailable => Self::NoSuchAddress(address),
            _ => Self::Other(address, error),
        }
    }
}

pub fn listen(address: SocketAddr) -> Result<TcpListener, BindError> {
    bind(address).map_err(|error| BindError::other(address, error))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    // A restart must not wait for the connections of the edge before it to leave TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    TcpListener::from_std(StdListener::from(socket))
}

/// Serves what was bound. Nothing is accepted before `run`.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    state: Arc<State>,
    limits: Arc<Limits>,
}

impl Server {
    pub(crate) fn new(listener: TcpListener, state: Arc<State>) -> Self {
        let limits = Arc::new(state.config.limits.clone());
        Self { listener, state, limits }
    }

    /// Serves until `shutdown`; then accepts nothing more and gives what is in flight its bounded time.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { listener, state, limits } = self;
        let (end, closing) = Closing::begin();
        let places = Arc::new(Semaphore::new(limits.connections));
        let accepting = accept_all(&listener, &state, &limits, &closing, &places);
        tokio::select! {
            () = accepting => {}
            () = shutdown => {}
        }
        drop(listener);
        end.send_replace(Stage::Gracefully);
        let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
        // All places free again: no connection is left.
        if tokio::time::timeout(limits.shutdown_grace, places.acquire_many(all)).await.is_err() {
            end.send_replace(Stage::Now);
        }
    }
}

async fn accept_all(
    listener: &TcpListener,
    state: &Arc<State>,
    limits: &Arc<Limits>,
    closing: &Closing,
    places: &Arc<Semaphore>,
) {
    let http = http(limits);
    let mut failed = false;
    loop {
        // Closed only with the server itself.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let client = Client::new(state.clone(), limits.clone(), peer.ip(), closing.clone(), place);
                tokio::spawn(connection(http.clone(), stream, Arc::new(client)));
            }
            Err(error) => {
                after_failed_accept(&error, failed).await;
                failed = true;
                continue;
            }
        }
        failed = false;
    }
}

/// Out of descriptors or memory: others have to finish first, and asking again at once would only spin.
async fn after_failed_accept(error: &io::Error, again: bool) {
    let of_one_client = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    );
    if !of_one_client {
        if !again {
            tracing::warn!(%error, "the edge cannot accept connections; raise the limit of open files (ulimit -n)");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn http(limits: &Limits) -> http1::Builder {
    let mut http = http1::Builder::new();
    // Its time for headers runs from the end of the answer before: that is our time for idle connections.
    http.timer(TokioTimer::new()).header_read_timeout(limits.idle).max_header_size(limits.header_bytes);
    // A number of its own takes the headers' table off the stack: only when it differs from hyper's.
    if limits.headers != 100 {
        http.max_headers(limits.headers);
    }
    http
}

async fn connection(http: http1::Builder, stream: TcpStream, client: Arc<Client>) {
    // Without it small answers wait for acknowledgements; where it fails they are only slower.
    let _ = stream.set_nodelay(true);
    client.state.connections.fetch_add(1, Relaxed);
    let wire = Wire::new(stream, client.limits.clone(), client.decision.clone());
    let served = client.clone();
    let service = service_fn(move |request| serve::serve(served.clone(), request));
    let serving = http.serve_connection(TokioIo::new(wire), service).with_upgrades();
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = client.closing.reaches(Stage::Gracefully) => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                ended = &mut serving => ended,
                () = client.closing.reaches(Stage::Now) => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a client's connection ended");
    }
    client.state.connections.fetch_sub(1, Relaxed);
}
