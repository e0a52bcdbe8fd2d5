//! What moves the bytes of a connection, and ends it.

use std::{
    future::{pending, poll_fn},
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::io::poll_read_buf;
use traffic::{
    Outgoing,
    http2::{Fault, Patience},
};

use super::{Client, Shared};
use crate::transport::{
    Driven,
    life::{Cut, End, Life},
};

/// What is written at once, in bytes.
const WRITE_BYTES: usize = 64 * 1_024;
/// What of that is kept for the next time, in bytes.
const KEPT_BYTES: usize = 32 * 1_024;
/// How many pieces are written at once.
const SLICES: usize = 16;
/// What is read at once, in bytes: small at first, large while a large body comes.
const READ_BYTES: (usize, usize) = (8 * 1_024, 64 * 1_024);
/// What is read before those who wait for it have their turn, in bytes.
const TURN_BYTES: usize = 256 * 1_024;
/// How often the time is looked at.
const TICK: Duration = Duration::from_secs(1);
/// How long the other side may take to hear why a connection ends.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// How a connection came to its end.
enum Ended {
    /// Nothing is left to carry.
    Drained,
    /// The other side closed it, or it broke.
    Lost(String),
    /// The other side broke the rules, or is silent.
    Fault(Fault),
    /// Its peer is no longer believed.
    Cut(Cut),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Lost(error.to_string())
    }
}

/// A connection that was dialled, for as long as its certificates live, if it has any.
pub(crate) fn dialled<S>(stream: S, patience: Option<Patience>, life: Option<Life>) -> Driven<Client>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let shared = Shared::new(patience);
    let line = Line {
        shared: shared.clone(),
        stream,
        came: BytesMut::new(),
        large: false,
        out: Outgoing::default(),
        unflushed: false,
    };
    Driven::new(Client { shared }, drive(line, patience.is_some(), life))
}

async fn drive<S: AsyncRead + AsyncWrite + Unpin>(mut line: Line<S>, timed: bool, life: Option<Life>) {
    let shared = line.shared.clone();
    let ended = tokio::select! {
        // What came is taken before it is decided that nothing came.
        biased;
        ended = poll_fn(|cx| line.poll(cx)) => ended,
        cut = watch_life(&shared, life) => Ended::Cut(cut),
        fault = watch_time(&shared, timed) => Ended::Fault(fault),
    };
    match ended {
        Ended::Drained => {}
        Ended::Lost(why) => {
            tracing::debug!(why, "a connection ended");
            return shared.close(&why);
        }
        Ended::Fault(fault) => {
            tracing::debug!(%fault, "a connection is cut off");
            shared.with(|state| state.core.fail(&fault));
        }
        Ended::Cut(refused) => {
            tracing::warn!(%refused, "a connection to another proxy is cut off");
            shared.close(&refused.to_string());
        }
    }
    // Who does not listen does not hear it.
    drop(timeout(FAREWELL_TIMEOUT, line.farewell()).await);
}

/// Lets it drain when it has to; ends when the other side is no longer believed.
async fn watch_life(shared: &Shared, life: Option<Life>) -> Cut {
    let Some(mut life) = life else { return pending().await };
    match life.ended().await {
        End::Close(refused) => refused,
        End::Drain => {
            shared.drain();
            pending().await
        }
    }
}

async fn watch_time(shared: &Shared, timed: bool) -> Fault {
    if !timed {
        return pending().await;
    }
    let mut beat = interval(TICK);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        let now = shared.moment();
        if let Err(fault) = shared.with(|state| state.core.tick(now)) {
            return fault;
        }
    }
}

/// The bytes of a connection.
struct Line<S> {
    shared: Arc<Shared>,
    stream: S,
    came: BytesMut,
    /// What was read last filled its buffer.
    large: bool,
    out: Outgoing,
    unflushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    /// Moves what there is, both ways.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let mut taken = 0;
        loop {
            if let Err(error) = self.write(cx) {
                return Poll::Ready(error.into());
            }
            if taken >= TURN_BYTES {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let listens = {
                let state = self.shared.state.lock();
                if state.core.is_drained() && self.out.is_empty() && !self.unflushed {
                    return Poll::Ready(Ended::Drained);
                }
                state.core.listens()
            };
            if listens {
                match self.read(cx) {
                    Poll::Ready(Ok(length)) => {
                        taken += length;
                        continue;
                    }
                    Poll::Ready(Err(ended)) => return Poll::Ready(ended),
                    Poll::Pending => {}
                }
            }
            let mut state = self.shared.state.lock();
            let waits = !self.out.is_empty() || self.unflushed;
            if waits || !state.core.has_output() && !state.core.is_drained() {
                state.driver = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
    }

    /// Writes what there is, as far as it is taken.
    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            if self.out.is_empty() {
                self.shared.with(|state| state.core.transmit(&mut self.out, WRITE_BYTES));
            }
            if self.out.is_empty() {
                self.out.shrink_to(KEPT_BYTES);
                break;
            }
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = self.out.slices(&mut slices);
            let stream = Pin::new(&mut self.stream);
            let written = match &slices[..count] {
                [only] => stream.poll_write(cx, only),
                slices => stream.poll_write_vectored(cx, slices),
            };
            match written? {
                Poll::Pending => break,
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(length) => self.out.advance(length),
            }
            self.unflushed = true;
        }
        if self.unflushed {
            self.unflushed = Pin::new(&mut self.stream).poll_flush(cx)?.is_pending();
        }
        Ok(())
    }

    /// Reads once, and hands on what came; how much.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Ended>> {
        let room = if self.large { READ_BYTES.1 } else { READ_BYTES.0 };
        self.came.reserve(room);
        let length = match poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.came) {
            Poll::Pending => {
                if self.came.is_empty() && self.large {
                    (self.came, self.large) = (BytesMut::new(), false);
                }
                return Poll::Pending;
            }
            Poll::Ready(Ok(0)) => {
                return Poll::Ready(Err(Ended::Lost("the other side closed it".to_owned())));
            }
            Poll::Ready(Ok(length)) => length,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
        };
        self.large = self.came.len() >= READ_BYTES.0;
        let now = self.shared.moment();
        let received = self.shared.with(|state| state.core.receive(now, &mut self.came));
        Poll::Ready(received.map(|()| length).map_err(Ended::Fault))
    }

    /// Says the last word.
    async fn farewell(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            self.write(cx)?;
            if self.out.is_empty() && !self.unflushed {
                Poll::Ready(io::Result::Ok(()))
            } else {
                Poll::Pending
            }
        })
        .await?;
        self.stream.shutdown().await
    }
}

/// However it ends, nobody waits for it any longer.
impl<S> Drop for Line<S> {
    fn drop(&mut self) {
        self.shared.close("it is over");
    }
}
