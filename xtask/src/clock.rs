//! The one place of this crate that reads a clock.

use std::time::Instant;

/// Now, for timing the groups of a run.
#[expect(clippy::disallowed_methods, reason = "the crate's one reader of the clock")]
pub fn now() -> Instant {
    Instant::now()
}
