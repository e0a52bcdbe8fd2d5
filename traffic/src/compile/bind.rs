//! Pure. What was read becomes what is looked up: first each service's back ends, then its ports with their routes, which
//! may name back ends of other services.

use std::{
    collections::{self, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use imbl::HashMap;
use model::{
    identity::{SpiffeId, TrustDomain},
    name::{Name, ServiceName},
    resource::{PeerAuthenticationMode, ServicePort, ServiceSpec, Subset},
};

use super::{Group, Item, Read};
use crate::{
    balancer::Pool,
    endpoint::Endpoint,
    policy::{PeerModes, RuleId},
    route::{BackendName, Missing, Route, RouteTable, Rule, RuleName, Speaks, Split, Timeouts, Unbound},
    snapshot::{Backend, Destination, Port},
};

/// The back ends of one service: each port, and each subset of each port.
#[derive(Debug)]
pub(super) struct Backends {
    from: Vec<Arc<Item>>,
    subsets: Vec<Name>,
    all: collections::HashMap<(u16, Option<Name>), Arc<Backend>>,
}

/// A destination, with what it was bound from.
#[derive(Debug)]
pub(crate) struct Bound {
    own: Arc<Backends>,
    routes: Vec<Arc<Item>>,
    /// The services that its routes name, each once, as they were.
    named: Vec<(ServiceName, Option<Arc<Backends>>)>,
    pub(crate) destination: Arc<Destination>,
}

fn same<'a>(before: &[Arc<Item>], now: impl ExactSizeIterator<Item = &'a Arc<Item>>) -> bool {
    before.len() == now.len() && before.iter().zip(now).all(|(before, now)| Arc::ptr_eq(before, now))
}

// === impl Backends ===

impl Backends {
    pub(super) fn new(
        before: Option<&Arc<Self>>,
        name: &ServiceName,
        group: &Group<'_>,
        domain: &TrustDomain,
    ) -> Arc<Self> {
        let conduct = super::conduct::conduct(group.conduct);
        // Where this host stands matters to those alone whose calls stay in its zone.
        let place = group.place.filter(|_| conduct.balancer.prefers_zones());
        let own = [group.service].into_iter().chain(group.conduct).chain(place);
        let from: Vec<_> = own.chain(group.endpoints).chain(group.modes()).collect();
        if let Some(before) = before
            && same(&before.from, from.iter().copied())
        {
            return Arc::clone(before);
        }
        let spec = spec(group.service);
        let modes = modes(group.modes());
        let called = Called::of(group.endpoints);
        let hostname: Arc<str> = name.hostname().into();
        let id = SpiffeId::service(domain, name);
        let zone = place.and_then(|place| place.place()?.zone.as_ref());
        let backend = |port: &ServicePort, subset: Option<&Subset>| Backend {
            name: match subset {
                None => BackendName::whole(name, port.number()),
                Some(subset) => BackendName::part(name, port.number(), &subset.name),
            },
            hostname: Arc::clone(&hostname),
            id: id.clone(),
            protocol: port.protocol,
            plain: called.past_proxies || modes.of(port.number()).0 == PeerAuthenticationMode::Disabled,
            conduct: Arc::clone(&conduct),
            pool: {
                let endpoints = called.at(&modes, port.number());
                Pool::new(members(endpoints, port.number(), subset), conduct.balancer.clone(), zone)
            },
        };
        let parts = || [None].into_iter().chain(spec.subsets.iter().map(Some));
        let all = spec.ports.iter().flat_map(|port| parts().map(move |subset| (port, subset)));
        let all = all.map(|(port, subset)| {
            ((port.number(), subset.map(|subset| subset.name.clone())), Arc::new(backend(port, subset)))
        });
        let subsets = spec.subsets.iter().map(|subset| subset.name.clone()).collect();
        Arc::new(Self { all: all.collect(), subsets, from: from.into_iter().cloned().collect() })
    }

    fn find(&self, port: u16, subset: Option<&Name>) -> Result<Arc<Backend>, Missing> {
        match self.all.get(&(port, subset.cloned())) {
            Some(backend) => Ok(Arc::clone(backend)),
            None if subset.is_some_and(|subset| !self.subsets.contains(subset)) => Err(Missing::Subset),
            None => Err(Missing::Port),
        }
    }
}

/// The modes that items say.
pub(super) fn modes<'a>(items: impl Iterator<Item = &'a Arc<Item>>) -> PeerModes {
    let mode = |item: &Arc<Item>| match &item.read {
        Read::Mode(mode) => Some(Arc::clone(mode)),
        _ => None,
    };
    PeerModes::new(items.filter_map(mode).collect())
}

fn spec(service: &Item) -> &ServiceSpec {
    match &service.read {
        Read::Service { spec, .. } => spec,
        _ => unreachable!("a group is made for a service only"),
    }
}

fn virtual_ips(service: &Item) -> &[IpAddr] {
    match &service.read {
        Read::Service { virtual_ips, .. } => virtual_ips,
        _ => &[],
    }
}

/// Which endpoints of a service are called: those behind proxies, or, while there are none of these, those without. They
/// are never called side by side.
struct Called<'a> {
    endpoints: Vec<&'a Arc<Item>>,
    past_proxies: bool,
}

