//! Pure. Objects, read: each by itself, once for each of its versions.

use std::{
    cmp::Ordering,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use imbl::{OrdMap, ordmap::DiffItem};
use model::{
    identity::{SpiffeId, TrustDomain},
    invalid::Invalid,
    kind::Kind,
    name::{Name, ServiceName},
    object::{Key, Labels, Object, status},
    resource::{EndpointSpec, EndpointStatus, Resource, ServiceSpec},
    virtualip::ServiceStatus,
};

use super::{Inputs, Nack};
use crate::{
    conduct::TrafficPolicy,
    endpoint::{AppTls, Endpoint, EndpointKey, Health},
    policy::{AuthorizationPolicy, PeerAuthentication},
    route::Route,
    snapshot::Place,
};

/// An object with what it means.
#[derive(Debug)]
pub(crate) struct Item {
    object: Arc<Object>,
    pub(super) read: Read,
}

/// What an object means to the data plane.
#[derive(Debug)]
pub(super) enum Read {
    Service {
        name: ServiceName,
        spec: ServiceSpec,
        virtual_ips: Vec<IpAddr>,
    },
    Endpoint {
        service: ServiceName,
        labels: Labels,
        ports: Vec<u16>,
        endpoint: Arc<Endpoint>,
    },
    Route(Route),
    Policy(Arc<AuthorizationPolicy>),
    Mode(Arc<PeerAuthentication>),
    Conduct(TrafficPolicy),
    /// This host's own: a proxy is told of no other.
    Node(Place),
    Other,
}

/// An object that is not as it was.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) key: Key,
    pub(super) before: Option<Arc<Item>>,
    pub(super) now: Option<Arc<Item>>,
}

/// What differs between the objects that were read before, as `items`, and those of `inputs`.
pub(super) fn changes(
    before: &OrdMap<Key, Arc<Object>>,
    items: &OrdMap<Key, Arc<Item>>,
    inputs: &Inputs,
) -> Result<Vec<Change>, Nack> {
    let differing = before.diff(&inputs.objects).map(|differing| match differing {
        DiffItem::Add(key, object) | DiffItem::Update { new: (key, object), .. } => (key, Some(object)),
        DiffItem::Remove(key, _) => (key, None),
    });
    let change = |(key, object): (&Key, Option<&Arc<Object>>)| {
        let read = |object: &Arc<Object>| {
            let read =
                read_one(object, &inputs.domain).map_err(|reason| Nack { key: key.clone(), reason })?;
            Ok(Arc::new(Item { object: Arc::clone(object), read }))
        };
        Ok(Change { key: key.clone(), before: items.get(key).cloned(), now: object.map(read).transpose()? })
    };
    differing.map(change).collect()
}

impl Change {
    /// What was there, and what is.
    pub(super) fn both(&self) -> impl Iterator<Item = &Arc<Item>> {
        self.before.iter().chain(&self.now)
    }

    /// Whether it may be about who may call services of this host.
    pub(super) fn guards(&self) -> bool {
        self.both().any(|item| matches!(item.read, Read::Policy(_) | Read::Mode(_)))
    }
}

impl Item {
    pub(super) fn object(&self) -> &Object {
        &self.object
    }

    /// Where this host stands, if it says so.
    pub(super) fn place(&self) -> Option<&Place> {
        if let Read::Node(place) = &self.read { Some(place) } else { None }
    }

    /// Its place among others, which is that of their keys.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let (own, other) = (&*self.object, &*other.object);
        let places = (&own.metadata.namespace, &own.metadata.name);
        own.kind.cmp(&other.kind).then_with(|| places.cmp(&(&other.metadata.namespace, &other.metadata.name)))
    }
}

