//! Pure. The smallest list of changes that makes the registry say of a service what its source says.

use std::collections::BTreeMap;

use model::{
    kind::Kind,
    name::{Name, ServiceName},
    object::{Key, LabelKey, Object},
    resource::{
        DiscoverySourceSpec, EndpointPort, EndpointSpec, EndpointTls, Health, Port, Protocol, Resource,
        ServicePort, ServiceSpec, Source,
    },
    shape::{Int, Text},
};
use serde_json::{Map, Value, json};

use crate::{
    found::{Found, Instance},
    wanted::passes,
};

/// The annotation of a Service that says who made it.
pub const MANAGED_BY: &str = "mesh/managed-by";
/// Of an Endpoint's name so many letters are its service's; the rest tells it from others.
const PREFIX: usize = 46;

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// It is so from now on.
    Put(Object),
    /// It is no more.
    Gone(Key),
}

/// What the registry has of a service.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// The Service, whoever wrote it.
    pub service: Option<&'a Object>,
    /// Its Endpoints that this source brought.
    pub endpoints: &'a [&'a Object],
}

/// Appends what has to change at a service. A Service that another wrote is left as it is, and endpoints serve its ports.
pub fn changes(
    source: (&Name, &DiscoverySourceSpec),
    service: &ServiceName,
    found: Option<&Found>,
    standing: Standing<'_>,
    out: &mut Vec<Change>,
) {
    let (source, spec) = source;
    let mine = standing.service.filter(|object| managed(object, source));
    let Some(found) = found else {
        out.extend(standing.endpoints.iter().map(|object| Change::Gone(object.key())));
        out.extend(mine.map(|object| Change::Gone(object.key())));
        return;
    };
    let others = standing.service.filter(|_| mine.is_none()).and_then(ports);
    let own = own_ports(found, mine);
    if others.is_none() && standing.service.is_none_or(|object| managed(object, source)) {
        // A Service needs a port: one of which no instance says any has to wait for the first.
        if own.is_empty() && mine.is_none() {
            return;
        }
        let object = service_object(source, service, &own, found, mine);
        if mine.is_none_or(|mine| !mine.same_input(&object)) {
            out.push(Change::Put(object));
        }
    }
    let serves = others.as_ref().unwrap_or(&own);
    let tls = spec.tls.as_ref().map(|tls| tls.of(&service.name));
    let mut before: BTreeMap<&Name, &Object> =
        standing.endpoints.iter().map(|object| (&object.metadata.name, *object)).collect();
    for (id, instance) in found.instances.iter().filter(|(_, instance)| passes(spec, found, instance)) {
        let object = endpoint_object(source, service, id, instance, (&own, serves, tls.as_ref()));
        let Some(object) = object else { continue };
        let same = before.remove(&object.metadata.name).is_some_and(|before| {
            before.same_input(&object)
                && before.status.as_ref().is_some_and(|status| says(status, instance.health))
        });
        if !same {
            out.push(Change::Put(object));
        }
    }
    out.extend(before.values().map(|object| Change::Gone(object.key())));
}

/// Appends what marks a service's Endpoints stale: it cannot be told how it is, though others of its source can.
pub fn stale(standing: Standing<'_>, out: &mut Vec<Change>) {
    for before in standing.endpoints {
        let mut status = before.status.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
        if status.insert("stale".to_owned(), Value::Bool(true)) == Some(Value::Bool(true)) {
            continue;
        }
        let mut object = Object::new(before.key(), before.spec.clone());
        object.metadata.labels = before.metadata.labels.clone();
        object.metadata.annotations = before.metadata.annotations.clone();
        object.status = Some(Value::Object(status));
        out.push(Change::Put(object));
    }
}

/// Whether a Service was brought by a source.
pub fn managed(object: &Object, source: &Name) -> bool {
    let by = object.metadata.annotations.iter().find(|(key, _)| key.as_str() == MANAGED_BY);
    by.is_some_and(|(_, by)| by.as_str() == Source::Discovery(source.clone()).to_string())
}

fn says(status: &Value, health: Health) -> bool {
    let stale = status.get("stale").is_some_and(|stale| stale == &Value::Bool(true));
    !stale && status.get("health") == Some(&json!(health))
}

