//! HTTP/2, on both sides of a call: applications, and other proxies where they do not speak `mesh/1`, are served ([`serve`])
//! and asked ([`Client`]). The rules are those of `traffic::http2`; here bytes are moved and tasks are woken. A message is
//! written and read by the task of its call; what the tasks of many calls write while they run goes in one write once all
//! of them have run.
//!
//! A connection belongs to one source identity and one place to ask, as its pool has it.

use std::{
    collections::HashMap,
    sync::Arc,
    task::{Context, Waker},
    time::Instant,
};

use parking_lot::Mutex;
use tokio::sync::Notify;
use traffic::{
    Moment,
    http2::{Broken, Connection, Event, Patience, Side, StreamId},
    mesh1::ByNumber,
};

use crate::clock;

mod client;
mod drive;
mod fields;
mod received;
mod sending;
mod serve;
mod tunnel;

pub use client::Client;
pub(crate) use drive::dialled;
pub use received::Received;
pub use serve::serve;

/// One connection: its streams and what moves it both hold it.
struct Shared {
    state: Mutex<State>,
    /// Rung for whoever waits to open a stream: for one at a time, who passes it on where it was not used.
    room: Notify,
    began: Instant,
}

struct State {
    core: Connection,
    waiting: HashMap<StreamId, Waiting, ByNumber>,
    /// Requests that came, and that nobody has taken yet.
    asked: Vec<StreamId>,
    /// What moves the connection, while it waits.
    driver: Option<Waker>,
    used: Instant,
}

/// Who waits for a stream.
#[derive(Default)]
struct Waiting {
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Shared {
    fn new(side: Side, patience: Option<Patience>) -> Arc<Self> {
        let now = clock::now();
        let core = Connection::new(side, patience, Moment::default());
        let (waiting, asked) = (HashMap::default(), Vec::new());
        Arc::new(Self {
            state: Mutex::new(State { core, waiting, asked, driver: None, used: now }),
            room: Notify::new(),
            began: now,
        })
    }

    fn moment(&self) -> Moment {
        Moment::after_start(clock::now().saturating_duration_since(self.began))
    }

    /// Does something with the connection, then wakes whom it concerns.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let done = act(&mut state);
        let mut wakers = Vec::new();
        while let Some(event) = state.core.next_event() {
            match event {
                Event::Read(id) => {
                    wakers.extend(state.waiting.get_mut(&id).and_then(|who| who.reader.take()))
                }
                Event::Write(id) => {
                    wakers.extend(state.waiting.get_mut(&id).and_then(|who| who.writer.take()))
                }
                Event::Room if state.core.is_usable() => self.room.notify_one(),
                Event::Room => self.room.notify_waiters(),
                Event::Asked(id) => state.asked.push(id),
            }
        }
        if state.core.has_output() || state.core.is_drained() {
            wakers.extend(state.driver.take());
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        done
    }

    fn drain(&self) {
        self.with(|state| state.core.drain());
    }

    fn close(&self, why: &str) {
        self.with(|state| state.core.close(why));
    }
}

/// Who reads a stream. Dropped before the end of an answer, the stream is reset.
struct Reader {
    shared: Arc<Shared>,
    id: StreamId,
}

/// Who writes a stream. Dropped before the end of what is written, the stream is reset.
struct Writer {
    shared: Arc<Shared>,
    id: StreamId,
}

impl Reader {
    /// Waits for what is read next.
    fn wait(&self, state: &mut State, cx: &Context<'_>) {
        state.waiting.entry(self.id).or_default().reader = Some(cx.waker().clone());
    }
}

impl Writer {
    /// Whether the other side takes no more; if it does, this task is woken when it no longer will.
    fn is_unwanted(&self, cx: &Context<'_>) -> bool {
        let mut state = self.shared.state.lock();
        let unwanted = state.core.is_unwanted(self.id);
        if !unwanted {
            self.wait(&mut state, cx);
        }
        unwanted
    }

    /// Waits for room.
    fn wait(&self, state: &mut State, cx: &Context<'_>) {
        state.waiting.entry(self.id).or_default().writer = Some(cx.waker().clone());
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.with(|state| {
            state.core.release_reader(self.id);
            state.used = clock::now();
            state.forget(self.id);
        });
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.with(|state| {
            state.core.release_writer(self.id);
            state.forget(self.id);
        });
    }
}

impl State {
    /// Nobody waits for a stream that the connection has let go of.
    fn forget(&mut self, id: StreamId) {
        if !self.core.knows(id) {
            self.waiting.remove(&id);
        }
    }
}

/// What HTTP/2 says of it to whom the answer was for.
pub(crate) fn reason(broken: &Broken) -> h2::Reason {
    broken.code().0.into()
}
