//! What a member does while it leads: takes commands from all members, several to an entry and several entries under
//! way, and judges sessions.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    sync::Arc,
    time::Duration,
};

use openraft::error::{ClientWriteError, RaftError};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval},
};

use super::{KeepAlive, KeepAlives, ask::Round, core::Core, frame::Proposed, payload::Payload};
use crate::{
    clock,
    command::{Change, Command, Entry, Refusal, Register, Reply, SessionRef},
    session::{
        Look, Sessions, Sign, TICK,
        damping::{Damping, News},
    },
};

/// Commands that may wait to be taken into an entry; who comes then is told to come again.
pub(super) const PROPOSALS_MAX: usize = 4_096;
/// Places among them that writes of objects leave to everything else: a flood of them keeps no host from registering, and
/// no session from ending.
const PROPOSALS_RESERVED: usize = 1_024;
/// What writes of objects may hold from when they are proposed until they are applied, in KiB: 64 MiB.
pub(super) const PROPOSED_KIB_MAX: usize = 64 * 1_024;
/// Commands in one entry: as many as wait, up to this, so that one sync serves them all.
const BATCH_COMMANDS_MAX: usize = 256;
/// An entry takes no further command beyond this, in bytes: a follower gets it in one frame.
const BATCH_BYTES_MAX: usize = 512 * 1024;
/// The most bytes of one command.
pub(super) const COMMAND_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Entries under way before the first is applied: the disk works while the network does.
const ENTRIES_UNDER_WAY_MAX: usize = 8;

/// The command version since which members know [`Refusal::Restless`].
const RESTLESS_SINCE: u32 = 2;

/// A command that waits to be taken.
pub(super) struct Proposal {
    pub(super) command: Command,
    pub(super) bytes: usize,
    pub(super) answer: oneshot::Sender<Proposed>,
    /// What it takes of [`PROPOSED_KIB_MAX`].
    _room: Option<OwnedSemaphorePermit>,
}

/// Too many writes wait already.
struct NoRoom;

/// What the leader keeps in mind.
#[derive(Default)]
pub(super) struct Duties {
    sessions: Sessions,
    damping: Damping,
    /// The term in which this member has applied all that was acknowledged before it: then it may judge sessions.
    ready: Option<u64>,
    /// From when its time is counted.
    start: Option<Instant>,
}

impl Duties {
    fn now(&mut self) -> Duration {
        let now = clock::now();
        now.duration_since(*self.start.get_or_insert(now))
    }
}

impl Core {
    /// Hands a command of so many bytes to this member as the leader.
    pub(super) async fn lead(&self, command: Command, bytes: usize) -> Proposed {
        // With a full disk it leads only until another one does: who asks again then is served.
        if !self.leading().is_me || !self.understood(&command) || self.disk.full().any() {
            return Proposed::NotLeader;
        }
        if let Command::Register(register) = &command
            && let Err(refusal) = self.ration(register)
        {
            return Proposed::Done(Reply::Refused(refusal));
        }
        let (answer, wait) = oneshot::channel();
        let Ok(_room) = self.room_for(&command, bytes) else { return Proposed::Busy };
        match self.proposals.try_send(Proposal { command, bytes, answer, _room }) {
            Ok(()) => wait.await.unwrap_or(Proposed::Unknown),
            Err(mpsc::error::TrySendError::Full(_)) => Proposed::Busy,
            Err(mpsc::error::TrySendError::Closed(_)) => Proposed::NotLeader,
        }
    }

