//! Pure. What the mesh says of an object beside what the user wrote: `status`, worked out from the state each time it is
//! asked for. What is stored with an object (an endpoint's health, a service's conditions) is taken over.

use std::sync::Arc;

use model::{
    duration::Millis,
    kind::Kind,
    name::{Name, ServiceName},
    object::{Key, Object},
    proxy::ProxyState,
    resource::{
        DiscoveryState, EndpointStatus, Health, ParentRef, Protocol, Resource, RouteRefs, ServiceSpec,
        TargetRef,
    },
};
use registry::{Session, State};
use serde_json::{Map, Value, json};

use crate::{admit, proxies::Heard};

/// What is known when an object is shown.
pub struct Known<'a> {
    /// The replicated truth.
    pub state: &'a State,
    /// What a host's proxy said last, as far as this member heard it.
    pub heard: &'a dyn Fn(&Name) -> Option<Heard>,
}

impl Known<'_> {
    /// The object as the API answers it.
    pub fn show(&self, object: &Object) -> Object {
        let mut status = match &object.status {
            Some(Value::Object(stored)) => stored.clone(),
            _ => Map::new(),
        };
        let key = object.key();
        if let Ok(resource) = object.resource() {
            status.insert("effective".to_owned(), resource.effective());
            if let Some(route) = resource.route() {
                self.route(object, &route, &mut status);
            }
            match resource {
                Resource::Service(_) => self.service(&key, &mut status),
                Resource::Endpoint(_) => endpoint(object, &mut status),
                Resource::AuthorizationPolicy(policy) => {
                    let accepted = self.accepted(&key, policy.target_refs.as_deref());
                    status.insert("conditions".to_owned(), json!([accepted]));
                }
                Resource::TrafficPolicy(policy) => {
                    self.alone(object, policy.target_refs.as_deref(), &mut status);
                }
                Resource::PeerAuthentication(policy) => {
                    self.alone(object, policy.target_refs.as_deref(), &mut status);
                }
                Resource::Node(_) => self.node(&key.name, &mut status),
                Resource::JoinToken(_) | Resource::AccessToken(_) => self.token(&key, &mut status),
                Resource::HttpRoute(_) | Resource::GrpcRoute(_) | Resource::TcpRoute(_) => {}
                Resource::DiscoverySource(_) => self.source(&key.name, &mut status),
                Resource::Namespace(_) | Resource::Role(_) => {}
            }
        }
        Object { status: Some(Value::Object(status)), ..object.clone() }
    }

    fn service(&self, key: &Key, status: &mut Map<String, Value>) {
        let Some(service) = service_name(key) else { return };
        let (mut ready, mut total) = (0, 0);
        for endpoint in self.state.endpoints_of(&service) {
            total += 1;
            ready += u32::from(health(endpoint).health == Health::Healthy);
        }
        status.insert("hostname".to_owned(), json!(service.hostname()));
        status.insert("endpoints".to_owned(), json!({"ready": ready, "total": total}));
        status.entry("conditions").or_insert_with(|| json!([]));
    }

    fn node(&self, node: &Name, status: &mut Map<String, Value>) {
        let session = self.state.session(node);
        let mut shown = json!({"state": session_state(session)});
        let heard = (self.heard)(node);
        if let Some(session) = session {
            shown["since"] = json!(session.opened_at);
            match session.stale_since {
                Some(since) => shown["staleSince"] = json!(since),
                None => {
                    let until = heard.as_ref().and_then(|heard| heard.until);
                    until.into_iter().for_each(|until| shown["expiresAt"] = json!(until));
                }
            }
            status.insert("version".to_owned(), json!(session.version));
            status.insert("addresses".to_owned(), json!(session.addresses));
        }
        status.insert("session".to_owned(), shown);
        if let Some(heard) = heard {
            status.insert("revision".to_owned(), json!(heard.revision));
            if let Some(nack) = &heard.nack {
                status.insert("nack".to_owned(), json!(nack));
            }
        }
    }

    /// How many there are of what it brought is counted, not stored: it becomes another all the time.
    fn source(&self, source: &Name, status: &mut Map<String, Value>) {
        let (mut services, mut endpoints) = (0_u64, 0_u64);
        for key in self.state.brought_by(source) {
            *(if key.kind == Kind::Service { &mut services } else { &mut endpoints }) += 1;
        }
        status.insert("services".to_owned(), json!(services));
        status.insert("endpoints".to_owned(), json!(endpoints));
        status.entry("state").or_insert_with(|| json!(DiscoveryState::Pending));
        status.entry("error").or_insert_with(|| json!(""));
    }

    fn token(&self, key: &Key, status: &mut Map<String, Value>) {
        let Some((id, held)) = self.state.held_of(key) else { return };
        status.insert("id".to_owned(), json!(id));
        if let Some(expires_at) = held.expires_at {
            status.insert("expiresAt".to_owned(), json!(expires_at));
        }
        if let Some(record) = self.state.join_record(id) {
            status.insert("usesLeft".to_owned(), json!(record.uses_left));
        }
    }

    fn route(&self, object: &Object, route: &RouteRefs<'_>, status: &mut Map<String, Value>) {
        let Some(namespace) = &object.metadata.namespace else { return };
        let parents = route.parents.iter().filter_map(|parent| {
            let unfit = self.unfit_parent(object.kind, namespace, parent);
            unfit.or_else(|| self.other_kind(object, namespace, parent))
        });
        let accepted = condition("Accepted", "NoMatchingParent", parents.collect());
        let backends = route.backends.iter().filter_map(|(_, backend)| {
            let service = backend.service(namespace);
            let subset = backend.subset.as_ref();
            let port = u16::try_from(backend.port.value()).ok();
            let Some(spec) = self.service_spec(&service) else {
                return Some(format!("Service {service} does not exist"));
            };
            match (port, subset) {
                (Some(port), _) if spec.port(port).is_none() => {
                    Some(format!("Service {service} has no port {port}"))
                }
                (_, Some(subset)) if spec.subset(subset).is_none() => {
                    Some(format!("Service {service} has no subset {subset}"))
                }
                _ => None,
            }
        });
        let resolved = condition("ResolvedRefs", "BackendNotFound", backends.collect());
        status.insert("conditions".to_owned(), json!([accepted, resolved]));
    }

    /// Whether what a policy names is there.
    fn accepted(&self, key: &Key, targets: Option<&[TargetRef]>) -> Value {
        let unfit = targets.unwrap_or_default().iter().filter_map(|target| {
            let service = ServiceName::new(key.namespace.clone()?, target.name.clone());
            self.service_spec(&service).is_none().then(|| format!("Service {service} does not exist"))
        });
        condition("Accepted", "TargetNotFound", unfit.collect())
    }

    /// Of a kind of which the most specific object counts. Two that were written at the same moment may both be for a
    /// service: then the older counts.
    fn alone(&self, object: &Object, targets: Option<&[TargetRef]>, status: &mut Map<String, Value>) {
        let accepted = self.accepted(&object.key(), targets);
        let age = |object: &Object| (object.metadata.created_at, object.metadata.name.clone());
        let older = admit::rivals(self.state, object, targets)
            .filter(|(other, _)| self.state.get(other).is_some_and(|other| age(other) < age(object)))
            .map(|(other, what)| format!("{other}, which is older, is for {what}"));
        let in_force = condition("InForce", "Conflicted", older.collect());
        status.insert("conditions".to_owned(), json!([accepted, in_force]));
    }

    /// Why a route does not take effect at a parent.
    fn unfit_parent(&self, kind: Kind, namespace: &Name, parent: &ParentRef) -> Option<String> {
        let service = ServiceName::new(namespace.clone(), parent.name.clone());
        let Some(spec) = self.service_spec(&service) else {
            return Some(format!("Service {service} does not exist"));
        };
        let streams = kind == Kind::TCPRoute;
        let takes = |protocol: Protocol| protocol.is_http() != streams || protocol == Protocol::Auto;
        let wanted = if streams { "bytes" } else { "HTTP" };
        match parent.port.and_then(|port| u16::try_from(port.value()).ok()) {
            Some(number) => match spec.port(number) {
                None => Some(format!("Service {service} has no port {number}")),
                Some(port) if !takes(port.protocol) => {
                    Some(format!("port {number} of Service {service} speaks {}, not {wanted}", port.protocol))
                }
                Some(_) => None,
            },
            None if spec.ports.iter().any(|port| takes(port.protocol)) => None,
            None => Some(format!("Service {service} has no port that speaks {wanted}")),
        }
    }

    /// The older route of the other kind for requests that has the port: of both kinds it takes one.
    fn other_kind(&self, object: &Object, namespace: &Name, parent: &ParentRef) -> Option<String> {
        let other = match object.kind {
            Kind::HTTPRoute => Kind::GRPCRoute,
            Kind::GRPCRoute => Kind::HTTPRoute,
            _ => return None,
        };
        let service = ServiceName::new(namespace.clone(), parent.name.clone());
        let age = |object: &Object| (object.metadata.created_at, object.metadata.name.clone());
        let has_port = |route: &Object| {
            let resource = route.resource().ok()?;
            let mut parents = resource.route()?.parents.iter().filter(|own| own.name == parent.name);
            parents.find(|own| own.port.is_none() || parent.port.is_none() || own.port == parent.port)?;
            Some(())
        };
        let older = self
            .state
            .routes_of(&service)
            .find(|route| route.kind == other && age(route) < age(object) && has_port(route).is_some())?;
        Some(format!("{}, which is older, has the same port of Service {service}", older.key()))
    }

    fn service_spec(&self, service: &ServiceName) -> Option<ServiceSpec> {
        let key = Key::namespaced(Kind::Service, service.namespace.clone(), service.name.clone());
        match self.state.get(&key)?.resource() {
            Ok(Resource::Service(spec)) => Some(spec),
            _ => None,
        }
    }

    /// The proxies of all hosts, for `GET /v1/proxies`.
    pub fn proxies(&self) -> Vec<ProxyState> {
        let nodes = self.state.list(Kind::Node, None);
        nodes.map(|node| self.proxy(&node.metadata.name)).collect()
    }

    fn proxy(&self, node: &Name) -> ProxyState {
        let session = self.state.session(node);
        let heard = (self.heard)(node);
        ProxyState {
            node: node.clone(),
            session: session_state(session).to_owned(),
            version: session.map_or_else(String::new, |session| session.version.clone()),
            revision: heard.as_ref().map_or(0, |heard| heard.revision),
            nack: heard.as_ref().and_then(|heard| heard.nack.clone()),
            left_alone: heard.map_or_else(Vec::new, |heard| heard.left_alone),
            services: session.map_or_else(Vec::new, |session| {
                session.claims.iter().map(|claim| claim.service.clone()).collect()
            }),
            addresses: session.map_or_else(Vec::new, |session| session.addresses.clone()),
        }
    }
}

