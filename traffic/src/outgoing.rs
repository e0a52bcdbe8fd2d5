//! Pure. What a connection sends at once: frames' headers and short things one behind the other, and between them long
//! pieces of DATA that lie where they were written.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes};

use crate::pieces::Pieces;

/// Bytes to send, in order. What was sent is taken from the front.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// What was copied, from `sent` on.
    copied: Vec<u8>,
    sent: usize,
    /// Pieces, each with where it stands: before the byte of `copied` of that number.
    pieces: VecDeque<(usize, Bytes)>,
    length: usize,
}

impl Outgoing {
    /// Bytes that are left to send.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds what `write` appends.
    pub(crate) fn with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.copied.len();
        write(&mut self.copied);
        self.length += self.copied.len() - before;
    }

    /// Adds a piece, which stays where it is.
    pub(crate) fn push(&mut self, piece: Bytes) {
        self.length += piece.len();
        self.pieces.push_back((self.copied.len(), piece));
    }

    /// Moves so many bytes of a queue: what is short is copied, the rest goes as it lies.
    pub(crate) fn draw(&mut self, queue: &mut Pieces, length: usize) {
        if let Some(short) = queue.short() {
            self.with(|bytes| bytes.extend_from_slice(&short[..length]));
            return queue.pass(length);
        }
        let mut left = length;
        while let Some(piece) = queue.take(left) {
            left -= piece.len();
            self.push(piece);
        }
    }

    /// Its first bytes, in order: as many slices as `slices` has room for. How many they are.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let (mut from, mut count) = (self.sent, 0);
        let mut put = |bytes: &'a [u8]| {
            let room = slices.get_mut(count).filter(|_| !bytes.is_empty());
            count += usize::from(room.map(|slice| *slice = IoSlice::new(bytes)).is_some());
        };
        for (at, piece) in &self.pieces {
            put(&self.copied[from..*at]);
            put(piece);
            from = *at;
        }
        put(&self.copied[from..]);
        count
    }

    /// So many bytes were sent.
    pub fn advance(&mut self, bytes: usize) {
        self.length -= bytes;
        let mut left = bytes;
        while left > 0 {
            let until = self.pieces.front().map_or(self.copied.len(), |(at, _)| *at);
            let copied = left.min(until - self.sent);
            (self.sent, left) = (self.sent + copied, left - copied);
            let Some((_, piece)) = self.pieces.front_mut().filter(|_| left > 0) else { continue };
            let length = left.min(piece.len());
            piece.advance(length);
            left -= length;
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
        if self.is_empty() {
            self.copied.clear();
            self.sent = 0;
        }
    }

    /// Gives back memory that is not used, beyond `most` bytes of it.
    pub fn shrink_to(&mut self, most: usize) {
        self.copied.shrink_to(most);
    }

    /// All that is left, in one.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut slices = vec![IoSlice::new(&[]); 2 * self.pieces.len() + 1];
        let count = self.slices(&mut slices);
        slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However few are taken at once, all go in order, and pieces from where they lie.
    #[test]
    fn what_is_sent_in_parts_is_whole() {
        let pieces = [Bytes::from(vec![1; 300]), Bytes::from(vec![2; 200]), Bytes::from(vec![3; 100])];
        for (taken, room) in [(1, 1), (7, 2), (99, 3), (250, 16), (usize::MAX, 16)] {
            let mut out = Outgoing::default();
            out.with(|bytes| bytes.extend(b"head"));
            out.push(pieces[0].clone());
            out.push(pieces[1].clone());
            out.with(|bytes| bytes.extend(b"middle"));
            out.push(pieces[2].clone());
            out.with(|bytes| bytes.extend(b"end"));
            let want = out.to_vec();
            assert_eq!(want, [&b"head"[..], &pieces[0], &pieces[1], b"middle", &pieces[2], b"end"].concat());
            let mut sent: Vec<u8> = Vec::new();
            while !out.is_empty() {
                let mut slices = vec![IoSlice::new(&[]); room];
                let count = out.slices(&mut slices);
                assert!(count > 0 && slices[..count].iter().all(|slice| !slice.is_empty()));
                let before = sent.len();
                sent.extend(slices[..count].iter().flat_map(|slice| slice.iter().copied()).take(taken));
                let part = sent.len() - before;
                out.advance(part);
                assert_eq!(out.len(), want.len() - sent.len());
            }
            assert!(sent == want, "{taken} at once");
        }
    }
}
