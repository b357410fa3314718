//! Bodies as they pass through, frame by frame, never gathered. A body holds what must live as long as it
//! does: the request's ticket, and the upstream connection that returns to its pool at the end.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::{
    config::Limits,
    files::FileBody,
    flight::Ticket,
    pool::{Connection, Target},
    stats::ServiceStats,
};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What is answered to a client.
#[derive(Debug)]
pub enum ResponseBody {
    Empty,
    /// Made by the edge, or a small file with the ticket that ends with it.
    Whole(Option<Bytes>, #[expect(dead_code, reason = "held until the body is sent")] Option<Ticket>),
    File(FileBody),
    Upstream(Box<Relayed>),
}

impl ResponseBody {
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Some(bytes.into()), None)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes, _) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::File(file) => file.poll(cx),
            Self::Upstream(relayed) => relayed.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes, _) => bytes.is_none(),
            Self::File(file) => file.left() == 0,
            Self::Upstream(relayed) => relayed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes, _) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::File(file) => SizeHint::with_exact(file.left()),
            Self::Upstream(relayed) => relayed.body.size_hint(),
        }
    }
}

/// An upstream's answer on its way to the client.
pub struct Relayed {
    pub body: Incoming,
    /// Gone as soon as it was given back.
    pub lease: Option<Lease>,
    pub stats: Arc<ServiceStats>,
}

impl fmt::Debug for Relayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relayed").finish_non_exhaustive()
    }
}

/// An upstream connection in use, and the request's ticket.
#[derive(Debug)]
pub struct Lease {
    pub connection: Connection,
    pub target: Arc<Target>,
    pub limits: Arc<Limits>,
    pub ticket: Ticket,
}

impl Lease {
    /// The exchange is over: the connection may serve the next one.
    fn give_back(self) {
        let Self { mut connection, target, limits, ticket } = self;
        drop(ticket);
        if connection.is_ready() {
            target.put(connection, &limits);
        } else if !connection.is_closed() {
            // Its driver has yet to notice that the exchange is over.
            tokio::spawn(async move {
                if connection.ready().await.is_ok() {
                    target.put(connection, &limits);
                }
            });
        }
    }
}

impl Relayed {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.stats.bytes_out.fetch_add(bytes, Relaxed);
            }
            Poll::Ready(Some(Err(_))) => self.lease = None,
            Poll::Ready(None) => self.finish(),
            Poll::Pending => {}
        }
        polled.map(|frame| frame.map(|result| result.map_err(Into::into)))
    }

    fn finish(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        // A body whose length was announced is dropped at its last byte without being asked for more. One
        // dropped earlier takes its connection with it: the rest of the answer is still to come on it.
        if self.body.is_end_stream() {
            self.finish();
        }
    }
}

/// A client's body on its way to an upstream. Shared with the request's task, which takes it back for another
/// attempt as long as nothing of it was sent.
#[derive(Debug)]
pub enum RequestBody {
    Empty,
    Stream(Arc<Upload>),
}

#[derive(Debug)]
pub struct Upload {
    inner: Mutex<Uploading>,
    limit: u64,
    stats: Arc<ServiceStats>,
}

#[derive(Debug)]
struct Uploading {
    body: Option<Incoming>,
    passed: u64,
    fault: Option<UploadFault>,
}

/// Why a client's body did not reach the upstream; the client's fault, not the upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UploadFault {
    #[error("the request's body is larger than is allowed")]
    TooLarge,
    #[error("the request's body ended early or is malformed")]
    Broken,
    #[error("the request's body was taken back for another attempt")]
    TakenBack,
}

impl Upload {
    pub fn new(body: Incoming, limit: Option<u64>, stats: Arc<ServiceStats>) -> Self {
        let inner = Uploading { body: Some(body), passed: 0, fault: None };
        Self { inner: Mutex::new(inner), limit: limit.unwrap_or(u64::MAX), stats }
    }

    fn lock(&self) -> MutexGuard<'_, Uploading> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body, if an upstream has seen nothing of it.
    pub fn take_back(&self) -> Option<Incoming> {
        let mut inner = self.lock();
        if inner.passed > 0 || inner.fault.is_some() {
            return None;
        }
        inner.fault = Some(UploadFault::TakenBack);
        inner.body.take()
    }

    /// How much an upstream has taken so far.
    pub fn passed(&self) -> u64 {
        self.lock().passed
    }

    pub fn fault(&self) -> Option<UploadFault> {
        self.lock().fault
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut inner = self.lock();
        let Some(body) = inner.body.as_mut() else {
            return Poll::Ready(Some(Err(inner.fault.unwrap_or(UploadFault::Broken).into())));
        };
        let polled = Pin::new(body).poll_frame(cx);
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(self.pass(&mut inner, frame))),
            Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(inner.fail(UploadFault::Broken)))),
        }
    }

    fn pass(&self, inner: &mut Uploading, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BoxError> {
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        // Trailers count as one byte: after them nothing can be taken back.
        inner.passed = inner.passed.saturating_add(bytes.max(1));
        self.stats.bytes_in.fetch_add(bytes, Relaxed);
        if inner.passed > self.limit { Err(inner.fail(UploadFault::TooLarge)) } else { Ok(frame) }
    }
}

impl Uploading {
    fn fail(&mut self, fault: UploadFault) -> BoxError {
        self.fault = Some(fault);
        self.body = None;
        fault.into()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Stream(upload) => upload.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(upload) => upload.lock().body.as_ref().is_some_and(Body::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(upload) => upload.lock().body.as_ref().map(Body::size_hint).unwrap_or_default(),
        }
    }
}
