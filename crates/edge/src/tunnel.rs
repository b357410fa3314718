//! Connections that have left HTTP behind: WebSockets and whatever else both sides agreed to.

use std::{io, sync::Arc};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::{body::Lease, closing::Stage, serve::Client};

/// Both sides have agreed to another protocol: bytes both ways until either ends, or the server does. In
/// flight, and in its place among the connections, until then.
pub async fn tunnel(client: Arc<Client>, downstream: OnUpgrade, upstream: OnUpgrade, lease: Lease) {
    let instance = &lease.target.flight.instance;
    let copying = async {
        let (downstream, upstream) = tokio::try_join!(downstream, upstream).map_err(io::Error::other)?;
        let (mut downstream, mut upstream) = (TokioIo::new(downstream), TokioIo::new(upstream));
        tokio::io::copy_bidirectional(&mut downstream, &mut upstream).await
    };
    tokio::select! {
        ended = copying => if let Err(error) = ended {
            tracing::debug!(%error, %instance, "an upgraded connection broke");
        },
        () = client.closing.reaches(Stage::Now) => {}
    }
}
