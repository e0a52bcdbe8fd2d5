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
    sync::Mutex,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::io::poll_read_buf;
use traffic::{
    Outgoing,
    http2::{Fault, Patience, Side, StreamId},
};

use super::{Client, Shared};
use crate::{
    server::Ends,
    transport::{
        Driven,
        life::{Cut, End, Life},
    },
};

/// What is written at once, in bytes.
const WRITE_BYTES: usize = 64 * 1_024;
/// What of that is kept for the next time, in bytes: all, as many calls write about as much each time.
const KEPT_BYTES: usize = WRITE_BYTES;
/// How many pieces are written at once.
const SLICES: usize = 16;
/// What is read at once, in bytes: as much as many calls bring, and more while large bodies come.
const READ_BYTES: (usize, usize) = (16 * 1_024, 64 * 1_024);
/// So many reads in a row bring less before the larger buffer goes: memory that comes and goes with each read costs more
/// than the read.
const SMALL_READS: u8 = 64;
/// What is read before those who wait for it have their turn, in bytes.
const TURN_BYTES: usize = 256 * 1_024;
/// How often the time is looked at while the other side may be asked for a sign of life: so many times in the time that it
/// has for it.
const TICKS: u32 = 4;
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
    let shared = Shared::new(Side::Asking, patience);
    let line = Line::new(shared.clone(), stream, |_: &Arc<Shared>, _| {});
    let ends = async move {
        match life {
            Some(mut life) => life.ended().await,
            None => pending().await,
        }
    };
    Driven::new(Client { shared }, async move {
        if let Some(refused) = drive(line, patience, ends, pending()).await {
            tracing::warn!(%refused, "a connection to another proxy is cut off");
        }
    })
}

/// A connection that is served until it ends. Each request is handed to `take`.
pub(super) async fn served<S>(
    stream: S,
    side: Side,
    patience: Patience,
    mut ends: Ends,
    take: impl FnMut(&Arc<Shared>, StreamId) + Send,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let line = Line::new(Shared::new(side, Some(patience)), stream, take);
    let ends = Mutex::new(&mut ends);
    let come = async { ends.lock().await.come().await };
    let cut = async { ends.lock().await.cut().await };
    if let Some(refused) = drive(line, Some(patience), come, cut).await {
        tracing::warn!(%refused, "a caller's connection is cut off");
    }
}

/// Moves a connection to its end. It drains when `come` says so, and is cut off when that or, after it, `cut` does; why is
/// returned.
async fn drive<S, T>(
    mut line: Line<S, T>,
    patience: Option<Patience>,
    come: impl Future<Output = End>,
    cut: impl Future<Output = Cut>,
) -> Option<Cut>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: FnMut(&Arc<Shared>, StreamId),
{
    let shared = line.shared.clone();
    let watched = async {
        match come.await {
            End::Close(refused) => refused,
            End::Drain => {
                shared.drain();
                cut.await
            }
        }
    };
    let ended = tokio::select! {
        // What came is taken before it is decided that nothing came.
        biased;
        ended = poll_fn(|cx| line.poll(cx)) => ended,
        cut = watched => Ended::Cut(cut),
        fault = watch_time(&shared, patience) => Ended::Fault(fault),
    };
    let refused = match ended {
        Ended::Drained => None,
        Ended::Lost(why) => {
            tracing::debug!(why, "a connection ended");
            shared.close(&why);
            return None;
        }
        Ended::Fault(fault) => {
            tracing::debug!(%fault, "a connection is cut off");
            shared.with(|state| state.core.fail(&fault));
            None
        }
        Ended::Cut(refused) => {
            shared.close(&refused.to_string());
            Some(refused)
        }
    };
    // Who does not listen does not hear it.
    drop(timeout(FAREWELL_TIMEOUT, line.farewell()).await);
    refused
}

async fn watch_time(shared: &Shared, patience: Option<Patience>) -> Fault {
    let Some(patience) = patience else { return pending().await };
    let mut beat = interval(patience.answer / TICKS);
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
struct Line<S, T> {
    shared: Arc<Shared>,
    /// Takes the requests that come.
    take: T,
    stream: S,
    came: BytesMut,
    /// What was read filled its buffer, not long ago.
    large: bool,
    /// Reads since then that did not.
    small: u8,
    out: Outgoing,
    unflushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin, T: FnMut(&Arc<Shared>, StreamId)> Line<S, T> {
    fn new(shared: Arc<Shared>, stream: S, take: T) -> Self {
        let (came, out) = (BytesMut::new(), Outgoing::default());
        Self { shared, take, stream, came, large: false, small: 0, out, unflushed: false }
    }

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
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(0)) => {
                return Poll::Ready(Err(Ended::Lost("the other side closed it".to_owned())));
            }
            Poll::Ready(Ok(length)) => length,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
        };
        self.filled(length >= READ_BYTES.0);
        let now = self.shared.moment();
        let received = self.shared.with(|state| state.core.receive(now, &mut self.came));
        self.take_asked();
        Poll::Ready(received.map(|()| length).map_err(Ended::Fault))
    }

    /// Reads more at once while reads fill what they are given.
    fn filled(&mut self, whole: bool) {
        self.small = if whole { 0 } else { self.small.saturating_add(1) };
        if self.large && self.small >= SMALL_READS {
            // What has come is all that is kept.
            self.came = BytesMut::from(&self.came[..]);
        }
        self.large = whole || self.large && self.small < SMALL_READS;
    }

    /// Hands on the requests that came.
    fn take_asked(&mut self) {
        let asked = std::mem::take(&mut self.shared.state.lock().asked);
        for id in &asked {
            (self.take)(&self.shared, *id);
        }
        // Its memory is used again.
        let mut state = self.shared.state.lock();
        if state.asked.is_empty() {
            state.asked = asked;
            state.asked.clear();
        }
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
impl<S, T> Drop for Line<S, T> {
    fn drop(&mut self) {
        self.shared.close("it is over");
    }
}
