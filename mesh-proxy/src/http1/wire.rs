//! One connection: what came and was not used, and where more comes from.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;
use traffic::http1::{Decoder, HeadEnd, Malformed, Next};

use super::{Broke, Stream, fields, sending::Outlet};
use crate::{
    limits::HEAD_BYTES_MAX,
    listener::Rewound,
    short,
    transport::{duplex::READ_BYTES, duplex::shared, tcp::Abort},
};

/// What a connection is made of.
pub trait Io: AsyncRead + AsyncWrite + Abort + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Abort + Send + Unpin> Io for T {}

/// What is read at once of a large body, in bytes: it stays where it was read.
const LARGE_READ_BYTES: usize = 64 * 1_024;

/// How many pieces are written at once: a head, and as many records of TLS as are read of a large body at once, and some.
const SLICES: usize = 8;

/// A connection that is read.
pub(super) struct Wire {
    pub(super) io: Box<dyn Io>,
    ahead: BytesMut,
    head_end: HeadEnd,
}

impl Wire {
    /// Nothing was read yet.
    pub(super) fn new(io: Box<dyn Io>) -> Self {
        Self { io, ahead: BytesMut::new(), head_end: HeadEnd::default() }
    }

    /// Whether more came than was used.
    pub(super) fn is_ahead(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// The head of the next message; `None` if the connection ended before it began.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broke>> {
        loop {
            let found = self.head_end.find(&self.ahead)?;
            if found.unwrap_or(self.ahead.len()) > HEAD_BYTES_MAX {
                return Poll::Ready(Err(Broke::TooLarge));
            }
            if let Some(length) = found {
                let head = self.ahead.split_to(length).freeze();
                self.let_go();
                return Poll::Ready(Ok(Some(head)));
            }
            if !ready!(self.poll_fill(cx, 0))? {
                let ended = if self.is_ahead() { Err(Malformed::CutOff.into()) } else { Ok(None) };
                return Poll::Ready(ended);
            }
        }
    }

    /// What comes next of a body.
    pub(super) fn poll_body(
        &mut self,
        decoder: &mut Decoder,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        loop {
            match decoder.next(&self.ahead)? {
                Next::Data { at, length } => {
                    self.ahead.advance(at);
                    let data = self.ahead.split_to(length).freeze();
                    self.let_go();
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Next::End { at } => {
                    self.ahead.advance(at);
                    self.let_go();
                    let trailers = fields::trailers(decoder.take_trailers().into())?;
                    return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                }
                Next::More => {
                    self.ahead.clear();
                    let left = decoder.left().map_or(0, |left| usize::try_from(left).unwrap_or(usize::MAX));
                    if left > READ_BYTES
                        && let Some(stream) = self.io.by_pieces()
                    {
                        let Some(piece) = ready!(stream.poll_take(cx, left))? else {
                            decoder.cut()?;
                            return Poll::Ready(None);
                        };
                        // No more than is left was asked for: all of it is the body's.
                        decoder.next(&piece)?;
                        return Poll::Ready(Some(Ok(Frame::data(piece))));
                    }
                    if !ready!(self.poll_fill(cx, left))? {
                        decoder.cut()?;
                        return Poll::Ready(None);
                    }
                }
            }
        }
    }

    /// Writes once, without a list of slices where there is but one.
    fn poll_write_some(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        pieces: &VecDeque<Bytes>,
    ) -> Poll<io::Result<usize>> {
        let io = Pin::new(&mut *self.io);
        if pieces.is_empty() {
            return io.poll_write(cx, head);
        }
        let mut slices = [IoSlice::new(head); SLICES];
        let rest = slices[1..].iter_mut().zip(pieces);
        let count = rest.map(|(slice, piece)| *slice = IoSlice::new(piece)).count();
        io.poll_write_vectored(cx, &slices[..=count])
    }

    /// Whether something comes that nobody asked for, or the end.
    pub(super) fn poll_stirs(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.poll_fill(cx, 0)
    }

    /// Whether it is open, and silent: it may be used again.
    pub(super) fn is_quiet(&mut self) -> bool {
        !self.is_ahead() && self.poll_stirs(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Says the last word, as far as that can be done at once.
    pub(super) fn say_last(&mut self) {
        let said = Pin::new(&mut *self.io).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(Err(error)) = said {
            tracing::debug!(%error, "a connection could not be closed");
        }
    }

    /// The connection as bytes, from where reading stands.
    pub(super) fn into_stream(self) -> Stream {
        Rewound::new(self.ahead, self.io)
    }

    /// Reads once; `expected` is what is known to come. Whether anything did: nothing is the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>, expected: usize) -> Poll<io::Result<bool>> {
        if expected > READ_BYTES {
            self.ahead.reserve(LARGE_READ_BYTES);
            let read = ready!(poll_read_buf(Pin::new(&mut self.io), cx, &mut self.ahead))?;
            return Poll::Ready(Ok(read > 0));
        }
        shared(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut *self.io).poll_read(cx, &mut buffer))?;
            let came = buffer.filled();
            if self.ahead.is_empty() {
                self.ahead = short::copied(came);
            } else {
                self.ahead.extend_from_slice(came);
            }
            Poll::Ready(Ok(!came.is_empty()))
        })
    }

    /// Memory goes with what was in it.
    fn let_go(&mut self) {
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
    }
}

impl Outlet for Wire {
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        pieces: &mut VecDeque<Bytes>,
    ) -> Poll<io::Result<usize>> {
        if let Some(stream) = self.io.by_pieces() {
            return stream.poll_give(cx, head, pieces);
        }
        let length = ready!(self.poll_write_some(cx, head, pieces))?;
        if length == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let written = length.min(head.len());
        let mut left = length - written;
        while let Some(piece) = pieces.front_mut().filter(|_| left > 0) {
            let part = left.min(piece.len());
            piece.advance(part);
            left -= part;
            if piece.is_empty() {
                pieces.pop_front();
            }
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_flush(cx)
    }
}
