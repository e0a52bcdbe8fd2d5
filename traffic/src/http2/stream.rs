//! Pure. What one stream holds.

use bytes::Bytes;

use super::{Answer, Broken, Field, QUEUE_BYTES_MAX, Request};
use crate::pieces::Pieces;

/// A stream's number: odd, as the asking side opens it (RFC 9113 §5.1.1).
pub type StreamId = u32;

/// What comes next of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Nothing yet.
    Nothing,
    /// Bytes of it.
    Data(Bytes),
    /// Its trailers, after which there is nothing.
    Trailers(Vec<Field>),
    /// Its end.
    End,
}

/// How a message ends.
#[derive(Debug)]
pub(super) enum Ending {
    /// With its last byte.
    Plain,
    /// With trailers: their section.
    Trailers(Vec<u8>),
}

#[derive(Debug)]
pub(super) struct Stream {
    // --- what goes out ---
    pub(super) queue: Pieces,
    pub(super) ending: Option<Ending>,
    /// Its end was sent.
    pub(super) sent: bool,
    /// What it may send, in bytes; less than none where the other side made it smaller afterwards (§6.9.2).
    pub(super) window_out: i64,
    /// It stands among those that have something to send.
    pub(super) in_turn: bool,
    /// Someone waits for room; someone waits to hear that it broke off.
    pub(super) writing: bool,
    pub(super) watching: bool,
    // --- what comes in ---
    pub(super) head: Option<Answer>,
    pub(super) request: Option<Request>,
    pub(super) headed: bool,
    /// Its request was answered, by a head at least.
    pub(super) answered: bool,
    pub(super) interim: u8,
    /// Its answer has no body, whatever it says of its length (RFC 9110 §9.3.2).
    pub(super) bodiless: bool,
    pub(super) came: Pieces,
    pub(super) trailers: Option<Vec<Field>>,
    /// Its end has come.
    pub(super) ended: bool,
    /// What the other side may send, in bytes.
    pub(super) window_in: i64,
    /// What was read of that without telling it.
    pub(super) untold: u32,
    /// What is still to come of its body, where it was said.
    pub(super) left: Option<u64>,
    /// Someone waits for what comes.
    pub(super) reading: bool,
    // --- both ---
    pub(super) broken: Option<Broken>,
    /// It counts among those that the other side lets be open at once.
    pub(super) active: bool,
    /// Someone reads it; someone writes it.
    pub(super) held: (bool, bool),
}

impl Stream {
    pub(super) fn new(window_out: i64, window_in: i64, bodiless: bool, whole: bool) -> Self {
        Self {
            queue: Pieces::default(),
            ending: None,
            sent: whole,
            window_out,
            in_turn: false,
            writing: false,
            watching: false,
            head: None,
            request: None,
            headed: false,
            answered: false,
            interim: 0,
            bodiless,
            came: Pieces::default(),
            trailers: None,
            ended: false,
            window_in,
            untold: 0,
            left: None,
            reading: false,
            broken: None,
            active: true,
            held: (true, !whole),
        }
    }

    /// One that the other side opened.
    pub(super) fn asked(window_out: i64, window_in: i64, request: Request, whole: bool) -> Self {
        let left = request.length;
        Self {
            request: Some(request),
            headed: true,
            ended: whole,
            left,
            held: (true, true),
            ..Self::new(window_out, window_in, false, false)
        }
    }

    /// Takes of `data` what there is room for; how much.
    pub(super) fn queue(&mut self, data: &mut Bytes) -> usize {
        let length = data.len().min(self.room());
        self.queue.push(data.split_to(length));
        length
    }

    /// Bytes that there is room for.
    pub(super) fn room(&self) -> usize {
        QUEUE_BYTES_MAX.saturating_sub(self.queue.len())
    }

    /// What comes next. What came before it broke off is not read any more: half of it would look like the whole.
    pub(super) fn take(&mut self) -> Result<Piece, Broken> {
        if let Some(broken) = self.broken.as_ref().filter(|_| !self.ended) {
            return Err(broken.clone());
        }
        if let Some(data) = self.came.take(usize::MAX) {
            return Ok(Piece::Data(data));
        }
        if !self.ended {
            return Ok(Piece::Nothing);
        }
        Ok(self.trailers.take().map_or(Piece::End, Piece::Trailers))
    }

    /// Whether nothing of it is left to be read.
    pub(super) fn is_read(&self) -> bool {
        self.ended && self.came.is_empty() && self.trailers.is_none()
    }

    /// What will not be sent.
    pub(super) fn drop_unsent(&mut self) {
        self.queue.clear();
        self.ending = None;
    }

    /// Both sides have come to their ends, or it broke off.
    pub(super) fn is_over(&self) -> bool {
        self.broken.is_some() || self.sent && self.ended
    }
}
