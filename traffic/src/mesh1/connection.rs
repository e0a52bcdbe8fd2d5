//! Pure. One side of a `mesh/1` connection. What the application does with its streams stands here, and with
//! their bytes in `bytes`; what comes from the other side in `receive`, what goes there in `transmit`.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use super::{
    Broken, ByNumber, Code, Decoder, Farewell, Fault, Frame, Hello, Kind, Open, STREAMS_MAX, StreamId,
    WINDOW_CONNECTION_BYTES, WINDOW_STREAM_BYTES, stream::Stream,
};
use crate::Moment;

mod bytes;
mod receive;
mod transmit;

/// Which role a side has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It dialled, and opens streams.
    Opener,
    /// It was dialled, and takes them.
    Taker,
}

/// How long a side waits for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// After so long without a word it asks whether the other side is there.
    pub quiet: Duration,
    /// After so long without an answer the connection is over.
    pub answer: Duration,
}

/// What the owner of a connection has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The other side said what it allows: streams may be opened.
    Ready,
    /// The other side opened a stream.
    Opened(StreamId, Open),
    /// Who asked a stream for bytes, or for its answer, may ask again.
    Read(StreamId),
    /// Who wrote to a full stream may write again.
    Write(StreamId),
    /// A stream broke off, which who asked whether it had is to hear.
    Broke(StreamId),
    /// The other side takes no new streams.
    GoneAway(Farewell),
}

/// What a stream has to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read<T = usize> {
    /// These bytes, or so many.
    Bytes(T),
    /// Nothing yet: [`Event::Read`] says when.
    Nothing,
    /// Nothing more.
    End,
}

/// Why a stream was not opened. Nobody has seen anything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// The connection ends, or has not begun.
    #[error("the connection takes no new streams")]
    Closed,
    /// So many are open as the other side allows.
    #[error("the connection carries as many streams as the other side allows")]
    Full,
}

/// One side of a connection.
#[derive(Debug)]
pub struct Connection {
    side: Side,
    patience: Patience,
    decoder: Decoder,
    /// What the other side allows.
    peer: Option<Hello>,
    /// Boxed: the map keeps room for as many again, and thousands may be open.
    streams: HashMap<StreamId, Box<Stream>, ByNumber>,
    /// The highest stream that was opened, by us or by the other side.
    highest: StreamId,
    /// The highest stream whose OPEN is on its way.
    told: StreamId,
    events: VecDeque<Event>,
    /// What may come on all streams together.
    granted: u32,
    /// What was read or dropped and not granted again.
    read: u32,
    /// What may be sent on all streams together.
    send_window: u32,
    /// What all streams hold to be sent.
    queued: usize,
    /// Streams that have something to send, in the order of their turns.
    round: VecDeque<StreamId>,
    /// Streams that are to be granted more.
    credits: VecDeque<StreamId>,
    /// Frames other than DATA, ready to be sent.
    control: Vec<u8>,
    /// The PING that is to be answered.
    pong: Option<u64>,
    /// Streams that were refused, or reset unanswered, one after the other.
    refused: u32,
    resets: u32,
    heard: Moment,
    pinged: Option<Moment>,
    going: bool,
    gone: bool,
    over: bool,
}

