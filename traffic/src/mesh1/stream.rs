//! Pure. One stream of a `mesh/1` connection: what came and was not read, what was written and not sent, both windows.

use super::{Broken, Fault, StreamId, WINDOW_STREAM_BYTES, WINDOW_STREAM_BYTES_MAX};
use crate::pieces::Pieces;

/// Seen from one side. What is told to the other side is its connection's matter.
#[derive(Debug)]
pub(super) struct Stream {
    /// What came and was not read.
    pub(super) received: Pieces,
    /// What was written and not sent.
    pub(super) queue: Pieces,
    /// What may be sent.
    pub(super) send_window: u32,
    /// What may come.
    granted: u32,
    /// What may come when all was read.
    window: u32,
    /// What was read and not granted again.
    read: u32,
    /// Nothing more comes.
    pub(super) peer_ended: bool,
    /// Nothing more is written.
    pub(super) finishing: bool,
    /// That was sent.
    pub(super) ended: bool,
    pub(super) broken: Option<Broken>,
    /// The application was reached, or the first byte of an answer was written.
    pub(super) answered: bool,
    /// Nobody on this side asks for it any more.
    pub(super) released: bool,
    /// It stands in the round of those that send.
    pub(super) listed: bool,
    /// It stands among those that are to be granted more.
    pub(super) credited: bool,
    pub(super) wants_read: bool,
    pub(super) wants_write: bool,
    /// Somebody who neither reads nor writes is to hear that it breaks off.
    pub(super) watched: bool,
}

impl Stream {
    /// Nothing was sent yet; `send_window` may be.
    pub(super) fn new(send_window: u32) -> Self {
        Self {
            received: Pieces::default(),
            queue: Pieces::default(),
            send_window,
            granted: WINDOW_STREAM_BYTES,
            window: WINDOW_STREAM_BYTES,
            read: 0,
            peer_ended: false,
            finishing: false,
            ended: false,
            broken: None,
            answered: false,
            released: false,
            listed: false,
            credited: false,
            wants_read: false,
            wants_write: false,
            watched: false,
        }
    }

    /// Takes what came, if it was granted.
    pub(super) fn receive(&mut self, id: StreamId, part: &[u8]) -> Result<(), Fault> {
        if self.peer_ended {
            return Err(Fault::AfterEnd(id));
        }
        let length = u32::try_from(part.len()).map_err(|_| Fault::Beyond(id))?;
        self.granted = self.granted.checked_sub(length).ok_or(Fault::Beyond(id))?;
        self.received.copy(part);
        Ok(())
    }

    /// Lets `read` have some of what came; how much that was.
    pub(super) fn read<T>(&mut self, read: impl FnOnce(&mut Pieces) -> T) -> (T, usize) {
        let before = self.received.len();
        let read = read(&mut self.received);
        let length = before - self.received.len();
        self.read = self.read.saturating_add(u32::try_from(length).unwrap_or(u32::MAX));
        (read, length)
    }

    /// Whether the other side should hear that it may send more: not with every byte.
    pub(super) fn owes_credit(&self) -> bool {
        !self.peer_ended && self.broken.is_none() && self.read >= self.window / 2
    }

    /// Grants what was read again, and as much more while the reader keeps up.
    pub(super) fn credit(&mut self) -> u32 {
        let keeps_up = self.received.is_empty() && self.window < WINDOW_STREAM_BYTES_MAX;
        let more = if keeps_up { self.window } else { 0 };
        self.window += more;
        let credit = std::mem::take(&mut self.read) + more;
        self.granted += credit;
        credit
    }

    /// Whether there is something to send and leave to send it; `connection` is what the connection's window leaves.
    pub(super) fn sendable(&self, connection: u32) -> bool {
        self.broken.is_none()
            && match self.queue.is_empty() {
                true => self.finishing && !self.ended,
                false => self.send_window.min(connection) > 0,
            }
    }

    /// Nothing more will go either way.
    pub(super) fn over(&self) -> bool {
        self.broken.is_some() || (self.ended && self.peer_ended)
    }

    /// Breaks it off; how much of what came, and of what was to be sent, is dropped. What a side sent before its own end
    /// stays readable.
    pub(super) fn break_off(&mut self, broken: Broken) -> (usize, usize) {
        let received = if self.peer_ended { 0 } else { self.received.clear() };
        self.broken.get_or_insert(broken);
        (received, self.queue.clear())
    }

    /// Gives back memory that is not used.
    pub(super) fn shrink(&mut self) {
        self.received.shrink();
        self.queue.shrink();
    }
}
