//! Pure. The replicated truth: the only place where it changes is [`State::apply`], which is total: what cannot be done
//! is answered with a [`Refusal`] and changes nothing. It reads no clock and throws no dice; time comes with the entry.
//!
//! A revision belongs to an entry: an entry that changes anything raises it by one, whatever it holds.

use imbl::OrdMap;
use model::{duration::Millis, join::JoinRecord, name::ServiceName, object::Key, rejoin::RejoinRecord};
use uuid::Uuid;

use crate::command::{BATCH_DEPTH_MAX, Command, Entry, Refusal, Reply};

mod catalog;
mod check;
mod discover;
mod history;
mod image;
mod join;
mod member;
mod numbers;
mod objects;
mod query;
mod rejoin;
mod restore;
mod session;
mod sessions;
pub(crate) mod table;
mod tokens;
mod trust;

pub use check::Broken;
pub use discover::{DISCOVERED_MAX, DISCOVERY_SINCE};
pub use history::{Changed, Compacted, HISTORY_BYTES_MAX, HISTORY_REVISIONS_MAX, History, Revision};
pub use image::{Blob, Image, ImageError, ImageOf, Sum};
pub use member::{MEMBERS_MAX, Member, Members};
use numbers::Numbers;
pub use numbers::{Holder, KEPT_BACK, KEPT_BACK_MAX, NUMBERED_MAX, VIRTUAL_IPS_SINCE};
pub use objects::Objects;
pub use rejoin::{
    REJOIN_REQUESTS_MAX, REJOIN_REQUESTS_PER_NETWORK_MAX, REJOIN_REQUESTS_SINCE, rejoin_request_id,
};
pub use restore::{STAGED_BYTES_MAX, STAGED_PARTS_MAX};
pub use session::{
    CONDITIONS_MAX, ENDPOINTS_PER_NODE_MAX, MANAGED_BY, REGISTRATION, SERVICES_PER_NODE_MAX, Session,
};
use sessions::Sessions;
use table::Table;
pub(crate) use table::encode;
pub use table::{RecordKey, Unreadable};
pub use tokens::Held;
pub use trust::{ROOTS_MAX, Trust};

/// The replicated truth at one revision. A clone is cheap: the maps are persistent.
#[derive(Clone, Debug)]
pub struct State {
    revision: u64,
    /// The greatest time that any entry carried.
    time: Millis,
    objects: Objects,
    sessions: Sessions,
    credentials: Table<String, Held>,
    joins: Table<String, JoinRecord>,
    trust: Table<(), Trust>,
    members: Members,
    /// Pieces of a snapshot that is being restored.
    staged: Table<(Uuid, u32), Blob>,
    /// What the virtual IPs of Services are made of.
    numbers: Numbers,
    /// Hosts that ask to come back without a token.
    requests: Table<String, RejoinRecord>,
    history: History,
    /// Whether the entry that is being applied changed anything so far.
    touched: bool,
    /// Whether it put a snapshot in force: then the history begins anew.
    restored: bool,
    /// Who wrote what in it.
    actors: history::Actors,
}

impl State {
    /// Before the first entry: the built-in namespaces, nothing else.
    pub fn new() -> Self {
        Self::with_history(HISTORY_REVISIONS_MAX)
    }

    /// As [`State::new`], keeping at most so many revisions for watchers.
    pub fn with_history(revisions_max: usize) -> Self {
        Self {
            revision: 0,
            time: Millis(0),
            objects: Objects::built_in(),
            sessions: Sessions::new(),
            credentials: Table::new(3),
            joins: Table::new(4),
            trust: Table::new(5),
            members: Members::new(),
            staged: Table::new(9),
            numbers: Numbers::new(),
            requests: Table::new(12),
            history: History::new(revisions_max),
            touched: false,
            restored: false,
            actors: history::Actors::new(),
        }
    }

    /// Applies one entry of the log.
    pub fn apply(&mut self, entry: Entry) -> Reply {
        let before = self.objects.clone();
        self.time = self.time.max(entry.at);
        (self.touched, self.restored) = (false, false);
        self.actors.clear();
        let version = entry.command.version();
        let reply = self.command(entry.command, 0);
        self.note_version(version);
        if self.touched {
            self.revision += 1;
            if self.restored {
                self.history.restart(self.revision);
            } else {
                self.history.push(self.revision, self.time, &before, &self.objects, &self.actors);
            }
        }
        reply
    }

    /// One command, all or nothing.
    fn command(&mut self, command: Command, depth: usize) -> Reply {
        if let Command::Batch(commands) = command {
            return self.batch(commands, depth + 1);
        }
        let before = self.clone();
        self.decide(command).unwrap_or_else(|refusal| {
            *self = before;
            Reply::Refused(refusal)
        })
    }

    /// Each command of a batch sees what those before it did.
    fn batch(&mut self, commands: Vec<Command>, depth: usize) -> Reply {
        if depth > BATCH_DEPTH_MAX {
            let (actual, limit) = (depth as u64, BATCH_DEPTH_MAX as u64);
            return Reply::Refused(Refusal::TooLarge { what: "nested batches".to_owned(), actual, limit });
        }
        Reply::Batch(commands.into_iter().map(|command| self.command(command, depth)).collect())
    }

    /// The table of contents. What is refused here is undone by the caller.
    fn decide(&mut self, command: Command) -> Result<Reply, Refusal> {
        match command {
            Command::Batch(commands) => Ok(self.batch(commands, BATCH_DEPTH_MAX)),
            Command::Write(write) => self.write(write),
            Command::Register(register) => self.register(register),
            Command::Unregister(session) => self.unregister(&session),
            Command::Expire(sessions) => Ok(self.expire(&sessions)),
            Command::MarkStale(sessions) => Ok(self.mark_stale(&sessions)),
            Command::RedeemJoin(join) => self.redeem(join),
            Command::Trust(change) => self.change_trust(change),
            Command::Member(change) => self.change_members(change),
            Command::Restore(step) => self.restore(step),
            Command::Number(services) => Ok(self.number(&services)),
            Command::Rejoin(step) => self.rejoin(step),
            Command::Discover(discovery) => self.discover(*discovery),
        }
    }

    /// The revision that the entry being applied makes, should it change anything.
    fn pending_revision(&self) -> u64 {
        self.revision + 1
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

/// An index from a service to the keys of what belongs to it.
type ByService = OrdMap<ServiceName, imbl::OrdSet<Key>>;

#[cfg(test)]
pub(crate) mod tests;
