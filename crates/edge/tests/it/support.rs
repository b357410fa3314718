//! What the tests stand on: an edge on a free port, upstreams that say who they are, a client that sees raw
//! bytes.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use edge::{Config, Edge, Limits};
use model::{
    RouteRevision, Timestamp,
    route::{Backend, EdgeReport, Endpoint, EndpointEvent, EndpointHealth, RouteTable, ServiceRoute},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

pub const BOUND: Duration = Duration::from_secs(10);

/// A running edge; its server ends with it.
pub struct Running {
    pub edge: Edge,
    pub stop: Option<oneshot::Sender<()>>,
    pub server: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub fn config(limits: Limits) -> Config {
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        id: "local".parse().unwrap(),
        boot: "boot-1".parse().unwrap(),
        limits,
    }
}

pub async fn start() -> Running {
    start_with(Limits::default()).await
}

pub async fn start_with(limits: Limits) -> Running {
    let (edge, server) = Edge::bind(config(limits)).await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(server.run(async move {
        let _ = stopped.await;
    }));
    Running { edge, stop: Some(stop), server }
}

/// A table of one revision; `services` are `(name, domain, backend)`.
pub fn table(revision: u64, services: &[(&str, &str, Backend)]) -> RouteTable {
    let service = |(name, domain, backend): &(&str, &str, Backend)| {
        let route = ServiceRoute {
            revision: RouteRevision(revision),
            domains: vec![domain.parse().unwrap()],
            backend: backend.clone(),
            taken: None,
        };
        (format!("default/{name}").parse().unwrap(), Arc::new(route))
    };
    RouteTable {
        revision: RouteRevision(revision),
        services: services.iter().map(service).collect(),
        ..RouteTable::default()
    }
}

pub fn proxy(endpoints: &[(&str, SocketAddr)]) -> Backend {
    let endpoint = |(instance, address): &(&str, SocketAddr)| Endpoint {
        instance: instance.parse().unwrap(),
        address: address.to_string(),
        weight: 1,
    };
    Backend::Proxy { endpoints: endpoints.iter().map(endpoint).collect() }
}

pub fn api(revision: u64, endpoints: &[(&str, SocketAddr)]) -> RouteTable {
    table(revision, &[("api", "api.localhost", proxy(endpoints))])
}

pub fn event(instance: &str, health: EndpointHealth) -> EndpointEvent {
    EndpointEvent { instance: instance.parse().unwrap(), address: "127.0.0.1:1".into(), health }
}

/// The same at the address that it listens on: where a table does not name it, `Ready` lifts nothing.
pub fn event_at(instance: &str, health: EndpointHealth, address: SocketAddr) -> EndpointEvent {
    EndpointEvent { address: address.to_string(), ..event(instance, health) }
}

pub fn in_flight(report: &EdgeReport, instance: &str) -> u64 {
    report.in_flight.get(&instance.parse().unwrap()).copied().unwrap_or(0)
}

impl Running {
    pub fn report(&self) -> EdgeReport {
        self.edge.report(Timestamp(1))
    }

    /// Waits, woken by the edge's own word, until its report satisfies `wanted`.
    pub async fn until_report(&self, what: &str, wanted: impl Fn(&EdgeReport) -> bool) -> EdgeReport {
        let mut changed = self.edge.changed();
        let waiting = async {
            loop {
                let report = self.report();
                if wanted(&report) {
                    return report;
                }
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(BOUND, waiting)
            .await
            .unwrap_or_else(|_| panic!("never came: {what}; {:?}", self.report()))
    }

    pub async fn client(&self) -> Raw {
        Raw::connect(self.edge.local_addr()).await
    }

    pub async fn get(&self, host: &str, path: &str) -> Answer {
        let mut client = self.client().await;
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        client.answer().await
    }
}

/// A client that sends and sees bytes.
pub struct Raw {
    pub stream: TcpStream,
    pub seen: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

impl Raw {
    pub async fn connect(to: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(to).await.unwrap(), seen: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads more; false at the end of the stream, orderly or not.
    async fn more(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        let read = tokio::time::timeout(BOUND, self.stream.read(&mut chunk)).await.expect("no bytes in time");
        let n = read.unwrap_or(0);
        self.seen.extend_from_slice(&chunk[..n]);
        n > 0
    }

    pub async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.seen.windows(end.len()).position(|w| w == end) {
                return Some(self.seen.drain(..at + end.len()).collect());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    pub async fn exactly(&mut self, n: usize) -> Vec<u8> {
        while self.seen.len() < n {
            assert!(self.more().await, "the stream ended after {} of {n} bytes", self.seen.len());
        }
        self.seen.drain(..n).collect()
    }

    pub async fn head(&mut self) -> Option<Answer> {
        let head = String::from_utf8(self.until(b"\r\n\r\n").await?).unwrap();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Answer { status, head, body: Vec::new() })
    }

    pub async fn answer(&mut self) -> Answer {
        self.try_answer(false).await.expect("the connection ended without an answer")
    }

    pub async fn answer_to_head(&mut self) -> Answer {
        self.try_answer(true).await.expect("the connection ended without an answer")
    }

    pub async fn try_answer(&mut self, to_head: bool) -> Option<Answer> {
        let mut answer = self.head().await?;
        let bodiless = to_head || matches!(answer.status, 100..=199 | 204 | 304);
        if bodiless {
            return Some(answer);
        }
        if let Some(length) = answer.header("content-length") {
            let length = length.parse().unwrap();
            answer.body = self.exactly(length).await;
        } else if answer.header("transfer-encoding").is_some() {
            answer.body = self.chunked().await;
        } else {
            self.closed().await;
            answer.body = std::mem::take(&mut self.seen);
        }
        Some(answer)
    }

    async fn chunked(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = String::from_utf8(self.until(b"\r\n").await.expect("chunk size")).unwrap();
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            body.extend(self.exactly(size).await);
            assert_eq!(self.until(b"\r\n").await.as_deref(), Some(&b"\r\n"[..]));
            if size == 0 {
                return body;
            }
        }
    }

    /// Reads until the peer closes.
    pub async fn closed(&mut self) {
        while self.more().await {}
    }
}

/// An upstream that answers each request by what `answer` makes of the head; it reads bodies by their length.
pub struct Upstream {
    pub address: SocketAddr,
    pub requests: Arc<AtomicU64>,
    pub connections: Arc<AtomicU64>,
    /// Connections open now.
    pub open: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What an upstream does with a request.
pub enum Act {
    /// 200 with this text.
    Text(String),
    /// These bytes, then the next request.
    Bytes(Vec<u8>),
    /// These bytes, then close.
    BytesAndClose(Vec<u8>),
    /// Waits for the signal, then 200 with this text.
    Held(tokio::sync::watch::Receiver<bool>, String),
    /// Switches protocols, then echoes.
    Echo,
}

pub async fn upstream(answer: impl Fn(&str, &[u8]) -> Act + Send + Sync + 'static) -> Upstream {
    upstream_at(TcpListener::bind("127.0.0.1:0").await.unwrap(), answer)
}

pub fn upstream_at(
    listener: TcpListener,
    answer: impl Fn(&str, &[u8]) -> Act + Send + Sync + 'static,
) -> Upstream {
    let address = listener.local_addr().unwrap();
    let (requests, connections, open) =
        (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let (answer, counts) = (Arc::new(answer), (requests.clone(), connections.clone(), open.clone()));
    let task = tokio::spawn(async move {
        let mut all = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counts.1.fetch_add(1, SeqCst);
            counts.2.fetch_add(1, SeqCst);
            let (answer, requests, open) = (answer.clone(), counts.0.clone(), counts.2.clone());
            all.spawn(async move {
                let mut raw = Raw { stream, seen: Vec::new() };
                while one(&mut raw, &*answer, &requests).await {}
                open.fetch_sub(1, SeqCst);
            });
        }
    });
    Upstream { address, requests, connections, open, task }
}

/// Says who it is.
pub async fn named(name: &'static str) -> Upstream {
    upstream(move |_, _| Act::Text(name.into())).await
}

async fn read_request(raw: &mut Raw) -> Option<(String, Vec<u8>)> {
    // An idle connection waits as long as the edge keeps it.
    while !raw.seen.windows(4).any(|w| w == b"\r\n\r\n") {
        let mut chunk = [0; 16 * 1024];
        let n = raw.stream.read(&mut chunk).await.unwrap_or(0);
        if n == 0 {
            return None;
        }
        raw.seen.extend_from_slice(&chunk[..n]);
    }
    let head = String::from_utf8(raw.until(b"\r\n\r\n").await?).unwrap();
    let lower = head.to_ascii_lowercase();
    let length =
        lower.split("content-length: ").nth(1).and_then(|l| l.lines().next()).map(|l| l.parse().unwrap());
    let body = match length {
        Some(length) => raw.exactly(length).await,
        None if lower.contains("transfer-encoding: chunked") => raw.chunked().await,
        None => Vec::new(),
    };
    Some((head, body))
}

async fn one(
    raw: &mut Raw,
    answer: &(dyn Fn(&str, &[u8]) -> Act + Send + Sync),
    requests: &AtomicU64,
) -> bool {
    let Some((head, body)) = read_request(raw).await else { return false };
    requests.fetch_add(1, SeqCst);
    let text =
        |text: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()).into_bytes();
    match answer(&head, &body) {
        Act::Text(t) => raw.stream.write_all(&text(&t)).await.is_ok(),
        Act::Bytes(bytes) => raw.stream.write_all(&bytes).await.is_ok(),
        Act::BytesAndClose(bytes) => {
            let _ = raw.stream.write_all(&bytes).await;
            false
        }
        Act::Held(mut signal, t) => {
            let go = tokio::select! {
                go = signal.wait_for(|go| *go) => go.is_ok(),
                // The edge closed it: nobody waits for the answer.
                _ = raw.stream.readable() => false,
            };
            go && raw.stream.write_all(&text(&t)).await.is_ok()
        }
        Act::Echo => {
            let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
            raw.stream.write_all(switch).await.unwrap();
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = raw.stream.read(&mut chunk).await {
                raw.stream.write_all(&chunk[..n]).await.unwrap();
            }
            false
        }
    }
}

/// Waits for a state with a bound.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(BOUND, waiting).await.unwrap_or_else(|_| panic!("never came: {what}"));
}
