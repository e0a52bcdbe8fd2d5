//! openraft's state machine: applies entries to the state, in order, and shows the result to everyone. What `apply`
//! decides is the state's matter; nothing here looks into a command.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use futures_util::{Stream, StreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    alias::{EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf},
    storage::{ApplyResponder, EntryResponder, RaftStateMachine},
};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Types,
    checkpoint::Checkpoints,
    snapshot::{self, Content, Snapshots},
};
use crate::{
    audit, background,
    command::Reply,
    disk::{Disk, Part, ROOM_RETRY},
    file,
    state::{State, Trust},
};

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
    /// Whom to trust.
    pub(super) trust: watch::Sender<Option<Arc<Trust>>>,
    /// Entries applied since this process opened the folder.
    applied_count: AtomicU64,
    /// What the state added up to, for other members to compare.
    pub(super) checkpoints: Mutex<Checkpoints>,
}

/// The state machine.
pub(super) struct Machine {
    state: State,
    log_id: Option<LogIdOf<Types>>,
    membership: StoredMembershipOf<Types>,
    view: Arc<View>,
    keeping: Keeping,
}

/// Where a state machine keeps things.
#[derive(Clone)]
pub(super) struct Keeping {
    pub(super) snapshots: Snapshots,
    pub(super) audit: audit::Sink,
    pub(super) disk: Disk,
    /// The member ends.
    pub(super) stop: CancellationToken,
}

/// Makes one snapshot of what was applied when it was made.
pub(super) struct Builder {
    applied: Arc<Applied>,
    keeping: Keeping,
}

impl Keeping {
    /// Writes a snapshot; on a full disk it waits for room, since an error would end the engine.
    async fn keep<W>(&self, write: W) -> io::Result<PathBuf>
    where
        W: Fn(&Snapshots) -> io::Result<PathBuf> + Clone + Send + 'static,
    {
        loop {
            let (snapshots, write) = (self.snapshots.clone(), write.clone());
            match background::run("snapshot", move || write(&snapshots)).await {
                Err(error) if file::is_full(&error) => {
                    if !self.disk.set(Part::Snapshots, true) {
                        tracing::error!(%error, "a snapshot waits for room");
                    }
                    let ended = self.stop.run_until_cancelled(tokio::time::sleep(ROOM_RETRY)).await;
                    ended.ok_or(error)?;
                }
                done => {
                    self.disk.set(Part::Snapshots, false);
                    return done;
                }
            }
        }
    }
}

impl View {
    pub(super) fn new(applied: Applied) -> Self {
        let (revision, index) = (applied.state.revision(), applied.log_id.map_or(0, |id| id.index));
        let trust = watch::Sender::new(applied.state.trust().cloned());
        Self {
            current: ArcSwap::from_pointee(applied),
            revision: watch::Sender::new(revision),
            index: watch::Sender::new(index),
            trust,
            applied_count: AtomicU64::new(0),
            checkpoints: Mutex::default(),
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
        let trust = applied.state.trust().cloned();
        self.current.store(Arc::new(applied));
        self.index.send_replace(index);
        self.revision.send_if_modified(|shown| std::mem::replace(shown, revision) != revision);
        self.trust.send_if_modified(|shown| {
            let same = shown.as_ref().map(Arc::as_ptr) == trust.as_ref().map(Arc::as_ptr);
            *shown = trust;
            !same
        });
    }
}

impl Machine {
    pub(super) fn new(applied: &Applied, view: Arc<View>, keeping: Keeping) -> Self {
        Self {
            state: (*applied.state).clone(),
            log_id: applied.log_id,
            membership: applied.membership.clone(),
            view,
            keeping,
        }
    }

    async fn apply_one(&mut self, entry: EntryOf<Types>) -> io::Result<Reply> {
        self.log_id = Some(entry.log_id);
        self.view.applied_count.fetch_add(1, Ordering::Relaxed);
        let reply = match entry.payload {
            EntryPayload::Blank => Reply::Nothing,
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembershipOf::<Types>::new(Some(entry.log_id), membership);
                Reply::Nothing
            }
            EntryPayload::Normal(payload) => {
                let entry = payload.into_entry()?;
                let actions = audit::actions(&entry.command);
                let reply = self.state.apply(entry);
                let index = self.log_id.map_or(0, |id| id.index);
                if cfg!(debug_assertions)
                    && (self.state.objects().len() < CHECKED_EACH || index.is_multiple_of(64))
                {
                    self.state.check().expect("the state keeps its invariants");
                }
                if Checkpoints::due(index) {
                    self.view.checkpoints.lock().keep(index, self.state.hash());
                }
                self.keeping.audit.record(audit::records(index, &self.state, actions, &reply)).await;
                reply
            }
        };
        Ok(reply)
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
    type SnapshotData = Content;
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
            let reply = self.apply_one(entry).await?;
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
        Builder { applied: Arc::new(self.applied()), keeping: self.keeping.clone() }
    }

    /// None for the policy while there is no room for one.
    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        if self.keeping.disk.full().any() && !force {
            return None;
        }
        Some(self.get_snapshot_builder().await)
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<Types>,
        snapshot: Content,
    ) -> Result<(), io::Error> {
        let (index, snapshots) = (snapshot::place(meta), self.keeping.snapshots.clone());
        let decoded = move || {
            let bytes = snapshot.read()?;
            Ok((snapshots.decode(&bytes).map_err(io::Error::other)?, bytes))
        };
        let (taken, bytes) = blocking(decoded).await?;
        self.keeping.keep(move |snapshots| snapshots.save(index, &bytes)).await?;
        tracing::info!(index, revision = taken.state.revision(), "took a snapshot from the leader");
        self.keeping.audit.record(vec![audit::Record::gap(index, &taken.state)]).await;
        self.view.checkpoints.lock().forget();
        self.state = taken.state;
        self.log_id = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.view.show(self.applied());
        Ok(())
    }

    /// What is sent to a follower, and what a start goes back to. A damaged one is neither: the state is here, so another
    /// one is made.
    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<Types, Content>>, io::Error> {
        let snapshots = self.keeping.snapshots.clone();
        let damaged = match blocking(move || Ok(snapshots.sendable())).await? {
            Ok(newest) => {
                let content =
                    |(meta, bytes)| SnapshotOf::<Types, Content> { meta, snapshot: Content::Bytes(bytes) };
                return Ok(newest.map(content));
            }
            Err(damaged) => damaged,
        };
        tracing::error!(path = %damaged.path.display(), reason = damaged.reason, "a snapshot was damaged on disk; another one is made");
        self.get_snapshot_builder().await.build_snapshot().await.map(Some)
    }
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Content;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, Content>, io::Error> {
        // The audit comes first: the log that it could be made from again may be purged after this.
        self.keeping.audit.synced().await?;
        let applied = self.applied.clone();
        let meta = SnapshotMetaOf::<Types> {
            last_log_id: applied.log_id,
            last_membership: applied.membership.clone(),
        };
        let of = meta.clone();
        let path = self.keeping.keep(move |snapshots| snapshots.make(&of, &applied.state)).await?;
        Ok(SnapshotOf::<Types, Content> { meta, snapshot: Content::File(path) })
    }
}

/// Runs what blocks on the disk where that holds up nobody.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
