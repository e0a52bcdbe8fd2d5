//! One member of the control plane. [`Registry`] is all that others see of Raft: propose a command, read the state,
//! follow it. The types of the Raft engine (openraft) stay in this module: it is an alpha, and replacing it must touch
//! nothing else.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use model::{name::Name, read::Freshness};
use openraft::BasicNode;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};

use crate::{
    command::{Admission, Command, MemberChange, MemberId, Reply},
    disk::Full,
    folder::Folder,
    state::{State, Trust},
    wal::metrics::Counts,
};

mod ask;
pub mod checkpoint;
mod core;
mod end;
pub mod error;
pub mod export;
mod floor;
mod frame;
mod index;
mod lead;
mod link;
pub mod log;
mod machine;
mod members;
mod network;
mod open;
mod payload;
mod peer;
mod quorum;
pub mod restore;
mod room;
pub mod settings;
pub mod snapshot;

pub use checkpoint::Checkpoint;
use core::Core;
pub use error::{MembershipError, OpenError, ProposeError, ReadError, SnapshotError};
pub use export::{Exported, export};
use payload::Payload;
pub use restore::{RestoreError, read_saved};
pub use settings::{Settings, Tuning};

openraft::declare_raft_types!(
    /// What the log is made of.
    pub(crate) Types: D = Payload, R = Reply, Node = BasicNode
);

/// A connection to a peer: whatever carries bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How members reach each other. The caller authenticates both ends.
pub trait Dial: Send + Sync + 'static {
    /// Opens a connection to a member; the peer is proven to be that member.
    fn dial(&self, member: MemberId, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Stream>>>;
}

/// A node's sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepAlive {
    /// The node.
    pub node: Name,
    /// Its session's.
    pub generation: u64,
    /// The revision that its proxy runs.
    pub acked: u64,
}

/// What the leader says to signs of life.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepAlives {
    /// The leader's term.
    pub term: u64,
    /// Those whose session is over: they must register anew.
    pub gone: Vec<Name>,
}

/// Who leads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader, if one is known.
    pub leader: Option<MemberId>,
    /// In which term.
    pub term: u64,
    /// Whether it is this member.
    pub is_me: bool,
}

/// What a member knows of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// This member.
    pub member: MemberId,
    /// The leader, if one is known.
    pub leader: Option<MemberId>,
    /// In which term.
    pub term: u64,
    /// Who votes.
    pub voters: Vec<MemberId>,
    /// Who only follows.
    pub learners: Vec<MemberId>,
    /// The last entry in this member's log.
    pub last_log_index: Option<u64>,
    /// The last entry in this member's state.
    pub applied_index: Option<u64>,
    /// The last entry in its snapshot.
    pub snapshot_index: Option<u64>,
    /// The last entry that is gone from its log, because a snapshot holds it.
    pub purged_index: Option<u64>,
    /// The state's revision at this member.
    pub revision: u64,
    /// On the leader: how far each member's log is.
    pub matched: Vec<(MemberId, Option<u64>)>,
    /// On the leader: how long ago each other member answered last, in milliseconds; who is not named never did.
    pub heard: Vec<(MemberId, u64)>,
    /// Entries that this process applied since it opened the data folder.
    pub applied_entries: u64,
    /// Why this member was refused by the others, if it was.
    pub refused: Option<String>,
}

/// How a member came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// From where its state was read.
    pub source: Source,
    /// Entries of the log that come after it, and are applied anew.
    pub replayed_entries: u64,
    /// How often this data folder was started, this time among them.
    pub boot: u64,
}

/// From where a state was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The index in sled.
    Index,
    /// The newest snapshot.
    Snapshot,
    /// Nowhere: the whole log is replayed, or there is none.
    Empty,
}

/// A member. Clones are handles to the same.
#[derive(Clone)]
pub struct Registry {
    core: Arc<Core>,
}

impl Registry {
    /// Brings a member up from its data folder. It neither waits for others nor for a leader.
    ///
    /// # Errors
    /// The folder cannot be used, is another's, or is damaged beyond what can be made good here.
    pub async fn open(settings: Settings, dial: Arc<dyn Dial>) -> Result<(Self, Recovery), OpenError> {
        let (core, recovery) = open::open(settings, dial).await?;
        Ok((Self { core }, recovery))
    }

