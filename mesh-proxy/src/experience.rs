//! What one runtime thread knows of endpoints by its own calls, how many are under way and how long they take; and by
//! those of all threads ([`Lore`]) whether they arrive, how much is under way to a destination, how much may be tried again.
//! It outlives snapshots; the decisions over it are `traffic`'s.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use model::{name::ServiceName, resource::BalancerType};
use parking_lot::Mutex;
use traffic::{
    Dice, Moment,
    admission::{Admitted, Bounded, Full, Place},
    balancer::{self, Ask, Known},
    endpoint::{Endpoint, EndpointKey, Latency, outlier::Heard},
    retry::{self, Decision, Failure, Reason},
    snapshot::{Backend, Snapshot},
};

use crate::clock;

mod hearing;
mod learned;
mod lore;

pub use hearing::Hearing;
use learned::Learned;
pub use learned::Left;
use lore::Destination;
pub use lore::Lore;

/// One thread's experience.
pub struct Experience {
    dice: Mutex<Dice>,
    endpoints: Mutex<HashMap<EndpointKey, Arc<Seen>>>,
    destinations: Mutex<HashMap<ServiceName, Arc<Destination>>>,
    lore: Arc<Lore>,
}

/// What this thread knows of an endpoint.
struct Seen {
    in_flight: AtomicU32,
    latency: Mutex<Latency>,
    learned: Arc<Learned>,
}

/// A try that is on its way to an endpoint.
pub struct OnItsWay {
    key: EndpointKey,
    seen: Arc<Seen>,
    began: Moment,
}

impl Experience {
    /// None yet, on one of the threads that share `lore`.
    pub fn new(lore: Arc<Lore>) -> Self {
        Self {
            dice: Mutex::new(Dice::seeded(clock::dice())),
            endpoints: Mutex::default(),
            destinations: Mutex::default(),
            lore,
        }
    }

    /// The time, as the decisions see it.
    pub fn moment(&self) -> Moment {
        self.lore.moment()
    }

    /// Throws the dice for one decision.
    pub fn dice<T>(&self, decide: impl FnOnce(&mut Dice) -> T) -> T {
        decide(&mut self.dice.lock())
    }

    /// Lets a call of a service to a back end out, a request or a stream.
    ///
    /// # Errors
    /// If too many are under way.
    pub fn admit(&self, backend: &Backend, source: &ServiceName, what: Bounded) -> Result<Admitted, Full> {
        let (destination, now) = (self.destination(&backend.name.service), self.moment());
        let admitted = destination.gate.admit(what, &backend.conduct)?;
        destination.budget.lock().deposit(now);
        if backend.conduct.check.is_some() {
            destination.used(source, now);
        }
        Ok(admitted)
    }

    /// Decides about a try that failed: to be tried again after a wait, as one of so many retries.
    ///
    /// # Errors
    /// Why it is not tried again.
    pub fn decide(
        &self,
        backend: &Backend,
        settings: &retry::Settings,
        call: retry::Call<'_>,
        failure: Failure,
        admitted: &Admitted,
    ) -> Result<(Duration, Place), Reason> {
        let (destination, now) = (self.destination(&backend.name.service), self.moment());
        let place = admitted.again();
        let mut budget = destination.budget.lock();
        let budget = (&mut *budget, backend.conduct.budget);
        match (self.dice(|dice| retry::decide(settings, call, failure, budget, now, dice)), place) {
            (Decision::Again(wait), Ok(place)) => Ok((wait, place)),
            (Decision::Again(_), Err(_)) => Err(Reason::Limit),
            (Decision::GiveUp(reason), _) => Err(reason),
        }
    }

    /// Picks an endpoint for the next try, and counts it as on its way.
    pub fn pick(
        &self,
        backend: &Backend,
        ask: &Ask,
        tried: &[EndpointKey],
    ) -> Option<(Arc<Endpoint>, OnItsWay)> {
        let (now, balancer) = (self.moment(), &backend.conduct.balancer);
        let ask = match balancer.kind {
            BalancerType::RoundRobin => {
                ask.at_turn(self.destination(&backend.name.service).turn(&backend.name))
            }
            _ => *ask,
        };
        let mut view = View { experience: self, seen: self.endpoints.lock(), balancer, now };
        let endpoint = self.dice(|dice| balancer::pick(&backend.pool, &ask, &mut view, tried, dice))?.clone();
        let seen = view.seen(&endpoint.key).clone();
        seen.learned.called(now);
        seen.in_flight.fetch_add(1, Ordering::Relaxed);
        let key = endpoint.key.clone();
        Some((endpoint, OnItsWay { key, seen, began: now }))
    }

