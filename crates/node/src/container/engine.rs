//! The connection to an engine: every call has a bound, and every failure a kind.

use std::{
    future::Future,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::sync::Semaphore;

/// A question that the engine answers from memory.
pub const QUESTION: Duration = Duration::from_secs(10);
/// Work that it does for us.
pub const WORK: Duration = Duration::from_secs(120);
/// Whether it is there at all.
const PING: Duration = Duration::from_secs(3);
/// Of one response; the calls below have bounds of their own.
const RESPONSE: u64 = 3600;

#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// It cannot be reached, or does not answer. What it was asked to do may have been done.
    #[error(
        "the engine at {host} does not answer: {cause}; start it (`systemctl start docker`), or set DOCKER_HOST"
    )]
    Away { host: String, cause: String },
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Conflict(String),
    #[error("{message}")]
    Refused { status: u16, message: String },
}

impl Error {
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Away { .. })
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }

    /// Whether two things have the name that was asked for.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Refused { message, .. } | Self::Conflict(message) if message.contains("is ambiguous"))
    }

    /// Whether the disk is full.
    pub fn is_no_room(&self) -> bool {
        // At its end: what is quoted before may be anybody's words.
        let says_so =
            |message: &str| message.trim_end_matches(": unknown").ends_with("no space left on device");
        matches!(self, Self::Refused { status: 500.., message } if says_so(message))
    }
}

/// Containers made or started at once. An engine that is asked for hundreds is no faster, and answers no question
/// meanwhile: it would be taken for one that is away.
const AT_ONCE: usize = 16;

/// One engine. Nothing is connected before the first call.
#[derive(Debug)]
pub struct Engine {
    host: String,
    /// Whoever said where it is also said that it speaks TLS only.
    tls: bool,
    client: Mutex<Option<Docker>>,
    places: Semaphore,
}

impl Engine {
    /// `host` as in `DOCKER_HOST`: `unix:///var/run/docker.sock` or `tcp://127.0.0.1:2375`.
    pub fn new(host: &str) -> Self {
        let tls = std::env::var_os("DOCKER_TLS_VERIFY").is_some_and(|value| !value.is_empty());
        Self { host: host.to_owned(), tls, client: Mutex::new(None), places: Semaphore::new(AT_ONCE) }
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn away(&self, cause: impl Into<String>) -> Error {
        Error::Away { host: self.host.clone(), cause: cause.into() }
    }

    /// The client, speaking the version that the engine understands.
    pub async fn client(&self) -> Result<Docker, Error> {
        if let Some(client) = self.held() {
            return Ok(client);
        }
        if let Some(cause) = self.unsupported() {
            return Err(self.away(cause));
        }
        let client = self.connect().map_err(|error| self.error(error))?;
        let negotiated = self.within(PING, client.negotiate_version()).await?;
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(negotiated.clone());
        Ok(negotiated)
    }

    fn held(&self) -> Option<Docker> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// After it was away it may be another version.
    pub fn forget(&self) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What is asked for by DOCKER_HOST and is not spoken here, in words: anything else would be asked in clear, or
    /// taken for a file.
    fn unsupported(&self) -> Option<String> {
        let (scheme, _) = self.host.split_once("://")?;
        match scheme {
            "unix" => None,
            "tcp" | "http" => self.tls.then(|| {
                "DOCKER_TLS_VERIFY asks for TLS, which is not supported; unset it, and reach the engine through a tunnel".into()
            }),
            _ => Some(format!("`{scheme}://` is not supported, only `unix://` and `tcp://` are")),
        }
    }

    fn connect(&self) -> Result<Docker, bollard::errors::Error> {
        match self.host.strip_prefix("tcp://").or(self.host.strip_prefix("http://")) {
            Some(_) => Docker::connect_with_http(&self.host, RESPONSE, API_DEFAULT_VERSION),
            None => Docker::connect_with_unix(&self.host, RESPONSE, API_DEFAULT_VERSION),
        }
    }

    pub async fn ping(&self) -> Result<(), Error> {
        let client = self.client().await?;
        self.within(PING, client.ping()).await.map(drop)
    }

    /// A call that makes or starts a container: a few at a time, and `bound` counts from its turn.
    pub async fn in_turn<T>(
        &self,
        bound: Duration,
        call: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, Error> {
        let _place = self.places.acquire().await;
        self.within(bound, call).await
    }

    /// A call that ends within `bound`, one way or the other.
    pub async fn within<T>(
        &self,
        bound: Duration,
        call: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(bound, call).await {
            Ok(answer) => answer.map_err(|error| self.error(error)),
            Err(_) => Err(self.away(format!("no answer within {} s", bound.as_secs()))),
        }
    }

    pub fn error(&self, error: bollard::errors::Error) -> Error {
        use bollard::errors::Error as E;
        match error {
            E::DockerResponseServerError { status_code: 404, message } => Error::NotFound(words(&message)),
            E::DockerResponseServerError { status_code: 409, message } => Error::Conflict(words(&message)),
            E::DockerResponseServerError { status_code: status, message } => {
                Error::Refused { status, message: words(&message) }
            }
            E::DockerStreamError { error } => Error::Refused { status: 500, message: words(&error) },
            E::JsonDataError { message, .. } => {
                Error::Refused { status: 500, message: format!("its answer cannot be read: {message}") }
            }
            E::SocketNotFoundError(path) => self.away(format!("there is no socket at {path}")),
            E::RequestTimeoutError => self.away("no answer"),
            other => self.away(plain(&other)),
        }
    }
}

/// An engine's words quote what an image says of itself, which may be anything of any length.
fn words(message: &str) -> String {
    const MOST: usize = 2000;
    let (head, cut) = match message.char_indices().nth(MOST) {
        Some((end, _)) => (&message[..end], "…"),
        None => (message, ""),
    };
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    head.trim().chars().map(printable).chain(cut.chars()).collect()
}

/// The innermost cause says it best: what wraps it only names libraries.
fn plain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_away_and_says_where_it_was_looked_for() {
        let engine = Engine::new("unix:///nonexistent/docker.sock");
        let error = engine.ping().await.unwrap_err();
        assert!(error.is_away());
        let told = error.to_string();
        assert!(told.contains("/nonexistent/docker.sock") && told.contains("DOCKER_HOST"), "{told}");
    }

    #[tokio::test]
    async fn what_is_not_spoken_is_said_instead_of_looked_for() {
        for host in ["ssh://me@example.com", "https://example.com:2376", "npipe:////./pipe/docker"] {
            let error = Engine::new(host).ping().await.unwrap_err();
            assert!(error.is_away() && error.to_string().contains("is not supported"), "{error}");
        }
        assert_eq!(Engine::new("/run/docker.sock").unsupported(), None, "a plain path");
        for (host, told) in [("tcp://10.0.0.1:2376", true), ("unix:///run/docker.sock", false)] {
            let engine = Engine { tls: true, ..Engine::new(host) };
            assert_eq!(engine.unsupported().is_some_and(|told| told.contains("TLS")), told, "{host}");
        }
    }

    #[tokio::test]
    async fn an_engine_that_accepts_and_never_answers_is_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let engine = Engine::new(&format!("unix://{}", path.display()));
        let client = engine.connect().unwrap();
        let asked = engine.within(Duration::from_millis(50), client.ping()).await;
        assert!(asked.unwrap_err().is_away());
    }
}
