//! Bodies on their way through the proxy. A request's may have to be sent again from its start ([`Kept`]); an answer's
//! carries with it everything that ends when it ends ([`Answer`]). Nothing is held but what a retry may need.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use crate::{
    http1::{self, Answered, Asked, Broke},
    http2::{self, Received},
    idle,
    transport::life::{Cut, Life},
};

mod copy;
mod kept;

pub use copy::Copy;
pub use kept::{Attempt, Kept, REPLAY_BYTES_MAX};

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The side that sends it failed, in HTTP/2.
    #[error(transparent)]
    Http2(#[from] traffic::http2::Broken),
    /// The side that sends it failed, in HTTP/1.1.
    #[error(transparent)]
    Http1(Broke),
    /// It was ended on a stream between proxies: with what HTTP/2 is to say of it.
    #[error("the stream was reset: {0}")]
    Reset(#[source] h2::Error),
    /// Another try took its place.
    #[error("the request is sent another way by now")]
    Superseded,
    /// The time for the whole request is over.
    #[error("the request's time is over")]
    Late,
    /// Nothing of request and answer came for too long.
    #[error("nothing moved on it for {0:?}")]
    Idle(Duration),
    /// The other proxy is no longer believed.
    #[error(transparent)]
    Cut(Cut),
}

/// A body as it comes, whatever carries it.
pub enum Incoming {
    /// None.
    None,
    /// Of a request in HTTP/1.1.
    Asked(Asked),
    /// Of an answer in HTTP/1.1.
    Answered(Answered),
    /// Of either in HTTP/2.
    Http2(Received),
    /// None: the connection has left HTTP.
    Left(Box<http1::Stream>),
}

/// A request's body, towards the next hop.
pub enum Request {
    /// None.
    Empty,
    /// One try of a body that may be sent again.
    Try(Attempt),
    /// A copy.
    Copy(Copy),
}

/// An answer's body, with what ends when it does.
pub struct Answer {
    source: Source,
    deadline: Option<Pin<Box<Sleep>>>,
    idle: Option<Idle>,
    life: Option<Pin<Box<dyn Future<Output = Cut> + Send>>>,
    watch: Option<Box<dyn Watch>>,
}

/// How long request and answer may carry nothing.
struct Idle {
    /// Pieces of the answer that came.
    pieces: Arc<AtomicU64>,
    over: Pin<Box<dyn Future<Output = Duration> + Send>>,
}

enum Source {
    Text(Option<Bytes>),
    Stream(Incoming),
}

/// Sees an answer go by; dropped when the answer ended, one way or the other.
pub trait Watch: Send {
    /// A piece of the body.
    fn data(&mut self, bytes: usize);
    /// The trailers.
    fn trailers(&mut self, trailers: &HeaderMap);
    /// The body came to its end.
    fn ended(&mut self);
    /// The body broke off.
    fn broke(&mut self, error: &BodyError);
}

impl From<Broke> for BodyError {
    fn from(broke: Broke) -> Self {
        match broke.http2_reason() {
            Some(reason) => Self::Reset(reason.into()),
            None => Self::Http1(broke),
        }
    }
}

impl BodyError {
    /// What HTTP/2 says of it (RFC 9113 §7).
    pub fn http2_reason(&self) -> h2::Reason {
        if let Self::Http2(broken) = self {
            return http2::reason(broken);
        }
        let mut error: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(one) = error {
            if let Some(reason) = one.downcast_ref::<h2::Error>().and_then(h2::Error::reason) {
                return reason;
            }
            error = one.source();
        }
        h2::Reason::INTERNAL_ERROR
    }
}

impl Answer {
    /// A body of ours.
    pub fn text(text: impl Into<Bytes>) -> Self {
        Self { source: Source::Text(Some(text.into())), deadline: None, idle: None, life: None, watch: None }
    }

    /// A body as it comes.
    pub fn stream(body: Incoming) -> Self {
        Self { source: Source::Stream(body), deadline: None, idle: None, life: None, watch: None }
    }

    /// The same, seen by `watch`. One that has nothing to wait for is over at once.
    #[must_use]
    pub fn watched(mut self, mut watch: Box<dyn Watch>) -> Self {
        match &self.source {
            Source::Stream(body) if body.is_end_stream() => watch.ended(),
            Source::Text(text) => {
                watch.data(text.as_ref().map_or(0, Bytes::len));
                watch.ended();
            }
            Source::Stream(_) => self.watch = Some(watch),
        }
        self
    }

    /// The same, cut off after `span`.
    #[must_use]
    pub fn within(mut self, span: Option<Duration>) -> Self {
        self.deadline = span.map(|span| Box::pin(tokio::time::sleep(span)));
        self
    }

    /// The same, cut off when nothing of it and of its request came for `span`. What is held back for a slow reader is not
    /// waited for.
    #[must_use]
    pub fn unless_idle(mut self, span: Option<Duration>, request: Option<Kept>) -> Self {
        self.idle = span.map(|span| {
            let pieces = Arc::<AtomicU64>::default();
            let seen = pieces.clone();
            let moved = move || {
                seen.load(Ordering::Relaxed) + request.as_ref().map_or(0, |request| request.seen_bytes())
            };
            Idle { pieces, over: Box::pin(async move { idle::over(Some(span), moved).await }) }
        });
        self
    }

    /// The same, for as long as its connection may live.
    #[must_use]
    pub fn during(mut self, life: Option<Life>) -> Self {
        self.life = life.map(|mut life| -> Pin<Box<dyn Future<Output = Cut> + Send>> {
            Box::pin(async move { life.cut().await })
        });
        self
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Source::Stream(body) = &mut self.source else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            if let Some(idle) = &self.idle {
                idle.pieces.fetch_add(1, Ordering::Relaxed);
            }
            return Poll::Ready(frame);
        }
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(BodyError::Late)));
        }
        if let Some(idle) = &mut self.idle
            && let Poll::Ready(span) = idle.over.as_mut().poll(cx)
        {
            return Poll::Ready(Some(Err(BodyError::Idle(span))));
        }
        if let Some(life) = &mut self.life {
            let cut = ready!(life.as_mut().poll(cx));
            return Poll::Ready(Some(Err(BodyError::Cut(cut))));
        }
        Poll::Pending
    }

    fn note(&mut self, frame: Option<&Result<Frame<Bytes>, BodyError>>) {
        let Some(watch) = &mut self.watch else { return };
        match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    watch.data(data.len());
                }
                if let Some(trailers) = frame.trailers_ref() {
                    watch.trailers(trailers);
                }
                if matches!(&self.source, Source::Stream(body) if body.is_end_stream()) {
                    watch.ended();
                    self.watch = None;
                }
            }
            Some(Err(error)) => {
                watch.broke(error);
                self.watch = None;
            }
            None => {
                watch.ended();
                self.watch = None;
            }
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Source::Text(text) = &mut self.source {
            return Poll::Ready(
                text.take().filter(|text| !text.is_empty()).map(|text| Ok(Frame::data(text))),
            );
        }
        let frame = ready!(self.poll_stream(cx));
        self.note(frame.as_ref());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Text(text) => text.as_ref().is_none_or(Bytes::is_empty),
            Source::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Source::Stream(body) => body.size_hint(),
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::None | Self::Left(_) => Poll::Ready(None),
            Self::Asked(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::from),
            Self::Answered(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::from),
            Self::Http2(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::None | Self::Left(_) => true,
            Self::Asked(body) => body.is_end_stream(),
            Self::Answered(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::None | Self::Left(_) => SizeHint::with_exact(0),
            Self::Asked(body) => body.size_hint(),
            Self::Answered(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}

impl Request {
    /// What is kept of it for all tries, where there may be others.
    pub fn kept(&self) -> Option<Kept> {
        match self {
            Self::Try(attempt) => Some(attempt.kept()),
            Self::Empty | Self::Copy(_) => None,
        }
    }
}

impl Body for Request {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Try(attempt) => Pin::new(attempt).poll_frame(cx),
            Self::Copy(copy) => Poll::Ready(copy.next().map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Try(attempt) => attempt.is_end_stream(),
            Self::Copy(copy) => copy.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Try(attempt) => attempt.size_hint(),
            Self::Copy(copy) => SizeHint::with_exact(copy.bytes()),
        }
    }
}
