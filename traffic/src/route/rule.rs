//! Pure. A route of whatever kind, compiled by itself: its matches and settings, its back ends still names. Recompiled
//! only when the object changes, because regular expressions are dear.

use std::sync::Arc;

use model::{
    duration::Timespan,
    invalid::FieldError,
    name::{Name, ServiceName},
    object::Metadata,
    resource::{BackendRef, BackendRequestTimeouts, Resource, Retry, RouteFilter},
};

use super::{
    Age, BackendName, Choice, Filters, Missing, Rule, RuleName, Split, Timeouts, Unroutable,
    filter::UnboundMirror, matcher::Matcher,
};
use crate::{retry, snapshot::Backend};

/// As many matches as one route may have, all rules together: a request may be compared with each of them.
const ROUTE_MATCHES_MAX: usize = 1_024;

/// A compiled route.
#[derive(Debug)]
pub struct Route {
    pub(crate) age: Age,
    pub(crate) speaks: Speaks,
    pub(crate) parents: Vec<(ServiceName, Option<u16>)>,
    pub(crate) rules: Vec<Unbound>,
}

/// What a route sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// Requests: an HTTPRoute.
    Http,
    /// gRPC's calls: a GRPCRoute.
    Grpc,
    /// Streams of bytes: a TCPRoute.
    Bytes,
}

/// A rule whose back ends are names.
#[derive(Debug)]
pub(crate) struct Unbound {
    name: RuleName,
    pub(super) matchers: Vec<Arc<Matcher>>,
    backends: Vec<UnboundChoice>,
    mirrors: Vec<UnboundMirror>,
    filters: Arc<Filters>,
    timeouts: Timeouts,
    retry: Option<retry::Settings>,
}

/// A back end that is a name.
#[derive(Debug)]
struct UnboundChoice {
    name: BackendName,
    weight: u64,
    /// As in [`Choice`].
    filters: Option<Arc<Filters>>,
    mirrors: Vec<UnboundMirror>,
}

/// A rule of whatever kind of route, its matches compiled.
struct Draft<'a> {
    name: Option<&'a Name>,
    matchers: Vec<Arc<Matcher>>,
    backends: &'a [BackendRef],
    filters: &'a [RouteFilter],
    timeouts: Option<&'a BackendRequestTimeouts>,
    retry: Option<&'a Retry>,
}

/// What of a route the data plane could not compile, beyond its shape: for admission.
pub fn check(route: &Resource) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some((_, drafts)) = drafts(route, &mut errors) {
        for (index, draft) in drafts.iter().enumerate() {
            draft.filters(index, &mut errors);
            for of_backend in 0..draft.backends.len() {
                draft.backend_filters(index, of_backend, &mut errors);
            }
        }
        let matches: usize = drafts.iter().map(|draft| draft.matchers.len()).sum();
        if matches > ROUTE_MATCHES_MAX {
            let message = format!("must have at most {ROUTE_MATCHES_MAX} matches in all, has {matches}");
            errors.push(FieldError { path: "spec.rules".to_owned(), message });
        }
    }
    errors
}

impl Route {
    /// Compiles a route.
    ///
    /// # Errors
    /// As [`check`] says; never an empty list.
    pub fn compile(metadata: &Metadata, route: &Resource) -> Result<Self, Vec<FieldError>> {
        let wrong = |path: &str, message: &str| {
            vec![FieldError { path: path.to_owned(), message: message.to_owned() }]
        };
        let Metadata { created_at, name, namespace: Some(namespace), .. } = metadata else {
            return Err(wrong("metadata.namespace", "is required: a route lives in a namespace"));
        };
        let errors = check(route);
        if !errors.is_empty() {
            return Err(errors);
        }
        // `check` has found no error in them.
        let drafted = drafts(route, &mut Vec::new());
        let Some(((speaks, drafts), refs)) = drafted.zip(route.route()) else {
            return Err(wrong("kind", "must be a kind of route"));
        };
        let rules = drafts.into_iter().enumerate();
        let ports = refs.parents.iter().map(|parent| parent.port.map(|port| port.value() as u16));
        Ok(Self {
            age: Age { created_at: *created_at, namespace: namespace.clone(), name: name.clone() },
            speaks,
            parents: refs.parent_services(namespace).zip(ports).collect(),
            rules: rules.map(|(index, draft)| Unbound::new(namespace, name, index, draft)).collect(),
        })
    }

    /// Whether it has something to say for a port of a service.
    pub(crate) fn is_for(&self, service: &ServiceName, port: u16) -> bool {
        self.parents.iter().any(|(parent, only)| parent == service && only.is_none_or(|only| only == port))
    }
}

