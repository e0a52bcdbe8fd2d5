//! Pure. Requests that came, and how they are answered.

use super::{Code, Connection, Request, Side, StreamId, Writer};

impl Connection {
    /// The request that came, once, and whether it is all of it.
    pub fn request(&mut self, id: StreamId) -> Option<(Request, bool)> {
        let stream = self.streams.get_mut(&id)?;
        stream.request.take().map(|request| (request, stream.is_read()))
    }

    /// Answers a request by a head; with `whole` nothing follows it.
    pub fn answer(&mut self, id: StreamId, whole: bool, write: impl FnOnce(&mut Writer)) {
        if self.streams.get(&id).is_none_or(|stream| stream.broken.is_some() || stream.sent) {
            return;
        }
        self.wasted = 0;
        let mut control = std::mem::take(&mut self.control);
        self.write_fields(&mut control, id, whole, write);
        self.control = control;
        if whole && let Some(stream) = self.streams.get_mut(&id) {
            stream.sent = true;
            self.answered(id);
        }
    }

    /// The answer's end was sent.
    pub(super) fn answered(&mut self, id: StreamId) {
        // What nobody reads of its request is not wanted (RFC 9113 §8.1).
        let unwanted = self.streams.get(&id).is_some_and(|stream| !stream.ended && !stream.held.0);
        if unwanted && self.side != Side::Asking {
            self.reset(id, Code::NO_ERROR);
        }
        self.settle(id);
    }
}
