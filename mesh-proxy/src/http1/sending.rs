//! A message on its way out: its head, then its body as it comes. What is small goes together.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::io::AsyncWrite;
use traffic::http1::{self, LAST_CHUNK, Length};

use super::{Broke, fields};
use crate::body::BodyError;

/// Pieces of a body up to here are copied behind what goes before them, in bytes; a larger one is written from where it is.
const COPIED_BYTES: usize = 4 * 1_024;
/// What is gathered before it is written, in bytes.
const GATHERED_BYTES: usize = 16 * 1_024;

/// A message that is sent.
pub(super) struct Sending<B> {
    body: Option<B>,
    coding: Length,
    /// The head, and what was gathered behind it, from `written` on.
    gathered: Vec<u8>,
    written: usize,
    /// A large piece, which goes behind what was gathered.
    piece: Bytes,
    /// It is a chunk, whose end goes behind it.
    owes_end: bool,
    unflushed: bool,
    /// The body broke off; what came before goes first.
    failed: Option<BodyError>,
}

/// Why a message was not sent whole.
pub(super) enum Unsent {
    /// What it is made of broke off.
    Body(BodyError),
    /// Where it goes to did.
    Io(io::Error),
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Sending<B> {
    /// A message whose `head` has said how long its body is: `coding`. Without a body there is none, whatever it says.
    pub(super) fn new(head: Vec<u8>, body: Option<B>, coding: Length) -> Self {
        let body = body.filter(|_| coding != Length::Exactly(0));
        Self {
            body,
            coding,
            gathered: head,
            written: 0,
            piece: Bytes::new(),
            owes_end: false,
            unflushed: false,
            failed: None,
        }
    }

    /// Sends until all is sent.
    pub(super) fn poll<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<Result<(), Unsent>> {
        loop {
            let starved = self.gather(cx).unwrap_or_else(|error| {
                (self.body, self.failed) = (None, Some(error));
                false
            });
            ready!(self.poll_write(cx, to)).map_err(Unsent::Io)?;
            if starved || self.body.is_none() {
                if self.unflushed {
                    ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(Unsent::Io)?;
                    self.unflushed = false;
                }
                return match self.failed.take() {
                    Some(error) => Poll::Ready(Err(Unsent::Body(error))),
                    None if self.body.is_none() => Poll::Ready(Ok(())),
                    None => Poll::Pending,
                };
            }
        }
    }

    /// Takes of the body what is there; whether there was less than would go.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<bool, BodyError> {
        while self.piece.is_empty() && self.gathered.len() < GATHERED_BYTES {
            if std::mem::take(&mut self.owes_end) {
                self.gathered.extend_from_slice(b"\r\n");
            }
            let Some(body) = &mut self.body else { return Ok(false) };
            match Pin::new(body).poll_frame(cx) {
                Poll::Pending => return Ok(true),
                Poll::Ready(Some(Err(error))) => return Err(error),
                Poll::Ready(Some(Ok(frame))) => self.take(frame)?,
                Poll::Ready(None) => self.end(None)?,
            }
        }
        Ok(false)
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Result<(), BodyError> {
        match frame.into_data() {
            Ok(data) if data.is_empty() => Ok(()),
            Ok(data) => self.data(data),
            Err(frame) => self.end(frame.into_trailers().ok().as_ref()),
        }
    }

    fn data(&mut self, data: Bytes) -> Result<(), BodyError> {
        let ends = self.body.as_ref().is_some_and(Body::is_end_stream);
        match &mut self.coding {
            Length::Exactly(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Broke::OtherLength)?;
                self.push(data);
            }
            Length::UntilClose => self.push(data),
            Length::Chunked => {
                http1::chunk_head(&mut self.gathered, data.len());
                self.push(data);
                if self.piece.is_empty() {
                    self.gathered.extend_from_slice(b"\r\n");
                } else {
                    self.owes_end = true;
                }
            }
        }
        if ends && self.piece.is_empty() { self.end(None) } else { Ok(()) }
    }

    fn push(&mut self, data: Bytes) {
        if data.len() <= COPIED_BYTES { self.gathered.extend_from_slice(&data) } else { self.piece = data }
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), BodyError> {
        self.body = None;
        match (self.coding, trailers) {
            (Length::Exactly(1..), _) => return Err(Broke::OtherLength.into()),
            (Length::Chunked, Some(trailers)) => fields::write_trailers(&mut self.gathered, trailers),
            (Length::Chunked, None) => self.gathered.extend_from_slice(LAST_CHUNK),
            _ => {}
        }
        Ok(())
    }

    fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<io::Result<()>> {
        while self.written < self.gathered.len() || !self.piece.is_empty() {
            let slices = [IoSlice::new(&self.gathered[self.written..]), IoSlice::new(&self.piece)];
            let length = ready!(Pin::new(&mut *to).poll_write_vectored(cx, &slices))?;
            if length == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let gathered = length.min(self.gathered.len() - self.written);
            self.written += gathered;
            self.piece.advance(length - gathered);
            self.unflushed = true;
        }
        self.gathered.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}
