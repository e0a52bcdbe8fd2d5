//! A socket that is read by much at once. TLS asks for 4 KiB each time, which would be a system call each: here one brings
//! what many records and many calls have, and TLS takes it from there.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::tcp::Abort;

/// What is read at once, in bytes: four TLS records.
const READ_BYTES: usize = 64 * 1_024;

thread_local! {
    /// A buffer that nothing is held in. Most reads bring no more than is taken at once, and give it back.
    static SPARE: RefCell<Option<Box<[u8]>>> = const { RefCell::new(None) };
}

/// A stream of which more may be read than was asked for. What waits on an idle one holds no buffer.
pub struct Ahead<S> {
    inner: S,
    held: Option<Held>,
}

/// What was read and not asked for yet: from `from` to `to`.
struct Held {
    buffer: Box<[u8]>,
    from: usize,
    to: usize,
}

impl<S> Ahead<S> {
    /// Nothing was read yet.
    pub fn new(inner: S) -> Self {
        Self { inner, held: None }
    }
}

impl<S: AsyncRead + Unpin> Ahead<S> {
    /// Reads once; `None` is the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Held>>> {
        let spare = SPARE.take();
        let mut buffer = spare.unwrap_or_else(|| vec![0; READ_BYTES].into());
        let mut room = ReadBuf::new(&mut buffer);
        let read = Pin::new(&mut self.inner).poll_read(cx, &mut room);
        let to = room.filled().len();
        if to == 0 {
            SPARE.set(Some(buffer));
            return read.map_ok(|()| None);
        }
        Poll::Ready(Ok(Some(Held { buffer, from: 0, to })))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ahead<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let held = match this.held.take() {
            Some(held) => Some(held),
            None => ready!(this.poll_fill(cx))?,
        };
        let Some(mut held) = held else { return Poll::Ready(Ok(())) };
        let length = into.remaining().min(held.to - held.from);
        into.put_slice(&held.buffer[held.from..held.from + length]);
        held.from += length;
        if held.from < held.to {
            this.held = Some(held);
        } else {
            SPARE.set(Some(held.buffer));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ahead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<S: Abort> Abort for Ahead<S> {
    fn abort(&self) {
        self.inner.abort();
    }

    fn is_gone(&self) -> bool {
        self.inner.is_gone()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Has all that is asked for at once, and counts how often it is asked.
    struct Counting<'a> {
        left: &'a [u8],
        reads: usize,
    }

    impl AsyncRead for Counting<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let (part, rest) = self.left.split_at(self.left.len().min(into.remaining()));
            into.put_slice(part);
            (self.left, self.reads) = (rest, self.reads + 1);
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn small_reads_get_all_in_order_of_few_large_ones() {
        let sent: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        let mut ahead = Ahead::new(Counting { left: &sent, reads: 0 });
        let (mut came, mut part) = (Vec::new(), [0; 4_096]);
        loop {
            let length = ahead.read(&mut part).await.expect("read");
            if length == 0 {
                break;
            }
            came.extend_from_slice(&part[..length]);
        }
        assert!(came == sent, "{} bytes", came.len());
        // Three full ones, the rest, and the end.
        assert_eq!(ahead.inner.reads, 5);
        assert!(ahead.held.is_none(), "what is idle holds no buffer");
    }

    #[tokio::test]
    async fn two_that_hold_something_share_no_buffer() {
        let (left, right) = (vec![1; 3_000], vec![2; 3_000]);
        let mut streams = [&left, &right].map(|sent| Ahead::new(Counting { left: sent, reads: 0 }));
        let mut came = [Vec::new(), Vec::new()];
        for _ in 0..30 {
            for (stream, came) in streams.iter_mut().zip(&mut came) {
                let mut part = [0; 100];
                stream.read_exact(&mut part).await.expect("read");
                came.extend_from_slice(&part);
            }
        }
        assert!(came == [left, right]);
    }

    #[tokio::test]
    async fn what_is_written_goes_through() {
        let (mut far, near) = tokio::io::duplex(64);
        let mut near = Ahead::new(near);
        near.write_all(b"there").await.expect("taken");
        far.write_all(b"back").await.expect("taken");
        near.shutdown().await.expect("said");
        drop(far.shutdown().await);
        let (mut there, mut back) = (String::new(), String::new());
        far.read_to_string(&mut there).await.expect("read");
        near.read_to_string(&mut back).await.expect("read");
        assert_eq!((&*there, &*back), ("there", "back"));
    }
}
