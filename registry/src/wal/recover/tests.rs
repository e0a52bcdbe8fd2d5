use bytes::Bytes;
use uuid::Uuid;

use super::*;
use crate::wal::header::HeaderDamage;
use crate::wal::ledger::{Gap, Mark};
use crate::wal::record::{Damage, Unknown};

const SEGMENT_LEN: usize = HEADER_LEN + 400;

/// Writes a log into memory as the writer does into files: each group says that the one before it is
/// durable, and a segment begins when a group does not fit.
struct Written {
    segments: Vec<(String, Vec<u8>)>,
    seed: u32,
    ledger: Ledger,
    sequence: u64,
    offset: usize,
    /// Where the last group begins, in the last segment.
    last_group: usize,
}

impl Written {
    fn new() -> Self {
        let mut written = Self {
            segments: Vec::new(),
            seed: 0,
            ledger: Ledger::default(),
            sequence: 0,
            offset: 0,
            last_group: 0,
        };
        written.begin_segment();
        written
    }

    fn identity() -> Identity {
        Identity { cluster: Uuid::from_u128(7), node: 1 }
    }

    fn begin_segment(&mut self) {
        let number = self.segments.len() as u64 + 1;
        let header = Header {
            identity: Self::identity(),
            number,
            first_sequence: self.sequence + 1,
            len: SEGMENT_LEN as u64,
            ledger: self.ledger.clone(),
        };
        let (mut bytes, seed) = header.encode();
        bytes.resize(SEGMENT_LEN, 0);
        self.segments.push((segment_name(number), bytes));
        (self.seed, self.offset) = (seed, HEADER_LEN);
    }

