//! The write-ahead log: the one place where a member's entries, votes, truncations, purges and committed
//! marks become durable. Bodies are opaque: `raft::log` gives them their meaning.
//!
//! What it promises: once a callback has run or `vote`, `truncate` or `purge` has returned, neither
//! kill -9 nor a power cut undoes it. What it never does: report a failed write and go on, retry an fsync,
//! sync on the caller's thread, open a log of which something acknowledged may be damaged.
//!
//! The parts, from bytes to threads: [`record`] and [`header`] are the format, [`ledger`] what records add
//! up to, [`recover`] the judgement at open, `index` where entries are; `segment` is the files, `writer`
//! the group commit, `housekeeper` the thread that prepares and removes segments.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};

pub mod error;
pub mod header;
mod housekeeper;
mod index;
pub mod ledger;
pub mod metrics;
mod open;
mod read;
pub mod record;
pub mod recover;
mod segment;
mod writer;

pub use error::Error;
pub use header::Identity;
pub use ledger::{Ledger, Mark};
pub use recover::{Recovered, Refusal};

use header::MARK_LEN_MAX;
use index::Index;
use metrics::{Counts, Metrics};
use record::{RECORD_LEN_MAX, Record};
use segment::Segment;
use writer::{Done, Op, Request};

/// Bytes of a segment. Smaller ones would spend more on making files than on writing to them.
pub const SEGMENT_BYTES: u64 = 4 << 20;

/// Bytes of entries held in memory behind the last one, so that replication to members which keep up,
/// and applying, read no file.
pub const CACHE_BYTES: usize = 2 << 20;

/// Requests that may wait for the writer; whoever comes next waits for room. Far more than one group
/// takes, far fewer than would matter in memory.
const QUEUE_REQUESTS_MAX: usize = 1024;

/// Bytes that may wait for the writer, in KiB, the unit in which room is counted.
const QUEUE_KIB_MAX: u32 = 64 << 10;

/// An append is queued in pieces of about this many bytes, so that no group grows without bound.
const REQUEST_BYTES_MAX: usize = 4 << 20;

/// The longest body of an entry, in bytes.
pub const ENTRY_LEN_MAX: usize = RECORD_LEN_MAX - record::RECORD_HEAD_LEN - 8;

/// Called with what failed when the log cannot go on.
pub type OnFatal = Arc<dyn Fn(&Error) + Send + Sync>;

/// How the log works. The default is for production; tests make segments tiny.
#[derive(Clone)]
pub struct Options {
    /// Bytes of a segment; one that holds a larger group is larger.
    pub segment_bytes: u64,
    /// Bytes of recent entries held in memory, beside those not written yet.
    pub cache_bytes: usize,
    /// Whether groups are synced.
    pub durability: Durability,
    /// Must not return, except in a test, which then sees every later call fail with [`Error::Stopped`].
    pub on_fatal: OnFatal,
}

/// Whether groups are synced before they are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Always, in production.
    Synced,
    /// Never: for the control of the power-cut test, which has to lose writes then.
    LostOnPowerCut,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES,
            cache_bytes: CACHE_BYTES,
            durability: Durability::Synced,
            on_fatal: Arc::new(end_process),
        }
    }
}

/// No destructor runs and nothing is flushed: what is on disk stays as it is for the next open to judge.
/// The last words go to stderr too: who listens to traces may not get to write them down.
fn end_process(error: &Error) {
    tracing::error!(%error, "the log cannot go on, the process ends");
    let last_words = format!("the log cannot go on, the process ends: {error}\n");
    // With stderr gone as well, there is nobody left to tell.
    let _ = io::stderr().write_all(last_words.as_bytes());
    std::process::abort();
}

/// An entry to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its index in the Raft log.
    pub index: u64,
    /// The serialised entry, at most [`ENTRY_LEN_MAX`] bytes.
    pub body: Bytes,
}

/// An open log. Dropping it writes and syncs what is queued or waits, then unlocks the folder.
pub struct Wal {
    shared: Arc<Shared>,
    queue: Option<mpsc::Sender<Request>>,
    room: Arc<Semaphore>,
    writer: Option<JoinHandle<()>>,
    /// Goes last, after `drop` has joined the writer and with it let go of the folder.
    held: Arc<()>,
}

