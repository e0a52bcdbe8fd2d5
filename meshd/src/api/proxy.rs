//! `/v1/proxy/…`: what a host's proxy says of itself, and what it is told. Only with a node's certificate, and only for
//! that node.

use std::sync::Arc;

use axum::{
    Extension, Json as Answer, Router,
    extract::State,
    routing::{delete, get, post, put},
};
use model::{
    invalid::{FieldError, Invalid},
    kind::Kind,
    name::Name,
    object::{Key, Object, status},
    proxy::{
        KeepAlive, KeptAlive, REGISTRATION_OBJECTS_MAX, Registered, RegisteredService, Registration,
        SESSION_TTL,
    },
    resource::{EndpointStatus, Resource, ServicePort, Source},
    shape::{Mode, Path, decode_at},
};
use registry::{Change, Claim, Command, Expect, Refusal, Register, Reply, SessionRef, Write};
use serde_json::{Value, json};

use super::{Api, auth::Caller, body::Json, error::ApiError};
use crate::{
    daemon::Daemon,
    proxies::{KeepError, Kept},
};

mod stream;

/// As many addresses as a host names: one for each of its interfaces.
const ADDRESSES_MAX: usize = 16;
/// As long as the text of an address or a version is.
const TEXT_BYTES_MAX: usize = 253;

/// The paths of hosts' proxies.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/proxy/registration", put(register).delete(unregister))
        .route("/v1/proxy/node", delete(end))
        .route("/v1/proxy/keepalive", post(keep_alive))
        .route("/v1/proxy/watch", get(stream::watch))
}

/// Everything that the host runs, in one write.
async fn register(
    State(api): State<Api>,
    caller: Caller,
    Json(body): Json,
) -> Result<Answer<Registered>, ApiError> {
    let node = caller.require_node()?;
    let registration: Registration =
        serde_json::from_value(body).map_err(|error| ApiError::invalid("", error))?;
    let register = checked(node, registration)?;
    match api.registry.propose(Command::Register(register)).await? {
        Reply::Registered { generation, revision } => {
            Ok(Answer(Registered { generation, ttl: SESSION_TTL, revision }))
        }
        Reply::Refused(refusal) => Err(refusal.into()),
        other => Err(ApiError::Internal(format!("the registry answered a registration with {other}"))),
    }
}

/// The host leaves for now: its endpoints go at once.
async fn unregister(State(api): State<Api>, caller: Caller) -> Result<Answer<Value>, ApiError> {
    let node = caller.require_node()?;
    let state = api.registry.read().await?;
    if let Some(session) = state.session(&node) {
        let session = SessionRef { node, generation: session.generation };
        match api.registry.propose(Command::Unregister(session)).await? {
            // It registered anew in between, or its session had ended: then there is nothing left to do.
            Reply::Refused(Refusal::SessionGone { .. }) | Reply::Nothing => {}
            Reply::Refused(refusal) => return Err(refusal.into()),
            other => {
                return Err(ApiError::Internal(format!("the registry answered a farewell with {other}")));
            }
        }
    }
    Ok(Answer(json!({})))
}

/// The host leaves for good: all that is known of it goes, and its certificates are refused, as when an operator deletes
/// its Node.
async fn end(State(api): State<Api>, caller: Caller) -> Result<Answer<Value>, ApiError> {
    let node = caller.require_node()?;
    let change = Change::Delete { key: Key::mesh_wide(Kind::Node, node.clone()), expect: Expect::Any };
    let write = Write { actor: caller.actor(), changes: vec![change] };
    match api.registry.propose(Command::Write(write)).await? {
        Reply::Written(_) => tracing::info!(target: "audit", %node, "host left for good"),
        // An operator was faster: then there is nothing left to do.
        Reply::Refused(Refusal::NotFound { .. }) => {}
        Reply::Refused(refusal) => return Err(refusal.into()),
        other => return Err(ApiError::Internal(format!("the registry answered a farewell with {other}"))),
    }
    Ok(Answer(json!({})))
}

/// A sign of life; answered only after the leader heard of it.
async fn keep_alive(
    State(api): State<Api>,
    Extension(daemon): Extension<Arc<Daemon>>,
    caller: Caller,
    Json(body): Json,
) -> Result<Answer<KeptAlive>, ApiError> {
    let node = caller.require_node()?;
    let said: KeepAlive = serde_json::from_value(body).map_err(|error| ApiError::invalid("", error))?;
    if let Some(nack) = &said.nack {
        tracing::warn!(%node, revision = nack.revision, reason = %nack.reason, "a proxy could not take a revision");
    }
    match daemon.proxies.keep_alive(node.clone(), said).await {
        Ok(Kept::Alive(term)) => Ok(Answer(KeptAlive { term, ttl: SESSION_TTL })),
        Ok(Kept::Gone) => {
            api.proxies.forget(|other, _| *other == node);
            Err(ApiError::Gone(format!("node {node} has no such session; register anew")))
        }
        Err(KeepError::Leader(error)) => Err(error.into()),
        Err(error) => Err(ApiError::Unavailable(error.to_string())),
    }
}

