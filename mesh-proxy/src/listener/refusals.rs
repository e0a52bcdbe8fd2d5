//! What is said of callers that are refused before they have asked for anything.

use std::net::SocketAddr;

use parking_lot::Mutex;

use crate::clock;

/// Refused callers that are named in the log each second; the others are counted.
const REFUSALS_TOLD_MAX: u32 = 100;

/// Tells of refused callers, so many each second: a stranger must not fill the log.
#[derive(Default)]
pub struct Refusals(Mutex<(u64, u32)>);

impl Refusals {
    /// Tells of one.
    pub fn tell(&self, peer: SocketAddr, reason: &str) {
        let second = clock::unix().as_secs();
        let mut told = self.0.lock();
        if told.0 != second {
            let lost = told.1.saturating_sub(REFUSALS_TOLD_MAX);
            if lost > 0 {
                tracing::warn!(callers = lost, "more callers were refused");
            }
            *told = (second, 0);
        }
        told.1 = told.1.saturating_add(1);
        if told.1 <= REFUSALS_TOLD_MAX {
            tracing::warn!(%peer, "a caller is refused: {reason}");
        }
    }
}
