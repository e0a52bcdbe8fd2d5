//! `mesh/1`: many streams on one TLS connection between two proxies. The rules are those of `traffic::mesh1`; here bytes
//! are moved and tasks are woken. What tasks write while they run is sent together once all of them have run: many
//! streams share a TLS record and a system call then, and nobody waits for longer than the others take.
//!
//! A connection belongs to one source identity and one endpoint, as its certificates do.

use std::{
    collections::HashMap,
    io,
    sync::Arc,
    task::{Context, Waker},
    time::Instant,
};

use parking_lot::Mutex;
use tokio::sync::Notify;
use traffic::{
    Moment, Outgoing,
    mesh1::{
        Broken, ByNumber, Code, Connection, Event, Farewell, Fault, Kind, Open, Patience, Side, StreamId,
        Unopened,
    },
};

use super::{SendError, pool::Carrier};
use crate::{
    clock,
    telemetry::{Direction, MuxCounts},
};

mod drive;
mod stream;

pub(super) use drive::dialled;
pub use drive::serve;
pub use stream::Stream;

/// The port in the OPEN of a stream for requests: each request names its own.
const REQUESTS_PORT: u16 = 80;

/// One connection: its streams and what moves it both hold it.
pub struct Mux {
    state: Mutex<State>,
    /// There is something to send, or nothing more to wait for.
    stirred: Notify,
    began: Instant,
    direction: Direction,
    counts: Arc<MuxCounts>,
}

struct State {
    core: Connection,
    waiting: HashMap<StreamId, Waiting, ByNumber>,
    /// It was said so, and what moves the connection has not come to it yet.
    stirred: bool,
    used: Instant,
}

/// Who waits for a stream.
#[derive(Default)]
struct Waiting {
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Who neither reads nor writes, and is to hear that it broke off.
    watcher: Option<Waker>,
}

/// The side of a connection that opens streams. When it is dropped the connection ends with its last stream.
pub(super) struct Opener {
    mux: Arc<Mux>,
    takes_http2: bool,
}

// === impl Mux ===

impl Mux {
    fn new(side: Side, patience: Patience, counts: Arc<MuxCounts>) -> Arc<Self> {
        let now = clock::now();
        let core = Connection::new(side, patience, Moment::default());
        let state = State { core, waiting: HashMap::default(), stirred: false, used: now };
        let direction = if side == Side::Opener { Direction::Outbound } else { Direction::Inbound };
        counts.connection(direction);
        Arc::new(Self { state: Mutex::new(state), stirred: Notify::new(), began: now, direction, counts })
    }

    fn moment(&self) -> Moment {
        Moment::after_start(clock::now().saturating_duration_since(self.began))
    }

