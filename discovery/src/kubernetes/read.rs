//! Pure. What Kubernetes says in EndpointSlices (discovery.k8s.io/v1): several of them together are a service.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    name::Name,
    resource::{EndpointPort, Health, Port, Protocol, ServicePort},
};
use serde::Deserialize;

use crate::{
    found::{Found, FoundKey, Instance, Set},
    labels::labels,
};

/// The label that says whose slice it is.
const SERVICE: &str = "kubernetes.io/service-name";
/// Gone: the version to go on from is no longer kept.
const GONE: u64 = 410;

/// One page of a list.
#[derive(Deserialize)]
pub(super) struct List {
    pub(super) metadata: ListMeta,
    pub(super) items: Option<Vec<Slice>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListMeta {
    pub(super) resource_version: String,
    /// For the next page; empty after the last.
    #[serde(rename = "continue", default)]
    pub(super) more: String,
}

/// One word of a watch.
#[derive(Debug, PartialEq)]
pub(super) enum Event {
    /// It is so now.
    Put(Slice),
    /// It is gone; as it was.
    Gone(Slice),
    /// Nothing but how far all is.
    Bookmark(String),
    /// What happened since is no longer known: all has to be listed anew.
    Expired,
    /// Anything else that went wrong, in its words.
    Fault(String),
}

#[derive(Deserialize)]
struct RawEvent {
    r#type: String,
    object: serde_json::Value,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Slice {
    metadata: Meta,
    #[serde(default)]
    address_type: String,
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
    #[serde(default)]
    ports: Option<Vec<SlicePort>>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Endpoint {
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Option<Conditions>,
    #[serde(default)]
    zone: Option<String>,
}

/// `None` is unknown, which is to be taken for the usual.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
struct Conditions {
    #[serde(default)]
    ready: Option<bool>,
    #[serde(default)]
    serving: Option<bool>,
    #[serde(default)]
    terminating: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlicePort {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    port: Option<u32>,
    #[serde(default)]
    protocol: Option<String>,
    #[serde(default)]
    app_protocol: Option<String>,
}

/// All slices, by namespace and name.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Slices(BTreeMap<(String, String), Slice>);

impl Event {
    /// A line of a watch; `None` if it is none.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        let RawEvent { r#type, object } = serde_json::from_slice(line).ok()?;
        if r#type == "ERROR" {
            if object.get("code").and_then(serde_json::Value::as_u64) == Some(GONE) {
                return Some(Self::Expired);
            }
            let message = object.get("message").and_then(serde_json::Value::as_str);
            return Some(Self::Fault(message.unwrap_or("an error without a message").to_owned()));
        }
        let slice: Slice = serde_json::from_value(object).ok()?;
        match r#type.as_str() {
            "ADDED" | "MODIFIED" => Some(Self::Put(slice)),
            "DELETED" => Some(Self::Gone(slice)),
            "BOOKMARK" => Some(Self::Bookmark(slice.metadata.resource_version)),
            _ => None,
        }
    }
}

impl Slice {
    pub(super) fn version(&self) -> &str {
        &self.metadata.resource_version
    }

    /// The service that it is of; `None` if it is of none.
    pub(super) fn service(&self) -> Option<FoundKey> {
        let name = self.metadata.labels.as_ref()?.get(SERVICE).filter(|name| !name.is_empty())?.clone();
        Some(FoundKey { namespace: Some(self.metadata.namespace.clone()), name })
    }

    fn key(&self) -> (String, String) {
        (self.metadata.namespace.clone(), self.metadata.name.clone())
    }

