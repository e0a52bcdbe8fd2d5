//! Pure. Saved snapshots: a state as a file that is checked as a whole, written piece by piece and read back only if its
//! checksum and its state's hash fit. Its head stands in [`model::saved`]. It holds every hash of a secret and the
//! sealed root.
//!
//! What it never holds: the history (a restore starts another one) and pieces of a restore that is under way.

use std::{collections::BTreeMap, io};

use aws_lc_rs::digest::{Context, SHA256, digest};
use model::{
    duration::Millis,
    saved::{CHECKSUM_BYTES, Damaged, Head},
};

use crate::state::{Blob, State, Sum, encode};

/// A piece ends with the record that takes it over this many bytes: an entry of the log carries one.
const PIECE_BYTES: usize = 256 * 1024;
/// The longest piece, in bytes: one record more than `PIECE_BYTES`, and the largest is an object of 4 MiB.
pub const PIECE_BYTES_MAX: usize = 5 * 1024 * 1024;

/// A file that was read and proved itself.
#[derive(Debug, Clone)]
pub struct Saved {
    /// What it says of itself.
    pub head: Head,
    /// What it holds.
    pub state: State,
}

/// What a file of this state says of itself.
pub fn head(state: &State, cluster: &str, saved_at: Millis) -> Head {
    let mut objects = BTreeMap::new();
    for object in state.objects().iter() {
        *objects.entry(object.kind.plural().to_owned()).or_default() += 1;
    }
    let trust = state.trust();
    Head {
        cluster: cluster.to_owned(),
        epoch: trust.map_or_else(String::new, |trust| trust.epoch.to_string()),
        trust_domain: trust.map(|trust| trust.bundle.trust_domain.clone()),
        revision: state.revision(),
        time: state.time(),
        saved_at,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        objects,
        hash: format!("{:032x}", state.to_save().hash()),
    }
}

/// The state's records, some to a piece.
pub fn pieces(state: &State) -> impl Iterator<Item = Vec<u8>> {
    let mut records = state.to_save().into_saved_records().into_iter();
    std::iter::from_fn(move || {
        let (mut piece, mut bytes) = (Vec::new(), 0);
        while bytes < PIECE_BYTES {
            let Some((key, value)) = records.next() else { break };
            bytes += key.len() + value.len();
            piece.push((Blob(key), Blob(value)));
        }
        (!piece.is_empty()).then(|| encode(&piece))
    })
}

/// Writes a whole file; answers how many bytes it has.
///
/// # Errors
/// Those of `out`.
pub fn write(state: &State, head: &Head, out: &mut impl io::Write) -> io::Result<u64> {
    let mut summed = Summed { out, sum: Context::new(&SHA256), bytes: 0 };
    summed.put(&head.to_bytes())?;
    for piece in pieces(state) {
        summed.put(&length(&piece)?)?;
        summed.put(&piece)?;
    }
    summed.put(&0_u32.to_le_bytes())?;
    let sum = summed.sum.finish();
    summed.out.write_all(sum.as_ref())?;
    Ok(summed.bytes + sum.as_ref().len() as u64)
}

/// Reads a whole file.
///
/// # Errors
/// Anything about it is wrong.
pub fn read(bytes: &[u8], history_max: usize) -> Result<Saved, Damaged> {
    let (head, used) = Head::parse(bytes)?;
    let content = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(Damaged::Cut)?;
    let (content, sum) = bytes.split_at(content);
    if digest(&SHA256, content).as_ref() != sum {
        return Err(Damaged::Checksum);
    }
    let mut pieces = Vec::new();
    let mut rest = content.get(used..).ok_or(Damaged::Cut)?;
    loop {
        let (length, after) = rest.split_first_chunk::<4>().ok_or(Damaged::Cut)?;
        let length = u32::from_le_bytes(*length) as usize;
        if length == 0 {
            break;
        }
        let (piece, after) = after.split_at_checked(length).ok_or(Damaged::Cut)?;
        pieces.push(piece);
        rest = after;
    }
    let hash = u128::from_str_radix(&head.hash, 16).map_err(|error| Damaged::Head(error.to_string()))?;
    let sum =
        Sum { revision: head.revision, time: head.time, oldest: head.revision, hash: hash.to_le_bytes() };
    let state = gather(sum, pieces, history_max).map_err(Damaged::Content)?;
    Ok(Saved { head, state })
}

