//! Proxies that do not speak `mesh/1`, as they are of an earlier version: that is known for a while, so that a call to them
//! asks for what they speak at once.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::Hop;

/// How long a proxy is taken to lack it. It may be replaced by a later version at any time.
const KNOWN: Duration = Duration::from_secs(60);

/// By whom it is lacked, as far as is known.
#[derive(Default)]
pub(super) struct Lacking(Mutex<HashMap<Hop, Instant>>);

impl Lacking {
    /// A proxy was asked for it, and chose something else.
    pub(super) fn found(&self, hop: &Hop, now: Instant) {
        self.0.lock().insert(hop.clone(), now);
    }

    /// Whether it is known. Most lack nothing: for these no clock is read.
    pub(super) fn knows(&self, hop: &Hop, now: impl FnOnce() -> Instant) -> bool {
        self.0.lock().get(hop).is_some_and(|since| fresh(*since, now()))
    }

    /// Forgets what may no longer be so.
    pub(super) fn sweep(&self, now: Instant) {
        self.0.lock().retain(|_, since| fresh(*since, now));
    }
}

fn fresh(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < KNOWN
}
