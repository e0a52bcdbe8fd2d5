//! A stream of bytes to another proxy, whichever way it goes there, or to an application past it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::{Ahead, app, life::Life, mux, tcp::Abort};

/// One stream, whose application is reached.
pub enum Tunnel {
    /// On a connection that it shares with others; trust is looked after there.
    Stream(mux::Stream),
    /// On a connection of its own.
    Line(Box<TlsStream<Ahead<TcpStream>>>, Box<Life>),
    /// To the application itself.
    App(app::Stream),
}

impl Tunnel {
    /// What ends it before its sides do, where that is not looked after elsewhere.
    pub fn life(&self) -> Option<Life> {
        match self {
            Self::Stream(_) | Self::App(_) => None,
            Self::Line(_, life) => Some((**life).clone()),
        }
    }
}

/// A stream is reset; TLS says its last word only when it ends well.
impl Abort for Tunnel {
    fn abort(&self) {
        if let Self::App(stream) = self {
            stream.abort();
        }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Stream(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Line(stream, _) => Pin::new(stream).poll_read(cx, buffer),
            Self::App(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Stream(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Line(stream, _) => Pin::new(stream).poll_write(cx, bytes),
            Self::App(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Stream(stream) => Pin::new(stream).poll_flush(cx),
            Self::Line(stream, _) => Pin::new(stream).poll_flush(cx),
            Self::App(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Stream(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Line(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Self::App(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
