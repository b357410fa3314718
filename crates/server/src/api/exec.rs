//! A command inside an instance, over a WebSocket whose messages `frames` describes. Audited before it runs.
//!
//! Refuses to know: where and how the command runs; that is the node's.

use std::time::Duration;

use axum::{
    extract::{
        State,
        ws::{Message, WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    http::StatusCode,
    response::Response,
};
use decide::access::Permit;
use model::{InstanceId, session::Exec, spec::Kind};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    Api, access::Allowed, explain::no_such_instance, problem::Problem, serve::Stopping, take::OfInstance,
};
use crate::{
    frames::{self, Said},
    views::ExecEnded,
};

/// For the first message, which says what to run.
const ASKED_WITHIN: Duration = Duration::from_secs(10);
/// A client that is gone does not say so: it is asked this often, and has to answer within twice the time.
const ASK_EVERY: Duration = Duration::from_secs(20);
/// Messages under way in each direction.
const QUEUE: usize = 16;
const MAX_WORDS: usize = 1024;
const SAY: &str = "send {\"command\": [\"PROGRAM\", \"ARGUMENT\"]} as the first message";

pub async fn exec(
    State(api): State<Api>,
    Allowed(permit): Allowed,
    OfInstance(id): OfInstance,
    stopping: Stopping,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let world = api.control.with_brain(|brain| brain.world(&id.service).cloned());
    let placed = world.filter(|world| world.plan.placements.contains_key(&id));
    let world = placed.ok_or_else(|| no_such_instance(&id))?;
    let upgrade = upgrade.map_err(|_| {
        Problem::new(
            StatusCode::UPGRADE_REQUIRED,
            "needs_websocket",
            "a command is run over a WebSocket",
            "use `setpoint exec`, or any client of WebSockets",
        )
    })?;
    if world.service.known().is_none_or(|service| service.spec.kind() == Kind::Process) {
        api.control.may_run(&permit, &id.service)?;
    }
    let place = api.stream()?;
    let upgrade = upgrade.protocols([frames::PROTOCOL]).max_message_size(frames::MAX_MESSAGE);
    Ok(upgrade.on_upgrade(move |mut socket| async move {
        let _place = place;
        let ended = match session(&api, &permit, &id, &mut socket, &stopping).await {
            Ok(Some(exit)) => ExecEnded { exit: Some(exit), problem: None },
            Ok(None) => return,
            Err(problem) => ExecEnded { exit: None, problem: Some(problem.said()) },
        };
        // Whoever asked may be gone.
        let _ = socket.send(binary(&Said::Ended(ended))).await;
        let _ = socket.send(Message::Close(None)).await;
    }))
}

fn binary(said: &Said) -> Message {
    Message::Binary(frames::said(said).into())
}

/// Gives the exit status; `None` when whoever asked is gone.
async fn session(
    api: &Api,
    permit: &Permit,
    id: &InstanceId,
    socket: &mut WebSocket,
    stopping: &Stopping,
) -> Result<Option<i32>, Problem> {
    let Some(asked) = asked(socket).await? else { return Ok(None) };
    api.control.note_exec(id, &asked, permit).await?;
    let (tell, input) = mpsc::channel(QUEUE);
    let (output, mut said) = mpsc::channel(QUEUE);
    let mut running = api.sessions.exec(id.clone(), asked, input, output);
    let mut place = None;
    let mut ask = tokio::time::interval_at(Instant::now() + ASK_EVERY, ASK_EVERY);
    let mut heard = Instant::now();
    let exit = loop {
        tokio::select! {
            ended = &mut running => break ended?,
            Some(output) = said.recv() => {
                if socket.send(binary(&Said::Output(output))).await.is_err() {
                    return Ok(None);
                }
            }
            // Nothing is read that the command does not take: what comes out of it must not wait for what goes in.
            free = tell.reserve(), if place.is_none() => match free {
                Ok(free) => place = Some(free),
                // It takes no more, and is about to end.
                Err(_) => break running.await?,
            },
            message = socket.recv(), if place.is_some() => {
                heard = Instant::now();
                match message {
                    Some(Ok(Message::Binary(frame))) => {
                        if let (Some(input), Some(free)) = (frames::read_input(&frame), place.take()) {
                            free.send(input);
                        }
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Text(_))) => {}
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(None),
                }
            }
            _ = ask.tick() => {
                let silent = place.is_some() && heard.elapsed() > 2 * ASK_EVERY;
                if silent || socket.send(Message::Ping(Vec::new().into())).await.is_err() {
                    return Ok(None);
                }
            }
            () = stopping.wait() => return Err(Problem::unavailable("ending", "the server ends, and the command with it", "run it again once the server is back")),
        }
    };
    while let Some(output) = said.recv().await {
        if socket.send(binary(&Said::Output(output))).await.is_err() {
            return Ok(None);
        }
    }
    Ok(Some(exit))
}

async fn asked(socket: &mut WebSocket) -> Result<Option<Exec>, Problem> {
    let field = |problem: Problem| problem.field("command");
    let first = timeout(ASKED_WITHIN, socket.recv()).await;
    let asked: Exec = match first {
        Err(_) => {
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "no_command", "no command was sent", SAY));
        }
        Ok(Some(Ok(Message::Text(text)))) => super::take::parse(text.as_bytes())?,
        Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) => return Ok(None),
        Ok(Some(Ok(_))) => {
            return Err(Problem::bad_request(
                "no_command",
                "the first message must be text that says what to run",
                SAY,
            ));
        }
    };
    match asked.command.first() {
        None => Err(field(Problem::unprocessable("no_command", "no command is named", SAY))),
        Some(program) if program.is_empty() => {
            Err(field(Problem::unprocessable("no_command", "the program has no name", SAY)))
        }
        Some(_) if asked.command.len() > MAX_WORDS => {
            let message = format!("a command has at most {MAX_WORDS} words");
            Err(field(Problem::unprocessable(
                "command_too_long",
                message,
                "put it into a script and run that",
            )))
        }
        Some(_) if asked.command.iter().any(|word| word.contains('\0')) => Err(field(
            Problem::unprocessable("bad_command", "no word may hold a NUL character", "leave it out"),
        )),
        Some(_) => Ok(Some(asked)),
    }
}
