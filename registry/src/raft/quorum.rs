//! Whether this member still leads, as the others' answers say: what linearizable and leased reads stand on.
//!
//! The Raft engine keeps a clock of such answers too. It takes an answer for one to every append that ends at the same entry,
//! among them those that were sent after the one that was answered: a leader that stood still, goes on, tells what is
//! committed and only then reads an answer of long ago believes that it was confirmed just now. So its word is not
//! enough here: each append is held against its own answer (ADR 7).

use std::collections::{BTreeSet, HashMap};

use openraft::{LinearizerOption, ReadPolicy, async_runtime::WatchReceiver};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::{ask::Round, core::Core};
use crate::{clock, command::MemberId};

/// The command version of the first members that, started anew, wait out what they promised a leader before.
const LEASES_SINCE: u32 = 2;

/// The latest append that each other member has answered.
#[derive(Debug, Default)]
pub(super) struct Answered {
    latest: Mutex<HashMap<MemberId, Append>>,
    news: Notify,
}

/// An append of this member as the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Append {
    term: u64,
    /// Before it left.
    sent: Instant,
}

/// Who has to answer.
#[derive(Debug)]
struct Asked {
    term: u64,
    me: MemberId,
    /// Those who vote; two sets of them while the membership changes.
    voters: Vec<BTreeSet<MemberId>>,
}

impl Answered {
    /// A member took an append that was sent in a term, then, for its leader's.
    pub(super) fn note(&self, member: MemberId, term: u64, sent: Instant) {
        let append = Append { term, sent };
        let mut latest = self.latest.lock();
        let known = latest.entry(member).or_insert(append);
        *known = append.max(*known);
        drop(latest);
        self.news.notify_waiters();
    }

    /// The latest moment of which it is known that what was sent then found a majority in this term; `now` if the leader
    /// is that by itself.
    fn confirmed(&self, asked: &Asked, now: Instant) -> Option<Instant> {
        let latest = self.latest.lock();
        let of = |member: &MemberId| match latest.get(member) {
            _ if *member == asked.me => Some(now),
            Some(append) if append.term == asked.term => Some(append.sent),
            _ => None,
        };
        let majority = |voters: &BTreeSet<MemberId>| {
            let mut sent: Vec<_> = voters.iter().filter_map(of).collect();
            sent.sort_unstable_by(|one, other| other.cmp(one));
            sent.get(voters.len() / 2).copied()
        };
        // `None`, the least, where one set has no majority.
        asked.voters.iter().map(majority).min().flatten()
    }

    /// Waits until what was sent since then has found a majority; `false` when the time is over.
    async fn since(&self, asked: &Asked, since: Instant, deadline: Instant) -> bool {
        let confirmed = async {
            loop {
                let news = self.news.notified();
                if self.confirmed(asked, clock::now()).is_some_and(|confirmed| confirmed >= since) {
                    return;
                }
                news.await;
            }
        };
        timeout_at(deadline, confirmed).await.is_ok()
    }
}

impl Core {
    /// The index that a reader has to wait for; `None` if this member does not lead.
    pub(super) async fn read_index(&self, round: Round) -> Option<u64> {
        let (began, span) = (clock::now(), self.settings.tuning.lease());
        if round == Round::Lease && self.leases() {
            let (index, asked) = self.leading_index(LinearizerOption::new(Some(span), true)).await?;
            let now = clock::now();
            if self.peers.answered.confirmed(&asked, now).is_some_and(|confirmed| now < confirmed + span) {
                return Some(index);
            }
        }
        let (index, asked) = self.leading_index(ReadPolicy::ReadIndex.into()).await?;
        let deadline = clock::now() + self.settings.tuning.election_max;
        self.peers.answered.since(&asked, began, deadline).await.then_some(index)
    }