/// What the submitters, the readers and the writer share.
struct Shared {
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

struct State {
    /// The sum of all records submitted, and the mark that waits.
    ledger: Ledger,
    /// A committed mark that goes with the next request, or is the last record of the log.
    mark: Option<Bytes>,
    /// The next record's sequence number.
    next_sequence: u64,
    index: Index,
    segments: BTreeMap<u64, Arc<Segment>>,
}

impl Wal {
    /// Can be upgraded for as long as the folder is locked: longer than the last handle lives, because what is queued
    /// is still written.
    pub fn held(&self) -> Weak<()> {
        Arc::downgrade(&self.held)
    }

    /// What it counts, for whoever watches it from outside.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// Opens the log in `dir`, which is made if it is missing, and gives what it holds. When this returns,
    /// all of that is on disk. Blocks on the disk: not for an async worker.
    ///
    /// # Errors
    /// [`Error::Refused`] if anything acknowledged may be damaged, [`Error::Locked`] if it is open
    /// elsewhere, [`Error::Io`] if the system refuses.
    pub fn open(dir: &Path, identity: Identity, options: Options) -> Result<(Self, Recovered), Error> {
        let (writer, shared, recovered) = open::open(dir, identity, options)?;
        let (queue, requests) = mpsc::channel(QUEUE_REQUESTS_MAX);
        let thread = thread::Builder::new()
            .name("wal-writer".into())
            .spawn(move || writer.run(requests))
            .map_err(Error::io(error::Doing::Spawn, dir))?;
        let room = Arc::new(Semaphore::new(QUEUE_KIB_MAX as usize));
        Ok((Self { shared, queue: Some(queue), room, writer: Some(thread), held: Arc::default() }, recovered))
    }

    /// Queues entries; they are readable when this returns. `done` runs on the writer's thread once they
    /// are on disk, after the callbacks of everything submitted before; it must not block.
    ///
    /// # Errors
    /// [`Error::Gap`] or [`Error::TooLong`], with nothing queued; [`Error::Stopped`].
    pub async fn append(
        &self,
        entries: Vec<Entry>,
        done: impl FnOnce() + Send + 'static,
    ) -> Result<(), Error> {
        check_entries(&entries)?;
        let mut pieces = pieces(entries);
        let last = pieces.pop().unwrap_or_default();
        for piece in pieces {
            self.submit(Op::Append(piece), None).await?;
        }
        self.submit(Op::Append(last), Some(Box::new(done))).await
    }

    /// Records the vote; on disk when this returns.
    ///
    /// # Errors
    /// [`Error::TooLong`], [`Error::Stopped`].
    pub async fn vote(&self, vote: Bytes) -> Result<(), Error> {
        check_mark("a vote", &vote)?;
        self.submit_and_wait(Op::Vote(vote)).await
    }

    /// Records what is known committed. Advice for a restart: it is written with whatever comes next, or when the log
    /// is closed, so that it costs neither a write nor a sync, and wakes nobody. A crash forgets the newest one.
    ///
    /// # Errors
    /// [`Error::TooLong`].
    pub fn committed(&self, id: Bytes) -> Result<(), Error> {
        check_mark("a log id", &id)?;
        let mut state = self.shared.state.lock();
        state.ledger.committed = Some(id.clone());
        state.mark = Some(id);
        Ok(())
    }

    /// Removes the entries at `from` and above; on disk when this returns. Beyond the last entry it does
    /// nothing.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn truncate(&self, from: u64) -> Result<(), Error> {
        if from >= self.ledger().next {
            return Ok(());
        }
        self.submit_and_wait(Op::Truncate { from }).await
    }

    /// Removes the entries up to and with `mark`; the record of it is on disk when this returns, the
    /// segments that hold nothing else are unlinked in the background. Beyond the last entry, the log is
    /// empty and goes on after `mark`.
    ///
    /// # Errors
    /// [`Error::TooLong`], [`Error::Stopped`].
    pub async fn purge(&self, mark: Mark) -> Result<(), Error> {
        check_mark("a log id", &mark.id)?;
        self.submit_and_wait(Op::Purge(mark)).await
    }

    /// The sum of all that was submitted, on disk or not yet.
    pub fn ledger(&self) -> Ledger {
        self.shared.state.lock().ledger.clone()
    }

    /// The bodies of the entries in `range`, as far as they are present; of these only the first, so many
    /// that they stay within `bytes_max`, but at least one. Reads a file only if memory no longer holds
    /// them, and then not on the caller's thread.
    ///
    /// # Errors
    /// [`Error::Unreadable`] if an entry does not read back, [`Error::Io`].
    pub async fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<Bytes>, Error> {
        read::read(&self.shared, range, bytes_max).await
    }

