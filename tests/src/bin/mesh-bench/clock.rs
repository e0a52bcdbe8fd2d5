//! The running clock.

use std::time::Instant;

/// Now.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The time since then.
pub(crate) fn since(then: Instant) -> std::time::Duration {
    now().duration_since(then)
}