    fn group(&mut self, records: &[Record<'_>]) -> &mut Self {
        let len: usize = records.iter().map(record::encoded_len).sum();
        if self.offset + len > SEGMENT_LEN {
            self.begin_segment();
        }
        let durable = self.sequence;
        let mut bytes = Vec::new();
        for record in records {
            self.sequence += 1;
            self.ledger.apply(record).unwrap();
            record::encode(record, Stamp { sequence: self.sequence, durable }, self.seed, &mut bytes);
        }
        let start = self.offset;
        self.last()[start..start + len].copy_from_slice(&bytes);
        (self.last_group, self.offset) = (start, start + len);
        self
    }

    fn entries(&mut self, indexes: std::ops::Range<u64>) -> &mut Self {
        let bodies: Vec<_> = indexes.clone().map(|index| format!("entry {index}")).collect();
        let records: Vec<_> = indexes
            .zip(&bodies)
            .map(|(index, body)| Record::Entry { index, body: body.as_bytes() })
            .collect();
        self.group(&records)
    }

    fn last(&mut self) -> &mut Vec<u8> {
        &mut self.segments.last_mut().unwrap().1
    }

    fn recover(&self) -> Result<Recovered, Refusal> {
        let segments: Vec<_> =
            self.segments.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        recover(&segments)
    }

    #[track_caller]
    fn why(&self) -> Why {
        self.recover().expect_err("this log must be refused").why
    }
}

/// Some of everything: three segments, and a last group of two entries.
fn everything() -> Written {
    let mut written = Written::new();
    written.group(&[Record::Vote(b"1.1")]).entries(1..4).entries(4..9);
    written.group(&[Record::Truncate { from: 7 }]).entries(7..9).group(&[Record::Committed(b"1.1.8")]);
    written.entries(9..12).entries(12..15).group(&[Record::Purge { index: 3, id: b"1.1.3" }]);
    written.group(&[Record::Vote(b"2.1")]).entries(15..18).entries(18..20).entries(20..22);
    assert_eq!(written.segments.len(), 3);
    written
}

fn body_at(written: &Written, place: Place) -> Vec<u8> {
    let (_, bytes) = &written.segments[place.segment as usize - 1];
    let (_, seed) = Header::decode(bytes).unwrap();
    let frame = record::decode(&bytes[place.offset as usize..], seed).unwrap();
    let Ok(Record::Entry { body, .. }) = frame.record() else { panic!("no entry at {place:?}") };
    body.to_vec()
}

#[test]
fn an_empty_folder_is_an_empty_log() {
    assert_eq!(recover(&[]), Ok(Recovered::default()));
}

#[test]
fn a_sound_log_comes_back_whole() {
    let written = everything();
    let recovered = written.recover().unwrap();
    assert_eq!(recovered.ledger, written.ledger);
    assert_eq!((recovered.ledger.first, recovered.ledger.next), (4, 22));
    assert_eq!(recovered.ledger.vote.as_deref(), Some(&b"2.1"[..]));
    assert_eq!(recovered.ledger.committed.as_deref(), Some(&b"1.1.8"[..]));
    assert_eq!(recovered.ledger.purged, Some(Mark { index: 3, id: Bytes::from_static(b"1.1.3") }));
    assert_eq!((recovered.sequence, recovered.torn_bytes), (written.sequence, 0));
    for index in 4..22 {
        let body = body_at(&written, recovered.places.at(index).unwrap());
        assert_eq!(body, format!("entry {index}").as_bytes());
    }
}

#[test]
fn older_segments_may_be_gone_once_their_entries_are_purged() {
    let mut written = everything();
    written.group(&[Record::Purge { index: 17, id: b"1.1.17" }]);
    let whole = written.recover().unwrap();
    assert!(whole.segments[2].next_at_start <= 18);
    written.segments.drain(..2);
    let recovered = written.recover().unwrap();
    assert_eq!(recovered.ledger, whole.ledger);
    assert_eq!(recovered.places, whole.places);
}

#[test]
fn a_torn_tail_is_dropped_whole_bytes_and_half_bytes() {
    let written = everything();
    for cut in written.last_group..written.offset {
        let mut torn = everything();
        torn.last()[cut..].fill(0);
        let recovered = torn.recover().unwrap();
        assert!((20..=21).contains(&recovered.ledger.next), "cut at {cut}");
        let left = (cut as u64).saturating_sub(recovered.tail);
        assert!(recovered.torn_bytes <= left, "cut at {cut}: {} torn", recovered.torn_bytes);
    }
}

#[test]
fn a_group_that_reached_the_disk_in_part_is_torn_whatever_part_it_was() {
    // The second record of the last group is there, the first is not: nothing was acknowledged.
    let mut torn = everything();
    let at = torn.last_group;
    torn.last()[at..at + 10].fill(0);
    let recovered = torn.recover().unwrap();
    assert_eq!((recovered.ledger.next, recovered.tail), (20, at as u64));
    assert_eq!(recovered.torn_bytes, (torn.offset - at - 10 + 10) as u64);
}

#[test]
fn damage_before_the_last_group_was_acknowledged_and_is_refused() {
    let mut damaged = everything();
    let at = damaged.last_group - 1;
    damaged.last()[at] ^= 1;
    let refusal = damaged.recover().unwrap_err();
    let Why::Acknowledged { sequence, later, later_offset, .. } = refusal.why else { panic!("{refusal}") };
    assert_eq!(sequence, damaged.sequence - 2);
    assert_eq!(later, Stamp { sequence: damaged.sequence - 1, durable: damaged.sequence - 2 });
    assert_eq!(later_offset, damaged.last_group as u64);
    let text = refusal.to_string();
    for part in ["00000000000000000003.wal, byte", "was acknowledged and is damaged", "Remove this member"] {
        assert!(text.contains(part), "{text:?} should say {part:?}");
    }
}

#[test]
fn acknowledged_records_that_vanished_into_zeros_are_refused() {
    let mut damaged = everything();
    let (from, to) = (HEADER_LEN, damaged.last_group);
    damaged.last()[from..to].fill(0);
    assert!(matches!(damaged.why(), Why::Acknowledged { .. }));
}

#[test]
fn a_later_record_in_the_place_of_an_acknowledged_one_is_refused() {
    let mut damaged = everything();
    let (from, end) = (damaged.last_group, damaged.offset);
    let later = damaged.last()[from..end].to_vec();
    damaged.last()[HEADER_LEN..][..later.len()].copy_from_slice(&later);
    damaged.last()[HEADER_LEN + later.len()..].fill(0);
    assert!(matches!(damaged.why(), Why::Acknowledged { bad: Bad::Stray(_), .. }));
}

#[test]
fn a_stale_record_with_a_lower_number_is_no_record() {
    let mut stale = everything();
    let (end, len) = (stale.offset, stale.offset - stale.last_group);
    let old = stale.last()[end - len..end].to_vec();
    stale.last()[end..end + len].copy_from_slice(&old);
    let recovered = stale.recover().unwrap();
    assert_eq!((recovered.ledger.next, recovered.torn_bytes), (22, len as u64));
}

#[test]
fn damage_in_a_finished_segment_is_refused() {
    let mut damaged = everything();
    damaged.segments[1].1[HEADER_LEN + 30] ^= 4;
    assert!(matches!(damaged.why(), Why::Sealed { bad: Bad::Damage(Damage::Crc { .. }), .. }));
    let mut damaged = everything();
    *damaged.segments[0].1.last_mut().unwrap() = 1;
    assert!(matches!(damaged.why(), Why::Sealed { .. }));
    let mut damaged = everything();
    damaged.segments[1].1[HEADER_LEN..].fill(0);
    assert!(matches!(damaged.why(), Why::MissingRecords { .. }));
}

#[test]
fn a_missing_segment_is_refused() {
    let mut damaged = everything();
    damaged.segments.remove(1);
    assert_eq!(damaged.why(), Why::MissingSegment(2));
    let mut damaged = everything();
    damaged.segments.remove(0);
    let refusal = damaged.why();
    assert!(matches!(refusal, Why::MissingEntries { from: 4, .. }), "{refusal}");
}

#[test]
fn a_gap_between_entries_is_refused() {
    let mut written = everything();
    written.ledger.next += 1;
    written.entries(23..24);
    assert_eq!(written.why(), Why::Gap(Gap { expected: 22, got: 23 }));
}

#[test]
fn a_header_that_contradicts_the_records_is_refused() {
    let mut written = everything();
    written.ledger.vote = Some(Bytes::from_static(b"9.9"));
    written.begin_segment();
    assert_eq!(written.why(), Why::Contradiction);
}

#[test]
fn a_file_of_another_size_or_name_is_refused() {
    let mut damaged = everything();
    damaged.last().pop();
    let (found, expected) = (SEGMENT_LEN as u64 - 1, SEGMENT_LEN as u64);
    assert_eq!(damaged.why(), Why::Length { found, expected });
    let mut damaged = everything();
    damaged.segments[2].0 = segment_name(4);
    assert_eq!(damaged.why(), Why::Misnamed(3));
    let mut damaged = everything();
    damaged.last().clear();
    assert_eq!(damaged.why(), Why::Header(HeaderDamage::Short(0)));
}

#[test]
fn another_members_log_is_refused() {
    let written = everything();
    let other = Identity { node: 2, ..Written::identity() };
    let (name, bytes) = &written.segments[0];
    let refusal = Recovery::new(Some(other)).sealed(name, bytes).unwrap_err();
    assert_eq!(refusal.why, Why::Foreign { found: Written::identity(), expected: other });
    assert!(refusal.to_string().contains("of member 1 of cluster 00000000"), "{refusal}");
}

#[test]
fn a_newer_kind_is_refused_not_dropped() {
    let mut written = everything();
    let at = written.offset;
    written.group(&[Record::Vote(b"3.1")]);
    let seed = written.seed;
    let record = &mut written.last()[at..at + RECORD_HEAD_LEN + 3];
    record[RECORD_HEAD_LEN - 1] = 77;
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(&record[..4]);
    hasher.update(&record[8..]);
    record[4..8].copy_from_slice(&hasher.finalize().to_le_bytes());
    assert_eq!(written.why(), Why::Unknown(Unknown { kind: 77, body_len: 3 }));
}

/// A torn write of an entry whose body holds the image of a later record, made with `seed`.
fn planted(seed: impl Fn(&Written) -> u32) -> Written {
    let mut written = everything();
    written.begin_segment();
    let mut image = Vec::new();
    let stamp = Stamp { sequence: written.sequence + 9, durable: written.sequence + 8 };
    record::encode(&Record::Vote(b"9.9"), stamp, seed(&written), &mut image);
    let body = [vec![b'.'; 250], image].concat();
    written.group(&[Record::Entry { index: 22, body: &body }]);
    let at = written.last_group;
    written.last()[at] ^= 1;
    written
}

#[test]
fn a_body_that_looks_like_a_record_is_never_taken_for_one() {
    assert_eq!(planted(|_| 0).recover().unwrap().ledger.next, 22);
    // Who knew the seed could: the header's checksum, which no client is told.
    assert!(matches!(planted(|written| written.seed).why(), Why::Acknowledged { .. }));
}

#[test]
fn every_flipped_byte_is_refused_or_costs_nothing_acknowledged() {
    let written = everything();
    let sound = written.recover().unwrap();
    let before_last = sound.sequence - 2;
    let (mut refused, mut opened) = (0, 0);
    for segment in 0..written.segments.len() {
        for at in 0..SEGMENT_LEN {
            let mut damaged = everything();
            damaged.segments[segment].1[at] ^= 1 << (at % 8);
            let in_last_group = segment == 2 && (written.last_group..written.offset).contains(&at);
            match damaged.recover() {
                Err(refusal) => {
                    assert_eq!(refusal.file, written.segments[segment].0, "byte {at}");
                    refused += 1;
                }
                Ok(recovered) if in_last_group => {
                    assert!(recovered.sequence >= before_last, "segment {segment}, byte {at}");
                    assert!(recovered.sequence < sound.sequence);
                }
                Ok(recovered) => {
                    assert!(
                        segment == 2 && at >= written.offset,
                        "segment {segment}, byte {at} went unnoticed"
                    );
                    assert_eq!((&recovered.ledger, &recovered.places), (&sound.ledger, &sound.places));
                    assert_eq!(recovered.torn_bytes, (at + 1 - written.offset) as u64);
                    opened += 1;
                }
            }
        }
    }
    assert_eq!(opened, SEGMENT_LEN - written.offset, "only zeros behind the last record may change");
    assert_eq!(refused, 2 * SEGMENT_LEN + written.last_group);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        patches in proptest::collection::vec((0..3 * SEGMENT_LEN, proptest::prelude::any::<u8>()), 1..40),
        cut in 0..SEGMENT_LEN,
    ) {
        let mut damaged = everything();
        for (at, byte) in patches {
            damaged.segments[at / SEGMENT_LEN].1[at % SEGMENT_LEN] = byte;
        }
        damaged.last().truncate(cut + 1);
        let _ = damaged.recover();
        let _ = record::decode(&damaged.last()[cut / 2..], 0);
    }
}
