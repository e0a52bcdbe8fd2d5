//! Pure. What comes in, frame by frame (RFC 9113 §6).

use bytes::{Buf as _, BytesMut};

use super::{
    Broken, CONTINUATIONS_MAX, CONTROL_BYTES_MAX, Code, Connection, Event, FRAME_BYTES, Fault, Header,
    INTERIM_MAX, LEAVING, Moment, PREFACE, RESETS_UNANSWERED_MAX, Section, Side, StreamId,
    UNPACKED_BYTES_MAX, Unfinished, WINDOW_MAX, frame,
};
use crate::pieces::{PIECE_BYTES_LEAST, Pieces};

/// The frame sizes that a side may take (§6.5.2).
const FRAME_SIZES: std::ops::RangeInclusive<u32> = 16_384..=16_777_215;
/// The size of a table of fields that is meant where none is said.
const TABLE_BYTES: u32 = 4_096;
const NO_STREAM: Fault = Fault { code: Code::PROTOCOL, what: "a frame is of a stream that was never opened" };

impl Connection {
    /// Whether more may be read: not before the answers to what came have gone.
    pub fn listens(&self) -> bool {
        self.control.len() < CONTROL_BYTES_MAX && self.lost.is_none()
    }

    /// Takes the whole frames off the front of what came.
    ///
    /// # Errors
    /// If the other side broke the rules; [`Self::fail`] tells it.
    pub fn receive(&mut self, now: Moment, bytes: &mut BytesMut) -> Result<(), Fault> {
        self.heard = now;
        self.preface(bytes)?;
        while let Some(header) = Header::read(bytes) {
            if header.length > FRAME_BYTES as usize {
                return Err(Fault::size("a frame is larger than what is read"));
            }
            let whole = frame::HEADER_BYTES + header.length;
            if bytes.len() < whole {
                break;
            }
            if !self.greeted && (header.kind != frame::SETTINGS || header.has(frame::ACK)) {
                return Err(Fault::protocol("it does not begin with its settings"));
            }
            if self.section.is_some() && header.kind != frame::CONTINUATION {
                return Err(Fault::protocol("something stands within a section of fields"));
            }
            if header.kind == frame::DATA {
                let (start, end) = header.stripped(&bytes[frame::HEADER_BYTES..whole])?;
                let (start, end) = (frame::HEADER_BYTES + start, frame::HEADER_BYTES + end);
                if end - start >= PIECE_BYTES_LEAST {
                    let payload = bytes.split_to(whole).freeze().slice(start..end);
                    self.data(header, payload.len(), |came| came.push(payload))?;
                } else {
                    // Where it was read there is room for what comes next, then.
                    self.data(header, end - start, |came| came.copy(&bytes[start..end]))?;
                    bytes.advance(whole);
                }
            } else {
                self.frame(header, &bytes[frame::HEADER_BYTES..whole])?;
                bytes.advance(whole);
            }
            if self.wasted > RESETS_UNANSWERED_MAX {
                return Err(Fault { code: Code::CALM, what: "it opens streams for nothing" });
            }
        }
        Ok(())
    }

    /// What an asking side begins with.
    fn preface(&mut self, bytes: &mut BytesMut) -> Result<(), Fault> {
        let left = PREFACE.get(self.preface..).unwrap_or_default();
        let came = left.len().min(bytes.len());
        if bytes[..came] != left[..came] {
            return Err(Fault::protocol("it does not begin as HTTP/2 does"));
        }
        self.preface += came;
        bytes.advance(came);
        Ok(())
    }

    fn frame(&mut self, header: Header, payload: &[u8]) -> Result<(), Fault> {
        match header.kind {
            frame::HEADERS => self.headers(header, payload),
            frame::CONTINUATION => self.continuation(header, payload),
            frame::RST_STREAM => self.was_reset(header, payload),
            frame::SETTINGS => self.settings(header, payload),
            frame::PING => self.ping(header, payload),
            frame::GOAWAY => self.went_away(header, payload),
            frame::WINDOW_UPDATE => self.window(header, payload),
            frame::PUSH_PROMISE => Err(Fault::protocol("it pushes, though it was told not to")),
            frame::PRIORITY if header.stream == 0 => Err(Fault::protocol("a priority is of no stream")),
            frame::PRIORITY if payload.len() != 5 => Err(Fault::size("a priority has another length")),
            // Others may come with other versions (§4.1).
            _ => Ok(()),
        }
    }

