//! What one runtime thread knows of endpoints by its own calls, how many are under way and whether they arrive; and of
//! destinations by those of all threads ([`Lore`]): how much is under way, how much may be tried again. It outlives
//! snapshots; the decisions over it are `traffic`'s.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use model::name::ServiceName;
use parking_lot::Mutex;
use traffic::{
    Dice, Moment,
    admission::{Admitted, Bounded, Full, Place},
    balancer::{self, Pool},
    endpoint::{Ejection, Endpoint, EndpointKey, Standing},
    retry::{self, Decision, Failure, Reason},
    snapshot::{Backend, Snapshot},
};

use crate::clock;

mod lore;

use lore::Destination;
pub use lore::Lore;

/// One thread's experience.
pub struct Experience {
    start: Instant,
    dice: Mutex<Dice>,
    endpoints: Mutex<HashMap<EndpointKey, Arc<Seen>>>,
    destinations: Mutex<HashMap<ServiceName, Arc<Destination>>>,
    lore: Arc<Lore>,
}

#[derive(Default)]
struct Seen {
    in_flight: AtomicU32,
    ejection: Mutex<Ejection>,
}

/// A try that is on its way to an endpoint.
pub struct OnItsWay(Arc<Seen>);

impl Experience {
    /// None yet, on one of the threads that share `lore`.
    pub fn new(lore: Arc<Lore>) -> Self {
        Self {
            start: clock::now(),
            dice: Mutex::new(Dice::seeded(clock::dice())),
            endpoints: Mutex::default(),
            destinations: Mutex::default(),
            lore,
        }
    }

    /// The time, as the decisions see it.
    pub fn moment(&self) -> Moment {
        Moment::after_start(clock::now().saturating_duration_since(self.start))
    }

    /// Throws the dice for one decision.
    pub fn dice<T>(&self, decide: impl FnOnce(&mut Dice) -> T) -> T {
        decide(&mut self.dice.lock())
    }

    /// Lets a call to a back end out, a request or a stream.
    ///
    /// # Errors
    /// If too many are under way.
    pub fn admit(&self, backend: &Backend, what: Bounded) -> Result<Admitted, Full> {
        let destination = self.destination(&backend.name.service);
        let admitted = destination.gate.admit(what, &backend.conduct)?;
        destination.budget.lock().deposit(self.moment());
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
    pub fn pick(&self, pool: &Pool, tried: &[EndpointKey]) -> Option<(Arc<Endpoint>, OnItsWay)> {
        let mut view = View { seen: self.endpoints.lock(), now: self.moment() };
        let endpoint = self.dice(|dice| balancer::pick(pool, &view, tried, dice))?.clone();
        let seen = view.seen.entry(endpoint.key.clone()).or_default().clone();
        seen.ejection.lock().called(view.now);
        seen.in_flight.fetch_add(1, Ordering::Relaxed);
        Some((endpoint, OnItsWay(seen)))
    }

    /// A try reached its endpoint's application.
    pub fn reached(&self, try_: &OnItsWay) {
        try_.0.ejection.lock().reached();
    }

    /// A try did not reach its endpoint's application.
    pub fn missed(&self, try_: &OnItsWay) {
        let now = self.moment();
        self.dice(|dice| try_.0.ejection.lock().missed(now, dice));
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
        self.lore.prune(snapshot);
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

struct View<'a> {
    seen: parking_lot::MutexGuard<'a, HashMap<EndpointKey, Arc<Seen>>>,
    now: Moment,
}

impl balancer::Experience for View<'_> {
    fn in_flight(&self, endpoint: &EndpointKey) -> u32 {
        self.seen.get(endpoint).map_or(0, |seen| seen.in_flight.load(Ordering::Relaxed))
    }

    fn standing(&self, endpoint: &EndpointKey) -> Standing {
        self.seen.get(endpoint).map_or(Standing::Fine, |seen| seen.ejection.lock().standing(self.now))
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
