//! Pure. The bytes of streams, as the application writes and reads them: by copies, or as pieces that stay where they are.

use ::bytes::Bytes;

use super::{Connection, Read, Side};
use crate::mesh1::{
    Broken, GIVEN_BYTES_LEAST, QUEUE_BYTES_LEAST, QUEUE_BYTES_MAX, QUEUES_BYTES_MAX, StreamId,
};
use crate::pieces::Pieces;

impl Connection {
    /// Takes bytes to send; how many, which is 0 when the stream is full: [`Event::Write`] says when it no longer is.
    ///
    /// # Errors
    /// If nobody will read them.
    pub fn write(&mut self, id: StreamId, bytes: &[u8]) -> Result<usize, Broken> {
        self.queue(id, bytes.len(), |queue, length| queue.copy(&bytes[..length]))
    }

    /// As [`write`](Self::write), of a piece that is sent from where it lies if it is large; what is taken is taken off its
    /// front.
    ///
    /// # Errors
    /// If nobody will read it.
    pub fn give(&mut self, id: StreamId, piece: &mut Bytes) -> Result<usize, Broken> {
        let large = piece.len() >= GIVEN_BYTES_LEAST;
        self.queue(id, piece.len(), |queue, length| {
            let part = piece.split_to(length);
            if large { queue.push(part) } else { queue.copy(&part) }
        })
    }

    /// Lets `put` put so many of `wanted` bytes behind what is to be sent of a stream as there is room for.
    fn queue(
        &mut self,
        id: StreamId,
        wanted: usize,
        put: impl FnOnce(&mut Pieces, usize),
    ) -> Result<usize, Broken> {
        let most = if self.queued < QUEUES_BYTES_MAX { QUEUE_BYTES_MAX } else { QUEUE_BYTES_LEAST };
        let stream = self.streams.get_mut(&id).ok_or(Broken::Ended)?;
        if let Some(broken) = &stream.broken {
            return Err(broken.clone());
        }
        if stream.finishing {
            return Err(Broken::Ended);
        }
        let length = wanted.min(most.saturating_sub(stream.queue.len()));
        stream.wants_write = length < wanted;
        put(&mut stream.queue, length);
        self.queued += length;
        if self.side == Side::Taker && !std::mem::replace(&mut stream.answered, true) {
            self.resets = 0;
        }
        self.list(id);
        Ok(length)
    }

    /// Moves bytes that came into `into`.
    ///
    /// # Errors
    /// If the stream broke off, and what came before was read.
    pub fn read(&mut self, id: StreamId, into: &mut [u8]) -> Result<Read, Broken> {
        self.read_by(id, |received| received.read(into))
    }

    /// As [`read`](Self::read): at most `most` bytes that came, which lie together.
    ///
    /// # Errors
    /// If the stream broke off, and what came before was read.
    pub fn take(&mut self, id: StreamId, most: usize) -> Result<Read<Bytes>, Broken> {
        self.read_by(id, |received| received.take(most).unwrap_or_default())
    }

    fn read_by<T>(&mut self, id: StreamId, read: impl FnOnce(&mut Pieces) -> T) -> Result<Read<T>, Broken> {
        let stream = self.streams.get_mut(&id).ok_or(Broken::Ended)?;
        let (read, length) = stream.read(read);
        if length == 0 {
            return match &stream.broken {
                _ if stream.peer_ended => Ok(Read::End),
                Some(broken) => Err(broken.clone()),
                None => {
                    stream.wants_read = true;
                    Ok(Read::Nothing)
                }
            };
        }
        if stream.owes_credit() && !std::mem::replace(&mut stream.credited, true) {
            self.credits.push_back(id);
        }
        self.give_back(length);
        Ok(Read::Bytes(read))
    }
}