    /// What the log has counted since it was opened.
    pub fn counts(&self) -> Counts {
        self.shared.metrics.counts()
    }

    async fn submit_and_wait(&self, op: Op) -> Result<(), Error> {
        let (synced, wait) = oneshot::channel();
        let done = move || {
            // Whoever waited may have gone away; the record is written all the same.
            let _ = synced.send(());
        };
        self.submit(op, Some(Box::new(done))).await?;
        wait.await.map_err(|_| Error::Stopped)
    }

    /// Makes it visible and queues it, in one step, so that the file has the order that readers see.
    async fn submit(&self, op: Op, done: Option<Done>) -> Result<(), Error> {
        let queue = self.queue.as_ref().ok_or(Error::Stopped)?;
        let kib = u32::try_from(op.encoded_len().div_ceil(1024)).unwrap_or(u32::MAX).min(QUEUE_KIB_MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(kib).await.map_err(|_| Error::Stopped)?;
        let slot = queue.reserve().await.map_err(|_| Error::Stopped)?;
        let mut state = self.shared.state.lock();
        let request = state.admit(op)?;
        slot.send(Request { done, _room: Some(room), ..request });
        Ok(())
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take()
            && writer.thread().id() != thread::current().id()
        {
            // It ended in a panic: the queue is closed, so every caller has been told.
            let _ = writer.join();
        }
    }
}

impl State {
    /// Adds what is about to be queued, with the mark that waits.
    fn admit(&mut self, op: Op) -> Result<Request, Error> {
        match &op {
            Op::Append(entries) => {
                if let Some(first) = entries.first() {
                    self.ledger.append(first.index, entries.len() as u64)?;
                }
            }
            other => other.records().try_for_each(|record| self.ledger.apply(&record))?,
        }
        let (first_sequence, mark) = (self.next_sequence, self.mark.take());
        self.next_sequence += u64::from(mark.is_some());
        match &op {
            Op::Append(entries) => {
                for (entry, sequence) in entries.iter().zip(self.next_sequence..) {
                    self.index.queued(entry.index, sequence, entry.body.clone());
                }
            }
            Op::Truncate { .. } => self.index.truncate(self.ledger.next),
            Op::Purge(_) => self.index.drop_below(self.ledger.first),
            Op::Vote(_) => {}
        }
        self.next_sequence += op.records().count() as u64;
        Ok(Request { first_sequence, mark, op, done: None, _room: None })
    }

    /// The last request of a log that is closed, if a mark still waits.
    fn last(&mut self) -> Option<Request> {
        self.mark.is_some().then(|| self.admit(Op::Append(Vec::new())).expect("no entry can be out of place"))
    }
}

/// Whether each entry follows the one before it and none is too long.
fn check_entries(entries: &[Entry]) -> Result<(), Error> {
    let first = entries.first().map_or(0, |entry| entry.index);
    for (entry, expected) in entries.iter().zip(first..) {
        if entry.index != expected {
            return Err(ledger::Gap { expected, got: entry.index }.into());
        }
        check_len("an entry", entry.body.len(), ENTRY_LEN_MAX)?;
    }
    Ok(())
}

fn check_mark(what: &'static str, bytes: &Bytes) -> Result<(), Error> {
    check_len(what, bytes.len(), MARK_LEN_MAX)
}

fn check_len(what: &'static str, len: usize, max: usize) -> Result<(), Error> {
    if len > max { Err(Error::TooLong { what, len, max }) } else { Ok(()) }
}

/// Cuts a long append into pieces; one that is not long, nearly every one, stays as it is.
fn pieces(entries: Vec<Entry>) -> Vec<Vec<Entry>> {
    let len = |entry: &Entry| record::encoded_len(&Record::Entry { index: entry.index, body: &entry.body });
    if entries.iter().map(len).sum::<usize>() <= REQUEST_BYTES_MAX {
        return vec![entries];
    }
    let mut pieces = vec![Vec::new()];
    let mut bytes = 0;
    for entry in entries {
        if bytes > REQUEST_BYTES_MAX {
            pieces.push(Vec::new());
            bytes = 0;
        }
        bytes += len(&entry);
        pieces.last_mut().expect("it began with one").push(entry);
    }
    pieces
}

#[cfg(test)]
mod tests;