/// What a route sees, and its rules.
fn drafts<'a>(route: &'a Resource, errors: &mut Vec<FieldError>) -> Option<(Speaks, Vec<Draft<'a>>)> {
    match route {
        Resource::HttpRoute(spec) => {
            let draft = |(index, rule): (usize, &'a model::resource::RouteRule)| Draft {
                name: rule.name.as_ref(),
                matchers: matchers(&rule.matches, index, |one, at| Matcher::new(one, at, errors)),
                backends: &rule.backend_refs,
                filters: &rule.filters,
                timeouts: rule.timeouts.as_ref(),
                retry: rule.retry.as_ref(),
            };
            Some((Speaks::Http, spec.rules.iter().enumerate().map(draft).collect()))
        }
        Resource::GrpcRoute(spec) => {
            let draft = |(index, rule): (usize, &'a model::resource::GrpcRouteRule)| Draft {
                name: rule.name.as_ref(),
                matchers: matchers(&rule.matches, index, |one, at| Matcher::grpc(one, at, errors)),
                backends: &rule.backend_refs,
                filters: &rule.filters,
                timeouts: rule.timeouts.as_ref(),
                retry: rule.retry.as_ref(),
            };
            Some((Speaks::Grpc, spec.rules.iter().enumerate().map(draft).collect()))
        }
        Resource::TcpRoute(spec) => {
            let draft = |rule: &'a model::resource::TcpRouteRule| Draft {
                name: rule.name.as_ref(),
                matchers: Vec::new(),
                backends: &rule.backend_refs,
                filters: &[],
                timeouts: None,
                retry: None,
            };
            Some((Speaks::Bytes, spec.rules.iter().map(draft).collect()))
        }
        _ => None,
    }
}

/// No match is a match for everything.
fn matchers<T>(
    matches: &[T],
    rule: usize,
    mut compile: impl FnMut(&T, &str) -> Matcher,
) -> Vec<Arc<Matcher>> {
    if matches.is_empty() {
        return vec![Arc::default()];
    }
    let at = |index: usize| format!("spec.rules[{rule}].matches[{index}]");
    matches.iter().enumerate().map(|(index, one)| Arc::new(compile(one, &at(index)))).collect()
}

impl Draft<'_> {
    fn filters(&self, rule: usize, errors: &mut Vec<FieldError>) -> Filters {
        let prefix = self.matchers.first().and_then(|one| one.prefix());
        Filters::new(self.filters, prefix, &format!("spec.rules[{rule}]"), errors)
    }

    /// The rule's filters, and after them those of one of its back ends, if that has any.
    fn backend_filters(&self, rule: usize, backend: usize, errors: &mut Vec<FieldError>) -> Option<Filters> {
        let own = Some(&self.backends[backend].filters).filter(|own| !own.is_empty())?;
        let prefix = self.matchers.first().and_then(|one| one.prefix());
        // What is wrong with the rule's own is said once.
        let of_rule = self.filters(rule, &mut Vec::new());
        let at = format!("spec.rules[{rule}].backendRefs[{backend}]");
        Some(of_rule.then(own, prefix, &at, errors))
    }

    fn choice(&self, namespace: &Name, rule: usize, index: usize) -> UnboundChoice {
        let backend = &self.backends[index];
        let port = backend.port.value() as u16;
        UnboundChoice {
            name: BackendName { service: backend.service(namespace), port, subset: backend.subset.clone() },
            weight: backend.weight.value(),
            filters: self.backend_filters(rule, index, &mut Vec::new()).map(Arc::new),
            mirrors: mirrors(&backend.filters, namespace),
        }
    }
}

fn mirrors(filters: &[RouteFilter], namespace: &Name) -> Vec<UnboundMirror> {
    let mirrors = filters.iter().filter_map(|filter| filter.request_mirror.as_ref());
    mirrors.map(|mirror| UnboundMirror::new(mirror, namespace)).collect()
}

impl Unbound {
    fn new(namespace: &Name, route: &Name, index: usize, draft: Draft<'_>) -> Self {
        let name = match draft.name {
            Some(name) => RuleName::of(namespace, route, name),
            None => RuleName::of(namespace, route, index),
        };
        let choices = (0..draft.backends.len()).map(|of| draft.choice(namespace, index, of));
        Self {
            name,
            filters: Arc::new(draft.filters(index, &mut Vec::new())),
            backends: choices.collect(),
            mirrors: mirrors(draft.filters, namespace),
            timeouts: draft.timeouts.map_or_else(Timeouts::default, Timeouts::from),
            retry: draft.retry.map(retry::Settings::from),
            matchers: draft.matchers,
        }
    }

    /// The services that it names, as back ends or for copies.
    pub(crate) fn services(&self) -> impl Iterator<Item = &ServiceName> {
        let of_backends = self.backends.iter().flat_map(|choice| &choice.mirrors);
        let mirrors = self.mirrors.iter().chain(of_backends).map(|mirror| &mirror.backend);
        self.backends.iter().map(|choice| &choice.name).chain(mirrors).map(|name| &name.service)
    }

    /// The rule with its back ends looked up by `find`.
    pub(crate) fn bound(&self, find: impl Fn(&BackendName) -> Result<Arc<Backend>, Missing>) -> Rule {
        let bound = |mirrors: &[UnboundMirror]| mirrors.iter().map(|mirror| mirror.bound(&find)).collect();
        let found = self.backends.iter().map(|UnboundChoice { name, weight, filters, mirrors }| {
            let backend = find(name).map_err(|missing| Unroutable::Invalid(name.clone(), missing));
            (*weight, Choice { backend, filters: filters.clone(), mirrors: bound(mirrors) })
        });
        Rule {
            name: self.name.clone(),
            split: Split::new(found),
            mirrors: bound(&self.mirrors),
            filters: Arc::clone(&self.filters),
            timeouts: self.timeouts,
            retry: self.retry,
        }
    }
}

impl From<&BackendRequestTimeouts> for Timeouts {
    /// As they are said: zero is no limit (Gateway API, HTTPRouteTimeouts).
    fn from(spec: &BackendRequestTimeouts) -> Self {
        let limit = |span: Option<Timespan>| span.map(Timespan::duration);
        Self { request: limit(spec.request), backend_request: limit(spec.backend_request), call: None }
    }
}
