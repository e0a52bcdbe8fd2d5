//! Pure. Chance as an argument: a stream of numbers from a seed, for spreading load and jitter. Never for secrets.

use std::time::Duration;

/// A stream of numbers (SplitMix64). The same seed gives the same stream; whoever has a clock and a system gives the seed.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The stream of `seed`.
    pub const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, evenly from all of them.
    pub const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to, and not, `end`; 0 if `end` is.
    pub const fn below(&mut self, end: u64) -> u64 {
        scale(self.roll(), end)
    }

    /// A span of at most `most`.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.below(nanos.saturating_add(1)))
    }

    /// A span from half of `span` up to `span`, so that many who start together do not meet again.
    pub fn jitter(&mut self, span: Duration) -> Duration {
        span / 2 + self.up_to(span - span / 2)
    }
}

/// Where a number out of all 64-bit ones lies among `end`. Each gets a share that is exact to `end` / 2^64.
pub(crate) const fn scale(point: u64, end: u64) -> u64 {
    ((point as u128 * end as u128) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_in_range_and_are_spread_evenly() {
        let mut dice = Dice::seeded(1);
        let mut seen = [0_u32; 10];
        for _ in 0..100_000 {
            seen[dice.below(10) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| (9_600..10_400).contains(&count)), "{seen:?}");
        assert_eq!(dice.below(0), 0);
    }

    #[test]
    fn jitter_is_between_a_half_and_the_whole() {
        let mut dice = Dice::seeded(2);
        let span = Duration::from_millis(100);
        for _ in 0..1_000 {
            let jittered = dice.jitter(span);
            assert!(jittered >= span / 2 && jittered <= span, "{jittered:?}");
        }
        assert_eq!(dice.jitter(Duration::ZERO), Duration::ZERO);
    }
}
