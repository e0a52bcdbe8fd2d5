//! A body as it comes.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use traffic::http2::{Broken, Piece};

use super::{Reader, fields};

/// The body of a message in HTTP/2. An answer's that is dropped before its end resets its stream.
pub struct Received {
    /// There until its end.
    reader: Option<Reader>,
    /// What is left of it, in bytes, where it was said.
    left: Option<u64>,
}

impl Received {
    pub(super) fn new(reader: Reader, length: Option<u64>) -> Self {
        Self { reader: Some(reader), left: length }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some(reader) = &self.reader else { return Poll::Ready(None) };
        let (taken, over) = reader.shared.with(|state| {
            let taken = state.core.take(reader.id);
            if taken == Ok(Piece::Nothing) {
                reader.wait(state, cx);
            }
            (taken, state.core.is_read(reader.id))
        });
        if over || taken.is_err() {
            self.reader = None;
        }
        Poll::Ready(match taken {
            Ok(Piece::Nothing) => return Poll::Pending,
            Ok(Piece::Data(data)) => {
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                Some(Ok(Frame::data(data)))
            }
            Ok(Piece::Trailers(trailers)) => Some(fields::read(trailers, 0).map(Frame::trailers)),
            Ok(Piece::End) => None,
            Err(broken) => Some(Err(broken)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.reader.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.reader, self.left) {
            (None, _) => SizeHint::with_exact(0),
            (Some(_), Some(left)) => SizeHint::with_exact(left),
            (Some(_), None) => SizeHint::default(),
        }
    }
}
