//! Pure. Which objects a host's proxy is told of: every Service (the index), its own Node, and of the destinations that
//! it subscribed to the routes, endpoints and traffic policies, also those of the services that these routes name, and the policies for
//! what it may run. Tokens, roles and other hosts never are. And what has to be said when some of it changed, each object once, whatever lay between.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use model::{
    kind::Kind,
    name::{Name, ServiceName},
    object::{Key, Object},
    resource::{NAMESPACE_OF_THE_MESH, Resource},
};
use registry::{Compacted, State};
use serde_json::Value;

use crate::wake::Topic;

mod guards;

use guards::Guards;

/// The most endpoints of a mesh in which one proxy may subscribe to all of them: about 3 MiB to send and to hold.
pub const WILDCARD_ENDPOINTS_MAX: usize = 5_000;
/// The most destinations that one proxy subscribes to by name: more is `*`.
pub const SUBSCRIPTIONS_MAX: usize = 1_024;

/// The destinations that a proxy wants to know about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subscription {
    /// All: `*`.
    All,
    /// These.
    Services(BTreeSet<ServiceName>),
}

/// Why a subscription is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubscriptionError {
    /// A name that is none.
    #[error("'{text}': {problem}")]
    Name {
        /// The name.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Too many names.
    #[error("at most {SUBSCRIPTIONS_MAX} services may be subscribed by name, not {0}")]
    Names(usize),
    /// The mesh has outgrown `*`.
    #[error(
        "'*' is for meshes of at most {WILDCARD_ENDPOINTS_MAX} endpoints, this one has {0}: name the destinations"
    )]
    Wildcard(usize),
}

/// What one proxy is told of.
#[derive(Debug, Clone)]
pub struct Scope {
    node: Name,
    subscription: Subscription,
    /// The subscribed services and those that their routes name; empty with `*`.
    reached: BTreeSet<ServiceName>,
    guards: Guards,
}

/// One thing to tell.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// The object as it is.
    Put(Arc<Object>),
    /// The object is gone, or no longer the proxy's business.
    Delete(Key),
}

impl Subscription {
    /// Reads `a/b,c/d` or `*`; nothing is no destination at all.
    ///
    /// # Errors
    /// If a name is none, or there are too many.
    pub fn parse(text: &str) -> Result<Self, SubscriptionError> {
        let names: Vec<&str> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        if names.contains(&"*") {
            return Ok(Self::All);
        }
        if names.len() > SUBSCRIPTIONS_MAX {
            return Err(SubscriptionError::Names(names.len()));
        }
        let parsed = names.into_iter().map(|text| {
            text.parse().map_err(|error: model::name::NameError| SubscriptionError::Name {
                text: text.to_owned(),
                problem: error.to_string(),
            })
        });
        parsed.collect::<Result<_, _>>().map(Self::Services)
    }

    /// Without those of `added`: what was subscribed before they came.
    #[must_use]
    pub fn without(&self, added: &Self) -> Self {
        match (self, added) {
            (Self::Services(all), Self::Services(added)) => Self::Services(all - added),
            (_, Self::All) => Self::Services(BTreeSet::new()),
            (Self::All, _) => Self::All,
        }
    }
}

impl Scope {
    /// The scope of `node` at `state`.
    ///
    /// # Errors
    /// If the mesh is too large for `*`.
    pub fn new(node: Name, subscription: Subscription, state: &State) -> Result<Self, SubscriptionError> {
        if subscription == Subscription::All {
            let endpoints = state.list(Kind::Endpoint, None).count();
            if endpoints > WILDCARD_ENDPOINTS_MAX {
                return Err(SubscriptionError::Wildcard(endpoints));
            }
        }
        let reached = reach(&subscription, |service| state.routes_of(service).cloned().collect());
        let guards = Guards::of(state.get(&guards::node(&node)).map(Arc::as_ref));
        Ok(Self { node, subscription, reached, guards })
    }

