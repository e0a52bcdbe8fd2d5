//! The writer: a thread of its own which turns whatever is queued into groups. For each group one pwrite,
//! one fdatasync, then the callbacks, in the order of submission. It waits for work, never for time.
//!
//! A failed write or sync ends the process: after it nobody knows what the disk holds, and the next open
//! finds out. No fsync is ever retried.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::Receiver;

use super::error::Error;
use super::header::{HEADER_LEN, Header, Identity};
use super::housekeeper::Housekeeper;
use super::index::Place;
use super::ledger::{Ledger, Mark};
use super::record::{self, Record, Stamp};
use super::segment::{Folder, Segment};
use super::{Durability, Entry, Options, Shared};
use crate::clock;

/// A group takes no further request beyond this many bytes: with more, those at its front would wait for
/// bytes that are not theirs.
const GROUP_BYTES_MAX: usize = 4 << 20;

/// Called after the sync that covers the request; dropped uncalled if there will be none.
pub(super) type Done = Box<dyn FnOnce() + Send>;

/// Something to be written, with the sequence numbers that its records have.
pub(super) struct Request {
    pub(super) first_sequence: u64,
    /// What was known committed when it was queued; its record comes first.
    pub(super) mark: Option<Bytes>,
    pub(super) op: Op,
    pub(super) done: Option<Done>,
    /// Its share of the queue's bytes, given back when the request is dropped.
    pub(super) _room: Option<OwnedSemaphorePermit>,
}

pub(super) enum Op {
    Append(Vec<Entry>),
    Vote(Bytes),
    Truncate { from: u64 },
    Purge(Mark),
}

impl Op {
    pub(super) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let (entries, single) = match self {
            Self::Append(entries) => (entries.as_slice(), None),
            Self::Vote(vote) => (&[][..], Some(Record::Vote(vote))),
            Self::Truncate { from } => (&[][..], Some(Record::Truncate { from: *from })),
            Self::Purge(mark) => (&[][..], Some(Record::Purge { index: mark.index, id: &mark.id })),
        };
        entries.iter().map(|entry| Record::Entry { index: entry.index, body: &entry.body }).chain(single)
    }

    pub(super) fn encoded_len(&self) -> usize {
        self.records().map(|record| record::encoded_len(&record)).sum()
    }
}

impl Request {
    fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.mark.as_deref().map(Record::Committed).into_iter().chain(self.op.records())
    }

    fn encoded_len(&self) -> usize {
        self.records().map(|record| record::encoded_len(&record)).sum()
    }
}

/// A segment by its number, and one past the last entry that was present when it began.
pub(super) type Start = (u64, u64);

pub(super) struct Writer {
    folder: Arc<Folder>,
    identity: Identity,
    options: Options,
    shared: Arc<Shared>,
    housekeeper: Housekeeper,
    active: Arc<Segment>,
    /// Where the next group goes in the active segment.
    offset: u64,
    /// All segments, oldest first; the last one is active.
    starts: VecDeque<Start>,
    /// The sum of all records written; the submitters' one is ahead of it by what is queued.
    ledger: Ledger,
    /// The last record written, and the last one known to be on disk.
    sequence: u64,
    durable: u64,
    /// The group's bytes and the places of its entries, kept for their capacity.
    group: Vec<u8>,
    placed: Vec<(u64, u64, Place)>,
}

/// What recovery hands to a new writer.
pub(super) struct Origin {
    pub(super) active: Arc<Segment>,
    pub(super) offset: u64,
    pub(super) starts: VecDeque<Start>,
    pub(super) ledger: Ledger,
    pub(super) sequence: u64,
}

impl Writer {
    pub(super) fn new(
        folder: Arc<Folder>,
        identity: Identity,
        options: Options,
        shared: Arc<Shared>,
        origin: Origin,
    ) -> Result<Self, Error> {
        let metrics = Arc::clone(&shared.metrics);
        let on_fatal = Arc::clone(&options.on_fatal);
        let housekeeper = Housekeeper::start(Arc::clone(&folder), options.segment_bytes, metrics, on_fatal)?;
        let Origin { active, offset, starts, ledger, sequence } = origin;
        let mut writer = Self {
            folder,
            identity,
            options,
            shared,
            housekeeper,
            active,
            offset,
            starts,
            ledger,
            sequence,
            durable: sequence,
            group: Vec::new(),
            placed: Vec::new(),
        };
        writer.shared.metrics.set_room(writer.active.len.saturating_sub(writer.offset));
        // A crash may have come between a purge and the end of its unlinking.
        writer.drop_purged();
        Ok(writer)
    }

