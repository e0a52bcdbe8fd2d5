//! Pure. The history as records: one for each revision in snapshots, as every version reads them; blocks as they are in
//! the index, with a record for each revision of the tail, packed by itself.

use std::sync::Arc;

use serde::de::Error as _;

use super::{Block, History, Kept, Revision};
use crate::state::{Unreadable, table::RecordKey};

/// The tag of a block; tables have tags from 1 on. Its records come before those of the tail.
pub(in crate::state) const BLOCK_TAG: u8 = 99;
/// The tag of a revision.
pub(in crate::state) const REVISION_TAG: u8 = 100;
/// The tag of a revision of the tail, packed: a record that changes many objects is written again with its neighbours.
pub(in crate::state) const TAIL_TAG: u8 = 101;

impl History {
    /// A record for each revision that is kept, oldest first.
    pub(in crate::state) fn revision_records(&self) -> impl Iterator<Item = (RecordKey, Vec<u8>)> + use<'_> {
        let packed = self.blocks.values().flat_map(Block::records);
        let tail = self.tail.iter().map(|(revision, kept)| (*revision, kept.bytes.to_vec()));
        let kept = packed.chain(tail).filter(|(revision, _)| *revision > self.compacted);
        kept.map(|(revision, bytes)| (key(REVISION_TAG, revision), bytes))
    }

    /// Blocks and tail as they are, oldest first.
    pub(in crate::state) fn records(&self) -> impl Iterator<Item = (RecordKey, Vec<u8>)> + use<'_> {
        let blocks = self.blocks.iter().map(|(last, block)| (key(BLOCK_TAG, *last), block.record()));
        blocks.chain(self.tail.iter().map(|(revision, kept)| (key(TAIL_TAG, *revision), packed(kept))))
    }

    /// Which of [`History::records`] are others than those of `before`; `None` is gone.
    pub(in crate::state) fn record_changes<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (RecordKey, Option<Vec<u8>>)> + 'a {
        let has = |history: &Self, last: &u64, block: &Block| {
            history.blocks.get(last).is_some_and(|present| present.is(block))
        };
        let gone = before.blocks.iter().filter(move |(last, block)| !has(self, last, block));
        let new = self.blocks.iter().filter(move |(last, block)| !has(before, last, block));
        let left = before.tail.keys().filter(|revision| !self.tail.contains_key(*revision));
        let came = self.tail.iter().filter(|(revision, _)| !before.tail.contains_key(*revision));
        gone.map(|(last, _)| (key(BLOCK_TAG, *last), None))
            .chain(new.map(|(last, block)| (key(BLOCK_TAG, *last), Some(block.record()))))
            .chain(left.map(|revision| (key(TAIL_TAG, *revision), None)))
            .chain(came.map(|(revision, kept)| (key(TAIL_TAG, *revision), Some(packed(kept)))))
    }

    /// Takes a block back in.
    ///
    /// # Errors
    /// It is damaged, or older than what was taken before it.
    pub(in crate::state) fn load_block(&mut self, record: &[u8]) -> Result<(), Unreadable> {
        let unreadable = |source| Unreadable { tag: BLOCK_TAG, source };
        let block = Block::read(record).map_err(unreadable)?;
        if block.last() <= self.compacted {
            return Ok(());
        }
        let first = block.spans().first().map_or(0, |span| span.revision);
        let behind_the_tail = || rmp_serde::decode::Error::custom("a block comes after the tail");
        self.tail.is_empty().then_some(()).ok_or_else(behind_the_tail).map_err(unreadable)?;
        self.in_order(first).map_err(unreadable)?;
        for span in block.spans().iter().filter(|span| span.revision > self.compacted) {
            self.count += 1;
            self.bytes += span.length as usize;
        }
        self.blocks.insert(block.last(), block);
        self.bound();
        Ok(())
    }

    /// Takes a revision of the index's tail back in.
    ///
    /// # Errors
    /// It is damaged, or older than what was taken before it.
    pub(in crate::state) fn load_tail(&mut self, record: &[u8]) -> Result<(), Unreadable> {
        let block = Block::read(record).map_err(|source| Unreadable { tag: TAIL_TAG, source })?;
        block.records().iter().try_for_each(|(_, record)| self.load_revision(record))
    }

    /// Takes a revision back in.
    ///
    /// # Errors
    /// It is damaged, or older than what was taken before it.
    pub(in crate::state) fn load_revision(&mut self, record: &[u8]) -> Result<(), Unreadable> {
        let unreadable = |source| Unreadable { tag: REVISION_TAG, source };
        let revision: Revision = rmp_serde::from_slice(record).map_err(unreadable)?;
        if revision.revision > self.compacted {
            self.in_order(revision.revision).map_err(unreadable)?;
            self.keep(Kept { revision: Arc::new(revision), bytes: record.into() });
        }
        Ok(())
    }

    fn in_order(&self, revision: u64) -> Result<(), rmp_serde::decode::Error> {
        let packed = self.blocks.get_max().map(|(last, _)| *last);
        let newest = self.tail.get_max().map(|(newest, _)| *newest).max(packed);
        match newest {
            Some(newest) if newest >= revision => {
                let what = format_args!("revision {revision} comes after {newest}");
                Err(rmp_serde::decode::Error::custom(what))
            }
            _ => Ok(()),
        }
    }
}

/// One revision, as the index keeps it.
fn packed(kept: &Kept) -> Vec<u8> {
    Block::pack(std::slice::from_ref(kept)).record()
}

/// Big-endian, so that they stand in their order.
fn key(tag: u8, revision: u64) -> RecordKey {
    let mut key = vec![tag];
    key.extend(revision.to_be_bytes());
    key
}
