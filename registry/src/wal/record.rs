//! Pure. One record of the log as bytes, and back.
//! A record knows nothing of files: where it stands and what follows it is `recover`'s work.
//!
//! ```text
//! length u32 | crc u32 | sequence u64 | durable u64 | kind u8 | body
//! ```
//!
//! All numbers are little-endian. `length` counts the whole record, so that it is never zero and a
//! zeroed file holds no records. The CRC covers everything but itself, the length too, and begins with
//! the segment's seed: bytes of one segment never pass for a record of another, and whoever can only
//! choose a body cannot plant a record inside it.

use crc32fast::Hasher;

/// Bytes of a record before its body.
pub const RECORD_HEAD_LEN: usize = 4 + CRC_LEN + 8 + 8 + 1;

/// The longest record, in bytes. Commands are bounded far below at the API; this bounds what a length
/// field can claim and keeps every offset within a segment in 32 bits.
pub const RECORD_LEN_MAX: usize = 64 << 20;

const CRC_AT: usize = 4;
const CRC_LEN: usize = 4;
const INDEX_LEN: usize = 8;

const KIND_ENTRY: u8 = 1;
const KIND_VOTE: u8 = 2;
const KIND_TRUNCATE: u8 = 3;
const KIND_PURGE: u8 = 4;
const KIND_COMMITTED: u8 = 5;

/// What one record says. Bodies are opaque here: the Raft side gives them their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// The log entry at `index`.
    Entry {
        /// Its position in the Raft log.
        index: u64,
        /// The serialised entry.
        body: &'a [u8],
    },
    /// The vote that this member cast; a later one replaces it.
    Vote(&'a [u8]),
    /// Entries at `from` and above are gone.
    Truncate {
        /// The first index that is removed.
        from: u64,
    },
    /// Entries at `index` and below are gone; `id` is the log id of the last of them.
    Purge {
        /// The last index that is removed.
        index: u64,
        /// The serialised log id at `index`.
        id: &'a [u8],
    },
    /// The last log id known committed: advice for a restart, never a promise.
    Committed(&'a [u8]),
}

/// What every record carries for recovery's sake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Counts records, +1 each, across segments. The first is 1.
    pub sequence: u64,
    /// The last sequence number known to be on disk when this record was written; 0 for none.
    pub durable: u64,
}

/// A record's frame whose CRC holds; the body is not looked at yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its place among the others.
    pub stamp: Stamp,
    /// Bytes of the whole record, head and body.
    pub len: usize,
    kind: u8,
    body: &'a [u8],
}

/// Why bytes are no record: they are torn, damaged, or were never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Fewer bytes are left than the shortest record has.
    #[error("only {left} bytes are left")]
    Short {
        /// Bytes that are left.
        left: usize,
    },
    /// No record has this length, or it reaches beyond the end.
    #[error("its length says {length} bytes where {left} are left")]
    Length {
        /// What the length field says.
        length: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// The checksum does not match the bytes.
    #[error("its checksum is {found:08x} where {computed:08x} was expected")]
    Crc {
        /// What is stored.
        found: u32,
        /// What the bytes give.
        computed: u32,
    },
}

/// A sound record that this version cannot read: written by a newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of kind {kind} with {body_len} bytes of body is unknown to this version")]
pub struct Unknown {
    /// The kind byte.
    pub kind: u8,
    /// Bytes of body.
    pub body_len: usize,
}

/// Bytes that `record` takes in the log.
pub fn encoded_len(record: &Record<'_>) -> usize {
    let body = match record {
        Record::Entry { body, .. } => INDEX_LEN + body.len(),
        Record::Vote(body) | Record::Committed(body) => body.len(),
        Record::Truncate { .. } => INDEX_LEN,
        Record::Purge { id, .. } => INDEX_LEN + id.len(),
    };
    RECORD_HEAD_LEN + body
}

/// Appends `record` to `out`.
///
/// # Panics
/// If the record is longer than [`RECORD_LEN_MAX`]: the log refuses such a body before it gets here.
pub fn encode(record: &Record<'_>, stamp: Stamp, seed: u32, out: &mut Vec<u8>) {
    let len = encoded_len(record);
    assert!(len <= RECORD_LEN_MAX, "a record of {len} bytes");
    let start = out.len();
    out.reserve(len);
    out.extend_from_slice(&(len as u32).to_le_bytes());
    out.extend_from_slice(&[0; CRC_LEN]);
    out.extend_from_slice(&stamp.sequence.to_le_bytes());
    out.extend_from_slice(&stamp.durable.to_le_bytes());
    encode_body(record, out);
    debug_assert_eq!(out.len() - start, len);
    let crc = checksum(&out[start..], seed);
    out[start + CRC_AT..start + CRC_AT + CRC_LEN].copy_from_slice(&crc.to_le_bytes());
}

/// Reads the record which `bytes` begins with. Never panics, whatever the bytes are.
///
/// # Errors
/// [`Damage`] if no whole record with a matching checksum stands there.
pub fn decode(bytes: &[u8], seed: u32) -> Result<Frame<'_>, Damage> {
    let (head, length) = parse_head(bytes)?;
    let record = &bytes[..length];
    let (found, computed) = (head.crc, checksum(record, seed));
    if found != computed {
        return Err(Damage::Crc { found, computed });
    }
    Ok(Frame { stamp: head.stamp, len: length, kind: head.kind, body: &record[RECORD_HEAD_LEN..] })
}

/// The stamp of what may be a record at the start of `bytes`, its checksum not yet looked at: a cheap
/// first look for whoever searches at every offset.
pub(super) fn peek(bytes: &[u8]) -> Option<Stamp> {
    parse_head(bytes).ok().map(|(head, _)| head.stamp)
}

