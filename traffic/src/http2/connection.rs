//! Pure. The asking side of a connection.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;

use super::{
    Answer, Broken, CONTINUATIONS_MAX, CONTROL_BYTES_MAX, Code, Decoder, FIELDS_BYTES_MAX, FRAME_BYTES,
    Fault, INTERIM_MAX, Piece, STREAMS_AT_FIRST, StreamId, TURN_BYTES, WINDOW_CONNECTION_BYTES,
    WINDOW_STREAM_BYTES, Writer,
    frame::{self, Header},
    section::Section,
    stream::{Ending, Stream},
};
use crate::{Moment, Outgoing, mesh1::ByNumber};

mod receive;
mod transmit;

/// What begins a connection (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What every connection may send at first, and every stream, in bytes (§6.9.2).
const WINDOW_AT_FIRST: i64 = 65_535;
/// The largest window (§6.9.1).
const WINDOW_MAX: i64 = 0x7fff_ffff;
/// The last number that a stream may have.
const LAST: StreamId = 0x7fff_ffff;
/// What is told of a window once so much of it was read: a quarter.
const TOLD_PART: u32 = 4;

/// What its owner is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Who reads the stream finds something, or its end.
    Read(StreamId),
    /// Who writes the stream finds room, or that it broke off.
    Write(StreamId),
    /// Another stream may be opened, or none any more.
    Room,
}

/// Why no stream was opened. Nobody has heard of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unopened {
    /// As many are open as the other side takes: [`Event::Room`] says when to ask again.
    Full,
    /// The connection ends.
    Closed,
}

/// How long a connection on which something is under way may be silent.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Then the other side is asked for a sign of life.
    pub quiet: Duration,
    /// So long it may take to give it.
    pub answer: Duration,
}

/// One connection, its asking side.
#[derive(Debug)]
pub struct Connection {
    streams: HashMap<StreamId, Stream, ByNumber>,
    events: VecDeque<Event>,
    next: StreamId,
    /// Streams from here on were not sent: nobody has heard of them.
    unsent: StreamId,
    /// Streams that are open, and how many may be.
    active: (usize, usize),
    /// Someone waits to open one.
    crowded: bool,
    /// No other stream is opened: one of the sides wants it so, or all numbers are used.
    closing: bool,
    lost: Option<String>,
    // --- what goes out ---
    control: Vec<u8>,
    turns: VecDeque<StreamId>,
    /// Those that wait for the connection's window.
    stuck: VecDeque<StreamId>,
    window_out: i64,
    /// A new stream's window, and the largest frame, as the other side has said.
    window_at_first: i64,
    frame_bytes: usize,
    /// The next section has to say that no table is used.
    without_table: bool,
    // --- what comes in ---
    decoder: Decoder,
    /// The settings of the other side have come.
    greeted: bool,
    section: Option<Unfinished>,
    window_in: i64,
    untold: u32,
    // --- time ---
    patience: Option<Patience>,
    heard: Moment,
    asked: Option<Moment>,
}

/// A section of fields whose end has not come.
#[derive(Debug)]
struct Unfinished {
    stream: StreamId,
    ends: bool,
    bytes: Vec<u8>,
    frames: usize,
}

