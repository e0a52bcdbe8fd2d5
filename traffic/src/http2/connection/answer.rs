//! Pure. Requests that came, and how they are answered.

use super::{
    Code, Connection, Event, Request, Section, Side, Stream, StreamId, WINDOW_STREAM_BYTES, Writer, frame,
};

impl Connection {
    /// The other side opens a stream by a request.
    pub(super) fn asked(&mut self, id: StreamId, ends: bool, section: Section) {
        if self.closing {
            // It was told so, and will ask elsewhere (§6.8).
            return;
        }
        self.last = id;
        if !self.has_room() {
            return self.refuse(id, Code::REFUSED);
        }
        if section.is_too_large() {
            let mut control = std::mem::take(&mut self.control);
            self.write_fields(&mut control, id, true, |writer| writer.status(431));
            self.control = control;
            return if ends { self.waste() } else { self.refuse(id, Code::NO_ERROR) };
        }
        match section.request() {
            Ok(request) if !ends || request.length.unwrap_or(0) == 0 => {
                let window = i64::from(WINDOW_STREAM_BYTES);
                self.streams.insert(id, Stream::asked(self.window_at_first, window, request, ends));
                self.active.0 += 1;
                self.events.push_back(Event::Asked(id));
            }
            Ok(_) | Err(_) => self.refuse(id, Code::PROTOCOL),
        }
    }

    /// A stream is not taken.
    fn refuse(&mut self, id: StreamId, code: Code) {
        frame::short(&mut self.control, frame::RST_STREAM, 0, id, &code.0.to_be_bytes());
        self.waste();
    }

    /// Another stream came to nothing, by what the other side did.
    pub(super) fn waste(&mut self) {
        self.wasted += u32::from(self.side != Side::Asking);
    }

    /// The request that came, once, and whether it is all of it; `None` if it broke off.
    pub fn request(&mut self, id: StreamId) -> Option<(Request, bool)> {
        // Whoever reset it meanwhile waits for nothing.
        let stream = self.streams.get_mut(&id).filter(|stream| stream.broken.is_none())?;
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
        if let Some(stream) = self.streams.get_mut(&id) {
            (stream.answered, stream.sent) = (true, whole);
        }
        if whole {
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
