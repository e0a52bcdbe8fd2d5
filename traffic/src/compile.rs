//! Pure. Objects of the registry become a [`Snapshot`]. What did not change is shared with the one before, and not even
//! looked at: objects are read once, back ends are made anew when their service or its endpoints change, routes bound anew
//! when they or a back end change, and an own service's policies when one that selects it does. If one object cannot be
//! compiled there is no new snapshot, and the old one stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use imbl::{HashMap, OrdMap};
use model::{
    identity::TrustDomain,
    name::ServiceName,
    object::{Key, Labels, Object},
    resource::Protocol,
};

use crate::snapshot::Snapshot;

mod bind;
mod conduct;
mod group;
mod guard;
mod read;

use bind::{Backends, Bound};
use group::{Group, Groups};
use guard::Guards;
use read::{Change, Item, Read};

/// What a proxy holds when its set is complete as of a revision.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// The revision.
    pub revision: u64,
    /// The trust domain.
    pub domain: TrustDomain,
    /// The generation of the trust bundle.
    pub trust_generation: u64,
    /// The objects, of whatever kinds. What did not change is best shared with the inputs before: it is not looked at then.
    pub objects: OrdMap<Key, Arc<Object>>,
    /// What this host runs, by its own configuration.
    pub local: Vec<LocalApp>,
    /// The labels of those that call from here, by its own configuration, too.
    pub callers: BTreeMap<ServiceName, Labels>,
}

/// An application of this host that answers for a port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalApp {
    /// The service.
    pub service: ServiceName,
    /// The service's port.
    pub port: u16,
    /// What the application speaks.
    pub protocol: Protocol,
    /// Where it listens.
    pub target: SocketAddr,
}

/// An object that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct Nack {
    /// Which.
    pub key: Key,
    /// Why, with the wrong fields.
    pub reason: String,
}

/// What a snapshot was made from, to tell later what changed. All of it is shared with the snapshots before and after.
#[derive(Debug, Default, Clone)]
pub(crate) struct Sources {
    objects: OrdMap<Key, Arc<Object>>,
    items: OrdMap<Key, Arc<Item>>,
    groups: Groups,
    backends: HashMap<ServiceName, Arc<Backends>>,
    bound: HashMap<ServiceName, Arc<Bound>>,
    /// The services whose routes name a service.
    namers: HashMap<ServiceName, Arc<BTreeSet<ServiceName>>>,
    guards: Arc<Guards>,
    work: Work,
}

/// What was done to make a snapshot: by what changed, not by what there is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Objects that were read.
    pub read: usize,
    /// Services of which something may have changed.
    pub touched: usize,
    /// Services whose back ends were made anew.
    pub built: usize,
    /// Services whose ports and routes were bound anew.
    pub bound: usize,
    /// Objects that were looked through for policies of own services.
    pub looked_through: usize,
}

/// A service as it was and as it is; `None` where it is not there.
pub(crate) type Replaced = (Option<Arc<Bound>>, Option<Arc<Bound>>);

/// Makes the snapshot of `inputs`; `previous` is only there to spare work.
///
/// # Errors
/// The first object that cannot be compiled.
pub fn compile(previous: Option<&Snapshot>, inputs: &Inputs) -> Result<Snapshot, Nack> {
    let empty = Snapshot::empty(inputs.domain.clone());
    let before = previous.filter(|previous| previous.domain == inputs.domain).unwrap_or(&empty);
    let mut sources = Sources { work: Work::default(), ..before.sources.clone() };
    let changes = sources.read(inputs)?;
    let touched = sources.groups.take(&changes, &sources.items);
    let built = sources.build(&touched, &inputs.domain);
    let replaced = sources.bind(touched, &built);
    sources.guard(&changes, inputs);
    let mut directory = before.directory.clone();
    directory.replace(&replaced);
    Ok(Snapshot {
        revision: inputs.revision,
        domain: inputs.domain.clone(),
        trust_generation: inputs.trust_generation,
        place: sources.groups.place().cloned(),
        directory,
        inbound: guard::inbound(&sources.guards, sources.groups.conducts(), inputs),
        callers: inputs.callers.clone(),
        sources,
    })
}

