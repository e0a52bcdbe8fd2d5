//! A message on its way out: its head, then its body as it comes. What is small goes together.

use std::{
    cell::Cell,
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use traffic::http1::{self, LAST_CHUNK, Length};

use super::{Broke, fields};
use crate::body::BodyError;

/// What a head and a small body take, in bytes.
const MESSAGE_BYTES: usize = 2 * 1_024;
/// Pieces of a body up to here are copied behind what goes before them, in bytes; a larger one is written from where it is.
const COPIED_BYTES: usize = 4 * 1_024;
/// What is gathered by copies before it is written, in bytes.
const GATHERED_BYTES: usize = 16 * 1_024;
/// What is gathered of large pieces before it is written, in bytes: four TLS records, as they come from another proxy.
const PIECES_BYTES: usize = 60 * 1_024;

/// A message that is sent.
pub(super) struct Sending<B> {
    body: Option<B>,
    coding: Length,
    /// The head, and what was gathered behind it, from `written` on.
    gathered: Vec<u8>,
    written: usize,
    /// Large pieces, which go behind what was gathered. A chunk is one, and alone.
    pieces: VecDeque<Bytes>,
    pieces_bytes: usize,
    /// The last is a chunk, whose end goes behind it.
    owes_end: bool,
    unflushed: bool,
    /// The body broke off; what came before goes first.
    failed: Option<BodyError>,
}

thread_local! {
    /// The memory of the message that was sent last. Most are written as soon as they are made, so that one is enough.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Where a message's head is written, in memory that was another's if there is some.
pub(super) fn begun() -> Vec<u8> {
    let mut head = SPARE.take();
    head.reserve(MESSAGE_BYTES);
    head
}

/// Where a message goes.
pub(super) trait Outlet {
    /// Writes `head`, then `pieces`, which are taken as far as they are written; how much of `head` that was. Something was,
    /// if it is ready.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        pieces: &mut VecDeque<Bytes>,
    ) -> Poll<io::Result<usize>>;

    /// Sends on what was written.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
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
            pieces: VecDeque::new(),
            pieces_bytes: 0,
            owes_end: false,
            unflushed: false,
            failed: None,
        }
    }

    /// Sends until all is sent.
    pub(super) fn poll<W: Outlet>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Poll<Result<(), Unsent>> {
        loop {
            let starved = self.gather(cx).unwrap_or_else(|error| {
                (self.body, self.failed) = (None, Some(error));
                false
            });
            ready!(self.poll_write(cx, to)).map_err(Unsent::Io)?;
            if starved || self.body.is_none() {
                if self.unflushed {
                    ready!(to.poll_flush(cx)).map_err(Unsent::Io)?;
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
        while self.has_room() {
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

    fn has_room(&self) -> bool {
        let pieces = if self.coding == Length::Chunked { 1 } else { PIECES_BYTES };
        self.pieces_bytes < pieces && self.gathered.len() < GATHERED_BYTES
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
                if self.pieces.is_empty() {
                    self.gathered.extend_from_slice(b"\r\n");
                } else {
                    self.owes_end = true;
                }
            }
        }
        if ends && !self.owes_end { self.end(None) } else { Ok(()) }
    }

    fn push(&mut self, data: Bytes) {
        if self.pieces.is_empty() && data.len() <= COPIED_BYTES {
            self.gathered.extend_from_slice(&data);
        } else {
            self.pieces_bytes += data.len();
            self.pieces.push_back(data);
        }
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

    fn poll_write(&mut self, cx: &mut Context<'_>, to: &mut impl Outlet) -> Poll<io::Result<()>> {
        while self.written < self.gathered.len() || !self.pieces.is_empty() {
            self.written += ready!(to.poll_write(cx, &self.gathered[self.written..], &mut self.pieces))?;
            self.unflushed = true;
        }
        self.gathered.clear();
        (self.written, self.pieces_bytes) = (0, 0);
        Poll::Ready(Ok(()))
    }
}

impl<B> Drop for Sending<B> {
    fn drop(&mut self) {
        let mut spare = std::mem::take(&mut self.gathered);
        spare.clear();
        spare.shrink_to(GATHERED_BYTES);
        // A thread that ends needs none.
        let _ = SPARE.try_with(|kept| kept.set(spare));
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::*;

    /// Takes at most so much at once.
    struct Narrow {
        most: usize,
        came: Vec<u8>,
        writes: usize,
    }

    impl Outlet for Narrow {
        fn poll_write(
            &mut self,
            _: &mut Context<'_>,
            head: &[u8],
            pieces: &mut VecDeque<Bytes>,
        ) -> Poll<io::Result<usize>> {
            let (before, written) = (self.came.len(), head.len().min(self.most));
            self.came.extend_from_slice(&head[..written]);
            self.writes += 1;
            while let Some(piece) = pieces.pop_front() {
                let mut piece = piece;
                let part = piece.split_to(piece.len().min(self.most - (self.came.len() - before)));
                self.came.extend_from_slice(&part);
                if !piece.is_empty() {
                    pieces.push_front(piece);
                    break;
                }
            }
            Poll::Ready(Ok(written))
        }

        fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// What is written of a body of pieces of these lengths, and in how many writes.
    fn sent(lengths: &[usize], coding: Length, most: usize) -> (Vec<u8>, usize) {
        let pieces = lengths.iter().zip(b'a'..).map(|(length, byte)| Bytes::from(vec![byte; *length]));
        let frames: Vec<_> = pieces.map(|piece| Ok::<_, BodyError>(Frame::data(piece))).collect();
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let mut sending = Sending::new(b"head ".to_vec(), Some(body), coding);
        let mut to = Narrow { most, came: Vec::new(), writes: 0 };
        let sent = sending.poll(&mut Context::from_waker(std::task::Waker::noop()), &mut to);
        assert!(matches!(sent, Poll::Ready(Ok(()))));
        (to.came, to.writes)
    }

    #[test]
    fn pieces_go_together_in_order_however_little_is_taken_at_once() {
        let lengths = [300, 16_000, 16_000, 5, 16_000, 16_000, 7, 20_000];
        let body: Vec<u8> =
            lengths.iter().zip(b'a'..).flat_map(|(length, byte)| vec![byte; *length]).collect();
        let whole = Length::Exactly(body.len() as u64);
        for most in [usize::MAX, 7_001, 1] {
            let (came, writes) = sent(&lengths, whole, most);
            assert!(came == [b"head ", &body[..]].concat(), "{} bytes, {most} at once", came.len());
            assert!(most != usize::MAX || writes == 2, "{writes} writes: four records' worth goes in one");
            let (came, _) = sent(&lengths, Length::Chunked, most);
            let mut decoder = http1::Decoder::new(Length::Chunked);
            let (mut rest, mut read) = (&came[5..], Vec::new());
            while let http1::Next::Data { at, length } = decoder.next(rest).expect("chunks") {
                read.extend_from_slice(&rest[at..at + length]);
                rest = &rest[at + length..];
            }
            assert!(decoder.is_over() && read == body, "chunks, {most} at once");
        }
    }
}
