//! What any member does for its callers: finds the leader, here or elsewhere, and asks it, until a deadline.

use std::{sync::Arc, time::Duration};

use model::read::{Consistency, Freshness};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{
    KeepAlive, KeepAlives, Leadership, ProposeError, ReadError,
    core::Core,
    frame::{Proposed, Request, Response},
    lead::{COMMAND_BYTES_MAX, size},
    link::CallError,
};
use crate::{
    clock,
    command::{COMMAND_VERSION, Command, Reply},
    state::State,
};

/// So long a caller waits for a leader: an election takes well under a second, two in a row happen.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// What a caller is told to wait where there is no leader.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Between two tries with the same leader.
const PAUSE: Duration = Duration::from_millis(50);
/// One exchange with the leader is given up after this, so that a leader that was cut off does not use up the whole time.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(2);
/// So long the member that was asked may still answer after another one leads: it may have handed over only now. One
/// that stands still or was cut off never will, and its callers need not wait for that.
const OVERTAKEN_PATIENCE: Duration = Duration::from_millis(250);
/// Readers that may wait for one round.
pub(super) const READERS_MAX: usize = 4_096;

/// A server that has not reached the revision that a reader wants within this is behind for good: the reader is better
/// served by another.
const REVISION_WAIT_MAX: Duration = Duration::from_secs(2);

/// What makes a read fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    /// The leader asks a majority whether it still leads.
    Majority,
    /// The leader's lease, while it holds; else as above.
    Lease,
}

/// Someone who waits for the index that makes a read linearizable.
pub(super) struct Reader(oneshot::Sender<Result<u64, ReadError>>);

