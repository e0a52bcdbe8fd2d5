//! How a member comes up: folder, log, state from the index or the newest snapshot, then Raft, which replays the rest of
//! the log.

use std::{path::Path, sync::Arc, time::Duration};

use openraft::{
    Raft,
    alias::{LogIdOf, StoredMembershipOf, VoteOf},
    storage::{RaftLogReader, RaftLogStorage},
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Dial, Leadership, OpenError, ProposeError, Recovery, Settings, Source, Types, ask,
    ask::Round,
    core::{Core, Threads, allow_elections, follow_leadership},
    floor,
    frame::Identity,
    index,
    lead::{self, Duties, PROPOSALS_MAX, PROPOSED_KIB_MAX},
    link::Peers,
    log::Log,
    machine::{Applied, Keeping, Machine, View},
    network::{self, Factory},
    room,
    snapshot::{Damaged, Snapshots},
};
use crate::{
    audit, clock,
    command::{COMMAND_VERSION, Command, MemberChange, MemberId, Program, Refusal, Reply},
    disk::Disk,
    folder::Folder,
    state::State,
    wal::{self, Wal},
};

/// Between two tries to tell the cluster of a start.
const ANNOUNCE_PAUSE: Duration = Duration::from_millis(200);
/// The version of commands in which a start tells what runs.
const PROGRAM_SINCE: u32 = 2;

/// All that was read from a data folder.
struct Found {
    folder: Folder,
    wal: Wal,
    snapshots: Snapshots,
    indexed: Option<index::Indexed>,
    store: Option<Arc<dyn crate::store::Store>>,
    audit: audit::Sink,
    audit_thread: std::thread::JoinHandle<()>,
    disk: Disk,
}

pub(super) async fn open(
    settings: Settings,
    dial: Arc<dyn Dial>,
) -> Result<(Arc<Core>, Recovery), OpenError> {
    let config = settings.engine().map_err(|error| OpenError::Engine(error.to_string()))?;
    let asked = settings.clone();
    let found = tokio::task::spawn_blocking(move || read_folder(&asked)).await;
    let found = found.map_err(|error| OpenError::Engine(error.to_string()))??;
    let engine = |error: &dyn std::fmt::Display| OpenError::Engine(error.to_string());
    let (held, log_metrics) = (found.wal.held(), found.wal.metrics());
    let wal = Arc::new(found.wal);
    let mut log = Log::<Types>::new(wal).await.map_err(|error| engine(&error))?;
    resign(settings.member, &mut log).await.map_err(|error| engine(&error))?;
    let (applied, source) =
        choose(settings.history_revisions_max, found.indexed, &found.snapshots, &mut log).await?;
    let last = log.get_log_state().await.map_err(|error| engine(&error))?.last_log_id;
    let recovery = recovery(source, &applied, last.map(|last| last.index), found.folder.boot);
    let view = Arc::new(View::new(applied));
    let shown = view.applied();
    let stop = CancellationToken::new();
    let (audit, disk) = (found.audit.clone(), found.disk.clone());
    let keeping = Keeping { snapshots: found.snapshots, audit, disk, stop: stop.clone() };
    let machine = Machine::new(&shown, view.clone(), keeping);
    let vote = log.read_vote().await.map_err(|error| engine(&error))?;
    let start = floor::Start {
        last: last.map(network::place).unwrap_or_default(),
        vote: vote.map_or(0, |vote| vote.leader_id.term),
    };
    let identity = identity(found.folder, start);
    let peers = Arc::new(Peers::new(settings.cluster, identity, view.clone(), dial));
    let raft = Raft::new(settings.member, config, Factory(peers.clone()), log, machine)
        .await
        .map_err(|error| engine(&error))?;
    let (proposals, proposed) = mpsc::channel(PROPOSALS_MAX);
    let (readers, reading) = mpsc::channel(ask::READERS_MAX);
    let (leased_readers, leasing) = mpsc::channel(ask::READERS_MAX);
    let votes_from = votes_from(&raft, &settings).await?;
    let settled = CancellationToken::new();
    let base = (source == Source::Index).then(|| shown.clone());
    let index = found.store.map(|store| {
        let thread = index::start(store, view.clone(), base, found.audit.clone(), settled.clone());
        thread.map_err(|source| OpenError::Folder { path: settings.data_dir.join("index"), source })
    });
    let threads = Threads { index: index.transpose()?, audit: Some(found.audit_thread) };
    let core = Arc::new(Core {
        settings,
        folder: found.folder,
        raft,
        view,
        peers,
        proposals,
        proposed_kib: Arc::new(Semaphore::new(PROPOSED_KIB_MAX)),
        readers,
        leased_readers,
        votes_from,
        duties: parking_lot::Mutex::new(Duties::default()),
        leadership: watch::Sender::new(Leadership::default()),
        tasks: TaskTracker::new(),
        stop,
        settled,
        threads: parking_lot::Mutex::new(threads),
        audit: found.audit,
        wal: held,
        log_metrics,
        disk: found.disk,
        diverged: parking_lot::Mutex::default(),
    });
    start_tasks(&core, proposed, [(reading, Round::Majority), (leasing, Round::Lease)]);
    Ok((core, recovery))
}