    /// What a change must be about to concern it.
    pub fn topics(&self) -> BTreeSet<Topic> {
        let own = Topic::Object(guards::node(&self.node));
        let mut topics = BTreeSet::from([own, Topic::Trust]);
        topics.extend(INDEX.map(Topic::Everywhere));
        topics.extend(self.guards.topics(Kind::AuthorizationPolicy));
        topics.extend(self.guards.topics(Kind::TrafficPolicy));
        match self.subscription {
            Subscription::All => {
                topics.extend([Kind::Endpoint, Kind::TrafficPolicy].map(Topic::Everywhere));
                topics.extend(Kind::ROUTES.map(Topic::Everywhere));
            }
            Subscription::Services(_) => {
                topics.extend(self.reached.iter().cloned().map(Topic::Details));
                let namespaces: BTreeSet<_> = self.reached.iter().map(|service| &service.namespace).collect();
                let within = |namespace: &Name| Topic::Within(Kind::TrafficPolicy, namespace.clone());
                topics.extend(namespaces.into_iter().map(within));
            }
        }
        topics
    }

    /// Everything that it holds, for a proxy that knows nothing.
    pub fn everything(&self, state: &State) -> Vec<Told> {
        let own = state.get(&guards::node(&self.node));
        let index = INDEX.into_iter().flat_map(|kind| state.list(kind, None));
        let policies = policies(state).filter(|policy| self.holds(policy));
        let detail: Vec<&Arc<Object>> = match self.subscription {
            Subscription::All => all_details(state).collect(),
            Subscription::Services(_) => details(&self.reached, state).into_values().collect(),
        };
        own.into_iter().chain(index).chain(policies).chain(detail).cloned().map(Told::Put).collect()
    }

    /// What a proxy must be told that knows the scope of `before` as of revision `from`, so that it knows this one as
    /// of `state`.
    ///
    /// # Errors
    /// If what changed since `from` is no longer kept.
    pub fn since(&self, before: &Subscription, from: u64, state: &State) -> Result<Vec<Told>, Compacted> {
        let changed = changes(from, state)?;
        let own = guards::node(&self.node);
        let node = changed.get(&own).map_or_else(|| state.get(&own).cloned(), Clone::clone);
        let old = Self {
            node: self.node.clone(),
            subscription: before.clone(),
            reached: reach(before, |service| routes_before(service, &changed, state)),
            guards: Guards::of(node.as_deref()),
        };
        Ok(self.difference(&old, &changed, state))
    }

    /// Moves on to `state` from revision `from`, of which everything was told.
    ///
    /// # Errors
    /// If what changed since `from` is no longer kept.
    pub fn advance(&mut self, from: u64, state: &State) -> Result<Vec<Told>, Compacted> {
        let changed = changes(from, state)?;
        let mut next = self.clone();
        if changed.keys().any(|key| key.kind.is_route()) {
            next.reached = reach(&self.subscription, |service| state.routes_of(service).cloned().collect());
        }
        let own = guards::node(&self.node);
        if changed.contains_key(&own) {
            next.guards = Guards::of(state.get(&own).map(Arc::as_ref));
        }
        let told = next.difference(self, &changed, state);
        *self = next;
        Ok(told)
    }

    /// What changed between two scopes and two states; `changed` holds the older form of each changed object.
    fn difference(&self, old: &Self, changed: &Changes, state: &State) -> Vec<Told> {
        let mut told = Vec::new();
        for (key, before) in changed {
            let now = state.get(key).filter(|object| self.holds(object));
            match now {
                Some(object) => told.push(Told::Put(object.clone())),
                None if before.as_ref().is_some_and(|before| old.holds(before)) => {
                    told.push(Told::Delete(key.clone()));
                }
                None => {}
            }
        }
        let unchanged = |key: &Key| !changed.contains_key(key);
        for (key, object) in self.gained(old, state).into_iter().chain(self.policies_unlike(old, state)) {
            if unchanged(&key) && !old.holds(object) {
                told.push(Told::Put(object.clone()));
            }
        }
        let lost = &old.reached - &self.reached;
        for (key, object) in details(&lost, state).into_iter().chain(old.policies_unlike(self, state)) {
            if unchanged(&key) && !self.holds(object) {
                told.push(Told::Delete(key));
            }
        }
        told
    }

