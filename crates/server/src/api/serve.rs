//! The listener's loop: connections with bounds in number and time, and an end that waits for answers but not for
//! ever.

use std::{convert::Infallible, io, net::IpAddr, sync::Arc, time::Duration};

use axum::{Extension, Router, extract::FromRequestParts, http::request::Parts};
use hyper::{
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};

const MAX_CONNECTIONS: usize = 1024;
const MAX_HEADERS: usize = 64;
const MAX_HEAD: usize = 64 << 10;
/// For a request's head, and for a connection that waits for its next request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// For answers under way when the server ends.
const GRACE: Duration = Duration::from_secs(5);
/// After the kernel had no socket to give.
const PAUSE: Duration = Duration::from_millis(50);

/// The other end of the connection of a request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Tells streams, which would go on for ever, that the server ends.
#[derive(Debug, Clone)]
pub struct Stopping(Option<watch::Receiver<bool>>);

impl Stopping {
    pub async fn wait(&self) {
        match self.0.clone() {
            // A sender that is gone has stopped too.
            Some(mut stopping) => drop(stopping.wait_for(|stop| *stop).await),
            None => std::future::pending().await,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Stopping {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or(Self(None)))
    }
}

/// Serves until `shutdown`; then takes nothing new and answers what is under way.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (stop, stopping) = watch::channel(false);
    let stopping = Stopping(Some(stopping));
    let router = router.layer(Extension(stopping.clone()));
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut refused = false;
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                refused = false;
                let (router, stopping) = (router.clone(), stopping.clone());
                connections.spawn(async move {
                    let _place = place;
                    connection(stream, peer, router, stopping).await;
                });
            }
            Err(error) => {
                // Twenty times a second would fill a log.
                if !std::mem::replace(&mut refused, true) {
                    tracing::warn!(%error, "the API cannot take connections; raise the limit of open files (ulimit -n)");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    let _ = stop.send(true);
    let ended = tokio::time::timeout(GRACE, async { while connections.join_next().await.is_some() {} });
    if ended.await.is_err() {
        tracing::warn!("the API ended before every answer was read");
    }
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, Peer, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, Peer(peer.ip()), place))
}

async fn connection(stream: TcpStream, peer: Peer, router: Router, stopping: Stopping) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer);
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.wait() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // A client that goes away is no event.
        tracing::debug!(%error, "a connection to the API ended");
    }
}
