//! Pure. Nodes' sessions: what a host registers stands as long as its session. When a session is lost is decided by
//! the leader (`crate::session`); here only what follows.

use std::{collections::BTreeSet, sync::Arc};

use model::{
    duration::Millis,
    kind::Kind,
    name::{Name, ServiceName},
    object::{Key, Object},
    resource::{EndpointSpec, NodeSpec, Resource, Source},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{State, catalog::resource, objects::endpoint};
use crate::command::{Claim, Refusal, Register, Reply, SessionRef};

mod claims;

pub(super) use claims::service_key;
pub use claims::{CONDITIONS_MAX, MANAGED_BY, REGISTRATION};

/// The most services of one node: a host runs dozens; more is a mistake of its configuration.
pub const SERVICES_PER_NODE_MAX: usize = 1_024;
/// The most endpoints of one node: a service may run several times on a host.
pub const ENDPOINTS_PER_NODE_MAX: usize = 4_096;

/// A node's session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// The revision of the registration that made it what it is: another registration, another generation.
    pub generation: u64,
    /// Since when the node is here without a break, in log time.
    pub opened_at: Millis,
    /// When it last registered, in log time.
    pub registered_at: Millis,
    /// Its proxy's version.
    pub version: String,
    /// Where it is reached, for people.
    pub addresses: Vec<String>,
    /// The services that it says it runs.
    pub claims: Vec<Claim>,
    /// Since when its keep-alives are missing, if its endpoints are kept all the same.
    #[serde(default)]
    pub stale_since: Option<Millis>,
}

impl State {
    /// A node's whole set: what is not in it goes.
    pub(super) fn register(&mut self, register: Register) -> Result<Reply, Refusal> {
        let node = register.node.clone();
        let spec = self.node_spec(&node)?;
        within_limits(&register)?;
        let claimed: BTreeSet<_> = register.claimed().cloned().collect();
        for service in &claimed {
            self.namespace_exists(&service.namespace)?;
            if !spec.grants(service) {
                return Err(Refusal::NotGranted { node, service: service.clone() });
            }
        }
        let kept = self.put_endpoints(&node, register.endpoints, &claimed)?;
        let gone: Vec<_> =
            self.objects.endpoints_on(&node).filter(|key| !kept.contains(key)).cloned().collect();
        gone.iter().for_each(|key| self.discard(key));

        let before = self.sessions.get(&node).cloned();
        let generation = self.pending_revision();
        let session = Session {
            generation,
            opened_at: before.as_ref().map_or(self.time, |before| before.opened_at),
            registered_at: self.time,
            version: register.version,
            addresses: register.addresses,
            claims: register.services,
            stale_since: None,
        };
        self.sessions.insert(node, session.clone());
        self.touched = true;
        let claims_before = before.map(|before| before.claims.clone()).unwrap_or_default();
        self.claim(&claims_before, &session.claims);
        Ok(Reply::Registered { generation, revision: generation })
    }

    /// The node leaves; only its present session may.
    pub(super) fn unregister(&mut self, session: &SessionRef) -> Result<Reply, Refusal> {
        if !self.present(session) {
            return Err(Refusal::SessionGone { node: session.node.clone() });
        }
        self.end_session(&session.node);
        Ok(Reply::Nothing)
    }

    /// Sessions whose keep-alives stopped. One that registered anew since is another.
    pub(super) fn expire(&mut self, sessions: &[SessionRef]) -> Reply {
        for session in sessions {
            if self.present(session) {
                self.end_session(&session.node);
            }
        }
        Reply::Nothing
    }

    /// So many keep-alives stopped at once that the hosts are likelier to be fine than gone.
    pub(super) fn mark_stale(&mut self, sessions: &[SessionRef]) -> Reply {
        for reference in sessions.iter().filter(|session| self.present(session)).cloned().collect::<Vec<_>>()
        {
            let Some(session) =
                self.sessions.get(&reference.node).filter(|session| session.stale_since.is_none())
            else {
                continue;
            };
            let session = Session { stale_since: Some(self.time), ..(**session).clone() };
            self.sessions.insert(reference.node.clone(), session);
            self.touched = true;
            for key in self.objects.endpoints_on(&reference.node).cloned().collect::<Vec<_>>() {
                if let Some(object) = self.objects.get(&key) {
                    let stale = with_stale(object);
                    self.stamp(stale);
                }
            }
        }
        Reply::Nothing
    }

    /// A Node was created or changed: one that is shut out, or may no longer run what it runs, loses its session, and
    /// has to register anew.
    pub(super) fn node_changed(&mut self, node: &Object) {
        let name = node.metadata.name.clone();
        let Some(session) = self.sessions.get(&name) else { return };
        let granted = match node.resource() {
            Ok(Resource::Node(spec)) => {
                !spec.disabled && session.claims.iter().all(|claim| spec.grants(&claim.service))
            }
            _ => false,
        };
        if !granted {
            self.end_session(&name);
        }
    }

