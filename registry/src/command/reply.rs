//! Pure. What applying a command answers, and why it may be refused.

use std::{fmt, sync::Arc};

use model::{
    duration::Millis,
    identity::TrustDomain,
    join::{JoinGranted, JoinRefused},
    name::{Name, ServiceName},
    object::{Key, Object},
    rejoin::RejoinRecord,
};
use serde::{Deserialize, Serialize};

use super::MemberId;

/// What applying a command answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// Nothing to say: done, or nothing to do.
    Nothing,
    /// One for each command of the batch.
    Batch(Vec<Reply>),
    /// One for each change of the write.
    Written(Vec<Written>),
    /// The node's session.
    Registered {
        /// For keep-alives.
        generation: u64,
        /// The state with the registration in it.
        revision: u64,
    },
    /// The attempt was let in.
    Joined(Joined),
    /// The member's id.
    Member {
        /// Its id.
        id: MemberId,
    },
    /// A host's request to come back, as it stands now.
    Requested {
        /// Its id.
        id: String,
        /// What is kept of it.
        record: Arc<RejoinRecord>,
    },
    /// Nothing was changed.
    Refused(Refusal),
}

/// What became of one change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Written {
    /// Of which object.
    pub key: Key,
    /// As it is stored; as it was, if it was deleted.
    pub object: Arc<Object>,
    /// What happened.
    pub outcome: Outcome,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is new.
    Created,
    /// It is another.
    Replaced,
    /// It was so already: no revision.
    Unchanged,
    /// It is gone.
    Deleted,
}

/// Who was let in, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Joined {
    /// Whether this use was the first, or its key asking again.
    pub granted: JoinGranted,
    /// The Node, for role `host`.
    pub node: Option<Arc<Object>>,
    /// The member's id, for role `server`.
    pub member: Option<MemberId>,
    /// The state with it.
    pub revision: u64,
}

/// Why a command changed nothing.
#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// It does not exist.
    #[error("{key} does not exist")]
    NotFound {
        /// Which.
        key: Key,
    },
    /// It exists, and was expected not to.
    #[error("{key} exists")]
    Exists {
        /// Which.
        key: Key,
    },
    /// It has another revision than expected.
    #[error("{key} has revision {actual}, not {expected}")]
    RevisionMismatch {
        /// Which.
        key: Key,
        /// The revision that was named.
        expected: u64,
        /// The one that it has; 0 if it does not exist.
        actual: u64,
    },
    /// The namespace does not exist.
    #[error("namespace {namespace} does not exist")]
    UnknownNamespace {
        /// Which.
        namespace: Name,
    },
    /// The namespace has objects.
    #[error("namespace {namespace} still holds {holds}")]
    NamespaceNotEmpty {
        /// Which.
        namespace: Name,
        /// One of its objects.
        holds: Key,
    },
    /// It always exists.
    #[error("{key} is built in")]
    BuiltIn {
        /// Which.
        key: Key,
    },
    /// It does not go together with what is there.
    #[error("{key}: {message}")]
    Conflict {
        /// Which.
        key: Key,
        /// With which other object.
        with: Option<Key>,
        /// What would be right.
        message: String,
    },
    /// The spec cannot be read.
    #[error("{key}: {message}")]
    Invalid {
        /// Which.
        key: Key,
        /// What is wrong.
        message: String,
    },
    /// No such session, or a later one.
    #[error("node {node} has no session of that generation")]
    SessionGone {
        /// Whose.
        node: Name,
    },
    /// The node may not run the service.
    #[error("node {node} may not run {service}; allow it in the Node's spec.services")]
    NotGranted {
        /// Which node.
        node: Name,
        /// Which service.
        service: ServiceName,
    },
    /// The node is shut out.
    #[error("node {node} is disabled")]
    Disabled {
        /// Which.
        node: Name,
    },
    /// The node came and went too often of late.
    #[error("node {node} came and went too often of late; it may register again in {retry_after_seconds} s")]
    Restless {
        /// Which.
        node: Name,
        /// When it may.
        retry_after_seconds: u64,
    },
    /// The token does not let it in.
    #[error(transparent)]
    Join(JoinRefused),
    /// The attempt says too little.
    #[error("a server must say where it is reached")]
    NoAdmission,
    /// No such member.
    #[error("member {id} is not of this cluster")]
    UnknownMember {
        /// Which.
        id: MemberId,
    },
    /// The member's data folder is an old copy, or another's.
    #[error(
        "member {id} was started from another or an older data folder (boot {boot}, known {known}); \
         empty the folder and join under a new id"
    )]
    StaleMember {
        /// Which.
        id: MemberId,
        /// What it says.
        boot: u64,
        /// What the cluster knows.
        known: u64,
    },
    /// The mesh has its name already.
    #[error("the trust domain is {domain} already")]
    Founded {
        /// Its name.
        domain: TrustDomain,
    },
    /// The snapshot cannot be put in force here.
    #[error("the snapshot cannot be restored: {reason}")]
    Restore {
        /// Why not.
        reason: String,
    },
    /// There is no such request to rejoin.
    #[error("there is no request {id}: it was withdrawn with its node, or never filed")]
    NoRequest {
        /// Its id.
        id: String,
    },
    /// It is too late for it.
    #[error("request {id} of node {node} expired at {at}; the host has to ask anew")]
    RequestExpired {
        /// Its id.
        id: String,
        /// Whose.
        node: Name,
        /// Since when.
        at: Millis,
    },
    /// It was denied before.
    #[error("request {id} of node {node} was denied; the host has to ask anew, with another key")]
    RequestDenied {
        /// Its id.
        id: String,
        /// Whose.
        node: Name,
    },
    /// Over a limit that time makes room in.
    #[error("there are {limit} {what} already; try again later")]
    Crowded {
        /// Of what.
        what: String,
        /// How many there may be.
        limit: u64,
    },
    /// Over a limit.
    #[error("{what}: {actual}, at most {limit}")]
    TooLarge {
        /// Of what.
        what: String,
        /// How many there would be.
        actual: u64,
        /// How many there may be.
        limit: u64,
    },
}

/// Short, for the log engine's messages.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => write!(f, "refused: {refusal}"),
            _ => f.write_str("done"),
        }
    }
}