impl Core {
    pub(super) async fn propose(&self, command: Command) -> Result<Reply, ProposeError> {
        let bytes = size(&command);
        if bytes > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { actual: bytes, limit: COMMAND_BYTES_MAX });
        }
        if let Some(data_dir) = self.disk_full() {
            return Err(ProposeError::DiskFull(data_dir));
        }
        let (deadline, repeatable) = (clock::now() + ASK_TIMEOUT, command.repeatable());
        let (mut uncertain, mut tried) = (false, None);
        loop {
            if let Some(reason) = self.over() {
                return Err(if uncertain { ProposeError::Unknown } else { ProposeError::Stopped(reason) });
            }
            if !self.understood(&command) {
                return Err(if uncertain { ProposeError::Unknown } else { ProposeError::Version });
            }
            let leading = self.leading();
            match timeout_at(deadline, self.propose_to(leading, command.clone(), bytes))
                .await
                .unwrap_or(Proposed::Unknown)
            {
                Proposed::Done(reply) => return Ok(reply),
                Proposed::Busy => return Err(ProposeError::Busy),
                Proposed::Unknown if !repeatable => return Err(ProposeError::Unknown),
                Proposed::Unknown => uncertain = true,
                Proposed::NotLeader => {}
            }
            if !self.pause(deadline, &mut tried, leading).await {
                return Err(if uncertain {
                    ProposeError::Unknown
                } else {
                    ProposeError::NoLeader { retry_after: RETRY_AFTER }
                });
            }
        }
    }

    /// Whether every member understands a command, as far as this one knows. The leader, who knows best, asks again.
    pub(super) fn understood(&self, command: &Command) -> bool {
        command.version() <= self.view.state().command_version().min(COMMAND_VERSION)
    }

    async fn propose_to(&self, leading: Leadership, command: Command, bytes: usize) -> Proposed {
        match leading {
            Leadership { is_me: true, .. } => self.lead(command, bytes).await,
            Leadership { leader: Some(leader), .. } if leader != self.id() => {
                let Some(address) = self.address_of(leader) else { return Proposed::NotLeader };
                let asked = self.peers.forward(leader, &address, command, ASK_TIMEOUT);
                let answer = tokio::select! {
                    biased;
                    answer = asked => answer,
                    () = self.overtaken(leading, OVERTAKEN_PATIENCE) => Err(CallError::Lost),
                };
                match answer {
                    Ok(Response::Proposed(proposed)) => proposed,
                    Ok(_) | Err(CallError::Lost) => Proposed::Unknown,
                    Err(CallError::NotSent(_)) => Proposed::NotLeader,
                }
            }
            _ => Proposed::NotLeader,
        }
    }

    /// Waits for another leader, or a moment; `false` when the time is over.
    async fn pause(&self, deadline: Instant, tried: &mut Option<Leadership>, leading: Leadership) -> bool {
        let again = *tried == Some(leading);
        *tried = Some(leading);
        let left = deadline.saturating_duration_since(clock::now());
        if left.is_zero() {
            return false;
        }
        let within = if again || leading.leader.is_some() { PAUSE } else { left };
        self.leader_other_than(*tried, within.min(left)).await;
        clock::now() < deadline
    }

    /// The state, as fresh as it is asked for.
    pub(super) async fn read(&self, freshness: Freshness) -> Result<Arc<State>, ReadError> {
        let state = match freshness.consistency {
            Consistency::Linearizable => self.read_after(&self.readers).await?,
            Consistency::Leased => self.read_after(&self.leased_readers).await?,
            Consistency::Stale => self.view.state(),
        };
        match freshness.min_revision {
            Some(wanted) if wanted > state.revision() => self.at_revision(wanted).await,
            _ => Ok(state),
        }
    }

    /// This member's view, once it has a revision.
    async fn at_revision(&self, wanted: u64) -> Result<Arc<State>, ReadError> {
        let mut revisions = self.view.revision.subscribe();
        let reached = revisions.wait_for(|revision| *revision >= wanted);
        match timeout_at(clock::now() + REVISION_WAIT_MAX, reached).await {
            Ok(_) => Ok(self.view.state()),
            Err(_) => Err(ReadError::Behind { revision: self.view.state().revision(), wanted }),
        }
    }

    /// The state with all that was acknowledged before the call, as `readers` are told.
    async fn read_after(&self, readers: &mpsc::Sender<Reader>) -> Result<Arc<State>, ReadError> {
        let (answer, wait) = oneshot::channel();
        let stopped = || ReadError::Stopped(self.over().unwrap_or_else(|| "it has ended".to_owned()));
        readers.send(Reader(answer)).await.map_err(|_| stopped())?;
        let index = wait.await.map_err(|_| stopped())??;
        self.applied_at_least(index).await
    }

    /// This member's view, once it has applied an entry.
    pub(super) async fn applied_at_least(&self, index: u64) -> Result<Arc<State>, ReadError> {
        let mut applied = self.view.index.subscribe();
        let reached =
            timeout_at(clock::now() + ASK_TIMEOUT, applied.wait_for(|applied| *applied >= index)).await;
        match reached {
            Ok(_) => Ok(self.view.state()),
            Err(_) => Err(self
                .disk_full()
                .map_or(ReadError::NoLeader { retry_after: RETRY_AFTER }, ReadError::DiskFull)),
        }
    }

    async fn read_index_from_leader(&self, round: Round) -> Result<u64, ReadError> {
        let (deadline, mut tried) = (clock::now() + ASK_TIMEOUT, None);
        loop {
            if let Some(reason) = self.over() {
                return Err(ReadError::Stopped(reason));
            }
            let leading = self.leading();
            let asked =
                timeout_at(deadline.min(clock::now() + EXCHANGE_TIMEOUT), self.read_index_of(leading, round))
                    .await;
            if let Ok(Some(index)) = asked {
                return Ok(index);
            }
            if !self.pause(deadline, &mut tried, leading).await {
                return Err(ReadError::NoLeader { retry_after: RETRY_AFTER });
            }
        }
    }

    async fn read_index_of(&self, leading: Leadership, round: Round) -> Option<u64> {
        if leading.is_me {
            return self.read_index(round).await;
        }
        let request = match round {
            Round::Lease if self.leases() => Request::LeaseIndex,
            _ => Request::ReadIndex,
        };
        match self.ask(leading, request).await? {
            Response::ReadIndex(index) => index,
            _ => None,
        }
    }

    pub(super) async fn keep_alive(&self, alive: Vec<KeepAlive>) -> Result<KeepAlives, ReadError> {
        let (deadline, mut tried) = (clock::now() + ASK_TIMEOUT, None);
        loop {
            if let Some(reason) = self.over() {
                return Err(ReadError::Stopped(reason));
            }
            let leading = self.leading();
            let told = match leading.is_me {
                true => self.hear(&alive).await,
                false => match self.ask(leading, Request::KeepAlive(alive.clone())).await {
                    Some(Response::KeptAlive(told)) => told,
                    _ => None,
                },
            };
            if let Some(told) = told {
                return Ok(told);
            }
            if !self.pause(deadline, &mut tried, leading).await {
                return Err(ReadError::NoLeader { retry_after: RETRY_AFTER });
            }
        }
    }

    /// One exchange with another member that leads.
    pub(super) async fn ask(&self, leading: Leadership, request: Request) -> Option<Response> {
        let leader = leading.leader.filter(|leader| *leader != self.id())?;
        let address = self.address_of(leader)?;
        tokio::select! {
            biased;
            answer = self.peers.call(leader, &address, request, EXCHANGE_TIMEOUT) => answer.ok(),
            () = self.overtaken(leading, Duration::ZERO) => None,
        }
    }

    /// Waits until another member leads than the one that is being asked, and `patience` longer.
    async fn overtaken(&self, leading: Leadership, patience: Duration) {
        let mut leadership = self.leadership.subscribe();
        let another = |now: &Leadership| {
            now.leader.is_some() && now.leader != leading.leader && now.term > leading.term
        };
        if leadership.wait_for(another).await.is_err() {
            // Nobody will tell any more: what is asked ends by itself.
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(patience).await;
    }
}

/// Asks once for all readers that wait: those who come while it is asked wait for the next round.
pub(super) async fn serve_readers(core: Arc<Core>, mut waiting: mpsc::Receiver<Reader>, round: Round) {
    let mut readers = Vec::new();
    while waiting.recv_many(&mut readers, READERS_MAX).await > 0 {
        let index = core.read_index_from_leader(round).await;
        for Reader(answer) in readers.drain(..) {
            let _ = answer.send(index.clone());
        }
    }
}
