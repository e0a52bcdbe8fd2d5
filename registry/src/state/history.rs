//! Pure. The last revisions, with what each changed, for watchers that come back. Bounded in number and in bytes. The
//! newest stand as they are, all others packed, and are unpacked for whoever asks.

use std::{
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

use imbl::OrdMap;
use model::{
    duration::Millis,
    object::{Key, Object},
};
use serde::{Deserialize, Serialize};

use super::{objects::Objects, table::encode};

mod block;
mod records;
mod unpacked;

use block::{Block, Span};
pub(super) use records::{BLOCK_TAG, REVISION_TAG, TAIL_TAG};
use unpacked::Unpacked;

/// The most revisions that are kept: at ten writes a second a watcher may be away for sixteen minutes.
pub const HISTORY_REVISIONS_MAX: usize = 10_000;
/// The most bytes that the kept revisions have in a snapshot, where each stands with its objects as they were and as they
/// are: some ten thousand changes of small objects. In memory they are packed.
pub const HISTORY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The newest revisions stay unpacked up to so many bytes, as in a snapshot: nearly all watchers ask for these. Tests are
/// short, and must see blocks.
const TAIL_BYTES_MAX: usize = if cfg!(test) { 2 * 1024 } else { 256 * 1024 };
/// A block ends with the revision that takes it over so many bytes before it is packed: as far back as LZ4 looks for what
/// repeats.
const BLOCK_BYTES: usize = if cfg!(test) { 128 } else { 64 * 1024 };

/// What one revision changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// Which.
    pub revision: u64,
    /// Log time.
    pub at: Millis,
    /// The objects that it changed, by key; none where only sessions, secrets, trust or members changed.
    pub changes: Vec<Changed>,
}

/// What became of an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// Which.
    pub key: Key,
    /// As it was; `None` if it is new.
    pub before: Option<Arc<Object>>,
    /// As it is; `None` if it is gone.
    pub after: Option<Arc<Object>>,
    /// Who asked for it, where somebody wrote this very object; what follows from other changes has none. Members of
    /// version 0.1.0 do not record it: it is not part of the state's hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Arc<str>>,
}

/// Who wrote which object in the entry that is being applied.
pub(super) type Actors = OrdMap<Key, Arc<str>>;

/// What was asked for is no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("revisions before {oldest} are no longer kept")]
pub struct Compacted {
    /// The least revision from which one can go on (exclusive, as in `from=`).
    pub oldest: u64,
}

/// The last revisions. Which of them are kept depends on what they hold alone, not on how they came to be packed.
#[derive(Debug, Clone)]
pub struct History {
    /// What came before `tail`, by the last revision of each block.
    blocks: OrdMap<u64, Block>,
    /// The newest.
    tail: OrdMap<u64, Kept>,
    tail_bytes: usize,
    /// How many are kept, and the bytes of their records.
    count: usize,
    bytes: usize,
    /// Changes up to this revision are not kept. The first block may begin with such.
    compacted: u64,
    revisions_max: usize,
    unpacked: Unpacked,
}

/// A revision, with its record.
#[derive(Debug, Clone)]
struct Kept {
    revision: Arc<Revision>,
    bytes: Arc<[u8]>,
}

impl Kept {
    fn of(revision: Revision) -> Self {
        Self { bytes: encode(&revision).into(), revision: Arc::new(revision) }
    }

    fn length(&self) -> u32 {
        u32::try_from(self.bytes.len()).expect("an entry of the log is far shorter than 4 GiB")
    }
}

impl History {
    pub(super) fn new(revisions_max: usize) -> Self {
        Self {
            blocks: OrdMap::new(),
            tail: OrdMap::new(),
            tail_bytes: 0,
            count: 0,
            bytes: 0,
            compacted: 0,
            revisions_max: revisions_max.max(1),
            unpacked: Unpacked::default(),
        }
    }