/// A registration as the log takes it; every wrong field is reported.
fn checked(node: Name, registration: Registration) -> Result<Register, ApiError> {
    let Registration { version, addresses, services, endpoints } = registration;
    let mut errors = limits(&version, &addresses, services.len(), endpoints.len());
    let mut claims = Vec::new();
    for (index, service) in services.into_iter().enumerate() {
        match claim(service, index) {
            Ok(claim) => claims.push(claim),
            Err(mut invalid) => errors.append(&mut invalid.errors),
        }
    }
    let mut checked = Vec::new();
    for (index, object) in endpoints.into_iter().enumerate() {
        match endpoint(object, &node, &claims) {
            Ok(object) => checked.push(object),
            Err(invalid) => errors.extend(invalid.below(format!("endpoints[{index}]")).errors),
        }
    }
    if errors.is_empty() {
        return Ok(Register { node, version, addresses, services: claims, endpoints: checked });
    }
    errors.truncate(model::invalid::FIELD_ERRORS_MAX);
    Err(Invalid { errors }.into())
}

fn limits(version: &str, addresses: &[String], services: usize, endpoints: usize) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut at_most = |path: &str, limit: usize, actual: usize, what: &str| {
        if actual > limit {
            let message = format!("must have at most {limit} {what}, has {actual}");
            errors.push(FieldError { path: path.to_owned(), message });
        }
    };
    at_most("version", TEXT_BYTES_MAX, version.len(), "bytes");
    at_most("addresses", ADDRESSES_MAX, addresses.len(), "entries");
    for (index, address) in addresses.iter().enumerate() {
        at_most(&format!("addresses[{index}]"), TEXT_BYTES_MAX, address.len(), "bytes");
    }
    at_most("services", REGISTRATION_OBJECTS_MAX, services, "entries");
    at_most("endpoints", REGISTRATION_OBJECTS_MAX, endpoints, "entries");
    errors
}

fn claim(service: RegisteredService, index: usize) -> Result<Claim, Invalid> {
    let RegisteredService { service, ports, labels } = service;
    if ports.is_empty() {
        return Err(Invalid::one(format!("services[{index}].ports"), "must have at least one port"));
    }
    // Read leniently: a proxy may be one version ahead of this server.
    let ports = ports.iter().enumerate().map(|(port, value)| {
        decode_at::<ServicePort>(value, &Path::Root, Mode::Lenient)
            .map_err(|invalid| invalid.below(format!("services[{index}].ports[{port}]")))
    });
    Ok(Claim { service, ports: ports.collect::<Result<_, _>>()?, labels })
}

/// An endpoint as it is stored: of the caller, of a service that it claims, with nothing of its status but its health.
fn endpoint(object: Object, node: &Name, claims: &[Claim]) -> Result<Object, Invalid> {
    let health = status::<EndpointStatus>(object.status.as_ref().unwrap_or(&json!({})))?.health;
    if object.kind != Kind::Endpoint {
        return Err(Invalid::one("kind", format!("must be Endpoint, is {}", object.kind)));
    }
    let Resource::Endpoint(spec) = object.resource()? else {
        return Err(Invalid::one("spec", "is no endpoint's"));
    };
    if spec.node.as_ref() != Some(node) {
        return Err(Invalid::one("spec.node", format!("must be {node}, whose certificate this is")));
    }
    if spec.source != Source::Registration {
        return Err(Invalid::one("spec.source", format!("must be registration, is {}", spec.source)));
    }
    let of_it = |claim: &Claim| {
        claim.service.name == spec.service
            && object.metadata.namespace.as_ref() == Some(&claim.service.namespace)
    };
    if !claims.iter().any(of_it) {
        return Err(Invalid::one(
            "spec.service",
            "must be among the registration's services, in its namespace",
        ));
    }
    let Some(namespace) = object.metadata.namespace else {
        return Err(Invalid::one("metadata.namespace", "is required"));
    };
    let key = Key::namespaced(Kind::Endpoint, namespace, object.metadata.name);
    let mut stored = Object::new(key, object.spec);
    stored.metadata.labels = object.metadata.labels;
    stored.status = Some(json!({"health": health}));
    Ok(stored)
}

#[cfg(test)]
mod tests;