/// The status of a token that was just made: what it is worth, with its text, this once.
pub fn with_token(mut object: Object, token: &str) -> Object {
    let status = object.status.get_or_insert_with(|| json!({}));
    status["token"] = json!(token);
    object
}

/// When it ends is counted by the leader; a member that passed its keep-alives on knows when it does not end yet.
fn session_state(session: Option<&Arc<Session>>) -> &'static str {
    match session.map(|session| session.stale_since) {
        Some(None) => "Live",
        Some(Some(Millis(_))) => "Stale",
        None => "None",
    }
}

fn endpoint(object: &Object, status: &mut Map<String, Value>) {
    let said = health(object);
    status.insert("health".to_owned(), json!(said.health));
    status.insert("stale".to_owned(), json!(said.stale));
}

fn health(endpoint: &Object) -> EndpointStatus {
    let silent = EndpointStatus { health: Health::Healthy, stale: false };
    endpoint.status.as_ref().and_then(|status| model::object::status(status).ok()).unwrap_or(silent)
}

fn condition(kind: &str, reason: &str, faults: Vec<String>) -> Value {
    if faults.is_empty() {
        return json!({"type": kind, "status": "True", "reason": kind, "message": ""});
    }
    json!({"type": kind, "status": "False", "reason": reason, "message": faults.join("; ")})
}

fn service_name(key: &Key) -> Option<ServiceName> {
    Some(ServiceName::new(key.namespace.clone()?, key.name.clone()))
}

#[cfg(test)]
mod tests;