    /// A try reached its endpoint's application.
    pub fn reached(&self, try_: &OnItsWay) {
        let now = self.moment();
        try_.seen.latency.lock().measured(now, now.since(try_.began));
        self.lore.reached(&try_.key, &try_.seen.learned);
    }

    /// What its endpoint answered to a try that reached it, or that it broke off.
    pub fn heard(&self, try_: &OnItsWay, backend: &Backend, heard: Heard) {
        if backend.conduct.outliers.is_some() {
            self.heard_after(try_, backend, heard, self.moment().since(try_.began));
        }
    }

    /// The same, of an answer whose head took so long.
    fn heard_after(&self, try_: &OnItsWay, backend: &Backend, heard: Heard, took: Duration) {
        self.lore.heard(backend, (&try_.key, &*try_.seen.learned), self.moment(), heard, took);
    }

    /// A try did not reach its endpoint's application.
    pub fn missed(&self, try_: &OnItsWay) {
        let now = self.moment();
        self.dice(|dice| self.lore.missed(&try_.key, &try_.seen.learned, now, dice));
    }

    /// Forgets endpoints and destinations that are gone and carry nothing.
    pub fn prune(&self, snapshot: &Snapshot) {
        let ports = snapshot.destinations().flat_map(|destination| destination.ports());
        let known: HashSet<EndpointKey> =
            ports.flat_map(|port| port.backend().endpoints()).map(|endpoint| endpoint.key.clone()).collect();
        self.endpoints
            .lock()
            .retain(|key, seen| known.contains(key) || seen.in_flight.load(Ordering::Relaxed) > 0);
        self.destinations.lock().retain(|service, destination| {
            snapshot.destination(service).is_some() || !destination.gate.is_idle()
        });
        self.lore.prune(snapshot, &known);
    }

    fn destination(&self, service: &ServiceName) -> Arc<Destination> {
        let mut destinations = self.destinations.lock();
        if let Some(known) = destinations.get(service) {
            return known.clone();
        }
        let found = self.lore.destination(service);
        destinations.insert(service.clone(), found.clone());
        found
    }
}

/// What this thread knows, while it picks.
struct View<'a> {
    experience: &'a Experience,
    seen: parking_lot::MutexGuard<'a, HashMap<EndpointKey, Arc<Seen>>>,
    balancer: &'a balancer::Settings,
    now: Moment,
}

impl View<'_> {
    fn seen(&mut self, key: &EndpointKey) -> &Arc<Seen> {
        let (lore, now) = (&self.experience.lore, self.now);
        self.seen.entry(key.clone()).or_insert_with(|| {
            let learned = lore.endpoint(key, now);
            Arc::new(Seen { in_flight: AtomicU32::new(0), latency: Mutex::default(), learned })
        })
    }
}

impl balancer::Experience for View<'_> {
    fn of(&mut self, endpoint: &EndpointKey) -> Known {
        let (now, balancer) = (self.now, self.balancer);
        let fast = balancer.kind == BalancerType::PeakEwma;
        let seen = self.seen(endpoint);
        Known {
            in_flight: seen.in_flight.load(Ordering::Relaxed),
            standing: seen.learned.standing(now),
            micros: if fast { seen.latency.lock().micros(now) } else { None },
            warmth: balancer
                .slow_start
                .map_or(balancer::WARM, |_| balancer.warmth(seen.learned.since(), now)),
        }
    }

    fn ejected(&self, service: &ServiceName) -> usize {
        self.experience.destination(service).left_alone()
    }
}

impl OnItsWay {
    /// The endpoint's id.
    pub fn id(&self) -> u64 {
        self.key.id()
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        self.seen.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
