//! Who is woken when the state goes on. One task follows the revisions, judges each once, and rings only the watches
//! that it concerns; the others sleep on, and may go over the revision unseen. What a watch then tells its client is not
//! decided here.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use registry::{Registry, State};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

mod index;

use index::{Index, Slot};
pub use index::{Interest, Topic, topics};

/// What is counted of watches.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Watches that were woken, each time.
    pub wakeups: Counter,
    /// Watches that are open, of all forms.
    pub watches: Gauge,
}

/// The watches of this server.
pub struct Wake {
    index: Mutex<Index<Notify>>,
    /// The state up to which every revision was judged.
    judged: watch::Sender<Arc<State>>,
    /// Nothing is followed any more.
    closed: AtomicBool,
    counts: Counts,
}

/// One watch. Dropping it ends it.
pub struct Watch {
    wake: Arc<Wake>,
    slot: Arc<Slot<Notify>>,
    topics: BTreeSet<Topic>,
}

/// What a watch finds when it looks.
pub struct Look {
    /// The state; all up to its revision was judged.
    pub state: Arc<State>,
    /// Nothing of interest happened up to this revision that was not told: at least the place that was handed in.
    pub place: u64,
    /// Whether something changed that its caller's rights rest on.
    pub access: bool,
}

impl Wake {
    /// Nobody watches yet.
    pub fn new(state: Arc<State>, counts: Counts) -> Arc<Self> {
        let index = Mutex::new(Index::new(&state));
        Arc::new(Self { index, judged: watch::Sender::new(state), closed: AtomicBool::new(false), counts })
    }

    /// Follows the registry until `closing`; then rings for everybody, so that nobody has to wait for both.
    pub async fn follow(self: Arc<Self>, registry: Registry, closing: CancellationToken) {
        let mut revisions = registry.revisions();
        loop {
            revisions.borrow_and_update();
            self.advance(registry.applied());
            if !matches!(closing.run_until_cancelled(revisions.changed()).await, Some(Ok(()))) {
                break;
            }
        }
        self.closed.store(true, Ordering::Release);
        self.index.lock().everybody().for_each(|slot| slot.bell.notify_one());
    }

    /// Marks come before the state can be seen, bells after: who sees the state sees what it means for them.
    pub(crate) fn advance(&self, state: Arc<State>) {
        let woken = self.index.lock().judge(&state);
        self.judged.send_replace(state);
        self.counts.wakeups.inc_by(woken.len() as u64);
        woken.iter().for_each(|slot| slot.bell.notify_one());
    }

    /// The state up to which everything was judged.
    pub fn state(&self) -> Arc<State> {
        self.judged.borrow().clone()
    }

    /// The state once everything up to `revision` was judged, which this member has applied already or will.
    pub async fn at_least(&self, revision: u64) -> Arc<State> {
        let mut judged = self.judged.subscribe();
        match judged.wait_for(|state| state.revision() >= revision).await {
            Ok(state) => state.clone(),
            // Cannot be: the sender is ours.
            Err(_) => self.state(),
        }
    }

    /// A new watch. Register first, then look: what comes after is rung for.
    pub fn watch(self: &Arc<Self>, interest: Interest) -> Watch {
        self.counts.watches.inc();
        let topics = interest.topics.clone();
        let slot = self.index.lock().enter(interest, Notify::new());
        Watch { wake: self.clone(), slot, topics }
    }
}

impl Watch {
    /// The state, and from which place on it is worth a look for one who was told everything up to `place`.
    pub fn look(&self, place: u64) -> Look {
        let state = self.wake.state();
        let (place, access) = self.slot.look(place, state.revision());
        Look { state, place, access }
    }

    /// Everything up to `place` was told.
    pub fn told(&self, place: u64) {
        self.slot.told(place);
    }

    /// Waits for something of interest that was not looked at yet; `None` when the server closes.
    pub async fn changed(&self) -> Option<()> {
        if !self.wake.closed.load(Ordering::Acquire) {
            self.slot.bell.notified().await;
        }
        (!self.wake.closed.load(Ordering::Acquire)).then_some(())
    }

    /// Other topics from now on, for one who was told everything up to `place`.
    pub fn turn_to(&mut self, topics: BTreeSet<Topic>, place: u64) {
        if topics == self.topics {
            return;
        }
        let again = self.wake.index.lock().turn(&self.slot, &self.topics, &topics, place);
        self.topics = topics;
        if again {
            self.slot.bell.notify_one();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.wake.index.lock().leave(&self.slot, &self.topics);
        self.wake.counts.watches.dec();
    }
}

#[cfg(test)]
mod tests;
