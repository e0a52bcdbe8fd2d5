//! The first bytes of a connection: read to tell what it speaks, then given back to whoever reads on.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    time::timeout,
};
use traffic::protocol::{self, DETECT_BYTES_MAX, Detected};

use crate::transport::tcp::Abort;

/// A caller that has sent nothing for so long waits for the server to speak first. Where a port's protocol is declared,
/// nobody waits for this.
pub const DETECT_TIMEOUT: Duration = Duration::from_millis(300);
/// How long a connection to a port for HTTP may take to say its first word.
pub const FIRST_WORD_TIMEOUT: Duration = Duration::from_secs(75);

/// A stream whose first bytes were looked at.
pub struct Rewound<S> {
    ahead: BytesMut,
    inner: S,
}

/// Reads until it is clear what a connection speaks, for at most `patience`; what was read is still in the stream.
///
/// # Errors
/// If the connection breaks off.
pub async fn detect<S: AsyncRead + Unpin>(
    mut inner: S,
    patience: Duration,
) -> io::Result<(Detected, Rewound<S>)> {
    let mut ahead = BytesMut::new();
    let read = async {
        loop {
            match protocol::detect(&ahead) {
                Detected::NeedMore => {
                    let mut limited = (&mut inner).take((DETECT_BYTES_MAX - ahead.len()) as u64);
                    if limited.read_buf(&mut ahead).await? == 0 {
                        return Ok::<_, io::Error>(Detected::Tcp);
                    }
                }
                detected => return Ok(detected),
            }
        }
    };
    let detected = match timeout(patience, read).await {
        Ok(detected) => detected?,
        Err(_) => Detected::Tcp,
    };
    Ok((detected, Rewound { ahead, inner }))
}

impl<S> Rewound<S> {
    /// A stream from which `ahead` was read, and is to be read again.
    pub fn new(ahead: BytesMut, inner: S) -> Self {
        Self { ahead, inner }
    }
}

impl<S: Abort> Abort for Rewound<S> {
    fn abort(&self) {
        self.inner.abort();
    }

    fn is_gone(&self) -> bool {
        self.inner.is_gone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buffer);
        }
        let length = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead[..length]);
        self.ahead.advance(length);
        if self.ahead.is_empty() {
            // The memory goes with the bytes.
            self.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    async fn read_all(mut stream: Rewound<tokio::io::DuplexStream>) -> Vec<u8> {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.expect("read");
        all
    }

    #[tokio::test]
    async fn what_was_looked_at_is_read_again() {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(b"GET / HT").await.expect("written");
        let detecting = tokio::spawn(detect(server, SOON));
        client.write_all(b"TP/1.1\r\nHost: a\r\n").await.expect("written");
        let (detected, stream) = detecting.await.expect("it ran").expect("detected");
        assert_eq!(detected, Detected::Http1);
        drop(client);
        assert_eq!(read_all(stream).await, b"GET / HTTP/1.1\r\nHost: a\r\n");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_waits_for_the_server() {
        let (client, server) = tokio::io::duplex(64);
        let (detected, _) = detect(server, DETECT_TIMEOUT).await.expect("detected");
        assert_eq!(detected, Detected::Tcp);
        drop(client);
    }

    #[tokio::test]
    async fn who_ends_early_is_passed_on_with_what_was_said() {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(b"GE").await.expect("written");
        drop(client);
        let (detected, stream) = detect(server, SOON).await.expect("detected");
        assert_eq!((detected, read_all(stream).await), (Detected::Tcp, b"GE".to_vec()));
    }
}
