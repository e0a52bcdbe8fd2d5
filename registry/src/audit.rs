//! Who changed what, when: appended to files of JSON lines, each with its CRC, soon after entries of the log are applied. Every
//! member keeps its own, made from the same log. It is synced before anything stands in for the log from which its lines
//! could be made again: the index, and a snapshot with the purge that follows it.
//!
//! Writes, joins, trust and members are audited; what hosts register and lose by themselves is not.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use model::{duration::Millis, name::Name};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::{
    command::{Change, Command, Outcome, RejoinStep, Reply, RestoreStep},
    disk::{Disk, Part, ROOM_RETRY},
    file,
    state::State,
};

mod segment;

use segment::{AppendError, Segments};

/// Batches of records that may wait for the disk; then applying waits too.
const QUEUE_BATCHES_MAX: usize = 1_024;
/// Lines wait so long for others, unless half of the queue is full: not every entry wakes the thread. Who wants to read
/// them says so.
const GATHER: Duration = Duration::from_millis(100);

/// One line of the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The entry of the log.
    pub index: u64,
    /// The state's revision with it.
    pub revision: u64,
    /// Log time.
    pub at: Millis,
    /// Who asked.
    pub actor: String,
    /// What was asked: `put`, `delete`, `join`, `rejoin`, `approve`, `deny`, `trust`, `member`, `restore`; `gap` where a snapshot took the place of entries.
    pub action: String,
    /// Of what: an object's path, or the name of what changed.
    pub target: String,
    /// What came of it: `created`, `replaced`, `unchanged`, `deleted`, `done`, or why it was refused.
    pub outcome: String,
}

/// What a command is about to do, before applying it takes it apart.
#[derive(Debug, Clone)]
pub struct Action {
    actor: String,
    /// Action and target of each change.
    changes: Vec<(&'static str, String)>,
}

/// The way to the file.
#[derive(Debug, Clone)]
pub struct Sink {
    lines: mpsc::Sender<Message>,
    /// The member ends: what there is no room for is not waited for.
    ending: Arc<AtomicBool>,
    /// The thread that writes: rung where it must not wait for more lines.
    thread: thread::Thread,
}

enum Message {
    Records(Vec<Record>),
    /// Answered when everything before it can be read.
    Written(oneshot::Sender<()>),
    /// Answered when everything before it is on disk.
    Sync(oneshot::Sender<()>),
    /// The last one: everything before it is on disk when the thread ends.
    End,
}

/// Opens the audit of a data folder and starts the thread that writes it. Blocks. The thread ends, with everything
/// synced, when the last sink is dropped.
///
/// # Errors
/// The disk refuses.
pub(crate) fn open(folder: &Path, disk: Disk) -> io::Result<(Sink, thread::JoinHandle<()>)> {
    file::folder(folder)?;
    let segments = Segments::open(folder.to_path_buf())?;
    let (lines, receiver) = mpsc::channel(QUEUE_BATCHES_MAX);
    let ending = Arc::new(AtomicBool::new(false));
    let writer = Writer { segments, disk, ending: ending.clone() };
    let thread = thread::Builder::new().name("audit".to_owned()).spawn(move || run(writer, receiver))?;
    Ok((Sink { lines, ending, thread: thread.thread().clone() }, thread))
}

/// The lines after the entry `since`, in order. Where some are damaged, a line says so in their place. Blocks.
///
/// # Errors
/// The disk refuses.
pub fn read(folder: &Path, since: u64) -> io::Result<Vec<Record>> {
    let mut records = Vec::new();
    for path in segment::files(folder)? {
        let lines = segment::read(&path)?;
        records.extend(lines.damaged.and_then(|at| Record::damaged(&path, at, &lines.records)));
        records.extend(lines.records);
    }
    records.retain(|record| record.index > since);
    Ok(records)
}

/// Where the audit stands in a data folder.
pub fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("audit")
}

