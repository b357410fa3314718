//! A backup as one answer: made piece by piece while it is read, so that it needs no room here beside the copy of the
//! database.

use std::io::{self, Write};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde_json::json;
use store::AuditEntry;
use tokio::sync::mpsc;

use super::{Api, access::Allowed, problem::Problem, requests::Nothing, take::Write as Asked};
use crate::backup::BackupError;

const PIECE: usize = 256 << 10;
/// Pieces between the writer and the socket.
const PIECES: usize = 8;

pub async fn backup(
    State(api): State<Api>,
    Allowed(permit): Allowed,
    Asked(Nothing {}, _): Asked<Nothing>,
) -> Result<Response, Problem> {
    let busy = |_| {
        Problem::unavailable(
            "too_many_backups",
            "too many transfers are under way",
            "try again when one has ended",
        )
    };
    let place = api.uploads.clone().try_acquire_owned().map_err(busy)?;
    let backup = api.control.backup().await?;
    let (about, total) = (backup.about().clone(), backup.total());
    // Whoever has it has every secret of the cluster: who took one is on record before the first byte.
    let entry = AuditEntry {
        actor: permit.actor().into(),
        action: "backup".into(),
        subject: about.cluster.to_string(),
        detail: json!({ "files": total.files, "bytes": total.bytes }),
    };
    api.control.record(vec![entry], Vec::new()).await?;
    let (pieces, receiver) = mpsc::channel(PIECES);
    tokio::task::spawn_blocking(move || {
        let _place = place;
        let mut writer = Pieces { pieces, buffer: Vec::with_capacity(PIECE) };
        if let Err(error) = backup.write(&mut writer, &mut |_| {}) {
            tracing::warn!(%error, "a backup ended early; its reader is told");
        }
    });
    let body = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (Ok::<Bytes, io::Error>(piece), receiver))
    });
    Ok(([(header::CONTENT_TYPE, "application/zstd")], Body::from_stream(body)).into_response())
}

impl From<BackupError> for Problem {
    fn from(error: BackupError) -> Self {
        let message = error.to_string();
        match error {
            BackupError::Store(error) => error.into(),
            BackupError::Copy(_) => Self::unavailable(
                "copy_unreadable",
                message,
                "try again; if it stays, look at the disk of the data folder",
            ),
            BackupError::Io { .. } => {
                let help = "free space in the data folder and check whose it is, then try again";
                Self::new(axum::http::StatusCode::INSUFFICIENT_STORAGE, "storage", message, help)
            }
        }
    }
}

/// Collects what is written into pieces for the socket.
struct Pieces {
    pieces: mpsc::Sender<Bytes>,
    buffer: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE)).into();
        // The reader has gone away.
        self.pieces.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
