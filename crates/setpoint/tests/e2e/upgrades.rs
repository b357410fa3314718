//! Connections that have left HTTP behind, WebSockets above all: through the edge, through a rollout, and to their end.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use testkit::{
    Setpoint,
    fixture::demo,
    proc,
    setpoint::{SOON, pids},
};

use crate::setpoint;

/// One end of an upgraded connection.
struct Tunnel {
    stream: BufReader<TcpStream>,
    /// Who holds the other end.
    pid: u32,
}

impl Tunnel {
    /// A WebSocket's handshake, as a browser makes it. The program at the other end echoes.
    #[track_caller]
    fn open(setpoint: &Setpoint) -> Self {
        let stream = TcpStream::connect(setpoint.edge()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut stream = BufReader::new(stream);
        let request = "GET /upgrade HTTP/1.1\r\nHost: api.localhost\r\nConnection: keep-alive, Upgrade\r\n\
                       Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.get_mut().write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while head.last().is_none_or(|line: &String| !line.trim().is_empty()) {
            let mut line = String::new();
            assert!(stream.read_line(&mut line).unwrap() > 0, "closed after {head:?}");
            head.push(line);
        }
        assert!(head[0].starts_with("HTTP/1.1 101"), "{head:?}");
        let agreed = head.iter().any(|line| line.to_lowercase().trim() == "upgrade: websocket");
        assert!(agreed, "{head:?}");
        let mut greeting = String::new();
        stream.read_line(&mut greeting).unwrap();
        let pid = greeting.trim().strip_prefix("pid ").and_then(|pid| pid.parse().ok()).unwrap();
        Self { stream, pid }
    }

    fn say(&mut self, text: &str) -> io::Result<String> {
        self.stream.get_mut().write_all(text.as_bytes())?;
        let mut bytes = vec![0; text.len()];
        self.stream.read_exact(&mut bytes)?;
        String::from_utf8(bytes).map_err(io::Error::other)
    }

    #[track_caller]
    fn is_open(&mut self) {
        assert_eq!(self.say("\0 still there? \r\n\r\n").unwrap(), "\0 still there? \r\n\r\n");
    }

    /// Waits for the other side to end it, with a FIN or a reset.
    #[track_caller]
    fn wait_for_the_cut(mut self) {
        let mut rest = Vec::new();
        let ended = self.stream.read_to_end(&mut rest);
        let still_open = ended.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        assert!(!still_open && rest.is_empty(), "{ended:?}: {rest:?}");
    }
}

fn version(version: &str, drain: &str) -> String {
    let more = format!("deploy: {{ min_healthy: 200ms, drain: {drain} }}\nstop: {{ grace: 1s }}");
    demo(2, &[("VERSION", version)], &more)
}

fn started(drain: &str) -> Setpoint {
    let setpoint = setpoint().manifest(&version("v1", drain)).start();
    setpoint.wait_until_converged("api");
    setpoint
}

#[test]
fn an_upgraded_connection_lives_until_the_drain_is_over_and_is_then_cut() {
    let setpoint = started("3s");
    let old = pids(&setpoint.service("api"));
    let mut tunnel = Tunnel::open(&setpoint);
    assert!(old.contains(&tunnel.pid));
    setpoint.apply_ok(&version("v2", "3s"), &[]);
    let id = {
        let api = setpoint.wait_for_service("api", "the old instance drains", |api| {
            instance_with(api, tunnel.pid).is_some()
                && setpoint.cli(&["explain", "api"]).stdout.contains("has 1 requests in flight")
        });
        instance_with(&api, tunnel.pid).unwrap()["id"].as_str().unwrap().to_owned()
    };
    tunnel.is_open();
    // New connections go to the new release while the old one is at its last.
    let fresh = Tunnel::open(&setpoint);
    assert!(fresh.pid != tunnel.pid);
    let pid = tunnel.pid;
    tunnel.wait_for_the_cut();
    setpoint.wait_for_event("instance.stopped", &[&id, "drain time was over with 1 requests in flight"]);
    testkit::until("the old process has ended", SOON, || (!proc::is_alive(pid)).then_some(()));
    drop(fresh);
    setpoint.wait_until_converged("api");
    assert_eq!(setpoint.get("api.localhost", "/env?name=VERSION").text().trim(), "v2");
}

fn instance_with(service: &serde_json::Value, pid: u32) -> Option<&serde_json::Value> {
    service["instances"].as_array()?.iter().find(|instance| instance["pid"] == pid)
}

#[test]
fn a_rollout_goes_on_the_moment_the_last_upgraded_connection_is_closed() {
    // A drain that no test waits for: only the count ends it.
    let setpoint = started("10m");
    let mut tunnels = [Tunnel::open(&setpoint), Tunnel::open(&setpoint)];
    setpoint.apply_ok(&version("v2", "10m"), &[]);
    setpoint.wait_for_service("api", "something drains", |_| {
        setpoint.cli(&["explain", "api"]).stdout.contains("requests in flight")
    });
    tunnels.iter_mut().for_each(Tunnel::is_open);
    drop(tunnels);
    setpoint.wait_until_converged("api");
    assert_eq!(setpoint.get("api.localhost", "/env?name=VERSION").text().trim(), "v2");
    let told = setpoint.events();
    let cut = told.iter().filter(|event| event["message"].as_str().unwrap().contains("drain time was over"));
    assert_eq!(cut.count(), 0, "{told:#?}");
}

#[test]
fn an_upgraded_connection_ends_with_the_process_that_held_it() {
    let setpoint = started("5s");
    let tunnel = Tunnel::open(&setpoint);
    let mut other = loop {
        let other = Tunnel::open(&setpoint);
        if other.pid != tunnel.pid {
            break other;
        }
    };
    proc::kill9(tunnel.pid);
    tunnel.wait_for_the_cut();
    other.is_open();
    let other_pid = other.pid;
    setpoint.wait_for_service("api", "it is whole again", |api| {
        api["state"] == "converged" && pids(api).contains(&other_pid)
    });
    other.is_open();
}

#[test]
fn upgraded_connections_through_an_edge_apart_do_not_notice_the_servers_death() {
    let mut setpoint = setpoint().edge_apart().start();
    setpoint.apply_ok(&version("v1", "5s"), &["--wait"]);
    testkit::until("the edge serves it", SOON, || {
        (setpoint.try_get("api.localhost", "/").ok()?.status == 200).then_some(())
    });
    let mut tunnel = Tunnel::open(&setpoint);
    setpoint.kill9();
    tunnel.is_open();
    setpoint.restart();
    setpoint.wait_until_converged("api");
    tunnel.is_open();
    assert!(proc::is_alive(tunnel.pid));
    drop(tunnel);
    setpoint.ok(&["delete", "api", "--wait"]);
}