/// What is worth a line, in the order of the replies' leaves; `None` for what is not.
pub fn actions(command: &Command) -> Vec<Option<Action>> {
    let action = |actor: &str, what: &'static str, target: String| {
        vec![Some(Action { actor: actor.to_owned(), changes: vec![(what, target)] })]
    };
    match command {
        Command::Batch(commands) => commands.iter().flat_map(actions).collect(),
        Command::Write(write) => {
            let changes = write.changes.iter().map(|change| match change {
                Change::Put { object, .. } => ("put", object.key().path()),
                Change::Delete { key, .. } => ("delete", key.path()),
            });
            vec![Some(Action { actor: write.actor.clone(), changes: changes.collect() })]
        }
        Command::RedeemJoin(join) => {
            action(&format!("token {}", join.token), "join", join.attempt.node.to_string())
        }
        Command::Rejoin(RejoinStep::File(filing)) => {
            action(&filing.from, "rejoin", key_of(&filing.node, &filing.fingerprint))
        }
        Command::Rejoin(RejoinStep::Judge(judgement)) => {
            let target = key_of(&judgement.node, &judgement.fingerprint);
            action(&judgement.actor, judgement.word(), target)
        }
        Command::Trust(change) => action(
            "mesh",
            "trust",
            format!("{change:?}").chars().take_while(|c| c.is_alphanumeric()).collect(),
        ),
        Command::Member(change) => action(
            "mesh",
            "member",
            format!("{change:?}").chars().take_while(|c| c.is_alphanumeric()).collect(),
        ),
        Command::Restore(RestoreStep::Commit(commit)) => action(&commit.actor, "restore", commit.target()),
        Command::Restore(_) | Command::Number(_) | Command::Discover(_) => vec![None],
        Command::Register(_) | Command::Unregister(_) | Command::Expire(_) | Command::MarkStale(_) => {
            vec![None]
        }
    }
}

/// A host's new key, as the audit names it.
fn key_of(node: &Name, fingerprint: &str) -> String {
    format!("{node} key {fingerprint}")
}

/// The lines of an entry that was applied.
pub fn records(index: u64, state: &State, actions: Vec<Option<Action>>, reply: &Reply) -> Vec<Record> {
    let mut leaves = Vec::new();
    flatten(reply, &mut leaves);
    let line = |actor: &str, action: &str, target: &str, outcome: String| Record {
        index,
        revision: state.revision(),
        at: state.time(),
        actor: actor.to_owned(),
        action: action.to_owned(),
        target: target.to_owned(),
        outcome,
    };
    let mut records = Vec::new();
    for (action, reply) in actions.into_iter().zip(leaves) {
        let Some(Action { actor, changes }) = action else { continue };
        for (at, (what, target)) in changes.iter().enumerate() {
            records.push(line(&actor, what, target, outcome(reply, at)));
        }
    }
    records
}

impl Record {
    /// Stands before the lines of a file of which some are damaged.
    fn damaged(path: &Path, at: u64, sound: &[Self]) -> Option<Self> {
        let outcome = format!(
            "lines from byte {at} of {} on are damaged and left out; another member has them",
            path.display()
        );
        let first = sound.first()?.clone();
        Some(Self {
            actor: "mesh".to_owned(),
            action: "gap".to_owned(),
            target: String::new(),
            outcome,
            ..first
        })
    }

    /// Entries that this member never applied: it got their result as a snapshot.
    pub(crate) fn gap(index: u64, state: &State) -> Self {
        Self {
            index,
            revision: state.revision(),
            at: state.time(),
            actor: "mesh".to_owned(),
            action: "gap".to_owned(),
            target: String::new(),
            outcome: "the entries before came as a snapshot; another member has their lines".to_owned(),
        }
    }
}

impl Sink {
    /// Hands lines over; waits where the disk is behind.
    pub(crate) async fn record(&self, records: Vec<Record>) {
        if records.is_empty() {
            return;
        }
        if self.lines.capacity() < QUEUE_BATCHES_MAX / 2 {
            self.thread.unpark();
        }
        if self.lines.send(Message::Records(records)).await.is_err() {
            tracing::error!("the audit has ended");
        }
    }

    /// Waits until all that was handed over can be read.
    pub(crate) async fn written(&self) -> io::Result<()> {
        self.ask(Message::Written).await
    }

    /// Waits until all that was handed over is on disk.
    pub(crate) async fn synced(&self) -> io::Result<()> {
        self.ask(Message::Sync).await
    }

