//! A snapshot on request, and the end of a member.

use std::{io, thread::JoinHandle, time::Duration};

use bytes::Bytes;
use tokio::time::timeout;

use super::{SnapshotError, core::Core, machine::blocking};
use crate::clock;

/// So long a snapshot on request may take.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);
/// So long the tasks of a member may take to end; they are cut off after it.
const END_TIMEOUT: Duration = Duration::from_secs(5);

impl Core {
    pub(super) async fn snapshot(&self) -> Result<Bytes, SnapshotError> {
        let engine = |error: &dyn std::fmt::Display| SnapshotError::Engine(error.to_string());
        if self.disk_full().is_some() {
            return Err(SnapshotError::Io(io::ErrorKind::StorageFull.into()));
        }
        let wanted = self.view.applied().log_id;
        let mut progress = self.raft.watch_snapshot_progress();
        self.raft.trigger().snapshot().await.map_err(|error| engine(&error))?;
        let deadline = clock::now() + SNAPSHOT_TIMEOUT;
        let made = tokio::time::timeout_at(deadline, progress.wait_until_ge(&wanted)).await;
        made.map_err(|_| SnapshotError::Io(io::ErrorKind::TimedOut.into()))?
            .map_err(|error| engine(&error))?;
        let snapshot = self.raft.get_snapshot().await.map_err(|error| engine(&error))?;
        let snapshot = snapshot.ok_or_else(|| SnapshotError::Invalid("there is none".to_owned()))?;
        blocking(|| snapshot.snapshot.read()).await.map_err(SnapshotError::Io)
    }

    pub(super) async fn shutdown(&self) {
        if self.leading().is_me
            && let Err(error) = self.transfer_leader(None).await
        {
            tracing::debug!(%error, "leadership is not handed over");
        }
        self.stop.cancel();
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(%error, "raft did not end well");
        }
        self.settled.cancel();
        self.tasks.close();
        if timeout(END_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        let threads = std::mem::take(&mut *self.threads.lock());
        // The index is written for the last time when its audit is on disk.
        self.audit.ending();
        let indexed = ended(threads.index).await;
        self.audit.end().await;
        if !indexed || !ended(threads.audit).await || !self.log_let_go().await {
            tracing::warn!("the data folder is still in use");
        }
    }

    /// The engine's tasks end one after the other; the folder is free when the last has let go of the log.
    async fn log_let_go(&self) -> bool {
        let deadline = clock::now() + END_TIMEOUT;
        while self.wal.strong_count() > 0 {
            if clock::now() > deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        true
    }
}

/// Waits for a thread's end, but not for ever.
async fn ended(thread: Option<JoinHandle<()>>) -> bool {
    let Some(thread) = thread else { return true };
    let joined = blocking(move || {
        // One that panicked has ended too.
        drop(thread.join());
        Ok(())
    });
    timeout(END_TIMEOUT, joined).await.is_ok()
}
