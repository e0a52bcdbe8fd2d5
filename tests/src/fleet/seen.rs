//! What the fleet saw, counted without locks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters of all proxies together, and where each stands.
#[derive(Debug)]
pub struct Seen {
    pub(super) round: AtomicU64,
    pub(super) registrations: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) keep_alives: AtomicU64,
    pub(super) missed: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) streams: AtomicU64,
    pub(super) lines: AtomicU64,
    pub(super) handshakes: AtomicU64,
    hosts: Vec<Place>,
}

/// Where one proxy stands.
#[derive(Debug, Default)]
struct Place {
    /// The round in which it last kept its session alive; 0: never.
    kept: AtomicU64,
    /// The round in which the stream began that it last heard of.
    synced: AtomicU64,
    /// The revision at which its set was complete.
    revision: AtomicU64,
}

/// The counters at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Registrations that were written.
    pub registrations: u64,
    /// Registrations that were refused for a while.
    pub refused: u64,
    /// Keep-alives that were answered.
    pub keep_alives: u64,
    /// Keep-alives that no server answered.
    pub missed: u64,
    /// Sessions that were said to be over.
    pub lost: u64,
    /// Streams that began.
    pub streams: u64,
    /// Lines of streams.
    pub lines: u64,
    /// TLS handshakes that succeeded.
    pub handshakes: u64,
}

impl Seen {
    pub(super) fn new(hosts: usize) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            round: AtomicU64::new(1),
            registrations: zero(),
            refused: zero(),
            keep_alives: zero(),
            missed: zero(),
            lost: zero(),
            streams: zero(),
            lines: zero(),
            handshakes: zero(),
            hosts: std::iter::repeat_with(Place::default).take(hosts).collect(),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        Counts {
            registrations: of(&self.registrations),
            refused: of(&self.refused),
            keep_alives: of(&self.keep_alives),
            missed: of(&self.missed),
            lost: of(&self.lost),
            streams: of(&self.streams),
            lines: of(&self.lines),
            handshakes: of(&self.handshakes),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.hosts.len()
    }

    /// `round` is that in which the keep-alive was sent.
    pub(super) fn kept_alive(&self, host: usize, round: u64) {
        self.keep_alives.fetch_add(1, Relaxed);
        self.hosts[host].kept.store(round, Relaxed);
    }

    /// `round` is that in which the stream began.
    pub(super) fn synced(&self, host: usize, round: u64, revision: u64) {
        self.hosts[host].revision.store(revision, Relaxed);
        self.hosts[host].synced.store(round, Relaxed);
    }

    pub(super) fn kept(&self) -> usize {
        let round = self.round.load(Relaxed);
        self.hosts.iter().filter(|host| host.kept.load(Relaxed) == round).count()
    }

    pub(super) fn in_sync(&self, revision: u64) -> usize {
        let round = self.round.load(Relaxed);
        let fine = |host: &&Place| {
            host.kept.load(Relaxed) == round
                && host.synced.load(Relaxed) == round
                && host.revision.load(Relaxed) >= revision
        };
        self.hosts.iter().filter(fine).count()
    }
}

impl std::ops::Sub for Counts {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            registrations: self.registrations - before.registrations,
            refused: self.refused - before.refused,
            keep_alives: self.keep_alives - before.keep_alives,
            missed: self.missed - before.missed,
            lost: self.lost - before.lost,
            streams: self.streams - before.streams,
            lines: self.lines - before.lines,
            handshakes: self.handshakes - before.handshakes,
        }
    }
}
