//! What all runtime threads of the proxy know together of destinations: limits and budgets are the host's, however many
//! threads it has. Threads keep what they found here, so that they look here once.

use std::{collections::HashMap, sync::Arc};

use model::name::ServiceName;
use parking_lot::Mutex;
use traffic::{admission::Gate, retry::Budget, snapshot::Snapshot};

/// The threads' common knowledge.
#[derive(Default)]
pub struct Lore {
    destinations: Mutex<HashMap<ServiceName, Arc<Destination>>>,
}

/// What is known of a destination.
pub(super) struct Destination {
    pub(super) gate: Arc<Gate>,
    pub(super) budget: Mutex<Budget>,
}

impl Lore {
    /// What is known of a destination; nothing yet, if nobody asked before.
    pub(super) fn destination(&self, service: &ServiceName) -> Arc<Destination> {
        let fresh = || Arc::new(Destination { gate: Gate::new(), budget: Mutex::default() });
        self.destinations.lock().entry(service.clone()).or_insert_with(fresh).clone()
    }

    /// Forgets what is gone and no thread holds any more.
    pub(super) fn prune(&self, snapshot: &Snapshot) {
        self.destinations.lock().retain(|service, destination| {
            snapshot.destination(service).is_some() || Arc::strong_count(destination) > 1
        });
    }
}
