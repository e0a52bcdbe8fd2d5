//! What moves the bytes of a connection, and ends it.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufRead, AsyncWrite},
    task::yield_now,
    time::{MissedTickBehavior, interval, timeout},
};
use traffic::{
    Outgoing,
    mesh1::{Code, Fault, Open, Patience, Side},
};

use super::{Mux, Opener, Stream};
use crate::{
    server::Ends,
    telemetry::MuxCounts,
    transport::{
        SendError,
        life::{Cut, End},
        pool::Driven,
    },
};

/// What is written at once, in bytes: four TLS records, as many as TLS takes before it wants the socket.
const WRITE_BYTES: usize = 64 * 1_024;
/// What of that is kept for the next time, in bytes.
const KEPT_BYTES: usize = 32 * 1_024;
/// How many pieces are handed to TLS at once: the headers and pieces of four turns, some of which lie in two.
const SLICES: usize = 16;
/// What is read before those who wait for it have their turn, in bytes: it is still in the processor's caches then.
const READ_BYTES: usize = 256 * 1_024;
/// How often the time is looked at.
const TICK: Duration = Duration::from_secs(1);
/// How long a caller waits for a word of a connection that carries streams, and for an answer when it asks.
const CALLER: Patience = Patience { quiet: Duration::from_secs(5), answer: Duration::from_secs(5) };
/// The same for who was called: longer, as callers ask by themselves.
const CALLEE: Patience = Patience { quiet: Duration::from_secs(30), answer: Duration::from_secs(10) };
/// How long the other side may take to hear why a connection ends.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// How a connection came to its end.
enum Ended {
    /// Nothing is left to carry.
    Drained,
    /// The other side closed it, or it broke.
    Lost(String),
    /// The other side broke the rules.
    Fault(Fault),
    /// Its peer is no longer believed.
    Cut(Cut),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Lost(error.to_string())
    }
}

/// The bytes of a connection, which one task reads and writes by turns.
struct Line<S>(Mutex<S>);

/// A connection that was dialled, once the other side has said its first word. In TLS 1.3 it may refuse our certificate
/// after our side of the handshake is done: only that word says that it did not.
pub(in crate::transport) async fn dialled<S>(
    stream: S,
    ends: Ends,
    counts: Arc<MuxCounts>,
) -> Result<Driven<Opener>, SendError>
where
    S: AsyncBufRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mux, line) = (Mux::new(Side::Opener, CALLER, counts), Line(Mutex::new(stream)));
    while !mux.state.lock().core.opens() {
        match line.read(|bytes| mux.receive(bytes)).await {
            Ok(None) => return Err(SendError::Connect("the connection was closed at once".to_owned())),
            Ok(Some(received)) => {
                received.map(drop).map_err(|fault| SendError::Connect(fault.to_string()))?;
            }
            Err(error) => return Err(SendError::Connect(error.to_string())),
        }
    }
    let driver = {
        let mux = mux.clone();
        async move {
            if let Some(fault) = drive(mux, line, ends, |_, _| {}).await {
                tracing::warn!("a connection to another proxy is cut off: {fault}");
            }
        }
    };
    Ok(Driven::new(Opener::new(mux), driver))
}

/// Serves the streams of a connection until it ends: each is handed to `take`, in a task of its own. Returns what the
/// caller did if it broke the rules.
pub async fn serve<S, F>(
    stream: S,
    ends: Ends,
    counts: Arc<MuxCounts>,
    take: impl Fn(Stream, Open) -> F + Send,
) -> Option<Fault>
where
    S: AsyncBufRead + AsyncWrite + Send + Unpin + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let mux = Mux::new(Side::Taker, CALLEE, counts);
    drive(mux, Line(Mutex::new(stream)), ends, |stream, open| drop(tokio::spawn(take(stream, open)))).await
}

