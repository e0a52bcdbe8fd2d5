//! Pure. The smallest part of a wrong history that is still wrong. Only what a right history could lose without
//! becoming wrong is left out, so that what remains is wrong for the same reason.

use std::collections::HashSet;

use super::{
    Call, Expect, Operation, Outcome,
    search::{Known, Verdict, search, shows_absence},
};

/// That part, by the beginnings of its operations.
pub(super) fn smallest(history: &[Operation], known: &Known) -> Vec<Operation> {
    let wrong = |part: &[Operation]| search(part, known) == Verdict::Wrong;
    let asked = first_wrong(history, &wrong);
    let mut part: Vec<_> = asked.iter().map(weaker).collect();
    if !wrong(&part) {
        part.clone_from(&asked);
    }
    let mut size = part.len().div_ceil(2);
    while size > 0 {
        let (mut at, mut smaller) = (0, false);
        while at < part.len() {
            let end = (at + size).min(part.len());
            let fewer = without(&part, at..end, known);
            if fewer.len() < part.len() && wrong(&fewer) {
                at = end - (part.len() - fewer.len());
                part = fewer;
                smaller = true;
            } else {
                at = end;
            }
        }
        size = if size == 1 && smaller { 1 } else { size / 2 };
    }
    let kept: HashSet<_> = part.iter().map(|operation| (operation.client, operation.began)).collect();
    let mut shown = asked;
    shown.retain(|operation| kept.contains(&(operation.client, operation.began)));
    shown.sort_by_key(|operation| (operation.began, operation.ended));
    shown
}

/// A write that was done, without what it says of the moment before: a right history stays right, and what only that rested
/// on can go.
fn weaker(operation: &Operation) -> Operation {
    let mut weaker = operation.clone();
    match (&mut weaker.call, &mut weaker.outcome) {
        (Call::Put { expect, .. }, Outcome::Written { created, .. }) => {
            (*expect, *created) = (Expect::Any, false)
        }
        (Call::Delete { expect }, Outcome::Removed { .. }) => *expect = Expect::Any,
        _ => {}
    }
    weaker
}

/// The history up to the first moment at which it is wrong. What was under way then had not been answered.
fn first_wrong(history: &[Operation], wrong: &impl Fn(&[Operation]) -> bool) -> Vec<Operation> {
    let mut ends: Vec<_> = history.iter().map(|operation| operation.ended).collect();
    ends.sort_unstable();
    ends.dedup();
    let until = |index: usize| until(history, ends[index]);
    let (mut right, mut left) = (ends.len() - 1, 0);
    while left < right {
        let middle = left.midpoint(right);
        if wrong(&until(middle)) { right = middle } else { left = middle + 1 }
    }
    until(left)
}

fn until(history: &[Operation], moment: u64) -> Vec<Operation> {
    let begun = history.iter().filter(|operation| operation.began <= moment);
    let known = begun.filter_map(|operation| match operation.call {
        _ if operation.ended <= moment => Some(operation.clone()),
        Call::Get { .. } => None,
        _ => Some(Operation { outcome: Outcome::Unknown, ..operation.clone() }),
    });
    known.collect()
}

/// The part without those of a range that may be left out.
fn without(part: &[Operation], range: std::ops::Range<usize>, known: &Known) -> Vec<Operation> {
    let changes = |operation: &Operation| {
        !matches!(operation.call, Call::Get { .. })
            && !matches!(operation.outcome, Outcome::Mismatch | Outcome::NothingToRemove)
    };
    // Who changes nothing only sees: that can always be left out.
    let seen_out = |index: usize, operation: &Operation| range.contains(&index) && !changes(operation);
    let kept: Vec<_> =
        part.iter().enumerate().filter(|(index, operation)| !seen_out(*index, operation)).collect();
    let mismatch = kept.iter().any(|(_, operation)| operation.outcome == Outcome::Mismatch);
    let absence = kept.iter().any(|(_, operation)| shows_absence(operation));
    let mentioned: HashSet<u64> =
        kept.iter().filter_map(|(_, operation)| mentions(operation, known)).collect();
    let needed = |operation: &Operation| match operation.call {
        Call::Get { .. } => true,
        Call::Put { value, .. } => mismatch || mentioned.contains(&value),
        Call::Delete { .. } => absence,
    };
    let left = kept.into_iter().filter(|(index, operation)| !range.contains(index) || needed(operation));
    left.map(|(_, operation)| operation.clone()).collect()
}

/// The value on which its answer depends.
fn mentions(operation: &Operation, known: &Known) -> Option<u64> {
    match (operation.call, operation.outcome) {
        (_, Outcome::Found { value, .. } | Outcome::Removed { value, .. }) => Some(value),
        (
            Call::Put { expect: Expect::Revision(revision), .. }
            | Call::Delete { expect: Expect::Revision(revision) },
            _,
        ) => known.values.get(&revision).copied(),
        _ => None,
    }
}
