//! Pure. What a member's state added up to at certain entries of the log. Members that applied the same entry must hold the
//! same state; where they do not, one of them was damaged where no checksum sees it, or applying is not the function that
//! it must be. Which of two is wrong is not known here.

use std::collections::VecDeque;

use model::answer;

/// Entries between two checkpoints.
const EVERY: u64 = 16;
/// Checkpoints kept: members that are less than some 8,000 entries apart have common ones.
const KEPT_MAX: usize = 512;

answer! {
    /// A state's hash at an entry.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Checkpoint {
        /// The entry.
        "index" pub index: u64,
        /// The hash, in hex.
        "hash" pub hash: String,
    }
}

/// The newest ones.
#[derive(Debug, Default)]
pub(super) struct Checkpoints(VecDeque<(u64, u128)>);

impl Checkpoints {
    /// Whether one is due at this entry.
    pub(super) fn due(index: u64) -> bool {
        index.is_multiple_of(EVERY)
    }

    /// Keeps one.
    pub(super) fn keep(&mut self, index: u64, hash: u128) {
        if self.0.len() == KEPT_MAX {
            self.0.pop_front();
        }
        self.0.push_back((index, hash));
    }

    /// A snapshot took the place of what was applied.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// All, oldest first.
    pub(super) fn list(&self) -> Vec<Checkpoint> {
        self.0
            .iter()
            .map(|(index, hash)| Checkpoint { index: *index, hash: format!("{hash:032x}") })
            .collect()
    }

    /// Whether the same entries made the same state; `None` where there is no common one, else the first that did not.
    pub(super) fn compare(&self, theirs: &[Checkpoint]) -> Option<Result<(), u64>> {
        let mut compared = None;
        for their in theirs {
            let Ok(at) = self.0.binary_search_by_key(&their.index, |(index, _)| *index) else { continue };
            if format!("{:032x}", self.0[at].1) != their.hash {
                return Some(Err(their.index));
            }
            compared = Some(Ok(()));
        }
        compared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoints(hashes: &[(u64, u128)]) -> Checkpoints {
        let mut kept = Checkpoints::default();
        hashes.iter().for_each(|(index, hash)| kept.keep(*index, *hash));
        kept
    }

    #[test]
    fn the_first_difference_is_told_and_what_is_not_common_says_nothing() {
        let ours = checkpoints(&[(16, 1), (32, 2), (48, 3)]);
        assert_eq!(ours.compare(&checkpoints(&[(32, 2), (48, 3), (64, 9)]).list()), Some(Ok(())));
        assert_eq!(ours.compare(&checkpoints(&[(16, 1), (32, 7), (48, 8)]).list()), Some(Err(32)));
        assert_eq!(ours.compare(&checkpoints(&[(64, 9)]).list()), None);
        let mut many = checkpoints(&[]);
        (0..2 * KEPT_MAX as u64).for_each(|index| many.keep(index, 0));
        assert_eq!(many.list().len(), KEPT_MAX);
        many.forget();
        assert_eq!(many.list(), []);
    }
}