    /// Founds a cluster of this one member, and does the first commands as one entry. Answers their replies.
    ///
    /// # Errors
    /// It is of a cluster already, or was stopped.
    pub async fn bootstrap(&self, genesis: Vec<Command>) -> Result<Vec<Reply>, ProposeError> {
        let node = BasicNode::new(self.core.settings.addresses.raft.clone());
        let first = BTreeMap::from([(self.core.id(), node)]);
        self.core.raft.initialize(first).await.map_err(|error| ProposeError::Stopped(error.to_string()))?;
        let (addresses, incarnation) = (self.core.settings.addresses.clone(), self.core.folder.incarnation);
        let mut commands = vec![Command::Member(MemberChange::Admit(Admission { addresses, incarnation }))];
        commands.extend(genesis);
        match self.core.propose(Command::Batch(commands)).await? {
            Reply::Batch(mut replies) => Ok(replies.split_off(1)),
            other => Ok(vec![other]),
        }
    }

    /// Has a command done, by whichever member leads. A refusal is a reply.
    ///
    /// # Errors
    /// It was not done, or it is not known whether it was: [`ProposeError::Unknown`].
    pub async fn propose(&self, command: Command) -> Result<Reply, ProposeError> {
        self.core.propose(command).await
    }

    /// The state with everything that was acknowledged anywhere before the call.
    ///
    /// # Errors
    /// No leader was found in time.
    pub async fn read(&self) -> Result<Arc<State>, ReadError> {
        self.core.read(Freshness::default()).await
    }

    /// The state as fresh as is asked for. What each consistency promises: [`model::read::Consistency`].
    ///
    /// # Errors
    /// No leader was found in time, where one is needed; or this member has not reached the revision that was asked for.
    pub async fn read_as(&self, freshness: Freshness) -> Result<Arc<State>, ReadError> {
        self.core.read(freshness).await
    }

    /// This member's view of the state; it may lag.
    pub fn applied(&self) -> Arc<State> {
        self.core.view.state()
    }