    /// What the engine says, and who has to confirm it.
    async fn leading_index(&self, option: LinearizerOption) -> Option<(u64, Asked)> {
        let (read, _) = self.raft.get_read_log_id(option).await.ok()?;
        let metrics = self.raft.server_metrics();
        let voters = metrics.borrow_watched().membership_config.membership().get_joint_config().clone();
        // An entry of the term in which this member leads: no earlier one is enough for a reader.
        let log_id = read.log_id();
        Some((log_id.index, Asked { term: log_id.leader_id.term, me: self.id(), voters }))
    }

    /// Whether every member keeps what a lease stands on: see [`Core::promises_over`].
    pub(super) fn leases(&self) -> bool {
        self.view.state().command_version() >= LEASES_SINCE
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn asked(voters: &[&[MemberId]]) -> Asked {
        let voters = voters.iter().map(|set| set.iter().copied().collect()).collect();
        Asked { term: 5, me: 1, voters }
    }

    /// `answers`: member, term and when it was sent, in ms; `expected` in ms, the leader's own moment being 100.
    #[track_caller]
    fn check(voters: &[&[MemberId]], answers: &[(MemberId, u64, u64)], expected: Option<u64>) {
        let (began, answered) = (clock::now(), Answered::default());
        let at = |ms| began + Duration::from_millis(ms);
        for (member, term, sent) in answers {
            answered.note(*member, *term, at(*sent));
        }
        assert_eq!(answered.confirmed(&asked(voters), at(100)), expected.map(at), "{voters:?} {answers:?}");
    }

    #[test]
    fn a_majority_of_each_set_confirms_what_was_sent_to_it() {
        check(&[&[1]], &[], Some(100));
        check(&[&[1, 2]], &[], None);
        check(&[&[1, 2]], &[(2, 5, 40)], Some(40));
        check(&[&[1, 2, 3]], &[(2, 5, 40)], Some(40));
        check(&[&[1, 2, 3]], &[(2, 5, 40), (3, 5, 60)], Some(60));
        check(&[&[1, 2, 3, 4, 5]], &[(2, 5, 40)], None);
        check(&[&[1, 2, 3, 4, 5]], &[(2, 5, 40), (4, 5, 60), (5, 5, 50)], Some(50));
        // A leader that is about to go votes no more.
        check(&[&[2, 3, 4]], &[(2, 5, 40)], None);
        check(&[&[2, 3, 4]], &[(2, 5, 40), (4, 5, 60)], Some(40));
        // While the membership changes, both.
        check(&[&[1, 2, 3], &[1, 4, 5]], &[(2, 5, 40), (3, 5, 60)], None);
        check(&[&[1, 2, 3], &[1, 4, 5]], &[(2, 5, 40), (3, 5, 60), (5, 5, 20)], Some(20));
    }

    #[test]
    fn neither_another_term_nor_an_older_append_nor_who_does_not_vote_counts() {
        check(&[&[1, 2, 3]], &[(2, 4, 40)], None);
        check(&[&[1, 2, 3]], &[(2, 5, 40), (2, 4, 60)], Some(40));
        check(&[&[1, 2, 3]], &[(2, 5, 40), (2, 5, 20)], Some(40));
        check(&[&[1, 2, 3]], &[(7, 5, 40)], None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_waits_for_answers_to_what_was_sent_after_it_came() {
        let (answered, asked) = (Answered::default(), asked(&[&[1, 2, 3]]));
        let (before, span) = (clock::now(), Duration::from_millis(50));
        tokio::time::advance(span).await;
        let since = clock::now();
        let waiting = answered.since(&asked, since, since + 4 * span);
        let answers = async {
            answered.note(2, 5, before);
            tokio::task::yield_now().await;
            answered.note(3, 5, since);
        };
        assert!(tokio::join!(waiting, answers).0);

        let late = Answered::default();
        late.note(2, 5, before);
        assert!(!late.since(&asked, since, since + span).await);
        assert_eq!(clock::now(), since + span, "not before its time was over");
    }
}
