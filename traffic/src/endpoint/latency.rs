//! Pure. How long an endpoint takes to answer, as the caller sees it: a worse answer counts at once, a better one by and by
//! (a peak-sensitive moving average). What was measured fades, so that an endpoint that got slow is asked again.

use std::{f64::consts::LN_2, time::Duration};

use crate::Moment;

/// In this time what was measured fades to about a third.
const FADE: Duration = Duration::from_secs(10);

/// What was measured of an endpoint.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latency {
    /// In microseconds; 0 where nothing was measured.
    micros: f64,
    at: Moment,
}

impl Latency {
    /// An answer took so long.
    pub fn measured(&mut self, now: Moment, took: Duration) {
        let micros = (took.as_secs_f64() * 1e6).max(1.0);
        let kept = self.faded(now);
        let share = if self.micros == 0.0 || micros > kept { 0.0 } else { self.fade(now) };
        *self = Self { micros: micros + (kept - micros).max(0.0) * share, at: now };
    }

    /// In microseconds; `None` where nothing was measured.
    pub fn micros(&self, now: Moment) -> Option<u64> {
        (self.micros > 0.0).then(|| (self.faded(now) as u64).max(1))
    }

    fn faded(&self, now: Moment) -> f64 {
        self.micros * self.fade(now)
    }

    fn fade(&self, now: Moment) -> f64 {
        exp_of_minus(now.since(self.at).as_secs_f64() / FADE.as_secs_f64())
    }
}

/// `e^-x` for `x` of at least 0, to nine digits. By hand, as `f64::exp` is in the C library's part for mathematics, which
/// takes half a MB of each proxy's memory for it.
fn exp_of_minus(x: f64) -> f64 {
    // Beyond it the result is no normal number.
    const NORMAL_TO: f64 = 700.0;
    if x > NORMAL_TO {
        return 0.0;
    }
    // 2^-halvings · e^-rest, with a rest of at most half of ln 2 to either side, where the series is short.
    let halvings = (x / LN_2 + 0.5) as u64;
    let rest = x - halvings as f64 * LN_2;
    let series = (1..=8).rev().fold(1.0, |sum, n| 1.0 - rest * (1.0 / f64::from(n)) * sum);
    series * f64::from_bits((EXPONENT_OF_ONE - halvings) << MANTISSA_BITS)
}

/// IEEE 754: what stands in the exponent of 1.0.
const EXPONENT_OF_ONE: u64 = 1_023;
const MANTISSA_BITS: u32 = f64::MANTISSA_DIGITS - 1;

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `script`: `+<seconds>` passes time, `=<millis>` is measured, `~<millis>` must be what is known then, rounded.
    #[track_caller]
    fn check(script: &str) {
        let (mut latency, mut now) = (Latency::default(), Moment::default());
        for word in script.split_whitespace() {
            let number: u64 = word[1..].parse().expect("a number");
            match &word[..1] {
                "+" => now = now + Duration::from_secs(number),
                "=" => latency.measured(now, Duration::from_millis(number)),
                _ => assert_eq!(
                    latency.micros(now).map_or(0, |micros| (micros + 500) / 1_000),
                    number,
                    "{script}: {word}"
                ),
            }
        }
    }

    #[test]
    fn worse_counts_at_once_and_better_by_and_by() {
        check("~0 =10 ~10 =100 ~100 =10 ~100");
        check("=100 +10 =10 ~20 +10 =10 ~10");
        check("=100 +1 =90 ~90 =10 ~90");
    }

    #[test]
    fn it_fades_by_the_exponential_function() {
        for step in 0..=70_000 {
            let x = f64::from(step) / 100.0;
            let (got, want) = (exp_of_minus(x), (-x).exp());
            assert!(((got - want) / want).abs() < 1e-9, "e^-{x} is {want}, not {got}");
        }
        assert_eq!(exp_of_minus(1e9), 0.0);
    }

    #[test]
    fn what_was_measured_fades() {
        check("=1000 +10 ~368 +10 ~135 +100 ~0");
        assert_eq!(Latency::default().micros(Moment::default()), None);
    }
}