    /// What a command takes of the room for writes of objects; all others take none, and have places of their own.
    fn room_for(&self, command: &Command, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, NoRoom> {
        if !matches!(command, Command::Write(_)) {
            return Ok(None);
        }
        if self.proposals.capacity() <= PROPOSALS_RESERVED {
            return Err(NoRoom);
        }
        let kib = u32::try_from(bytes.div_ceil(1_024)).map_err(|_| NoRoom)?;
        self.proposed_kib.clone().try_acquire_many_owned(kib).map(Some).map_err(|_| NoRoom)
    }

    /// Whether the node may register now, or has done so too often of late.
    fn ration(&self, register: &Register) -> Result<(), Refusal> {
        let state = self.view.state();
        // An older member could not read the refusal. Who is no node is refused by the state.
        if state.command_version() < RESTLESS_SINCE || !state.has_node(&register.node) {
            return Ok(());
        }
        let news = News::of(register, &state);
        let mut duties = self.duties.lock();
        let now = duties.now();
        let held = duties.damping.admit(now, &register.node, news).err();
        held.map_or(Ok(()), |after| {
            // Rounded up: who comes then is let in.
            let retry_after_seconds = after.as_secs() + 1;
            Err(Refusal::Restless { node: register.node.clone(), retry_after_seconds })
        })
    }

    /// Takes signs of life as the leader; `None` if this member cannot judge them.
    pub(super) async fn hear(&self, signs: &[KeepAlive]) -> Option<KeepAlives> {
        // One that was cut off or stood still may believe that it leads: only its lease says that nobody else does.
        self.read_index(Round::Lease).await?;
        let leading = self.leading();
        let mut duties = self.duties.lock();
        if !leading.is_me || duties.ready != Some(leading.term) {
            return None;
        }
        let sign = |alive: &KeepAlive| Sign {
            session: SessionRef { node: alive.node.clone(), generation: alive.generation },
            acked: alive.acked,
        };
        let signs: Vec<_> = signs.iter().map(sign).collect();
        let now = duties.now();
        let gone = duties.sessions.hear(now, &signs, &self.view.state());
        Some(KeepAlives { term: leading.term, gone })
    }

    /// The revision that each node's proxy runs, as heard by this member while it leads.
    pub(super) fn acked(&self) -> Vec<(model::name::Name, u64)> {
        self.duties.lock().sessions.acked().map(|(name, acked)| (name.clone(), acked)).collect()
    }
}

/// Takes all that waits into one entry, and the next while that is on its way.
pub(super) async fn batch(core: Arc<Core>, mut waiting: mpsc::Receiver<Proposal>) {
    let under_way = Arc::new(Semaphore::new(ENTRIES_UNDER_WAY_MAX));
    let mut held = None;
    loop {
        let Some(first) = (match held.take() {
            Some(held) => Some(held),
            None => waiting.recv().await,
        }) else {
            return;
        };
        let Ok(slot) = under_way.clone().acquire_owned().await else { return };
        let (batch, left) = gather(first, &mut waiting);
        held = left;
        core.tasks.spawn(enter(core.clone(), batch, slot));
    }
}

/// What goes into one entry with `first`, and the one that must wait for the next. Writes of one object never share an
/// entry: they would share its revision, and `If-Match` could not tell one from the other.
fn gather(first: Proposal, waiting: &mut mpsc::Receiver<Proposal>) -> (Vec<Proposal>, Option<Proposal>) {
    let mut bytes = first.bytes;
    let mut written: HashSet<u64> = objects(&first.command).collect();
    let mut batch = vec![first];
    while batch.len() < BATCH_COMMANDS_MAX && bytes < BATCH_BYTES_MAX {
        let Ok(next) = waiting.try_recv() else { break };
        if objects(&next.command).any(|object| written.contains(&object)) {
            return (batch, Some(next));
        }
        written.extend(objects(&next.command));
        bytes += next.bytes;
        batch.push(next);
    }
    (batch, None)
}

/// Which objects a command writes, as hashes of their keys: two that happen to be equal only cost an entry.
fn objects(command: &Command) -> impl Iterator<Item = u64> {
    let changes = match command {
        Command::Write(write) => &write.changes[..],
        _ => &[],
    };
    changes.iter().map(|change| {
        let mut hasher = DefaultHasher::new();
        match change {
            Change::Put { object, .. } => object.key().hash(&mut hasher),
            Change::Delete { key, .. } => key.hash(&mut hasher),
        }
        hasher.finish()
    })
}

async fn enter(core: Arc<Core>, mut batch: Vec<Proposal>, _slot: OwnedSemaphorePermit) {
    let single = batch.len() == 1;
    let take = |proposal: &mut Proposal| std::mem::replace(&mut proposal.command, Command::Batch(Vec::new()));
    let command =
        if single { take(&mut batch[0]) } else { Command::Batch(batch.iter_mut().map(take).collect()) };
    let bytes = batch.iter().map(|proposal| proposal.bytes).sum();
    let entry = Entry { at: clock::wall(), command };
    let payload = Payload::new(entry, bytes, core.view.state().version_used());
    let written = core.raft.client_write(payload).await;
    let outcomes = match written {
        Ok(written) => match (written.data, single) {
            (Reply::Batch(replies), false) => replies.into_iter().map(Proposed::Done).collect(),
            (reply, _) => vec![Proposed::Done(reply); batch.len()],
        },
        // Refused before it stood in any log.
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
            vec![Proposed::NotLeader; batch.len()]
        }
        Err(error) => {
            tracing::warn!(%error, "what became of an entry is not known");
            vec![Proposed::Unknown; batch.len()]
        }
    };
    for (proposal, outcome) in batch.into_iter().zip(outcomes) {
        let _ = proposal.answer.send(outcome);
    }
}

/// Judges sessions while this member leads.
pub(super) async fn watch_sessions(core: Arc<Core>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(command) = tick(&core).await {
            // Asked again at a later tick, if it is lost.
            let bytes = size(&command);
            let outcome = core.lead(command, bytes).await;
            tracing::info!(done = matches!(outcome, Proposed::Done(_)), "sessions were lost");
        }
    }
}

async fn tick(core: &Core) -> Option<Command> {
    let leading = core.leading();
    if !leading.is_me {
        core.duties.lock().ready = None;
        return None;
    }
    if core.duties.lock().ready != Some(leading.term) {
        // Sessions that an earlier leader acknowledged must be seen before any is said to be gone.
        let index = core.read_index(Round::Majority).await?;
        core.applied_at_least(index).await.ok()?;
        let mut duties = core.duties.lock();
        (duties.ready, duties.damping) = (Some(leading.term), Damping::default());
    }
    let mut duties = core.duties.lock();
    let now = duties.now();
    duties.damping.forget_calm(now);
    let look = Look { now, wall: clock::wall(), term: leading.term };
    duties.sessions.tick(look, &core.view.state())
}

/// How many bytes a command has in the log, about.
pub(super) fn size(command: &Command) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    match rmp_serde::encode::write_named(&mut count, command) {
        Ok(()) => count.0,
        Err(_) => usize::MAX,
    }
}
