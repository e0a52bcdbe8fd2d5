//! Reading entries back: from memory where they still are, else from their segment with as few preads as
//! there are runs. Every record read from a file is checked again: the disk may have changed its mind.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::Shared;
use super::error::Error;
use super::index::{Place, Source};
use super::record::{self, Record};
use super::segment::Segment;

/// One pread fetches at most so many bytes, or one record if that is longer: enough to make the call cheap.
const RUN_BYTES_MAX: u64 = 1 << 20;

pub(super) async fn read(shared: &Shared, range: Range<u64>, bytes_max: usize) -> Result<Vec<Bytes>, Error> {
    let plan = plan(shared, range, bytes_max);
    let entries_in_files = plan.iter().filter(|piece| matches!(piece, Piece::File { .. })).count();
    if entries_in_files == 0 {
        return load(plan);
    }
    shared.metrics.read_from_file(entries_in_files as u64);
    tokio::task::spawn_blocking(|| load(plan)).await.map_err(|_| Error::Stopped)?
}

/// Where one entry's body comes from. An open segment stays readable when it is unlinked, so a plan does
/// not depend on what happens to the log after it was made.
enum Piece {
    Memory(Bytes),
    File { index: u64, segment: Arc<Segment>, place: Place },
}

fn plan(shared: &Shared, range: Range<u64>, bytes_max: usize) -> Vec<Piece> {
    let state = shared.state.lock();
    let present = range.start.max(state.ledger.first)..range.end.min(state.ledger.next);
    let (mut plan, mut bytes) = (Vec::new(), 0_usize);
    for index in present {
        let source = state.index.find(index).expect("every entry of the ledger is indexed");
        bytes = bytes.saturating_add(source.len());
        if bytes > bytes_max && !plan.is_empty() {
            break;
        }
        plan.push(match source {
            Source::Memory(body) => Piece::Memory(body),
            Source::File(place) => {
                let segment = state.segments.get(&place.segment).expect("a needed segment is open");
                Piece::File { index, segment: Arc::clone(segment), place }
            }
        });
    }
    plan
}

fn load(plan: Vec<Piece>) -> Result<Vec<Bytes>, Error> {
    let mut run = Run::default();
    let body = |(at, piece): (usize, &Piece)| match piece {
        Piece::Memory(body) => Ok(body.clone()),
        Piece::File { index, segment, place } => {
            if !run.holds(*place) {
                run = Run::fetch(segment, *place, run_end(*place, &plan[at..]))?;
            }
            run.body(*index, segment, *place)
        }
    };
    plan.iter().enumerate().map(body).collect()
}

/// Where to stop fetching: behind the last of the wanted records that one pread from `first` reaches.
fn run_end(first: Place, wanted: &[Piece]) -> u64 {
    let ends = wanted.iter().map_while(|piece| match piece {
        Piece::File { place, .. } if place.segment == first.segment => Some(end(*place)),
        _ => None,
    });
    let reach = u64::from(first.offset) + RUN_BYTES_MAX;
    ends.take_while(|end| *end <= reach).last().unwrap_or_else(|| end(first))
}

fn end(place: Place) -> u64 {
    u64::from(place.offset) + u64::from(place.len)
}

/// The bytes that the last pread fetched.
#[derive(Default)]
struct Run {
    segment: u64,
    offset: u64,
    bytes: Bytes,
}

impl Run {
    fn fetch(segment: &Segment, from: Place, end: u64) -> Result<Self, Error> {
        let offset = u64::from(from.offset);
        let bytes = segment.read(offset, (end - offset) as usize)?.into();
        Ok(Self { segment: from.segment, offset, bytes })
    }

    fn holds(&self, place: Place) -> bool {
        let held = self.offset..self.offset + self.bytes.len() as u64;
        self.segment == place.segment && held.contains(&place.offset.into()) && end(place) <= held.end
    }

    fn body(&self, index: u64, segment: &Segment, place: Place) -> Result<Bytes, Error> {
        let start = (u64::from(place.offset) - self.offset) as usize;
        let bytes = self.bytes.slice(start..start + place.len as usize);
        let unreadable = |damage| {
            let path = segment.path().to_owned();
            Error::Unreadable { index, path, offset: place.offset, damage }
        };
        let frame = record::decode(&bytes, segment.seed).map_err(|damage| unreadable(Some(damage)))?;
        match frame.record() {
            Ok(Record::Entry { index: found, body }) if found == index => Ok(bytes.slice_ref(body)),
            _ => Err(unreadable(None)),
        }
    }
}
