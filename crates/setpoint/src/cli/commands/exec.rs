//! `exec`: a command inside an instance, with this terminal or pipe at its ends.

use std::io::{IsTerminal, Write};

use futures_util::{Sink, SinkExt, StreamExt};
use model::{
    InstanceId, ServiceKey,
    session::{self, Input, Output},
};
use server::{
    frames::{self, Said},
    views::{self, ExecEnded},
};
use tokio::{
    io::AsyncReadExt,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_tungstenite::tungstenite::{self, Message};

use super::Error;
use crate::cli::{
    args::Exec,
    client::{self, Client},
    output, terminal, text,
};

/// Read from the input at once.
const CHUNK: usize = 16 << 10;
/// An exit status that has no byte.
const OUT_OF_RANGE: u8 = 255;

pub async fn exec(args: &Exec) -> Result<u8, Error> {
    let client = args.connection.client()?;
    if args.tty && !terminal::is_there() {
        return Err(Error::Said("this is no terminal: leave -t out".into()));
    }
    let instance = find(&client, &args.target).await?;
    let tty = if args.tty { terminal::size() } else { None };
    let asked = session::Exec { command: args.command.clone(), stdin: args.stdin, tty };
    let asked = serde_json::to_string(&asked).map_err(|error| Error::Said(error.to_string()))?;
    let socket = client.socket(&format!("/instances/{instance}/exec"), frames::PROTOCOL).await?;
    let (mut send, mut receive) = socket.split();
    let lost = |why: &dyn std::fmt::Display| {
        Error::from(client::Error::Lost { url: client.url().into(), why: why.to_string() })
    };
    send.send(Message::text(asked)).await.map_err(|error| lost(&error))?;
    let raw = if args.tty { terminal::Raw::begin().ok() } else { None };
    let inputs = inputs(args.stdin, args.tty);
    let mut streams = Streams::new(args.tty);
    let ended = async {
        while let Some(message) = receive.next().await {
            let frame = match message.map_err(|error| lost(&error))? {
                Message::Binary(frame) => frame,
                Message::Close(_) => break,
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            match frames::read_said(&frame) {
                Some(Said::Output(output)) => streams.show(&output)?,
                Some(Said::Ended(ended)) => {
                    streams.end()?;
                    return Ok(ended);
                }
                None => {}
            }
        }
        Err(lost(&"it ended before the command did"))
    };
    let ended = tokio::select! {
        ended = ended => ended,
        error = feed(inputs, send) => Err(lost(&error)),
    };
    drop(raw);
    status(ended?)
}

fn status(ended: ExecEnded) -> Result<u8, Error> {
    match (ended.exit, ended.problem) {
        (Some(exit), _) => Ok(u8::try_from(exit).unwrap_or(OUT_OF_RANGE)),
        (None, Some(problem)) => Err(client::Error::Refused(Box::new(problem)).into()),
        (None, None) => Err(Error::Said("how the command ended is not known".into())),
    }
}

async fn find(client: &Client, target: &str) -> Result<InstanceId, Error> {
    if let Ok(instance) = target.parse() {
        return Ok(instance);
    }
    let service: ServiceKey = target.parse().map_err(|_| {
        Error::Said(format!("`{}` is no name of a service or an instance", text::line(target)))
    })?;
    let services: views::Services = client.view(&format!("/services/{service}")).await?;
    let instances: Vec<_> = services.services.iter().flat_map(|service| &service.instances).collect();
    chosen(&instances).ok_or_else(|| {
        Error::Said(format!("nothing of {service} runs: `setpoint status {service}` says why"))
    })
}

/// The first that serves; else the first that at least runs.
fn chosen(instances: &[&views::Instance]) -> Option<InstanceId> {
    let ready = instances.iter().find(|instance| instance.ready);
    let running = || instances.iter().find(|instance| instance.pid.is_some() || instance.state == "running");
    ready.or_else(running).map(|instance| instance.id.clone())
}

/// What is typed or piped in, and each change of the window; nothing more of it when its end has been told.
fn inputs(stdin: bool, tty: bool) -> mpsc::Receiver<Input> {
    let (tell, inputs) = mpsc::channel(16);
    if tty && let Ok(mut changed) = signal(SignalKind::window_change()) {
        let tell = tell.clone();
        tokio::spawn(async move {
            while changed.recv().await.is_some() {
                if let Some(size) = terminal::size()
                    && tell.send(Input::Resize(size)).await.is_err()
                {
                    return;
                }
            }
        });
    }
    if stdin {
        tokio::spawn(async move {
            let (mut stdin, mut buffer) = (tokio::io::stdin(), vec![0; CHUNK]);
            while let Ok(read @ 1..) = stdin.read(&mut buffer).await {
                if tell.send(Input::Bytes(buffer[..read].to_vec())).await.is_err() {
                    return;
                }
            }
            let _ = tell.send(Input::End).await;
        });
    }
    inputs
}

/// Ends only when nothing can be sent.
async fn feed(
    mut inputs: mpsc::Receiver<Input>,
    mut send: impl Sink<Message, Error = tungstenite::Error> + Unpin,
) -> tungstenite::Error {
    while let Some(input) = inputs.recv().await {
        if let Err(error) = send.send(Message::binary(frames::input(&input))).await {
            return error;
        }
    }
    std::future::pending().await
}

/// Where the command's output goes. Into files and pipes, and with a terminal of its own, it goes as it is; shown on a
/// terminal that is not the command's, it is escaped.
struct Streams {
    out: Stream,
    err: Stream,
}

struct Stream {
    escaped: bool,
    /// The begin of a character whose rest has not come.
    held: Vec<u8>,
}

impl Streams {
    fn new(tty: bool) -> Self {
        let stream = |is_terminal: bool| Stream { escaped: is_terminal && !tty, held: Vec::new() };
        Self { out: stream(std::io::stdout().is_terminal()), err: stream(std::io::stderr().is_terminal()) }
    }

    fn show(&mut self, output: &Output) -> Result<(), output::Error> {
        match output {
            Output::Stdout(bytes) => write(std::io::stdout().lock(), &self.out.take(bytes)),
            Output::Stderr(bytes) => write(std::io::stderr().lock(), &self.err.take(bytes)),
        }
    }

    fn end(&mut self) -> Result<(), output::Error> {
        write(std::io::stdout().lock(), &self.out.rest())?;
        write(std::io::stderr().lock(), &self.err.rest())
    }
}

fn write(mut to: impl Write, bytes: &[u8]) -> Result<(), output::Error> {
    to.write_all(bytes)?;
    Ok(to.flush()?)
}

impl Stream {
    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        if !self.escaped {
            return bytes.to_vec();
        }
        self.held.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.held) {
            // Cut off in the middle of a character.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Ok(_) | Err(_) => self.held.len(),
        };
        let rest = self.held.split_off(whole);
        escaped(&std::mem::replace(&mut self.held, rest))
    }

    fn rest(&mut self) -> Vec<u8> {
        escaped(&std::mem::take(&mut self.held))
    }
}

