//! openraft's state machine: applies entries to the state, in order, and shows the result to everyone. What `apply`
//! decides is the state's matter; nothing here looks into a command.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf},
    storage::{ApplyResponder, EntryResponder, RaftStateMachine},
};
use tokio::sync::watch;

use super::{
    Types,
    snapshot::{self, Snapshots},
};
use crate::{audit, command::Reply, state::State};

/// Entries applied before their results are shown and their writers answered: a long replay shows progress, a burst is
/// shown once.
const SHOWN_EVERY: usize = 64;

/// A debug build checks a state of fewer objects after each entry, a larger one now and then: the check walks them all.
const CHECKED_EACH: usize = 1_000;

/// The state at one entry of the log.
pub(super) struct Applied {
    pub(super) state: Arc<State>,
    pub(super) log_id: Option<LogIdOf<Types>>,
    pub(super) membership: StoredMembershipOf<Types>,
}

/// What everyone may look at.
pub(super) struct View {
    current: ArcSwap<Applied>,
    pub(super) revision: watch::Sender<u64>,
    /// The index of the last entry that was applied; 0 for none.
    pub(super) index: watch::Sender<u64>,
    /// Entries applied since this process opened the folder.
    applied_count: AtomicU64,
}

/// The state machine.
pub(super) struct Machine {
    state: State,
    log_id: Option<LogIdOf<Types>>,
    membership: StoredMembershipOf<Types>,
    view: Arc<View>,
    snapshots: Snapshots,
    audit: audit::Sink,
}

/// Makes one snapshot of what was applied when it was made.
pub(super) struct Builder {
    applied: Arc<Applied>,
    snapshots: Snapshots,
    audit: audit::Sink,
}

impl View {
    pub(super) fn new(applied: Applied) -> Self {
        let (revision, index) = (applied.state.revision(), applied.log_id.map_or(0, |id| id.index));
        Self {
            current: ArcSwap::from_pointee(applied),
            revision: watch::Sender::new(revision),
            index: watch::Sender::new(index),
            applied_count: AtomicU64::new(0),
        }
    }

    pub(super) fn applied(&self) -> Arc<Applied> {
        self.current.load_full()
    }

    pub(super) fn state(&self) -> Arc<State> {
        self.current.load().state.clone()
    }

    pub(super) fn applied_count(&self) -> u64 {
        self.applied_count.load(Ordering::Relaxed)
    }

    fn show(&self, applied: Applied) {
        let (revision, index) = (applied.state.revision(), applied.log_id.map_or(0, |id| id.index));
        self.current.store(Arc::new(applied));
        self.index.send_replace(index);
        self.revision.send_if_modified(|shown| std::mem::replace(shown, revision) != revision);
    }
}

impl Machine {
    pub(super) fn new(applied: &Applied, view: Arc<View>, snapshots: Snapshots, audit: audit::Sink) -> Self {
        Self {
            state: (*applied.state).clone(),
            log_id: applied.log_id,
            membership: applied.membership.clone(),
            view,
            snapshots,
            audit,
        }
    }

    async fn apply_one(&mut self, entry: openraft::alias::EntryOf<Types>) -> Reply {
        self.log_id = Some(entry.log_id);
        self.view.applied_count.fetch_add(1, Ordering::Relaxed);
        match entry.payload {
            EntryPayload::Blank => Reply::Nothing,
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembershipOf::<Types>::new(Some(entry.log_id), membership);
                Reply::Nothing
            }
            EntryPayload::Normal(entry) => {
                let actions = audit::actions(&entry.command);
                let reply = self.state.apply(entry);
                let index = self.log_id.map_or(0, |id| id.index);
                if cfg!(debug_assertions)
                    && (self.state.objects().len() < CHECKED_EACH || index.is_multiple_of(64))
                {
                    self.state.check().expect("the state keeps its invariants");
                }
                self.audit.record(audit::records(index, &self.state, actions, &reply)).await;
                reply
            }
        }
    }

    fn show(&self, answers: &mut Vec<(ApplyResponder<Types>, Reply)>) {
        self.view.show(self.applied());
        for (responder, reply) in answers.drain(..) {
            responder.send(reply);
        }
    }

    fn applied(&self) -> Applied {
        Applied {
            state: Arc::new(self.state.clone()),
            log_id: self.log_id,
            membership: self.membership.clone(),
        }
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogIdOf<Types>>, StoredMembershipOf<Types>), io::Error> {
        Ok((self.log_id, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let (mut answers, mut hidden) = (Vec::new(), 0);
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let reply = self.apply_one(entry).await;
            answers.extend(responder.map(|responder| (responder, reply)));
            hidden += 1;
            if hidden == SHOWN_EVERY {
                self.show(&mut answers);
                hidden = 0;
            }
        }
        self.show(&mut answers);
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            applied: Arc::new(self.applied()),
            snapshots: self.snapshots.clone(),
            audit: self.audit.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<Types>,
        snapshot: Bytes,
    ) -> Result<(), io::Error> {
        let (snapshots, index) = (self.snapshots.clone(), meta.last_log_id.map_or(0, |id| id.index));
        let taken = blocking(move || {
            let taken = snapshots.decode(&snapshot).map_err(io::Error::other)?;
            snapshots.save(index, &snapshot)?;
            Ok(taken)
        })
        .await?;
        self.audit.record(vec![audit::Record::gap(index, &taken.state)]).await;
        self.state = taken.state;
        self.log_id = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.view.show(self.applied());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<Types, Bytes>>, io::Error> {
        let snapshots = self.snapshots.clone();
        blocking(move || {
            let damaged = |(path, reason): (std::path::PathBuf, String)| {
                io::Error::other(format!("{}: {reason}", path.display()))
            };
            let Some((path, bytes)) = snapshots.newest().map_err(damaged)? else { return Ok(None) };
            let taken = snapshots.decode(&bytes).map_err(|reason| damaged((path, reason)))?;
            Ok(Some(SnapshotOf::<Types, Bytes> { meta: taken.meta, snapshot: bytes }))
        })
        .await
    }
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, Bytes>, io::Error> {
        // The audit comes first: the log that it could be made from again may be purged after this.
        self.audit.synced().await?;
        let (applied, snapshots) = (self.applied.clone(), self.snapshots.clone());
        blocking(move || {
            let meta = SnapshotMetaOf::<Types> {
                last_log_id: applied.log_id,
                last_membership: applied.membership.clone(),
            };
            let bytes = snapshot::encode(meta.clone(), &applied.state).map_err(io::Error::other)?;
            snapshots.save(applied.log_id.map_or(0, |id| id.index), &bytes)?;
            Ok(SnapshotOf::<Types, Bytes> { meta, snapshot: bytes })
        })
        .await
    }
}

/// Runs what blocks on the disk where that holds up nobody.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
