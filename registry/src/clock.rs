//! The only place of this crate where clocks are read and dice are thrown.
#![expect(clippy::disallowed_methods, reason = "everything else is handed what it needs")]

use std::time::SystemTime;

use model::duration::Millis;
use tokio::time::Instant;
use uuid::Uuid;

/// The wall clock: for stamps that people read, and for log time on the leader.
pub(crate) fn wall() -> Millis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// For deadlines and spans.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// An id that nobody else has.
pub(crate) fn unique() -> Uuid {
    Uuid::new_v4()
}
