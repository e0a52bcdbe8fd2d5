//! Pure. Which start of each other member counts, and how far its log is known to have reached. A start that begins below
//! that lost what it acknowledged: its data folder was put back to an older state, and it must not vote. Of two starts,
//! the later one counts: from then on nothing that the earlier one says is taken for the member's word.
//!
//! What this never sees: what was acknowledged to another member that led and is gone, and what a leader had in its own
//! log. Who leads may be behind what its followers made durable, so nothing can be held against it.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::command::MemberId;

/// Earlier starts of one member that are remembered: they come back only while two copies of a folder run.
const RETIRED_MAX: usize = 16;

/// A place in the log, in the order in which logs are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Place {
    /// The term of the entry there.
    pub(super) term: u64,
    /// Its index.
    pub(super) index: u64,
}

/// What a member has on disk: the term of its vote, and within that where its log ends. Only a leader of a later term may
/// have taken entries out again, and its term would be in the vote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Start {
    /// The term of its vote.
    pub(super) vote: u64,
    /// Where its log ends.
    pub(super) last: Place,
}

/// What this member knows of the others.
#[derive(Debug, Default)]
pub(super) struct Floors {
    known: HashMap<MemberId, Floor>,
}

#[derive(Debug, Default)]
struct Floor {
    /// The start that counts, and those before it.
    met: Option<Uuid>,
    retired: VecDeque<Uuid>,
    /// It has had this on disk.
    reached: Start,
}

/// A start that is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Lost {
    /// Its log ends before what it acknowledged.
    #[error(
        "member {id} was started from an older data folder: its log ends at entry {} of term {}, with a vote in term {}, \
         and it had acknowledged entry {} of term {} in term {}; remove member {id}, empty the folder and join under a \
         new id",
        found.last.index, found.last.term, found.vote, known.last.index, known.last.term, known.vote
    )]
    Log {
        /// Which member.
        id: MemberId,
        /// What it has.
        found: Start,
        /// What it must have.
        known: Start,
    },
    /// Another start of the same member came after it.
    #[error(
        "another copy of member {id}'s data folder was started after this one and took its place; remove one of them, \
         empty its folder and join under a new id"
    )]
    Replaced {
        /// Which member.
        id: MemberId,
    },
}

impl Floors {
    /// A member acknowledged so much, in the term of whom it told. Whether the start that said so counts: if not, it must
    /// not be taken for the member's word.
    pub(super) fn acknowledged(&mut self, id: MemberId, nonce: Uuid, now: Start) -> bool {
        let Some(floor) = self.known.get_mut(&id).filter(|floor| floor.met == Some(nonce)) else {
            return false;
        };
        floor.reached = floor.reached.max(now);
        true
    }

    /// Whether this start of a member is the one that counts.
    pub(super) fn counts(&self, id: MemberId, nonce: Uuid) -> bool {
        self.known.get(&id).is_some_and(|floor| floor.met == Some(nonce))
    }

    /// A start of a member presents itself. One that counts already may have grown since; a new one must begin at the
    /// floor or above, as far as it tells where it begins (0.1.0 does not).
    pub(super) fn meet(&mut self, id: MemberId, nonce: Uuid, found: Option<Start>) -> Result<(), Lost> {
        let floor = self.known.entry(id).or_default();
        if floor.met == Some(nonce) {
            return Ok(());
        }
        if floor.retired.contains(&nonce) {
            return Err(Lost::Replaced { id });
        }
        let known = floor.reached;
        if let Some(found) = found.filter(|found| *found < known) {
            return Err(Lost::Log { id, found, known });
        }
        floor.retired.extend(floor.met.replace(nonce));
        if floor.retired.len() > RETIRED_MAX {
            floor.retired.pop_front();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `vote term.index`
    fn start(text: &str) -> Start {
        let (vote, last) = text.split_once(' ').expect("a vote and a place");
        let (term, index) = last.split_once('.').expect("a term and an index");
        let number = |text: &str| text.parse().expect("a number");
        Start { vote: number(vote), last: Place { term: number(term), index: number(index) } }
    }

    /// One member's life: `meet NONCE START` and `ack NONCE START`, and what comes of the last.
    #[track_caller]
    fn check(life: &str, fine: bool) {
        let mut floors = Floors::default();
        let mut last = true;
        for step in life.split(", ") {
            let (what, rest) = step.split_once(' ').expect("a word");
            let (nonce, at) = rest.split_once(' ').expect("a nonce");
            let nonce = Uuid::from_u128(nonce.parse().expect("a number"));
            last = match what {
                "ack" => floors.acknowledged(7, nonce, start(at)),
                _ => floors.meet(7, nonce, Some(start(at))).is_ok(),
            };
        }
        assert_eq!(last, fine, "{life}");
    }

    #[test]
    fn a_log_that_went_back_behind_what_it_acknowledged_is_told_apart() {
        check("meet 1 1 1.5", true);
        check("meet 1 1 1.5, ack 1 1 1.90, meet 1 1 1.5", true);
        check("meet 1 1 1.5, ack 1 1 1.90, meet 2 1 1.90", true);
        check("meet 1 1 1.5, ack 1 1 1.90, meet 2 1 1.89", false);
        check("meet 1 1 1.5, ack 1 1 1.90, meet 2 1 1.89, meet 2 1 1.89", false);
        // A lost vote is as bad as a lost entry.
        check("meet 1 1 1.5, ack 1 3 1.90, meet 2 2 1.90", false);
        // A leader of a later term took out what was never committed: its term is in the vote.
        check("meet 1 1 1.5, ack 1 1 1.90, meet 2 2 1.40", true);
        check("meet 1 1 1.5, ack 1 1 1.90, ack 1 2 2.50, meet 2 2 2.49", false);
    }

    #[test]
    fn of_two_starts_the_later_one_counts() {
        check("meet 1 1 1.5, meet 2 1 1.5, ack 2 1 1.6", true);
        check("meet 1 1 1.5, meet 2 1 1.5, ack 1 1 1.6", false);
        check("meet 1 1 1.5, meet 2 1 1.5, meet 1 1 1.5", false);
        check("ack 1 1 1.5", false);
    }

    #[test]
    fn the_way_out_is_told_and_an_older_program_is_believed() {
        let mut floors = Floors::default();
        floors.meet(3, Uuid::nil(), None).expect("nothing is known of it");
        assert!(floors.acknowledged(3, Uuid::nil(), start("2 2.70")) && floors.counts(3, Uuid::nil()));
        let lost =
            floors.meet(3, Uuid::max(), Some(start("1 1.7"))).expect_err("it lost its log").to_string();
        assert!(lost.contains("entry 7 of term 1") && lost.contains("entry 70 of term 2"), "{lost}");
        assert!(lost.contains("an older data folder") && lost.contains("join under a new id"), "{lost}");
        floors.meet(3, Uuid::max(), None).expect("0.1.0 does not say where it begins");
    }
}