    /// Does something with the connection, then wakes whom it concerns; returns the streams that were opened.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> (T, Vec<(StreamId, Open)>) {
        let mut state = self.state.lock();
        let done = act(&mut state);
        let (mut wakers, mut opened) = (Vec::new(), Vec::new());
        while let Some(event) = state.core.next_event() {
            match event {
                Event::Opened(id, open) => opened.push((id, open)),
                Event::Read(id) => {
                    wakers.extend(state.waiting.get_mut(&id).and_then(|who| who.reader.take()))
                }
                Event::Write(id) => {
                    wakers.extend(state.waiting.get_mut(&id).and_then(|who| who.writer.take()))
                }
                Event::Broke(id) => {
                    wakers.extend(state.waiting.get_mut(&id).and_then(|who| who.watcher.take()))
                }
                Event::GoneAway(farewell) if farewell.code != Code::DRAIN => {
                    tracing::warn!(code = %farewell.code, "another proxy cuts a connection off: {}", farewell.reason);
                }
                Event::GoneAway(_) | Event::Ready => {}
            }
        }
        self.stir(&mut state);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        (done, opened)
    }

    /// Says that there is something to send, where there is.
    fn stir(&self, state: &mut State) {
        if !state.stirred && (state.core.has_output() || state.core.drained()) {
            state.stirred = true;
            self.stirred.notify_one();
        }
    }

    /// Bytes that came.
    fn receive(&self, bytes: &[u8]) -> Result<Vec<(StreamId, Open)>, Fault> {
        let now = self.moment();
        let (received, opened) = self.with(|state| state.core.receive(now, bytes));
        received.map(|()| opened)
    }

    /// Bytes to send; how many turns streams had in them.
    fn transmit(&self, out: &mut Outgoing, most: usize) -> usize {
        let (turns, _) = self.with(|state| {
            state.stirred = false;
            state.core.transmit(out, most)
        });
        turns
    }

    fn tick(&self) -> Result<(), Fault> {
        let now = self.moment();
        self.with(|state| state.core.tick(now)).0
    }

    fn go_away(&self) {
        self.with(|state| state.core.go_away(Farewell::new(Code::DRAIN, "")));
    }

    fn drained(&self) -> bool {
        self.state.lock().core.drained()
    }

    fn open(self: &Arc<Self>, kind: Kind, port: u16) -> Result<Stream, Unopened> {
        let now = clock::now();
        let (opened, _) = self.with(|state| {
            state.used = now;
            state.core.open(kind, port)
        });
        opened.map(|id| self.stream(id))
    }

    fn stream(self: &Arc<Self>, id: StreamId) -> Stream {
        self.counts.stream(self.direction);
        Stream::new(self.clone(), id)
    }

    /// Who reads next is `cx`.
    fn wait_to_read(state: &mut State, id: StreamId, cx: &Context<'_>) {
        state.waiting.entry(id).or_default().reader = Some(cx.waker().clone());
    }

    fn wait_to_write(state: &mut State, id: StreamId, cx: &Context<'_>) {
        state.waiting.entry(id).or_default().writer = Some(cx.waker().clone());
    }

    fn watch(state: &mut State, id: StreamId, cx: &Context<'_>) {
        let watcher = &mut state.waiting.entry(id).or_default().watcher;
        if !watcher.as_ref().is_some_and(|watcher| watcher.will_wake(cx.waker())) {
            *watcher = Some(cx.waker().clone());
        }
    }

    fn release(&self, id: StreamId) {
        let now = clock::now();
        self.with(|state| {
            state.used = now;
            state.waiting.remove(&id);
            state.core.release(id);
        });
    }
}

// === impl Opener ===

impl Opener {
    /// Once the other side has said its first word.
    fn new(mux: Arc<Mux>) -> Self {
        let takes_http2 = mux.state.lock().core.takes_http2();
        Self { mux, takes_http2 }
    }

    /// Whether its streams take requests that came in HTTP/2.
    pub(super) fn takes_http2(&self) -> bool {
        self.takes_http2
    }

    /// A stream of bytes to a port, as soon as its application is reached. Nothing is sent before.
    pub(super) async fn tunnel(&self, port: u16) -> Result<Stream, Missed> {
        let mut stream = self.mux.open(Kind::Tcp, port).map_err(Missed::Unopened)?;
        stream.answered().await.map_err(Missed::Broken)?;
        Ok(stream)
    }

    /// A stream for requests, one after the other. Nobody has heard of it yet.
    pub(super) fn requests(&self) -> Result<Stream, Missed> {
        self.mux.open(Kind::Http1, REQUESTS_PORT).map_err(Missed::Unopened)
    }
}

/// Why there is no stream. Its application has got nothing of it.
pub(super) enum Missed {
    /// The connection has no room.
    Unopened(Unopened),
    /// It was refused, or the connection ended.
    Broken(Broken),
}

impl Missed {
    /// Whether another connection to the same endpoint may do better.
    pub(super) fn stale(&self) -> bool {
        match self {
            Self::Unopened(unopened) => *unopened == Unopened::Closed,
            Self::Broken(broken) => matches!(broken, Broken::Unseen | Broken::Lost(_)),
        }
    }
}

impl From<Missed> for SendError {
    fn from(missed: Missed) -> Self {
        match missed {
            Missed::Unopened(unopened) => Self::Connect(unopened.to_string()),
            Missed::Broken(Broken::Unseen) => Self::Refused(Broken::Unseen.to_string()),
            Missed::Broken(broken) => Self::Connect(broken.to_string()),
        }
    }
}

impl Carrier for Opener {
    fn load(&self) -> usize {
        self.mux.state.lock().core.streams()
    }

    fn usable(&self) -> bool {
        self.mux.state.lock().core.opens()
    }

    fn used(&self) -> Instant {
        self.mux.state.lock().used
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        self.mux.go_away();
    }
}

fn broken(broken: &Broken) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, broken.clone())
}