impl Connection {
    /// One that was just made. Without patience it may be silent for ever.
    pub fn new(patience: Option<Patience>, now: Moment) -> Self {
        let mut control = PREFACE.to_vec();
        let mut settings = Vec::new();
        for (name, value) in [
            (frame::ENABLE_PUSH, 0),
            (frame::INITIAL_WINDOW_SIZE, WINDOW_STREAM_BYTES),
            (frame::MAX_FRAME_SIZE, FRAME_BYTES),
            (frame::MAX_HEADER_LIST_SIZE, FIELDS_BYTES_MAX as u32),
        ] {
            settings.extend_from_slice(&u16::to_be_bytes(name));
            settings.extend_from_slice(&u32::to_be_bytes(value));
        }
        frame::short(&mut control, frame::SETTINGS, 0, 0, &settings);
        let more = WINDOW_CONNECTION_BYTES - WINDOW_AT_FIRST as u32;
        frame::short(&mut control, frame::WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        Self {
            streams: HashMap::default(),
            events: VecDeque::new(),
            next: 1,
            unsent: 1,
            active: (0, STREAMS_AT_FIRST as usize),
            crowded: false,
            closing: false,
            lost: None,
            control,
            turns: VecDeque::new(),
            stuck: VecDeque::new(),
            window_out: WINDOW_AT_FIRST,
            window_at_first: WINDOW_AT_FIRST,
            frame_bytes: TURN_BYTES,
            without_table: false,
            decoder: Decoder::default(),
            greeted: false,
            section: None,
            window_in: i64::from(WINDOW_CONNECTION_BYTES),
            untold: 0,
            patience,
            heard: now,
            asked: None,
        }
    }

    /// What is to be told next.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether another stream may be opened, now or when there is room.
    pub fn is_usable(&self) -> bool {
        !self.closing && self.lost.is_none()
    }

    /// Streams that are open.
    pub fn streams(&self) -> usize {
        self.active.0
    }

    /// Opens a stream by a request's head. With `whole` nothing follows it; the answer to one that is `bodiless` has
    /// no body (HEAD).
    ///
    /// # Errors
    /// If none may be opened: nothing was written, then.
    pub fn open(
        &mut self,
        whole: bool,
        bodiless: bool,
        write: impl FnOnce(&mut Writer),
    ) -> Result<StreamId, Unopened> {
        if !self.is_usable() {
            return Err(Unopened::Closed);
        }
        if self.active.0 >= self.active.1 {
            self.crowded = true;
            return Err(Unopened::Full);
        }
        let id = self.next;
        self.next += 2;
        self.closing |= self.next > LAST;
        self.active.0 += 1;
        let mut control = std::mem::take(&mut self.control);
        self.write_fields(&mut control, id, whole, write);
        self.control = control;
        let window_in = i64::from(WINDOW_STREAM_BYTES);
        self.streams.insert(id, Stream::new(self.window_at_first, window_in, bodiless, whole));
        Ok(id)
    }

    /// Hands over bytes of a request's body, as far as there is room; how many. With none of them [`Event::Write`] says
    /// when to ask again.
    ///
    /// # Errors
    /// If it broke off.
    pub fn give(&mut self, id: StreamId, data: &mut Bytes) -> Result<usize, Broken> {
        let stream = self.streams.get_mut(&id).ok_or(Broken::Ended)?;
        if let Some(broken) = &stream.broken {
            return Err(broken.clone());
        }
        let given = stream.queue(data);
        stream.writing = !data.is_empty();
        self.stir(id);
        Ok(given)
    }

    /// Whether the other side takes no more of a request. If it does, [`Event::Write`] says when it no longer will.
    pub fn is_unwanted(&mut self, id: StreamId) -> bool {
        self.streams.get_mut(&id).is_none_or(|stream| {
            stream.watching = stream.broken.is_none();
            !stream.watching
        })
    }

    /// Ends a request's body, with trailers or without.
    pub fn finish(&mut self, id: StreamId, trailers: Option<Writer>) {
        if let Some(stream) =
            self.streams.get_mut(&id).filter(|stream| !stream.sent && stream.broken.is_none())
        {
            stream.ending =
                Some(trailers.map_or(Ending::Plain, |trailers| Ending::Trailers(trailers.into_bytes())));
            self.stir(id);
        }
    }

    /// Ends a stream at once, both ways.
    pub fn reset(&mut self, id: StreamId, code: Code) {
        if let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.is_over()) {
            stream.broken = Some(Broken::Ended);
            frame::short(&mut self.control, frame::RST_STREAM, 0, id, &code.0.to_be_bytes());
            self.broke(id);
        }
    }

    /// The answer's head, once, and whether it is all of the answer; `None` until it has come.
    ///
    /// # Errors
    /// If the stream broke off before.
    pub fn head(&mut self, id: StreamId) -> Result<Option<(Answer, bool)>, Broken> {
        let stream = self.streams.get_mut(&id).ok_or(Broken::Ended)?;
        if let Some(head) = stream.head.take() {
            return Ok(Some((head, stream.is_read())));
        }
        stream.reading = true;
        stream.broken.clone().map_or(Ok(None), Err)
    }

    /// What comes next of the answer's body.
    ///
    /// # Errors
    /// If it broke off.
    pub fn take(&mut self, id: StreamId) -> Result<Piece, Broken> {
        let stream = self.streams.get_mut(&id).ok_or(Broken::Ended)?;
        let piece = stream.take()?;
        stream.reading = piece == Piece::Nothing;
        if let Piece::Data(data) = &piece {
            let bytes = data.len() as u32;
            if !stream.ended {
                stream.untold += bytes;
                if stream.untold >= WINDOW_STREAM_BYTES / TOLD_PART {
                    stream.window_in += i64::from(stream.untold);
                    let told = std::mem::take(&mut stream.untold);
                    frame::short(&mut self.control, frame::WINDOW_UPDATE, 0, id, &told.to_be_bytes());
                }
            }
            self.give_back(bytes);
        }
        Ok(piece)
    }

