//! openraft's log storage on the write-ahead log: entries, votes and log ids become bytes here.
//!
//! Every body begins with its format version (u16, little-endian), then MessagePack with field names, so
//! that a later version may add fields, and a newer format is refused by name. Nothing here touches a
//! file, and nothing here waits for a disk on an async worker.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use openraft::alias::{EntryOf, LogIdOf, VoteOf};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader, RaftTypeConfig};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::wal::{self, Ledger, Mark, Wal};

/// The format of bodies. Higher ones are refused.
const FORMAT: u16 = 1;

/// Bytes of entries that a limited read or one step of a stream gives at most: what one append request
/// carries, and what a stream holds in memory.
const READ_BYTES_MAX: usize = 1 << 20;

/// Bytes set aside for an entry before it is serialised; a longer one grows the buffer.
const ENTRY_LEN_GUESS: usize = 256;

/// The log as openraft sees it. Clones share one log and serve as readers.
pub struct Log<C: RaftTypeConfig> {
    wal: Arc<Wal>,
    known: Arc<Mutex<Known<C>>>,
}

impl<C: RaftTypeConfig> Clone for Log<C> {
    fn clone(&self) -> Self {
        Self { wal: Arc::clone(&self.wal), known: Arc::clone(&self.known) }
    }
}

/// What the log holds beside entries, decoded.
struct Known<C: RaftTypeConfig> {
    vote: Option<VoteOf<C>>,
    committed: Option<LogIdOf<C>>,
    purged: Option<LogIdOf<C>>,
    last: Option<LogIdOf<C>>,
}

impl<C: RaftTypeConfig> Log<C> {
    /// Puts openraft's view on an open log.
    ///
    /// # Errors
    /// If a vote or log id, or the last entry, is of a newer format or does not read back.
    pub async fn new(wal: Arc<Wal>) -> io::Result<Self> {
        let Ledger { vote, committed, purged, next, .. } = wal.ledger();
        let purged = purged.map(|mark| decode(&mark.id)).transpose()?;
        let tail = next.checked_sub(1).map_or(0..0, |last| last..next);
        let last = match wal.read(tail, READ_BYTES_MAX).await?.pop() {
            Some(body) => Some(decode::<EntryOf<C>>(&body)?.log_id()),
            None => purged.clone(),
        };
        let known = Known {
            vote: vote.as_deref().map(decode).transpose()?,
            committed: committed.as_deref().map(decode).transpose()?,
            purged,
            last,
        };
        Ok(Self { wal, known: Arc::new(Mutex::new(known)) })
    }

    /// The log below, for its counters.
    pub fn wal(&self) -> &Wal {
        &self.wal
    }

    async fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<EntryOf<C>>> {
        let bodies = self.wal.read(range, bytes_max).await?;
        bodies.iter().map(|body| decode(body)).collect()
    }

    /// What a truncation or purge left as the last log id: `kept` if that entry is still there.
    fn last_after(&self, kept: Option<LogIdOf<C>>, purged: Option<LogIdOf<C>>) -> Option<LogIdOf<C>> {
        let Ledger { first, next, .. } = self.wal.ledger();
        if first == next { purged } else { kept }
    }
}

impl<C: RaftTypeConfig> RaftLogReader<C> for Log<C> {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<EntryOf<C>>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.read(half_open(&range), usize::MAX).await
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOf<C>>, io::Error> {
        Ok(self.known.lock().vote.clone())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<EntryOf<C>>, io::Error> {
        self.read(start..end, READ_BYTES_MAX).await
    }

    /// Step by step: a member that applies a long backlog holds one step of it in memory.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<EntryOf<C>, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let log = self.clone();
        let steps = stream::try_unfold(half_open(&range), move |range| {
            let log = log.clone();
            async move {
                let entries = log.read(range.clone(), READ_BYTES_MAX).await?;
                let Some(last) = entries.last() else { return Ok(None) };
                let rest = last.index() + 1..range.end;
                Ok::<_, io::Error>(Some((stream::iter(entries).map(Ok), rest)))
            }
        });
        steps.try_flatten().boxed()
    }
}

