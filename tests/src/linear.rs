//! Pure. What clients did and saw, and whether one register per key, changed by one operation at a time, could have
//! answered so. The search (after Wing, Gong and Lowe) is in `search`, the smallest part of a history that is still
//! wrong in `shrink`; `order` holds what revisions promise across keys. They know nothing of the servers.

use std::fmt;

use model::read::Consistency;
use serde::{Serialize, Serializer};

pub mod order;
mod search;
mod shrink;
#[cfg(test)]
mod tests;

/// A moment, in nanoseconds since the run began.
pub type Nanos = u64;

/// One call of one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Operation {
    /// Which client; it does one thing at a time.
    pub client: u32,
    /// Which server it asked.
    pub server: u32,
    /// Which start of that server, if the client can know.
    pub boot: u32,
    /// On which object.
    pub key: u32,
    /// Just before it was sent.
    pub began: Nanos,
    /// Just after the answer was there, or nobody waited for it any more.
    pub ended: Nanos,
    /// What was asked.
    pub call: Call,
    /// What was answered.
    pub outcome: Outcome,
}

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Call {
    /// What stands there?
    Get {
        /// What the answer promises.
        #[serde(serialize_with = "in_a_word")]
        consistency: Consistency,
        /// `minRevision`.
        least: Option<u64>,
    },
    /// Let this stand there. No two puts of a history have the same value.
    Put {
        /// What.
        value: u64,
        /// If this holds.
        expect: Expect,
    },
    /// Let nothing stand there.
    Delete {
        /// If this holds.
        expect: Expect,
    },
}

/// What must hold for a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Expect {
    /// Nothing.
    Any,
    /// There is nothing.
    Absent,
    /// It stands as this revision left it.
    Revision(u64),
}

/// What was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Outcome {
    /// A read: this stands there.
    Found {
        /// What.
        value: u64,
        /// Which revision wrote it.
        revision: u64,
        /// The revision of the state that was read.
        of: u64,
    },
    /// A read: nothing stands there.
    Nothing {
        /// The revision of the state that was read.
        of: u64,
    },
    /// A put was done.
    Written {
        /// By this revision.
        revision: u64,
        /// Nothing stood there before.
        created: bool,
    },
    /// A deletion was done; what stood there.
    Removed {
        /// What.
        value: u64,
        /// Which revision wrote it.
        revision: u64,
    },
    /// A deletion: there was nothing to delete.
    NothingToRemove,
    /// What was expected did not hold; nothing was done.
    Mismatch,
    /// It may have been done, may be done yet, or never.
    Unknown,
    /// Nothing was done, or nothing was read.
    Refused,
}

/// What stands at a key; `None`: nothing.
type Standing = Option<u64>;

/// Why a history is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// On which object, if it is about one.
    pub key: Option<u32>,
    /// What is wrong with it.
    pub what: String,
    /// The operations that show it, by their beginnings.
    pub window: Vec<Operation>,
}

/// What a check counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checked {
    /// Operations that count: not those that were refused.
    pub operations: usize,
    /// Writes whose outcome nobody knows.
    pub unknown: usize,
    /// Objects.
    pub keys: usize,
    /// Steps that the search took.
    pub steps: u64,
}

/// Whether a whole history could have been: each key's alone (linearizability is local), then the revisions.
///
/// # Errors
/// The first violation that is found, made small.
pub fn check(history: &[Operation]) -> Result<Checked, Box<Violation>> {
    order::check(history)?;
    let mut keys: Vec<u32> = history.iter().map(|operation| operation.key).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut checked = Checked { keys: keys.len(), ..Checked::default() };
    for key in keys {
        let of_key: Vec<_> = history.iter().filter(|one| one.key == key).cloned().collect();
        let counts = || of_key.iter().filter(|one| one.counts());
        checked.operations += counts().count();
        checked.unknown += counts().filter(|one| one.outcome == Outcome::Unknown).count();
        checked.steps += check_key(key, &of_key)?;
    }
    Ok(checked)
}

/// All operations on one key.
fn check_key(key: u32, all: &[Operation]) -> Result<u64, Box<Violation>> {
    let known = search::Known::of(all);
    let history: Vec<_> = all.iter().filter(|operation| operation.counts()).cloned().collect();
    match search::search(&history, &known) {
        search::Verdict::Fine { steps } => Ok(steps),
        search::Verdict::Wrong => {
            let window = shrink::smallest(&history, &known);
            let what = "no order of these operations explains their answers".to_owned();
            Err(Box::new(Violation { key: Some(key), what, window }))
        }
        search::Verdict::Undecided { steps } => {
            let what = format!("undecided after {steps} steps: too much is unknown");
            Err(Box::new(Violation { key: Some(key), what, window: Vec::new() }))
        }
    }
}

impl Operation {
    /// Whether the search has to explain it: a stale read promises less, and what was refused did nothing.
    fn counts(&self) -> bool {
        let stale = matches!(self.call, Call::Get { consistency: Consistency::Stale, .. });
        let unread = matches!(self.call, Call::Get { .. }) && self.outcome == Outcome::Unknown;
        !stale && !unread && self.outcome != Outcome::Refused
    }

    /// The value that its answer shows, with the revision that wrote it.
    fn shows(&self) -> Option<(u64, u64)> {
        match (self.call, self.outcome) {
            (Call::Put { value, .. }, Outcome::Written { revision, .. })
            | (_, Outcome::Found { value, revision, .. } | Outcome::Removed { value, revision }) => {
                Some((value, revision))
            }
            _ => None,
        }
    }
}

fn in_a_word<S: Serializer>(consistency: &Consistency, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(consistency.as_str())
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, server, boot, key, began, ended, call, outcome } = self;
        let seconds = |nanos: &Nanos| *nanos as f64 / 1e9;
        write!(
            f,
            "{:10.6} - {:10.6} s  client {client} at server {server} (start {boot}), key {key}: {call:?} -> {outcome:?}",
            seconds(began),
            seconds(ended)
        )
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key {
            Some(key) => writeln!(f, "key {key}: {}", self.what)?,
            None => writeln!(f, "{}", self.what)?,
        }
        self.window.iter().try_for_each(|operation| writeln!(f, "  {operation}"))
    }
}

impl std::error::Error for Violation {}
