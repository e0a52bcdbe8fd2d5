//! The only place where this crate reads clocks and throws dice.
#![expect(
    clippy::disallowed_methods,
    reason = "these are the clock and the dice that everything else is handed"
)]

use std::time::Instant;

/// The monotonic clock.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A number that nobody can guess.
pub(crate) fn unguessable() -> u16 {
    rand::random()
}