    /// A Node was deleted: nothing of it is left, and nobody may come in its name.
    pub(super) fn forget_node(&mut self, node: &Name) {
        self.end_session(node);
        self.withdraw_requests(node);
        self.distrust_node(node);
    }

    pub(super) fn end_session(&mut self, node: &Name) {
        let Some(session) = self.sessions.remove(node) else { return };
        self.touched = true;
        for key in self.objects.endpoints_on(node).cloned().collect::<Vec<_>>() {
            let registered = self.objects.get(&key).and_then(|object| endpoint(object));
            if registered.is_some_and(|spec| spec.source == Source::Registration) {
                self.discard(&key);
            }
        }
        self.claim(&session.claims, &[]);
    }

    fn present(&self, session: &SessionRef) -> bool {
        self.sessions.get(&session.node).is_some_and(|present| present.generation == session.generation)
    }

    fn node_spec(&self, node: &Name) -> Result<NodeSpec, Refusal> {
        let key = Key::mesh_wide(Kind::Node, node.clone());
        let object = self.objects.get(&key).ok_or(Refusal::NotFound { key })?;
        match resource(object)? {
            Resource::Node(spec) if !spec.disabled => Ok(spec),
            _ => Err(Refusal::Disabled { node: node.clone() }),
        }
    }

    fn put_endpoints(
        &mut self,
        node: &Name,
        endpoints: Vec<Object>,
        claimed: &BTreeSet<ServiceName>,
    ) -> Result<BTreeSet<Key>, Refusal> {
        let mut kept = BTreeSet::new();
        for object in endpoints {
            let key = object.key();
            let spec = registered_endpoint(&object, node, claimed)?;
            self.not_of_another(&key, node)?;
            if !kept.insert(key.clone()) {
                return Err(Refusal::Exists { key });
            }
            let before = self.objects.get(&key);
            if before.is_none_or(|before| !before.same_input(&object) || before.status != object.status) {
                self.store(object);
            }
            debug_assert_eq!(spec.node.as_ref(), Some(node));
        }
        Ok(kept)
    }

    /// Endpoints of a namespace share one space of names.
    fn not_of_another(&self, key: &Key, node: &Name) -> Result<(), Refusal> {
        let Some(present) = self.objects.get(key) else { return Ok(()) };
        match endpoint(present).map(|spec| (spec.node, spec.source)) {
            Some((Some(owner), Source::Registration)) if owner == *node => Ok(()),
            other => {
                let owner = other.and_then(|(owner, _)| owner);
                let with = owner.map(|owner| Key::mesh_wide(Kind::Node, owner));
                let message = "the name is another node's endpoint's; put the node's name in it".to_owned();
                Err(Refusal::Conflict { key: key.clone(), with, message })
            }
        }
    }
}

impl Register {
    /// The services that it names, by claim or by endpoint.
    fn claimed(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.iter().map(|claim| &claim.service)
    }
}

fn within_limits(register: &Register) -> Result<(), Refusal> {
    for (what, actual, limit) in [
        ("services of a node", register.services.len(), SERVICES_PER_NODE_MAX),
        ("endpoints of a node", register.endpoints.len(), ENDPOINTS_PER_NODE_MAX),
    ] {
        if actual > limit {
            return Err(Refusal::TooLarge {
                what: what.to_owned(),
                actual: actual as u64,
                limit: limit as u64,
            });
        }
    }
    Ok(())
}

/// An endpoint may come only from the node it stands on, for a service that the node claims.
fn registered_endpoint(
    object: &Object,
    node: &Name,
    claimed: &BTreeSet<ServiceName>,
) -> Result<EndpointSpec, Refusal> {
    let key = object.key();
    let invalid = |message: String| Refusal::Invalid { key: key.clone(), message };
    let Resource::Endpoint(spec) = resource(object)? else {
        return Err(invalid("must be an Endpoint".to_owned()));
    };
    if spec.node.as_ref() != Some(node) || spec.source != Source::Registration {
        return Err(invalid(format!("must have node {node} and source registration")));
    }
    let service = key.namespace.clone().map(|namespace| ServiceName::new(namespace, spec.service.clone()));
    match service {
        Some(service) if claimed.contains(&service) => Ok(spec),
        _ => Err(invalid(format!(
            "is for service {}, which the registration does not name in this namespace",
            spec.service
        ))),
    }
}

fn with_stale(object: &Arc<Object>) -> Object {
    let mut stale = (**object).clone();
    match &mut stale.status {
        Some(Value::Object(status)) => {
            status.insert("stale".to_owned(), Value::Bool(true));
        }
        status => *status = Some(json!({"stale": true})),
    }
    stale
}
