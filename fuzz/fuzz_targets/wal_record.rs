//! The write-ahead log's bytes. Raw ones hardly ever pass a checksum, so that the input is also taken as a script:
//! sound records in an order that the input chooses, then some bytes damaged. Nothing panics, a record that was written
//! reads back, a sound log is read whole, and a damaged one never yields a record that was not written. An entry's body
//! is read too, and what reads as a command is applied: that is total, and leaves a state that holds together.
#![no_main]

use registry::{
    Entry, State,
    wal::{
        Identity, Ledger,
        header::{HEADER_LEN, Header},
        record::{self, Record, Stamp},
        recover::{recover, segment_name},
    },
};
use uuid::Uuid;

/// Enough for a judgement to go wrong, few enough to be quick.
const RECORDS_MAX: usize = 64;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((mode, rest)) = data.split_first() else { return };
    match mode % 4 {
        0 => raw(rest),
        1 => header_fields(rest),
        2 => body(rest),
        _ => script(rest),
    }
});

/// As they come: a segment and a record.
fn raw(bytes: &[u8]) {
    let _ = recover(&[(&segment_name(1), bytes)]);
    if let Ok(frame) = record::decode(bytes, 0) {
        assert!(frame.len <= bytes.len());
        let _ = frame.record();
    }
}

/// A header block with fields of the input's choice under a sound checksum.
fn header_fields(bytes: &[u8]) {
    let mut block = vec![0; HEADER_LEN];
    let fields = &bytes[..bytes.len().min(HEADER_LEN - 12)];
    block[..8].copy_from_slice(b"mesh.wal");
    block[12..12 + fields.len()].copy_from_slice(fields);
    let crc = crc32fast::hash(&block[12..]);
    block[8..12].copy_from_slice(&crc.to_le_bytes());
    if let Ok((header, seed)) = Header::decode(&block) {
        assert_eq!(seed, crc);
        assert_eq!(Header::decode(&header.encode().0).expect("what was encoded decodes").0, header);
    }
    let _ = recover(&[(&segment_name(1), &block)]);
}

/// What Raft hands to the state.
fn body(bytes: &[u8]) {
    let Ok(entry) = rmp_serde::from_slice::<Entry>(bytes) else { return };
    let mut state = State::new();
    state.apply(entry.clone());
    state.apply(entry);
    state.check().expect("the state holds together");
}

/// A log as a writer could leave it, then damaged at places that the input names.
fn script(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut file = Vec::new();
    let mut sequence = 0;
    let mut in_order = true;
    let (head, seed) = first_header(16 * 1024).encode();
    while sequence < RECORDS_MAX as u64 && input.byte() % 8 != 0 {
        let skipped = u64::from(input.byte() == 255);
        sequence += 1 + skipped;
        let durable = sequence.saturating_sub(1 + u64::from(input.byte() % 4));
        in_order &= skipped == 0;
        let stamp = Stamp { sequence, durable };
        let body = input.bytes();
        let at = file.len();
        record::encode(&choose(input.byte(), u64::from(input.byte()), body), stamp, seed, &mut file);
        let frame = record::decode(&file[at..], seed).expect("what was encoded decodes");
        assert_eq!(frame.stamp, stamp);
    }
    file.splice(0..0, head);
    file.resize(16 * 1024, 0);
    let mut damaged = false;
    for _ in 0..input.byte() % 4 {
        let at = usize::from(u16::from_le_bytes([input.byte(), input.byte()])) % file.len();
        let flip = input.byte();
        file[at] ^= flip;
        damaged |= flip != 0;
    }
    match recover(&[(&segment_name(1), &file)]) {
        Ok(recovered) => {
            assert!(recovered.sequence <= sequence, "more was read than was written");
            assert!(damaged || !in_order || recovered.sequence == sequence, "a sound log was not read whole");
        }
        Err(refusal) => assert!(!refusal.to_string().is_empty()),
    }
}

fn first_header(len: u64) -> Header {
    let identity = Identity { cluster: Uuid::from_u128(7), node: 1 };
    Header { identity, number: 1, first_sequence: 1, len, ledger: Ledger::default() }
}

fn choose(kind: u8, index: u64, body: &[u8]) -> Record<'_> {
    match kind % 5 {
        0 => Record::Entry { index, body },
        1 => Record::Vote(body),
        2 => Record::Truncate { from: index },
        3 => Record::Purge { index, id: body },
        _ => Record::Committed(body),
    }
}

/// Reads choices off the input; what is missing is 0.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Up to 63 bytes, by a length that stands before them.
    fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte() % 64).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }
}
