//! Pure. Memory for what is short and lives about as long as a request, such as heads and what is added to them: pieces lie
//! behind each other in one allocation, which goes with the last of them.

use std::cell::RefCell;

use bytes::BytesMut;

/// What is allocated at once, in bytes. A call that lasts may keep all of it for its head alone.
const CHUNK_BYTES: usize = 4 * 1_024;
/// The longest piece that lies among others, in bytes.
const PIECE_BYTES: usize = CHUNK_BYTES / 2;

thread_local! {
    /// What of the last allocation nobody has.
    static REST: RefCell<BytesMut> = RefCell::default();
}

/// A copy.
pub(crate) fn copied(bytes: &[u8]) -> BytesMut {
    if bytes.len() > PIECE_BYTES {
        return BytesMut::from(bytes);
    }
    REST.with_borrow_mut(|rest| {
        // Where nobody has anything of it any more, its memory is used again.
        if !rest.try_reclaim(bytes.len()) {
            *rest = BytesMut::with_capacity(CHUNK_BYTES);
        }
        rest.extend_from_slice(bytes);
        rest.split()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_lie_together_and_are_what_was_copied() {
        let texts: Vec<Vec<u8>> = [1, 36, 55, 1_300, PIECE_BYTES, PIECE_BYTES + 1, 40_000, 7]
            .map(|length| vec![b'a'; length])
            .into();
        let mut pieces: Vec<BytesMut> = texts.iter().map(|text| copied(text)).collect();
        assert_eq!(pieces[0].as_ptr().wrapping_add(1), pieces[1].as_ptr());
        pieces[1].extend_from_slice(b"more");
        pieces[1].truncate(36);
        assert!(pieces.iter().eq(texts.iter()), "none is written over");
    }

    #[test]
    fn memory_that_nobody_has_is_used_again() {
        let first = copied(b"first").as_ptr();
        let places = (0..2 * CHUNK_BYTES / 500).map(|_| copied(&[b'x'; 500]).as_ptr());
        assert!(places.filter(|place| *place == first).count() > 0);
    }
}
