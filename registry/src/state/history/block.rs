//! Pure. A run of revisions, packed: as they stand in a snapshot, one behind the other, compressed (LZ4's block format).
//! Never changed; what it holds was proven to read when it came in, and is read again when somebody asks.

use std::sync::Arc;

use lz4_flex::block::{compress, decompress};
use serde::{Deserialize, Serialize, de::Error as _};

use super::{Kept, Revision};
use crate::state::{Blob, table::encode};

/// LZ4 makes of one byte no more than so many.
const RATIO_MAX: usize = 255;

/// A run of revisions, packed. A clone is the same block.
#[derive(Debug, Clone)]
pub(super) struct Block(Arc<Packed>);

/// As the index keeps it, too.
#[derive(Debug, Serialize, Deserialize)]
struct Packed {
    /// Oldest first, without a doublet; never empty.
    spans: Vec<Span>,
    bytes: Blob,
}

/// Where a revision stands among the unpacked bytes: behind the one before it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Span {
    pub(super) revision: u64,
    /// Its bytes.
    pub(super) length: u32,
}

impl Block {
    /// Packs revisions, oldest first; at least one.
    pub(super) fn pack(run: &[Kept]) -> Self {
        let span = |kept: &Kept| Span { revision: kept.revision.revision, length: kept.length() };
        let bytes: Vec<u8> = run.iter().flat_map(|kept| &*kept.bytes).copied().collect();
        Self(Arc::new(Packed { spans: run.iter().map(span).collect(), bytes: Blob(compress(&bytes)) }))
    }

    /// Reads what [`Block::record`] made, and proves it.
    ///
    /// # Errors
    /// It is not that, or was damaged.
    pub(super) fn read(record: &[u8]) -> Result<Self, rmp_serde::decode::Error> {
        let block = Self(Arc::new(rmp_serde::from_slice(record)?));
        let mut last = None;
        for (span, bytes) in block.unpack()? {
            let revision: Revision = rmp_serde::from_slice(&bytes)?;
            if revision.revision != span.revision || last.is_some_and(|last| last >= span.revision) {
                return Err(rmp_serde::decode::Error::custom("a block's revisions are not what it says"));
            }
            last = Some(span.revision);
        }
        last.map(|_| block).ok_or_else(|| rmp_serde::decode::Error::custom("a block is empty"))
    }

    /// As the index keeps it.
    pub(super) fn record(&self) -> Vec<u8> {
        encode(&*self.0)
    }

    /// What it holds, oldest first.
    pub(super) fn spans(&self) -> &[Span] {
        &self.0.spans
    }

    /// Its last revision's number.
    pub(super) fn last(&self) -> u64 {
        self.0.spans.last().map_or(0, |span| span.revision)
    }

    /// Bytes that it takes, about.
    #[cfg(test)]
    pub(super) fn packed_bytes(&self) -> usize {
        self.0.bytes.0.len() + size_of_val(&*self.0.spans)
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Its revisions as records, oldest first.
    pub(super) fn records(&self) -> Vec<(u64, Vec<u8>)> {
        let unpacked = self.unpack().expect("it was packed here, or proven when it was read");
        unpacked.into_iter().map(|(span, bytes)| (span.revision, bytes)).collect()
    }

    /// Its revisions, oldest first.
    pub(super) fn revisions(&self) -> Arc<[Arc<Revision>]> {
        let revision = |(_, bytes): (u64, Vec<u8>)| {
            Arc::new(rmp_serde::from_slice(&bytes).expect("it was packed here, or proven when it was read"))
        };
        self.records().into_iter().map(revision).collect()
    }

    fn unpack(&self) -> Result<Vec<(Span, Vec<u8>)>, rmp_serde::decode::Error> {
        let Packed { spans, bytes } = &*self.0;
        let length = spans.iter().map(|span| span.length as usize).sum::<usize>();
        let damaged = |what: &str| rmp_serde::decode::Error::custom(format_args!("a block {what}"));
        if length > bytes.0.len().saturating_mul(RATIO_MAX) {
            return Err(damaged("says that it holds more than it can"));
        }
        let unpacked = decompress(&bytes.0, length).map_err(|error| damaged(&error.to_string()))?;
        if unpacked.len() != length {
            return Err(damaged("does not hold what it says"));
        }
        let mut rest = &*unpacked;
        let mut cut = |span: &Span| {
            let (bytes, behind) = rest.split_at(span.length as usize);
            rest = behind;
            (*span, bytes.to_vec())
        };
        Ok(spans.iter().map(&mut cut).collect())
    }
}
