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
    hooks: Hooks,
}

/// Whom to tell.
pub(super) struct Hooks {
    /// The connection was dropped.
    pub(super) gone: Box<dyn Fn() + Send>,
    /// The other end refused us: in TLS 1.3 whoever dialled learns of it when it reads.
    pub(super) refused: Box<dyn Fn(&str) + Send>,
}

impl<S> Guarded<S> {
    pub(super) fn new(inner: S, cut: CancellationToken, hooks: Hooks) -> Self {
        Self { inner, cut: Box::pin(cut.cancelled_owned()), is_cut: false, hooks }
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
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if let Poll::Ready(Err(error)) = &read
            && let Some(alert) = alert(error)
        {
            (self.hooks.refused)(&alert);
        }
        read
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
        (self.hooks.gone)();
    }
}

/// The alert that the other end sent, if that is what the error is about. Its kind says little: why it refused stands
/// in its own log.
fn alert(error: &io::Error) -> Option<String> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(format!("{alert:?}")),
        _ => None,
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
        let gone = Box::new(move || seen.store(true, Ordering::Release));
        let mut guarded = Guarded::new(near, cut.clone(), Hooks { gone, refused: Box::new(|_| {}) });
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
