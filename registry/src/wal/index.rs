//! Pure. Where each entry is: by its index to (segment, offset), and the most recent ones in memory.
//! Ordered by index alone, never by log id. It never reads a file.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;

/// Counted for each entry held in memory beside its bytes: the slot and the handle to its buffer.
const RECENT_OVERHEAD_BYTES: usize = 64;

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The segment's number.
    pub(super) segment: u64,
    /// Bytes from the start of the file.
    pub(super) offset: u32,
    /// Bytes of the whole record.
    pub(super) len: u32,
}

/// Places of a run of entries without holes.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Places {
    first: u64,
    slots: VecDeque<Place>,
}

/// A log has too many of them to print.
impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Places({}..{})", self.first, self.end())
    }
}

impl Places {
    /// Adds the place of `index`, which follows the last one; anything else begins a new run.
    pub(super) fn push(&mut self, index: u64, place: Place) {
        if index != self.end() {
            self.slots.clear();
        }
        if self.slots.is_empty() {
            self.first = index;
        }
        self.slots.push_back(place);
    }

    /// Forgets `from` and above.
    pub(super) fn truncate(&mut self, from: u64) {
        self.slots.truncate(usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX));
    }

    /// Forgets what is below `first`.
    pub(super) fn drop_below(&mut self, first: u64) {
        let gone = first.saturating_sub(self.first).min(self.slots.len() as u64);
        self.slots.drain(..gone as usize);
        self.first += gone;
    }

    pub(super) fn at(&self, index: u64) -> Option<Place> {
        let slot = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.slots.get(slot).copied()
    }

    /// One past the last index of the run.
    pub(super) fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }
}

/// Where an entry's bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Memory(Bytes),
    File(Place),
}

impl Source {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Memory(body) => body.len(),
            Self::File(place) => place.len as usize,
        }
    }
}

/// An entry in memory. Its sequence number tells it from another that had its index before a truncation.
#[derive(Debug)]
struct Recent {
    sequence: u64,
    body: Bytes,
}

/// Every entry of the log. `recent` is its tail: all that is not written yet, and behind that as much
/// as fits into `recent_bytes_max`.
#[derive(Debug)]
pub(super) struct Index {
    written: Places,
    recent: VecDeque<Recent>,
    recent_first: u64,
    recent_bytes: usize,
    recent_bytes_max: usize,
}

impl Index {
    pub(super) fn new(written: Places, recent_bytes_max: usize) -> Self {
        let recent_first = written.end();
        Self { written, recent: VecDeque::new(), recent_first, recent_bytes: 0, recent_bytes_max }
    }

    /// An entry was queued: readable from now on, though not written.
    pub(super) fn queued(&mut self, index: u64, sequence: u64, body: Bytes) {
        if self.recent.is_empty() {
            self.recent_first = index;
        }
        debug_assert_eq!(index, self.recent_first + self.recent.len() as u64);
        self.recent_bytes += RECENT_OVERHEAD_BYTES + body.len();
        self.recent.push_back(Recent { sequence, body });
    }

    /// The entry with this sequence number stands in a file now. Ignored if it was truncated or purged
    /// while it waited.
    pub(super) fn written(&mut self, index: u64, sequence: u64, place: Place) {
        if self.recent(index).is_some_and(|recent| recent.sequence == sequence) {
            self.written.push(index, place);
            self.evict();
        }
    }

    /// Forgets `from` and above.
    pub(super) fn truncate(&mut self, from: u64) {
        self.written.truncate(from);
        while self.recent_first + self.recent.len() as u64 > from && self.drop_recent(VecDeque::pop_back) {}
    }

    /// Forgets what is below `first`.
    pub(super) fn drop_below(&mut self, first: u64) {
        self.written.drop_below(first);
        while self.recent_first < first && self.drop_recent(VecDeque::pop_front) {
            self.recent_first += 1;
        }
    }

    pub(super) fn find(&self, index: u64) -> Option<Source> {
        match self.recent(index) {
            Some(recent) => Some(Source::Memory(recent.body.clone())),
            None => self.written.at(index).map(Source::File),
        }
    }

    fn recent(&self, index: u64) -> Option<&Recent> {
        self.recent.get(usize::try_from(index.checked_sub(self.recent_first)?).ok()?)
    }

    /// Only what can be read from its file may leave.
    fn evict(&mut self) {
        while self.recent_bytes > self.recent_bytes_max
            && self.written.at(self.recent_first).is_some()
            && self.drop_recent(VecDeque::pop_front)
        {
            self.recent_first += 1;
        }
    }

    fn drop_recent(&mut self, pop: fn(&mut VecDeque<Recent>) -> Option<Recent>) -> bool {
        let dropped = pop(&mut self.recent);
        self.recent_bytes -= dropped.as_ref().map_or(0, |recent| RECENT_OVERHEAD_BYTES + recent.body.len());
        dropped.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM_FOR_TWO: usize = 2 * (RECENT_OVERHEAD_BYTES + 4);

    fn place(offset: u32) -> Place {
        Place { segment: 1, offset, len: 30 }
    }

    /// Queues and, where told, writes entries 1.. with sequence numbers equal to their indexes.
    fn index(queued: u64, written: u64) -> Index {
        let mut index = Index::new(Places::default(), ROOM_FOR_TWO);
        for i in 1..=queued {
            index.queued(i, i, Bytes::from(vec![i as u8; 4]));
        }
        for i in 1..=written {
            index.written(i, i, place(i as u32));
        }
        index
    }

    /// One letter for each of the indexes 0..=6: in memory, in a file, or nowhere.
    #[track_caller]
    fn check(index: &Index, want: &str) {
        let letters = (0..=6).map(|i| match index.find(i) {
            Some(Source::Memory(_)) => 'm',
            Some(Source::File(_)) => 'f',
            None => '-',
        });
        assert_eq!(letters.collect::<String>(), want);
    }

    #[test]
    fn what_is_not_written_stays_in_memory_beyond_the_bound() {
        check(&index(5, 0), "-mmmmm-");
        check(&index(5, 2), "-ffmmm-");
        check(&index(5, 5), "-fffmm-");
    }

    #[test]
    fn truncation_forgets_written_and_queued_alike() {
        let mut index = index(5, 3);
        index.truncate(3);
        check(&index, "-ff----");
        index.queued(3, 9, Bytes::from_static(b"new3"));
        check(&index, "-ffm---");
    }

    #[test]
    fn an_entry_that_was_replaced_while_it_waited_is_ignored() {
        let mut index = index(3, 1);
        index.truncate(2);
        index.queued(2, 9, Bytes::from_static(b"new2"));
        index.written(2, 2, place(77));
        index.written(3, 3, place(78));
        assert_eq!(index.written.at(2), None);
        index.written(2, 9, place(79));
        assert_eq!(index.written.at(2), Some(place(79)));
        assert_eq!(index.find(2), Some(Source::Memory(Bytes::from_static(b"new2"))));
    }

    #[test]
    fn purging_forgets_the_beginning_even_if_it_waits() {
        let mut index = index(5, 2);
        index.drop_below(4);
        check(&index, "----mm-");
        index.written(3, 3, place(3));
        index.written(4, 4, place(4));
        index.written(5, 5, place(5));
        check(&index, "----mm-");
        assert_eq!(index.written.at(5), Some(place(5)));
        index.drop_below(9);
        check(&index, "-------");
        index.queued(9, 10, Bytes::new());
        assert!(index.find(9).is_some());
    }
}
