//! Whether a member's disk has room: said by whoever writes, heard by whoever decides. A full disk is no failure: nothing
//! is half done, everybody waits, and goes on by itself when there is room. It never speaks of a disk that fails.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

/// Between two looks for room.
pub(crate) const ROOM_RETRY: Duration = Duration::from_secs(1);

/// Who lacks room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Full {
    /// The log, for its next segment. The present one goes on for a while.
    pub log: bool,
    /// The audit; applied entries wait in memory.
    pub audit: bool,
    /// The snapshots; the log is not purged meanwhile.
    pub snapshots: bool,
}

/// One of those who write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Log,
    Audit,
    Snapshots,
}

/// What all parts of a member share.
#[derive(Debug, Clone)]
pub(crate) struct Disk(Arc<watch::Sender<Full>>);

impl Full {
    /// Whether anybody lacks room.
    pub fn any(self) -> bool {
        self.log || self.audit || self.snapshots
    }

    fn part(&mut self, part: Part) -> &mut bool {
        match part {
            Part::Log => &mut self.log,
            Part::Audit => &mut self.audit,
            Part::Snapshots => &mut self.snapshots,
        }
    }
}

impl Disk {
    /// There is room as long as nobody says otherwise.
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Full::default())))
    }

    /// Says whether a part lacks room; answers what it said before.
    pub(crate) fn set(&self, part: Part, full: bool) -> bool {
        let mut before = full;
        self.0.send_if_modified(|now| {
            before = std::mem::replace(now.part(part), full);
            before != full
        });
        before
    }

    pub(crate) fn full(&self) -> Full {
        *self.0.borrow()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Full> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_full_while_anybody_says_so() {
        let disk = Disk::new();
        assert!(!disk.set(Part::Log, true) && disk.set(Part::Log, true));
        assert!(!disk.set(Part::Audit, true));
        assert!(disk.set(Part::Log, false) && disk.full().any());
        assert!(disk.set(Part::Audit, false) && !disk.full().any());
    }
}
