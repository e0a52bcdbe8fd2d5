//! Pure. What openraft counts its batches with: stands in for the crate of this name, by its interface as far as openraft
//! uses it. That one makes tables for all sixteen precisions that it knows when the first histogram is made, 26 MB in each
//! process, and openraft uses one of them. Nobody here reads what is counted, so a bucket for each power of two will do.

use std::{fmt, marker::PhantomData};

/// Zero, and each number of bits that a value can have.
const BUCKETS: usize = u64::BITS as usize + 1;

/// How often values of each number of bits came. `T` is a parameter of the original's that openraft leaves at its default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; BUCKETS],
    of: PhantomData<T>,
}

/// A histogram in some figures: how many values, and the least that so many of a hundred stay within, as a power of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

/// Several histograms under one another; here their figures.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart(Vec<(String, PercentileStats)>);

impl<T> Histogram<T> {
    /// An empty one.
    pub fn new() -> Self {
        Self { counts: [0; BUCKETS], of: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value that came `times` times.
    pub fn record_n(&mut self, value: u64, times: u64) {
        let bits = u64::BITS - value.leading_zeros();
        self.counts[bits as usize] = self.counts[bits as usize].saturating_add(times);
    }

    /// How many values came.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |total, count| total.saturating_add(*count))
    }

    /// The least value of the bucket in which a share of all values, from 0 to 1, is reached; 0 if none came.
    pub fn percentile(&self, share: f64) -> u64 {
        let wanted = (self.total() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0_u64;
        let reached = self.counts.iter().position(|count| {
            seen = seen.saturating_add(*count);
            seen >= wanted
        });
        reached.filter(|bits| *bits > 0).map_or(0, |bits| 1 << (bits - 1))
    }

    /// Its figures.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.1),
            p50: self.percentile(0.5),
            p90: self.percentile(0.9),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p50, p99, p99_9, .. } = self;
        write!(f, "[samples: {samples}, P50: {p50}, P99: {p99}, P99.9: {p99_9}]")
    }
}

impl AsciiChart {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more.
    #[must_use]
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> Self {
        self.0.push((name.into(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, figures)| writeln!(f, "{name}: {figures}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_to_a_power_of_two() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!((histogram.total(), histogram.percentile(0.5)), (0, 0));
        for value in 1..=100 {
            histogram.record(value);
        }
        histogram.record_n(0, 2);
        histogram.record_n(u64::MAX, 1);
        let figures = histogram.percentile_stats();
        assert_eq!((figures.samples, figures.p0_1, figures.p50, figures.p99), (103, 0, 32, 64));
        assert_eq!(histogram.percentile(1.0), 1 << 63);
    }
}