fn ports(service: &Object) -> Option<Vec<ServicePort>> {
    match service.resource() {
        Ok(Resource::Service(spec)) => Some(spec.ports),
        _ => None,
    }
}

/// The ports of a Service that a source brings. Where the source only knows where instances listen, it has one, which
/// stays as it is for as long as the Service does: callers know it.
fn own_ports(found: &Found, before: Option<&Object>) -> Vec<ServicePort> {
    if !found.ports.is_empty() {
        return found.ports.clone();
    }
    let kept = before.and_then(ports).filter(|ports| ports.len() == 1);
    kept.unwrap_or_else(|| {
        let port = found.usual_port().and_then(|port| Port::new(port.into()));
        port.map(|port| ServicePort { name: None, port, target_port: None, protocol: Protocol::Auto })
            .into_iter()
            .collect()
    })
}

/// Subsets, which a source does not know of, are the operator's: they stay.
fn service_object(
    source: &Name,
    service: &ServiceName,
    ports: &[ServicePort],
    found: &Found,
    before: Option<&Object>,
) -> Object {
    let key = Key::namespaced(Kind::Service, service.namespace.clone(), service.name.clone());
    let mut spec = Map::from_iter([("ports".to_owned(), json!(ports))]);
    let subsets = before.and_then(|before| before.spec.get("subsets"));
    spec.extend(subsets.map(|subsets| ("subsets".to_owned(), subsets.clone())));
    let mut object = Object::new(key, spec);
    object.metadata.labels = found.labels.clone();
    let by = Text::new(&Source::Discovery(source.clone()).to_string()).expect("a short text");
    let annotation: LabelKey = MANAGED_BY.parse().expect("a label's key");
    object.metadata.annotations.insert(annotation, by);
    object
}

/// An Endpoint; `None` if it serves none of the Service's ports. `own` are the ports as the source says them, `serves`
/// those of the Service; `tls` is what it must show callers.
fn endpoint_object(
    source: &Name,
    service: &ServiceName,
    id: &str,
    instance: &Instance,
    (own, serves, tls): (&[ServicePort], &[ServicePort], Option<&EndpointTls>),
) -> Option<Object> {
    let served = |port: &ServicePort| {
        let same = match (own, serves) {
            ([one], [_]) => Some(one),
            _ => own.iter().find(|own| own.name.is_some() && own.name == port.name),
        };
        let same = same.or_else(|| own.iter().find(|own| own.port == port.port))?;
        let named =
            instance.ports.iter().find(|named| named.port == same.port).map(|named| named.target_port);
        let only = instance.port.filter(|_| own.len() == 1).and_then(|port| Port::new(port.into()));
        let target_port = named.or(only).unwrap_or(same.target());
        Some(EndpointPort { port: port.port, target_port })
    };
    let ports: Vec<_> = serves.iter().filter_map(served).collect();
    if ports.is_empty() {
        return None;
    }
    let spec = EndpointSpec {
        service: service.name.clone(),
        node: None,
        source: Source::Discovery(source.clone()),
        address: instance.address,
        inbound_port: Int::clamped(15_008),
        ports,
        zone: instance.zone.clone(),
        weight: Int::clamped(instance.weight.into()),
        tls: tls.cloned(),
    };
    let Value::Object(mut spec) = json!(spec) else { return None };
    // There is no proxy that it would be a port of.
    spec.remove("inboundPort");
    let key = Key::namespaced(Kind::Endpoint, service.namespace.clone(), name(source, service, id));
    let mut object = Object::new(key, spec);
    object.metadata.labels = instance.labels.clone();
    object.status = Some(json!({"health": instance.health}));
    Some(object)
}

/// The same instance has the same name at every leader: its service's, and a hash of what it is known by.
fn name(source: &Name, service: &ServiceName, id: &str) -> Name {
    // FNV-1a, 64 bit.
    let text = format!("{source}\n{service}\n{id}");
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let prefix: String = service.name.as_str().chars().take(PREFIX).collect();
    format!("{}-{hash:016x}", prefix.trim_end_matches('-')).parse().expect("a label, and no longer than one")
}

/// Of a Service's spec nothing but ports and subsets is known here.
const _: fn(&ServiceSpec) = |spec| {
    let ServiceSpec { ports: _, subsets: _ } = spec;
};

#[cfg(test)]
mod tests;
