//! A site's content on its way to the server: a folder packed while it is sent, or an archive sent as it is.
//!
//! Packing is synchronous and runs on a thread of its own; a bounded channel holds it to the pace of the network.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use content::Progress;
use hyper::body::{Body, Frame};
use model::{ArtifactDigest, ServiceKey};
use server::views::Artifact;
use tokio::sync::mpsc;

use super::{
    client::{Client, Error},
    progress::{self, Display, Transfer},
    text,
};

const CHUNK: usize = 64 * 1024;
/// Chunks under way between the packer and the network.
const QUEUE: usize = 8;

/// Why an archive could not be made or read to its end.
#[derive(Debug, thiserror::Error)]
pub enum BrokenArchive {
    #[error("{}: {source}", text::line(&.path.display().to_string()))]
    Pack { path: PathBuf, source: content::intake::Error },
    #[error("{} cannot be read: {source}; check the path and who may read it", text::line(&.path.display().to_string()))]
    Read { path: PathBuf, source: io::Error },
}

/// Where the reason is left for whoever sent the archive.
#[derive(Debug, Clone, Default)]
pub struct Broken(Arc<Mutex<Option<BrokenArchive>>>);

impl Broken {
    pub fn take(&self) -> Option<BrokenArchive> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, why: BrokenArchive) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }
}

/// The body of an upload.
#[derive(Debug)]
pub struct Archive {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    broken: Broken,
}

/// Whether this can be sent at all, told before anything is.
pub fn check(path: &Path) -> Result<(), BrokenArchive> {
    open(path).map(drop)
}

fn open(path: &Path) -> Result<(File, bool), BrokenArchive> {
    let unreadable = |source| BrokenArchive::Read { path: path.into(), source };
    let kind = std::fs::metadata(path).map_err(unreadable)?.file_type();
    // Opened only once it is known to be no pipe or device, which could block for ever.
    if !kind.is_dir() && !kind.is_file() {
        return Err(unreadable(io::Error::other("it is neither a folder nor an archive")));
    }
    let file = File::open(path).map_err(unreadable)?;
    Ok((file, kind.is_dir()))
}

impl Archive {
    /// A folder is packed, always to the same bytes; a file is sent as it is.
    pub fn of(path: &Path, progress: Transfer) -> Result<Self, BrokenArchive> {
        let (file, is_folder) = open(path)?;
        let (chunks, receiver) = mpsc::channel(QUEUE);
        let broken = Broken::default();
        let (path, told) = (path.to_owned(), broken.clone());
        tokio::task::spawn_blocking(move || {
            let mut writer = ChunkWriter { chunks, buffer: Vec::with_capacity(CHUNK) };
            let written = if is_folder {
                pack(&path, &mut writer, &progress)
            } else {
                copy(&path, file, &mut writer, &progress)
            };
            if let Err(why) = written {
                told.set(why);
                let _ = writer.chunks.blocking_send(Err(io::Error::other("the archive broke off")));
            }
        });
        Ok(Self { chunks: receiver, broken })
    }

    pub fn broken(&self) -> Broken {
        self.broken.clone()
    }
}

impl Body for Archive {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.chunks.poll_recv(cx).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }
}

fn pack(path: &Path, writer: &mut ChunkWriter, progress: &Transfer) -> Result<(), BrokenArchive> {
    content::pack(path, writer, &mut |done| progress.at(done))
        .map_err(|source| BrokenArchive::Pack { path: path.into(), source })
}

fn copy(
    path: &Path,
    mut file: File,
    writer: &mut ChunkWriter,
    progress: &Transfer,
) -> Result<(), BrokenArchive> {
    let unreadable = |source| BrokenArchive::Read { path: path.into(), source };
    let mut buffer = vec![0; CHUNK];
    let mut done = Progress { files: 1, bytes: 0 };
    loop {
        let n = file.read(&mut buffer).map_err(unreadable)?;
        if n == 0 {
            return writer.flush().map_err(unreadable);
        }
        writer.write_all(&buffer[..n]).map_err(unreadable)?;
        done.bytes += n as u64;
        progress.at(done);
    }
}

/// Collects what is written into chunks for the network.
struct ChunkWriter {
    chunks: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK)).into();
        // Nobody receives any more: the server has answered before the end.
        self.chunks.blocking_send(Ok(chunk)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Unpacks an archive to `<parent>/<name>`, as the server would.
pub fn unpack(path: &Path, parent: &Path, name: &str) -> Result<(), BrokenArchive> {
    let unreadable = |source| BrokenArchive::Read { path: path.into(), source };
    let blobs = content::Blobs::open(&parent.join("blobs")).map_err(io::Error::other).map_err(unreadable)?;
    let (mut file, _) = open(path)?;
    let taken = content::intake::from_archive(&blobs, &mut file, None, &mut |_| {});
    let artifact = taken.map_err(|source| BrokenArchive::Pack { path: path.into(), source })?;
    let placed = content::place::stage(&blobs, &artifact, parent, name, &mut |_| {});
    placed.map_err(io::Error::other).map_err(unreadable)
}

/// What a folder or an archive becomes, without sending it anywhere.
pub fn look(path: &Path) -> Result<model::artifact::Artifact, BrokenArchive> {
    let (mut file, is_folder) = open(path)?;
    let taken = if is_folder {
        content::artifact_of(path)
    } else {
        let unreadable = |source| BrokenArchive::Read { path: path.into(), source };
        let scratch = tempfile::tempdir().map_err(unreadable)?;
        let blobs = content::Blobs::open(scratch.path()).map_err(io::Error::other).map_err(unreadable)?;
        content::intake::from_archive(&blobs, &mut file, None, &mut |_| {})
    };
    taken.map_err(|source| BrokenArchive::Pack { path: path.into(), source })
}

/// The digest of a folder's content that the server has already, so that it need not be sent. Whatever is in the way of
/// that is told by the upload itself.
pub async fn known(
    client: &Client,
    path: &Path,
    display: &Display,
    key: &ServiceKey,
) -> Option<ArtifactDigest> {
    if !path.is_dir() {
        return None;
    }
    let artifact = content::artifact_of(path).ok()?;
    let stored: Artifact = client.view(&format!("/artifacts/{}", artifact.digest())).await.ok()?;
    let sum = progress::sum(Progress { files: stored.files, bytes: stored.bytes });
    display.say(&text::line(&format!("{key}: {}: the server has its {sum} already", path.display())));
    Some(stored.digest)
}

/// Takes a folder or an archive in at the server. When this returns, it is durable there.
pub async fn upload(client: &Client, path: &Path, progress: Transfer) -> Result<Artifact, Error> {
    let archive = Archive::of(path, progress.clone()).map_err(Error::Archive)?;
    let answer = client.upload("/artifacts", archive).await;
    progress.done("sent");
    answer?.view()
}
