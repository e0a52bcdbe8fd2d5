//! Who votes: changes of the membership, asked of the leader. Who may be a member at all is in the state.

use std::{collections::BTreeSet, time::Duration};

use openraft::{
    BasicNode, ChangeMembers, Instant as _,
    async_runtime::WatchReceiver,
    error::{ClientWriteError, RaftError},
};
use tokio::time::timeout;

use super::{ClusterStatus, MembershipError, Types, core::Core};
use crate::{clock, command::MemberId};

/// A learner is waited for so long: it may need a whole snapshot first.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// So long a transfer of leadership may take: one exchange and an election without a wait.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(3);
/// Who did not answer for so long is not handed anything, and not counted on: a dozen signs of life in a row were lost.
const SILENT_AFTER: Duration = Duration::from_secs(1);
/// Who lacks more entries is not handed leadership: writers would wait until it has them.
const BEHIND_MAX: u64 = 2_000;

type WriteResult<T> = Result<T, RaftError<Types, ClientWriteError<Types>>>;

impl Core {
    /// Adds an admitted member that only follows, and waits until it is up to date.
    pub(super) async fn add_learner(&self, id: MemberId) -> Result<(), MembershipError> {
        let member = self.view.state().member(id).cloned().ok_or(MembershipError::Unknown(id))?;
        let node = BasicNode::new(member.addresses.raft.clone());
        self.changed(self.raft.add_learner(id, node, true)).await
    }

    /// Lets a learner vote.
    pub(super) async fn promote(&self, id: MemberId) -> Result<(), MembershipError> {
        self.leading_status()?;
        if !self.answers_soon(id).await {
            let reason = format!("member {id} does not answer, and would be needed for decisions");
            return Err(MembershipError::Refused(reason));
        }
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
        self.changed(self.raft.change_membership(change, true)).await
    }

    /// Takes a member out. A leader hands over before it takes itself out.
    pub(super) async fn remove(&self, id: MemberId) -> Result<(), MembershipError> {
        let (ids, votes) = (BTreeSet::from([id]), self.leading_status()?.voters.contains(&id));
        if votes {
            self.can_do_without_soon(id).await.map_err(MembershipError::Refused)?;
        }
        if id == self.id() {
            self.transfer_leader(None).await?;
            return Err(MembershipError::NotLeader { leader: self.leading().leader });
        }
        let change = if votes { ChangeMembers::RemoveVoters(ids) } else { ChangeMembers::RemoveNodes(ids) };
        self.changed(self.raft.change_membership(change, false)).await
    }

    /// Hands leadership over, to the member that is furthest if none is named.
    pub(super) async fn transfer_leader(&self, to: Option<MemberId>) -> Result<(), MembershipError> {
        let leading = self.leading();
        if !leading.is_me {
            return Err(MembershipError::NotLeader { leader: leading.leader });
        }
        if to == Some(self.id()) {
            return Ok(());
        }
        let to = to
            .or_else(|| self.status().furthest())
            .ok_or_else(|| MembershipError::Refused("no other member that votes answers".to_owned()))?;
        if self.status().voters.contains(&to) {
            // One that has just come back may be ready before this member has heard of it.
            self.answers_soon(to).await;
        }
        self.status().may_lead(to).map_err(MembershipError::Refused)?;
        let refused = |error: openraft::error::Fatal<Types>| MembershipError::Refused(error.to_string());
        self.raft.trigger().transfer_leader(to).await.map_err(refused)?;
        let mut leadership = self.leadership.subscribe();
        let handed = leadership.wait_for(|now| now.leader.is_some() && !now.is_me);
        match timeout(TRANSFER_TIMEOUT, handed).await {
            Ok(_) => Ok(()),
            Err(_) => Err(MembershipError::Timeout(TRANSFER_TIMEOUT)),
        }
    }

    /// Waits a moment for a member's first sign of life: one that was only just added, or started, has not given any.
    async fn answers_soon(&self, id: MemberId) -> bool {
        let deadline = clock::now() + SILENT_AFTER;
        while !self.status().answers(id) && clock::now() < deadline {
            tokio::time::sleep(SILENT_AFTER / 50).await;
        }
        self.status().answers(id)
    }

    /// Waits a moment for those who would be left: a leader that was only just elected has not heard them all yet.
    async fn can_do_without_soon(&self, gone: MemberId) -> Result<(), String> {
        let deadline = clock::now() + SILENT_AFTER;
        loop {
            match self.status().can_do_without(gone) {
                Err(_) if clock::now() < deadline => tokio::time::sleep(SILENT_AFTER / 50).await,
                told => return told,
            }
        }
    }

