//! Makes probes. What a result means is decided in `decide::health`.

use std::{collections::BTreeMap, io, path::PathBuf, process::Stdio, time::Duration};

use model::{Millis, spec::Check};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use crate::{
    container::probe::{self as container, Inside},
    process::aside::{self, Streams},
};

/// Where and how the instance is reached.
#[derive(Debug, Clone)]
pub struct Target {
    pub host: String,
    pub port: Option<u16>,
    /// For commands: run in the instance's folder with its env, as its user.
    pub cwd: PathBuf,
    pub env: BTreeMap<String, String>,
    pub user: Option<(u32, u32)>,
    pub inside: Option<Inside>,
}

/// While a process is coming up, a refused connection is tried again within one probe, for as long as this: what
/// listens a millisecond later is ready a millisecond later.
#[derive(Debug, Clone, Copy)]
pub struct Patience(pub Duration);

/// Why a probe brought no success. Each is one sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It was asked, and this is what it said or did not say.
    Unhealthy(String),
    /// It could not be asked, for want of something that is ours (descriptors, ports, memory): no verdict on it.
    NotMade(String),
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Unhealthy(message)
    }
}

impl Failure {
    fn of(error: &io::Error, message: String) -> Self {
        match error.raw_os_error() {
            Some(
                libc::EMFILE
                | libc::ENFILE
                | libc::ENOMEM
                | libc::ENOBUFS
                | libc::EAGAIN
                | libc::EADDRNOTAVAIL,
            ) => Self::NotMade(message),
            _ => Self::Unhealthy(message),
        }
    }
}

/// Bytes of a response that are read in search of its head.
const HEAD: usize = 16 << 10;

/// One probe, within its timeout.
pub async fn probe(
    target: &Target,
    check: &Check,
    command: Vec<String>,
    timeout: Millis,
    patience: Patience,
) -> Result<(), Failure> {
    if let (Check::Exec(_), Some(inside)) = (check, &target.inside) {
        return container::exec(inside, command, timeout.as_duration()).await;
    }
    let made = async {
        match check {
            Check::Tcp => tcp(target, patience).await,
            Check::Http(path) => http(target, path, patience).await,
            Check::Exec(_) => exec(target, &command).await,
            // Its engine makes it and tells.
            Check::Image => Ok(()),
        }
    };
    match tokio::time::timeout(timeout.as_duration(), made).await {
        Ok(result) => result,
        Err(_) => Err(format!("{} did not answer within {timeout}", name(target, check)).into()),
    }
}

fn name(target: &Target, check: &Check) -> String {
    let port = target.port.unwrap_or_default();
    match check {
        Check::Tcp => format!("{}:{port}", target.host),
        Check::Http(path) => format!("http://{}:{port}{path}", target.host),
        Check::Exec(_) => "the health command".into(),
        Check::Image => "the image's own check".into(),
    }
}

/// A connection, and where an engine's proxy takes connections for a container, somebody behind it.
async fn tcp(target: &Target, patience: Patience) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        let mut stream = connect(target, patience).await?;
        let Some(port) = target.inside.as_ref().and_then(|inside| inside.port) else { return Ok(()) };
        let told = target
            .inside
            .as_ref()
            .and_then(|inside| inside.pid)
            .and_then(|pid| container::listens(pid, port));
        let answered = match told {
            Some(listens) => listens,
            // The proxy closes what nobody takes.
            None => tokio::time::timeout(container::LINGER, stream.read_u8()).await.is_err(),
        };
        if answered {
            return Ok(());
        }
        if began.elapsed() >= patience.0 {
            return Err(format!("nothing listens on port {port} in the container").into());
        }
        tokio::time::sleep(pause(began)).await;
    }
}

/// Ever slower, so that a thousand slow starters do not keep the machine busy.
fn pause(began: Instant) -> Duration {
    (began.elapsed() / 8).clamp(Duration::from_millis(1), Duration::from_millis(20))
}

async fn connect(target: &Target, patience: Patience) -> Result<TcpStream, Failure> {
    let port = target.port.ok_or_else(|| Failure::Unhealthy("it has no port to probe".into()))?;
    let began = Instant::now();
    loop {
        match TcpStream::connect((target.host.as_str(), port)).await {
            Ok(stream) => return Ok(stream),
            Err(error)
                if error.kind() == io::ErrorKind::ConnectionRefused && began.elapsed() < patience.0 =>
            {
                tokio::time::sleep(pause(began)).await;
            }
            Err(error) => {
                return Err(Failure::of(&error, format!("{}:{port}: {}", target.host, plain(&error))));
            }
        }
    }
}

fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset => "connection reset".into(),
        _ => error.to_string(),
    }
}

async fn http(target: &Target, path: &str, patience: Patience) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        match ask(target, path, patience).await {
            // An engine's proxy takes the connection of a container in which nobody listens yet, and closes it.
            Err(Asked::Closed(_)) if target.inside.is_some() && began.elapsed() < patience.0 => {
                tokio::time::sleep(pause(began)).await;
            }
            Ok(()) => return Ok(()),
            Err(Asked::Closed(message)) => return Err(message.into()),
            Err(Asked::Failed(failure)) => return Err(failure),
        }
    }
}

/// Why a request was no success.
enum Asked {
    /// No answer came.
    Closed(String),
    Failed(Failure),
}

async fn ask(target: &Target, path: &str, patience: Patience) -> Result<(), Asked> {
    let mut stream = connect(target, patience).await.map_err(Asked::Failed)?;
    let url = name(target, &Check::Http(path.into()));
    let status = async {
        let host = format!("{}:{}", target.host, target.port.unwrap_or_default());
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: setpoint-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        read_status(&mut stream).await
    };
    match status.await {
        Ok(200..=399) => Ok(()),
        Ok(status) => Err(Asked::Failed(format!("{url} answered with status {status}").into())),
        Err(error) => Err(Asked::Closed(format!("{url}: {}", plain(&error)))),
    }
}