impl<C: RaftTypeConfig> RaftLogStorage<C> for Log<C> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<C>, io::Error> {
        let known = self.known.lock();
        Ok(LogState { last_purged_log_id: known.purged.clone(), last_log_id: known.last.clone() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<C>) -> Result<(), io::Error> {
        self.wal.vote(encode(vote)?).await?;
        self.known.lock().vote = Some(vote.clone());
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<C>>) -> Result<(), io::Error> {
        // `None` only ever comes before the first commit, and is what an empty log says anyway.
        if let Some(committed) = committed {
            self.wal.committed(encode(&committed)?)?;
            self.known.lock().committed = Some(committed);
        }
        Ok(())
    }

    /// A mark beyond the last entry is withheld: openraft would look for the entries up to it and not
    /// start. It is advice; without it the state machine begins at its snapshot.
    async fn read_committed(&mut self) -> Result<Option<LogIdOf<C>>, io::Error> {
        let known = self.known.lock();
        Ok(known.committed.clone().filter(|committed| known.last.as_ref() >= Some(committed)))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<C>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = EntryOf<C>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (entries, last) = encode_entries::<C>(entries)?;
        self.wal.append(entries, move || callback.io_completed(Ok(()))).await?;
        if last.is_some() {
            self.known.lock().last = last;
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last_kept: Option<LogIdOf<C>>) -> Result<(), io::Error> {
        let from = last_kept.as_ref().map_or(0, |kept| kept.index() + 1);
        if from >= self.wal.ledger().next {
            return Ok(());
        }
        self.wal.truncate(from).await?;
        let mut known = self.known.lock();
        known.last = self.last_after(last_kept, known.purged.clone());
        Ok(())
    }

    async fn purge(&mut self, log_id: LogIdOf<C>) -> Result<(), io::Error> {
        let mark = Mark { index: log_id.index(), id: encode(&log_id)? };
        if self.wal.ledger().purged.is_some_and(|purged| purged.index >= mark.index) {
            return Ok(());
        }
        self.wal.purge(mark).await?;
        let mut known = self.known.lock();
        known.last = self.last_after(known.last.clone(), Some(log_id.clone()));
        known.purged = Some(log_id);
        Ok(())
    }
}

/// All entries in one buffer which their bodies share, and the last one's log id.
fn encode_entries<C: RaftTypeConfig>(
    entries: impl IntoIterator<Item = EntryOf<C>>,
) -> io::Result<(Vec<wal::Entry>, Option<LogIdOf<C>>)> {
    let entries = entries.into_iter();
    let count = entries.size_hint().0;
    let mut buffer = Vec::with_capacity(count * ENTRY_LEN_GUESS);
    let (mut ends, mut last) = (Vec::with_capacity(count), None);
    for entry in entries {
        encode_into(&entry, &mut buffer)?;
        ends.push((entry.index(), buffer.len()));
        last = Some(entry.log_id());
    }
    let mut rest = Bytes::from(buffer);
    let mut start = 0;
    let cut = ends.into_iter().map(|(index, end)| {
        let body = rest.split_to(end - start);
        start = end;
        wal::Entry { index, body }
    });
    Ok((cut.collect(), last))
}

fn encode(value: &impl Serialize) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    encode_into(value, &mut bytes)?;
    Ok(bytes.into())
}

fn encode_into(value: &impl Serialize, out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(&FORMAT.to_le_bytes());
    rmp_serde::encode::write_named(out, value).map_err(io::Error::other)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let Some((format, body)) = bytes.split_first_chunk() else {
        return Err(invalid(format!("a body of {} bytes has no format version", bytes.len())));
    };
    match u16::from_le_bytes(*format) {
        FORMAT => rmp_serde::from_slice(body).map_err(|error| invalid(error.to_string())),
        newer => Err(invalid(format!("a body has format {newer}, this program reads up to {FORMAT}"))),
    }
}

fn half_open(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let mut bytes = encode(&7_u64).unwrap().to_vec();
        assert_eq!(decode::<u64>(&bytes).unwrap(), 7);
        bytes[0] = 2;
        let error = decode::<u64>(&bytes).unwrap_err();
        assert_eq!(error.to_string(), "a body has format 2, this program reads up to 1");
    }

    #[test]
    fn a_body_without_its_head_is_refused() {
        assert_eq!(decode::<u64>(&[1]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn ranges_of_all_kinds_become_half_open() {
        assert_eq!(half_open(&(3..7)), 3..7);
        assert_eq!(half_open(&(3..=7)), 3..8);
        assert_eq!(half_open(&(..)), 0..u64::MAX);
        assert_eq!(half_open(&(Bound::Excluded(3), Bound::Unbounded)), 4..u64::MAX);
    }
}