    /// Runs until the queue is closed and empty, or something fails.
    pub(super) fn run(mut self, mut queue: Receiver<Request>) {
        while let Some(first) = queue.blocking_recv().or_else(|| self.shared.state.lock().last()) {
            let batch = drain(first, &mut queue);
            match self.commit(&batch, &|| queue.is_closed()) {
                Ok(()) => {}
                // Closed while it waited for room: nothing of this was acknowledged.
                Err(Error::Stopped) => return,
                Err(error) => return (self.options.on_fatal)(&error),
            }
            self.finish(batch);
        }
    }

    /// Puts the batch on disk as one group.
    fn commit(&mut self, batch: &[Request], closed: &dyn Fn() -> bool) -> Result<(), Error> {
        let len: usize = batch.iter().map(Request::encoded_len).sum();
        if self.offset + len as u64 > self.active.len {
            self.begin_segment(len, closed)?;
        }
        let before = self.sequence;
        self.encode(batch);
        debug_assert_eq!(self.group.len(), len);
        if len > 0 {
            self.active.write(&self.group, self.offset)?;
            self.offset += len as u64;
            self.shared.metrics.set_room(self.active.len - self.offset);
            self.shared.metrics.group_written(self.sequence - before, len as u64);
        }
        self.sync()?;
        let mut state = self.shared.state.lock();
        for (index, sequence, place) in self.placed.drain(..) {
            state.index.written(index, sequence, place);
        }
        Ok(())
    }

    /// Frames the batch's records as they will stand at `offset`.
    fn encode(&mut self, batch: &[Request]) {
        self.group.clear();
        self.group.shrink_to(GROUP_BYTES_MAX);
        let (segment, seed) = (self.active.number, self.active.seed);
        for request in batch {
            debug_assert_eq!(request.first_sequence, self.sequence + 1);
            for record in request.records() {
                self.ledger.apply(&record).expect("it was applied to the submitters' ledger in this order");
                self.sequence += 1;
                let start = self.group.len();
                let stamp = Stamp { sequence: self.sequence, durable: self.durable };
                record::encode(&record, stamp, seed, &mut self.group);
                if let Record::Entry { index, .. } = record {
                    let len = (self.group.len() - start) as u32;
                    let offset = (self.offset + start as u64) as u32;
                    self.placed.push((index, self.sequence, Place { segment, offset, len }));
                }
            }
        }
    }

    fn sync(&mut self) -> Result<(), Error> {
        if self.durable == self.sequence {
            return Ok(());
        }
        if self.options.durability == Durability::Synced {
            let began = clock::now();
            self.active.sync_data()?;
            self.shared.metrics.synced(clock::now().duration_since(began));
        }
        self.durable = self.sequence;
        Ok(())
    }

    /// Finishes the active segment and goes on in the next, which holds at least `group_len` bytes. On a full disk that
    /// waits for room.
    fn begin_segment(&mut self, group_len: usize, closed: &dyn Fn() -> bool) -> Result<(), Error> {
        debug_assert_eq!(self.durable, self.sequence, "a finished segment is durable whole");
        let (file, len) = self.housekeeper.take((HEADER_LEN + group_len) as u64, closed)?;
        let header = Header {
            identity: self.identity,
            number: self.active.number + 1,
            first_sequence: self.sequence + 1,
            len,
            ledger: self.ledger.clone(),
        };
        let segment = Arc::new(self.folder.install(file, &header)?);
        self.housekeeper.prepare(self.options.segment_bytes);
        self.shared.state.lock().segments.insert(header.number, Arc::clone(&segment));
        self.shared.metrics.segment_begun();
        self.starts.push_back((header.number, header.ledger.next));
        self.active = segment;
        self.offset = HEADER_LEN as u64;
        Ok(())
    }

    /// Tells the submitters, in order; then lets go of what a purge made superfluous.
    fn finish(&mut self, batch: Vec<Request>) {
        let purged = batch.iter().any(|request| matches!(request.op, Op::Purge(_)));
        batch.into_iter().filter_map(|request| request.done).for_each(|done| done());
        if purged {
            self.drop_purged();
        }
    }

    /// Unlinks the segments before which nothing is needed: all entries that were present when the one
    /// after them began are purged. Never the active one.
    fn drop_purged(&mut self) {
        let first = self.ledger.first;
        let needed = self.starts.iter().rposition(|(_, next_at_start)| *next_at_start <= first);
        let superfluous: Vec<u64> =
            self.starts.drain(..needed.unwrap_or(0)).map(|(number, _)| number).collect();
        let mut state = self.shared.state.lock();
        superfluous.iter().for_each(|number| drop(state.segments.remove(number)));
        drop(state);
        self.housekeeper.unlink(superfluous);
    }
}

/// What is queued right now, behind `first`, up to a group's size.
fn drain(first: Request, queue: &mut Receiver<Request>) -> Vec<Request> {
    let mut bytes = first.encoded_len();
    let mut batch = vec![first];
    while bytes < GROUP_BYTES_MAX {
        let Ok(request) = queue.try_recv() else { break };
        bytes += request.encoded_len();
        batch.push(request);
    }
    batch
}
