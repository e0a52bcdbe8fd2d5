//! Pure. The order in which endpoints take turns: each as often as its weight says, and never many times in a row. Worked
//! out once for a set of endpoints; who is next is a look into it.

use std::{cmp::Reverse, collections::BinaryHeap};

/// As many turns as one order has, but one for each endpoint: weights that want more are rounded.
const TURNS_MAX: u64 = 4_096;
/// A unit of time that every weight divides well enough.
const SPAN: u64 = 1 << 40;

/// Who is next, as indexes.
#[derive(Debug)]
pub(super) struct Turns(Vec<u32>);

impl Turns {
    /// For these weights; none is 0.
    pub(super) fn new(weights: &[u64]) -> Self {
        Self(order(weights))
    }

    /// Whose turn it is at `turn`, then whose at the next ones.
    pub(super) fn walk(&self, turn: u64) -> impl Iterator<Item = usize> + '_ {
        let first = (turn % (self.0.len().max(1) as u64)) as usize;
        let (before, after) = self.0.split_at(first);
        after.iter().chain(before).map(|index| *index as usize)
    }
}

/// Whose turn comes first in time, by its weight, is next.
fn order(weights: &[u64]) -> Vec<u32> {
    let shared = weights.iter().copied().fold(0, greatest_divisor).max(1);
    let sum: u64 = weights.iter().sum::<u64>() / shared;
    let turns = |weight: u64| match sum {
        0..=TURNS_MAX => weight / shared,
        _ => (weight / shared * TURNS_MAX / sum).max(1),
    };
    let turns: Vec<u64> = weights.iter().map(|weight| turns(*weight)).collect();
    let mut due: BinaryHeap<_> =
        (0..).zip(&turns).map(|(index, turns)| Reverse((SPAN / turns / 2, index))).collect();
    let mut order = Vec::new();
    for _ in 0..turns.iter().sum::<u64>() {
        let Some(Reverse((at, index))) = due.pop() else { break };
        order.push(index);
        due.push(Reverse((at + SPAN / turns[index as usize], index)));
    }
    order
}

const fn greatest_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(weights: &[u64], want: &str) {
        let order: String = order(weights).into_iter().map(|index| (b'a' + index as u8) as char).collect();
        assert_eq!(order, want, "{weights:?}");
    }

    #[test]
    fn equals_take_turns_and_others_by_their_weight() {
        check(&[], "");
        check(&[7, 7, 7], "abc");
        check(&[1, 3], "bbab");
        check(&[2, 1, 1], "abca");
    }

    #[test]
    fn great_weights_are_rounded_and_nobody_is_left_out() {
        let order = order(&[1, 999_999, 500_000]);
        let of = |wanted| order.iter().filter(|&&index| index == wanted).count();
        assert!((4_096..4_100).contains(&order.len()), "{}", order.len());
        assert_eq!((of(0), of(1) / 1_000, of(2) / 1_000), (1, 2, 1));
    }
}
