//! Looking into a container from outside: whether something listens there, and commands run inside for a probe.

use std::{path::Path, sync::Arc, time::Duration};

use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use futures_util::StreamExt;

use super::{
    engine::{Engine, Error, QUESTION},
    exec,
};
use crate::probe::Failure;

/// How a container is reached from outside.
#[derive(Debug, Clone)]
pub struct Inside {
    pub engine: Arc<Engine>,
    pub container: String,
    /// Its first process, where that is seen from here.
    pub pid: Option<u32>,
    /// Where it listens inside; `None`: nobody stands between it and us.
    pub port: Option<u16>,
}

/// Whether a container's own process listens on `port`. An engine's proxy accepts connections for a container in which
/// nobody listens yet, so a connection alone says nothing. `None`: it cannot be told from here.
pub fn listens(pid: u32, port: u16) -> Option<bool> {
    let net = Path::new("/proc").join(pid.to_string()).join("net");
    let tables = ["tcp", "tcp6"].map(|table| std::fs::read_to_string(net.join(table)).ok());
    let [v4, v6] = tables;
    if v4.is_none() && v6.is_none() {
        return None;
    }
    Some([v4, v6].into_iter().flatten().any(|table| has_listener(&table, port)))
}

/// A line is `sl local_address rem_address st …`, addresses as hexadecimal `ip:port`, `0A` for listening.
fn has_listener(table: &str, port: u16) -> bool {
    table.lines().skip(1).any(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (local, state) = (words.next(), words.nth(1));
        let at = local.and_then(|local| u16::from_str_radix(local.rsplit(':').next()?, 16).ok());
        at == Some(port) && state == Some("0A")
    })
}

/// Runs a command inside, within `timeout`, and says whether it ended with 0. An engine that does not answer is no verdict
/// on the container.
pub async fn exec(inside: &Inside, command: Vec<String>, timeout: Duration) -> Result<(), Failure> {
    let Inside { engine, container, .. } = inside;
    let mut id = None;
    let message = match tokio::time::timeout(timeout, run(inside, command, &mut id)).await {
        Ok(Ok(Some(0))) => return Ok(()),
        Ok(Ok(Some(code))) => {
            return Err(Failure::Unhealthy(format!("the health command ended with exit status {code}")));
        }
        Ok(Ok(None)) => "the engine does not tell how the health command ended".into(),
        Ok(Err(error)) if error.is_away() => format!("the health command: {error}"),
        Ok(Err(error)) => return Err(Failure::Unhealthy(format!("the health command: {error}"))),
        Err(_) => format!("the health command did not end within {} ms", timeout.as_millis()),
    };
    if engine.ping().await.is_err() {
        return Err(Failure::NotMade(message));
    }
    if let Some(id) = id {
        exec::kill(engine, container, &id).await;
    }
    Err(Failure::Unhealthy(message))
}

/// To its end; its exit status. `id` is the engine's name for it, once it has one.
async fn run(
    Inside { engine, container, .. }: &Inside,
    command: Vec<String>,
    id: &mut Option<String>,
) -> Result<Option<i32>, Error> {
    let client = engine.client().await?;
    let options = CreateExecOptions {
        cmd: Some(command),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..CreateExecOptions::<String>::default()
    };
    let made = engine.within(QUESTION, client.create_exec(container, options)).await?;
    let id = id.insert(made.id);
    let started = engine.within(QUESTION, client.start_exec(id, None::<StartExecOptions>)).await?;
    if let StartExecResults::Attached { mut output, .. } = started {
        // Its end is the command's end; what it says is not kept.
        while output.next().await.is_some() {}
    }
    exec::exit_status(engine, id).await
}

/// How long a connection through an engine's proxy must stay open before it counts, where nothing better can be had.
pub const LINGER: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_listening_socket_on_that_port_counts() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let own = std::process::id();
        assert_eq!(listens(own, port), Some(true));
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let connected = client.local_addr().unwrap().port();
        assert_eq!(listens(own, connected), Some(false), "a connection is no listener");
        drop(listener);
        assert_eq!(listens(own, port), Some(false));
        assert_eq!(listens(u32::MAX, port), None);
    }
}