    /// Whether frames of it may come: what was opened once may be over by now.
    fn was_opened(&self, id: StreamId) -> Result<(), Fault> {
        let opened = match self.side {
            Side::Asking => id < self.next,
            Side::Answering { .. } => id <= self.last,
        };
        if id % 2 == 1 && opened { Ok(()) } else { Err(NO_STREAM) }
    }

    /// `put` adds its payload, of so many bytes without padding, to what came.
    fn data(&mut self, header: Header, payload: usize, put: impl FnOnce(&mut Pieces)) -> Result<(), Fault> {
        let (id, length) = (header.stream, header.length as u32);
        self.was_opened(id)?;
        self.window_in -= i64::from(length);
        if self.window_in < 0 {
            return Err(Fault {
                code: Code::FLOW_CONTROL,
                what: "it sends more than the connection's window",
            });
        }
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.broken.is_none()) else {
            self.give_back(length);
            return Ok(());
        };
        stream.window_in -= i64::from(length);
        let padding = length - payload as u32;
        let left = stream.left.map(|left| left.checked_sub(payload as u64));
        let ends = header.has(frame::END_STREAM);
        let wrong = match left {
            _ if stream.ended => Some((STREAM_CLOSED, "DATA comes behind its end")),
            _ if !stream.headed => Some((Code::PROTOCOL, "DATA comes before its head")),
            _ if stream.window_in < 0 => Some((Code::FLOW_CONTROL, "it sends more than the stream's window")),
            Some(None) => Some((Code::PROTOCOL, LONGER)),
            Some(Some(1..)) if ends => Some((Code::PROTOCOL, SHORTER)),
            _ => None,
        };
        if let Some((code, what)) = wrong {
            self.give_back(length);
            self.wrong(id, code, what);
            return Ok(());
        }
        stream.left = left.flatten();
        stream.untold += padding;
        stream.ended = ends;
        // What nobody reads is passed over.
        let passed = if stream.held.0 { padding } else { length };
        if stream.held.0 && payload > 0 {
            put(&mut stream.came);
        }
        self.give_back(passed);
        if payload > 0 || ends {
            self.came(id, ends);
        }
        Ok(())
    }

    /// Something came that whoever reads the stream waits for.
    fn came(&mut self, id: StreamId, ends: bool) {
        self.news(id);
        if ends {
            self.settle(id);
        }
    }

    /// What came on a stream is no answer; nothing is wrong with the others.
    fn wrong(&mut self, id: StreamId, code: Code, what: &'static str) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        (stream.broken, stream.ended) = (Some(Broken::Malformed(what)), false);
        frame::short(&mut self.control, frame::RST_STREAM, 0, id, &code.0.to_be_bytes());
        self.waste();
        self.broke(id);
    }

    fn headers(&mut self, header: Header, payload: &[u8]) -> Result<(), Fault> {
        let opens = matches!(self.side, Side::Answering { .. }) && header.stream % 2 == 1;
        if !opens {
            self.was_opened(header.stream)?;
        }
        let (start, end) = header.stripped(payload)?;
        let (stream, ends, section) = (header.stream, header.has(frame::END_STREAM), &payload[start..end]);
        if header.has(frame::END_HEADERS) {
            return self.fields(stream, ends, section);
        }
        self.section = Some(Unfinished { stream, ends, bytes: section.to_vec(), frames: 1 });
        Ok(())
    }

    fn continuation(&mut self, header: Header, payload: &[u8]) -> Result<(), Fault> {
        let Some(mut section) = self.section.take().filter(|section| section.stream == header.stream) else {
            return Err(Fault::protocol("a section of fields goes on that was not begun"));
        };
        section.bytes.extend_from_slice(payload);
        section.frames += 1;
        if section.bytes.len() > UNPACKED_BYTES_MAX || section.frames > CONTINUATIONS_MAX {
            return Err(Fault { code: Code::CALM, what: "a section of fields does not come to its end" });
        }
        if header.has(frame::END_HEADERS) {
            return self.fields(section.stream, section.ends, &section.bytes);
        }
        self.section = Some(section);
        Ok(())
    }

    /// A whole section. It is read in any case: the next one may refer to what it put into the table.
    fn fields(&mut self, id: StreamId, ends: bool, bytes: &[u8]) -> Result<(), Fault> {
        let mut section = Section::default();
        let read = self.decoder.read(bytes, |field| section.take(field));
        read.map_err(|malformed| Fault { code: Code::COMPRESSION, what: malformed.0 })?;
        if section.is_bomb() {
            return Err(Fault { code: Code::CALM, what: "its fields are packed too well" });
        }
        if matches!(self.side, Side::Answering { .. }) && id > self.last {
            self.asked(id, ends, section);
            return Ok(());
        }
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.broken.is_none()) else {
            return Ok(());
        };
        let taken = match (stream.ended, stream.headed) {
            (true, _) => Err("fields come behind its end"),
            (false, true) if !ends => Err("fields stand within its body"),
            (false, true) => section.trailers().map(|trailers| stream.trailers = Some(trailers)),
            (false, false) => section.answer().and_then(|answer| match answer.status {
                101 => Err("HTTP/2 is not left by 101"),
                100..200 if ends => Err("it ends before its answer"),
                100..200 if stream.interim == INTERIM_MAX => Err("it does not come to its answer"),
                100..200 => {
                    stream.interim += 1;
                    Ok(())
                }
                status => {
                    stream.left = if stream.bodiless || status == 304 { Some(0) } else { answer.length };
                    (stream.head, stream.headed) = (Some(answer), true);
                    Ok(())
                }
            }),
        };
        let taken = taken.and_then(|()| if ends && stream.left > Some(0) { Err(SHORTER) } else { Ok(()) });
        if let Err(what) = taken {
            self.wrong(id, Code::PROTOCOL, what);
            return Ok(());
        }
        stream.ended = ends;
        if stream.headed {
            self.came(id, ends);
        }
        Ok(())
    }

    fn was_reset(&mut self, header: Header, payload: &[u8]) -> Result<(), Fault> {
        self.was_opened(header.stream)?;
        let code = Code(frame::number(payload)?);
        let Some(stream) = self.streams.get_mut(&header.stream).filter(|stream| !stream.is_over()) else {
            return Ok(());
        };
        // An answer that is whole stays so: what is left of its request is not wanted (§8.1).
        let unseen = code == Code::REFUSED && !stream.headed;
        stream.broken = Some(if unseen { Broken::Unseen } else { Broken::Reset(code) });
        let answered = stream.answered;
        self.broke(header.stream);
        if !answered {
            self.waste();
        }
        Ok(())
    }

    fn settings(&mut self, header: Header, payload: &[u8]) -> Result<(), Fault> {
        if header.stream != 0 {
            return Err(Fault::protocol("settings are of a stream"));
        }
        if header.has(frame::ACK) {
            return if payload.is_empty() {
                Ok(())
            } else {
                Err(Fault::size("an answer to settings says something"))
            };
        }
        let full = !self.has_room();
        if !std::mem::replace(&mut self.greeted, true) && self.side == Side::Asking {
            self.active.1 = usize::MAX;
        }
        for (name, value) in frame::settings(payload)? {
            match name {
                frame::HEADER_TABLE_SIZE => self.without_table |= value < TABLE_BYTES,
                frame::ENABLE_PUSH if value > u32::from(self.side != Side::Asking) => {
                    return Err(Fault::protocol("a server would be pushed to"));
                }
                frame::MAX_CONCURRENT_STREAMS if self.side == Side::Asking => {
                    self.active.1 = value as usize;
                }
                frame::INITIAL_WINDOW_SIZE => self.windows_at_first(i64::from(value))?,
                frame::MAX_FRAME_SIZE if !FRAME_SIZES.contains(&value) => {
                    return Err(Fault::protocol("frames cannot have the size that it takes"));
                }
                frame::MAX_FRAME_SIZE => self.frame_bytes = value as usize,
                _ => {}
            }
        }
        if full && self.has_room() {
            self.events.push_back(Event::Room);
        }
        frame::short(&mut self.control, frame::SETTINGS, frame::ACK, 0, &[]);
        Ok(())
    }

    /// All streams' windows change by as much as that of new ones (§6.9.2).
    fn windows_at_first(&mut self, window: i64) -> Result<(), Fault> {
        const TOO_LARGE: Fault = Fault { code: Code::FLOW_CONTROL, what: "a stream's window is too large" };
        if window > WINDOW_MAX {
            return Err(TOO_LARGE);
        }
        let more = window - std::mem::replace(&mut self.window_at_first, window);
        let open: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in open {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.window_out += more;
                if stream.window_out > WINDOW_MAX {
                    return Err(TOO_LARGE);
                }
            }
            self.stir(id);
        }
        Ok(())
    }

    fn ping(&mut self, header: Header, payload: &[u8]) -> Result<(), Fault> {
        if header.stream != 0 {
            return Err(Fault::protocol("a ping is of a stream"));
        }
        if payload.len() != 8 {
            return Err(Fault::size("a ping has another length"));
        }
        if !header.has(frame::ACK) {
            frame::short(&mut self.control, frame::PING, frame::ACK, 0, payload);
        } else if payload == LEAVING && self.leaving && !std::mem::replace(&mut self.closing, true) {
            self.go_away(self.last, Code::NO_ERROR);
        }
        Ok(())
    }

    fn went_away(&mut self, header: Header, payload: &[u8]) -> Result<(), Fault> {
        if header.stream != 0 {
            return Err(Fault::protocol("a GOAWAY is of a stream"));
        }
        let last =
            payload.get(..4).filter(|_| payload.len() >= 8).ok_or(Fault::size("a GOAWAY is cut short"))?;
        let last = frame::number(last)? & 0x7fff_ffff;
        if self.side != Side::Asking {
            // It asks no more: what it has asked is answered.
            self.closing = true;
            return Ok(());
        }
        self.drain();
        let unseen: Vec<StreamId> = self.streams.keys().copied().filter(|id| *id > last).collect();
        for id in unseen {
            if let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.is_over()) {
                stream.broken = Some(Broken::Unseen);
                self.broke(id);
            }
        }
        Ok(())
    }

    fn window(&mut self, header: Header, payload: &[u8]) -> Result<(), Fault> {
        let more = i64::from(frame::number(payload)? & 0x7fff_ffff);
        let id = header.stream;
        if id == 0 {
            self.window_out += more;
            if more == 0 || self.window_out > WINDOW_MAX {
                let code = if more == 0 { Code::PROTOCOL } else { Code::FLOW_CONTROL };
                return Err(Fault { code, what: "the connection's window grows by nothing or too much" });
            }
            self.turns.append(&mut self.stuck);
            return Ok(());
        }
        self.was_opened(id)?;
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.broken.is_none()) else {
            return Ok(());
        };
        stream.window_out += more;
        if more == 0 || stream.window_out > WINDOW_MAX {
            let code = if more == 0 { Code::PROTOCOL } else { Code::FLOW_CONTROL };
            self.wrong(id, code, "a stream's window grows by nothing or too much");
            return Ok(());
        }
        self.stir(id);
        Ok(())
    }
}

/// A frame came of a stream that was closed (§5.1).
const STREAM_CLOSED: Code = Code(5);
const LONGER: &str = "its body is longer than it says";
const SHORTER: &str = "its body is shorter than it says";
