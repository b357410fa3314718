//! Looking into a container from outside: whether something listens there, and commands run inside for a probe.

use std::{path::Path, sync::Arc, time::Duration};

use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use futures_util::StreamExt;

use super::engine::{Engine, QUESTION};

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

/// Runs a command inside and says whether it ended with 0.
pub async fn exec(engine: &Engine, container: &str, command: Vec<String>) -> Result<(), String> {
    let failed = |error: super::engine::Error| format!("the health command: {error}");
    let client = engine.client().await.map_err(failed)?;
    let options = CreateExecOptions {
        cmd: Some(command),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..CreateExecOptions::<String>::default()
    };
    let made = engine.within(QUESTION, client.create_exec(container, options)).await.map_err(failed)?;
    let started = engine.within(QUESTION, client.start_exec(&made.id, None::<StartExecOptions>)).await;
    if let StartExecResults::Attached { mut output, .. } = started.map_err(failed)? {
        // Its end is the command's end; what it says is not kept.
        while output.next().await.is_some() {}
    }
    let ended = engine.within(QUESTION, client.inspect_exec(&made.id)).await.map_err(failed)?;
    match ended.exit_code {
        Some(0) => Ok(()),
        Some(code) => Err(format!("the health command ended with exit status {code}")),
        None => Err("the health command has not ended".into()),
    }
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
