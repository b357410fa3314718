//! A command over a WebSocket, with a node in a box that repeats what it is sent.

use std::{net::TcpStream, time::Duration};

use model::session::{Input, Output};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{
    self, Message, WebSocket, client::IntoClientRequest, http::HeaderValue,
};

use super::bench::{API, Bench, TOKEN};
use crate::{
    frames::{self, Said},
    views::ExecEnded,
};

type Socket = WebSocket<TcpStream>;

fn open(bench: &Bench, token: &str, instance: &str) -> Result<Socket, u16> {
    let mut request =
        format!("ws://localhost/api/v1/instances/{instance}/exec").into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    headers.insert("sec-websocket-protocol", HeaderValue::from_static(frames::PROTOCOL));
    let stream = TcpStream::connect(bench.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    match tungstenite::client(request, stream) {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
            Err(answer.status().as_u16())
        }
        Err(error) => panic!("{error}"),
    }
}

fn ask(socket: &mut Socket, asked: &Value) {
    socket.send(Message::text(asked.to_string())).unwrap();
}

fn next(socket: &mut Socket) -> Said {
    loop {
        if let Message::Binary(frame) = socket.read().unwrap() {
            return frames::read_said(&frame).unwrap();
        }
    }
}

fn ended(socket: &mut Socket) -> ExecEnded {
    match next(socket) {
        Said::Ended(ended) => ended,
        Said::Output(output) => panic!("{output:?}"),
    }
}

fn converged(bench: &Bench) -> String {
    bench.apply(API);
    bench.wait_for_state("default/api", "converged").instances[0].id.to_string()
}

#[test]
fn input_goes_in_output_comes_out_and_the_exit_status_is_last() {
    let bench = Bench::start();
    let instance = converged(&bench);
    let mut socket = open(&bench, TOKEN, &instance).unwrap();
    ask(&mut socket, &json!({ "command": ["repeat", "secret"], "stdin": true }));
    for text in ["one", "two"] {
        socket.send(Message::binary(frames::input(&Input::Bytes(text.into())))).unwrap();
        assert_eq!(next(&mut socket), Said::Output(Output::Stdout(text.into())));
    }
    socket.send(Message::binary(vec![9, 9])).unwrap();
    socket.send(Message::binary(frames::input(&Input::End))).unwrap();
    assert_eq!(ended(&mut socket), ExecEnded { exit: Some(7), problem: None });
    let audit = bench.read("/api/v1/audit?after=0&limit=1000");
    let row = audit["audit"].as_array().unwrap().last().unwrap();
    assert_eq!((&row["action"], &row["subject"]), (&json!("exec"), &json!(instance)));
    assert_eq!(row["detail"], json!({ "program": "repeat", "arguments": 1, "tty": false }));
    assert!(!audit.to_string().contains("secret"));
    assert_eq!(bench.read("/api/v1/audit/verify")["intact"], true);
}

#[test]
fn what_is_asked_wrongly_is_told_as_everywhere() {
    let bench = Bench::start();
    let instance = converged(&bench);
    for (asked, code) in [
        (json!({}), "invalid"),
        (json!({ "command": [] }), "no_command"),
        (json!({ "command": [""] }), "no_command"),
        (json!({ "command": ["a\u{0}b"] }), "bad_command"),
        (json!({ "command": vec!["x"; 2000] }), "command_too_long"),
        (json!({ "command": ["true"], "shell": true }), "invalid"),
        (json!({ "command": "true" }), "invalid"),
    ] {
        let mut socket = open(&bench, TOKEN, &instance).unwrap();
        ask(&mut socket, &asked);
        assert_eq!(ended(&mut socket).problem.unwrap().code, code, "{asked}");
    }
    let mut socket = open(&bench, TOKEN, &instance).unwrap();
    socket.send(Message::binary(vec![0, 1])).unwrap();
    assert_eq!(ended(&mut socket).problem.unwrap().code, "no_command");
    let mut socket = open(&bench, TOKEN, &instance).unwrap();
    ask(&mut socket, &json!({ "command": ["gone"] }));
    assert_eq!(ended(&mut socket).problem.unwrap().code, "not_running");
    let audit = bench.read("/api/v1/audit?after=0&limit=1000").to_string();
    assert_eq!(audit.matches("\"exec\"").count(), 1, "what was refused was not run: {audit}");
    let plain = bench.send(bench.request("GET", &format!("/api/v1/instances/{instance}/exec")));
    assert_eq!((plain.status, plain.json()["code"].clone()), (426, "needs_websocket".into()));
    assert_eq!(open(&bench, TOKEN, "default.api.0.99").err(), Some(404));
}

#[test]
fn beside_a_process_only_who_may_run_code_on_the_machine_runs_a_command() {
    let bench = Bench::start();
    let instance = converged(&bench);
    let token = bench.token(&json!({ "name": "ci", "role": "admin" }));
    assert_eq!(open(&bench, &token, &instance).err(), Some(403));
    assert_eq!(open(&bench, "sp_wrong", &instance).err(), Some(401));
}

#[test]
fn a_server_that_ends_tells_whoever_waits() {
    let mut bench = Bench::start();
    let instance = converged(&bench);
    let mut socket = open(&bench, TOKEN, &instance).unwrap();
    ask(&mut socket, &json!({ "command": ["repeat"], "stdin": true }));
    socket.send(Message::binary(frames::input(&Input::Bytes(b"x".to_vec())))).unwrap();
    next(&mut socket);
    bench.shut_down();
    assert_eq!(ended(&mut socket).problem.unwrap().code, "ending");
}

#[test]
fn stats_are_of_what_runs_and_of_one_service_when_one_is_named() {
    let bench = Bench::start();
    converged(&bench);
    let usage = bench.read("/api/v1/stats");
    assert_eq!(usage["usage"].as_array().unwrap().len(), 2, "{usage}");
    assert_eq!(usage["usage"][0]["cpus"], json!(0.333), "{usage}");
    assert_eq!(bench.read("/api/v1/stats?service=default/api"), usage);
    assert_eq!(bench.send(bench.request("GET", "/api/v1/stats?service=default/no")).status, 404);
    let foreign = bench.token(&json!({ "name": "other", "project": "other" }));
    let seen = bench.send(bench.request_as(&foreign, "GET", "/api/v1/stats")).json();
    assert_eq!(seen["usage"], json!([]), "another project's are not shown");
    let ask = |service: &str| {
        let path = format!("/api/v1/stats?service={service}");
        let answer = bench.send(bench.request_as(&foreign, "GET", &path));
        (answer.status, answer.text().replace(service, "it"))
    };
    assert_eq!(ask("default/api"), ask("default/no"), "and are as if they were not there");
}