/// Who this member is at this start.
fn identity(folder: Folder, start: floor::Start) -> Identity {
    let Folder { id, incarnation, boot, .. } = folder;
    let (nonce, commands) = (clock::unique(), COMMAND_VERSION);
    Identity { id, incarnation, boot, nonce, commands, start: Some(start) }
}

fn recovery(source: Source, applied: &Applied, last: Option<u64>, boot: u64) -> Recovery {
    let from = applied.log_id.map_or(0, |id| id.index + 1);
    let replayed_entries = last.map_or(0, |last| (last + 1).saturating_sub(from));
    Recovery { source, replayed_entries, boot }
}

/// A member that led when it ended stands for election again. The engine would let it go on in its old term, but a leader
/// sends entries before they are on its own disk: what a majority of others acknowledged may be missing here, and another
/// entry would get the same place and term.
async fn resign(member: MemberId, log: &mut Log<Types>) -> std::io::Result<()> {
    match log.read_vote().await? {
        Some(vote) if vote.committed && vote.leader_id.node_id == member => {
            log.save_vote(&VoteOf::<Types>::new(vote.leader_id.term + 1, member)).await
        }
        _ => Ok(()),
    }
}

fn read_folder(settings: &Settings) -> Result<Found, OpenError> {
    let data_dir = &settings.data_dir;
    let at = |path: &Path| {
        let path = path.to_path_buf();
        move |source| OpenError::Folder { path, source }
    };
    crate::file::folder(data_dir).map_err(at(data_dir))?;
    // The log's lock comes first: two starts of one folder must not both count.
    let identity = wal::Identity { cluster: settings.cluster, node: settings.member };
    let (wal, recovered) = Wal::open(&data_dir.join("wal"), identity, wal::Options::default())?;
    tracing::debug!(?recovered, "the log is open");
    let folder = Folder::start(data_dir, settings.member, settings.cluster)?;
    let snapshots_at = data_dir.join("snapshots");
    let snapshots =
        Snapshots::open(snapshots_at.clone(), settings.history_revisions_max).map_err(at(&snapshots_at))?;
    let (store, indexed) = index::open_proven(&data_dir.join("index"), settings.history_revisions_max);
    let audit_at = audit::folder(data_dir);
    let disk = Disk::new();
    let (audit, audit_thread) = audit::open(&audit_at, disk.clone()).map_err(at(&audit_at))?;
    Ok(Found { folder, wal, snapshots, indexed, store, audit, audit_thread, disk })
}

/// The newest state that fits the log: the index if it can be trusted, else the snapshot, else the log alone.
pub(super) async fn choose(
    history_revisions_max: usize,
    indexed: Option<index::Indexed>,
    snapshots: &Snapshots,
    log: &mut Log<Types>,
) -> Result<(Applied, Source), OpenError> {
    let log_state = log.get_log_state().await.map_err(|error| OpenError::Engine(error.to_string()))?;
    let purged = log_state.last_purged_log_id;
    if let Some(indexed) = indexed {
        if purged <= indexed.log_id && agrees(log, indexed.log_id, log_state.last_log_id).await {
            return Ok((indexed.into_applied(), Source::Index));
        }
        tracing::warn!("the index does not fit the log, it is made anew");
    }
    let at = |source| OpenError::Folder { path: snapshots.path().to_path_buf(), source };
    let (sound, damaged) = snapshots.newest().map_err(at)?;
    let (applied, source) = match sound {
        Some(taken) => {
            let (log_id, membership) = (taken.meta.last_log_id, taken.meta.last_membership);
            (Applied { state: Arc::new(taken.state), log_id, membership }, Source::Snapshot)
        }
        None => {
            let state = Arc::new(State::with_history(history_revisions_max));
            (
                Applied { state, log_id: None, membership: StoredMembershipOf::<Types>::default() },
                Source::Empty,
            )
        }
    };
    let held = applied.log_id.map(|id| id.index);
    make_good(snapshots, damaged, held, purged.map(|id| id.index), log_state.last_log_id.map(|id| id.index))?;
    match purged {
        Some(purged) if applied.log_id < Some(purged) => {
            Err(OpenError::Hole { purged: purged.index, applied: held })
        }
        _ => Ok((applied, source)),
    }
}

