//! The replicated truth of the mesh: what operators wrote, who is registered, what is trusted. Raft keeps the members
//! alike, a write-ahead log keeps what was acknowledged, [`State`] is what all of them agree on.
//!
//! It never knows HTTP, TLS or certificates: streams between members come from whoever opens it.

pub mod audit;
mod background;
mod clock;
pub mod command;
pub mod disk;
pub mod feed;
mod file;
pub mod folder;
pub mod raft;
pub mod saved;
pub mod session;
pub mod state;
pub mod store;
pub mod wal;

pub use command::{
    Addresses, Admission, COMMAND_VERSION, Change, Claim, Command, Credential, Discovery, Entry, Expect,
    Filing, Founder, Joined, Judgement, MemberChange, MemberId, Outcome, Program, RedeemJoin, Refusal,
    Refused, Register, RejoinStep, Reply, RestoreCommit, RestoreStep, Said, SessionRef, TrustChange, Write,
    Written,
};
pub use folder::Folder;
pub use raft::{
    ClusterStatus, Dial, KeepAlive, KeepAlives, Leadership, MembershipError, OpenError, ProposeError,
    ReadError, Recovery, Registry, RestoreError, Settings, SnapshotError, Source, Stream, Tuning,
};
pub use state::{
    Compacted, DISCOVERY_SINCE, Held, Member, NUMBERED_MAX, Revision, Session, State, Trust,
    VIRTUAL_IPS_SINCE,
};
