//! `setpoint demo-app`: a tiny HTTP server for the quickstart and the tests, which misbehaves on request.
//!
//! Owns: what a well-behaved program does under Setpoint: listen on HOST:PORT, answer `/healthz`, end on SIGTERM after
//! the requests in flight. Refuses to know: Setpoint itself. One thread, and memory for the requests in flight alone.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    env, io,
    net::SocketAddr,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::AsyncWriteExt,
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

use crate::cli;

/// What it does on request, from its environment.
#[derive(Debug, Default)]
struct Config {
    address: Option<SocketAddr>,
    instance: String,
    version: String,
    fail_health: bool,
    fail_start: Option<u8>,
    boot_delay: Duration,
    crash_after: Option<Duration>,
    unhealthy_after: Option<Duration>,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{name} is `{value}`; {expected}")]
    Variable { name: &'static str, value: String, expected: &'static str },
    #[error("PORT is not set: `PORT=8081 setpoint demo-app` listens on 127.0.0.1:8081")]
    NoPort,
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Runs until SIGTERM or SIGINT.
pub fn run() -> ExitCode {
    let ended = Config::read(|name| env::var(name).ok()).and_then(|config| match config.fail_start {
        Some(code) => {
            eprintln!("demo-app: FAIL_START asks for exit status {code}");
            Ok(ExitCode::from(code))
        }
        None => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(serve(Arc::new(config)))
        }
    });
    ended.unwrap_or_else(|error| cli::fail(&error))
}

impl Config {
    fn read(variable: impl Fn(&'static str) -> Option<String>) -> Result<Self, Error> {
        let millis =
            |name| parsed(name, variable(name), "write milliseconds").map(|ms| ms.map(Duration::from_millis));
        let host = variable("HOST").filter(|host| !host.is_empty()).unwrap_or_else(|| "127.0.0.1".into());
        let port: Option<u16> = parsed("PORT", variable("PORT"), "write a port")?;
        let address = match port {
            Some(port) => Some(SocketAddr::new(
                host.parse().map_err(|_| Error::Variable {
                    name: "HOST",
                    value: host,
                    expected: "write an IP address",
                })?,
                port,
            )),
            None => None,
        };
        Ok(Self {
            address,
            instance: variable("SETPOINT_INSTANCE").unwrap_or_default(),
            version: variable("VERSION").unwrap_or_default(),
            fail_health: variable("FAIL_HEALTH").is_some_and(|value| !value.is_empty()),
            fail_start: parsed("FAIL_START", variable("FAIL_START"), "write an exit status")?,
            boot_delay: millis("BOOT_DELAY_MS")?.unwrap_or_default(),
            crash_after: millis("CRASH_AFTER_MS")?,
            unhealthy_after: millis("UNHEALTHY_AFTER_MS")?,
        })
    }
}

fn parsed<T: std::str::FromStr>(
    name: &'static str,
    value: Option<String>,
    expected: &'static str,
) -> Result<Option<T>, Error> {
    match value.filter(|value| !value.is_empty()) {
        None => Ok(None),
        Some(value) => value.parse().map(Some).map_err(|_| Error::Variable { name, value, expected }),
    }
}

async fn serve(config: Arc<Config>) -> Result<ExitCode, Error> {
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut asked_to_end = async move || {
        tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
    };
    let address = config.address.ok_or(Error::NoPort)?;
    tokio::select! {
        () = sleep(config.boot_delay) => {}
        () = asked_to_end() => return Ok(ExitCode::SUCCESS),
    }
    let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    eprintln!("demo-app {}: listening on {}", config.instance, listener.local_addr()?);
    let crash = async {
        match config.crash_after {
            Some(after) => sleep(after).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = accept(listener, Arc::clone(&config), asked_to_end()) => Ok(ExitCode::SUCCESS),
        () = crash => {
            eprintln!("demo-app: CRASH_AFTER_MS is over");
            // At once, as a crash does: nothing in flight is answered.
            std::process::exit(101);
        }
    }
}

/// Accepts until it is asked to end, then answers what is in flight.
async fn accept(listener: TcpListener, config: Arc<Config>, end: impl Future<Output = ()>) {
    let started = Instant::now();
    let (ending, ended) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut end = std::pin::pin!(end.fuse());
    loop {
        let stream = tokio::select! {
            () = &mut end => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // Too many open files: others end soon, and a busy loop would help nobody.
                Err(_) => { sleep(Duration::from_millis(50)).await; continue }
            },
        };
        let _ = stream.set_nodelay(true);
        connections.spawn(connection(TokioIo::new(stream), Arc::clone(&config), started, ended.clone()));
    }
    drop(listener);
    // Every connection that is left ends after its request.
    let _ = ending.send(true);
    while connections.join_next().await.is_some() {}
    eprintln!("demo-app {}: ended as asked", config.instance);
}

async fn connection(
    stream: TokioIo<tokio::net::TcpStream>,
    config: Arc<Config>,
    started: Instant,
    mut ended: watch::Receiver<bool>,
) {
    let service = service_fn(move |request| answer(request, Arc::clone(&config), started));
    let builder = http1::Builder::new().timer(TokioTimer::new()).clone();
    let mut connection = std::pin::pin!(builder.serve_connection(stream, service).with_upgrades());
    tokio::select! {
        _ = connection.as_mut() => {}
        // Only whether, since a guard may not be held over what follows.
        _ = async { ended.wait_for(|ended| *ended).await.is_ok() } => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

type Answer = Response<Either<Full<Bytes>, Incoming>>;

async fn answer(
    request: Request<Incoming>,
    config: Arc<Config>,
    started: Instant,
) -> Result<Answer, Infallible> {
    let query = query(request.uri().query().unwrap_or_default());
    let answer = match request.uri().path() {
        "/" => text(StatusCode::OK, hello(&config)),
        "/healthz" => health(&config, started),
        "/env" => environment(query.get("name").map(String::as_str)),
        "/slow" => slow(query.get("ms").map(String::as_str)).await,
        "/headers" => text(StatusCode::OK, headers(&request)),
        "/echo" => echo(request),
        "/upgrade" => upgrade(request),
        _ => text(
            StatusCode::NOT_FOUND,
            "nothing here; try / /healthz /env?name= /slow?ms= /echo /upgrade /headers\n".into(),
        ),
    };
    Ok(answer)
}

fn hello(config: &Config) -> String {
    let Config { instance, version, .. } = config;
    format!("hello from {instance}\npid {}\nversion {version}\n", std::process::id())
}

fn health(config: &Config, started: Instant) -> Answer {
    let late = config.unhealthy_after.is_some_and(|after| started.elapsed() >= after);
    match config.fail_health || late {
        false => text(StatusCode::OK, "ok\n".into()),
        true => text(StatusCode::SERVICE_UNAVAILABLE, "unhealthy, as asked\n".into()),
    }
}

fn environment(name: Option<&str>) -> Answer {
    match name.filter(|name| !name.is_empty() && !name.contains(['=', '\0'])).and_then(env::var_os) {
        Some(value) => text(StatusCode::OK, format!("{}\n", value.to_string_lossy())),
        None => text(StatusCode::NOT_FOUND, "not set\n".into()),
    }
}

/// No test needs to wait longer, and none of them shall for ever.
const SLOWEST: u64 = 10 * 60_000;

async fn slow(ms: Option<&str>) -> Answer {
    let Some(ms) = ms.and_then(|ms| ms.parse::<u64>().ok()).filter(|ms| *ms <= SLOWEST) else {
        return text(StatusCode::BAD_REQUEST, format!("write /slow?ms= and 0 to {SLOWEST}\n"));
    };
    sleep(Duration::from_millis(ms)).await;
    text(StatusCode::OK, format!("{ms} ms\n"))
}

fn headers(request: &Request<Incoming>) -> String {
    let line = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
        format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()))
    };
    request.headers().iter().map(line).collect()
}