impl Sources {
    /// Reads the objects that are not as they were.
    fn read(&mut self, inputs: &Inputs) -> Result<Vec<Change>, Nack> {
        let changes = read::changes(&self.objects, &self.items, inputs)?;
        for Change { key, now, .. } in &changes {
            match now {
                Some(now) => drop(self.items.insert(key.clone(), Arc::clone(now))),
                None => drop(self.items.remove(key)),
            }
        }
        self.objects = inputs.objects.clone();
        self.work.read = changes.len();
        Ok(changes)
    }

    /// Makes the back ends of services anew; of those that are not as they were, the names.
    fn build(&mut self, touched: &BTreeSet<ServiceName>, domain: &TrustDomain) -> BTreeSet<ServiceName> {
        let mut built = BTreeSet::new();
        for name in touched {
            let before = self.backends.get(name);
            let now = self.groups.of(name).map(|group| Backends::new(before, name, &group, domain));
            let same = match (before, &now) {
                (Some(before), Some(now)) => Arc::ptr_eq(before, now),
                (before, now) => before.is_none() && now.is_none(),
            };
            if same {
                continue;
            }
            match now {
                Some(now) => drop(self.backends.insert(name.clone(), now)),
                None => drop(self.backends.remove(name)),
            }
            built.insert(name.clone());
        }
        (self.work.touched, self.work.built) = (touched.len(), built.len());
        built
    }

    /// Binds the ports and routes of services anew: of what was touched, and of those that name what was built.
    fn bind(&mut self, mut names: BTreeSet<ServiceName>, built: &BTreeSet<ServiceName>) -> Vec<Replaced> {
        let namers = built.iter().filter_map(|name| self.namers.get(name)).flat_map(|namers| namers.iter());
        names.extend(namers.cloned());
        let mut replaced = Vec::new();
        for name in names {
            let before = self.bound.get(&name).cloned();
            let group = self.groups.of(&name);
            let now = group.map(|group| Bound::new(before.as_ref(), &name, &group, &self.backends));
            let same = match (&before, &now) {
                (Some(before), Some(now)) => Arc::ptr_eq(before, now),
                (before, now) => before.is_none() && now.is_none(),
            };
            if same {
                continue;
            }
            match &now {
                Some(now) => drop(self.bound.insert(name.clone(), Arc::clone(now))),
                None => drop(self.bound.remove(&name)),
            }
            self.note_names(&name, before.as_deref(), now.as_deref());
            replaced.push((before, now));
        }
        self.work.bound = replaced.len();
        replaced
    }

    /// Notes whom the routes of a service name.
    fn note_names(&mut self, namer: &ServiceName, before: Option<&Bound>, now: Option<&Bound>) {
        let named = |bound: Option<&Bound>| bound.into_iter().flat_map(Bound::named).cloned().collect();
        let (before, now): (BTreeSet<_>, BTreeSet<_>) = (named(before), named(now));
        for gone in before.difference(&now) {
            let Some(namers) = self.namers.get_mut(gone) else { continue };
            Arc::make_mut(namers).remove(namer);
            if namers.is_empty() {
                self.namers.remove(gone);
            }
        }
        for new in now.difference(&before) {
            Arc::make_mut(self.namers.entry(new.clone()).or_default()).insert(namer.clone());
        }
    }

    fn guard(&mut self, changes: &[Change], inputs: &Inputs) {
        if changes.iter().any(Change::guards) || !guard::are_of(&self.guards, inputs) {
            self.guards = Arc::new(guard::guards(&self.guards, &self.items, inputs));
            self.work.looked_through = self.items.len();
        }
    }
}

impl Snapshot {
    /// What was done to make it.
    pub fn work(&self) -> Work {
        self.sources.work
    }

    /// The TrafficPolicy that counts for a service.
    pub(crate) fn traffic_policy(&self, service: &ServiceName) -> Option<&Object> {
        self.sources.groups.conducts().for_service(service).map(|item| item.object())
    }
}

#[cfg(test)]
mod tests;
