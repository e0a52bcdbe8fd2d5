//! What a member does while its disk is full: it takes no writes, lets another lead, and does not stand for election. It
//! goes on serving what it has, and comes back by itself when there is room.

use std::{sync::Arc, time::Duration};

use openraft::raft::AppendEntriesRequest;

use super::{Types, core::Core};
use crate::{clock, disk::Part};

/// Between two looks at the log's room.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Between two tries to hand leadership over.
const HAND_OVER_EVERY: Duration = Duration::from_secs(2);
/// Without room for a next segment, so many bytes of the present one stay free for votes, truncations and purges: entries
/// are not taken any more. Thousands of votes fit.
const RESERVE_BYTES: u64 = 1 << 20;

impl Core {
    /// The data folder, where its disk is full.
    pub(super) fn disk_full(&self) -> Option<std::path::PathBuf> {
        self.disk.full().any().then(|| self.settings.data_dir.clone())
    }

    /// Whether entries of a leader can still be taken.
    pub(super) fn has_room_for(&self, append: &AppendEntriesRequest<Types>) -> bool {
        append.entries.is_empty() || {
            let counts = self.log_metrics.counts();
            !counts.disk_full || counts.room > RESERVE_BYTES
        }
    }
}

/// Follows whether there is room, and acts on it.
pub(super) async fn watch(core: Arc<Core>) {
    let (mut was_full, mut hand_over_at) = (false, clock::now());
    loop {
        core.disk.set(Part::Log, core.log_metrics.counts().disk_full);
        let full = core.disk.full();
        if full.any() != was_full {
            was_full = full.any();
            // The only one that votes has nobody to leave it to.
            core.raft.runtime_config().elect(!was_full || core.status().voters.len() == 1);
            let data_dir = core.settings.data_dir.display();
            match was_full {
                true => {
                    tracing::error!(%data_dir, ?full, "the disk is full: no writes here, and another one shall lead")
                }
                false => tracing::info!(%data_dir, "the disk has room again"),
            }
        }
        if was_full && core.leading().is_me && clock::now() >= hand_over_at {
            hand_over_at = clock::now() + HAND_OVER_EVERY;
            if let Err(error) = core.transfer_leader(None).await {
                tracing::debug!(%error, "the disk is full, and nobody else leads");
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