/// The body goes back as it comes, without being held.
fn echo(request: Request<Incoming>) -> Answer {
    let kind = request.headers().get(header::CONTENT_TYPE).cloned();
    let mut answer = Response::new(Either::Right(request.into_body()));
    if let Some(kind) = kind {
        answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    answer
}

/// Agrees to whatever protocol the client names, and sends back what comes, after a line that says whose end this is.
/// It does not end with the connections that finish their requests: what speaks it decides for itself when to go.
fn upgrade(mut request: Request<Incoming>) -> Answer {
    let Some(protocol) = request.headers().get(header::UPGRADE).cloned() else {
        return text(StatusCode::UPGRADE_REQUIRED, "name a protocol with Upgrade\n".into());
    };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
        let greeting = format!("pid {}\n", std::process::id());
        if to.write_all(greeting.as_bytes()).await.is_ok() {
            let _ = tokio::io::copy(&mut from, &mut to).await;
        }
    });
    let mut answer = text(StatusCode::SWITCHING_PROTOCOLS, String::new());
    answer.headers_mut().insert(header::UPGRADE, protocol);
    answer.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
    answer
}

fn text(status: StatusCode, body: String) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(body.into())));
    *answer.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, plain);
    answer
}

fn query(text: &str) -> BTreeMap<String, String> {
    text.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Config, Error> {
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        Config::read(|name| variables.get(name).map(ToString::to_string))
    }

    #[test]
    fn host_and_port_come_from_the_environment() {
        let config = read(&[("PORT", "8081"), ("HOST", "127.0.0.2")]).unwrap();
        assert_eq!(config.address, Some("127.0.0.2:8081".parse().unwrap()));
        assert_eq!(read(&[("PORT", "1")]).unwrap().address, Some("127.0.0.1:1".parse().unwrap()));
        assert!(read(&[]).unwrap().address.is_none());
    }

    #[test]
    fn a_variable_that_cannot_be_read_is_named() {
        for name in ["PORT", "FAIL_START", "BOOT_DELAY_MS", "CRASH_AFTER_MS", "UNHEALTHY_AFTER_MS"] {
            assert!(read(&[(name, "x")]).unwrap_err().to_string().contains(name));
        }
        assert!(read(&[("PORT", "1"), ("HOST", "localhost")]).unwrap_err().to_string().contains("HOST"));
    }
}
