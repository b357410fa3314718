//! Sends a file: what the page cache holds is read on the spot, the rest on threads that may wait for a disk.
//! (sendfile will take this place for large files.)

use std::{
    io::{self, IoSliceMut},
    os::fd::OwnedFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::Frame;
use rustix::io::{ReadWriteFlags, pread, preadv2};
use tokio::task::JoinHandle;

use crate::{
    body::{BoxError, ResponseBody},
    flight::Ticket,
};

/// Read and handed on at once; also up to here a file is one piece.
const CHUNK: u64 = 64 * 1024;

pub fn body(file: Arc<OwnedFd>, first: u64, length: u64, ticket: Ticket) -> ResponseBody {
    if length <= CHUNK
        && let Ok(bytes) = read_now(&file, first, length)
        && bytes.len() as u64 == length
    {
        return ResponseBody::Whole(Some(bytes), Some(ticket));
    }
    ResponseBody::File(FileBody { file, at: first, left: length, reading: None, _ticket: ticket })
}

/// The rest of a file on its way to a client.
#[derive(Debug)]
pub struct FileBody {
    file: Arc<OwnedFd>,
    at: u64,
    left: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    _ticket: Ticket,
}

impl FileBody {
    pub fn left(&self) -> u64 {
        self.left
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let read = ready!(self.poll_read(cx));
        Poll::Ready(Some(read.and_then(|bytes| self.pass(bytes)).map_err(Into::into)))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let (at, want) = (self.at, self.left.min(CHUNK));
        if self.reading.is_none() {
            match read_now(&self.file, at, want) {
                // Not in the cache, or a file system that cannot say so.
                Err(_) => {
                    let file = self.file.clone();
                    self.reading = Some(tokio::task::spawn_blocking(move || read_waiting(&file, at, want)));
                }
                Ok(bytes) => return Poll::Ready(Ok(bytes)),
            }
        }
        let Some(reading) = self.reading.as_mut() else {
            return Poll::Ready(Err(io::ErrorKind::Other.into()));
        };
        let read = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        Poll::Ready(read.map_err(io::Error::other).flatten())
    }

    /// A file that became shorter than announced cannot be completed: the connection ends.
    fn pass(&mut self, bytes: Bytes) -> io::Result<Frame<Bytes>> {
        let n = bytes.len() as u64;
        if n == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file became shorter while it was sent",
            ));
        }
        self.at += n;
        self.left = self.left.saturating_sub(n);
        Ok(Frame::data(bytes))
    }
}

fn buffer(length: u64) -> Vec<u8> {
    vec![0; usize::try_from(length.min(CHUNK)).unwrap_or(0)]
}

/// Only what needs no waiting.
fn read_now(file: &OwnedFd, at: u64, length: u64) -> io::Result<Bytes> {
    let mut bytes = buffer(length);
    if bytes.is_empty() {
        return Ok(Bytes::new());
    }
    let n = preadv2(file, &mut [IoSliceMut::new(&mut bytes)], at, ReadWriteFlags::NOWAIT)?;
    bytes.truncate(n);
    Ok(bytes.into())
}

fn read_waiting(file: &OwnedFd, at: u64, length: u64) -> io::Result<Bytes> {
    let mut bytes = buffer(length);
    let n = pread(file, &mut bytes[..], at)?;
    bytes.truncate(n);
    Ok(bytes.into())
}