async fn drive<S: AsyncBufRead + AsyncWrite + Unpin>(
    mux: Arc<Mux>,
    line: Line<S>,
    ends: Ends,
    opened: impl Fn(Stream, Open),
) -> Option<Fault> {
    let ended = tokio::select! {
        // What came is taken before it is decided that nothing came.
        biased;
        ended = read(&mux, &line, opened) => ended,
        ended = write(&mux, &line) => ended,
        fault = watch_time(&mux) => Ended::Fault(fault),
        refused = watch_ends(&mux, ends) => Ended::Cut(refused),
    };
    let fault = match ended {
        Ended::Drained => None,
        Ended::Lost(reason) => {
            mux.with(|state| state.core.close(&reason));
            tracing::debug!(reason, "a connection between proxies ended");
            return None;
        }
        Ended::Cut(refused) => {
            let told = match &refused {
                Cut::Distrusted(refused) => refused.to_string(),
                // Which rule it was is for this side's log alone.
                Cut::Denied(_) => "policy lets this caller in no more".to_owned(),
            };
            mux.with(|state| state.core.cut(Code::DISTRUSTED, &told));
            tracing::warn!(%refused, "a connection between proxies is cut off");
            None
        }
        Ended::Fault(fault) => {
            mux.counts.cut();
            Some(fault)
        }
    };
    // Who does not listen does not hear it.
    drop(timeout(FAREWELL_TIMEOUT, farewell(&mux, &line)).await);
    mux.with(|state| state.core.close("it is over"));
    fault
}

async fn read<S: AsyncBufRead + Unpin>(
    mux: &Arc<Mux>,
    line: &Line<S>,
    opened: impl Fn(Stream, Open),
) -> Ended {
    let mut came = 0;
    loop {
        match line.read(|bytes| (bytes.len(), mux.receive(bytes))).await {
            Ok(None) => return Ended::Lost("the other side closed it".to_owned()),
            Ok(Some((length, Ok(streams)))) => {
                streams.into_iter().for_each(|(id, open)| opened(mux.stream(id), open));
                came += length;
                if came >= READ_BYTES {
                    came = 0;
                    yield_now().await;
                }
            }
            Ok(Some((_, Err(fault)))) => return Ended::Fault(fault),
            Err(error) => return error.into(),
        }
    }
}

async fn write<S: AsyncWrite + Unpin>(mux: &Mux, line: &Line<S>) -> Ended {
    let (mut out, mut busy) = (Outgoing::default(), false);
    loop {
        mux.stirred.notified().await;
        // Whoever is ready to run may have something to send, too. Where but one stream had, last time, nobody is
        // waited for: it would take a look at all sockets.
        if busy {
            yield_now().await;
        }
        match flush(mux, line, &mut out).await {
            Ok(turns) => busy = turns > 1,
            Err(error) => return error.into(),
        }
        if mux.drained() {
            return Ended::Drained;
        }
    }
}

/// Sends all that there is; how many turns streams had in it.
async fn flush<S: AsyncWrite + Unpin>(mux: &Mux, line: &Line<S>, out: &mut Outgoing) -> io::Result<usize> {
    let mut turns = 0;
    loop {
        turns += mux.transmit(out, WRITE_BYTES);
        if out.is_empty() {
            break;
        }
        line.write_all(out).await?;
    }
    // Memory goes with the load.
    out.shrink_to(KEPT_BYTES);
    line.with(|stream, cx| stream.poll_flush(cx)).await.map(|()| turns)
}

/// Says the last word, and waits until the other side has heard it: a socket that is closed before may lose it.
async fn farewell<S: AsyncBufRead + AsyncWrite + Unpin>(mux: &Mux, line: &Line<S>) -> io::Result<()> {
    flush(mux, line, &mut Outgoing::default()).await?;
    line.with(|stream, cx| stream.poll_shutdown(cx)).await?;
    while line.read(|_| ()).await?.is_some() {}
    Ok(())
}

async fn watch_time(mux: &Mux) -> Fault {
    let mut beat = interval(TICK);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        if let Err(fault) = mux.tick() {
            return fault;
        }
    }
}