    /// Whether it was not let go of yet: someone holds it, or it is not over.
    pub fn knows(&self, id: StreamId) -> bool {
        self.streams.contains_key(&id)
    }

    /// Whether nothing of the answer is left to be read.
    pub fn is_read(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_none_or(Stream::is_read)
    }

    /// Nobody reads the stream any more; it is reset if its answer has not come to its end.
    pub fn release_reader(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.held.0 = false;
        let (unread, ended) = (stream.drop_unread() as u32, stream.ended);
        self.give_back(unread);
        if !ended {
            self.reset(id, Code::CANCEL);
        }
        self.forget(id);
    }

    /// Nobody writes the stream any more; it is reset if its request has not come to its end.
    pub fn release_writer(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.held.1 = false;
        if stream.ending.is_none() && !stream.sent {
            self.reset(id, Code::CANCEL);
        }
        self.forget(id);
    }

    /// No other stream is opened; those that are go on.
    pub fn drain(&mut self) {
        self.closing = true;
        self.events.push_back(Event::Room);
    }

    /// Whether nothing is left to carry, and no other stream is opened.
    pub fn is_drained(&self) -> bool {
        self.closing && self.active.0 == 0 && self.control.is_empty()
    }

    /// The other side broke the rules: it is told, and all ends.
    pub fn fail(&mut self, fault: &Fault) {
        let mut payload = [0; 8];
        payload[4..].copy_from_slice(&fault.code.0.to_be_bytes());
        frame::short(&mut self.control, frame::GOAWAY, 0, 0, &payload);
        self.close(&fault.to_string());
    }

    /// The connection ended.
    pub fn close(&mut self, why: &str) {
        if self.lost.is_some() {
            return;
        }
        (self.lost, self.closing) = (Some(why.to_owned()), true);
        let open: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in open {
            if let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.is_over()) {
                let unseen = id >= self.unsent;
                stream.broken = Some(if unseen { Broken::Unseen } else { Broken::Lost(why.to_owned()) });
                self.broke(id);
            }
        }
        self.events.push_back(Event::Room);
    }

    /// What is held of what came and was not read, and of what is owed to the other side, in bytes.
    pub fn held_bytes(&self) -> (usize, usize) {
        (self.streams.values().map(Stream::unread).sum(), self.control.len())
    }

    /// Looks at the time: every second or so.
    ///
    /// # Errors
    /// If the other side gives no sign of life.
    pub fn tick(&mut self, now: Moment) -> Result<(), Fault> {
        let Some(patience) = self.patience.filter(|_| self.active.0 > 0) else {
            self.asked = None;
            return Ok(());
        };
        match self.asked {
            Some(asked) if self.heard > asked => self.asked = None,
            Some(asked) if now.since(asked) >= patience.answer => {
                return Err(Fault { code: Code::NO_ERROR, what: "it gives no sign of life" });
            }
            Some(_) => {}
            None if now.since(self.heard) >= patience.quiet => {
                self.asked = Some(now);
                frame::short(&mut self.control, frame::PING, 0, 0, b"mesh:you");
            }
            None => {}
        }
        Ok(())
    }

    /// Gives bytes of the connection's window back.
    fn give_back(&mut self, bytes: u32) {
        self.untold += bytes;
        if self.untold >= WINDOW_CONNECTION_BYTES / TOLD_PART {
            self.window_in += i64::from(self.untold);
            let told = std::mem::take(&mut self.untold);
            frame::short(&mut self.control, frame::WINDOW_UPDATE, 0, 0, &told.to_be_bytes());
        }
    }

    /// A stream broke off: whoever waits is told, and what it held goes.
    fn broke(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.drop_unsent();
        let unread = if stream.ended { 0 } else { stream.drop_unread() as u32 };
        self.give_back(unread);
        self.news(id);
        self.settle(id);
    }

    /// Wakes whoever waits for the stream.
    fn news(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if std::mem::take(&mut stream.reading) {
            self.events.push_back(Event::Read(id));
        }
        if stream.broken.is_some() && (stream.writing || stream.watching) {
            (stream.writing, stream.watching) = (false, false);
            self.events.push_back(Event::Write(id));
        }
    }

    /// A stream that is over makes room for another.
    fn settle(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.is_over() && std::mem::take(&mut stream.active) {
            self.active.0 -= 1;
            if std::mem::take(&mut self.crowded) {
                self.events.push_back(Event::Room);
            }
        }
        self.forget(id);
    }

    /// Lets go of a stream that is over and that nobody holds.
    fn forget(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(|stream| stream.held == (false, false) && !stream.active) {
            self.streams.remove(&id);
        }
    }
}
