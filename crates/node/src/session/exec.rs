//! Runs a command inside an instance, and passes on what goes in and comes out.

use std::{os::unix::process::ExitStatusExt, pin::Pin, process::Stdio};

use bollard::{
    container::LogOutput,
    exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults},
};
use futures_util::StreamExt;
use model::session::{Exec, Input, Output, Size};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};

use super::Error;
use crate::{
    container::{
        engine::{Engine, QUESTION},
        exec::Asked,
        probe::Inside,
    },
    probe::Target,
    process::aside::{self, Streams},
};

/// Read at once.
const CHUNK: usize = 16 << 10;
/// As a shell says it of a program that a signal ended.
const SIGNALLED: i32 = 128;

/// Runs it to its end; gives its exit status. When `input` is closed or `output` is no longer read, the command is
/// killed.
pub async fn run(
    target: Target,
    exec: Exec,
    input: mpsc::Receiver<Input>,
    output: mpsc::Sender<Output>,
) -> Result<i32, Error> {
    match &target.inside {
        Some(inside) => in_container(inside, exec, input, output).await,
        None if exec.tty.is_some() => Err(Error::NoTerminal),
        None => beside_process(&target, exec, input, output).await,
    }
}

async fn beside_process(
    target: &Target,
    exec: Exec,
    input: mpsc::Receiver<Input>,
    output: mpsc::Sender<Output>,
) -> Result<i32, Error> {
    let stdin = if exec.stdin { Stdio::piped() } else { Stdio::null() };
    let streams = Streams { stdin, stdout: Stdio::piped(), stderr: Stdio::piped() };
    let mut aside = aside::spawn(target, &exec.command, streams).map_err(|f| Error::Failed(f.to_string()))?;
    let into = aside.child.stdin.take().map(|pipe| Box::pin(pipe) as Pin<Box<dyn AsyncWrite + Send>>);
    let (out, err) = (aside.child.stdout.take(), aside.child.stderr.take());
    let ended = async {
        tokio::join!(pass(out, Output::Stdout, &output), pass(err, Output::Stderr, &output));
        aside.child.wait().await
    };
    let status = tokio::select! {
        status = ended => status.map_err(|error| Error::Failed(error.to_string()))?,
        () = feed(input, into, None) => return Err(Error::Left),
        () = output.closed() => return Err(Error::Left),
    };
    Ok(status.code().unwrap_or_else(|| SIGNALLED + status.signal().unwrap_or_default()))
}

/// To the end of what is read, or of who listens.
async fn pass(
    from: Option<impl AsyncRead + Unpin>,
    kind: fn(Vec<u8>) -> Output,
    output: &mpsc::Sender<Output>,
) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; CHUNK];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if output.send(kind(buffer[..read].to_vec())).await.is_err() {
            return;
        }
    }
}

/// Passes on what comes, until nobody sends any more. What the command does not read is lost, as with a pipe.
async fn feed(
    mut input: mpsc::Receiver<Input>,
    mut into: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    window: Option<&Window<'_>>,
) {
    while let Some(input) = input.recv().await {
        match (input, &mut into) {
            (Input::Bytes(bytes), Some(pipe)) => {
                if pipe.write_all(&bytes).await.is_err() || pipe.flush().await.is_err() {
                    into = None;
                }
            }
            (Input::End, Some(pipe)) => {
                let _ = pipe.shutdown().await;
                into = None;
            }
            (Input::Resize(size), _) => {
                if let Some(window) = window {
                    window.resize(size).await;
                }
            }
            (Input::Bytes(_) | Input::End, None) => {}
        }
    }
}

/// The terminal of a command in a container.
struct Window<'a> {
    engine: &'a Engine,
    exec: &'a str,
}

impl Window<'_> {
    async fn resize(&self, size: Size) {
        let Ok(client) = self.engine.client().await else { return };
        let size = ResizeExecOptions { width: size.width, height: size.height };
        // A window of a wrong size is no reason to end.
        let _ = self.engine.within(QUESTION, client.resize_exec(self.exec, size)).await;
    }
}

async fn in_container(
    inside: &Inside,
    exec: Exec,
    input: mpsc::Receiver<Input>,
    output: mpsc::Sender<Output>,
) -> Result<i32, Error> {
    let engine = &inside.engine;
    let failed = |error: crate::container::engine::Error| Error::Failed(error.to_string());
    let options = CreateExecOptions {
        cmd: Some(exec.command),
        attach_stdin: Some(exec.stdin),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(exec.tty.is_some()),
        ..CreateExecOptions::<String>::default()
    };
    let mut asked = Asked::create(inside, options).await.map_err(failed)?;
    let start = StartExecOptions { tty: exec.tty.is_some(), ..StartExecOptions::default() };
    let started = asked.start(start).await.map_err(failed)?;
    let StartExecResults::Attached { output: mut said, input: into } = started else {
        return Err(Error::Failed("the engine runs it without us".into()));
    };
    let id = asked.id().to_owned();
    let window = Window { engine, exec: &id };
    if let Some(size) = exec.tty {
        window.resize(size).await;
    }
    let passed = async {
        while let Some(chunk) = said.next().await {
            let chunk = match chunk.map_err(|error| failed(engine.error(error)))? {
                LogOutput::StdErr { message } => Output::Stderr(message.to_vec()),
                LogOutput::StdOut { message }
                | LogOutput::Console { message }
                | LogOutput::StdIn { message } => Output::Stdout(message.to_vec()),
            };
            output.send(chunk).await.map_err(|_| Error::Left)?;
        }
        Ok(())
    };
    let into = exec.stdin.then_some(into);
    let ended = tokio::select! {
        ended = passed => ended,
        () = feed(input, into, Some(&window)) => Err(Error::Left),
        () = output.closed() => Err(Error::Left),
    };
    if let Err(error) = ended {
        // While the connection is open: an engine that cannot pass its output on says that it has ended.
        asked.end().await;
        return Err(error);
    }
    let late = || Error::Failed("the engine does not tell how the command ended".into());
    tokio::select! {
        status = asked.exit_status() => status.map_err(failed)?.ok_or_else(late),
        () = output.closed() => Err(Error::Left),
    }
}
