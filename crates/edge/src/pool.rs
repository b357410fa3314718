//! Upstream connections of one endpoint. They belong to it, so that retiring an instance closes its own
//! idle ones and no others.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::{body::RequestBody, config::Limits, flight::Flight};

/// Where requests for one instance go.
#[derive(Debug)]
pub struct Target {
    pub flight: Arc<Flight>,
    address: Address,
    /// Edge milliseconds until which it is passed over; 0 when it is not.
    ejected_until: AtomicU64,
    idle: Mutex<Idle>,
}

#[derive(Debug)]
enum Address {
    Socket(SocketAddr),
    Name(String),
}

#[derive(Debug, Default)]
struct Idle {
    closed: bool,
    connections: VecDeque<(Connection, Instant)>,
}

/// A connection on which a request may be sent.
pub type Connection = SendRequest<RequestBody>;

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the connection was not established within {0:?}")]
    TimedOut(Duration),
    #[error("the connection failed: {0}")]
    Failed(io::Error),
    #[error("the handshake failed: {0}")]
    Handshake(hyper::Error),
}

impl Target {
    pub fn new(flight: Arc<Flight>, address: &str) -> Self {
        let address =
            address.parse().map(Address::Socket).unwrap_or_else(|_| Address::Name(address.to_owned()));
        Self { flight, address, ejected_until: AtomicU64::new(0), idle: Mutex::default() }
    }

    pub fn is_ejected(&self, now: u64) -> bool {
        let until = self.ejected_until.load(Relaxed);
        until != 0 && now < until
    }

    pub fn eject(&self, until: u64) {
        self.ejected_until.store(until.max(1), Relaxed);
    }

    pub fn restore(&self) {
        self.ejected_until.store(0, Relaxed);
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An open connection that was idle for less than `max_age`, the most recently used first.
    pub fn take(&self, max_age: Duration) -> Option<Connection> {
        let mut idle = self.idle();
        while let Some((connection, since)) = idle.connections.pop_back() {
            if since.elapsed() > max_age {
                // All that are left are older still, but others may take them.
                idle.connections.push_back((connection, since));
                return None;
            }
            if connection.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose exchange is over for the next request.
    pub fn put(&self, connection: Connection, limits: &Limits) {
        let mut idle = self.idle();
        if idle.closed || connection.is_closed() {
            return;
        }
        let spent = |since: &Instant| since.elapsed() > limits.pool_idle_for;
        while idle.connections.len() >= limits.pool_idle
            || idle.connections.front().is_some_and(|(_, t)| spent(t))
        {
            idle.connections.pop_front();
        }
        idle.connections.push_back((connection, Instant::now()));
    }

    /// Closes what is idle now; connections in use are closed when their exchange is over if `for_good`.
    pub fn close_idle(&self, for_good: bool) {
        let mut idle = self.idle();
        idle.closed |= for_good;
        idle.connections.clear();
    }

    pub async fn connect(&self, limits: &Limits) -> Result<Connection, ConnectError> {
        let connecting = async {
            match &self.address {
                Address::Socket(address) => TcpStream::connect(address).await,
                Address::Name(name) => TcpStream::connect(name.as_str()).await,
            }
        };
        let stream = tokio::time::timeout(limits.connect, connecting)
            .await
            .map_err(|_| ConnectError::TimedOut(limits.connect))?
            .map_err(ConnectError::Failed)?;
        // Without it small answers wait for acknowledgements; where it fails they are only slower.
        let _ = stream.set_nodelay(true);
        let (connection, driver) =
            http1::handshake(TokioIo::new(stream)).await.map_err(ConnectError::Handshake)?;
        tokio::spawn(async move {
            if let Err(error) = driver.with_upgrades().await {
                tracing::debug!(%error, "an upstream connection ended");
            }
        });
        Ok(connection)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::AsyncReadExt,
        net::{TcpListener, TcpStream},
        sync::watch,
    };

    use super::*;

    struct Scene {
        listener: TcpListener,
        target: Target,
        limits: Limits,
    }

    impl Scene {
        async fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let flight = Flight::new("default.api.0.1".parse().unwrap(), watch::channel(0).0);
            let target = Target::new(Arc::new(flight), &listener.local_addr().unwrap().to_string());
            Self { listener, target, limits: Limits::default() }
        }

        /// A connection, and its other end.
        async fn connection(&self) -> (Connection, TcpStream) {
            let mut connection = self.target.connect(&self.limits).await.unwrap();
            let (other, _) = self.listener.accept().await.unwrap();
            connection.ready().await.unwrap();
            (connection, other)
        }
    }

    async fn assert_closed(mut other: TcpStream) {
        let read = tokio::time::timeout(Duration::from_secs(10), other.read(&mut [0])).await;
        assert_eq!(read.expect("closed within ten seconds").unwrap(), 0);
    }

    #[tokio::test]
    async fn what_is_retired_closes_its_idle_connections_and_keeps_no_more() {
        let scene = Scene::new().await;
        let ((idle, idle_end), (busy, busy_end)) = (scene.connection().await, scene.connection().await);
        scene.target.put(idle, &scene.limits);
        scene.target.close_idle(true);
        assert_closed(idle_end).await;
        // Its exchange is over only now.
        scene.target.put(busy, &scene.limits);
        assert!(scene.target.take(Duration::MAX).is_none());
        assert_closed(busy_end).await;
    }

    #[tokio::test]
    async fn what_only_lost_its_idle_connections_keeps_the_next_ones() {
        let scene = Scene::new().await;
        let ((idle, idle_end), (busy, _busy_end)) = (scene.connection().await, scene.connection().await);
        scene.target.put(idle, &scene.limits);
        scene.target.close_idle(false);
        assert_closed(idle_end).await;
        scene.target.put(busy, &scene.limits);
        assert!(scene.target.take(Duration::MAX).is_some());
    }
}