/// Puts damaged snapshots aside if what is `held` without them, and the log after it, make the same state.
fn make_good(
    snapshots: &Snapshots,
    damaged: Vec<Damaged>,
    held: Option<u64>,
    purged: Option<u64>,
    last: Option<u64>,
) -> Result<(), OpenError> {
    for damaged in damaged {
        // One beyond the log replaced what was acknowledged with it; one whose name says nothing may have.
        let in_log = damaged.index.is_some_and(|index| Some(index) <= last);
        if held < purged || !in_log {
            return Err(OpenError::Snapshot { path: damaged.path, reason: damaged.reason });
        }
        let path = damaged.path.clone();
        snapshots.set_aside(&damaged).map_err(|source| OpenError::Folder { path, source })?;
        tracing::warn!(path = %damaged.path.display(), reason = damaged.reason, ?held, "a damaged snapshot is set aside; the state is made from the log");
    }
    Ok(())
}

/// Whether the index ends at an entry that the log has: its writes are not waited for, and a folder may be put together
/// from parts of different ages.
async fn agrees(log: &mut Log<Types>, indexed: Option<LogIdOf<Types>>, last: Option<LogIdOf<Types>>) -> bool {
    let (Some(indexed), Some(last)) = (indexed, last) else { return false };
    if indexed.index > last.index {
        return false;
    }
    match log.try_get_log_entries(indexed.index..=indexed.index).await {
        Ok(entries) => entries.first().is_none_or(|entry| entry.log_id == indexed),
        Err(_) => false,
    }
}

/// From when on a member may vote. One that knows of no others to vote with promised nothing.
async fn votes_from(raft: &Raft<Types, Machine>, settings: &Settings) -> Result<Instant, OpenError> {
    let own = settings.member;
    let alone = raft
        .with_raft_state(move |state| state.membership_state.effective().voter_ids().all(|id| id == own))
        .await
        .map_err(|error| OpenError::Engine(error.to_string()))?;
    let bound = if alone { Duration::ZERO } else { settings.tuning.election_max };
    Ok(clock::now() + bound)
}

fn start_tasks(
    core: &Arc<Core>,
    proposed: mpsc::Receiver<lead::Proposal>,
    reading: [(mpsc::Receiver<ask::Reader>, Round); 2],
) {
    let stop = &core.stop;
    let spawn = |task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
        let stop = stop.clone();
        core.tasks.spawn(async move {
            stop.run_until_cancelled(task).await;
        });
    };
    spawn(Box::pin(follow_leadership(core.clone())));
    spawn(Box::pin(lead::batch(core.clone(), proposed)));
    spawn(Box::pin(lead::watch_sessions(core.clone())));
    for (reading, round) in reading {
        spawn(Box::pin(ask::serve_readers(core.clone(), reading, round)));
    }
    spawn(Box::pin(allow_elections(core.clone())));
    spawn(Box::pin(announce(core.clone())));
    spawn(Box::pin(overtaken(core.clone())));
    spawn(Box::pin(step_aside(core.clone())));
    spawn(Box::pin(room::watch(core.clone())));
}

/// Tells the cluster that this member started. Not before it is a member: the founder and those who join are told so by
/// the log. What runs here is told as soon as every member can note it.
async fn announce(core: Arc<Core>) {
    let mut revisions = core.view.revision.subscribe();
    let mut told = None;
    loop {
        let state = core.view.state();
        let known = state.member(core.id()).is_some() || state.id_was_given(core.id());
        let program = core.settings.program.clone().filter(|_| state.command_version() >= PROGRAM_SINCE);
        if !known || told.as_ref() == Some(&program) {
            if told.as_ref().is_some_and(|told| *told == core.settings.program)
                || revisions.changed().await.is_err()
            {
                return;
            }
            continue;
        }
        match core.propose(boot_of(&core, program.clone())).await {
            Ok(Reply::Refused(refusal @ (Refusal::StaleMember { .. } | Refusal::UnknownMember { .. }))) => {
                return core.peers.ban(&refusal.to_string());
            }
            Err(ProposeError::Stopped(_)) => return,
            Ok(_) => told = Some(program),
            Err(error) => {
                tracing::debug!(%error, "the cluster does not know of this start yet");
                tokio::time::sleep(ANNOUNCE_PAUSE).await;
            }
        }
    }
}

fn boot_of(core: &Core, program: Option<Program>) -> Command {
    Command::Member(MemberChange::Boot {
        id: core.id(),
        incarnation: core.folder.incarnation,
        boot: core.folder.boot,
        nonce: core.peers.identity.nonce,
        command_version: COMMAND_VERSION,
        addresses: Some(core.settings.addresses.clone()),
        program,
    })
}

/// A copy of this member's folder was started later and is the member now: this one must not go on beside it.
async fn overtaken(core: Arc<Core>) {
    let mut revisions = core.view.revision.subscribe();
    while revisions.changed().await.is_ok() {
        if let Some(refusal) = core.peers.overtaken() {
            return core.peers.ban(&refusal.to_string());
        }
    }
}

/// A member that the others refuse must not vote or acknowledge: its Raft ends.
async fn step_aside(core: Arc<Core>) {
    let mut banned = core.peers.banned.subscribe();
    if banned.wait_for(Option::is_some).await.is_ok()
        && let Err(error) = core.raft.shutdown().await
    {
        tracing::error!(%error, "raft did not end well");
    }
}
