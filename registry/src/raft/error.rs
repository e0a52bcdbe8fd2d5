//! Pure. What can go wrong at the handle, with the evidence.

use std::{io, path::PathBuf, time::Duration};

use crate::command::MemberId;

/// A member cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data folder cannot be used.
    #[error("{path}: {source}")]
    Folder {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The data folder is another member's, or of another cluster.
    #[error("{path} belongs to {holds}, not to {asked}; use another data_dir")]
    OtherMember {
        /// The folder.
        path: PathBuf,
        /// What it is.
        holds: String,
        /// What was asked for.
        asked: String,
    },
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] crate::wal::Error),
    /// A snapshot is damaged, and neither an older one nor the log makes it good.
    #[error("snapshot {path}: {reason}, and the log does not reach back to an older one. {WAY_OUT}")]
    Snapshot {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The log was purged beyond what snapshot and index hold.
    #[error(
        "the log starts after entry {purged}, but the newest snapshot ends at {}. {WAY_OUT}",
        at(applied)
    )]
    Hole {
        /// The last entry that was purged.
        purged: u64,
        /// The last entry that is held.
        applied: Option<u64>,
    },
    /// Who this member is cannot be read.
    #[error("{path}: {reason}. {WAY_OUT}")]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The Raft engine refuses.
    #[error("raft: {0}")]
    Engine(String),
}

/// What the operator of a member can do whose data are damaged beyond what it can make good by itself.
const WAY_OUT: &str = "Do not edit the files. Remove this member from the cluster (meshctl cluster remove), move its data \
                       folder away and let it join anew: the others have everything; a cluster of one is restored from its \
                       last backup";

fn at(applied: &Option<u64>) -> String {
    applied.map_or_else(|| "nothing, there is none".to_owned(), |index| index.to_string())
}

/// A command could not be carried out, or it is not known whether it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// No leader was found in time; nothing was done.
    #[error("the control plane has no leader; try again in {retry_after:?}")]
    NoLeader {
        /// When it is worth to try again.
        retry_after: Duration,
    },
    /// The leader was lost after it got the command: it may be done, or be done yet.
    #[error("the leader was lost before it answered; whether the change was made is not known")]
    Unknown,
    /// Too many wait already; nothing was done.
    #[error("the control plane has too many changes waiting")]
    Busy,
    /// The command has more bytes than an entry may have; nothing was done.
    #[error("the change has {actual} bytes, at most {limit}")]
    TooLarge {
        /// How many.
        actual: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A member does not understand the command yet; nothing was done.
    #[error("not every member understands this change yet: update them all first")]
    Version,
    /// This member's disk has no room; nothing was done.
    #[error("the disk of this server is full ({}): ask another one, or make room", .0.display())]
    DiskFull(PathBuf),
    /// This member ended, or was refused by the others.
    #[error("this member has stopped: {0}")]
    Stopped(String),
}

/// The present state could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader was found in time.
    #[error("the control plane has no leader; try again in {retry_after:?}")]
    NoLeader {
        /// When it is worth to try again.
        retry_after: Duration,
    },
    /// This member's disk has no room, so that it cannot follow the leader.
    #[error("the disk of this server is full ({}), it is behind: ask another one, or make room", .0.display())]
    DiskFull(PathBuf),
    /// This member ended, or was refused by the others.
    #[error("this member has stopped: {0}")]
    Stopped(String),
    /// This member does not have the revision that was asked for.
    #[error("this server has revision {revision}, not yet {wanted}; try again, or ask another")]
    Behind {
        /// What it has.
        revision: u64,
        /// What was asked for.
        wanted: u64,
    },
}

/// A change of who votes failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Only the leader changes the membership.
    #[error("this member does not lead; the leader is {leader:?}")]
    NotLeader {
        /// Who does, if it is known.
        leader: Option<MemberId>,
    },
    /// The state does not know the member: admit it first.
    #[error("member {0} was not admitted")]
    Unknown(MemberId),
    /// The engine refuses, or another change is under way.
    #[error("the membership cannot change: {0}")]
    Refused(String),
    /// It did not come about in time.
    #[error("the change was not finished in {0:?}")]
    Timeout(Duration),
}

/// A snapshot could not be made or taken.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The bytes are no snapshot, or damaged.
    #[error("not a valid snapshot: {0}")]
    Invalid(String),
    /// The disk refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The engine refuses.
    #[error("raft: {0}")]
    Engine(String),
}
