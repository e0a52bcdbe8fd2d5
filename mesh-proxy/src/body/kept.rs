//! A request's body over all of its tries: what was sent is held while it is small, so that a try that failed can be
//! followed by another. Large bodies are passed on as they come and can be sent once.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::{sync::Notify, task::AbortHandle};

use super::{BodyError, Copy, Incoming};
use crate::clock;

/// The largest body that can be sent again, in bytes: held for each call that has not been answered yet.
pub const REPLAY_BYTES_MAX: usize = 64 * 1_024;

/// One request's body, for as long as tries may follow.
#[derive(Clone)]
pub struct Kept(Arc<Mutex<State>>);

struct State {
    source: Incoming,
    held: Vec<Bytes>,
    held_bytes: usize,
    trailers: Option<HeaderMap>,
    /// Everything that was sent is held.
    whole: bool,
    /// No further try follows.
    settled: bool,
    /// Someone wants all of it when it has come.
    copied: bool,
    ended: bool,
    /// The try that may read on; those before it find themselves superseded.
    current: u32,
    seen_bytes: u64,
    came_at: Option<Instant>,
    came: Arc<Notify>,
    /// What sends it in HTTP/2 beside its answer.
    sender: Option<AbortHandle>,
}

/// The body, for one try.
pub struct Attempt {
    body: Kept,
    number: u32,
    next: usize,
    trailers_sent: bool,
}

impl Kept {
    /// The body of a request that just came.
    pub fn new(source: Incoming) -> Self {
        Self(Arc::new(Mutex::new(State {
            ended: source.is_end_stream(),
            source,
            held: Vec::new(),
            held_bytes: 0,
            trailers: None,
            whole: true,
            settled: false,
            copied: false,
            current: 0,
            seen_bytes: 0,
            came_at: None,
            came: Arc::default(),
            sender: None,
        })))
    }

    /// Whether it can be sent (again) from its start.
    pub fn replayable(&self) -> bool {
        let state = self.0.lock();
        state.whole && !state.settled
    }

    /// How many bytes of it came so far.
    pub fn seen_bytes(&self) -> u64 {
        self.0.lock().seen_bytes
    }

    /// Waits until all of it came.
    pub async fn came(&self) {
        loop {
            let (ended, came) = {
                let state = self.0.lock();
                (state.ended, state.came.clone())
            };
            if ended {
                return;
            }
            let notified = came.notified();
            if self.0.lock().ended {
                return;
            }
            notified.await;
        }
    }

    /// How long ago the last of it came, if it did.
    pub fn since_it_came(&self) -> Option<Duration> {
        let at = self.0.lock().came_at?;
        Some(clock::now().saturating_duration_since(at))
    }

    /// The body from its start, for the next try; the one before gets no more of it.
    pub fn attempt(&self) -> Attempt {
        let mut state = self.0.lock();
        state.current += 1;
        Attempt { body: self.clone(), number: state.current, next: 0, trailers_sent: false }
    }

    /// No try will follow: nothing more is held, unless for a copy.
    pub fn settle(&self) {
        self.0.lock().settled = true;
    }

    /// A task sends what is left of it beside its answer: it goes with the call.
    pub fn sent_by(&self, sender: AbortHandle) {
        self.0.lock().sender = Some(sender);
    }

    /// Nobody wants the answer any more: what is left of it is not sent.
    pub fn cut(&self) {
        let sender = self.0.lock().sender.take();
        sender.into_iter().for_each(|sender| sender.abort());
    }

    /// Someone will ask for a copy: to be said before the first try.
    pub fn will_be_copied(&self) {
        self.0.lock().copied = true;
    }

    /// A copy of the whole body, once it came; `None` if it is larger than what is held, or breaks off.
    pub async fn copy(&self) -> Option<Copy> {
        let came = self.0.lock().came.clone();
        loop {
            // From here on no news is missed.
            let news = came.notified();
            {
                let state = self.0.lock();
                if !state.whole {
                    return None;
                }
                if state.ended {
                    return Some(Copy::new(state.held.clone(), state.trailers.clone()));
                }
            }
            news.await;
        }
    }
}

impl Attempt {
    /// What it is a try of.
    pub fn kept(&self) -> Kept {
        self.body.clone()
    }
}

impl State {
    fn end(&mut self) {
        self.ended = true;
        self.came_at = Some(clock::now());
        self.came.notify_waiters();
    }

    fn keep(&mut self, data: &Bytes) -> bool {
        self.seen_bytes += data.len() as u64;
        let wanted = !self.settled || self.copied;
        self.whole = self.whole && wanted && self.held_bytes + data.len() <= REPLAY_BYTES_MAX;
        if self.whole {
            self.held_bytes += data.len();
            self.held.push(data.clone());
        } else {
            // Whoever reads the source has been handed all that was held.
            self.held = Vec::new();
            self.held_bytes = 0;
            self.came.notify_waiters();
        }
        self.whole
    }
}

impl Body for Attempt {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let mut state = this.body.0.lock();
        if state.current != this.number {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if let Some(data) = state.held.get(this.next) {
            this.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        if state.ended {
            let trailers =
                state.trailers.clone().filter(|_| !std::mem::replace(&mut this.trailers_sent, true));
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        match ready!(Pin::new(&mut state.source).poll_frame(cx)) {
            None => {
                state.end();
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                state.whole = false;
                state.came.notify_waiters();
                Poll::Ready(Some(Err(error)))
            }
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.next = if state.keep(data) { this.next + 1 } else { 0 };
                }
                if let Some(trailers) = frame.trailers_ref() {
                    state.trailers = Some(trailers.clone());
                    this.trailers_sent = true;
                }
                if frame.is_trailers() || state.source.is_end_stream() {
                    state.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let state = self.body.0.lock();
        let trailers = state.trailers.is_some() && !self.trailers_sent;
        state.ended && self.next >= state.held.len() && !trailers
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.body.0.lock();
        let ahead: usize = state.held.iter().skip(self.next).map(Bytes::len).sum();
        match (state.ended, state.source.size_hint().exact()) {
            (true, _) => SizeHint::with_exact(ahead as u64),
            (false, Some(rest)) => SizeHint::with_exact(rest + ahead as u64),
            (false, None) => SizeHint::default(),
        }
    }
}
