//! A connection that is served, shared by what answers on it and by the body of the request that it brings: either reads or
//! writes while the other waits.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::{
    io::AsyncWrite,
    time::{Instant, Sleep},
};
use traffic::{
    http1::{Decoder, Length, Malformed},
    mesh1::Code,
};

use super::{Broke, Io, fields::Framing, sending::Outlet, wire::Wire};
use crate::clock;

/// What a caller that waits for it is told before its body is read.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// How often a socket is looked at of which more may come: whether anybody reads it is a matter of other tasks, and that its
/// caller is gone stands behind what is not read.
const LOOK: Duration = Duration::from_secs(1);

/// Both handles lead here. It is locked for the moment of one read or write.
#[derive(Clone)]
pub(super) struct Served(Arc<Mutex<State>>);

pub(super) struct State {
    /// There until it leaves HTTP.
    pub(super) wire: Option<Wire>,
    decoder: Decoder,
    /// What of [`CONTINUE`] is to be said before the body is read.
    to_say: &'static [u8],
    /// It was answered without that: whether the body comes is the caller's choice.
    unasked: bool,
    /// The connection is to end with what it carries.
    pub(super) drains: bool,
    /// It ends as soon as it carries nothing.
    pub(super) ends_idle: bool,
    /// Somebody holds the body of the request.
    held: bool,
    /// Who waits until nothing more of it is wanted.
    waits: Option<Waker>,
}

/// The body of a request.
pub struct Asked(Served);

impl Served {
    pub(super) fn new(io: Box<dyn Io>) -> Self {
        let decoder = Decoder::new(Length::Exactly(0));
        let state = State {
            wire: Some(Wire::new(io)),
            decoder,
            to_say: b"",
            unasked: false,
            drains: false,
            ends_idle: false,
            held: false,
            waits: None,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// The connection ends here, whoever else still holds a handle.
    pub(super) fn take(&self) -> Option<Wire> {
        self.0.lock().wire.take()
    }

    pub(super) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock())
    }

    /// A request has come: its body, if it has one.
    pub(super) fn begin(&self, framing: &Framing) -> Option<Asked> {
        if framing.body == Length::Exactly(0) {
            return None;
        }
        let mut state = self.0.lock();
        state.decoder = Decoder::new(framing.body);
        state.to_say = if framing.expects_continue { CONTINUE } else { b"" };
        (state.unasked, state.held) = (false, true);
        Some(Asked(self.clone()))
    }

    /// The answer begins: nothing is said between. What was begun to be said is to go before it.
    pub(super) fn answers(&self) -> &'static [u8] {
        let mut state = self.0.lock();
        let rest = std::mem::take(&mut state.to_say);
        state.unasked = rest.len() == CONTINUE.len();
        if state.unasked { b"" } else { rest }
    }

    /// Waits until the caller goes away, whether or not anybody reads what it sent; what is sent ahead waits for its turn.
    /// `beat` says when a socket is looked at.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>, beat: Pin<&mut Sleep>) -> Poll<()> {
        let mut state = self.0.lock();
        let State { wire: Some(wire), decoder, .. } = &mut *state else { return Poll::Pending };
        if decoder.is_over() && !wire.is_ahead() {
            match ready!(wire.poll_stirs(cx)) {
                Ok(true) => {}
                Ok(false) | Err(_) => return Poll::Ready(()),
            }
        }
        match wire.io.by_pieces() {
            Some(stream) => stream.poll_gone(cx),
            None => poll_look(&*wire.io, beat, cx),
        }
    }

    /// Waits until the body of the request has come, or nobody wants more of it: in HTTP/2 it may go on when the answer is
    /// over.
    pub(super) fn poll_taken(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.wire.is_none() || state.decoder.is_over() || !state.held {
            return Poll::Ready(());
        }
        state.waits = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The answer is sent. Whether another request may follow: the rest of the body is read if it is there, and is what
    /// was announced; nobody waits for it.
    pub(super) fn finish(&self, cx: &mut Context<'_>) -> bool {
        let mut state = self.0.lock();
        let State { wire: Some(wire), decoder, unasked, .. } = &mut *state else { return false };
        while !decoder.is_over() && !*unasked {
            let Poll::Ready(Some(Ok(_))) = wire.poll_body(decoder, cx) else { break };
        }
        decoder.is_over()
    }
}

/// Looks at a socket now and then, until its other side is gone.
fn poll_look(io: &dyn Io, mut beat: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        let next = Instant::from_std(clock::now()) + LOOK;
        if beat.deadline() > next {
            beat.as_mut().reset(next);
        }
        ready!(beat.as_mut().poll(cx));
        if io.is_gone() {
            return Poll::Ready(());
        }
        beat.as_mut().reset(next);
    }
}

impl State {
    /// Its other side is to see that it did not end well.
    pub(super) fn break_off(&self) {
        if let Some(wire) = &self.wire {
            wire.io.abort();
        }
    }

    /// The same, and it is told why.
    pub(super) fn reset(&self, why: Code) {
        if let Some(wire) = &self.wire {
            wire.io.reset(why);
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        let frame = ready!(self.poll_piece(cx));
        if self.decoder.is_over() {
            self.waits.take().into_iter().for_each(Waker::wake);
        }
        Poll::Ready(frame)
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        // What is left of the body will not come any more.
        let Some(wire) = &mut self.wire else { return Poll::Ready(Some(Err(Malformed::CutOff.into()))) };
        while !self.to_say.is_empty() {
            let length = ready!(Pin::new(&mut *wire.io).poll_write(cx, self.to_say)).map_err(Broke::from)?;
            self.to_say = &self.to_say[length..];
            if self.to_say.is_empty() {
                // What is not flushed now is with what is written next.
                let _ = Pin::new(&mut *wire.io).poll_flush(cx).map_err(Broke::from)?;
            }
        }
        wire.poll_body(&mut self.decoder, cx)
    }
}

impl Body for Asked {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        self.0.with(|state| state.poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.0.with(|state| state.decoder.is_over())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.with(|state| state.decoder.left()).map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.with(|state| {
            state.held = false;
            state.waits.take().into_iter().for_each(Waker::wake);
        });
    }
}

/// Writes; reading goes on beside.
impl AsyncWrite for Served {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.on_io(|io| io.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.on_io(|io| io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.on_io(|io| io.poll_shutdown(cx))
    }
}

/// The same for whole messages.
impl Outlet for Served {
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        pieces: &mut VecDeque<Bytes>,
    ) -> Poll<io::Result<usize>> {
        match &mut self.0.lock().wire {
            Some(wire) => wire.poll_write(cx, head, pieces),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(self), cx)
    }
}

impl Served {
    fn on_io<T>(&self, act: impl FnOnce(Pin<&mut dyn Io>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &mut self.0.lock().wire {
            Some(wire) => act(Pin::new(&mut *wire.io)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}
