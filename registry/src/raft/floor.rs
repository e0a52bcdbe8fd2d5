//! Pure. How far each member's log is known to have reached, and whether a start of it begins below that: then its data
//! folder was put back to an older state, and entries that it acknowledged are missing. Such a member must not vote.
//!
//! What a member acknowledged is only held against it once it is committed: from then on no order of elections can take
//! it out of an honest member's log. What this never sees: what was acknowledged to a leader that is gone, before this
//! member led or heard of it; and the log of a leader itself, which may be behind what its followers made durable.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::command::MemberId;

/// A place in the log, in the order in which logs are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Place {
    /// The term of the entry there.
    pub(super) term: u64,
    /// Its index.
    pub(super) index: u64,
}

/// What a member had when it was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Start {
    /// Where its log ended.
    pub(super) last: Place,
    /// The term of its vote.
    pub(super) vote: u64,
}

/// What each member must have, as far as this one knows.
#[derive(Debug, Default)]
pub(super) struct Floors {
    known: HashMap<MemberId, Floor>,
}

#[derive(Debug, Default)]
struct Floor {
    /// The start of that member that this one met last.
    met: Option<Uuid>,
    /// It has had all of this on disk.
    reached: Start,
}

/// A member's log ends before what it acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "member {id} was started from an older data folder: its log ends at entry {} of term {} with a vote in term {}, \
     and it had acknowledged entry {} of term {} with a vote in term {}; remove member {id}, empty the folder and join \
     under a new id",
    found.last.index, found.last.term, found.vote, known.last.index, known.last.term, known.vote
)]
pub(super) struct Lost {
    id: MemberId,
    found: Start,
    known: Start,
}

impl Floors {
    /// A member has so much on disk: it acknowledged it, and it is committed.
    pub(super) fn reached(&mut self, id: MemberId, now: Start) {
        let reached = &mut self.known.entry(id).or_default().reached;
        reached.last = reached.last.max(now.last);
        reached.vote = reached.vote.max(now.vote);
    }

    /// A member presents itself. A start that was met before may have grown since; a new one must begin above the floor.
    pub(super) fn meet(&mut self, id: MemberId, nonce: Uuid, found: Start) -> Result<(), Lost> {
        let floor = self.known.entry(id).or_default();
        if floor.met == Some(nonce) {
            return Ok(());
        }
        let known = floor.reached;
        if found.last < known.last || found.vote < known.vote {
            return Err(Lost { id, found, known });
        }
        floor.met = Some(nonce);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(term: u64, index: u64, vote: u64) -> Start {
        Start { last: Place { term, index }, vote }
    }

    /// One member's life: `r` it reached, `m` it is met with this nonce. Whether the last one was welcome.
    fn check(life: &[(char, u128, Start)], welcome: bool) {
        let mut floors = Floors::default();
        let mut last = Ok(());
        for (what, nonce, start) in life {
            match what {
                'r' => floors.reached(7, *start),
                _ => last = floors.meet(7, Uuid::from_u128(*nonce), *start),
            }
        }
        assert_eq!(last.is_ok(), welcome, "{life:?}: {last:?}");
    }

    #[test]
    fn a_log_that_went_back_behind_what_it_acknowledged_is_told_apart() {
        check(&[('m', 1, at(1, 5, 1))], true);
        check(&[('m', 1, at(1, 5, 1)), ('r', 0, at(1, 90, 1)), ('m', 1, at(1, 5, 1))], true);
        check(&[('m', 1, at(1, 5, 1)), ('r', 0, at(1, 90, 1)), ('m', 2, at(1, 90, 1))], true);
        check(&[('m', 1, at(1, 5, 1)), ('r', 0, at(1, 90, 1)), ('m', 2, at(1, 89, 1))], false);
        // A shorter log of a later term holds all that was committed.
        check(&[('r', 0, at(1, 90, 1)), ('m', 2, at(2, 40, 2))], true);
        check(&[('r', 0, at(1, 90, 3)), ('m', 2, at(1, 90, 2))], false);
        // Who was refused is refused again, and what was known is never forgotten for less.
        check(&[('r', 0, at(1, 90, 1)), ('m', 2, at(1, 8, 1)), ('m', 2, at(1, 8, 1))], false);
        check(&[('r', 0, at(2, 90, 2)), ('r', 0, at(1, 95, 1)), ('m', 2, at(1, 95, 2))], false);
    }

    #[test]
    fn the_way_out_is_told() {
        let mut floors = Floors::default();
        floors.reached(3, at(2, 70, 2));
        let lost = floors.meet(3, Uuid::nil(), at(1, 7, 1)).expect_err("it lost its log").to_string();
        assert!(lost.contains("entry 7 of term 1") && lost.contains("entry 70 of term 2"), "{lost}");
        assert!(lost.contains("empty the folder and join under a new id"), "{lost}");
    }
}
