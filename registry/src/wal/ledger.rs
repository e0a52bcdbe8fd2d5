//! Pure. What a sequence of records adds up to: the vote, the purged and committed marks, and which
//! entries the log holds. One set of rules for three users: whoever submits, the writer, and recovery.
//! It never holds an entry's body.

use bytes::Bytes;

use super::record::Record;

/// The sum of all records up to some point. `first..next` are the indexes of the entries present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The last vote, serialised by the Raft side.
    pub vote: Option<Bytes>,
    /// The last committed mark.
    pub committed: Option<Bytes>,
    /// The last purged entry.
    pub purged: Option<Mark>,
    /// The first entry present; equal to `next` in an empty log.
    pub first: u64,
    /// One past the last entry present.
    pub next: u64,
}

/// An index and the log id that stands there, serialised by the Raft side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The position in the Raft log.
    pub index: u64,
    /// The whole log id.
    pub id: Bytes,
}

/// An entry that does not follow the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {got} does not follow the log, which continues at {expected}")]
pub struct Gap {
    /// The only index that the log takes next.
    pub expected: u64,
    /// The index that came.
    pub got: u64,
}

impl Ledger {
    /// Adds one record.
    ///
    /// # Errors
    /// [`Gap`] if an entry does not follow; the ledger is then unchanged.
    pub fn apply(&mut self, record: &Record<'_>) -> Result<(), Gap> {
        match *record {
            Record::Entry { index, .. } => self.append(index, 1)?,
            Record::Vote(vote) => self.vote = Some(Bytes::copy_from_slice(vote)),
            Record::Committed(id) => self.committed = Some(Bytes::copy_from_slice(id)),
            Record::Truncate { from } => self.truncate(from),
            Record::Purge { index, id } => self.purge(index, id)?,
        }
        Ok(())
    }

    /// Adds `count` entries which begin at `index`. A log that never held anything, or lost all of it
    /// unpurged, takes any beginning; every other one only its next index.
    ///
    /// # Errors
    /// [`Gap`] if they do not follow; the ledger is then unchanged.
    pub fn append(&mut self, index: u64, count: u64) -> Result<(), Gap> {
        let anywhere = self.is_empty() && self.purged.is_none();
        let gap = Gap { expected: self.next, got: index };
        if index != self.next && !anywhere {
            return Err(gap);
        }
        let next = index.checked_add(count).ok_or(gap)?;
        if anywhere {
            self.first = index;
        }
        self.next = next;
        Ok(())
    }

    /// Whether no entries are present.
    pub fn is_empty(&self) -> bool {
        self.first == self.next
    }

    fn truncate(&mut self, from: u64) {
        self.next = self.next.min(from.max(self.first));
    }

    fn purge(&mut self, index: u64, id: &[u8]) -> Result<(), Gap> {
        if self.purged.as_ref().is_some_and(|purged| purged.index >= index) {
            return Ok(());
        }
        let after = index.checked_add(1).ok_or(Gap { expected: self.next, got: index })?;
        // Purged past last: a snapshot replaced the whole log, which goes on after it.
        self.next = self.next.max(after);
        self.first = self.first.max(after);
        self.purged = Some(Mark { index, id: Bytes::copy_from_slice(id) });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a script such as `append 1 3, purge 2` and compares what is left.
    #[track_caller]
    fn check(script: &str, want: &str) {
        let mut ledger = Ledger::default();
        for line in script.split(", ") {
            let mut words = line.split(' ');
            let name = words.next().unwrap();
            let mut number = || words.next().map_or(1, |word| word.parse::<u64>().unwrap());
            let done = match name {
                "append" => ledger.append(number(), number()),
                "truncate" => ledger.apply(&Record::Truncate { from: number() }),
                "purge" => ledger.apply(&Record::Purge { index: number(), id: b"id" }),
                other => panic!("unknown word {other}"),
            };
            if let Err(gap) = done {
                return assert_eq!(gap.to_string(), want);
            }
        }
        let purged = ledger.purged.map_or("none".to_owned(), |mark| mark.index.to_string());
        assert_eq!(format!("{}..{} purged {purged}", ledger.first, ledger.next), want);
    }

    #[test]
    fn entries_follow_one_another() {
        check("append 1 3", "1..4 purged none");
        check("append 5", "5..6 purged none");
        check("append 1 3, append 4", "1..5 purged none");
        check("append 1 3, append 5", "entry 5 does not follow the log, which continues at 4");
        check("append 1 3, append 3", "entry 3 does not follow the log, which continues at 4");
    }

    #[test]
    fn truncation_takes_the_tail_and_nothing_else() {
        check("append 1 5, truncate 3", "1..3 purged none");
        check("append 1 5, truncate 6", "1..6 purged none");
        check("append 1 5, truncate 99", "1..6 purged none");
        check("append 1 5, truncate 0", "1..1 purged none");
        check("append 1 5, purge 2, truncate 1", "3..3 purged 2");
        check("append 1 5, truncate 0, append 7", "7..8 purged none");
    }

    #[test]
    fn purging_moves_the_beginning() {
        check("append 1 5, purge 2", "3..6 purged 2");
        check("append 1 5, purge 5", "6..6 purged 5");
        check("append 2 4, purge 1", "2..6 purged 1");
        check("append 1 5, purge 3, purge 2", "4..6 purged 3");
    }

    #[test]
    fn purged_past_last_becomes_last() {
        check("append 1 5, purge 20", "21..21 purged 20");
        check("append 1 5, purge 20, append 21", "21..22 purged 20");
        check("purge 7, append 9", "entry 9 does not follow the log, which continues at 8");
    }

    #[test]
    fn the_end_of_numbers_is_a_gap_not_a_panic() {
        check(
            &format!("append {}", u64::MAX),
            &format!("entry {} does not follow the log, which continues at 0", u64::MAX),
        );
        check(
            &format!("purge {}", u64::MAX),
            &format!("entry {} does not follow the log, which continues at 0", u64::MAX),
        );
    }
}
