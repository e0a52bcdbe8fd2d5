//! Pure. Sums by their labels. What is counted next is mostly of the series that was counted last: that is compared before
//! anything is hashed or copied.

use std::{collections::HashMap, hash::Hash};

use super::SERIES_MAX;

/// Sums by their labels, [`SERIES_MAX`] and those that stand for all others at most.
#[derive(Debug, Clone)]
pub(super) struct Series<K, V> {
    places: HashMap<K, usize>,
    pub(super) held: Vec<(K, V)>,
    last: usize,
}

impl<K: Hash + Eq + Clone, V: Default> Series<K, V> {
    /// The sums of what is counted now: those of `labels`, which `is_it` knows again, or of `other` where there are too many.
    pub(super) fn of(
        &mut self,
        is_it: impl Fn(&K) -> bool,
        labels: impl FnOnce() -> K,
        other: impl FnOnce() -> K,
    ) -> &mut V {
        if !self.held.get(self.last).is_some_and(|(last, _)| is_it(last)) {
            let labels = labels();
            let full = self.held.len() >= SERIES_MAX && !self.places.contains_key(&labels);
            let labels = if full { other() } else { labels };
            let next = self.held.len();
            self.last = *self.places.entry(labels.clone()).or_insert(next);
            if self.last == next {
                self.held.push((labels, V::default()));
            }
        }
        &mut self.held[self.last].1
    }
}

impl<K, V> Default for Series<K, V> {
    fn default() -> Self {
        Self { places: HashMap::new(), held: Vec::new(), last: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_by_turns_and_in_a_row_comes_to_its_own_series() {
        let mut series: Series<u32, u32> = Series::default();
        for number in [1, 1, 2, 1, 2, 2, 3, 1] {
            *series.of(|last| *last == number, || number, || 0) += 1;
        }
        assert_eq!(series.held, [(1, 4), (2, 3), (3, 1)]);
        let many = SERIES_MAX as u32 + 10;
        (0..many).map(|n| n + 10).for_each(|n| *series.of(|last| *last == n, || n, || 0) += 1);
        assert_eq!((series.held.len(), series.held.last()), (SERIES_MAX + 1, Some(&(0, 13))));
    }
}
