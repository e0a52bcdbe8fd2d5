//! What all runtime threads of the proxy know together. Limits and budgets are the host's, however many threads it has; and
//! what one of them learned of an endpoint the others need not find out. Threads keep what they found here, so that they
//! look here once; what is read for each request is read without a lock.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use model::name::ServiceName;
use parking_lot::Mutex;
use traffic::{
    Dice, Moment,
    admission::Gate,
    endpoint::{
        EndpointKey,
        outlier::{Cause, Heard},
    },
    retry::Budget,
    route::BackendName,
    snapshot::{Backend, Snapshot},
};

use super::learned::{Learned, Left};
use crate::clock;

/// A destination's endpoints are checked for so long after its last call.
const IN_USE: Duration = Duration::from_secs(300);

/// The threads' common knowledge.
pub struct Lore {
    start: Instant,
    destinations: Mutex<HashMap<ServiceName, Arc<Destination>>>,
    endpoints: Mutex<HashMap<EndpointKey, Arc<Learned>>>,
    /// How often endpoints of a service were ejected, by cause.
    ejections: Mutex<BTreeMap<(ServiceName, &'static str), u64>>,
}

/// What is known of a destination.
pub(super) struct Destination {
    pub(super) gate: Arc<Gate>,
    pub(super) budget: Mutex<Budget>,
    /// Endpoints of it that are left alone, or may be.
    left_alone: AtomicUsize,
    /// Whose turn it is, where endpoints take turns.
    turns: Mutex<HashMap<BackendName, u64>>,
    /// Who called it last, and when; where its endpoints are checked.
    used: Mutex<Option<(ServiceName, Moment)>>,
}

impl Default for Lore {
    fn default() -> Self {
        let (destinations, endpoints, ejections) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { start: clock::now(), destinations, endpoints, ejections }
    }
}

impl Lore {
    /// The time, as the decisions see it.
    pub fn moment(&self) -> Moment {
        Moment::after_start(clock::now().saturating_duration_since(self.start))
    }

    /// Why an endpoint is left alone, if it is.
    pub fn left_alone(&self, key: &EndpointKey) -> Option<Left> {
        let learned = self.endpoints.lock().get(key).cloned()?;
        learned.left_alone(self.moment())
    }

    /// All endpoints that are left alone because of what they answer, with why.
    pub fn all_left_alone(&self) -> Vec<(EndpointKey, Left)> {
        let (now, endpoints) = (self.moment(), self.endpoints.lock());
        let mut left: Vec<_> = endpoints
            .iter()
            .filter_map(|(key, learned)| Some((key.clone(), learned.left_alone(now)?)))
            .collect();
        left.sort_by(|(one, _), (other, _)| {
            (one.service(), one.name()).cmp(&(other.service(), other.name()))
        });
        left
    }

    /// How often endpoints of each service were ejected, by cause.
    pub fn ejections(&self) -> BTreeMap<(ServiceName, &'static str), u64> {
        self.ejections.lock().clone()
    }

    /// Who called a service last, if that is not long ago.
    pub(crate) fn last_caller(&self, service: &ServiceName) -> Option<ServiceName> {
        let destination = self.destinations.lock().get(service).cloned()?;
        let (caller, at) = destination.used.lock().clone()?;
        (self.moment().since(at) < IN_USE).then_some(caller)
    }

    /// A check of an endpoint passed, or failed for a reason.
    pub(crate) fn checked(&self, key: &EndpointKey, result: Result<(), String>) {
        let learned = self.endpoint(key, self.moment());
        if learned.checked(result, self.moment()) {
            self.recount(key.service());
        }
    }

    /// What is known of a destination; nothing yet, if nobody asked before.
    pub(super) fn destination(&self, service: &ServiceName) -> Arc<Destination> {
        let fresh = || {
            Arc::new(Destination {
                gate: Gate::new(),
                budget: Mutex::default(),
                left_alone: AtomicUsize::new(0),
                turns: Mutex::default(),
                used: Mutex::default(),
            })
        };
        self.destinations.lock().entry(service.clone()).or_insert_with(fresh).clone()
    }

    /// What is known of an endpoint; nothing yet, if nobody asked before.
    pub(super) fn endpoint(&self, key: &EndpointKey, now: Moment) -> Arc<Learned> {
        let fresh = || Arc::new(Learned::new(now));
        self.endpoints.lock().entry(key.clone()).or_insert_with(fresh).clone()
    }

    /// A call did not reach an endpoint's application.
    pub(super) fn missed(&self, key: &EndpointKey, learned: &Learned, now: Moment, dice: &mut Dice) {
        if learned.missed(now, dice) {
            self.recount(key.service());
        }
    }

    /// A call reached it.
    pub(super) fn reached(&self, key: &EndpointKey, learned: &Learned) {
        if learned.reached() {
            self.recount(key.service());
        }
    }

    /// What came of a call that an endpoint of a back end got.
    pub(super) fn heard(
        &self,
        backend: &Backend,
        (key, learned): (&EndpointKey, &Learned),
        now: Moment,
        heard: Heard,
        took: Duration,
    ) {
        let Some(settings) = &backend.conduct.outliers else { return };
        let before = learned.is_out();
        if let Some(cause) = learned.heard(settings, now, heard, took) {
            let out = |key: &EndpointKey| {
                self.endpoints.lock().get(key).is_some_and(|learned| learned.is_ejected(now))
            };
            let endpoints = backend.endpoints();
            let ejected = endpoints.iter().filter(|other| other.key != *key && out(&other.key)).count();
            match settings.may_eject(ejected, endpoints.len()) {
                true => {
                    learned.eject(settings, now, cause);
                    self.ejected(key, cause);
                }
                false => learned.spare(now),
            }
        }
        if learned.is_out() != before {
            self.recount(key.service());
        }
    }

    /// Forgets what is gone and no thread holds any more.
    pub(super) fn prune(&self, snapshot: &Snapshot, known: &HashSet<EndpointKey>) {
        self.destinations.lock().retain(|service, destination| {
            snapshot.destination(service).is_some() || Arc::strong_count(destination) > 1
        });
        self.ejections.lock().retain(|(service, _), _| snapshot.destination(service).is_some());
        let mut gone = HashSet::new();
        self.endpoints.lock().retain(|key, learned| {
            let kept = known.contains(key) || Arc::strong_count(learned) > 1;
            if !kept && learned.is_out() {
                gone.insert(key.service().clone());
            }
            kept
        });
        gone.iter().for_each(|service| self.recount(service));
    }

    fn ejected(&self, key: &EndpointKey, cause: Cause) {
        tracing::warn!(endpoint = %key, "an endpoint is ejected: {cause}");
        *self.ejections.lock().entry((key.service().clone(), cause.as_str())).or_default() += 1;
    }

    /// Counts a destination's endpoints that are left alone. Seldom: when there is one more, or one less.
    fn recount(&self, service: &ServiceName) {
        let endpoints = self.endpoints.lock();
        let out = endpoints.iter().filter(|(key, learned)| key.service() == service && learned.is_out());
        let count = out.count();
        drop(endpoints);
        self.destination(service).left_alone.store(count, Ordering::Release);
    }
}

impl Destination {
    /// How many of its endpoints may be left alone, at most.
    pub(super) fn left_alone(&self) -> usize {
        self.left_alone.load(Ordering::Acquire)
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

    /// It is called by a service.
    pub(super) fn used(&self, caller: &ServiceName, now: Moment) {
        match &mut *self.used.lock() {
            Some((last, at)) if last == caller => *at = now,
            used => *used = Some((caller.clone(), now)),
        }
    }
}
