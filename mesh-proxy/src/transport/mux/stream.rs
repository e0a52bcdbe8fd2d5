//! One stream, to be read and written like a connection of its own.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};
use traffic::mesh1::{Broken, Code, Connection, Farewell, Read, StreamId};

use super::{Mux, broken};
use crate::transport::tcp::Abort;

/// How long the other proxy may take to reach its application: longer than it tries.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// A stream of a connection. Dropped before both sides have ended, it is reset.
pub struct Stream {
    mux: Arc<Mux>,
    id: StreamId,
}

impl Stream {
    pub(super) fn new(mux: Arc<Mux>, id: StreamId) -> Self {
        Self { mux, id }
    }

    /// Waits until the other side has reached the application.
    pub(super) async fn answered(&mut self) -> Result<(), Broken> {
        let answer = poll_fn(|cx| {
            let mut state = self.mux.state.lock();
            match state.core.answered(self.id) {
                Some(answer) => Poll::Ready(answer),
                None => {
                    Mux::wait_to_read(&mut state, self.id, cx);
                    Poll::Pending
                }
            }
        });
        let late = || Farewell::new(Code::CANCEL, &format!("not within {} s", ANSWER_TIMEOUT.as_secs()));
        timeout(ANSWER_TIMEOUT, answer).await.unwrap_or_else(|_| Err(Broken::Reset(late())))
    }

    /// Waits until it has broken off, or its connection has, though nobody reads what came before.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.mux.state.lock();
        if state.core.broke_off(self.id) {
            return Poll::Ready(());
        }
        Mux::watch(&mut state, self.id, cx);
        Poll::Pending
    }

    /// Tells the caller that its application was reached.
    pub fn accept(&self) {
        self.mux.with(|state| state.core.accept(self.id));
    }

    /// Tells the caller why it was not. With [`Code::REFUSED`] nothing was tried.
    pub fn refuse(self, code: Code, reason: &str) {
        self.mux.with(|state| state.core.reset(self.id, Farewell::new(code, reason)));
    }
}

/// Bodies, without a copy: pieces go into it and come out of it as they lie.
impl Stream {
    /// Writes `head`, then `pieces`, which are taken as far as there is room for them; how much of `head` that was.
    pub fn poll_give(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        pieces: &mut VecDeque<Bytes>,
    ) -> Poll<io::Result<usize>> {
        let mut state = self.mux.state.lock();
        match give(&mut state.core, self.id, head, pieces) {
            Ok((0, 0)) => {
                Mux::wait_to_write(&mut state, self.id, cx);
                Poll::Pending
            }
            Ok((length, _)) => {
                self.mux.stir(&mut state);
                Poll::Ready(Ok(length))
            }
            Err(ended) => Poll::Ready(Err(broken(&ended))),
        }
    }

    /// The next bytes that came, at most `most` of them; `None` at the end.
    pub fn poll_take(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<Option<Bytes>>> {
        let mut state = self.mux.state.lock();
        match state.core.take(self.id, most) {
            Ok(Read::Nothing) => {
                Mux::wait_to_read(&mut state, self.id, cx);
                Poll::Pending
            }
            Ok(Read::Bytes(piece)) => {
                self.mux.stir(&mut state);
                Poll::Ready(Ok(Some(piece)))
            }
            Ok(Read::End) => Poll::Ready(Ok(None)),
            Err(ended) => Poll::Ready(Err(broken(&ended))),
        }
    }
}

/// How much of the head was taken, and how much of the pieces.
fn give(
    core: &mut Connection,
    id: StreamId,
    head: &[u8],
    pieces: &mut VecDeque<Bytes>,
) -> Result<(usize, usize), Broken> {
    let written = if head.is_empty() { 0 } else { core.write(id, head)? };
    let mut given = 0;
    while written == head.len()
        && let Some(piece) = pieces.front_mut()
    {
        given += core.give(id, piece)?;
        if !piece.is_empty() {
            break;
        }
        pieces.pop_front();
    }
    Ok((written, given))
}

/// Dropped before its end, it is reset.
impl Abort for Stream {
    fn reset(&self, why: Code) {
        self.mux.with(|state| state.core.reset(self.id, Farewell::new(why, "")));
    }

    fn by_pieces(&mut self) -> Option<&mut Stream> {
        Some(self)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.mux.state.lock();
        let read = state.core.read(self.id, buffer.initialize_unfilled());
        match read {
            Ok(Read::Nothing) => {
                Mux::wait_to_read(&mut state, self.id, cx);
                return Poll::Pending;
            }
            Ok(Read::Bytes(length)) => {
                self.mux.stir(&mut state);
                buffer.advance(length);
            }
            Ok(Read::End) => {}
            Err(ended) => return Poll::Ready(Err(broken(&ended))),
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.mux.state.lock();
        match state.core.write(self.id, bytes) {
            Ok(0) if !bytes.is_empty() => {
                Mux::wait_to_write(&mut state, self.id, cx);
                Poll::Pending
            }
            Ok(length) => {
                self.mux.stir(&mut state);
                Poll::Ready(Ok(length))
            }
            Err(ended) => Poll::Ready(Err(broken(&ended))),
        }
    }

    /// What was written is on its way, and nothing here can hurry it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.mux.with(|state| state.core.finish(self.id));
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.mux.release(self.id);
    }
}