/// Lets it drain when it has to; ends when the other side is no longer believed.
async fn watch_ends(mux: &Mux, mut ends: Ends) -> Cut {
    match ends.come().await {
        End::Close(refused) => refused,
        End::Drain => {
            mux.go_away();
            ends.cut().await
        }
    }
}

impl<S: Unpin> Line<S> {
    /// Waits for what `poll` says of it.
    async fn with<T>(&self, mut poll: impl FnMut(Pin<&mut S>, &mut Context<'_>) -> Poll<T>) -> T {
        poll_fn(|cx| poll(Pin::new(&mut *self.0.lock()), cx)).await
    }
}

impl<S: AsyncBufRead + Unpin> Line<S> {
    /// Hands on what came from where TLS has it, at most a record; `None` at the end.
    async fn read<T>(&self, mut take: impl FnMut(&[u8]) -> T) -> io::Result<Option<T>> {
        self.with(|mut stream, cx| {
            let came = ready!(stream.as_mut().poll_fill_buf(cx))?;
            let length = came.len();
            let taken = (length > 0).then(|| take(came));
            stream.consume(length);
            Poll::Ready(Ok(taken))
        })
        .await
    }
}

impl<S: AsyncWrite + Unpin> Line<S> {
    async fn write_all(&self, out: &mut Outgoing) -> io::Result<()> {
        while !out.is_empty() {
            let written = self.with(|stream, cx| {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let count = out.slices(&mut slices);
                match &slices[..count] {
                    [only] => stream.poll_write(cx, only),
                    slices => stream.poll_write_vectored(cx, slices),
                }
            });
            match written.await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                length => out.advance(length),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, pin::pin};

    use bytes::Bytes;
    use futures_util::{FutureExt as _, poll};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream};
    use traffic::mesh1::{Kind, QUEUE_BYTES_MAX};

    use super::*;

    /// What has come by now.
    fn came(far: &mut DuplexStream) -> String {
        let mut bytes = vec![0; WRITE_BYTES];
        let length = far.read(&mut bytes).now_or_never().map_or(0, |read| read.expect("it is open"));
        String::from_utf8_lossy(&bytes[..length]).chars().filter(|byte| ('A'..='E').contains(byte)).collect()
    }

    /// One of two that writes alone costs no look at all sockets; as long as both write, each is waited for.
    #[tokio::test]
    async fn who_writes_alone_is_sent_at_once_and_several_are_sent_together() {
        let mux = Mux::new(Side::Opener, CALLER, Arc::default());
        let mut hello = Outgoing::default();
        Mux::new(Side::Taker, CALLEE, Arc::default()).transmit(&mut hello, WRITE_BYTES);
        assert!(mux.receive(&hello.to_vec()).expect("it keeps the rules").is_empty());
        let (near, mut far) = tokio::io::duplex(WRITE_BYTES);
        let line = Line(Mutex::new(near));
        let mut sending = pin!(write(&mux, &line));
        let open = || mux.open(Kind::Http1, 80).expect("there is room");
        let (mut one, mut other) = (open(), open());
        let say =
            async |stream: &mut Stream, text: &str| stream.write_all(text.as_bytes()).await.expect("room");

        assert!(poll!(&mut sending).is_pending());
        assert_eq!(came(&mut far), "", "both were opened, and said nothing");
        say(&mut one, "A").await;
        assert!(poll!(&mut sending).is_pending());
        assert_eq!(came(&mut far), "A", "alone: at once");
        say(&mut one, "B").await;
        say(&mut other, "C").await;
        assert!(poll!(&mut sending).is_pending());
        assert_eq!(came(&mut far), "BC", "one had written last time");
        say(&mut one, "D").await;
        assert!(poll!(&mut sending).is_pending());
        assert_eq!(came(&mut far), "", "two had: the other may have something, too");
        say(&mut other, "E").await;
        assert!(poll!(&mut sending).is_pending());
        assert_eq!(came(&mut far), "DE");
    }

