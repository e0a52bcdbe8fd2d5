//! Pure. An HTTPRoute, compiled by itself: its matches and settings, its back ends still names. Recompiled only when the
//! object changes, because regular expressions are dear.

use std::{sync::Arc, time::Duration};

use model::{
    duration::Timespan,
    invalid::FieldError,
    name::{Name, ServiceName},
    object::Metadata,
    resource::{BackendRequestTimeouts, HttpRouteSpec, RouteRule},
};

use super::{
    Age, BackendName, Filters, Missing, Rule, RuleName, Split, Timeouts, Unroutable, filter::UnboundMirror,
    matcher::Matcher,
};
use crate::{retry, snapshot::Backend};

/// As many matches as one route may have, all rules together: a request may be compared with each of them.
const ROUTE_MATCHES_MAX: usize = 1_024;

/// A compiled HTTPRoute.
#[derive(Debug)]
pub struct HttpRoute {
    pub(crate) age: Age,
    pub(crate) parents: Vec<(ServiceName, Option<u16>)>,
    pub(crate) rules: Vec<Unbound>,
}

/// A rule whose back ends are names.
#[derive(Debug)]
pub(crate) struct Unbound {
    name: RuleName,
    pub(super) matchers: Vec<Arc<Matcher>>,
    pub(crate) backends: Vec<(BackendName, u64)>,
    pub(crate) mirrors: Vec<UnboundMirror>,
    filters: Arc<Filters>,
    timeouts: Timeouts,
    retry: retry::Settings,
}

/// What of a route the data plane could not compile, beyond its shape: for admission.
pub fn check(spec: &HttpRouteSpec) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, rule) in spec.rules.iter().enumerate() {
        let at = format!("spec.rules[{index}]");
        let matchers = matchers(rule, &at, &mut errors);
        filters(rule, &matchers, &at, &mut errors);
    }
    let matches: usize = spec.rules.iter().map(|rule| rule.matches.len().max(1)).sum();
    if matches > ROUTE_MATCHES_MAX {
        let message = format!("must have at most {ROUTE_MATCHES_MAX} matches in all, has {matches}");
        errors.push(FieldError { path: "spec.rules".to_owned(), message });
    }
    errors
}

impl HttpRoute {
    /// Compiles a route.
    ///
    /// # Errors
    /// As [`check`] says; never an empty list.
    pub fn compile(metadata: &Metadata, spec: &HttpRouteSpec) -> Result<Self, Vec<FieldError>> {
        let Some(namespace) = &metadata.namespace else {
            let message = "is required: a route lives in a namespace".to_owned();
            return Err(vec![FieldError { path: "metadata.namespace".to_owned(), message }]);
        };
        let errors = check(spec);
        if !errors.is_empty() {
            return Err(errors);
        }
        let rules = spec.rules.iter().enumerate();
        let Metadata { created_at, name, .. } = metadata;
        Ok(Self {
            age: Age { created_at: *created_at, namespace: namespace.clone(), name: name.clone() },
            parents: parents(namespace, spec),
            rules: rules.map(|(index, rule)| Unbound::new(namespace, name, index, rule)).collect(),
        })
    }

    /// Whether it has something to say for a port of a service.
    pub(crate) fn is_for(&self, service: &ServiceName, port: u16) -> bool {
        self.parents.iter().any(|(parent, only)| parent == service && only.is_none_or(|only| only == port))
    }
}

fn parents(namespace: &Name, spec: &HttpRouteSpec) -> Vec<(ServiceName, Option<u16>)> {
    let of = |name: &Name| ServiceName::new(namespace.clone(), name.clone());
    spec.parent_refs
        .iter()
        .map(|parent| (of(&parent.name), parent.port.map(|port| port.value() as u16)))
        .collect()
}

/// No match is a match for everything.
fn matchers(rule: &RouteRule, at: &str, errors: &mut Vec<FieldError>) -> Vec<Arc<Matcher>> {
    if rule.matches.is_empty() {
        return vec![Arc::default()];
    }
    let matches = rule.matches.iter().enumerate();
    matches
        .map(|(index, one)| Arc::new(Matcher::new(one, &format!("{at}.matches[{index}]"), errors)))
        .collect()
}

fn filters(rule: &RouteRule, matchers: &[Arc<Matcher>], at: &str, errors: &mut Vec<FieldError>) -> Filters {
    let prefix = matchers.first().and_then(|one| one.prefix());
    Filters::new(&rule.filters, prefix, at, errors)
}

impl Unbound {
    fn new(namespace: &Name, route: &Name, index: usize, rule: &RouteRule) -> Self {
        let name = match &rule.name {
            Some(name) => RuleName::of(namespace, route, name),
            None => RuleName::of(namespace, route, index),
        };
        let backends = rule.backend_refs.iter().map(|backend| {
            let port = backend.port.value() as u16;
            let name =
                BackendName { service: backend.service(namespace), port, subset: backend.subset.clone() };
            (name, backend.weight.value())
        });
        let mirrors = rule.filters.iter().filter_map(|filter| filter.request_mirror.as_ref());
        // `check` has found no error in them.
        let matchers = matchers(rule, "", &mut Vec::new());
        Self {
            name,
            filters: Arc::new(filters(rule, &matchers, "", &mut Vec::new())),
            matchers,
            backends: backends.collect(),
            mirrors: mirrors.map(|mirror| UnboundMirror::new(mirror, namespace)).collect(),
            timeouts: rule.timeouts.as_ref().map_or_else(Timeouts::default, Timeouts::from),
            retry: rule.retry.as_ref().map_or_else(retry::Settings::default, retry::Settings::from),
        }
    }

    /// The services that it names, as back ends or for copies.
    pub(crate) fn services(&self) -> impl Iterator<Item = &ServiceName> {
        let backends = self.backends.iter().map(|(name, _)| name);
        backends.chain(self.mirrors.iter().map(|mirror| &mirror.backend)).map(|name| &name.service)
    }

    /// The rule with its back ends looked up by `find`.
    pub(super) fn bound(&self, find: impl Fn(&BackendName) -> Result<Arc<Backend>, Missing>) -> Rule {
        let found = self.backends.iter().map(|(name, weight)| {
            (*weight, find(name).map_err(|missing| Unroutable::Invalid(name.clone(), missing)))
        });
        Rule {
            name: self.name.clone(),
            split: Split::new(found),
            mirrors: self.mirrors.iter().map(|mirror| mirror.bound(&find)).collect(),
            filters: Arc::clone(&self.filters),
            timeouts: self.timeouts,
            retry: self.retry.clone(),
        }
    }
}

impl From<&BackendRequestTimeouts> for Timeouts {
    /// Zero is no limit (Gateway API, HTTPRouteTimeouts).
    fn from(spec: &BackendRequestTimeouts) -> Self {
        let limit =
            |span: Option<Timespan>| span.map(Timespan::duration).filter(|span: &Duration| !span.is_zero());
        Self { request: limit(spec.request), backend_request: limit(spec.backend_request) }
    }
}
