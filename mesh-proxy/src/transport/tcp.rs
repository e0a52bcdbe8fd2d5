//! Streams of bytes: dialling applications, the first bytes of `mesh-tcp/1`, and how they end.
//!
//! After the caller's preamble the callee answers one byte, so that a caller learns that the application was reached
//! before anything of the stream is on its way, and can still take another endpoint.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::FutureExt;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{client, server};
use traffic::{
    mesh1::Code,
    preamble::{Decoded, Preamble},
};

use super::{Ahead, SendError, mux};

/// How long a local application may take to accept. While its queue is full its kernel lets a SYN fall, which is sent again
/// after a second: a crowd of streams that share a connection comes all at once.
pub(super) const APP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the other proxy may take to reach its application.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a caller may take to say which port it wants.
const PREAMBLE_TIMEOUT: Duration = Duration::from_secs(5);
/// The caller's address as applications see it: none of the host's own, so that they do not take the mesh for a local
/// user.
const CALLER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
/// The kernel asks a silent peer whether it is there after so long, and again so often.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// The application was reached.
const REACHED: u8 = 0;
/// It was not; the reason follows, up to the stream's end.
const UNREACHED: u8 = 1;
/// The longest reason that is read, in bytes.
const REASON_BYTES_MAX: u64 = 256;

/// Sets what every connection of ours has: no waiting for more to send, and an end when the peer is gone.
pub fn tune(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3);
    let tuned = stream.set_nodelay(true).and_then(|()| SockRef::from(stream).set_tcp_keepalive(&keepalive));
    if let Err(error) = tuned {
        tracing::debug!(%error, "a socket could not be tuned");
    }
}

/// A connection to an application.
pub(super) async fn dial_app(app: SocketAddr) -> Result<TcpStream, SendError> {
    let failed = |cause: String| SendError::Connect(format!("{app}: {cause}"));
    let dialled = timeout(APP_TIMEOUT, connect_from_caller(app)).await;
    let dialled = dialled.map_err(|_| failed(format!("not within {} s", APP_TIMEOUT.as_secs())))?;
    let stream = dialled.map_err(|error| failed(error.to_string()))?;
    tune(&stream);
    Ok(stream)
}

/// From [`CALLER`], where the host lets us; from any address otherwise, as some hosts give 127.0.0.1 alone to their
/// loopback.
async fn connect_from_caller(app: SocketAddr) -> io::Result<TcpStream> {
    static UNBOUND: AtomicBool = AtomicBool::new(false);
    if app.ip() != IpAddr::V4(Ipv4Addr::LOCALHOST) || UNBOUND.load(Ordering::Relaxed) {
        return TcpStream::connect(app).await;
    }
    let socket = TcpSocket::new_v4()?;
    match socket.bind(SocketAddr::from((CALLER, 0))) {
        Ok(()) => socket.connect(app).await,
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            UNBOUND.store(true, Ordering::Relaxed);
            tracing::warn!(%error, "applications are dialled from 127.0.0.1: this host has no {CALLER}");
            TcpStream::connect(app).await
        }
        Err(error) => Err(error),
    }
}

/// Says which port a stream is for, and waits until its application is reached.
pub(super) async fn introduce<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    port: u16,
) -> Result<(), SendError> {
    let exchange = async {
        stream.write_all(&Preamble { port }.encode()).await?;
        stream.flush().await?;
        let answer = stream.read_u8().await?;
        let mut reason = Vec::new();
        if answer != REACHED {
            stream.take(REASON_BYTES_MAX).read_to_end(&mut reason).await?;
        }
        Ok::<_, io::Error>((answer, String::from_utf8_lossy(&reason).into_owned()))
    };
    match timeout(ANSWER_TIMEOUT, exchange).await {
        Err(_) => Err(SendError::Connect(format!("not within {} s", ANSWER_TIMEOUT.as_secs()))),
        Ok(Err(error)) => Err(SendError::Connect(error.to_string())),
        Ok(Ok((REACHED, _))) => Ok(()),
        Ok(Ok((_, reason))) => Err(SendError::Connect(reason)),
    }
}

