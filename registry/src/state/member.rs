//! Pure. The control plane's members: their ids come from the log and are never used twice. Who votes is the log
//! engine's matter, not recorded here.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{State, table::Table};
use crate::command::{Addresses, Admission, MemberChange, MemberId, Program, Refusal, Reply};

/// The most members ever: voters are 1, 3 or 5, the rest are learners and servers being replaced.
pub const MEMBERS_MAX: usize = 64;

/// A member of the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Where it is reached.
    pub addresses: Addresses,
    /// Of its data folder, drawn when that was made.
    pub incarnation: Uuid,
    /// How often the folder was started, as last seen.
    pub boot: u64,
    /// Drawn at that start: tells a folder from its copy.
    pub nonce: Uuid,
    /// The commands that it understands; 0 before its first start.
    pub command_version: u32,
    /// What runs there, as it said at its start. Left out where it is not known, so that a member of version 1 is
    /// recorded as such a member records it: the hash of a state is that of its records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
}

/// The members, and the next id.
#[derive(Debug, Clone)]
pub struct Members {
    pub(super) by_id: Table<MemberId, Member>,
    pub(super) next: Table<(), MemberId>,
    /// The highest version of a command that was applied; none before version 2. From then on no older program can
    /// follow, whatever its members say.
    pub(super) used: Table<(), u32>,
}

impl Members {
    pub(super) fn new() -> Self {
        Self { by_id: Table::new(6), next: Table::new(7), used: Table::new(8) }
    }

    /// The id that the next one gets.
    pub fn next(&self) -> MemberId {
        self.next.get(&()).map_or(1, |next| **next)
    }

    /// The highest version of a command that was ever applied.
    pub fn used(&self) -> u32 {
        self.used.get(&()).map_or(1, |used| **used)
    }
}

impl State {
    /// Notes that a command of this version is in the log: once for each version.
    pub(super) fn note_version(&mut self, version: u32) {
        if version > self.members.used() {
            self.members.used.insert((), version);
            self.touched = true;
        }
    }

    pub(super) fn change_members(&mut self, change: MemberChange) -> Result<Reply, Refusal> {
        match change {
            MemberChange::Admit(admission) => self.admit(admission).map(|id| Reply::Member { id }),
            MemberChange::Boot { id, incarnation, boot, nonce, command_version, addresses, program } => {
                let known = self.member_of(id)?;
                let addresses = addresses.unwrap_or_else(|| known.addresses.clone());
                let program = program.or_else(|| known.program.clone());
                self.boot(
                    &known,
                    Member { id, addresses, incarnation, boot, nonce, command_version, program },
                )
            }
            MemberChange::Forget { id } => {
                self.member_of(id)?;
                self.members.by_id.remove(&id);
                self.distrust_member(id);
                self.touched = true;
                Ok(Reply::Member { id })
            }
        }
    }

    /// The same data folder asked for twice is the same member.
    pub(super) fn admit(&mut self, admission: Admission) -> Result<MemberId, Refusal> {
        let Admission { addresses, incarnation } = admission;
        if let Some((id, _)) = self.members.by_id.iter().find(|(_, member)| member.incarnation == incarnation)
        {
            return Ok(*id);
        }
        if self.members.by_id.len() >= MEMBERS_MAX {
            let (actual, limit) = (MEMBERS_MAX as u64 + 1, MEMBERS_MAX as u64);
            return Err(Refusal::TooLarge { what: "members".to_owned(), actual, limit });
        }
        let id = self.members.next();
        self.members.next.insert((), id + 1);
        let (boot, nonce, command_version, program) = (0, Uuid::nil(), 0, None);
        let member = Member { id, addresses, incarnation, boot, nonce, command_version, program };
        self.members.by_id.insert(id, member);
        self.touched = true;
        Ok(id)
    }

    fn boot(&mut self, known: &Member, started: Member) -> Result<Reply, Refusal> {
        started.check_against(known)?;
        let id = started.id;
        if *known != started {
            self.members.by_id.insert(id, started);
            self.touched = true;
        }
        Ok(Reply::Member { id })
    }

    fn member_of(&self, id: MemberId) -> Result<std::sync::Arc<Member>, Refusal> {
        self.members.by_id.get(&id).cloned().ok_or(Refusal::UnknownMember { id })
    }
}

impl Member {
    /// Whether a start is a later one of the folder that the cluster knows. A folder restored from a copy has a lower
    /// count than was seen, or the same with another nonce. What this cannot see, a copy that was made since the
    /// last start and is started for the first time, is seen by where its log ends (`raft/floor.rs`).
    ///
    /// # Errors
    /// It is not: [`Refusal::StaleMember`].
    pub fn check_against(&self, known: &Self) -> Result<(), Refusal> {
        let copied = self.boot == known.boot && known.nonce != Uuid::nil() && self.nonce != known.nonce;
        if self.incarnation != known.incarnation || self.boot < known.boot || copied {
            return Err(Refusal::StaleMember { id: self.id, boot: self.boot, known: known.boot });
        }
        Ok(())
    }
}