/// Reads the head of the response, so that the server can finish writing it.
async fn read_status(stream: &mut TcpStream) -> io::Result<u16> {
    let mut head = Vec::with_capacity(512);
    loop {
        let read = stream.read_buf(&mut head).await?;
        let whole = head.windows(4).any(|w| w == b"\r\n\r\n");
        if read == 0 || whole || head.len() >= HEAD {
            return status_of(&head).ok_or_else(|| io::Error::other("no HTTP response"));
        }
    }
}

fn status_of(head: &[u8]) -> Option<u16> {
    let line = head.split(|b| *b == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let (version, rest) = line.split_once(' ')?;
    let known = version == "HTTP/1.1" || version == "HTTP/1.0";
    let status = rest.get(..3)?.parse().ok()?;
    (known && rest.as_bytes().get(3).is_none_or(|b| *b == b' ')).then_some(status)
}

async fn exec(target: &Target, command: &[String]) -> Result<(), Failure> {
    let streams = Streams { stdin: Stdio::null(), stdout: Stdio::null(), stderr: Stdio::null() };
    // On timeout this future is dropped, and the whole group goes.
    let mut aside = aside::spawn(target, command, streams).map_err(|failure| match failure {
        aside::Failure::Program(message) => Failure::Unhealthy(message),
        aside::Failure::Spawn(error) => {
            Failure::of(&error, format!("the health command cannot be run: {error}"))
        }
    })?;
    match aside.child.wait().await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the health command ended with {status}").into()),
        Err(error) => Err(Failure::of(&error, format!("the health command: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn target(port: u16) -> Target {
        Target {
            host: "127.0.0.1".into(),
            port: Some(port),
            cwd: "/".into(),
            env: BTreeMap::new(),
            user: None,
            inside: None,
        }
    }

    async fn make(target: &Target, check: Check, timeout: u64) -> Result<(), String> {
        let command = match &check {
            Check::Exec(words) => words.iter().map(|w| w.0.clone()).collect(),
            Check::Http(_) | Check::Tcp | Check::Image => vec![],
        };
        let made = probe(target, &check, command, Millis(timeout), Patience(Duration::ZERO)).await;
        made.map_err(|failure| match failure {
            Failure::Unhealthy(message) => message,
            Failure::NotMade(message) => panic!("it was not made: {message}"),
        })
    }

    async fn answering(answer: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer).await;
                if answer.is_empty() {
                    tokio::spawn(async move {
                        std::future::pending::<TcpStream>().await;
                        drop(stream)
                    });
                }
            }
        });
        port
    }

    #[tokio::test]
    async fn http_is_healthy_from_200_to_399() {
        for (answer, ok) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"[..], true),
            (b"HTTP/1.0 204 \r\n\r\n", true),
            (b"HTTP/1.1 399\r\n\r\n", true),
            (b"HTTP/1.1 404 Not Found\r\n\r\n", false),
            (b"HTTP/1.1 500 Oh\r\n\r\n", false),
            (b"SSH-2.0-OpenSSH\r\n\r\n", false),
            (b"HTTP/1.1 2000\r\n\r\n", false),
        ] {
            let port = answering(answer).await;
            let result = make(&target(port), Check::Http("/healthz".into()), 5000).await;
            assert_eq!(result.is_ok(), ok, "{answer:?}: {result:?}");
        }
    }

    #[tokio::test]
    async fn silence_ends_with_the_timeout_and_refusal_is_named() {
        let port = answering(b"").await;
        let silent = make(&target(port), Check::Http("/".into()), 50).await.unwrap_err();
        assert!(silent.contains("within 50ms"), "{silent}");
        assert!(make(&target(port), Check::Tcp, 1000).await.is_ok());
        let refused = make(&target(1), Check::Tcp, 1000).await.unwrap_err();
        assert!(refused.contains("refused"), "{refused}");
    }

    #[tokio::test]
    async fn what_a_command_leaves_behind_ends_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target { cwd: dir.path().into(), ..target(0) };
        let words = ["sh", "-c", "sleep 1000 & echo $! > pid"].map(|word| model::spec::Template(word.into()));
        assert_eq!(make(&target, Check::Exec(words.into()), 5000).await, Ok(()));
        let pid: u32 = std::fs::read_to_string(dir.path().join("pid")).unwrap().trim().parse().unwrap();
        let began = Instant::now();
        while sys::proc::stat(pid).unwrap().is_some_and(|s| !s.zombie) {
            assert!(began.elapsed() < Duration::from_secs(10), "{pid} lives on");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_command_that_takes_too_long_is_killed_with_what_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target { cwd: dir.path().into(), ..target(0) };
        let exec =
            |script: &str| Check::Exec(["sh", "-c", script].map(|w| model::spec::Template(w.into())).into());
        assert!(make(&target, exec("true"), 5000).await.is_ok());
        assert!(make(&target, exec("exit 3"), 5000).await.unwrap_err().contains('3'));
        let slow = exec("sleep 1000 & echo $! > pid; wait");
        while !dir.path().join("pid").exists() {
            make(&target, slow.clone(), 200).await.unwrap_err();
        }
        let pid: u32 = std::fs::read_to_string(dir.path().join("pid")).unwrap().trim().parse().unwrap();
        let began = Instant::now();
        while sys::proc::stat(pid).unwrap().is_some_and(|s| !s.zombie) {
            assert!(began.elapsed() < Duration::from_secs(10));
            tokio::task::yield_now().await;
        }
    }
}
