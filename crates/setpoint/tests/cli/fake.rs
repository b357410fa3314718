//! An API of the test's own: a real HTTP server whose every answer the test decides.

use std::{
    convert::Infallible,
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub token: Option<String>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// An answer: its body comes in pieces.
pub struct Reply {
    status: u16,
    kind: &'static str,
    pieces: Vec<Bytes>,
    /// The rest of the body never comes.
    unfinished: bool,
}

impl Reply {
    pub fn json(value: &Value) -> Self {
        Self::with(200, "application/json", value.to_string())
    }

    pub fn text(text: impl Into<Vec<u8>>) -> Self {
        Self::with(200, "text/plain", text)
    }

    pub fn with(status: u16, kind: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, kind, pieces: vec![Bytes::from(body.into())], unfinished: false }
    }

    pub fn problem(status: u16, code: &str, message: &str) -> Self {
        let problem = json!({"type": "about:blank", "title": code, "status": status, "detail": message,
            "code": code, "message": message, "field": "replicas", "help": "ask for less"});
        Self::with(status, "application/problem+json", problem.to_string())
    }

    pub fn then_never_ends(mut self) -> Self {
        self.unfinished = true;
        self
    }
}

type Handler = dyn Fn(&Asked) -> Reply + Send + Sync;

/// Listens until it is dropped.
pub struct Fake {
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Fake {
    pub fn start(handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        runtime.spawn(accept(listener, Arc::new(handler), Arc::clone(&asked)));
        Self { url, asked, _runtime: runtime }
    }

    /// As a server does it: address and token in the data folder.
    pub fn in_folder(self, data: &Path) -> Self {
        std::fs::write(data.join("api"), format!("{}\n", self.url)).unwrap();
        std::fs::write(data.join("token"), "sp_test\n").unwrap();
        self
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub fn lines(&self) -> Vec<String> {
        self.asked().iter().map(Asked::line).collect()
    }
}

async fn accept(listener: TcpListener, handler: Arc<Handler>, asked: Arc<Mutex<Vec<Asked>>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (handler, asked) = (Arc::clone(&handler), Arc::clone(&asked));
        let service = service_fn(move |request| answer(request, Arc::clone(&handler), Arc::clone(&asked)));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

type Body = StreamBody<futures_util::stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

async fn answer(
    request: Request<Incoming>,
    handler: Arc<Handler>,
    all: Arc<Mutex<Vec<Asked>>>,
) -> Result<Response<Body>, Infallible> {
    let token = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let (method, path) = (request.method().to_string(), request.uri().to_string());
    let body = request.into_body().collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
    let asked = Asked { method, path, token, body };
    // How a site is fetched and built is asked before it is deployed; here nothing is.
    let reply = match asked.path.ends_with("/spec") {
        true => Reply::problem(404, "not_declared", "service default/api is not declared"),
        false => handler(&asked),
    };
    all.lock().unwrap().push(asked);
    let (pieces, unfinished) = (reply.pieces.into_iter(), reply.unfinished);
    let stream = futures_util::stream::unfold(pieces, move |mut pieces| async move {
        match pieces.next() {
            Some(piece) => Some((Ok(Frame::data(piece)), pieces)),
            None if unfinished => std::future::pending().await,
            None => None,
        }
    });
    let body = StreamBody::new(Box::pin(stream) as _);
    Ok(Response::builder().status(reply.status).header("content-type", reply.kind).body(body).unwrap())
}

pub fn service(state: &str, ready: u32, deployment: Value) -> Value {
    json!({"project": "default", "name": "api", "kind": "process", "state": state, "message": "",
        "generation": 3, "replicas": {"desired": 1, "ready": ready}, "deployment": deployment,
        "urls": ["http://api.localhost:8080"], "instances": [instance("k3n5q7r2t4v6", ready > 0)], "a_new_field": [1]})
}

pub fn instance(deployment: &str, ready: bool) -> Value {
    json!({"id": "default.api.0.7", "ordinal": 0, "node": "local", "state": "running", "ready": ready, "pid": 4711,
        "address": "127.0.0.1:31001", "deployment": deployment, "restarts": 0,
        "release": format!("sha256:{}", "0".repeat(64))})
}

pub fn services(service: Value) -> Value {
    json!({"services": [service]})
}

pub fn applied(changed: bool, deployment: Option<&str>) -> Value {
    json!({"services": [{"project": "default", "name": "api", "changed": changed, "generation": 3,
        "deployment": deployment, "message": if changed { "deploying" } else { "nothing to do" }}]})
}

pub fn deployment(phase: &str, progress: u8, message: &str) -> Value {
    json!({"id": "k3n5q7r2t4v6", "project": "default", "service": "api", "number": 4, "status": "building",
        "phase": phase, "progress": progress, "cause": "apply", "release": format!("sha256:{}", "1".repeat(64)),
        "started_at": "2026-11-21T09:30:00.000Z", "phase_updated_at": "2026-11-21T09:30:01.000Z", "ended_at": null,
        "message": message, "metadata": {"failed_phase": "starting"}})
}