    /// A pair whose sides have heard each other's HELLO.
    fn pair() -> (Arc<Mux>, Arc<Mux>) {
        let (opener, taker) =
            (Mux::new(Side::Opener, CALLER, Arc::default()), Mux::new(Side::Taker, CALLEE, Arc::default()));
        for (from, to) in [(&opener, &taker), (&taker, &opener)] {
            let mut hello = Outgoing::default();
            from.transmit(&mut hello, WRITE_BYTES);
            assert!(to.receive(&hello.to_vec()).expect("it keeps the rules").is_empty());
        }
        (opener, taker)
    }

    /// A body goes through a socket that takes little at once, in pieces; its end comes behind it.
    #[tokio::test]
    async fn pieces_come_whole_through_a_narrow_line_and_the_end_behind_them() {
        let (opener, taker) = pair();
        let (near, far) = tokio::io::duplex(1_000);
        let (near, far) = (Line(Mutex::new(near)), Line(Mutex::new(BufReader::new(far))));
        let mut from = opener.open(Kind::Http1, 80).expect("there is room");
        let body: Vec<u8> = (0..60_000_u32).map(|n| (n % 251) as u8).collect();
        let mut pieces: VecDeque<Bytes> =
            [&body[..20_000], &body[20_000..20_009], &body[20_009..]].map(Bytes::copy_from_slice).into();
        let given = poll_fn(|cx| from.poll_give(cx, b"head", &mut pieces)).await.expect("there is room");
        assert_eq!((given, pieces.len()), (4, 0), "all of it has room");
        from.shutdown().await.expect("said");
        let (streams, mut out) = (Mutex::new(Vec::new()), Outgoing::default());
        let reading = read(&taker, &far, |stream, _| streams.lock().push(stream));
        tokio::select! {
            biased;
            sent = flush(&opener, &near, &mut out) => drop(sent.expect("it is taken")),
            _ = reading => unreachable!("the line stays open"),
        }
        while let Some(()) = far.read(|bytes| drop(taker.receive(bytes))).now_or_never().map(drop) {}
        let mut to = streams.lock().pop().expect("it was opened");
        let mut came = Vec::new();
        while let Some(piece) = poll_fn(|cx| to.poll_take(cx, 30_000)).await.expect("nothing broke") {
            came.extend_from_slice(&piece);
        }
        assert!(came == [b"head", &body[..]].concat(), "{} bytes", came.len());
    }

    #[tokio::test]
    async fn what_has_no_room_stays_with_the_writer_who_is_told_when_there_is_some() {
        let (opener, _) = pair();
        let mut from = opener.open(Kind::Http1, 80).expect("there is room");
        let mut pieces: VecDeque<Bytes> = [Bytes::from(vec![1; 40_000]), Bytes::from(vec![2; 40_000])].into();
        let given = poll_fn(|cx| from.poll_give(cx, b"head", &mut pieces)).await.expect("there is room");
        let left: usize = pieces.iter().map(Bytes::len).sum();
        assert_eq!((given, left), (4, 80_004 - QUEUE_BYTES_MAX));
        let mut waiting = pin!(poll_fn(|cx| from.poll_give(cx, b"", &mut pieces)));
        assert!(poll!(&mut waiting).is_pending(), "it is full");
        opener.transmit(&mut Outgoing::default(), WRITE_BYTES);
        assert_eq!(waiting.await.expect("there is room"), 0);
        assert!(pieces.is_empty());
    }

    /// Who waits for what came is not kept waiting while more and more comes.
    #[tokio::test]
    async fn readers_have_their_turn_while_more_comes() {
        let (_, taker) = pair();
        let ping = [0, 0, 8, 7, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let pings = ping.repeat(2 * READ_BYTES / ping.len());
        let line = Line(Mutex::new(BufReader::with_capacity(16 * 1_024, &pings[..])));
        let mut reading = pin!(read(&taker, &line, |_, _| ()));
        assert!(poll!(&mut reading).is_pending(), "it lets others run");
        assert_eq!(line.0.lock().get_ref().len(), READ_BYTES, "half of it is read");
        assert!(poll!(&mut reading).is_pending(), "and again");
        assert!(poll!(&mut reading).is_ready(), "that was the end");
    }
}
