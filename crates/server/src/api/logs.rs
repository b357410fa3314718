//! Output of workloads, as plain text that streams: of one instance as it is, of several with their names before
//! each line.
//!
//! Refuses to know: where output is kept. Its bytes are passed on unchanged; who prints them escapes them.

use std::{collections::BTreeSet, convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use decide::world::World;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use model::{InstanceId, ServiceKey, instance::Stage, reason::Change};
use serde::Deserialize;
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    Api,
    problem::Problem,
    serve::Stopping,
    services::standing,
    sessions::LogError,
    take::{Asked, Key},
};

const TAIL: usize = 100;
const MAX_TAIL: usize = 10_000;
/// A line without an end is passed on in pieces of this.
const MAX_LINE: usize = 64 << 10;
/// Instances of which output is shown at once.
const MAX_INSTANCES: usize = 64;
/// Pieces of output waiting for a slow reader.
const WAITING: usize = 64;
/// Between looks whether there are instances that came later.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Recorded passes looked through for instances that are gone.
const LOOKED_THROUGH: u32 = 200;

#[derive(Debug, Deserialize)]
pub struct LogsAsked {
    instance: Option<InstanceId>,
    tail: Option<usize>,
    #[serde(default)]
    follow: bool,
}

pub async fn logs(
    State(api): State<Api>,
    Key(key): Key,
    stopping: Stopping,
    Asked(asked): Asked<LogsAsked>,
) -> Result<Response, Problem> {
    let lines = asked.tail.unwrap_or(TAIL).min(MAX_TAIL);
    let (ids, named) = match asked.instance {
        Some(id) if id.service == key => (vec![id], false),
        Some(id) => {
            let message = format!("{id} is no instance of {key}");
            return Err(Problem::unprocessable(
                "other_service",
                message,
                "`setpoint status SERVICE` lists the instances",
            )
            .field("instance"));
        }
        None => (instances(&api, &key).await?, true),
    };
    let body = match asked.follow {
        true => followed(&api, key, ids, lines, named, stopping).await?,
        false => Body::from(tails(&api, ids, lines, named).await?),
    };
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, text)], body).into_response())
}

/// What is placed, with what the journal has placed lately: the output of what failed is kept longer than the instance.
async fn instances(api: &Api, key: &ServiceKey) -> Result<Vec<InstanceId>, Problem> {
    let world = standing(api, key);
    let lines = api.control.store().journal_of(key, LOOKED_THROUGH, None).await?;
    if lines.is_empty() {
        // Never declared here: say so.
        world.as_ref().map_err(Clone::clone)?;
    }
    let mut ids: BTreeSet<InstanceId> = world.iter().flat_map(|world| placed_now(world)).collect();
    for line in &lines {
        if ids.len() >= MAX_INSTANCES {
            break;
        }
        ids.extend(line.report.place.changed.iter().filter_map(placed));
    }
    let surplus = ids.len().saturating_sub(MAX_INSTANCES);
    Ok(ids.into_iter().skip(surplus).collect())
}

fn placed_now(world: &World) -> impl Iterator<Item = InstanceId> {
    world.plan.placements.values().filter(|p| !matches!(p.stage, Stage::Kept)).map(|p| p.id.clone())
}

fn placed(change: &Change) -> Option<InstanceId> {
    match change {
        Change::Placed { instance, .. } => Some(instance.clone()),
        _ => None,
    }
}

