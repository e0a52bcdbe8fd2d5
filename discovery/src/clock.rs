//! The only place where this crate reads clocks.
#![expect(clippy::disallowed_methods, reason = "this is the clock that everything else is handed")]

use std::time::Instant;

/// The monotonic clock.
pub(crate) fn now() -> Instant {
    Instant::now()
}
