//! The log against a model of a few lines, under any sequence of operations and reopenings.

#![allow(clippy::unwrap_used, reason = "a test: whatever fails, fails it")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use registry::wal::{Entry, Error, Identity, Mark, Options, Wal};
use uuid::Uuid;

#[derive(Clone, Debug)]
enum Step {
    /// Appends of so many entries of so many bytes each, sent without waiting in between.
    Append {
        sizes: Vec<usize>,
        calls: usize,
    },
    Vote(u8),
    Committed(u8),
    /// Removes this many entries from the end.
    Truncate(u64),
    /// Purges this many entries from the beginning, perhaps past the end.
    Purge(u64),
    /// Closes it with whatever is still queued, and opens it with another cache.
    Reopen {
        cache_bytes: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (prop::collection::vec(0..200_usize, 1..5), 1..4_usize)
            .prop_map(|(sizes, calls)| Step::Append { sizes, calls }),
        1 => any::<u8>().prop_map(Step::Vote),
        1 => any::<u8>().prop_map(Step::Committed),
        1 => (0..6_u64).prop_map(Step::Truncate),
        1 => (0..9_u64).prop_map(Step::Purge),
        2 => (0..600_usize).prop_map(|cache_bytes| Step::Reopen { cache_bytes }),
    ]
}

/// What the log should hold.
#[derive(Debug, Default)]
struct Model {
    entries: BTreeMap<u64, Bytes>,
    next: u64,
    purged: Option<u64>,
    vote: Option<u8>,
    committed: Option<u8>,
    written: u64,
}

impl Model {
    fn first(&self) -> u64 {
        self.entries.keys().next().copied().unwrap_or(self.next)
    }

    /// Every body is new, so that an old one in its place would be noticed.
    fn extend(&mut self, sizes: &[usize]) -> Vec<Entry> {
        let mut fresh = |size: &usize| {
            let (index, body) = (self.next, Bytes::from(format!("{:->size$}", self.written)));
            self.written += 1;
            self.next += 1;
            self.entries.insert(index, body.clone());
            Entry { index, body }
        };
        sizes.iter().map(&mut fresh).collect()
    }

    fn truncate(&mut self, from: u64) {
        self.next = self.next.min(from.max(self.first()));
        self.entries.retain(|index, _| *index < from);
    }

    fn purge(&mut self, upto: u64) {
        self.entries.retain(|index, _| *index > upto);
        self.next = self.next.max(upto + 1);
        self.purged = self.purged.max(Some(upto));
    }

    async fn check(&self, wal: &Wal) {
        let ledger = wal.ledger();
        assert_eq!((ledger.first, ledger.next), (self.first(), self.next));
        assert_eq!(ledger.purged.map(|mark| mark.index), self.purged);
        assert_eq!(ledger.vote.map(|vote| vote[0]), self.vote);
        assert_eq!(ledger.committed.map(|id| id[0]), self.committed);
        let bodies = wal.read(0..u64::MAX, usize::MAX).await.unwrap();
        assert_eq!(bodies, self.entries.values().cloned().collect::<Vec<_>>());
    }
}

fn open(dir: &Path, cache_bytes: usize) -> Wal {
    let identity = Identity { cluster: Uuid::from_u128(1), node: 1 };
    let on_fatal = Arc::new(|error: &Error| panic!("{error}"));
    let options = Options { segment_bytes: 4096 + 500, cache_bytes, on_fatal, ..Options::default() };
    let (wal, recovered) = Wal::open(dir, identity, options).unwrap();
    assert_eq!(recovered.torn_bytes, 0, "it was closed in peace");
    wal
}

async fn take(step: &Step, wal: &mut Option<Wal>, model: &mut Model, dir: &Path) {
    let log = wal.as_ref().expect("it is only closed below");
    match step {
        Step::Append { sizes, calls } => {
            for _ in 0..*calls {
                log.append(model.extend(sizes), || {}).await.unwrap();
            }
        }
        Step::Vote(vote) => {
            model.vote = Some(*vote);
            log.vote(Bytes::from(vec![*vote])).await.unwrap();
        }
        Step::Committed(id) => {
            model.committed = Some(*id);
            log.committed(Bytes::from(vec![*id])).unwrap();
        }
        Step::Truncate(count) => {
            let from = model.next.saturating_sub(*count);
            // A log that lost everything unpurged may begin anywhere; the model begins at the same place.
            log.truncate(from).await.unwrap();
            model.truncate(from);
        }
        Step::Purge(count) => {
            let index = model.first() + count;
            log.purge(Mark { index, id: Bytes::from_static(b"id") }).await.unwrap();
            model.purge(index);
        }
        Step::Reopen { cache_bytes } => {
            drop(wal.take());
            *wal = Some(open(dir, *cache_bytes));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_log_holds_what_the_model_holds(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let mut model = Model::default();
            let mut wal = Some(open(dir.path(), 0));
            for step in &steps {
                take(step, &mut wal, &mut model, dir.path()).await;
                model.check(wal.as_ref().unwrap()).await;
            }
            drop(wal);
            model.check(&open(dir.path(), 0)).await;
        });
    }
}
