//! One member of the control plane. [`Registry`] is all that others see of Raft: propose a command, read the state,
//! follow it. The types of the Raft engine (openraft) stay in this module: it is an alpha, and replacing it must touch
//! nothing else.

use std::{io, sync::Arc};

use futures_util::future::BoxFuture;
use model::name::Name;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};

use crate::{
    command::{Admission, Command, MemberId, Reply},
    state::State,
};

pub mod error;
pub mod log;
pub mod settings;

pub use error::{MembershipError, OpenError, ProposeError, ReadError, SnapshotError};
pub use settings::{Settings, Tuning};

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
    /// The state's revision at this member.
    pub revision: u64,
    /// On the leader: how far each member's log is.
    pub matched: Vec<(MemberId, Option<u64>)>,
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
    _inner: Arc<()>,
}

#[allow(clippy::unimplemented, clippy::missing_errors_doc, clippy::unused_async, missing_docs, unused_variables)]
impl Registry {
    pub async fn open(settings: Settings, dial: Arc<dyn Dial>) -> Result<(Self, Recovery), OpenError> { unimplemented!() }
    pub async fn bootstrap(&self, first: Admission, genesis: Vec<Command>) -> Result<Vec<Reply>, ProposeError> { unimplemented!() }
    pub async fn propose(&self, command: Command) -> Result<Reply, ProposeError> { unimplemented!() }
    pub async fn read(&self) -> Result<Arc<State>, ReadError> { unimplemented!() }
    pub fn applied(&self) -> Arc<State> { unimplemented!() }
    pub fn revisions(&self) -> watch::Receiver<u64> { unimplemented!() }
    pub async fn serve_peer(&self, stream: Box<dyn Stream>, peer: MemberId) -> io::Result<()> { unimplemented!() }
    pub async fn keep_alive(&self, alive: Vec<KeepAlive>) -> Result<KeepAlives, ReadError> { unimplemented!() }
    pub fn leadership(&self) -> watch::Receiver<Leadership> { unimplemented!() }
    pub fn status(&self) -> ClusterStatus { unimplemented!() }
    pub async fn refused(&self) -> String { unimplemented!() }
    pub async fn add_learner(&self, id: MemberId) -> Result<(), MembershipError> { unimplemented!() }
    pub async fn promote(&self, id: MemberId) -> Result<(), MembershipError> { unimplemented!() }
    pub async fn remove(&self, id: MemberId) -> Result<(), MembershipError> { unimplemented!() }
    pub async fn transfer_leader(&self, to: Option<MemberId>) -> Result<(), MembershipError> { unimplemented!() }
    pub async fn snapshot(&self) -> Result<Vec<u8>, SnapshotError> { unimplemented!() }
    pub async fn shutdown(self) { unimplemented!() }
}
