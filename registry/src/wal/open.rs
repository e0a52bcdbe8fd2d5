//! Opening the log: read, judge, rewrite the last segment, and only then report.
//!
//! The rewrite makes three things true that the bytes alone cannot promise: a tail that a killed process
//! had written but not synced is on disk before anyone hears of it; pages that a failed fsync left marked
//! clean are written again; and behind the last record there are zeros, so that no record from before the
//! crash comes back once new ones were written over its neighbours.
//! It is done in place, which needs no room on a full disk; every byte that counts is written as it was.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::error::Error;
use super::header::{HEADER_LEN, Header, Identity};
use super::index::Index;
use super::recover::{Found, Recovered, Recovery, segment_name};
use super::segment::{Folder, Segment};
use super::writer::{Origin, Writer};
use super::{Options, Shared, State};

/// The first segment's number.
const FIRST: u64 = 1;

pub(super) fn open(
    dir: &Path,
    identity: Identity,
    options: Options,
) -> Result<(Writer, Arc<Shared>, Recovered), Error> {
    let folder = Arc::new(Folder::open(dir)?);
    folder.remove_unfinished()?;
    let mut recovered = match folder.numbers()?.split_last() {
        Some((last, sealed)) => read_all(&folder, identity, sealed, *last)?,
        None => create(&folder, identity, &options)?,
    };
    let mut segments = BTreeMap::new();
    for Found { number, seed, .. } in &recovered.segments {
        segments.insert(*number, Arc::new(folder.segment(*number, *seed)?));
    }
    let active = Arc::clone(segments.last_key_value().expect("one was read or created").1);
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            ledger: recovered.ledger.clone(),
            mark: None,
            next_sequence: recovered.sequence + 1,
            index: Index::new(std::mem::take(&mut recovered.places), options.cache_bytes),
            segments,
        }),
        metrics: Arc::default(),
    });
    let starts: VecDeque<_> =
        recovered.segments.iter().map(|found| (found.number, found.next_at_start)).collect();
    let (ledger, sequence) = (recovered.ledger.clone(), recovered.sequence);
    let origin = Origin { active, offset: recovered.tail, starts, ledger, sequence };
    let writer = Writer::new(folder, identity, options, Arc::clone(&shared), origin)?;
    Ok((writer, shared, recovered))
}

/// Reads every segment, one in memory at a time, and rewrites the last.
fn read_all(folder: &Folder, identity: Identity, sealed: &[u64], last: u64) -> Result<Recovered, Error> {
    let refused = |refusal| Error::Refused { dir: folder.path().to_owned(), refusal };
    let mut recovery = Recovery::new(Some(identity));
    for number in sealed {
        recovery.sealed(&segment_name(*number), &folder.read(*number)?).map_err(refused)?;
    }
    let mut bytes = folder.read(last)?;
    let recovered = recovery.last(&segment_name(last), &bytes).map_err(refused)?;
    let found = recovered.segments.last().expect("the last segment was read");
    let segment: Segment = folder.segment(last, found.seed)?;
    if recovered.torn_bytes > 0 {
        let (torn_bytes, offset) = (recovered.torn_bytes, recovered.tail);
        tracing::warn!(torn_bytes, offset, file = %segment.path().display(), "dropped a torn write, which nobody was promised");
    }
    bytes[recovered.tail as usize..].fill(0);
    folder.rewrite(&segment, &bytes)?;
    Ok(recovered)
}

/// The first segment of a new log.
fn create(folder: &Folder, identity: Identity, options: &Options) -> Result<Recovered, Error> {
    let len = options.segment_bytes.max(HEADER_LEN as u64);
    let ledger = Default::default();
    let header = Header { identity, number: FIRST, first_sequence: 1, len, ledger };
    let segment = folder.install(folder.prepare(len)?, &header)?;
    let found = Found { number: FIRST, seed: segment.seed, next_at_start: 0 };
    Ok(Recovered {
        identity: Some(identity),
        segments: vec![found],
        tail: HEADER_LEN as u64,
        ..Recovered::default()
    })
}
