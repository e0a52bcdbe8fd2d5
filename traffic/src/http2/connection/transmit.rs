//! Pure. What goes out: frames about the connection first, then a turn for each stream that has something to send.

use super::{Connection, Ending, Event, Header, Outgoing, StreamId, TURN_BYTES, Writer, frame};

impl Connection {
    /// Whether there is something to send.
    pub fn has_output(&self) -> bool {
        !self.control.is_empty() || !self.turns.is_empty()
    }

    /// Moves what is to be sent to `out`, until that has `most` bytes or little more.
    pub fn transmit(&mut self, out: &mut Outgoing, most: usize) {
        let mut control = std::mem::take(&mut self.control);
        out.with(|bytes| bytes.append(&mut control));
        (self.control, self.unsent) = (control, self.next);
        while out.len() < most
            && let Some(id) = self.turns.pop_front()
        {
            self.turn(id, out);
        }
    }

    /// Lets a stream have its turn if it has something to send that its window allows.
    pub(super) fn stir(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.in_turn) else { return };
        let allowed = if stream.queue.is_empty() { stream.ending.is_some() } else { stream.window_out > 0 };
        if allowed {
            stream.in_turn = true;
            self.turns.push_back(id);
        }
    }

    fn turn(&mut self, id: StreamId, out: &mut Outgoing) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.in_turn = false;
        if !stream.queue.is_empty() {
            let allowed = stream.window_out.min(TURN_BYTES.min(self.frame_bytes) as i64);
            let length = (stream.queue.len() as i64).min(allowed).min(self.window_out);
            if length <= 0 {
                if allowed > 0 {
                    stream.in_turn = true;
                    self.stuck.push_back(id);
                }
                return;
            }
            stream.window_out -= length;
            self.window_out -= length;
            let length = length as usize;
            let last = length == stream.queue.len() && matches!(stream.ending, Some(Ending::Plain));
            let flags = if last { frame::END_STREAM } else { 0 };
            let header = Header { length, kind: frame::DATA, flags, stream: id };
            out.with(|bytes| header.write(bytes));
            out.draw(&mut stream.queue, length);
            if last {
                (stream.sent, stream.ending) = (true, None);
            }
            if stream.writing && stream.room() > 0 {
                stream.writing = false;
                self.events.push_back(Event::Write(id));
            }
        } else if matches!(stream.ending, Some(Ending::Plain)) {
            stream.sent = true;
            let header = Header { length: 0, kind: frame::DATA, flags: frame::END_STREAM, stream: id };
            out.with(|bytes| header.write(bytes));
            stream.ending = None;
        }
        self.end(id, out);
        self.stir(id);
    }

    /// Sends what ends a stream whose body is sent.
    fn end(&mut self, id: StreamId, out: &mut Outgoing) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let whole = stream.queue.is_empty();
        let trailers = stream.ending.take_if(|ending| whole && matches!(ending, Ending::Trailers(_)));
        if let Some(Ending::Trailers(section)) = trailers {
            stream.sent = true;
            out.with(|bytes| self.write_fields(bytes, id, true, |writer| writer.append(&section)));
        }
        if self.streams.get(&id).is_some_and(|stream| stream.sent) {
            self.answered(id);
        }
    }

    /// Writes a section of fields, in as many frames as it takes (RFC 9113 §6.2, §6.10).
    pub(super) fn write_fields(
        &mut self,
        out: &mut Vec<u8>,
        id: StreamId,
        ends: bool,
        write: impl FnOnce(&mut Writer),
    ) {
        let at = out.len();
        let ends = if ends { frame::END_STREAM } else { 0 };
        let header = Header { length: 0, kind: frame::HEADERS, flags: frame::END_HEADERS | ends, stream: id };
        header.write(out);
        let mut writer = Writer::behind(std::mem::take(out));
        if std::mem::take(&mut self.without_table) {
            writer.without_table();
        }
        write(&mut writer);
        *out = writer.into_bytes();
        let start = at + frame::HEADER_BYTES;
        let length = out.len() - start;
        if length <= self.frame_bytes {
            let [_, length @ ..] = (length as u32).to_be_bytes();
            out[at..at + 3].copy_from_slice(&length);
            return;
        }
        let section = out.split_off(start);
        out.truncate(at);
        let mut pieces = section.chunks(self.frame_bytes).enumerate().peekable();
        while let Some((n, piece)) = pieces.next() {
            let (kind, ends) = if n == 0 { (frame::HEADERS, ends) } else { (frame::CONTINUATION, 0) };
            let whole = if pieces.peek().is_none() { frame::END_HEADERS } else { 0 };
            frame::short(out, kind, ends | whole, id, piece);
        }
    }
}