fn escaped(bytes: &[u8]) -> Vec<u8> {
    let lines: Vec<_> = bytes.split(|byte| *byte == b'\n').map(text::log_line).collect();
    lines.join("\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: &str, ready: bool, pid: Option<u32>) -> views::Instance {
        serde_json::from_value(serde_json::json!({
            "id": id, "ordinal": 0, "node": "n1", "state": "starting", "ready": ready, "pid": pid,
            "address": null, "deployment": null, "restarts": 0,
            "release": format!("sha256:{}", "0".repeat(64)),
        }))
        .unwrap()
    }

    #[test]
    fn a_ready_instance_is_taken_before_one_that_merely_runs() {
        let gone = instance("default.api.0.1", false, None);
        let runs = instance("default.api.1.2", false, Some(7));
        let ready = instance("default.api.2.3", true, Some(8));
        assert_eq!(chosen(&[&gone, &runs, &ready]), Some(ready.id.clone()));
        assert_eq!(chosen(&[&gone, &runs]), Some(runs.id.clone()));
        assert_eq!(chosen(&[&gone]), None);
    }

    #[test]
    fn what_is_shown_on_a_terminal_is_escaped_and_no_character_is_torn() {
        let mut stream = Stream { escaped: true, held: Vec::new() };
        let bytes = "a\x1b[2Jß\n".as_bytes();
        let mut shown = Vec::new();
        for byte in bytes {
            shown.extend(stream.take(&[*byte]));
        }
        shown.extend(stream.take(b"\xc3"));
        shown.extend(stream.rest());
        assert_eq!(String::from_utf8(shown).unwrap(), "a\\x1b[2Jß\n\\xc3");
        let mut raw = Stream { escaped: false, held: Vec::new() };
        assert_eq!(raw.take(b"\x1b\xff"), b"\x1b\xff");
    }

    #[test]
    fn the_exit_status_is_the_commands() {
        let ended = |exit| status(ExecEnded { exit: Some(exit), problem: None }).unwrap();
        assert_eq!((ended(0), ended(7), ended(137), ended(-1), ended(300)), (0, 7, 137, 255, 255));
        assert!(status(ExecEnded { exit: None, problem: None }).is_err());
    }
}
