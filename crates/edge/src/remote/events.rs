//! Endpoint events of the node on the same machine, as datagrams.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use model::route::EndpointEvent;
use tokio::net::UnixDatagram;

use crate::Edge;

const EVENTS: &str = "events.sock";
/// More than any event needs; what is longer is cut, and then is no JSON.
const MAX_EVENT: usize = 16 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    #[error(
        "the event socket {path} cannot be made: {error}; its folder must exist, be writable, and have a path of less than 100 characters",
        path = .path.display()
    )]
    Bind { path: PathBuf, error: io::Error },
}

/// Receives endpoint events as datagrams of JSON.
#[derive(Debug)]
pub struct Events {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Events {
    /// Takes `events.sock` in the folder; a socket left there by an edge that died is replaced.
    pub fn bind(folder: &Path) -> Result<Self, EventsError> {
        let path = folder.join(EVENTS);
        let bound = remove_stale(&path).and_then(|()| UnixDatagram::bind(&path)).and_then(|socket| {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            Ok(socket)
        });
        match bound {
            Ok(socket) => Ok(Self { socket, path }),
            Err(error) => Err(EventsError::Bind { path, error }),
        }
    }

    /// Applies events until the socket fails, which it does not on its own.
    pub async fn run(self, edge: Edge) {
        let mut buffer = vec![0; MAX_EVENT];
        loop {
            match self.socket.recv(&mut buffer).await {
                Ok(n) => apply(&edge, &buffer[..n]),
                Err(error) => {
                    tracing::error!(%error, path = %self.path.display(), "endpoint events are no longer heard");
                    return;
                }
            }
        }
    }
}

/// Only a socket is removed: whatever else has the name was not left by an edge.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => fs::remove_file(path),
        Ok(_) => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is no socket has this name"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn apply(edge: &Edge, bytes: &[u8]) {
    match serde_json::from_slice::<EndpointEvent>(bytes) {
        Ok(event) => edge.endpoint_event(&event),
        Err(error) => tracing::warn!(%error, "an endpoint event that is not understood is ignored"),
    }
}

/// Sends endpoint events to an edge on this machine. Never waits: an edge that does not listen has none, and one
/// that is behind hears of the death from the connection itself.
#[derive(Debug)]
pub struct EventSender {
    socket: std::os::unix::net::UnixDatagram,
    path: PathBuf,
}

impl EventSender {
    pub fn new(folder: &Path) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path: folder.join(EVENTS) })
    }

    /// An error says that the edge did not get it: a `Ready` should then be sent again, since only it lifts a
    /// `Down`.
    pub fn send(&self, event: &EndpointEvent) -> io::Result<()> {
        let bytes = serde_json::to_vec(event)?;
        self.socket.send_to(&bytes, &self.path).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::table::tests::edge;

    #[tokio::test]
    async fn events_arrive_by_datagram_and_nonsense_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        drop(UnixDatagram::bind(dir.path().join(EVENTS)).unwrap());
        let events = Events::bind(dir.path()).unwrap();
        let mode = fs::metadata(dir.path().join(EVENTS)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let edge = edge().await;
        let listening = tokio::spawn(events.run(edge.clone()));
        let sender = EventSender::new(dir.path()).unwrap();
        sender.socket.send_to(b"{nonsense", &sender.path).unwrap();
        let instance: model::InstanceId = "default.a.0.1".parse().unwrap();
        let address = "127.0.0.1:1".to_owned();
        let health = model::route::EndpointHealth::Down;
        sender.send(&EndpointEvent { instance: instance.clone(), address, health }).unwrap();
        let heard = async {
            while !edge.is_down(&instance) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), heard).await.unwrap();
        listening.abort();
    }

    #[tokio::test]
    async fn what_is_no_socket_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(EVENTS), "mine").unwrap();
        assert!(Events::bind(dir.path()).is_err());
        assert_eq!(fs::read_to_string(dir.path().join(EVENTS)).unwrap(), "mine");
    }
}
