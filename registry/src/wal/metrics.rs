//! Pure. What the log counts. Written by the log alone, read by whoever exports it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Counters since the log was opened.
#[derive(Debug, Default)]
pub struct Metrics {
    groups: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
    fsyncs: AtomicU64,
    segments: AtomicU64,
    file_reads: AtomicU64,
    disk_full: AtomicBool,
    room: AtomicU64,
    fsync_nanos: AtomicU64,
}

/// All of them at one moment (each is exact; together they may be a group apart).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Groups written, each with one pwrite.
    pub groups: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// fdatasync calls: at most one a group.
    pub fsyncs: u64,
    /// Segments begun.
    pub segments: u64,
    /// Entries that were read from a file because memory no longer held them.
    pub file_reads: u64,
    /// There is no room for the next segment: refuse writes while the active one still has some.
    pub disk_full: bool,
    /// Bytes that are left in the active segment.
    pub room: u64,
    /// How long the fdatasync calls took together, in nanoseconds.
    pub fsync_nanos: u64,
}

impl Metrics {
    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            groups: read(&self.groups),
            records: read(&self.records),
            bytes: read(&self.bytes),
            fsyncs: read(&self.fsyncs),
            segments: read(&self.segments),
            file_reads: read(&self.file_reads),
            disk_full: self.disk_full.load(Ordering::Relaxed),
            room: read(&self.room),
            fsync_nanos: read(&self.fsync_nanos),
        }
    }

    pub(super) fn group_written(&self, records: u64, bytes: u64) {
        self.groups.fetch_add(1, Ordering::Relaxed);
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn set_room(&self, bytes: u64) {
        self.room.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn synced(&self, took: Duration) {
        self.fsyncs.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.fsync_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(super) fn segment_begun(&self) {
        self.segments.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read_from_file(&self, entries: u64) {
        self.file_reads.fetch_add(entries, Ordering::Relaxed);
    }

    /// Gives what it was before.
    pub(super) fn set_disk_full(&self, full: bool) -> bool {
        self.disk_full.swap(full, Ordering::Relaxed)
    }
}
