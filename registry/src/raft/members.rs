//! Who votes: changes of the membership, asked of the leader. Who may be a member at all is in the state.

use std::{collections::BTreeSet, time::Duration};

use openraft::{
    BasicNode, ChangeMembers,
    async_runtime::WatchReceiver,
    error::{ClientWriteError, RaftError},
};
use tokio::time::timeout;

use super::{ClusterStatus, MembershipError, Types, core::Core};
use crate::command::MemberId;

/// A learner is waited for so long: it may need a whole snapshot first.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// So long a transfer of leadership may take: one exchange and an election without a wait.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(3);

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
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
        self.changed(self.raft.change_membership(change, true)).await
    }

    /// Takes a member out. A leader hands over before it takes itself out.
    pub(super) async fn remove(&self, id: MemberId) -> Result<(), MembershipError> {
        if id == self.id() {
            self.transfer_leader(None).await?;
            return Err(MembershipError::NotLeader { leader: self.leading().leader });
        }
        let ids = BTreeSet::from([id]);
        let change = if self.voters().contains(&id) {
            ChangeMembers::RemoveVoters(ids)
        } else {
            ChangeMembers::RemoveNodes(ids)
        };
        self.changed(self.raft.change_membership(change, false)).await
    }

    /// Hands leadership over, to the member that is furthest if none is named.
    pub(super) async fn transfer_leader(&self, to: Option<MemberId>) -> Result<(), MembershipError> {
        let leading = self.leading();
        if !leading.is_me {
            return Err(MembershipError::NotLeader { leader: leading.leader });
        }
        let to = to
            .or_else(|| self.furthest())
            .ok_or_else(|| MembershipError::Refused("no other member votes".to_owned()))?;
        let refused = |error: openraft::error::Fatal<Types>| MembershipError::Refused(error.to_string());
        self.raft.trigger().transfer_leader(to).await.map_err(refused)?;
        let mut leadership = self.leadership.subscribe();
        let handed = leadership.wait_for(|now| now.leader.is_some() && !now.is_me);
        match timeout(TRANSFER_TIMEOUT, handed).await {
            Ok(_) => Ok(()),
            Err(_) => Err(MembershipError::Timeout(TRANSFER_TIMEOUT)),
        }
    }

    pub(super) fn status(&self) -> ClusterStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
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
            applied_entries: self.view.applied_count(),
            refused: self.peers.banned.borrow().clone(),
        }
    }

    fn voters(&self) -> Vec<MemberId> {
        self.status().voters
    }

    fn furthest(&self) -> Option<MemberId> {
        let status = self.status();
        let other = |(id, _): &&(MemberId, Option<u64>)| *id != self.id() && status.voters.contains(id);
        status.matched.iter().filter(other).max_by_key(|(_, index)| *index).map(|(id, _)| *id)
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
