//! What all runtime threads of the proxy know together. Limits and budgets are the host's, however many threads it has; and
//! what one of them learned of an endpoint the others need not find out. Threads keep what they found here, so that they
//! look here once; what is read for each request is read without a lock.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use model::name::ServiceName;
use parking_lot::Mutex;
use traffic::{
    Dice, Moment,
    admission::Gate,
    endpoint::{Ejection, EndpointKey, Standing},
    retry::Budget,
    route::BackendName,
    snapshot::Snapshot,
};

use crate::clock;

/// The threads' common knowledge.
pub struct Lore {
    start: Instant,
    destinations: Mutex<HashMap<ServiceName, Arc<Destination>>>,
    endpoints: Mutex<HashMap<EndpointKey, Arc<Learned>>>,
}

/// What is known of a destination.
pub(super) struct Destination {
    pub(super) gate: Arc<Gate>,
    pub(super) budget: Mutex<Budget>,
    /// Endpoints of it that calls did not reach last.
    troubled: AtomicUsize,
    /// Whose turn it is, where endpoints take turns.
    turns: Mutex<HashMap<BackendName, u64>>,
}

/// What is known of an endpoint.
pub(super) struct Learned {
    /// When it was first seen.
    pub(super) since: Moment,
    /// Whether there is something in what follows.
    troubled: AtomicBool,
    ejection: Mutex<Ejection>,
}

impl Default for Lore {
    fn default() -> Self {
        Self { start: clock::now(), destinations: Mutex::default(), endpoints: Mutex::default() }
    }
}

impl Lore {
    /// The time, as the decisions see it.
    pub fn moment(&self) -> Moment {
        Moment::after_start(clock::now().saturating_duration_since(self.start))
    }

    /// What is known of a destination; nothing yet, if nobody asked before.
    pub(super) fn destination(&self, service: &ServiceName) -> Arc<Destination> {
        let fresh = || {
            let (troubled, turns) = (AtomicUsize::new(0), Mutex::default());
            Arc::new(Destination { gate: Gate::new(), budget: Mutex::default(), troubled, turns })
        };
        self.destinations.lock().entry(service.clone()).or_insert_with(fresh).clone()
    }

    /// What is known of an endpoint; nothing yet, if nobody asked before.
    pub(super) fn endpoint(&self, key: &EndpointKey, now: Moment) -> Arc<Learned> {
        let fresh = || {
            let (troubled, ejection) = (AtomicBool::new(false), Mutex::default());
            Arc::new(Learned { since: now, troubled, ejection })
        };
        self.endpoints.lock().entry(key.clone()).or_insert_with(fresh).clone()
    }

    /// A call did not reach an endpoint's application.
    pub(super) fn missed(&self, key: &EndpointKey, learned: &Learned, now: Moment, dice: &mut Dice) {
        learned.ejection.lock().missed(now, dice);
        if !learned.troubled.swap(true, Ordering::AcqRel) {
            self.recount(key.service());
        }
    }

    /// A call reached it.
    pub(super) fn reached(&self, key: &EndpointKey, learned: &Learned) {
        if learned.troubled.load(Ordering::Acquire) {
            learned.ejection.lock().reached();
            learned.troubled.store(false, Ordering::Release);
            self.recount(key.service());
        }
    }

    /// Forgets what is gone and no thread holds any more.
    pub(super) fn prune(&self, snapshot: &Snapshot, known: &HashSet<EndpointKey>) {
        self.destinations.lock().retain(|service, destination| {
            snapshot.destination(service).is_some() || Arc::strong_count(destination) > 1
        });
        let mut gone = HashSet::new();
        self.endpoints.lock().retain(|key, learned| {
            let kept = known.contains(key) || Arc::strong_count(learned) > 1;
            if !kept && learned.troubled.load(Ordering::Acquire) {
                gone.insert(key.service().clone());
            }
            kept
        });
        gone.iter().for_each(|service| self.recount(service));
    }

    /// Counts a destination's troubled endpoints. Seldom: when there is one more, or one less.
    fn recount(&self, service: &ServiceName) {
        let endpoints = self.endpoints.lock();
        let troubled = endpoints
            .iter()
            .filter(|(key, learned)| key.service() == service && learned.troubled.load(Ordering::Acquire));
        let troubled = troubled.count();
        drop(endpoints);
        self.destination(service).troubled.store(troubled, Ordering::Release);
    }
}

impl Destination {
    /// How many of its endpoints may be ejected, at most.
    pub(super) fn troubled(&self) -> usize {
        self.troubled.load(Ordering::Acquire)
    }

    /// Whose turn it is at a back end.
    pub(super) fn turn(&self, backend: &BackendName) -> u64 {
        let mut turns = self.turns.lock();
        match turns.get_mut(backend) {
            Some(turn) => {
                *turn += 1;
                *turn
            }
            None => *turns.entry(backend.clone()).or_insert(0),
        }
    }
}

impl Learned {
    /// Whether calls reach it.
    pub(super) fn standing(&self, now: Moment) -> Standing {
        match self.troubled.load(Ordering::Acquire) {
            true => self.ejection.lock().standing(now),
            false => Standing::Fine,
        }
    }

    /// A call is on its way to it.
    pub(super) fn called(&self, now: Moment) {
        if self.troubled.load(Ordering::Acquire) {
            self.ejection.lock().called(now);
        }
    }
}