impl<'a> Called<'a> {
    fn of(all: &'a [Arc<Item>]) -> Self {
        let behind =
            |item: &&Arc<Item>| matches!(&item.read, Read::Endpoint { endpoint, .. } if endpoint.has_proxy());
        let endpoints: Vec<_> = all.iter().filter(behind).collect();
        let past_proxies = endpoints.is_empty() && !all.is_empty();
        Self { endpoints: if past_proxies { all.iter().collect() } else { endpoints }, past_proxies }
    }

    /// Those that a port may be called at: where somebody says that callers come over mTLS only, none past a proxy. What
    /// holds where nobody says anything does not keep them from it.
    fn at(&self, modes: &PeerModes, port: u16) -> &[&'a Arc<Item>] {
        let (mode, rule) = modes.of(port);
        let strict = mode == PeerAuthenticationMode::Strict && rule != RuleId::MeshPeers;
        if self.past_proxies && strict { &[] } else { &self.endpoints }
    }
}

/// The endpoints that serve a port, of a subset if one is named.
fn members<'a>(
    endpoints: &'a [&'a Arc<Item>],
    port: u16,
    subset: Option<&'a Subset>,
) -> impl Iterator<Item = Arc<Endpoint>> + 'a {
    endpoints.iter().filter_map(move |item| match &item.read {
        Read::Endpoint { labels, ports, endpoint, .. }
            if ports.contains(&port) && subset.is_none_or(|subset| subset.selects(labels)) =>
        {
            Some(Arc::clone(endpoint))
        }
        _ => None,
    })
}

// === impl Bound ===

impl Bound {
    pub(super) fn new(
        before: Option<&Arc<Self>>,
        name: &ServiceName,
        group: &Group<'_>,
        backends: &HashMap<ServiceName, Arc<Backends>>,
    ) -> Arc<Self> {
        let own = &backends[name];
        if let Some(before) = before.filter(|before| before.still_holds(own, group, backends)) {
            return Arc::clone(before);
        }
        let named: BTreeSet<_> = named(group).collect();
        Arc::new(Self {
            own: Arc::clone(own),
            routes: group.routes.to_vec(),
            named: named.into_iter().map(|name| (name.clone(), backends.get(name).cloned())).collect(),
            destination: Arc::new(destination(name, group, own, backends)),
        })
    }

    /// The services that its routes name.
    pub(super) fn named(&self) -> impl Iterator<Item = &ServiceName> {
        self.named.iter().map(|(name, _)| name)
    }

    fn still_holds(
        &self,
        own: &Arc<Backends>,
        group: &Group<'_>,
        backends: &HashMap<ServiceName, Arc<Backends>>,
    ) -> bool {
        let as_it_was = |(service, before): &(ServiceName, Option<Arc<Backends>>)| match (
            before,
            backends.get(service),
        ) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (None, None) => true,
            _ => false,
        };
        Arc::ptr_eq(&self.own, own)
            && same(&self.routes, group.routes.iter())
            && self.named.iter().all(as_it_was)
    }
}

fn routes<'a>(group: &'a Group<'_>) -> impl Iterator<Item = &'a Route> {
    group
        .routes
        .iter()
        .filter_map(|item| if let Read::Route(route) = &item.read { Some(route) } else { None })
}

/// The services that a group's routes name as back ends, or for copies.
fn named<'a>(group: &'a Group<'_>) -> impl Iterator<Item = &'a ServiceName> {
    routes(group).flat_map(|route| &route.rules).flat_map(Unbound::services)
}

fn destination(
    name: &ServiceName,
    group: &Group<'_>,
    own: &Backends,
    backends: &HashMap<ServiceName, Arc<Backends>>,
) -> Destination {
    let find = |wanted: &BackendName| match backends.get(&wanted.service) {
        Some(backends) => backends.find(wanted.port, wanted.subset.as_ref()),
        None => Err(Missing::Service),
    };
    let port = |port: &ServicePort| {
        let number = port.number();
        let (streams, mut routes): (Vec<_>, Vec<_>) = routes(group)
            .filter(|route| route.is_for(name, number))
            .partition(|route| route.speaks == Speaks::Bytes);
        // A port has HTTPRoutes or GRPCRoutes: the oldest says which (GRPCRoute, cross serving).
        if let Some(speaks) = oldest(&routes).map(|oldest| oldest.speaks) {
            routes.retain(|route| route.speaks == speaks);
        }
        let backend = Arc::clone(&own.all[&(number, None)]);
        let stream = oldest(&streams).and_then(|route| route.rules.first());
        Port {
            name: port.name.clone(),
            number,
            protocol: port.protocol,
            default: default_rule(&backend),
            stream: stream.map(|rule| rule.bound(find)),
            backend,
            routes: (!routes.is_empty()).then(|| RouteTable::new(routes, find)),
        }
    };
    let (hostname, virtual_ips) = (name.hostname().into(), virtual_ips(group.service).to_vec());
    let ports = spec(group.service).ports.iter().map(port).collect();
    Destination { name: name.clone(), hostname, virtual_ips, ports }
}

fn oldest<'a>(routes: &[&'a Route]) -> Option<&'a Route> {
    routes.iter().copied().min_by(|one, other| one.age.cmp(&other.age))
}

/// What holds without a route: the service itself.
fn default_rule(backend: &Arc<Backend>) -> Rule {
    Rule {
        name: RuleName::default_rule(),
        split: Split::new([(1, Ok(Arc::clone(backend)).into())]),
        filters: Arc::default(),
        mirrors: Vec::new(),
        timeouts: Timeouts::default(),
        retry: None,
    }
}
