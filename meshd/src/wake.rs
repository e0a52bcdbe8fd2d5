//! Who is woken when the state goes on. One task follows the revisions, judges each once, and rings only the watches
//! that it concerns; the others sleep on, and may go over the revision unseen. What a watch then tells its client is not
//! decided here.

use std::{
    collections::BTreeSet,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use registry::{Registry, State};
use tokio::{
    sync::{mpsc, watch},
    task::yield_now,
};
use tokio_util::sync::CancellationToken;

mod index;

use index::{Index, Slot};
pub use index::{Interest, Topic, topics};

/// So many watches are woken at once, those after them when these have been told: what is touched to wake one is still at
/// hand when it is told.
const AT_ONCE: usize = 32;

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
    index: Mutex<Index<Bell>>,
    /// The state up to which every revision was judged.
    judged: watch::Sender<Arc<State>>,
    /// Nothing is followed any more.
    closed: AtomicBool,
    counts: Counts,
}

/// Rings for one watch, which alone waits for it.
#[derive(Debug, Default)]
struct Bell {
    rung: AtomicBool,
    waiting: AtomicWaker,
}

/// Watches that shall be woken.
pub struct Round(Vec<Arc<Slot<Bell>>>);

/// One watch. Dropping it ends it.
pub struct Watch {
    wake: Arc<Wake>,
    slot: Arc<Slot<Bell>>,
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

    /// Follows the registry until `closing`; then rings for everybody, so that nobody has to wait for both. Whom a revision
    /// concerns it hands to [`ring`], on the threads where they are told, when they are many.
    pub async fn follow(
        self: Arc<Self>,
        registry: Registry,
        closing: CancellationToken,
        rounds: mpsc::Sender<Round>,
    ) {
        let mut revisions = registry.revisions();
        loop {
            revisions.borrow_and_update();
            let woken = self.judge(registry.applied());
            if woken.len() <= AT_ONCE {
                woken.iter().for_each(|slot| slot.bell.ring());
            } else if let Err(mpsc::error::SendError(Round(woken))) = rounds.send(Round(woken)).await {
                woken.iter().for_each(|slot| slot.bell.ring());
            }
            if !matches!(closing.run_until_cancelled(revisions.changed()).await, Some(Ok(()))) {
                break;
            }
        }
        self.closed.store(true, Ordering::Release);
        self.index.lock().everybody().for_each(|slot| slot.bell.ring());
    }

    /// The state goes on, and all whom that concerns are woken.
    #[cfg(test)]
    pub(crate) fn advance(&self, state: Arc<State>) {
        self.judge(state).iter().for_each(|slot| slot.bell.ring());
    }

    /// Marks come before the state can be seen, bells after: who sees the state sees what it means for them.
    fn judge(&self, state: Arc<State>) -> Vec<Arc<Slot<Bell>>> {
        let woken = self.index.lock().judge(&state);
        self.judged.send_replace(state);
        self.counts.wakeups.inc_by(woken.len() as u64);
        woken
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
        let slot = self.index.lock().enter(interest, Bell::default());
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
        poll_fn(|cx| self.poll_changed(cx)).await
    }

    /// As [`Self::changed`]. One task waits for it, the last that asked.
    pub fn poll_changed(&self, cx: &mut Context<'_>) -> Poll<Option<()>> {
        if self.wake.closed.load(Ordering::Acquire) {
            return Poll::Ready(None);
        }
        if self.slot.bell.rung() {
            return Poll::Ready(Some(()));
        }
        self.slot.bell.waiting.register(cx.waker());
        // It may have been rung in between.
        match (self.slot.bell.rung(), self.wake.closed.load(Ordering::Acquire)) {
            (_, true) => Poll::Ready(None),
            (true, false) => Poll::Ready(Some(())),
            (false, false) => Poll::Pending,
        }
    }

    /// Other topics from now on, for one who was told everything up to `place`.
    pub fn turn_to(&mut self, topics: BTreeSet<Topic>, place: u64) {
        if topics == self.topics {
            return;
        }
        let again = self.wake.index.lock().turn(&self.slot, &self.topics, &topics, place);
        self.topics = topics;
        if again {
            self.slot.bell.ring();
        }
    }
}

impl Bell {
    fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        self.waiting.wake();
    }

    /// Whether it was rung since it was last asked.
    fn rung(&self) -> bool {
        self.rung.swap(false, Ordering::AcqRel)
    }
}

/// Wakes those whom [`Wake::follow`] hands over, some at a time, until it ends.
pub async fn ring(mut rounds: mpsc::Receiver<Round>) {
    while let Some(Round(woken)) = rounds.recv().await {
        for some in woken.chunks(AT_ONCE) {
            some.iter().for_each(|slot| slot.bell.ring());
            yield_now().await;
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
