//! A client's connection as the HTTP parser sees it: only unambiguous bytes, within time.
//!
//! What `scan` refuses is replaced by bytes that no parser takes for a request, so that the answer, 400 or 431
//! and the end of the connection, comes in its place among the answers. Slow heads and bodies, and answers
//! that nobody reads, end here too.

mod decision;
mod scan;
mod stall;

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::config::Limits;
pub use decision::{Decision, Outcome};
use scan::{At, Scan, Scanner, Violation};
use stall::Stall;

/// Held back behind a request to upgrade; whoever sends more has to wait.
const MAX_STASH: usize = 16 * 1024;
/// At the end, what a client still sends is read and thrown away for so long and so much: closing with unread
/// bytes would take the answer back out of the client's hands.
const LINGER: Duration = Duration::from_secs(1);
const MAX_LINGER: usize = 512 * 1024;

#[derive(Debug)]
pub struct Wire {
    inner: TcpStream,
    mode: Mode,
    scanner: Scanner,
    decision: Arc<Decision>,
    /// To be read before anything else.
    ahead: BytesMut,
    /// Behind a request to upgrade.
    stash: BytesMut,
    limits: Arc<Limits>,
    reading: Stall,
    writing: Stall,
    lingered: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Strict,
    /// Upgraded: the bytes are another protocol's.
    Raw,
    /// Nothing more is read.
    Refused,
}

impl Wire {
    pub fn new(inner: TcpStream, limits: Arc<Limits>, decision: Arc<Decision>) -> Self {
        Self {
            inner,
            mode: Mode::Strict,
            scanner: Scanner::new(limits.header_bytes),
            decision,
            ahead: BytesMut::new(),
            stash: BytesMut::new(),
            limits,
            reading: Stall::default(),
            writing: Stall::default(),
            lingered: None,
        }
    }

    fn poll_strict(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let was = self.scanner.at();
        if Pin::new(&mut self.inner).poll_read(cx, buf)?.is_pending() {
            return self.poll_read_stall(cx, was).map(Err);
        }
        let scan = self.scanner.feed(&buf.filled()[before..]);
        // A head has its time as a whole: sending it byte by byte is no progress.
        if was != At::Head || self.scanner.at() != At::Head {
            self.reading.progressed();
        }
        match scan {
            Scan::All => {}
            Scan::Until(n) => {
                self.stash.extend_from_slice(&buf.filled()[before + n..]);
                self.decision.note_surplus();
                buf.set_filled(before + n);
            }
            Scan::Refused(n, violation) => {
                buf.set_filled(before + n);
                self.refuse(violation);
                self.deliver(buf);
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read_stall(&mut self, cx: &mut Context<'_>, at: At) -> Poll<io::Error> {
        let (limit, what) = match at {
            At::Head => (self.limits.header_read, "the headers took too long"),
            At::Body => (self.limits.body_idle, "the body stopped coming"),
            // Idle connections have their time from the HTTP server, which knows whether it is at work.
            At::Idle | At::Undecided => return Poll::Pending,
        };
        self.reading.poll(cx, limit).map(|()| io::Error::new(io::ErrorKind::TimedOut, what))
    }

    fn refuse(&mut self, violation: Violation) {
        tracing::debug!(%violation, "a request is refused");
        self.mode = Mode::Refused;
        self.ahead.extend_from_slice(self.scanner.spoiler(violation));
    }

    fn deliver(&mut self, buf: &mut ReadBuf<'_>) {
        let n = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead[..n]);
        self.ahead.advance(n);
    }

    /// Behind a request to upgrade: waits for its outcome, and notices a client that leaves.
    fn poll_undecided(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Undecided>> {
        if let Poll::Ready(outcome) = self.decision.poll(cx) {
            self.decided(outcome);
            return Poll::Ready(Ok(Undecided::GoOn));
        }
        while self.stash.len() < MAX_STASH {
            let mut chunk = [0; 2048];
            let mut buf = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buf))?;
            if buf.filled().is_empty() {
                return Poll::Ready(Ok(Undecided::ClientLeft));
            }
            self.stash.extend_from_slice(buf.filled());
        }
        Poll::Pending
    }

    fn decided(&mut self, outcome: Outcome) {
        let mut held = std::mem::take(&mut self.stash);
        match outcome {
            Outcome::Upgraded => self.mode = Mode::Raw,
            Outcome::NotUpgraded => {
                self.scanner.not_upgraded();
                match self.scanner.feed(&held) {
                    Scan::All => {}
                    Scan::Until(n) => {
                        self.stash = held.split_off(n);
                        self.decision.note_surplus();
                    }
                    Scan::Refused(n, violation) => {
                        held.truncate(n);
                        self.ahead = held;
                        return self.refuse(violation);
                    }
                }
            }
        }
        self.ahead = held;
    }

    /// Bounds how long an answer may wait for its reader.
    fn bound<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() || self.mode == Mode::Raw {
            self.writing.progressed();
            return written;
        }
        ready!(self.writing.poll(cx, self.limits.body_idle));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")))
    }

    fn has_unread(&self) -> bool {
        match self.mode {
            Mode::Refused => true,
            Mode::Strict => matches!(self.scanner.at(), At::Head | At::Body) || !self.stash.is_empty(),
            Mode::Raw => false,
        }
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut chunk = [0; 8 * 1024];
        loop {
            let lingered = self.lingered.unwrap_or(0);
            let mut buf = ReadBuf::new(&mut chunk);
            match Pin::new(&mut self.inner).poll_read(cx, &mut buf) {
                Poll::Pending => return self.reading.poll(cx, LINGER),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) if buf.filled().is_empty() || lingered > MAX_LINGER => {
                    return Poll::Ready(());
                }
                Poll::Ready(Ok(())) => self.lingered = Some(lingered + buf.filled().len()),
            }
        }
    }
}

enum Undecided {
    GoOn,
    ClientLeft,
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.ahead.is_empty() {
                this.deliver(buf);
                return Poll::Ready(Ok(()));
            }
            match this.mode {
                Mode::Raw => return Pin::new(&mut this.inner).poll_read(cx, buf),
                // The end of the stream.
                Mode::Refused => return Poll::Ready(Ok(())),
                Mode::Strict if this.scanner.at() != At::Undecided => return this.poll_strict(cx, buf),
                Mode::Strict => match ready!(this.poll_undecided(cx))? {
                    Undecided::GoOn => {}
                    Undecided::ClientLeft => return Poll::Ready(Ok(())),
                },
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write(cx, bytes);
        this.bound(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write_vectored(cx, slices);
        this.bound(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingered.is_none() {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
            this.lingered = Some(0);
            this.reading.progressed();
        }
        if this.has_unread() {
            ready!(this.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
