//! Pure. How a snapshot gets back into a running cluster: too large for one entry, it is kept aside piece by piece, and
//! one last entry puts it in force on all members at once.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Admission, MemberId};
use crate::state::Sum;

/// One step of a restore.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum RestoreStep {
    /// A piece is kept aside. The first piece of one restore drops what another left behind.
    Stage {
        /// Of which restore.
        id: Uuid,
        /// Which piece, from 0.
        part: u32,
        /// As `crate::saved` makes it.
        #[serde(with = "super::bytes_field")]
        bytes: Vec<u8>,
    },
    /// The pieces become the state; where one is missing or wrong, nothing changes.
    Commit(Box<RestoreCommit>),
    /// What was kept aside goes.
    Discard {
        /// Of which restore.
        id: Uuid,
    },
}

/// The step that puts a snapshot in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestoreCommit {
    /// Of which restore.
    pub id: Uuid,
    /// Who asked, for the audit.
    pub actor: String,
    /// How many pieces there are.
    pub parts: u32,
    /// What the records of all of them add up to.
    pub sum: Sum,
    /// The history that begins.
    pub epoch: Uuid,
    /// For a new cluster: its first member. Without one, the present cluster goes on.
    #[serde(default)]
    pub founder: Option<Founder>,
}

/// The first member of a cluster that begins with a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founder {
    /// Its id: greater than all that the snapshot's cluster gave.
    pub id: MemberId,
    /// Its folder and where it is reached.
    pub admission: Admission,
}

impl RestoreStep {
    /// In a word, for the log engine's messages.
    pub(super) fn about(&self) -> &'static str {
        match self {
            Self::Stage { .. } => "restore: piece",
            Self::Commit(_) => "restore: commit",
            Self::Discard { .. } => "restore: discard",
        }
    }
}

impl RestoreCommit {
    /// For the audit: what was restored, and as what it goes on.
    pub fn target(&self) -> String {
        let Sum { revision, time, .. } = self.sum;
        format!("revision {revision} of {time}, as epoch {}", self.epoch)
    }
}