/// The state that pieces make.
///
/// # Errors
/// They are not those of `sum`, or what they make could not have come about.
pub fn gather<'a>(
    sum: Sum,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    history_max: usize,
) -> Result<State, String> {
    let mut records: Vec<(Blob, Blob)> = Vec::new();
    for piece in pieces {
        let piece: Vec<(Blob, Blob)> = rmp_serde::from_slice(piece).map_err(|error| error.to_string())?;
        records.extend(piece);
    }
    let records = records.into_iter().map(|(key, value)| (key.0, value.0));
    let state = State::from_records(sum, records, history_max).map_err(|error| error.to_string())?;
    state.check().map_err(|broken| broken.to_string())?;
    Ok(state)
}

struct Summed<'a, W> {
    out: &'a mut W,
    sum: Context,
    bytes: u64,
}

impl<W: io::Write> Summed<'_, W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

fn length(piece: &[u8]) -> io::Result<[u8; 4]> {
    u32::try_from(piece.len()).map(u32::to_le_bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::furnished;

    fn file(state: &State) -> Vec<u8> {
        let mut bytes = Vec::new();
        let head = head(state, "cluster", Millis(5));
        let length = write(state, &head, &mut bytes).expect("memory takes it");
        assert_eq!(length, bytes.len() as u64);
        bytes
    }

    #[test]
    fn a_state_comes_back_and_its_file_says_what_is_in_it() {
        let state = furnished();
        let Saved { head, state: read } = read(&file(&state), 100).expect("its own");
        assert_eq!((read.hash(), read.revision()), (state.to_save().hash(), state.revision()));
        assert_eq!(
            head.objects["services"],
            state.objects().iter().filter(|o| o.kind.plural() == "services").count() as u64
        );
        assert_eq!(head.count(), state.objects().len() as u64);
        assert_eq!(read.history().oldest(), read.revision(), "the history is not in it");
    }

    #[test]
    fn no_flipped_bit_and_no_cut_goes_unnoticed() {
        let bytes = file(&furnished());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(read(&damaged, 100).is_err(), "byte {at}");
            assert!(read(&bytes[..at], 100).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_checksum_that_was_made_to_fit_does_not_make_another_state() {
        let mut bytes = file(&furnished());
        let content = bytes.len() - CHECKSUM_BYTES;
        let places: Vec<_> = (0..content).filter(|&at| bytes[at..].starts_with(b"web")).collect();
        assert!(!places.is_empty(), "a service is called so");
        places.into_iter().for_each(|at| bytes[at..at + 3].copy_from_slice(b"wax"));
        let sum = digest(&SHA256, &bytes[..content]);
        bytes[content..].copy_from_slice(sum.as_ref());
        assert!(matches!(read(&bytes, 100), Err(Damaged::Content(_))));
    }

    #[test]
    fn a_large_state_has_many_pieces() {
        let mut state = furnished();
        let long = "x".repeat(4_000);
        for n in 0..200 {
            crate::state::tests::perform(&mut state, &format!("put Service/shop/s{n} note={long}"));
        }
        let all: Vec<_> = pieces(&state).collect();
        assert!(all.len() >= 3 && all.iter().all(|piece| piece.len() < 2 * PIECE_BYTES), "{}", all.len());
        let read = read(&file(&state), 1).expect("its own");
        let again = gather(read.state.sum(), all.iter().map(Vec::as_slice), 1).expect("its own pieces");
        assert_eq!(again.hash(), state.to_save().hash());
        let lacking = all.iter().skip(1).map(Vec::as_slice);
        assert!(gather(read.state.sum(), lacking, 1).is_err(), "one is missing");
    }
}
