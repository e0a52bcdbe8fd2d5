//! A connection's TLS stream on its way between hyper and [`super::chunks`]: it keeps what was read too early, and knows
//! whether all that was written has left. It says nothing by itself.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

/// A client that waits for an answer has nothing to say; what it says all the same is kept, up to so many bytes, until it
/// is its turn.
const EARLY_BYTES_MAX: usize = 1_024;

/// A TCP connection, as TLS writes to it.
pub(super) struct Plain(pub(super) TcpStream);

/// A connection after its handshake.
pub(super) type Tls = TlsStream<Plain>;

/// Such a connection, as it passes from hand to hand.
pub(super) struct Wire {
    /// Boxed: it is large, and a future has room for it in each place where it may be.
    tls: Box<Tls>,
    /// Read, and not handed out yet.
    early: Bytes,
    /// The stream was asked once whether something waits in it: from then on its socket says so.
    asked: bool,
    flushed: Arc<AtomicBool>,
}

impl Wire {
    pub(super) fn new(tls: Box<Tls>) -> Self {
        Self { tls, early: Bytes::new(), asked: false, flushed: Arc::new(AtomicBool::new(true)) }
    }

    /// Whether nothing that was written waits here. For one who does not hold it.
    pub(super) fn flushed(&self) -> Arc<AtomicBool> {
        self.flushed.clone()
    }

    /// What was read too early, to be read again.
    pub(super) fn unread(&mut self, early: Bytes) {
        self.early = match self.early.is_empty() {
            true => early,
            false => [early, std::mem::take(&mut self.early)].concat().into(),
        };
        self.asked = false;
    }

    /// Listens while nothing is expected. Once the client has said something, it is not listened to any more.
    ///
    /// # Errors
    /// The client is gone.
    pub(super) fn hear(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.early.is_empty() {
            return Ok(());
        }
        if self.asked {
            match self.tls.get_ref().0.0.poll_read_ready(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(ready) => ready?,
            }
        }
        self.asked = true;
        let mut bytes = [0; EARLY_BYTES_MAX];
        let mut early = ReadBuf::new(&mut bytes);
        match Pin::new(&mut self.tls).poll_read(cx, &mut early) {
            Poll::Pending => Ok(()),
            Poll::Ready(Ok(())) if early.filled().is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            Poll::Ready(Ok(())) => {
                self.early = Bytes::copy_from_slice(early.filled());
                Ok(())
            }
            Poll::Ready(Err(error)) => Err(error),
        }
    }

    fn wrote<T>(&self, written: T) -> T {
        self.flushed.store(false, Ordering::Relaxed);
        written
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.tls).poll_read(cx, buf);
        }
        let length = self.early.len().min(buf.remaining());
        buf.put_slice(&self.early[..length]);
        self.early.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tls).poll_write(cx, buf);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tls).poll_write_vectored(cx, bufs);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.tls).poll_flush(cx))?;
        self.flushed.store(true, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

impl AsyncRead for Plain {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Plain {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    /// rustls hands over lists, nearly always of one piece, for which the kernel has a shorter way.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match bufs {
            [one] => Pin::new(&mut self.0).poll_write(cx, one),
            _ => Pin::new(&mut self.0).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
