//! Pure. Latencies in buckets that grow by 5 %: mergeable, and precise enough for a p99.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The lowest bucket's end, in microseconds.
const FIRST_MICROS: f64 = 20.0;
/// Each bucket ends so much later than the one before.
const GROWTH: f64 = 1.05;
/// As many buckets: 20 µs × 1.05^320 is about two minutes.
const BUCKETS: usize = 320;

/// Counts of latencies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histogram(Vec<u64>);

impl Default for Histogram {
    fn default() -> Self {
        Self(vec![0; BUCKETS])
    }
}

impl Histogram {
    /// Counts one latency.
    pub fn record(&mut self, latency: Duration) {
        let micros = latency.as_secs_f64() * 1e6;
        let bucket = (micros / FIRST_MICROS).max(1.0).log(GROWTH).ceil() as usize;
        self.0[bucket.min(BUCKETS - 1)] += 1;
    }

    /// Adds the counts of another one.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(&other.0) {
            *count += more;
        }
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The latency that `share` (0 to 1) of the counts do not pass, in milliseconds; 0 where nothing was counted.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let rank = (self.count() as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.0.iter().enumerate() {
            seen += count;
            if seen >= rank && seen > 0 {
                return FIRST_MICROS * GROWTH.powi(bucket as i32) / 1e3;
            }
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_bucket() {
        let mut histogram = Histogram::default();
        for millis in 1..=100 {
            histogram.record(Duration::from_millis(millis));
        }
        let mut merged = Histogram::default();
        merged.merge(&histogram);
        assert_eq!(merged.count(), 100);
        for (share, want) in [(0.5, 50.0), (0.99, 99.0)] {
            let got = merged.quantile_ms(share);
            assert!((want..want * 1.06).contains(&got), "p{share}: {got}");
        }
        assert_eq!(Histogram::default().quantile_ms(0.5), 0.0);
    }
}