    /// TCP alone, each with its name.
    fn ports(&self) -> impl Iterator<Item = (Option<Name>, Port, Protocol)> {
        let tcp = |port: &&SlicePort| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
        self.ports.iter().flatten().filter(tcp).filter_map(|port| {
            let number = Port::new(port.port?.into())?;
            let name = port.name.as_deref().filter(|name| !name.is_empty());
            Some((name.and_then(|name| name.parse().ok()), number, protocol(port.app_protocol.as_deref())))
        })
    }
}

impl Slices {
    /// Answers with the services that it concerns: one that changes hands concerns both.
    pub(super) fn put(&mut self, slice: Slice) -> BTreeSet<FoundKey> {
        let now = slice.service();
        let before = self.0.insert(slice.key(), slice).and_then(|slice| slice.service());
        now.into_iter().chain(before).collect()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The same for one that is gone.
    pub(super) fn remove(&mut self, slice: &Slice) -> BTreeSet<FoundKey> {
        self.0.remove(&slice.key()).and_then(|slice| slice.service()).into_iter().collect()
    }

    /// All services.
    pub(super) fn set(&self) -> Set {
        let mut of = BTreeMap::<FoundKey, Vec<&Slice>>::new();
        for slice in self.0.values() {
            if let Some(service) = slice.service() {
                of.entry(service).or_default().push(slice);
            }
        }
        of.into_iter().map(|(key, slices)| (key, found(&slices))).collect()
    }

    /// One service; `None` if it is no more.
    pub(super) fn found(&self, key: &FoundKey) -> Option<Found> {
        let namespace = key.namespace.clone()?;
        let own =
            self.0.range((namespace.clone(), String::new())..).take_while(|((own, _), _)| *own == namespace);
        let slices: Vec<_> =
            own.map(|(_, slice)| slice).filter(|slice| slice.service().as_ref() == Some(key)).collect();
        (!slices.is_empty()).then(|| found(&slices))
    }
}

/// A service of several slices. Where they do not agree on a port of one name, as while a deployment goes on, the lowest is
/// the Service's, and each instance says its own.
fn found(slices: &[&Slice]) -> Found {
    let mut named = BTreeMap::<Option<Name>, (Port, Protocol)>::new();
    for (name, port, protocol) in slices.iter().flat_map(|slice| slice.ports()) {
        let known = named.entry(name).or_insert((port, protocol));
        if port < known.0 {
            *known = (port, protocol);
        }
    }
    let (mut numbers, several) = (BTreeSet::new(), named.len() > 1);
    // A Service has each number once, and a name where it has several.
    named.retain(|name, (port, _)| (name.is_some() || !several) && numbers.insert(*port));
    let mut instances = BTreeMap::new();
    for slice in slices {
        let own: Vec<EndpointPort> = slice
            .ports()
            .filter_map(|(name, target_port, _)| {
                named.get(&name).map(|(port, _)| EndpointPort { port: *port, target_port })
            })
            .collect();
        for endpoint in slice.endpoints.iter().flatten() {
            let Some((id, one)) = instance(endpoint, &own, slice) else { continue };
            // While it moves from one slice to another it may stand in both.
            let better = instances.get(&id).is_none_or(|known: &Instance| known.health != Health::Healthy);
            if better {
                instances.insert(id, one);
            }
        }
    }
    let ports = named.into_iter().map(|(name, (port, protocol))| ServicePort {
        name,
        port,
        target_port: None,
        protocol,
    });
    Found { ports: ports.collect(), instances, ..Found::default() }
}

/// `None` if it has no IP address: slices of names (FQDN) are no instances.
fn instance(endpoint: &Endpoint, ports: &[EndpointPort], slice: &Slice) -> Option<(String, Instance)> {
    let address = endpoint.addresses.first().filter(|_| slice.address_type != "FQDN")?.parse().ok()?;
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let (ready, terminating) = (conditions.ready.unwrap_or(true), conditions.terminating.unwrap_or(false));
    let health = match () {
        () if ready && !terminating => Health::Healthy,
        () if terminating && conditions.serving.unwrap_or(ready) => Health::Draining,
        () => Health::Unhealthy,
    };
    let meta = slice.metadata.labels.clone().unwrap_or_default();
    let none: [String; 0] = [];
    let instance = Instance {
        address,
        port: None,
        ports: ports.to_vec(),
        labels: labels(&none, &meta),
        tags: meta.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        zone: endpoint.zone.as_deref().and_then(|zone| zone.parse().ok()),
        weight: 1,
        health,
    };
    Some((address.to_string(), instance))
}

/// What a Service's `appProtocol` means.
fn protocol(app: Option<&str>) -> Protocol {
    match app.unwrap_or_default().to_ascii_lowercase().as_str() {
        "http" => Protocol::Http,
        "kubernetes.io/h2c" | "h2c" | "http2" => Protocol::Http2,
        "grpc" => Protocol::Grpc,
        "https" | "tls" => Protocol::Tls,
        "tcp" => Protocol::Tcp,
        _ => Protocol::Auto,
    }
}

#[cfg(test)]
mod tests;