    /// Its policies, if another scope has others.
    fn policies_unlike<'a>(&self, other: &Self, state: &'a State) -> BTreeMap<Key, &'a Arc<Object>> {
        let wide = |scope: &Self| scope.subscription == Subscription::All;
        if self.guards == other.guards && self.reached == other.reached && wide(self) == wide(other) {
            return BTreeMap::new();
        }
        let policies = policies(state).filter(|policy| self.holds(policy));
        policies.map(|policy| (policy.key(), policy)).collect()
    }

    /// Whether a traffic policy is for a service that it reaches.
    fn treats(&self, policy: &Object) -> bool {
        let Some(namespace) = &policy.metadata.namespace else { return false };
        if self.subscription == Subscription::All {
            return true;
        }
        if policy.spec.get("targetRefs").is_none_or(Value::is_null) {
            let all = namespace.as_str() == NAMESPACE_OF_THE_MESH;
            return all || self.reached.iter().any(|service| service.namespace == *namespace);
        }
        named(policy, "targetRefs").iter().any(|service| self.reached.contains(service))
    }

    /// The details of services that the older scope did not reach.
    fn gained<'a>(&self, old: &Self, state: &'a State) -> BTreeMap<Key, &'a Arc<Object>> {
        if self.subscription == Subscription::All && old.subscription != Subscription::All {
            return all_details(state).map(|object| (object.key(), object)).collect();
        }
        details(&(&self.reached - &old.reached), state)
    }

    /// Whether an object belongs to the scope.
    fn holds(&self, object: &Object) -> bool {
        let all = self.subscription == Subscription::All;
        match object.kind {
            Kind::Service | Kind::PeerAuthentication => true,
            Kind::Node => object.metadata.name == self.node,
            Kind::Endpoint => {
                all || service_of(object).is_some_and(|service| self.reached.contains(&service))
            }
            Kind::HTTPRoute | Kind::GRPCRoute | Kind::TCPRoute => {
                all || parents_of(object).iter().any(|service| self.reached.contains(service))
            }
            Kind::AuthorizationPolicy => self.guards.have(object),
            Kind::TrafficPolicy => self.treats(object) || self.guards.have(object),
            Kind::Namespace | Kind::JoinToken | Kind::AccessToken | Kind::Role | Kind::DiscoverySource => {
                false
            }
        }
    }
}

/// What every proxy knows all of: which services there are, and how they are reached.
const INDEX: [Kind; 2] = [Kind::Service, Kind::PeerAuthentication];

/// Each object that changed, as it was before the first of these changes; `None` if it was not there.
type Changes = BTreeMap<Key, Option<Arc<Object>>>;

fn changes(from: u64, state: &State) -> Result<Changes, Compacted> {
    let mut changes = Changes::new();
    for revision in state.history_since(from)? {
        for changed in &revision.changes {
            changes.entry(changed.key.clone()).or_insert_with(|| changed.before.clone());
        }
    }
    Ok(changes)
}

/// The subscribed services and those that their routes name. One step: whom a route names is called directly, not
/// by its own routes.
fn reach(
    subscription: &Subscription,
    routes_of: impl Fn(&ServiceName) -> Vec<Arc<Object>>,
) -> BTreeSet<ServiceName> {
    let Subscription::Services(subscribed) = subscription else { return BTreeSet::new() };
    let mut reached = subscribed.clone();
    for route in subscribed.iter().flat_map(routes_of) {
        let (resource, namespace) = (route.resource().ok(), route.metadata.namespace.as_ref());
        if let Some((route, namespace)) = resource.as_ref().and_then(Resource::route).zip(namespace) {
            reached.extend(route.backend_services(namespace));
        }
    }
    reached
}

