//! What a container says: its engine keeps it and tells it, the last of it or for as long as somebody listens.

use std::time::Duration;

use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::engine::{Engine, Error, WORK};

/// Between looks whether what ended goes on.
pub const AGAIN: Duration = Duration::from_millis(500);

/// More lines than an engine keeps.
pub const ALL: usize = 1_000_000_000;

/// The last lines of its output, both streams as they came; at most `bytes` of them.
pub async fn last(engine: &Engine, id: &str, lines: usize, bytes: usize) -> Result<Vec<u8>, Error> {
    let client = engine.client().await?;
    let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail(&lines.to_string()).build();
    let read = async {
        let mut stream = Box::pin(client.logs(id, Some(options)));
        let mut out = std::collections::VecDeque::new();
        while let Some(chunk) = stream.next().await {
            out.extend(chunk?.into_bytes());
            let surplus = out.len().saturating_sub(bytes);
            out.drain(..surplus);
        }
        Ok(Vec::from(out))
    };
    engine.within(WORK, read).await
}

/// How far somebody who follows has come: a container that ends and is started again goes on in the same output, and
/// nothing of it is told twice.
#[derive(Debug, Default)]
pub struct Place {
    /// When the newest piece was written, in the engine's words, which sort by time.
    newest: Option<String>,
}

impl Place {
    /// Whole seconds are all that an engine can be asked for.
    fn since(&self) -> Option<i32> {
        let newest: jiff::Timestamp = self.newest.as_ref()?.parse().ok()?;
        i32::try_from(newest.as_second()).ok()
    }
}

/// Passes on what a container writes until it ends; at first the last lines of what it has written.
pub async fn follow(
    engine: &Engine,
    id: &str,
    lines: usize,
    place: &mut Place,
    tell: &mpsc::Sender<Vec<u8>>,
) -> Result<(), Error> {
    let client = engine.client().await?;
    let options = LogsOptionsBuilder::default().stdout(true).stderr(true).follow(true).timestamps(true);
    let options = match place.since() {
        Some(second) => options.since(second).tail("all"),
        None => options.tail(&lines.to_string()),
    };
    let told_before = place.newest.clone();
    let mut stream = Box::pin(client.logs(id, Some(options.build())));
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| engine.error(error))?.into_bytes();
        let (time, text) = stamped(&chunk);
        if let Some(time) = time {
            // Pieces of one line have one time, so only what came with an earlier stream is left out by it.
            if told_before.as_deref().is_some_and(|before| time <= before) {
                continue;
            }
            if place.newest.as_deref().is_none_or(|newest| newest < time) {
                place.newest = Some(time.to_owned());
            }
        }
        if tell.send(text.to_vec()).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// The time that the engine has put before a piece of output, and the piece.
fn stamped(chunk: &[u8]) -> (Option<&str>, &[u8]) {
    let end = chunk.iter().position(|byte| *byte == b' ');
    let time = end.and_then(|end| std::str::from_utf8(&chunk[..end]).ok());
    match (time, end) {
        (Some(time), Some(end)) if time.parse::<jiff::Timestamp>().is_ok() => (Some(time), &chunk[end + 1..]),
        _ => (None, chunk),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_of_output_is_told_apart_from_its_time() {
        let time = "2026-11-27T17:03:45.616123456Z";
        let piece = format!("{time} a line\n");
        assert_eq!(stamped(piece.as_bytes()), (Some(time), &b"a line\n"[..]));
        assert_eq!(stamped(b"no time\n"), (None, &b"no time\n"[..]));
        assert_eq!(stamped(b"\xff\xfe x"), (None, &b"\xff\xfe x"[..]));
        assert_eq!(stamped(format!("{time} ").as_bytes()), (Some(time), &b""[..]));
        assert_eq!(Place { newest: Some(time.into()) }.since(), Some(1_795_799_025));
        assert_eq!(Place::default().since(), None);
    }
}
