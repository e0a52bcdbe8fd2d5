//! openraft's own suite for stores on our log, with segments so small that nearly every group begins one,
//! and what the suite does not ask: reopening, streams, limits.

#![allow(clippy::unwrap_used, reason = "a test: whatever fails, fails it")]

use std::io;
use std::path::Path;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, TryStreamExt};
use openraft::alias::{EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use openraft::entry::RaftEntry;
use openraft::storage::{
    EntryResponder, IOFlushed, RaftLogStorage, RaftLogStorageExt, RaftSnapshotBuilder, RaftStateMachine,
};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::vote::RaftLeaderIdExt;
use openraft::{OptionalSend, RaftLogReader, RaftTypeConfig, StorageError, StoredMembership};
use registry::raft::log::Log;
use registry::wal::{Identity, Options, Wal};
use tempfile::TempDir;
use uuid::Uuid;

openraft::declare_raft_types!(TestConfig);
type TestLog = Log<TestConfig>;
type Entry = EntryOf<TestConfig>;
type LogId = LogIdOf<TestConfig>;

/// A header and some 300 bytes of records.
const TINY_SEGMENT_BYTES: u64 = 4096 + 300;

fn options(cache_bytes: usize) -> Options {
    let on_fatal = Arc::new(|error: &registry::wal::Error| panic!("{error}"));
    Options { segment_bytes: TINY_SEGMENT_BYTES, cache_bytes, on_fatal, ..Options::default() }
}

async fn open(dir: &Path, cache_bytes: usize) -> TestLog {
    let identity = Identity { cluster: Uuid::from_u128(1), node: 0 };
    let (wal, _) = Wal::open(dir, identity, options(cache_bytes)).unwrap();
    Log::new(Arc::new(wal)).await.unwrap()
}

/// Builds stores in folders of their own; nothing is cached, so that the suite reads files.
struct Builder {
    cache_bytes: usize,
}

impl StoreBuilder<TestConfig, TestLog, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, TestLog, Machine), StorageError<TestConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path(), self.cache_bytes).await;
        Ok((dir, log, Machine::default()))
    }
}

#[tokio::test]
async fn openrafts_suite_passes_from_files() {
    Suite::test_all(Builder { cache_bytes: 0 }).await.unwrap();
}

#[tokio::test]
async fn openrafts_suite_passes_from_memory() {
    Suite::test_all(Builder { cache_bytes: 1 << 20 }).await.unwrap();
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(<TestConfig as RaftTypeConfig>::LeaderId::new_committed(term, 0), index)
}

fn entries(term: u64, indexes: std::ops::Range<u64>) -> Vec<Entry> {
    indexes.map(|index| Entry::new_normal(log_id(term, index), format!("command {index}"))).collect()
}

async fn indexes(log: &mut TestLog, range: std::ops::Range<u64>) -> Vec<u64> {
    log.try_get_log_entries(range).await.unwrap().iter().map(|entry| entry.index()).collect()
}

#[tokio::test]
async fn everything_is_there_after_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), 0).await;
    let vote = VoteOf::<TestConfig>::new_committed(3, 2);
    log.blocking_append(entries(1, 1..9)).await.unwrap();
    log.save_vote(&vote).await.unwrap();
    log.truncate_after(Some(log_id(1, 5))).await.unwrap();
    log.blocking_append(entries(2, 6..8)).await.unwrap();
    log.purge(log_id(1, 2)).await.unwrap();
    log.save_committed(Some(log_id(2, 6))).await.unwrap();
    let state = log.get_log_state().await.unwrap();
    drop(log);

    let mut log = open(dir.path(), 0).await;
    assert_eq!(log.get_log_state().await.unwrap(), state);
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(1, 2)), Some(log_id(2, 7))));
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(2, 6)));
    let want = [entries(1, 3..6), entries(2, 6..8)].concat();
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), want);
}

#[tokio::test]
async fn a_log_emptied_by_a_snapshot_is_empty_after_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), 0).await;
    log.blocking_append(entries(1, 1..4)).await.unwrap();
    log.purge(log_id(5, 90)).await.unwrap();
    drop(log);
    let mut log = open(dir.path(), 0).await;
    let state = log.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(5, 90)), Some(log_id(5, 90))));
    log.blocking_append(entries(5, 91..93)).await.unwrap();
    assert_eq!(indexes(&mut log, 0..99).await, [91, 92]);
}