async fn tails(api: &Api, ids: Vec<InstanceId>, lines: usize, named: bool) -> Result<Vec<u8>, Problem> {
    let mut whole = Vec::new();
    for id in ids {
        match api.sessions.tail(id.clone(), lines).await {
            Ok(bytes) if named => {
                let mut prefixed = Lines::of(&id);
                whole.extend(prefixed.take(&bytes));
                whole.extend(prefixed.rest());
            }
            Ok(bytes) => whole.extend(bytes),
            Err(LogError::Unknown(_)) if named => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(whole)
}

async fn followed(
    api: &Api,
    key: ServiceKey,
    ids: Vec<InstanceId>,
    lines: usize,
    named: bool,
    stopping: Stopping,
) -> Result<Body, Problem> {
    let permit = api.stream()?;
    let (tell, told) = mpsc::channel(WAITING);
    // Of more than are shown the older ones are no news.
    let there: BTreeSet<InstanceId> = match named {
        true => standing(api, &key).iter().flat_map(|world| placed_now(world)).collect(),
        false => BTreeSet::new(),
    };
    let known = there.into_iter().filter(|id| !ids.contains(id)).collect();
    let mut followed = Followed { api: api.clone(), tell, known, all: JoinSet::new() };
    for id in ids {
        followed.add(id, lines, named).await?;
    }
    tokio::spawn(async move {
        let _held = permit;
        tokio::select! {
            () = followed.go_on(named.then_some(key)) => {}
            () = stopping.wait() => {}
        }
    });
    let bytes = stream::unfold(told, |mut told| async move { Some((told.recv().await?, told)) });
    Ok(Body::from_stream(bytes.map(Ok::<_, Infallible>)))
}

/// The output of several instances as one, with those that come later.
struct Followed {
    api: Api,
    tell: mpsc::Sender<Bytes>,
    known: BTreeSet<InstanceId>,
    all: JoinSet<()>,
}

impl Followed {
    async fn add(&mut self, id: InstanceId, lines: usize, named: bool) -> Result<(), Problem> {
        if self.all.len() >= MAX_INSTANCES || !self.known.insert(id.clone()) {
            return Ok(());
        }
        match self.api.sessions.follow(id.clone(), lines).await {
            Ok(chunks) => {
                let mut chunks = chunked(chunks, named.then(|| Lines::of(&id)));
                let tell = self.tell.clone();
                self.all.spawn(async move {
                    while let Some(chunk) = chunks.next().await
                        && tell.send(chunk).await.is_ok()
                    {}
                });
                Ok(())
            }
            Err(LogError::Unknown(_)) if named => {
                // Perhaps its node has not heard of it yet.
                self.known.remove(&id);
                Ok(())
            }
            Err(error) => {
                self.known.remove(&id);
                Err(error.into())
            }
        }
    }

    /// One instance until it is gone; a service for as long as it is declared, or whoever listens does.
    async fn go_on(mut self, service: Option<ServiceKey>) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                () = self.tell.closed() => return,
                _ = look.tick() => {}
                Some(_) = self.all.join_next() => {}
            }
            let Some(key) = &service else {
                if self.all.is_empty() {
                    return;
                }
                continue;
            };
            let placed: Vec<InstanceId> = match standing(&self.api, key) {
                Ok(world) => placed_now(&world).collect(),
                Err(_) if self.all.is_empty() => return,
                Err(_) => continue,
            };
            for id in placed {
                // All of what a new one has said.
                if let Err(problem) = self.add(id, MAX_TAIL, true).await {
                    tracing::debug!(?problem, "an instance's output cannot be followed");
                }
            }
        }
    }
}

fn chunked(chunks: mpsc::Receiver<Vec<u8>>, lines: Option<Lines>) -> BoxStream<'static, Bytes> {
    let next = |(mut chunks, mut lines): (mpsc::Receiver<Vec<u8>>, Option<Lines>)| async move {
        let chunk = chunks.recv().await;
        match (chunk, &mut lines) {
            (Some(chunk), None) => Some((Bytes::from(chunk), (chunks, lines))),
            (Some(chunk), Some(prefixed)) => Some((prefixed.take(&chunk).into(), (chunks, lines))),
            (None, Some(prefixed)) => {
                let rest = prefixed.rest();
                (!rest.is_empty()).then(|| (rest.into(), (chunks, None)))
            }
            (None, None) => None,
        }
    };
    stream::unfold((chunks, lines), next).filter(|bytes| std::future::ready(!bytes.is_empty())).boxed()
}

/// Puts the instance's name before each whole line, so that the lines of several can be told apart.
struct Lines {
    prefix: String,
    open: Vec<u8>,
}

impl Lines {
    fn of(id: &InstanceId) -> Self {
        Self { prefix: format!("{id} | "), open: Vec::new() }
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            self.open.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.open.len() >= MAX_LINE {
                out.extend(self.rest());
            }
        }
        out
    }

    fn rest(&mut self) -> Vec<u8> {
        if self.open.is_empty() {
            return Vec::new();
        }
        let mut line = self.prefix.clone().into_bytes();
        line.append(&mut self.open);
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_several_instances_bears_its_name() {
        let mut lines = Lines::of(&"default.api.0.7".parse().unwrap());
        assert_eq!(lines.take(b"one\ntw"), b"default.api.0.7 | one\n");
        assert_eq!(lines.take(b"o\n"), b"default.api.0.7 | two\n");
        assert_eq!(lines.take(b"three"), b"");
        assert_eq!(lines.rest(), b"default.api.0.7 | three\n");
        assert_eq!(lines.rest(), b"");
    }

    #[test]
    fn a_line_without_an_end_is_not_held_back_for_ever() {
        let mut lines = Lines::of(&"default.api.0.7".parse().unwrap());
        assert!(lines.take(&vec![b'x'; 3 * MAX_LINE]).len() > MAX_LINE);
    }
}