    async fn ask(&self, question: impl FnOnce(oneshot::Sender<()>) -> Message) -> io::Result<()> {
        let ended = || io::Error::other("the audit has ended");
        let (done, wait) = oneshot::channel();
        self.lines.send(question(done)).await.map_err(|_| ended())?;
        self.thread.unpark();
        wait.await.map_err(|_| ended())
    }

    /// The member ends: what there is no room for is not waited for any more.
    pub(crate) fn ending(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Ends the thread once all that was handed over is on disk.
    pub(crate) async fn end(&self) {
        self.ending();
        let _ = self.lines.send(Message::End).await;
        self.thread.unpark();
    }
}

/// The thread's side.
struct Writer {
    segments: Segments,
    disk: Disk,
    ending: Arc<AtomicBool>,
}

/// The thread's side in a test's hands.
#[cfg(test)]
pub(crate) struct ByHand(mpsc::Receiver<Message>);

#[cfg(test)]
impl ByHand {
    pub(crate) fn new() -> (Sink, Self) {
        let (lines, receiver) = mpsc::channel(QUEUE_BATCHES_MAX);
        (Sink { lines, ending: Arc::default(), thread: thread::current() }, Self(receiver))
    }

    /// Waits until somebody wants a sync, which is done when the answer is sent.
    pub(crate) fn asked(&mut self) -> oneshot::Sender<()> {
        loop {
            match self.0.blocking_recv().expect("a sink is left") {
                Message::Sync(done) => return done,
                Message::Records(_) | Message::Written(_) | Message::End => {}
            }
        }
    }
}

/// One write for all that came within a while, and a sync where somebody needs it.
fn run(mut writer: Writer, mut messages: mpsc::Receiver<Message>) {
    loop {
        // Without an end the last sink was dropped.
        let first = messages.blocking_recv().unwrap_or(Message::End);
        if matches!(first, Message::Records(_)) {
            thread::park_timeout(GATHER);
        }
        let (mut records, mut waiting, mut next) = (Vec::new(), Vec::new(), Some(first));
        let (mut sync, mut end) = (false, false);
        while let Some(message) = next {
            match message {
                Message::Records(more) => records.extend(more),
                Message::Written(done) => waiting.push(done),
                Message::Sync(done) => {
                    sync = true;
                    waiting.push(done);
                }
                Message::End => (sync, end) = (true, true),
            }
            next = messages.try_recv().ok();
        }
        if !writer.append(&records, sync) {
            return;
        }
        for done in waiting {
            let _ = done.send(());
        }
        if end {
            return;
        }
    }
}

impl Writer {
    /// Waits for room; `false` if the member ends before there is some: a replay of the log brings the lines again.
    fn append(&mut self, records: &[Record], sync: bool) -> bool {
        loop {
            let written = self.segments.append(records);
            let written = written.and_then(|()| if sync { self.segments.sync() } else { Ok(()) });
            match written {
                Ok(()) => {
                    self.disk.set(Part::Audit, false);
                    return true;
                }
                Err(AppendError::Full(error)) => {
                    if !self.disk.set(Part::Audit, true) {
                        tracing::error!(%error, "the audit waits for room");
                    }
                    if self.ending.load(Ordering::Relaxed) {
                        return false;
                    }
                    thread::sleep(ROOM_RETRY);
                }
                Err(AppendError::Failed(error)) => {
                    // What a failed sync left behind cannot be known; going on would purge the log that the lines come from.
                    tracing::error!(%error, "the audit cannot go on, the process ends");
                    std::process::abort();
                }
            }
        }
    }
}

fn flatten<'a>(reply: &'a Reply, leaves: &mut Vec<&'a Reply>) {
    match reply {
        Reply::Batch(replies) => replies.iter().for_each(|reply| flatten(reply, leaves)),
        leaf => leaves.push(leaf),
    }
}

fn outcome(reply: &Reply, at: usize) -> String {
    match reply {
        Reply::Refused(refusal) => format!("refused: {refusal}"),
        Reply::Written(written) => match written.get(at).map(|written| written.outcome) {
            Some(Outcome::Created) => "created",
            Some(Outcome::Replaced) => "replaced",
            Some(Outcome::Unchanged) => "unchanged",
            Some(Outcome::Deleted) => "deleted",
            None => "done",
        }
        .to_owned(),
        _ => "done".to_owned(),
    }
}

#[cfg(test)]
mod tests;