impl<'a> Frame<'a> {
    /// What the record says.
    ///
    /// # Errors
    /// [`Unknown`] if a newer version wrote it.
    pub fn record(&self) -> Result<Record<'a>, Unknown> {
        let unknown = Unknown { kind: self.kind, body_len: self.body.len() };
        let split = || split_u64(self.body).ok_or(unknown);
        match self.kind {
            KIND_ENTRY => split().map(|(index, body)| Record::Entry { index, body }),
            KIND_VOTE => Ok(Record::Vote(self.body)),
            KIND_TRUNCATE if self.body.len() == INDEX_LEN => {
                split().map(|(from, _)| Record::Truncate { from })
            }
            KIND_PURGE => split().map(|(index, id)| Record::Purge { index, id }),
            KIND_COMMITTED => Ok(Record::Committed(self.body)),
            _ => Err(unknown),
        }
    }
}

struct Head {
    crc: u32,
    stamp: Stamp,
    kind: u8,
}

/// The fixed part, and the record's length if it fits into `bytes`.
fn parse_head(bytes: &[u8]) -> Result<(Head, usize), Damage> {
    let left = bytes.len();
    let Some((head, _)) = bytes.split_first_chunk::<RECORD_HEAD_LEN>() else {
        return Err(Damage::Short { left });
    };
    let length = read_u32(head, 0) as usize;
    if !(RECORD_HEAD_LEN..=RECORD_LEN_MAX.min(left)).contains(&length) {
        return Err(Damage::Length { length, left });
    }
    let stamp = Stamp { sequence: read_u64(head, 8), durable: read_u64(head, 16) };
    Ok((Head { crc: read_u32(head, CRC_AT), stamp, kind: head[RECORD_HEAD_LEN - 1] }, length))
}

fn encode_body(record: &Record<'_>, out: &mut Vec<u8>) {
    match record {
        Record::Entry { index, body } => {
            out.push(KIND_ENTRY);
            out.extend_from_slice(&index.to_le_bytes());
            out.extend_from_slice(body);
        }
        Record::Vote(body) => {
            out.push(KIND_VOTE);
            out.extend_from_slice(body);
        }
        Record::Truncate { from } => {
            out.push(KIND_TRUNCATE);
            out.extend_from_slice(&from.to_le_bytes());
        }
        Record::Purge { index, id } => {
            out.push(KIND_PURGE);
            out.extend_from_slice(&index.to_le_bytes());
            out.extend_from_slice(id);
        }
        Record::Committed(body) => {
            out.push(KIND_COMMITTED);
            out.extend_from_slice(body);
        }
    }
}

/// The CRC of a whole record, its own field left out.
fn checksum(record: &[u8], seed: u32) -> u32 {
    let mut hasher = Hasher::new_with_initial(seed);
    hasher.update(&record[..CRC_AT]);
    hasher.update(&record[CRC_AT + CRC_LEN..]);
    hasher.finalize()
}

fn split_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*number), rest))
}

fn read_u32(bytes: &[u8; RECORD_HEAD_LEN], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn read_u64(bytes: &[u8; RECORD_HEAD_LEN], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { sequence: 7, durable: 5 };
    const SEED: u32 = 0xfeed;

    fn bytes_of(record: &Record<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        encode(record, STAMP, SEED, &mut out);
        assert_eq!(out.len(), encoded_len(record));
        out
    }

    #[track_caller]
    fn check_round_trip(record: Record<'_>) {
        let bytes = bytes_of(&record);
        let frame = decode(&bytes, SEED).unwrap();
        assert_eq!((frame.stamp, frame.len), (STAMP, bytes.len()));
        assert_eq!(frame.record().unwrap(), record);
    }

    #[test]
    fn every_kind_comes_back_as_it_was() {
        check_round_trip(Record::Entry { index: 42, body: b"put a=1" });
        check_round_trip(Record::Entry { index: u64::MAX, body: b"" });
        check_round_trip(Record::Vote(b"term 3, node 1"));
        check_round_trip(Record::Vote(b""));
        check_round_trip(Record::Truncate { from: 9 });
        check_round_trip(Record::Purge { index: 3, id: b"3.1.3" });
        check_round_trip(Record::Committed(b"3.1.4"));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let sound = bytes_of(&Record::Entry { index: 1, body: b"body" });
        for bit in 0..sound.len() * 8 {
            let mut flipped = sound.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped, SEED).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_shortened_record_is_noticed() {
        let sound = bytes_of(&Record::Vote(b"vote"));
        for len in 0..sound.len() {
            assert!(decode(&sound[..len], SEED).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_record_of_another_segment_does_not_count() {
        let bytes = bytes_of(&Record::Vote(b"vote"));
        assert!(matches!(decode(&bytes, SEED + 1), Err(Damage::Crc { .. })));
    }

    #[test]
    fn zeros_are_no_record() {
        assert_eq!(decode(&[0; 64], 0), Err(Damage::Length { length: 0, left: 64 }));
    }

    #[test]
    fn an_unknown_kind_is_not_mistaken_for_damage() {
        let mut bytes = bytes_of(&Record::Vote(b"vote"));
        bytes[RECORD_HEAD_LEN - 1] = 99;
        let crc = checksum(&bytes, SEED);
        bytes[CRC_AT..CRC_AT + CRC_LEN].copy_from_slice(&crc.to_le_bytes());
        let frame = decode(&bytes, SEED).unwrap();
        assert_eq!(frame.record(), Err(Unknown { kind: 99, body_len: 4 }));
    }
}
