//! The one copy loop: bytes both ways between two streams. A pair that is idle holds no buffer: bytes are read into one
//! that all pairs of a thread share, and only what the other side does not take at once is kept.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is read at once, in bytes: two TLS records. As much is kept at most for each direction.
pub(crate) const READ_BYTES: usize = 32 * 1_024;

thread_local! {
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// The buffer of this thread that whoever reads may use meanwhile.
pub(crate) fn shared<T>(read: impl FnOnce(&mut [u8]) -> T) -> T {
    SHARED.with_borrow_mut(|shared| read(shared))
}

/// Moves bytes both ways until both sides have said their last. Either may say its last while the other goes on.
///
/// # Errors
/// If a side breaks off.
pub async fn duplex<A, B>(a: &mut A, b: &mut B) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut there, mut back) = (Way::default(), Way::default());
    poll_fn(|cx| {
        let there = there.poll(cx, a, b)?;
        let back = back.poll(cx, b, a)?;
        if there.is_ready() && back.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

/// One direction.
#[derive(Default)]
struct Way {
    /// What the other side did not take at once, from `taken` on.
    kept: Vec<u8>,
    taken: usize,
    /// Something was written since the last flush.
    unflushed: bool,
    ended: bool,
    over: bool,
}

impl Way {
    fn poll<A, B>(&mut self, cx: &mut Context<'_>, from: &mut A, to: &mut B) -> Poll<io::Result<()>>
    where
        A: AsyncRead + Unpin,
        B: AsyncWrite + Unpin,
    {
        while !self.over {
            ready!(self.write_kept(cx, to))?;
            if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.over = true;
            } else if self.read(cx, from, to)?.is_pending() {
                if self.unflushed {
                    ready!(Pin::new(&mut *to).poll_flush(cx))?;
                    self.unflushed = false;
                }
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once, and writes what is taken at once.
    fn read<A, B>(&mut self, cx: &mut Context<'_>, from: &mut A, to: &mut B) -> io::Result<Poll<()>>
    where
        A: AsyncRead + Unpin,
        B: AsyncWrite + Unpin,
    {
        shared(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            if Pin::new(from).poll_read(cx, &mut buffer)?.is_pending() {
                return Ok(Poll::Pending);
            }
            let mut came = buffer.filled();
            self.ended = came.is_empty();
            while !came.is_empty() {
                match Pin::new(&mut *to).poll_write(cx, came)? {
                    Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(length) => came = &came[length..],
                    Poll::Pending => {
                        self.kept = came.to_vec();
                        break;
                    }
                }
                self.unflushed = true;
            }
            Ok(Poll::Ready(()))
        })
    }

    fn write_kept<B: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut B,
    ) -> Poll<io::Result<()>> {
        while self.taken < self.kept.len() {
            let length = ready!(Pin::new(&mut *to).poll_write(cx, &self.kept[self.taken..]))?;
            if length == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.taken += length;
            self.unflushed = true;
        }
        (self.kept, self.taken) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn each_side_gets_all_of_the_other_however_little_it_takes_at_once() {
        let ((mut left, mut a), (mut b, right)) = (tokio::io::duplex(7), tokio::io::duplex(1_000));
        let joined = tokio::spawn(async move { duplex(&mut a, &mut b).await });
        let (mut reader, mut writer) = tokio::io::split(right);
        let large: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        let sent = large.clone();
        let sending = tokio::spawn(async move {
            writer.write_all(&sent).await.expect("taken");
            writer.shutdown().await.expect("said");
        });
        let mut came = Vec::new();
        left.read_to_end(&mut came).await.expect("read");
        assert!(came == large, "{} bytes", came.len());
        left.write_all(b"this direction goes on").await.expect("taken");
        left.shutdown().await.expect("said");
        let mut back = String::new();
        reader.read_to_string(&mut back).await.expect("read");
        assert_eq!(back, "this direction goes on");
        sending.await.expect("it ran");
        joined.await.expect("it ran").expect("both have said their last");
    }

    #[tokio::test]
    async fn a_side_that_takes_nothing_more_ends_both() {
        let ((left, mut a), (mut b, mut right)) = (tokio::io::duplex(64), tokio::io::duplex(64));
        let joined = tokio::spawn(async move { duplex(&mut a, &mut b).await });
        drop(left);
        drop(right.write_all(&[0; 1_000]).await);
        assert_eq!(
            joined.await.expect("it ran").map_err(|error| error.kind()),
            Err(io::ErrorKind::BrokenPipe)
        );
    }
}
