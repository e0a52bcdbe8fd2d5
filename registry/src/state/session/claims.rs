//! Pure. What registration makes of Services: a missing one is made, one that registration made gets further ports, one
//! that an operator wrote is never touched. Where a claim does not fit, the Service's status says so.

use std::collections::BTreeSet;

use model::{
    kind::Kind,
    name::{Name, ServiceName},
    object::{Key, LabelKey, Object},
    resource::{Protocol, Resource, ServicePort, ServiceSpec},
    shape::Text,
};
use serde_json::{Map, Value, json};

use super::Claim;
use crate::state::State;

/// The annotation of Services that registration made. An operator who writes one without it takes it over.
pub const MANAGED_BY: &str = "mesh/managed-by";
/// Its value.
pub const REGISTRATION: &str = "registration";
/// The most conditions that a Service's status lists; the rest are like them.
pub const CONDITIONS_MAX: usize = 16;

impl State {
    /// The services that a node claims now, and those that it claimed before.
    pub(in crate::state) fn claim(&mut self, before: &[Claim], now: &[Claim]) {
        for claim in now {
            self.extend_service(claim);
        }
        let services: BTreeSet<_> = before.iter().chain(now).map(|claim| claim.service.clone()).collect();
        for service in services {
            self.judge_claims(&service);
        }
    }

    /// Makes the Service, or gives one that registration made the ports that fit.
    fn extend_service(&mut self, claim: &Claim) {
        let key = service_key(&claim.service);
        let Some(present) = self.objects.get(&key).cloned() else {
            self.store(new_service(key, claim));
            return;
        };
        let (true, Some(mut spec)) = (managed(&present), spec(&present)) else { return };
        let before = spec.ports.len();
        for port in &claim.ports {
            if unfit(&spec, port).is_none() && spec.port(port.number()).is_none() {
                spec.ports.push(port.clone());
            }
        }
        if spec.ports.len() > before {
            let mut object = (*present).clone();
            object.spec.insert("ports".to_owned(), ports(&spec.ports));
            self.store(object);
        }
    }

    /// A Service that another brought is one that registration made from now on.
    pub(in crate::state) fn registered_instead(&mut self, key: &Key, claims: &[Claim]) {
        let Some((first, more)) = claims.split_first() else { return };
        self.store(new_service(key.clone(), first));
        more.iter().for_each(|claim| self.extend_service(claim));
        self.judge_claims(&first.service);
    }

    /// Writes into a Service's status which claims do not fit it.
    pub(in crate::state) fn judge_claims(&mut self, service: &ServiceName) {
        let key = service_key(service);
        let Some(object) = self.objects.get(&key).cloned() else { return };
        let conditions = match spec(&object) {
            Some(spec) => self.misfits(service, &spec),
            None => Vec::new(),
        };
        let status = with_conditions(object.status.as_ref(), conditions);
        if object.status != status {
            let mut object = (*object).clone();
            object.status = status;
            self.stamp(object);
        }
    }

    fn misfits(&self, service: &ServiceName, spec: &ServiceSpec) -> Vec<Value> {
        let mut conditions = Vec::new();
        for (node, session) in self.sessions.claiming(service) {
            for claim in session.claims.iter().filter(|claim| claim.service == *service) {
                let misfits = claim
                    .ports
                    .iter()
                    .filter_map(|port| misfit(spec, port).map(|message| condition(node, port, &message)));
                conditions.extend(misfits);
            }
            if conditions.len() >= CONDITIONS_MAX {
                break;
            }
        }
        conditions.truncate(CONDITIONS_MAX);
        conditions
    }
}

fn condition(node: &Name, port: &ServicePort, message: &str) -> Value {
    json!({"type": "PortConflict", "status": "True", "node": node, "port": port.port, "message": message})
}

/// Why a claimed port is not what the Service says.
fn misfit(spec: &ServiceSpec, port: &ServicePort) -> Option<String> {
    unfit(spec, port).or_else(|| {
        spec.port(port.number()).is_none().then(|| format!("the Service does not have port {}", port.port))
    })
}

/// Why a port cannot stand beside those of the Service.
fn unfit(spec: &ServiceSpec, port: &ServicePort) -> Option<String> {
    let Some(present) = spec.port(port.number()) else {
        let name = port.name.as_ref()?;
        let taken = spec.ports.iter().find(|present| present.name.as_ref() == Some(name))?;
        return Some(format!("the name {name} is that of port {}", taken.port));
    };
    let auto = [present.protocol, port.protocol].contains(&Protocol::Auto);
    if present.protocol != port.protocol && !auto {
        return Some(format!("port {} is {}, not {}", port.port, present.protocol, port.protocol));
    }
    match (&present.name, &port.name) {
        (Some(present), Some(name)) if present != name => {
            Some(format!("port {} has the name {present}, not {name}", port.port))
        }
        _ => None,
    }
}

fn new_service(key: Key, claim: &Claim) -> Object {
    let mut fitting = ServiceSpec { ports: Vec::new(), subsets: Vec::new() };
    for port in &claim.ports {
        if unfit(&fitting, port).is_none() && fitting.port(port.number()).is_none() {
            fitting.ports.push(port.clone());
        }
    }
    let mut object = Object::new(key, Map::from_iter([("ports".to_owned(), ports(&fitting.ports))]));
    object.metadata.labels = claim.labels.clone();
    object.metadata.annotations.insert(annotation(), Text::new(REGISTRATION).expect("a short text"));
    object
}

/// Ports as they are written; where there are several each needs a name, and one that has none gets `port-<number>`.
fn ports(ports: &[ServicePort]) -> Value {
    let mut ports = ports.to_vec();
    if ports.len() > 1 {
        for port in &mut ports {
            let number = port.number();
            port.name.get_or_insert_with(|| format!("port-{number}").parse().expect("a label"));
        }
    }
    json!(ports)
}

fn managed(object: &Object) -> bool {
    object.metadata.annotations.get(&annotation()).is_some_and(|by| by.as_str() == REGISTRATION)
}

fn annotation() -> LabelKey {
    MANAGED_BY.parse().expect("a label's key")
}

fn spec(service: &Object) -> Option<ServiceSpec> {
    match service.resource() {
        Ok(Resource::Service(spec)) => Some(spec),
        _ => None,
    }
}

/// A status with these conditions and no others; none where nothing is said.
fn with_conditions(status: Option<&Value>, conditions: Vec<Value>) -> Option<Value> {
    let mut status = status.and_then(Value::as_object).cloned().unwrap_or_default();
    status.remove("conditions");
    if !conditions.is_empty() {
        status.insert("conditions".to_owned(), Value::Array(conditions));
    }
    (!status.is_empty()).then_some(Value::Object(status))
}

/// The key of a Service.
pub(in crate::state) fn service_key(service: &ServiceName) -> Key {
    Key::namespaced(Kind::Service, service.namespace.clone(), service.name.clone())
}
