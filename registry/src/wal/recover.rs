//! Pure. From the bytes of all segments to what the log holds, or to a refusal which names the place,
//! the reason and the way out. It never repairs, never guesses, and never panics on any bytes.
//!
//! **The torn tail** (last segment only). Reading stops at the first bad record. If a later record is
//! sound and says that the bad one was durable before it was written, something acknowledged is damaged:
//! refused. Otherwise what is bad was never acknowledged and counts as torn.
//! *The one exception*: damage in the very last group that was acknowledged, with nothing after it, looks
//! the same as a torn write and is dropped. Raft's other members still hold those entries.
//!
//! Everything before the last segment was synced before the next one was made, so there any bad byte, gap
//! or missing file is refused.

use super::header::{HEADER_LEN, Header, Identity};
use super::index::{Place, Places};
use super::ledger::Ledger;
use super::record::{self, RECORD_HEAD_LEN, Record, Stamp};

mod refusal;

pub use refusal::{Bad, Refusal, Why};

/// A segment's file name. Zero-padded, so that names sort as numbers do.
pub fn segment_name(number: u64) -> String {
    format!("{number:020}.wal")
}

/// What the log holds, as far as its bytes prove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Whose log it is; `None` for an empty folder.
    pub identity: Option<Identity>,
    /// The sum of all records.
    pub ledger: Ledger,
    /// The sequence number of the last record; 0 if there is none.
    pub sequence: u64,
    /// Bytes of the last segment that were neither records nor zeros: a write that power or a kill cut
    /// short. Nothing in them was acknowledged (but see the module's exception).
    pub torn_bytes: u64,
    /// The segments, oldest first.
    pub segments: Vec<Found>,
    /// Where the last record ends in the last segment, in bytes from the file's start.
    pub tail: u64,
    pub(super) places: Places,
}

/// One segment that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its number.
    pub number: u64,
    /// What its records' checksums begin with.
    pub seed: u32,
    /// One past the last entry that was present when it began: with all of them purged, older segments
    /// hold nothing that is needed.
    pub next_at_start: u64,
}

/// Reads a whole log that is in memory; `segments` are (file name, bytes), oldest first.
///
/// # Errors
/// [`Refusal`] if anything acknowledged may be damaged or missing.
pub fn recover(segments: &[(&str, &[u8])]) -> Result<Recovered, Refusal> {
    let mut recovery = Recovery::new(None);
    let Some(((last_name, last), sealed)) = segments.split_last() else {
        return Ok(Recovered::default());
    };
    for (name, bytes) in sealed {
        recovery.sealed(name, bytes)?;
    }
    recovery.last(last_name, last)
}

/// Reads a log segment by segment, so that only one of them has to be in memory.
pub(super) struct Recovery {
    expected: Option<Identity>,
    so_far: Recovered,
    /// Entries below this stood in segments that are gone.
    absent_below: u64,
}

impl Recovery {
    /// `expected`: whose log it has to be; `None` takes the first header's word.
    pub(super) fn new(expected: Option<Identity>) -> Self {
        Self { expected, so_far: Recovered::default(), absent_below: 0 }
    }

    /// Adds a segment after which another one follows.
    pub(super) fn sealed(&mut self, name: &str, bytes: &[u8]) -> Result<(), Refusal> {
        let segment = self.begin(name, bytes)?;
        match self.read(&segment)? {
            Some((offset, bad)) if end_of_written(bytes) > offset => {
                let why = Why::Sealed { sequence: self.so_far.sequence + 1, bad };
                Err(segment.refuse(offset, why))
            }
            _ => Ok(()),
        }
    }

    /// Adds the last segment and gives the result.
    pub(super) fn last(mut self, name: &str, bytes: &[u8]) -> Result<Recovered, Refusal> {
        let segment = self.begin(name, bytes)?;
        let stop = self.read(&segment)?;
        let tail = stop.map_or(bytes.len(), |(offset, _)| offset);
        if let Some((offset, bad)) = stop {
            self.judge(&segment, offset, bad)?;
        }
        self.refuse_absent(&segment)?;
        self.so_far.torn_bytes = end_of_written(bytes).saturating_sub(tail) as u64;
        self.so_far.tail = tail as u64;
        Ok(self.so_far)
    }

    /// Checks the header against the file and against all that came before.
    fn begin<'a>(&mut self, name: &'a str, bytes: &'a [u8]) -> Result<Segment<'a>, Refusal> {
        let refuse = |why| Refusal { file: name.to_owned(), offset: 0, why };
        let (header, seed) = Header::decode(bytes).map_err(|damage| refuse(damage.into()))?;
        let first = self.so_far.segments.is_empty();
        let expected = *self.expected.get_or_insert(header.identity);
        if header.identity != expected {
            return Err(refuse(Why::Foreign { found: header.identity, expected }));
        }
        if name != segment_name(header.number) {
            return Err(refuse(Why::Misnamed(header.number)));
        }
        if header.len != bytes.len() as u64 || u32::try_from(header.len).is_err() {
            return Err(refuse(Why::Length { found: bytes.len() as u64, expected: header.len }));
        }
        if first {
            self.absent_below = header.ledger.next;
            self.so_far.identity = Some(expected);
            self.so_far.sequence = header.first_sequence - 1;
            self.so_far.ledger = header.ledger.clone();
        } else {
            self.follows(&header).map_err(refuse)?;
        }
        let found = Found { number: header.number, seed, next_at_start: header.ledger.next };
        self.so_far.segments.push(found);
        Ok(Segment { name, bytes, number: header.number, seed })
    }

