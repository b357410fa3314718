//! Looking into a container from outside: whether something listens there, and commands run inside for a probe.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use futures_util::StreamExt;

use super::{
    engine::{Engine, Error},
    exec::{Asked, Seen},
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

/// Runs a command inside, within `timeout` of its begin, and says whether it ended with 0. An engine that does not answer,
/// or has not begun it by then, is no verdict on the container.
pub async fn exec(inside: &Inside, command: Vec<String>, timeout: Duration) -> Result<(), Failure> {
    let failed = |error: Error| {
        let message = format!("the health command: {error}");
        // An engine that was restarted in between knows nothing of it, and what goes wrong in the engine itself is not the
        // container's fault.
        if error.is_away() || error.is_not_found() || is_engines_own(&error) {
            Failure::NotMade(message)
        } else {
            Failure::Unhealthy(message)
        }
    };
    let options = CreateExecOptions {
        cmd: Some(command),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..CreateExecOptions::<String>::default()
    };
    let mut asked = Asked::create(inside, options).await.map_err(failed)?;
    let asked_at = Instant::now();
    let Ok(started) = tokio::time::timeout(timeout, asked.start(StartExecOptions::default())).await else {
        asked.end().await;
        return verdict(Seen::NotBegun, timeout);
    };
    let mut started = started.map_err(failed)?;
    let mut rest = timeout.saturating_sub(asked_at.elapsed());
    loop {
        if let Ok(status) = tokio::time::timeout(rest, status(&mut started, &mut asked)).await {
            let status = status.map_err(failed)?;
            return verdict(status.map_or(Seen::Untold, |code| Seen::Ended(code.into())), timeout);
        }
        let seen = asked.look().await;
        // The engine's own time to begin it is not the command's.
        if let Seen::Runs(pid) = seen
            && let Some(left) = asked.age(pid).and_then(|age| timeout.checked_sub(age))
            && !left.is_zero()
        {
            rest = left;
            continue;
        }
        // While its output is still taken: an engine that cannot pass it on says that it has ended.
        asked.end().await;
        return verdict(seen, timeout);
    }
}

/// What cannot be run inside is told by the runtime below the engine.
fn is_engines_own(error: &Error) -> bool {
    matches!(error, Error::Refused { status: 500.., message } if !message.contains("exec failed"))
}

/// Once its output has ended; what it says is not kept.
async fn status(started: &mut StartExecResults, asked: &mut Asked) -> Result<Option<i32>, Error> {
    if let StartExecResults::Attached { output, .. } = started {
        while output.next().await.is_some() {}
    }
    asked.exit_status().await
}

fn verdict(seen: Seen, timeout: Duration) -> Result<(), Failure> {
    let within = timeout.as_millis();
    Err(match seen {
        Seen::Ended(0) => return Ok(()),
        Seen::Ended(code) => Failure::Unhealthy(format!("the health command ended with exit status {code}")),
        Seen::Runs(_) => Failure::Unhealthy(format!("the health command did not end within {within} ms")),
        Seen::NotBegun => {
            Failure::NotMade(format!("the engine did not begin the health command within {within} ms"))
        }
        Seen::Gone | Seen::Untold => {
            Failure::NotMade("the engine does not tell how the health command ended".into())
        }
    })
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