    /// The revision of this member's view, told after it can be seen by [`Registry::applied`].
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.core.view.revision.subscribe()
    }

    /// Whom to trust by this member's view: told only when that changed, after it can be seen by [`Registry::applied`].
    pub fn trust(&self) -> watch::Receiver<Option<Arc<Trust>>> {
        self.core.view.trust.subscribe()
    }

    /// This member's view once it has reached a revision.
    ///
    /// # Errors
    /// This member ended before.
    pub async fn at_least(&self, revision: u64) -> Result<Arc<State>, ReadError> {
        let mut revisions = self.revisions();
        let reached = revisions.wait_for(|now| *now >= revision).await;
        reached.map_err(|_| ReadError::Stopped("it has ended".to_owned()))?;
        Ok(self.applied())
    }

    /// Serves a connection that a peer opened, until it hangs up. `peer` is who it proved to be.
    ///
    /// # Errors
    /// The connection broke, or the peer was refused.
    pub async fn serve_peer(&self, stream: Box<dyn Stream>, peer: MemberId) -> io::Result<()> {
        let serve = peer::serve(self.core.clone(), stream, peer);
        let serve = self.core.stop.run_until_cancelled(serve);
        tokio::select! {
            served = serve => served.unwrap_or(Ok(())),
            // Whoever is connected to a member that was refused looks for the one that took its place.
            reason = self.refused() => Err(io::Error::other(reason)),
        }
    }

    /// Tells the leader which sessions are alive.
    ///
    /// # Errors
    /// No leader was found in time.
    pub async fn keep_alive(&self, alive: Vec<KeepAlive>) -> Result<KeepAlives, ReadError> {
        self.core.keep_alive(alive).await
    }

    /// The revision that each node's proxy runs, as far as this member heard it while leading.
    pub fn acked(&self) -> Vec<(Name, u64)> {
        self.core.acked()
    }

    /// Who leads.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.core.leadership.subscribe()
    }

    /// What this member knows of the cluster.
    pub fn status(&self) -> ClusterStatus {
        self.core.status()
    }

    /// Whether the disk has room, as far as this member needs it: while it has none, writes are refused here.
    pub fn disk(&self) -> watch::Receiver<Full> {
        self.core.disk.subscribe()
    }

    /// What this member's state added up to at its newest checkpoints.
    pub fn checkpoints(&self) -> Vec<Checkpoint> {
        self.core.view.checkpoints.lock().list()
    }

    /// Compares with another member's checkpoints; the first entry at which the states differ, if they do. It is
    /// remembered until they agree again.
    pub fn compare(&self, member: MemberId, theirs: &[Checkpoint]) -> Option<u64> {
        let compared = self.core.view.checkpoints.lock().compare(theirs);
        let mut diverged = self.core.diverged.lock();
        match compared {
            Some(Ok(())) => drop(diverged.remove(&member)),
            Some(Err(index)) => drop(diverged.insert(member, index)),
            None => {}
        }
        diverged.get(&member).copied()
    }

    /// Members whose state differs from this one's, each with the entry at which that was seen.
    pub fn diverged(&self) -> BTreeMap<MemberId, u64> {
        self.core.diverged.lock().clone()
    }

    /// What the log counted since it was opened.
    pub fn log_counts(&self) -> Counts {
        self.core.log_metrics.counts()
    }

    /// Waits until the audit's files show all that this member has applied.
    ///
    /// # Errors
    /// This member has ended.
    pub async fn audit_written(&self) -> io::Result<()> {
        self.core.audit.written().await
    }

    /// Who this data folder is.
    pub fn folder(&self) -> Folder {
        self.core.folder
    }

    /// Waits until the others refuse this member; answers why. Its Raft has ended then.
    pub async fn refused(&self) -> String {
        let mut banned = self.core.peers.banned.subscribe();
        let reason = banned.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }

    /// Waits until this member can do nothing any more because of an error of its disk or of the engine; answers which.
    /// Start it again: what it acknowledged is in its folder.
    pub async fn failed(&self) -> String {
        self.core.failed().await
    }

    /// Waits until this member has applied all that its log held when it was opened, as far as it was committed.
    ///
    /// # Errors
    /// It took longer, for want of a leader.
    pub async fn recovered(&self, within: Duration) -> Result<(), ReadError> {
        let recovered = self.core.raft.wait_for_recovery(Some(within)).await;
        recovered.map(drop).map_err(|_| ReadError::NoLeader { retry_after: within })
    }

    /// Adds an admitted member, which only follows at first, and waits until it is up to date. On the leader.
    ///
    /// # Errors
    /// This is not the leader, the member is not known, or it cannot be reached.
    pub async fn add_learner(&self, id: MemberId) -> Result<(), MembershipError> {
        self.core.add_learner(id).await
    }

    /// Lets a learner vote. On the leader.
    ///
    /// # Errors
    /// This is not the leader, or another change is under way.
    pub async fn promote(&self, id: MemberId) -> Result<(), MembershipError> {
        self.core.promote(id).await
    }

    /// Takes a member out of the vote and out of the log. On the leader; one that is to go itself hands over first, and
    /// answers [`MembershipError::NotLeader`] with whom to ask. Propose [`MemberChange::Forget`] after it.
    ///
    /// # Errors
    /// This is not the leader, or another change is under way.
    pub async fn remove(&self, id: MemberId) -> Result<(), MembershipError> {
        self.core.remove(id).await
    }

    /// Hands leadership to a member, or to the one that is furthest. On the leader.
    ///
    /// # Errors
    /// This is not the leader, or nobody took over in time.
    pub async fn transfer_leader(&self, to: Option<MemberId>) -> Result<(), MembershipError> {
        self.core.transfer_leader(to).await
    }

    /// Makes a snapshot now, lets the log be purged behind it, and answers its bytes.
    ///
    /// # Errors
    /// The disk or the engine refuses.
    pub async fn snapshot(&self) -> Result<Bytes, SnapshotError> {
        self.core.snapshot().await
    }

    /// Ends the member: a leader hands over first, what is under way ends, everything is on disk when this returns.
    pub async fn shutdown(self) {
        self.core.shutdown().await;
    }
}