    /// What changed after `revision`, oldest first.
    ///
    /// # Errors
    /// That is no longer kept.
    pub fn since(
        &self,
        revision: u64,
    ) -> Result<impl DoubleEndedIterator<Item = Arc<Revision>> + use<'_>, Compacted> {
        if revision < self.compacted {
            return Err(Compacted { oldest: self.compacted });
        }
        let after = (Excluded(revision), Unbounded);
        let packed = self.blocks.range::<_, u64>(after).flat_map(|(_, block)| {
            let revisions = self.unpacked.of(block);
            (0..revisions.len()).map(move |at| revisions[at].clone())
        });
        let tail = self.tail.range::<_, u64>(after).map(|(_, kept)| kept.revision.clone());
        Ok(packed.chain(tail).filter(move |kept| kept.revision > revision))
    }

    /// All that is kept, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Arc<Revision>> + use<'_> {
        self.since(self.compacted).into_iter().flatten()
    }

    /// How many revisions are kept.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The least revision that `since` takes.
    pub fn oldest(&self) -> u64 {
        self.compacted
    }

    pub(super) fn push(&mut self, revision: u64, at: Millis, before: &Objects, after: &Objects, by: &Actors) {
        let changes = after.changes_since(before).map(|(key, old, new)| Changed {
            key: key.clone(),
            before: old.cloned(),
            after: new.cloned(),
            actor: by.get(key).cloned(),
        });
        self.keep(Kept::of(Revision { revision, at, changes: changes.collect() }));
    }

    /// As many revisions are kept at most.
    pub(super) fn revisions_max(&self) -> usize {
        self.revisions_max
    }

    /// Starts at a revision, with none kept.
    pub(super) fn restart(&mut self, revision: u64) {
        *self = Self { compacted: revision, ..Self::new(self.revisions_max) };
    }

    /// Whether it keeps what it says, and nothing that is not yet.
    pub(super) fn sound(&self, revision: u64) -> bool {
        let spans = || self.blocks.values().flat_map(Block::spans).copied();
        let tail =
            self.tail.values().map(|kept| Span { revision: kept.revision.revision, length: kept.length() });
        let kept: Vec<_> = spans().chain(tail).filter(|span| span.revision > self.compacted).collect();
        kept.is_sorted_by(|a, b| a.revision < b.revision)
            && kept.last().is_none_or(|newest| newest.revision <= revision)
            && (kept.len(), kept.iter().map(|span| span.length as usize).sum()) == (self.count, self.bytes)
            && self.blocks.keys().all(|last| *last > self.compacted)
    }

    fn keep(&mut self, kept: Kept) {
        self.count += 1;
        self.bytes += kept.bytes.len();
        self.tail_bytes += kept.bytes.len();
        self.tail.insert(kept.revision.revision, kept);
        while self.tail_bytes > TAIL_BYTES_MAX && self.tail.len() > 1 {
            self.pack();
        }
        self.bound();
    }

    fn bound(&mut self) {
        while self.count > self.revisions_max || (self.bytes > HISTORY_BYTES_MAX && self.count > 1) {
            self.compact();
        }
    }

    /// The oldest of the tail become a block; the newest one stays.
    fn pack(&mut self) {
        let (mut run, mut bytes) = (Vec::new(), 0);
        while bytes < BLOCK_BYTES && self.tail.len() > 1 {
            let Some((number, kept)) = self.tail.get_min().cloned() else { break };
            self.tail.remove(&number);
            bytes += kept.bytes.len();
            run.push(kept);
        }
        self.tail_bytes -= bytes;
        let block = Block::pack(&run);
        self.blocks.insert(block.last(), block);
    }

    /// The oldest one goes, and its block with the last one of it.
    fn compact(&mut self) {
        let first = self.blocks.get_min().map(|(last, block)| {
            let at = block.spans().partition_point(|span| span.revision <= self.compacted);
            (*last, block.spans()[at])
        });
        let gone = match first {
            Some((last, gone)) => {
                if gone.revision == last {
                    self.blocks.remove(&last);
                }
                gone
            }
            None => {
                let Some((number, kept)) = self.tail.get_min().cloned() else { return };
                self.tail.remove(&number);
                self.tail_bytes -= kept.bytes.len();
                Span { revision: number, length: kept.length() }
            }
        };
        self.count -= 1;
        self.bytes -= gone.length as usize;
        self.compacted = gone.revision;
    }
}

#[cfg(test)]
mod tests;
