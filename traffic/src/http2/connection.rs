//! Pure. One side of a connection.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;

use super::{
    Answer, Broken, CONTINUATIONS_MAX, CONTROL_BYTES_MAX, Code, Decoder, FIELDS_BYTES_MAX, FRAME_BYTES,
    Fault, INTERIM_MAX, Piece, RESETS_UNANSWERED_MAX, STREAMS_AT_FIRST, StreamId, TURN_BYTES,
    UNPACKED_BYTES_MAX, WINDOW_CONNECTION_BYTES, WINDOW_STREAM_BYTES, Writer,
    frame::{self, Header},
    section::{Request, Section},
    stream::{Ending, Stream},
};
use crate::{Moment, Outgoing, mesh1::ByNumber};

mod answer;
mod life;
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
/// What pings say: that asks whether the other side is there, and that tells when it has heard that no more is answered.
const THERE: &[u8; 8] = b"mesh:you";
const LEAVING: &[u8; 8] = b"mesh:bye";
/// What is told of a window once so much of it was read: a quarter.
const TOLD_PART: u32 = 4;

/// Which side of a connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It opens streams.
    Asking,
    /// It answers, so many at once.
    Answering {
        /// Streams that may be open.
        streams_max: u32,
    },
}

/// What its owner is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Who reads the stream finds something, or its end.
    Read(StreamId),
    /// Who writes the stream finds room, or that it broke off.
    Write(StreamId),
    /// There is room for another stream where there was none, or none is opened any more.
    Room,
    /// A request came; it is given once.
    Asked(StreamId),
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

/// One connection, one side of it.
#[derive(Debug)]
pub struct Connection {
    side: Side,
    streams: HashMap<StreamId, Stream, ByNumber>,
    events: VecDeque<Event>,
    next: StreamId,
    /// Streams from here on were not sent: nobody has heard of them.
    unsent: StreamId,
    /// Streams that are open, and how many may be.
    active: (usize, usize),
    /// No other stream is opened: one of the sides wants it so, or all numbers are used.
    closing: bool,
    /// How far the other side has opened streams.
    last: StreamId,
    /// It was told to open none, and has not answered yet.
    leaving: bool,
    /// Streams that came to nothing since the last one that was answered.
    wasted: u32,
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
    /// What of the preface has come.
    preface: usize,
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
    pub fn new(side: Side, patience: Option<Patience>, now: Moment) -> Self {
        let mut settings = Vec::new();
        let (mut control, (own, value)) = match side {
            Side::Asking => (PREFACE.to_vec(), (frame::ENABLE_PUSH, 0)),
            Side::Answering { streams_max } => (Vec::new(), (frame::MAX_CONCURRENT_STREAMS, streams_max)),
        };
        for (name, value) in [
            (own, value),
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
        let (streams_max, preface) = match side {
            Side::Asking => (STREAMS_AT_FIRST, PREFACE.len()),
            Side::Answering { streams_max } => (streams_max, 0),
        };
        Self {
            side,
            streams: HashMap::default(),
            events: VecDeque::new(),
            next: 1,
            unsent: 1,
            active: (0, streams_max as usize),
            closing: false,
            last: 0,
            leaving: false,
            wasted: 0,
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
            preface,
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

    /// Whether the other side takes another stream now.
    pub fn has_room(&self) -> bool {
        self.active.0 < self.active.1
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
        if !self.has_room() {
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

    /// How many bytes there is room for; with none of them [`Event::Write`] says when to ask again.
    ///
    /// # Errors
    /// If it broke off.
    pub fn room(&mut self, id: StreamId) -> Result<usize, Broken> {
        let stream = self.streams.get_mut(&id).ok_or(Broken::Ended)?;
        if let Some(broken) = &stream.broken {
            return Err(broken.clone());
        }
        let room = stream.room();
        stream.writing = room == 0;
        Ok(room)
    }

    /// Hands over bytes of a body, as far as there is room; how many. With none of them [`Event::Write`] says
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

    /// Nobody reads the stream any more. It is reset if an answer has not come to its end; what is left of a request is
    /// passed over until it is answered.
    pub fn release_reader(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.held.0 = false;
        let (unread, ended, sent) = (stream.came.clear() as u32, stream.ended, stream.sent);
        self.give_back(unread);
        match self.side {
            Side::Asking if !ended => self.reset(id, Code::CANCEL),
            Side::Answering { .. } if !ended && sent => self.reset(id, Code::NO_ERROR),
            _ => {}
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

    /// What is held of what came and was not read, and of what is owed to the other side, in bytes.
    pub fn held_bytes(&self) -> (usize, usize) {
        (self.streams.values().map(|stream| stream.came.len()).sum(), self.control.len())
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
        let unread = if stream.ended { 0 } else { stream.came.clear() as u32 };
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
            if !self.has_room() {
                self.events.push_back(Event::Room);
            }
            self.active.0 -= 1;
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