#[tokio::test]
async fn a_committed_mark_beyond_the_last_entry_is_withheld() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), 0).await;
    log.blocking_append(entries(1, 1..4)).await.unwrap();
    log.save_committed(Some(log_id(2, 50))).await.unwrap();
    assert_eq!(log.read_committed().await.unwrap(), None);
    log.save_committed(Some(log_id(1, 3))).await.unwrap();
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 3)));
}

#[tokio::test]
async fn a_limited_read_is_limited_and_a_stream_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), 0).await;
    let large = |index| Entry::new_normal(log_id(1, index), "x".repeat(400_000));
    log.blocking_append((1..7).map(large).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(log.limited_get_log_entries(1, 7).await.unwrap().len(), 2, "two of them fit into 1 MiB");
    assert_eq!(indexes(&mut log, 1..7).await.len(), 6);
    let streamed: Vec<_> = log.entries_stream(2..=5).await.try_collect().await.unwrap();
    assert_eq!(streamed, (2..6).map(large).collect::<Vec<_>>());
    assert_eq!(log.entries_stream(7..9).await.count().await, 0);
}

#[tokio::test]
async fn replication_of_recent_entries_reads_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), 1 << 20).await;
    log.blocking_append(entries(1, 1..100)).await.unwrap();
    let mut reader = log.get_log_reader().await;
    assert_eq!(reader.limited_get_log_entries(1, 100).await.unwrap().len(), 99);
    assert_eq!(log.wal().counts().file_reads, 0);
}

#[tokio::test]
async fn the_callback_comes_after_the_sync() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), 0).await;
    let (flushed, wait) = TestConfig::oneshot();
    let before = log.wal().counts().fsyncs;
    log.append(entries(1, 1..3), IOFlushed::signal(flushed)).await.unwrap();
    assert_eq!(indexes(&mut log, 0..9).await, [1, 2], "readable at once");
    wait.await.unwrap().unwrap();
    assert_eq!(log.wal().counts().fsyncs, before + 1);
}

#[tokio::test]
async fn a_hole_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), 0).await;
    log.blocking_append(entries(1, 1..3)).await.unwrap();
    let error = log.append(entries(1, 4..5), IOFlushed::noop()).await.unwrap_err();
    assert_eq!(error.to_string(), "entry 4 does not follow the log, which continues at 3");
}

/// The least state machine that the suite needs: it knows what was applied, and keeps one snapshot.
#[derive(Clone, Default)]
struct Machine {
    applied: Option<LogId>,
    membership: StoredMembershipOf<TestConfig>,
    snapshot: Arc<std::sync::Mutex<Option<SnapshotMetaOf<TestConfig>>>>,
}

impl Machine {
    fn keep(&self, meta: SnapshotMetaOf<TestConfig>) -> SnapshotOf<TestConfig, ()> {
        *self.snapshot.lock().unwrap() = Some(meta.clone());
        SnapshotOf::<TestConfig, ()> { meta, snapshot: () }
    }
}

impl RaftSnapshotBuilder<TestConfig> for Machine {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TestConfig, ()>, io::Error> {
        let (last_log_id, last_membership) = (self.applied, self.membership.clone());
        Ok(self.keep(SnapshotMetaOf::<TestConfig> { last_log_id, last_membership }))
    }
}

impl RaftStateMachine<TestConfig> for Machine {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembershipOf<TestConfig>), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TestConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, _responder)) = entries.try_next().await? {
            self.applied = Some(entry.log_id());
            if let Some(membership) = entry.get_membership() {
                self.membership = StoredMembership::new(self.applied, membership);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<TestConfig>, (): ()) -> Result<(), io::Error> {
        (self.applied, self.membership) = (meta.last_log_id, meta.last_membership.clone());
        self.keep(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<TestConfig, ()>>, io::Error> {
        let meta = self.snapshot.lock().unwrap().clone();
        Ok(meta.map(|meta| SnapshotOf::<TestConfig, ()> { meta, snapshot: () }))
    }
}
