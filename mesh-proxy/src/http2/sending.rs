//! A body on its way out.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::Body;
use traffic::http2::{self as rules, Code};

use super::{Writer, fields};
use crate::body::{self, BodyError};

/// What is left to send of a message. Dropped before its end, it is reset: half of it must not look like the whole.
pub(super) struct Sending<B> {
    writer: Writer,
    body: B,
    /// What there was no room for.
    held: Bytes,
    /// Its last piece was handed over.
    last: bool,
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Sending<B> {
    pub(super) fn new(writer: Writer, body: B) -> Self {
        Self { writer, body, held: Bytes::new(), last: false }
    }

    /// Sends what there is; ready once all of it is handed over, or the other side takes no more.
    ///
    /// # Errors
    /// If the body broke off; the other side is told so.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        loop {
            if !self.held.is_empty() || self.last {
                match ready!(self.poll_give(cx)) {
                    Given::All if self.last => return Poll::Ready(Ok(())),
                    Given::All => {}
                    Given::Unwanted => return Poll::Ready(Ok(())),
                }
            }
            match self.poll_body(cx) {
                Poll::Pending if self.writer.is_unwanted(cx) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => {
                    let code = Code(error.http2_reason().into());
                    self.writer.shared.with(|state| state.core.reset(self.writer.id, code));
                    return Poll::Ready(Err(error));
                }
                Poll::Ready(Ok(Some(trailers))) => {
                    self.finish(Some(trailers));
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(None)) => {}
            }
        }
    }

    /// The next piece of the body, to be held; or its trailers.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<rules::Writer>, BodyError>> {
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            None => self.last = true,
            Some(Err(error)) => return Poll::Ready(Err(error)),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => (self.held, self.last) = (data, self.body.is_end_stream()),
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return Poll::Ready(Ok(Some(fields::trailers(&trailers))));
                    }
                }
            },
        }
        Poll::Ready(Ok(None))
    }

    /// Hands over what is held, and says the end behind the last of it.
    fn poll_give(&mut self, cx: &Context<'_>) -> Poll<Given> {
        self.writer.shared.with(|state| {
            if !self.held.is_empty() && state.core.give(self.writer.id, &mut self.held).is_err() {
                return Poll::Ready(Given::Unwanted);
            }
            if !self.held.is_empty() {
                self.writer.wait(state, cx);
                return Poll::Pending;
            }
            if self.last {
                state.core.finish(self.writer.id, None);
            }
            Poll::Ready(Given::All)
        })
    }

    fn finish(&self, trailers: Option<rules::Writer>) {
        self.writer.shared.with(|state| state.core.finish(self.writer.id, trailers));
    }
}

impl Sending<body::Request> {
    /// Sends on in a task of its own, which ends when the body's call says so.
    pub(super) fn beside(mut self) {
        let upload = self.body.kept();
        let sender = tokio::spawn(async move {
            // What is wrong with a body is said by whoever reads the answer.
            drop(std::future::poll_fn(|cx| self.poll(cx)).await);
        });
        if let Some(upload) = upload {
            upload.sent_by(sender.abort_handle());
        }
    }
}

enum Given {
    All,
    /// The other side takes no more.
    Unwanted,
}
