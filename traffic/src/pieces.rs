//! Pure. Bytes one behind the other, which lie where they were written: who takes them gets the memory itself wherever a
//! copy would cost more than the piece is worth.

use std::collections::VecDeque;

use bytes::Bytes;

/// Pieces below this are copied behind each other, in bytes: a piece of its own costs an allocation and its place in the
/// list, which for a few bytes is many times what they are.
pub(crate) const PIECE_BYTES_LEAST: usize = 4 * 1_024;

/// A queue of bytes. What it holds beside them is bounded by what they are.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    /// Those that lie by themselves, each with a byte at least.
    whole: VecDeque<Bytes>,
    /// What was copied behind them, from `taken` on.
    tail: Vec<u8>,
    taken: usize,
    length: usize,
}

impl Pieces {
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds a copy.
    pub(crate) fn copy(&mut self, part: &[u8]) {
        if part.len() >= PIECE_BYTES_LEAST {
            self.push(Bytes::copy_from_slice(part));
        } else {
            self.tail.extend_from_slice(part);
            self.length += part.len();
            if self.tail.len() >= 2 * PIECE_BYTES_LEAST {
                self.close_tail();
            }
        }
    }

    /// Adds a piece, which stays where it is.
    pub(crate) fn push(&mut self, piece: Bytes) {
        if piece.len() < PIECE_BYTES_LEAST {
            return self.copy(&piece);
        }
        self.close_tail();
        self.length += piece.len();
        self.whole.push_back(piece);
    }

    /// Takes at most `most` bytes that lie together; `None` if there are none, or none are wanted.
    pub(crate) fn take(&mut self, most: usize) -> Option<Bytes> {
        if self.whole.is_empty() {
            self.close_tail();
        }
        let first = self.whole.front_mut().filter(|_| most > 0)?;
        let piece = if first.len() <= most { self.whole.pop_front()? } else { first.split_to(most) };
        self.length -= piece.len();
        Some(piece)
    }

    /// Moves bytes into `into`; how many.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> usize {
        let mut length = 0;
        while length < into.len() && !self.whole.is_empty() {
            let Some(piece) = self.take(into.len() - length) else { break };
            into[length..length + piece.len()].copy_from_slice(&piece);
            length += piece.len();
        }
        let tail = &self.tail[self.taken..];
        let short = tail.len().min(into.len() - length);
        into[length..length + short].copy_from_slice(&tail[..short]);
        self.pass(short);
        length + short
    }

    /// What is at its front and was copied together, if it is short enough to be copied once more: no memory changes hands.
    pub(crate) fn short(&self) -> Option<&[u8]> {
        let short = self.whole.is_empty() && self.length < PIECE_BYTES_LEAST;
        short.then(|| &self.tail[self.taken..])
    }

    /// So much of what is [`short`](Self::short) was used.
    pub(crate) fn pass(&mut self, bytes: usize) {
        self.taken += bytes;
        self.length -= bytes;
        if self.taken == self.tail.len() {
            self.tail.clear();
            self.taken = 0;
        }
    }

    /// Drops all; how much that was.
    pub(crate) fn clear(&mut self) -> usize {
        std::mem::take(self).length
    }

    /// Gives back memory that is not used.
    pub(crate) fn shrink(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// What was copied together is a piece of its own from now on.
    fn close_tail(&mut self) {
        let tail = Bytes::from(std::mem::take(&mut self.tail)).split_off(std::mem::take(&mut self.taken));
        if !tail.is_empty() {
            self.whole.push_back(tail);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Copy(usize),
        Push(usize),
        Take(usize),
        Read(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let length = || prop_oneof![0..40_usize, 0..20_000_usize];
        let step = prop_oneof![
            length().prop_map(Step::Copy),
            length().prop_map(Step::Push),
            length().prop_map(Step::Take),
            length().prop_map(Step::Read),
        ];
        prop::collection::vec(step, 1..60)
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order_however_it_goes_in_and_comes_out(steps in steps()) {
            let (mut pieces, mut into, mut out, mut buffer) = (Pieces::default(), 0_usize, 0_usize, vec![0; 20_000]);
            let byte = |place: usize| (place % 251) as u8;
            for step in steps {
                let more = |into: &mut usize, length| {
                    let bytes: Vec<u8> = (*into..*into + length).map(byte).collect();
                    *into += length;
                    bytes
                };
                let got = match step {
                    Step::Copy(length) => { pieces.copy(&more(&mut into, length)); Bytes::new() }
                    Step::Push(length) => { pieces.push(more(&mut into, length).into()); Bytes::new() }
                    Step::Take(most) => pieces.take(most).unwrap_or_default(),
                    Step::Read(most) => {
                        let length = pieces.read(&mut buffer[..most]);
                        Bytes::copy_from_slice(&buffer[..length])
                    }
                };
                prop_assert!(got.iter().copied().eq((out..out + got.len()).map(byte)));
                out += got.len();
                prop_assert_eq!(pieces.len(), into - out);
            }
        }
    }

    #[test]
    fn a_large_piece_is_not_copied_and_small_ones_lie_together() {
        let (mut pieces, large) = (Pieces::default(), Bytes::from(vec![7; 50_000]));
        pieces.push(large.clone());
        assert_eq!(pieces.take(20_000).map(|piece| piece.as_ptr()), Some(large.as_ptr()));
        for _ in 0..60_000 {
            pieces.copy(b"x");
        }
        assert_eq!(pieces.len(), 30_000 + 60_000);
        assert!(pieces.whole.len() <= 1 + 60_000 / PIECE_BYTES_LEAST, "{} pieces", pieces.whole.len());
    }
}
