//! Pure. What one stream holds.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Answer, Broken, Field, QUEUE_BYTES_MAX, Request};

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
    queue: VecDeque<Bytes>,
    queued: usize,
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
    pub(super) interim: u8,
    /// Its answer has no body, whatever it says of its length (RFC 9110 §9.3.2).
    pub(super) bodiless: bool,
    came: VecDeque<Bytes>,
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
            queue: VecDeque::new(),
            queued: 0,
            ending: None,
            sent: whole,
            window_out,
            in_turn: false,
            writing: false,
            watching: false,
            head: None,
            request: None,
            headed: false,
            interim: 0,
            bodiless,
            came: VecDeque::new(),
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
        let length = data.len().min(QUEUE_BYTES_MAX.saturating_sub(self.queued));
        if length > 0 {
            self.queued += length;
            self.queue.push_back(data.split_to(length));
        }
        length
    }

    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    pub(super) fn has_room(&self) -> bool {
        self.queued < QUEUE_BYTES_MAX
    }

    /// The next piece to be sent, of at most so many bytes.
    pub(super) fn dequeue(&mut self, most: usize) -> Bytes {
        let Some(first) = self.queue.front_mut() else { return Bytes::new() };
        let piece = if first.len() > most {
            first.split_to(most)
        } else {
            self.queue.pop_front().expect("it has a first")
        };
        self.queued -= piece.len();
        piece
    }

    pub(super) fn put(&mut self, data: Bytes) {
        self.came.push_back(data);
    }

    /// What comes next. What came before it broke off is not read any more: half of it would look like the whole.
    pub(super) fn take(&mut self) -> Result<Piece, Broken> {
        if let Some(broken) = self.broken.as_ref().filter(|_| !self.ended) {
            return Err(broken.clone());
        }
        if let Some(data) = self.came.pop_front() {
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

    /// What came and was not read.
    pub(super) fn unread(&self) -> usize {
        self.came.iter().map(Bytes::len).sum()
    }

    /// What came and will not be read; how much it is.
    pub(super) fn drop_unread(&mut self) -> usize {
        self.came.drain(..).map(|data| data.len()).sum()
    }

    /// What will not be sent.
    pub(super) fn drop_unsent(&mut self) {
        (self.queue, self.queued, self.ending) = (VecDeque::new(), 0, None);
    }

    /// Both sides have come to their ends, or it broke off.
    pub(super) fn is_over(&self) -> bool {
        self.broken.is_some() || self.sent && self.ended
    }
}