    fn follows(&self, header: &Header) -> Result<(), Why> {
        let previous = self.so_far.segments.last().map_or(0, |found| found.number);
        let next = self.so_far.sequence + 1;
        if header.number != previous + 1 {
            return Err(Why::MissingSegment(previous + 1));
        }
        if header.first_sequence != next {
            return Err(Why::MissingRecords { expected: next, found: header.first_sequence });
        }
        if header.ledger != self.so_far.ledger {
            return Err(Why::Contradiction);
        }
        Ok(())
    }

    /// Adds the records up to the first bad one, and says where that is; `None`: the segment is full.
    fn read(&mut self, segment: &Segment<'_>) -> Result<Option<(usize, Bad)>, Refusal> {
        let mut offset = HEADER_LEN;
        while offset < segment.bytes.len() {
            let frame = match record::decode(&segment.bytes[offset..], segment.seed) {
                Ok(frame) => frame,
                Err(damage) => return Ok(Some((offset, damage.into()))),
            };
            if frame.stamp.sequence != self.so_far.sequence + 1 {
                return Ok(Some((offset, Bad::Stray(frame.stamp.sequence))));
            }
            let place = Place { segment: segment.number, offset: offset as u32, len: frame.len as u32 };
            self.add(&frame, place).map_err(|why| segment.refuse(offset, why))?;
            offset += frame.len;
        }
        Ok(None)
    }

    fn add(&mut self, frame: &record::Frame<'_>, place: Place) -> Result<(), Why> {
        if frame.stamp.durable >= frame.stamp.sequence {
            return Err(Why::Durable(frame.stamp));
        }
        let record = frame.record()?;
        self.so_far.ledger.apply(&record)?;
        self.so_far.sequence = frame.stamp.sequence;
        match record {
            Record::Entry { index, .. } => self.so_far.places.push(index, place),
            Record::Truncate { .. } => self.so_far.places.truncate(self.so_far.ledger.next),
            Record::Purge { .. } => self.so_far.places.drop_below(self.so_far.ledger.first),
            Record::Vote(_) | Record::Committed(_) => {}
        }
        self.absent_below = self.absent_below.min(self.so_far.ledger.next);
        Ok(())
    }

    /// Torn, or damaged after it was acknowledged? The search begins at the bad record itself, which may
    /// be a sound one from further on.
    fn judge(&self, segment: &Segment<'_>, offset: usize, bad: Bad) -> Result<(), Refusal> {
        let sequence = self.so_far.sequence + 1;
        let proof = (offset..end_of_written(segment.bytes)).find_map(|at| {
            let room = (at - offset) / RECORD_HEAD_LEN;
            let later = proves_durable(&segment.bytes[at..], segment.seed, sequence, room as u64)?;
            Some((later, at as u64))
        });
        proof.map_or(Ok(()), |(later, later_offset)| {
            Err(segment.refuse(offset, Why::Acknowledged { sequence, bad, later, later_offset }))
        })
    }

    fn refuse_absent(&self, segment: &Segment<'_>) -> Result<(), Refusal> {
        let (from, end) = (self.so_far.ledger.first, self.absent_below);
        if from < end {
            return Err(segment.refuse(0, Why::MissingEntries { from, to: end - 1 }));
        }
        Ok(())
    }
}

/// A segment whose header is good.
struct Segment<'a> {
    name: &'a str,
    bytes: &'a [u8],
    number: u64,
    seed: u32,
}

impl Segment<'_> {
    fn refuse(&self, offset: usize, why: Why) -> Refusal {
        Refusal { file: self.name.to_owned(), offset: offset as u64, why }
    }
}

/// One past the last byte that is not zero. Most of a segment's end is zeros: they are compared by the page.
fn end_of_written(bytes: &[u8]) -> usize {
    const PAGE: usize = 4096;
    let page = bytes.chunks(PAGE).rposition(|page| page != &[0; PAGE][..page.len()]).unwrap_or(0) * PAGE;
    let last = bytes[page..].iter().take(PAGE).rposition(|byte| *byte != 0);
    last.map_or(0, |last| page + last + 1)
}

/// The stamp of a sound record at the start of `bytes` that was written when `sequence` was durable. No
/// more than `records_between` records can stand between the two, which keeps the checksum, the
/// expensive part, from being computed over bytes that only look like a record.
fn proves_durable(bytes: &[u8], seed: u32, sequence: u64, records_between: u64) -> Option<Stamp> {
    let stamp = record::peek(bytes)?;
    if stamp.durable < sequence || stamp.durable >= stamp.sequence {
        return None;
    }
    // A record in the bad one's own place can have come from any distance.
    let plausible = records_between == 0 || stamp.sequence - sequence <= records_between;
    (plausible && record::decode(bytes, seed).is_ok()).then_some(stamp)
}

#[cfg(test)]
mod tests;