    pub(super) fn status(&self) -> ClusterStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let others = metrics.heartbeat.iter().flatten().filter(|(id, _)| **id != self.id());
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let heard = others.filter_map(|(id, at)| Some((*id, millis(at.as_ref()?.elapsed())))).collect();
        let matched = metrics.replication.as_ref().map(|replication| {
            replication.iter().map(|(id, log_id)| (*id, log_id.as_ref().map(|log_id| log_id.index))).collect()
        });
        ClusterStatus {
            member: self.id(),
            leader: metrics.current_leader,
            term: metrics.current_term,
            voters: membership.voter_ids().collect(),
            learners: membership.learner_ids().collect(),
            last_log_index: metrics.last_log_index,
            applied_index: metrics.last_applied.map(|id| id.index),
            snapshot_index: metrics.snapshot.map(|id| id.index),
            purged_index: metrics.purged.map(|id| id.index),
            revision: self.view.state().revision(),
            matched: matched.unwrap_or_default(),
            heard,
            applied_entries: self.view.applied_count(),
            refused: self.peers.banned.borrow().clone(),
        }
    }

    fn leading_status(&self) -> Result<ClusterStatus, MembershipError> {
        let status = self.status();
        match status.leader == Some(self.id()) {
            true => Ok(status),
            false => Err(MembershipError::NotLeader { leader: status.leader }),
        }
    }

    async fn changed<T>(&self, change: impl Future<Output = WriteResult<T>>) -> Result<(), MembershipError> {
        match timeout(CHANGE_TIMEOUT, change).await {
            Err(_) => Err(MembershipError::Timeout(CHANGE_TIMEOUT)),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                Err(MembershipError::NotLeader { leader: forward.leader_id })
            }
            Ok(Err(error)) => Err(MembershipError::Refused(error.to_string())),
        }
    }
}

impl ClusterStatus {
    /// On the leader: whether another member answered lately. The leader itself does.
    pub fn answers(&self, id: MemberId) -> bool {
        let lately = |ago: u64| u128::from(ago) < SILENT_AFTER.as_millis();
        id == self.member || self.heard.iter().any(|(other, ago)| *other == id && lately(*ago))
    }

    /// On the leader: how many entries a member lacks, if that is known.
    pub fn lag(&self, id: MemberId) -> Option<u64> {
        let matched = self.matched.iter().find(|(other, _)| *other == id)?.1?;
        Some(self.last_log_index.unwrap_or(0).saturating_sub(matched))
    }

    /// On the leader: whether those who would be left without `gone` could still decide anything.
    ///
    /// # Errors
    /// They could not: says who does not answer.
    pub fn can_do_without(&self, gone: MemberId) -> Result<(), String> {
        let left: Vec<_> = self.voters.iter().copied().filter(|id| *id != gone).collect();
        let silent: Vec<_> = left.iter().copied().filter(|id| !self.answers(*id)).collect();
        let (majority, answering) = (left.len() / 2 + 1, left.len() - silent.len());
        if answering >= majority {
            return Ok(());
        }
        Err(format!(
            "without member {gone} the {} that vote would need {majority} of them, and {answering} answer (silent: \
             {silent:?}); start or remove those first",
            left.len()
        ))
    }

    /// On the leader: whether a member can take over at once.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn may_lead(&self, id: MemberId) -> Result<(), String> {
        if !self.voters.contains(&id) {
            return Err(format!("member {id} does not vote; those who do are {:?}", self.voters));
        }
        if !self.answers(id) {
            let since = self.heard.iter().find(|(other, _)| *other == id);
            let since =
                since.map_or_else(String::new, |(_, ago)| format!(" since {:.1} s", *ago as f64 / 1_000.0));
            return Err(format!("member {id} does not answer{since}"));
        }
        match self.lag(id) {
            Some(lag) if lag <= BEHIND_MAX => Ok(()),
            Some(lag) => {
                Err(format!("member {id} is {lag} entries behind, at most {BEHIND_MAX}; it is catching up"))
            }
            None => Err(format!("member {id} has not confirmed anything yet; it is catching up")),
        }
    }

    /// On the leader: the other voter that answers and lacks least.
    fn furthest(&self) -> Option<MemberId> {
        let others = self.voters.iter().copied().filter(|id| *id != self.member && self.answers(*id));
        others.filter(|id| self.lag(*id).is_some()).min_by_key(|id| self.lag(*id))
    }
}
