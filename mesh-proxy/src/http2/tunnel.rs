//! A stream that has left HTTP: bytes both ways (RFC 9113 §8.5).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use traffic::http2::{Broken, Piece};

use super::{Reader, Writer};
use crate::transport::tcp::Abort;

/// A stream, to be read and written like a connection of its own. Dropped before both sides have ended, it is reset.
pub(super) struct Tunnel {
    reader: Reader,
    writer: Writer,
    /// What came and was not read.
    came: Bytes,
}

impl Tunnel {
    pub(super) fn new(reader: Reader, writer: Writer) -> Self {
        Self { reader, writer, came: Bytes::new() }
    }
}

fn error(broken: Broken) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, broken)
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.came.is_empty() {
            let reader = &this.reader;
            let taken = reader.shared.with(|state| {
                let taken = state.core.take(reader.id);
                if taken == Ok(Piece::Nothing) {
                    reader.wait(state, cx);
                }
                taken
            });
            match taken {
                Ok(Piece::Nothing) => return Poll::Pending,
                Ok(Piece::Data(data)) => this.came = data,
                Ok(Piece::Trailers(_) | Piece::End) => {}
                Err(broken) => return Poll::Ready(Err(error(broken))),
            }
        }
        let length = this.came.len().min(buffer.remaining());
        buffer.put_slice(&this.came[..length]);
        this.came.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let writer = &self.writer;
        writer.shared.with(|state| {
            let room = state.core.room(writer.id).map_err(error)?.min(bytes.len());
            if room == 0 && !bytes.is_empty() {
                writer.wait(state, cx);
                return Poll::Pending;
            }
            let mut data = Bytes::copy_from_slice(&bytes[..room]);
            Poll::Ready(state.core.give(writer.id, &mut data).map_err(error))
        })
    }

    /// What was written is on its way, and nothing here can hurry it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.shared.with(|state| state.core.finish(self.writer.id, None));
        Poll::Ready(Ok(()))
    }
}

/// Dropped before its end, it is reset.
impl Abort for Tunnel {}
