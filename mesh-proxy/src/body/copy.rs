//! A copy of a request's body that has come as a whole.

use std::collections::VecDeque;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

/// The pieces of a body, and what follows them.
pub struct Copy {
    pieces: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Copy {
    pub(super) fn new(pieces: Vec<Bytes>, trailers: Option<HeaderMap>) -> Self {
        Self { pieces: pieces.into(), trailers }
    }

    /// What comes next.
    pub(super) fn next(&mut self) -> Option<Frame<Bytes>> {
        self.pieces.pop_front().map(Frame::data).or_else(|| self.trailers.take().map(Frame::trailers))
    }

    /// Whether that was all.
    pub(super) fn is_over(&self) -> bool {
        self.pieces.is_empty() && self.trailers.is_none()
    }

    /// Bytes that are still to come.
    pub(super) fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }
}