fn read_one(object: &Object, domain: &TrustDomain) -> Result<Read, String> {
    let told = matches!(
        object.kind,
        Kind::Service
            | Kind::Endpoint
            | Kind::AuthorizationPolicy
            | Kind::TrafficPolicy
            | Kind::PeerAuthentication
    );
    if object.kind == Kind::Node {
        return place(object);
    }
    if !object.kind.is_route() && !told {
        return Ok(Read::Other);
    }
    let Some(namespace) = &object.metadata.namespace else {
        return Err("metadata.namespace: is required".to_owned());
    };
    let name = ServiceName::new(namespace.clone(), object.metadata.name.clone());
    match object.resource().map_err(|invalid| invalid.to_string())? {
        Resource::Service(spec) => Ok(Read::Service { name, spec, virtual_ips: virtual_ips(object) }),
        Resource::Endpoint(spec) => {
            endpoint(object, namespace, spec, domain).map_err(|invalid| invalid.to_string())
        }
        route if object.kind.is_route() => {
            let route = Route::compile(&object.metadata, &route);
            route.map(Read::Route).map_err(|errors| Invalid { errors }.to_string())
        }
        Resource::AuthorizationPolicy(spec) => {
            let policy = AuthorizationPolicy::compile(&object.metadata, &spec);
            policy
                .map(|policy| Read::Policy(Arc::new(policy)))
                .map_err(|errors| Invalid { errors }.to_string())
        }
        Resource::PeerAuthentication(spec) => {
            let mode = PeerAuthentication::compile(&object.metadata, spec);
            Ok(mode.map_or(Read::Other, |mode| Read::Mode(Arc::new(mode))))
        }
        Resource::TrafficPolicy(spec) => {
            let policy = TrafficPolicy::compile(&object.metadata, &spec);
            policy.map(Read::Conduct).map_err(|errors| Invalid { errors }.to_string())
        }
        _ => Ok(Read::Other),
    }
}

/// What the registry says of a Service. One that says it in another way has none: its calls go by its name all the same.
fn virtual_ips(service: &Object) -> Vec<IpAddr> {
    let said = service.status.as_ref().and_then(|said| status::<ServiceStatus>(said).ok());
    said.map_or_else(Vec::new, |said| said.virtual_ips)
}

fn place(object: &Object) -> Result<Read, String> {
    match object.resource().map_err(|invalid| invalid.to_string())? {
        Resource::Node(spec) => Ok(Read::Node(Place { node: object.metadata.name.clone(), zone: spec.zone })),
        _ => Ok(Read::Other),
    }
}

fn endpoint(
    object: &Object,
    namespace: &Name,
    spec: EndpointSpec,
    domain: &TrustDomain,
) -> Result<Read, Invalid> {
    let known: Option<EndpointStatus> = object.status.as_ref().map(status).transpose()?;
    let service = ServiceName::new(namespace.clone(), spec.service);
    let own = spec.ports.first().map(|port| port.target_port).filter(|_| spec.node.is_none());
    let address = SocketAddr::new(spec.address, own.unwrap_or(spec.inbound_port).value() as u16);
    let tls = spec.tls.filter(|_| spec.node.is_none()).map(|tls| AppTls {
        hostname: tls.hostname.as_str().to_owned(),
        ca_file: tls.ca_file.map(|path| path.as_str().to_owned()),
    });
    let endpoint = Endpoint {
        key: EndpointKey::new(service.clone(), object.metadata.name.clone(), address),
        id: SpiffeId::service(domain, &service),
        node: spec.node,
        zone: spec.zone,
        weight: spec.weight.value() as u32,
        health: known.as_ref().map_or(Health::Healthy, |status| status.health),
        stale: known.is_some_and(|status| status.stale),
        apps: spec
            .ports
            .iter()
            .map(|port| (port.port.value() as u16, port.target_port.value() as u16))
            .collect(),
        tls: tls.map(Arc::new),
    };
    let ports = endpoint.apps.iter().map(|(port, _)| *port).collect();
    Ok(Read::Endpoint {
        service,
        labels: object.metadata.labels.clone(),
        ports,
        endpoint: Arc::new(endpoint),
    })
}
