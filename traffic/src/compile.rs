//! Pure. Objects of the registry become a [`Snapshot`]. What did not change is taken over from the one before: objects
//! are read once, back ends are made anew when their service or its endpoints change, routes bound anew when they or a
//! back end change, and an own service's policies when one that selects it does. If one object cannot be compiled there is no new snapshot, and the old one stays.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use model::{
    identity::TrustDomain,
    name::ServiceName,
    object::{Key, Labels, Object},
    resource::Protocol,
};

use crate::{
    aim::Targets,
    snapshot::{Destination, Snapshot},
};

mod bind;
mod conduct;
mod guard;
mod read;

use bind::{Backends, Bound};
use conduct::Conducts;
use guard::Guard;
use read::{Item, Read};

/// What a proxy holds when its set is complete as of a revision.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// The revision.
    pub revision: u64,
    /// The trust domain.
    pub domain: TrustDomain,
    /// The generation of the trust bundle.
    pub trust_generation: u64,
    /// The objects, of whatever kinds. An object that did not change should be the same `Arc` as before.
    pub objects: BTreeMap<Key, Arc<Object>>,
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

/// What a snapshot was made from, to tell later what changed.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    items: BTreeMap<Key, Arc<Item>>,
    backends: HashMap<ServiceName, Arc<Backends>>,
    bound: HashMap<ServiceName, Bound>,
    guards: HashMap<ServiceName, Guard>,
}

/// What belongs to one service, in the order of the objects' keys.
struct Group<'a> {
    service: &'a Arc<Item>,
    /// The traffic policy that counts for it.
    conduct: Option<&'a Arc<Item>>,
    /// Where this host stands.
    place: Option<&'a Arc<Item>>,
    endpoints: Vec<&'a Arc<Item>>,
    modes: Vec<&'a Arc<Item>>,
    routes: Vec<&'a Arc<Item>>,
}

/// Makes the snapshot of `inputs`; `previous` is only there to spare work.
///
/// # Errors
/// The first object that cannot be compiled.
pub fn compile(previous: Option<&Snapshot>, inputs: &Inputs) -> Result<Snapshot, Nack> {
    let previous =
        previous.filter(|previous| previous.domain == inputs.domain).map(|previous| &previous.sources);
    let items = read::read(previous.map(|sources| &sources.items), inputs)?;
    let place = items.values().find(|item| item.place().is_some());
    let conducts = Conducts::of(&items);
    let groups = group(&items, &conducts, place);
    let backends: HashMap<_, _> = groups
        .iter()
        .map(|(name, group)| {
            let before = previous.and_then(|sources| sources.backends.get(name));
            ((*name).clone(), Backends::new(before, name, group, &inputs.domain))
        })
        .collect();
    let bound: HashMap<_, _> = groups
        .iter()
        .map(|(name, group)| {
            let before = previous.and_then(|sources| sources.bound.get(name));
            ((*name).clone(), Bound::new(before, name, group, &backends))
        })
        .collect();
    let destinations: HashMap<_, _> =
        bound.iter().map(|(name, bound)| (name.clone(), Arc::clone(&bound.destination))).collect();
    let guards = guard::guards(previous.map(|sources| &sources.guards), &items, inputs);
    Ok(Snapshot {
        revision: inputs.revision,
        domain: inputs.domain.clone(),
        trust_generation: inputs.trust_generation,
        place: place.and_then(|item| item.place()).cloned(),
        hostnames: destinations.values().map(by_hostname).collect(),
        virtual_ips: destinations.values().flat_map(by_virtual_ip).collect(),
        namespaces: destinations.keys().map(|service| service.namespace.clone()).collect(),
        destinations,
        inbound: guard::inbound(&guards, &conducts, inputs),
        callers: inputs.callers.clone(),
        sources: Sources { backends, bound, guards, items },
    })
}

impl Snapshot {
    /// The TrafficPolicy that counts for a service. Looked for anew: no request asks for it.
    pub(crate) fn traffic_policy(&self, service: &ServiceName) -> Option<&Object> {
        Conducts::of(&self.sources.items).for_service(service).map(|item| item.object())
    }
}

fn by_hostname(destination: &Arc<Destination>) -> (Arc<str>, Arc<Destination>) {
    (Arc::clone(&destination.hostname), Arc::clone(destination))
}

fn by_virtual_ip(destination: &Arc<Destination>) -> impl Iterator<Item = (IpAddr, Arc<Destination>)> {
    destination.virtual_ips.iter().map(|ip| (*ip, Arc::clone(destination)))
}

/// Endpoints and routes of services that are not there belong nowhere yet.
fn group<'a>(
    items: &'a BTreeMap<Key, Arc<Item>>,
    conducts: &Conducts<'a>,
    place: Option<&'a Arc<Item>>,
) -> BTreeMap<&'a ServiceName, Group<'a>> {
    let services = items.values().filter_map(|item| match &item.read {
        Read::Service { name, .. } => {
            let conduct = conducts.for_service(name);
            let (endpoints, modes, routes) = (Vec::new(), Vec::new(), Vec::new());
            Some((name, Group { service: item, conduct, place, endpoints, modes, routes }))
        }
        _ => None,
    });
    let mut groups: BTreeMap<_, _> = services.collect();
    for item in items.values() {
        match &item.read {
            Read::Endpoint { service, .. } => {
                groups.entry(service).and_modify(|group| group.endpoints.push(item));
            }
            Read::Route(route) => {
                let mut parents: Vec<_> = route.parents.iter().map(|(parent, _)| parent).collect();
                parents.sort();
                parents.dedup();
                for parent in parents {
                    groups.entry(parent).and_modify(|group| group.routes.push(item));
                }
            }
            // Named ones are found by their names: there may be one for each service.
            Read::Mode(mode) => match mode.aim.targets() {
                Targets::Services(services) => services.iter().for_each(|service| {
                    groups.entry(service).and_modify(|group| group.modes.push(item));
                }),
                Targets::Namespace(_) | Targets::Mesh => {
                    let selected = groups.iter_mut().filter(|(service, _)| mode.selects(service));
                    selected.for_each(|(_, group)| group.modes.push(item));
                }
            },
            Read::Service { .. } | Read::Policy(_) | Read::Conduct(_) | Read::Node(_) | Read::Other => {}
        }
    }
    groups
}

#[cfg(test)]
mod tests;
