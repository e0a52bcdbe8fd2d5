//! A connection that can be cut from outside, and says when it is gone.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Passes bytes on until it is cut; from then on each use is an error.
pub(super) struct Guarded<S> {
    inner: S,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    is_cut: bool,
    gone: Option<Box<dyn FnOnce() + Send>>,
}

impl<S> Guarded<S> {
    /// `gone` is called when the connection is dropped.
    pub(super) fn new(inner: S, cut: CancellationToken, gone: impl FnOnce() + Send + 'static) -> Self {
        Self { inner, cut: Box::pin(cut.cancelled_owned()), is_cut: false, gone: Some(Box::new(gone)) }
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        self.is_cut = self.is_cut || self.cut.as_mut().poll(context).is_ready();
        if self.is_cut { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<S> Drop for Guarded<S> {
    fn drop(&mut self) {
        if let Some(gone) = self.gone.take() {
            gone();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_reader_that_waits_is_woken_when_the_connection_is_cut() {
        let (near, mut far) = tokio::io::duplex(64);
        let (cut, dropped) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
        let seen = dropped.clone();
        let mut guarded = Guarded::new(near, cut.clone(), move || seen.store(true, Ordering::Release));
        far.write_all(b"abc").await.expect("room for three");
        let mut bytes = [0; 3];
        guarded.read_exact(&mut bytes).await.expect("not cut yet");
        assert_eq!(&bytes, b"abc");
        let waiting = tokio::spawn(async move { guarded.read_u8().await });
        cut.cancel();
        let error = waiting.await.expect("no panic").expect_err("cut");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        assert!(dropped.load(Ordering::Acquire));
    }
}
