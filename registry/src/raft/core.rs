//! What a running member consists of, and who leads as far as it knows.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    thread::JoinHandle,
    time::Duration,
};

use openraft::{Raft, async_runtime::WatchReceiver, errors::Fatal};
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Leadership, Settings, Types,
    ask::Reader,
    lead::{Duties, Proposal},
    link::Peers,
    machine::{Machine, View},
};
use crate::{audit, command::MemberId, disk::Disk, folder::Folder, wal};

/// A running member.
pub(super) struct Core {
    pub(super) settings: Settings,
    pub(super) folder: Folder,
    pub(super) raft: Raft<Types, Machine>,
    pub(super) view: Arc<View>,
    pub(super) peers: Arc<Peers>,
    pub(super) proposals: mpsc::Sender<Proposal>,
    /// What writes may still hold until they are applied.
    pub(super) proposed_kib: Arc<Semaphore>,
    /// Who waits for a round of the majority.
    pub(super) readers: mpsc::Sender<Reader>,
    /// Who is content with the leader's lease.
    pub(super) leased_readers: mpsc::Sender<Reader>,
    /// From when on this member may vote: see [`Core::promises_over`].
    pub(super) votes_from: Instant,
    pub(super) duties: Mutex<Duties>,
    pub(super) leadership: watch::Sender<Leadership>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    /// Nothing more will be applied: the index is written a last time.
    pub(super) settled: CancellationToken,
    /// Threads that end with the member: they are waited for at its end.
    pub(super) threads: Mutex<Threads>,
    pub(super) audit: audit::Sink,
    /// Tells when the log has let go of its folder.
    pub(super) wal: Weak<()>,
    /// What the log counts.
    pub(super) log_metrics: Arc<wal::metrics::Metrics>,
    /// Whether there is room.
    pub(super) disk: Disk,
    /// Members whose state is another than this one's, and since which entry.
    pub(super) diverged: Mutex<BTreeMap<MemberId, u64>>,
}

/// A member's threads of its own.
#[derive(Default)]
pub(super) struct Threads {
    pub(super) index: Option<JoinHandle<()>>,
    pub(super) audit: Option<JoinHandle<()>>,
}

impl Core {
    pub(super) fn id(&self) -> MemberId {
        self.settings.member
    }

    pub(super) fn leading(&self) -> Leadership {
        *self.leadership.borrow()
    }

    /// Waits until nothing binds this member any more that it promised before it was started: who answers a leader elects
    /// no other for `election_max`, and a leader's lease stands on that. The engine forgets it at a restart.
    pub(super) async fn promises_over(&self) {
        tokio::time::sleep_until(self.votes_from).await;
    }

    /// Where a member's Raft listens, as the cluster's membership has it.
    pub(super) fn address_of(&self, member: MemberId) -> Option<String> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.get_node(&member).map(|node| node.addr.clone())
    }

    /// Why this member can do nothing any more, if so.
    pub(super) fn over(&self) -> Option<String> {
        if let Some(reason) = self.peers.banned.borrow().clone() {
            return Some(reason);
        }
        self.stop.is_cancelled().then(|| "it is shutting down".to_owned())
    }

    /// Waits until the engine ends by itself, and answers why; never if it is told to.
    pub(super) async fn failed(&self) -> String {
        let mut metrics = self.raft.metrics();
        loop {
            match metrics.borrow_watched().running_state.clone() {
                Ok(()) => {}
                Err(Fatal::Stopped) => return std::future::pending().await,
                Err(fatal) => return fatal.to_string(),
            }
            if metrics.changed().await.is_err() {
                return Fatal::<Types>::Panicked.to_string();
            }
        }
    }

    /// Waits until another leader is known than the one that did not answer, but not for longer than `within`.
    pub(super) async fn leader_other_than(&self, tried: Option<Leadership>, within: Duration) {
        let mut leadership = self.leadership.subscribe();
        let changed = leadership.wait_for(|now| now.leader.is_some() && Some(*now) != tried);
        // Looked at again in any case: a leader that did not answer may be fine the next time.
        let _ = tokio::time::timeout(within, changed).await;
    }
}

/// Tells the engine's metrics on, as far as others need them.
pub(super) async fn follow_leadership(core: Arc<Core>) {
    let mut metrics = core.raft.server_metrics();
    loop {
        let now = {
            let metrics = metrics.borrow_watched();
            let term = metrics.vote.leader_id.term;
            let is_me = metrics.state.is_leader() && metrics.current_leader == Some(core.id());
            Leadership { leader: metrics.current_leader, term, is_me }
        };
        core.leadership.send_if_modified(|known| std::mem::replace(known, now) != now);
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

/// Lets this member stand for election once its promises are over, unless its disk is full by then: see `room`.
pub(super) async fn allow_elections(core: Arc<Core>) {
    core.promises_over().await;
    core.raft.runtime_config().elect(core.disk_full().is_none() || core.status().voters.len() == 1);
}
