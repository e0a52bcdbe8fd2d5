//! How often the services of this host are called: the tokens of all runtime threads. What a request costs is decided in
//! `traffic::rate`.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use http::request;
use model::name::ServiceName;
use parking_lot::Mutex;
use traffic::{
    Moment,
    path::NormalPath,
    policy::Permit,
    rate::{Buckets, Limit, Stand, Told},
    request::RequestHead,
    snapshot::{OwnService, Snapshot},
};

use crate::{
    clock,
    heads::{self, Seen},
};

/// How often what is full again, or gone, is forgotten.
const SWEEP: Duration = Duration::from_secs(10);

/// The tokens of this host.
pub struct Rates {
    start: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By service, as a policy may be for several, and by limit.
    buckets: HashMap<(ServiceName, Arc<str>), Buckets>,
    swept: Moment,
}

/// A request came too often.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the rate limit {name} is used up: come again in {retry_secs} s")]
pub struct TooOften {
    /// The limit: `<namespace>/<policy>/<limit>`.
    pub name: Arc<str>,
    /// When to come again, in seconds.
    pub retry_secs: u64,
    /// What the caller is told.
    pub told: Told,
}

impl Default for Rates {
    fn default() -> Self {
        Self { start: clock::now(), state: Mutex::default() }
    }
}

impl Rates {
    /// Takes a token of every limit that a request to `own` meets, whose caller was let in; `None` if it meets none.
    ///
    /// # Errors
    /// If one of them has none; then none is taken.
    pub fn take(
        &self,
        own: &OwnService,
        permit: &Permit,
        head: &request::Parts,
        path: &NormalPath<'_>,
    ) -> Result<Option<Told>, TooOften> {
        if own.conduct.rates.is_empty() {
            return Ok(None);
        }
        let (fields, now) = (Seen(&head.headers), self.moment());
        let (method, authority) = (head.method.as_str(), heads::authority(head));
        let seen = RequestHead { method, path, authority, fields: &fields };
        let mut state = self.state.lock();
        let (mut met, mut nearest): (Vec<_>, Option<(&Arc<Limit>, Stand)>) = (Vec::new(), None);
        for (limit, key) in own.conduct.rates.about(&seen, permit.caller()) {
            let buckets = state.buckets.entry((own.name.clone(), limit.name.clone())).or_default();
            let stand = buckets.look(limit.rate, key, now);
            if !stand.allowed {
                return Err(TooOften::new(limit, stand));
            }
            met.push((limit, key));
            nearest = nearest.filter(|(_, nearest)| nearest.left <= stand.left).or(Some((limit, stand)));
        }
        for (limit, key) in met {
            let buckets = state.buckets.entry((own.name.clone(), limit.name.clone())).or_default();
            buckets.take(limit.rate, key, now);
        }
        Ok(nearest.map(|(limit, stand)| limit.told(stand)))
    }

    /// Forgets what is full again, and limits that are gone; now and then.
    pub fn sweep(&self, snapshot: &Snapshot) {
        let now = self.moment();
        let mut state = self.state.lock();
        if now.since(state.swept) < SWEEP {
            return;
        }
        state.swept = now;
        state.buckets.retain(|(service, name), buckets| {
            buckets.sweep(now);
            let own = snapshot.inbound().service(service);
            own.is_some_and(|own| own.conduct.rates.has(name))
        });
    }

    fn moment(&self) -> Moment {
        Moment::after_start(clock::now().saturating_duration_since(self.start))
    }
}

impl TooOften {
    fn new(limit: &Limit, stand: Stand) -> Self {
        let (name, retry_secs) = (limit.name.clone(), stand.reset_secs());
        Self { name, retry_secs, told: limit.told(stand) }
    }
}