/// The services that calls of `service` may reach: itself, and those that its routes name.
pub fn reached(service: &ServiceName, state: &State) -> BTreeSet<ServiceName> {
    let subscription = Subscription::Services(BTreeSet::from([service.clone()]));
    reach(&subscription, |service| state.routes_of(service).cloned().collect())
}

/// The routes and endpoints of some services, and the policies that may be for them.
pub fn details_and_policies<'a>(
    services: &'a BTreeSet<ServiceName>,
    state: &'a State,
) -> impl Iterator<Item = &'a Arc<Object>> {
    let near = |policy: &&Arc<Object>| {
        let namespace = policy.metadata.namespace.as_ref();
        namespace.is_some_and(|own| {
            own.as_str() == NAMESPACE_OF_THE_MESH || services.iter().any(|service| service.namespace == *own)
        })
    };
    let modes = state.list(Kind::PeerAuthentication, None);
    details(services, state).into_values().chain(policies(state).chain(modes).filter(near))
}

/// A service's routes as they were before `changed`.
fn routes_before(service: &ServiceName, changed: &Changes, state: &State) -> Vec<Arc<Object>> {
    let kept = state.routes_of(service).filter(|route| !changed.contains_key(&route.key())).cloned();
    let routes = changed.iter().filter(|(key, _)| key.kind.is_route());
    let before = routes.filter_map(|(_, before)| before.clone());
    kept.chain(before.filter(|route| parents_of(route).contains(service))).collect()
}

/// All that may be for a service without being a detail of it.
fn policies(state: &State) -> impl Iterator<Item = &Arc<Object>> {
    let kinds = [Kind::AuthorizationPolicy, Kind::TrafficPolicy];
    kinds.into_iter().flat_map(|kind| state.list(kind, None))
}

/// The routes and endpoints of all services.
fn all_details(state: &State) -> impl Iterator<Item = &Arc<Object>> {
    let routes = Kind::ROUTES.into_iter().flat_map(|kind| state.list(kind, None));
    routes.chain(state.list(Kind::Endpoint, None))
}

/// The routes and endpoints of some services.
fn details<'a>(services: &BTreeSet<ServiceName>, state: &'a State) -> BTreeMap<Key, &'a Arc<Object>> {
    let of = |service| state.routes_of(service).chain(state.endpoints_of(service));
    services.iter().flat_map(of).map(|object| (object.key(), object)).collect()
}

/// The services that an endpoint or a route is a detail of.
pub(crate) fn services_of(object: &Object) -> Vec<ServiceName> {
    match object.kind {
        Kind::Endpoint => service_of(object).into_iter().collect(),
        kind if kind.is_route() => parents_of(object),
        _ => Vec::new(),
    }
}

/// An endpoint's service. Read without decoding the whole: it is asked for each change and each watcher.
fn service_of(endpoint: &Object) -> Option<ServiceName> {
    let name = endpoint.spec.get("service").and_then(Value::as_str)?.parse().ok()?;
    Some(ServiceName::new(endpoint.metadata.namespace.clone()?, name))
}

fn parents_of(route: &Object) -> Vec<ServiceName> {
    named(route, "parentRefs")
}

/// The services of its own namespace that an object names in a list.
fn named(object: &Object, list: &str) -> Vec<ServiceName> {
    let references = object.spec.get(list).and_then(Value::as_array).into_iter().flatten();
    let names = references.filter_map(|reference| reference.get("name")?.as_str()?.parse::<Name>().ok());
    let namespace = object.metadata.namespace.as_ref();
    names.filter_map(|name| Some(ServiceName::new(namespace?.clone(), name))).collect()
}

#[cfg(test)]
mod tests;
