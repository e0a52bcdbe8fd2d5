//! Slows down those who try join tokens that are none. A secret of 256 bits cannot be guessed; what is guarded is the
//! leader, whom each unknown token would cost a question. Who comes with a good token is never held up.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Failed tries that are answered with care, at once: a script that sets up a rack with an old token.
pub const FAILURES_MAX: u32 = 50;
/// One more is allowed after each such span.
pub const FAILURE_EVERY: Duration = Duration::from_millis(200);

/// Counts failed tries of this member's callers, all together: strangers have no name to count them by.
#[derive(Debug)]
pub struct Guard(Mutex<Failures>);

#[derive(Debug)]
struct Failures {
    left: u32,
    since: Instant,
}

impl Guard {
    /// Nobody has failed yet.
    pub fn new(now: Instant) -> Self {
        Self(Mutex::new(Failures { left: FAILURES_MAX, since: now }))
    }

    /// Takes one failed try into account; `false` if there were too many of late.
    pub fn fail(&self, now: Instant) -> bool {
        let mut failures = self.0.lock();
        let spans = now.saturating_duration_since(failures.since).as_millis() / FAILURE_EVERY.as_millis();
        let grown = u32::try_from(spans).unwrap_or(u32::MAX);
        if grown > 0 {
            failures.left = failures.left.saturating_add(grown).min(FAILURES_MAX);
            failures.since = now;
        }
        let allowed = failures.left > 0;
        failures.left = failures.left.saturating_sub(1);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_allowed_again_one_by_one() {
        let start = crate::clock::now();
        let guard = Guard::new(start);
        assert!((0..FAILURES_MAX).all(|_| guard.fail(start)));
        assert!(!guard.fail(start));
        assert!(guard.fail(start + FAILURE_EVERY));
        assert!(!guard.fail(start + FAILURE_EVERY));
        let later = start + FAILURE_EVERY * (FAILURES_MAX * 10);
        assert!((0..FAILURES_MAX).all(|_| guard.fail(later)));
        assert!(!guard.fail(later), "no more than the most is saved up");
    }
}