/// Reads which port a stream is for; what follows stays in the stream.
///
/// # Errors
/// If it is not said, in time and in the right form.
pub async fn introduced<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Preamble> {
    let read = async {
        let mut held = Vec::new();
        loop {
            match Preamble::decode(&held).map_err(io::Error::other)? {
                Decoded::Whole(preamble, _) => return Ok(preamble),
                // Never more than is needed: nothing of the stream itself is taken.
                Decoded::Need(length) => {
                    let from = held.len();
                    held.resize(length, 0);
                    stream.read_exact(&mut held[from..]).await?;
                }
            }
        }
    };
    timeout(PREAMBLE_TIMEOUT, read).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Tells the caller whether its application was reached.
///
/// # Errors
/// If the caller is gone.
pub async fn answer<S: AsyncWrite + Unpin>(stream: &mut S, reached: Result<(), &str>) -> io::Result<()> {
    match reached {
        Ok(()) => stream.write_u8(REACHED).await?,
        Err(reason) => {
            stream.write_u8(UNREACHED).await?;
            stream.write_all(&reason.as_bytes()[..reason.len().min(REASON_BYTES_MAX as usize)]).await?;
            stream.shutdown().await?;
        }
    }
    stream.flush().await
}

/// A stream that can end so that its other side does not take the end for a whole one, and may be more than bytes.
pub trait Abort {
    /// When it is dropped it breaks off.
    fn abort(&self) {}

    /// It breaks off at once, and its other side is told why, where it can be.
    fn reset(&self, _why: Code) {}

    /// Whether its other side is known to have closed or reset it, though nobody read what came before: as of now, whoever
    /// wants to know asks again. A stream of `mesh/1` tells ([`mux::Stream::poll_gone`]).
    fn is_gone(&self) -> bool {
        false
    }

    /// The stream of `mesh/1` that it is: that one takes and gives bodies as they lie.
    fn by_pieces(&mut self) -> Option<&mut mux::Stream> {
        None
    }
}

/// By a RST: what was not read is lost there, and the application learns that it was cut off.
impl Abort for TcpStream {
    fn abort(&self) {
        if let Err(error) = SockRef::from(self).set_linger(Some(Duration::ZERO)) {
            tracing::debug!(%error, "a connection could not be reset");
        }
    }

    /// What epoll said last: no system call. `PRIORITY` stands for the end alone, as sockets are not asked for urgent data.
    fn is_gone(&self) -> bool {
        self.ready(Interest::PRIORITY | Interest::ERROR).now_or_never().is_some()
    }
}

/// TLS says its last word only when it ends well.
impl Abort for server::TlsStream<Ahead<TcpStream>> {
    fn is_gone(&self) -> bool {
        self.get_ref().0.is_gone()
    }
}
impl Abort for client::TlsStream<Ahead<TcpStream>> {}

impl<T: Abort + ?Sized> Abort for Box<T> {
    fn abort(&self) {
        (**self).abort();
    }

    fn reset(&self, why: Code) {
        (**self).reset(why);
    }

    fn is_gone(&self) -> bool {
        (**self).is_gone()
    }

    fn by_pieces(&mut self) -> Option<&mut mux::Stream> {
        (**self).by_pieces()
    }
}

/// A stream that counts what goes through it.
pub struct Counted<S> {
    inner: S,
    /// What came from it, in bytes.
    pub read: u64,
    moved: Option<Arc<AtomicU64>>,
}

impl<S> Counted<S> {
    /// Counts from zero. How much goes through it, either way, is added to `moved`, where somebody looks on: one task alone
    /// may add to that.
    pub fn new(inner: S, moved: Option<Arc<AtomicU64>>) -> Self {
        Self { inner, read: 0, moved }
    }

    fn count(&self, bytes: u64) {
        if let Some(moved) = &self.moved {
            moved.store(moved.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
        }
    }

    /// The stream.
    pub fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        let read = (buffer.filled().len() - before) as u64;
        self.read += read;
        self.count(read);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes))?;
        self.count(written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
