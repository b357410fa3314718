//! Uploads: an archive streams from the socket through a small buffer into the reader of archives.

use std::io::{self, Read};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use futures_util::StreamExt;
use model::{
    Digest,
    artifact::{Artifact, MAX_ARTIFACT_BYTES},
};
use tokio::sync::mpsc;

use super::{
    Api,
    access::Allowed,
    once::once,
    problem::{Problem, UPLOAD},
    take::{BODY_PAUSE, LISTEN_ON, OfArtifact, announced, idempotency_key, too_slow},
};
use crate::{Terms, views};

/// Pieces of the body between the socket and the reader.
const PIECES: usize = 8;
/// An archive may be larger than its files by its headers and padding.
const MAX_ARCHIVE: u64 = MAX_ARTIFACT_BYTES + (256 << 20);

pub async fn upload(
    State(api): State<Api>,
    Allowed(permit): Allowed,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers)?;
    if announced(&headers).is_some_and(|length| length > MAX_ARCHIVE) {
        return Err(too_large());
    }
    let _place = api.uploads.clone().try_acquire_owned().map_err(|_| busy())?;
    let (pieces, reader) = bridge();
    let (pumped, taken) = tokio::join!(pump(body, pieces), api.control.upload(reader));
    pumped?;
    let (digest, artifact) = taken?;
    // What the body was is known only now. Its content alone is no effect: what nothing names is collected.
    let request = Digest::of_bytes(format!("POST\n/api/v1/artifacts\n{digest}").as_bytes());
    let terms = Terms { if_match: None, idempotency: key.map(|key| (key, request)) };
    let effect = async { Ok((StatusCode::CREATED, shown(digest, &artifact))) };
    once(&api, &permit, &terms, effect).await
}

pub async fn one(
    State(api): State<Api>,
    OfArtifact(digest): OfArtifact,
) -> Result<Json<views::Artifact>, Problem> {
    let stored = api.control.store().artifact(&digest).await?;
    let missing =
        || Problem::not_found("no_such_artifact", format!("artifact {digest} is not stored"), UPLOAD);
    stored.map(|artifact| Json(shown(digest, &artifact))).ok_or_else(missing)
}

fn shown(digest: model::ArtifactDigest, artifact: &Artifact) -> views::Artifact {
    views::Artifact { digest, files: artifact.files.len() as u64, bytes: artifact.total_bytes() }
}

fn too_large() -> Problem {
    let message = format!("an archive may have at most {} MiB", MAX_ARCHIVE >> 20);
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message, "make the site smaller")
}

fn busy() -> Problem {
    Problem::unavailable("too_many_uploads", "too many uploads are under way", "try again when one has ended")
}

/// A piece of the body, or its end. An end that is not told is an interruption: half an archive must not look whole.
enum Piece {
    Bytes(Bytes),
    End,
}

struct Reader {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

fn bridge() -> (mpsc::Sender<Piece>, Reader) {
    let (sender, pieces) = mpsc::channel(PIECES);
    (sender, Reader { pieces, current: Bytes::new(), ended: false })
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.current = bytes,
                Some(Piece::End) => self.ended = true,
                None => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the upload was interrupted"));
                }
            }
        }
        let taken = self.current.split_to(buffer.len().min(self.current.len()));
        buffer[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }
}

/// Passes the body on. Says only what is wrong with the body; what is wrong with the archive says its reader.
async fn pump(body: Body, pieces: mpsc::Sender<Piece>) -> Result<(), Problem> {
    let mut body = body.into_data_stream();
    let (mut total, mut unread) = (0_u64, 0_u64);
    loop {
        let bytes = match tokio::time::timeout(BODY_PAUSE, body.next()).await {
            Err(_) => return Err(too_slow()),
            Ok(Some(Err(_))) => {
                return Err(Problem::bad_request(
                    "interrupted",
                    "the upload ended too early",
                    "upload it again",
                ));
            }
            Ok(Some(Ok(bytes))) => bytes,
            Ok(None) => {
                // A reader that has refused the archive needs no end.
                let _ = pieces.send(Piece::End).await;
                return Ok(());
            }
        };
        total += bytes.len() as u64;
        if total > MAX_ARCHIVE {
            return Err(too_large());
        }
        let length = bytes.len() as u64;
        if pieces.send(Piece::Bytes(bytes)).await.is_err() {
            // The archive is refused; its sender sees the answer once it has sent.
            unread += length;
            if unread > LISTEN_ON {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_that_breaks_off_is_not_an_end() {
        let (pieces, mut reader) = bridge();
        pieces.blocking_send(Piece::Bytes("half".into())).unwrap();
        drop(pieces);
        let mut whole = Vec::new();
        assert_eq!(reader.read_to_end(&mut whole).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