impl Connection {
    /// A connection that was just made.
    pub fn new(side: Side, patience: Patience, now: Moment) -> Self {
        let hello = Hello {
            streams: STREAMS_MAX,
            window_stream: WINDOW_STREAM_BYTES,
            window_connection: WINDOW_CONNECTION_BYTES,
            http2: true,
        };
        let mut control = Vec::new();
        Frame::Hello(hello).encode(&mut control);
        Self {
            side,
            patience,
            decoder: Decoder::default(),
            peer: None,
            streams: HashMap::default(),
            highest: 0,
            told: 0,
            events: VecDeque::new(),
            granted: WINDOW_CONNECTION_BYTES,
            read: 0,
            send_window: 0,
            queued: 0,
            round: VecDeque::new(),
            credits: VecDeque::new(),
            control,
            pong: None,
            refused: 0,
            resets: 0,
            heard: now,
            pinged: None,
            going: false,
            gone: false,
            over: false,
        }
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// If there is no room for one.
    pub fn open(&mut self, kind: Kind, port: u16) -> Result<StreamId, Unopened> {
        let peer = self.peer.filter(|_| self.opens()).ok_or(Unopened::Closed)?;
        if self.streams.len() >= peer.streams as usize {
            return Err(Unopened::Full);
        }
        self.highest += 1;
        Frame::Open(self.highest, Some(Open { kind, port })).encode(&mut self.control);
        self.streams.insert(self.highest, Box::new(Stream::new(peer.window_stream)));
        Ok(self.highest)
    }

    /// Whether new streams may be opened on it.
    pub fn opens(&self) -> bool {
        let ends = self.going || self.gone || self.over;
        self.side == Side::Opener && self.peer.is_some() && !ends && self.highest < StreamId::MAX
    }

    /// Whether the other side takes requests of HTTP/2 on its streams for requests; not before its HELLO.
    pub fn takes_http2(&self) -> bool {
        self.peer.is_some_and(|peer| peer.http2)
    }

    /// The application of a stream is reached.
    pub fn accept(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.broken.is_none() && !std::mem::replace(&mut stream.answered, true) {
            self.resets = 0;
            Frame::Accept(id).encode(&mut self.control);
        }
    }

    /// Whether the other side reached the application; `None` is not known yet, and [`Event::Read`] says when.
    pub fn answered(&mut self, id: StreamId) -> Option<Result<(), Broken>> {
        let Some(stream) = self.streams.get_mut(&id) else { return Some(Err(Broken::Ended)) };
        let broken = stream.broken.clone();
        if stream.answered {
            return Some(Ok(()));
        }
        stream.wants_read = broken.is_none();
        broken.map(Err)
    }

    /// Whether a stream broke off, or its connection did, for one who reads nothing of what came before and writes nothing;
    /// if it has not, [`Event::Broke`] says when it has.
    pub fn broke_off(&mut self, id: StreamId) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return true };
        stream.watched = stream.broken.is_none();
        !stream.watched
    }

    /// Nothing more will be written to a stream.
    pub fn finish(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.finishing = true;
            self.list(id);
        }
    }

    /// Ends a stream both ways; what was not sent is dropped.
    pub fn reset(&mut self, id: StreamId, farewell: Farewell) {
        if self.streams.get(&id).is_some_and(|stream| !stream.over()) {
            Frame::Reset(id, farewell).encode(&mut self.control);
            self.break_off(id, Broken::Ended);
        }
    }

    /// Nobody on this side asks for the stream any more. What was written before [`finish`](Self::finish) is still sent;
    /// then, or at once if it was not finished, a stream that the other side has not ended is reset.
    pub fn release(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.released = true;
        let unread = stream.received.clear();
        let last_words = stream.finishing && !stream.ended;
        if !last_words && !stream.over() {
            self.reset(id, Farewell::new(Code::CANCEL, ""));
        }
        self.give_back(unread);
        self.forget(id);
    }

    /// Takes, or opens, no new streams; those that are open go on.
    pub fn go_away(&mut self, farewell: Farewell) {
        if !self.over && !std::mem::replace(&mut self.going, true) {
            let last = if self.side == Side::Taker { self.highest } else { 0 };
            Frame::GoAway(last, farewell).encode(&mut self.control);
        }
    }

    /// Ends everything at once: the connection broke, or is cut off, because of `reason`.
    pub fn close(&mut self, reason: &str) {
        self.over = true;
        self.credits.clear();
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            let unseen = self.side == Side::Opener && id > self.told;
            self.lose(id, if unseen { Broken::Unseen } else { Broken::Lost(reason.to_owned()) });
        }
    }

    /// Tells the other side why, and ends everything.
    pub fn cut(&mut self, code: Code, reason: &str) {
        let last = if self.side == Side::Taker { self.highest } else { 0 };
        self.control.clear();
        Frame::GoAway(last, Farewell::new(code, reason)).encode(&mut self.control);
        self.close(reason);
    }

    /// Looks at the time; to be called every second or so.
    ///
    /// # Errors
    /// If the other side was silent for too long: the connection is over then.
    pub fn tick(&mut self, now: Moment) -> Result<(), Fault> {
        self.streams.values_mut().for_each(|stream| stream.shrink());
        let waits = self.side == Side::Taker || !self.streams.is_empty();
        match self.pinged {
            Some(asked) if now.since(asked) >= self.patience.answer => {
                let fault = Fault::Silent(now.since(self.heard));
                self.fail(&fault);
                return Err(fault);
            }
            None if waits && now.since(self.heard) >= self.patience.quiet => {
                self.pinged = Some(now);
                Frame::Ping(now.since_start().as_secs()).encode(&mut self.control);
            }
            _ => {}
        }
        Ok(())
    }

    /// What happened, one after the other.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Streams that are open.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// The highest stream that was opened.
    pub fn highest_stream(&self) -> StreamId {
        self.highest
    }

    /// Whether the connection may be closed: it takes no new streams, and none is open.
    pub fn drained(&self) -> bool {
        self.over || ((self.going || self.gone) && self.streams.is_empty())
    }

    /// What the connection holds in its buffers, in bytes.
    pub fn held_bytes(&self) -> usize {
        let received: usize = self.streams.values().map(|stream| stream.received.len()).sum();
        received + self.queued + self.control.len()
    }

    fn fail(&mut self, fault: &Fault) {
        self.cut(fault.code(), &fault.to_string());
    }

    /// Gives a stream that has something to send its place in the round.
    fn list(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.sendable(u32::MAX) && !std::mem::replace(&mut stream.listed, true) {
            self.round.push_back(id);
        }
    }

    /// So much of what came is no longer held.
    fn give_back(&mut self, bytes: usize) {
        self.read = self.read.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// The stream is over both ways, and who waits for it hears so; what it held is dropped.
    fn break_off(&mut self, id: StreamId, broken: Broken) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let (received, queued) = stream.break_off(broken);
        self.queued -= queued;
        self.give_back(received);
        self.wake(id, true);
        self.forget(id);
    }

    /// As [`break_off`](Self::break_off), but what came before is still to be read.
    fn lose(&mut self, id: StreamId, broken: Broken) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.broken.get_or_insert(broken);
        self.queued -= stream.queue.clear();
        self.wake(id, true);
        self.forget(id);
    }

    fn wake(&mut self, id: StreamId, broke: bool) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if std::mem::take(&mut stream.wants_read) {
            self.events.push_back(Event::Read(id));
        }
        if broke && std::mem::take(&mut stream.wants_write) {
            self.events.push_back(Event::Write(id));
        }
        if broke && std::mem::take(&mut stream.watched) {
            self.events.push_back(Event::Broke(id));
        }
    }

    /// Drops a stream that is over and that nobody asks for.
    fn forget(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(|stream| stream.released && stream.over()) {
            self.streams.remove(&id);
        }
    }
}
