//! Pure. HTTPRoute: where HTTP requests to a service go, in Gateway API's terms.

use super::{
    GrpcCode, Port, RetryCondition, RouteFilter, Rules,
    filter::{Beside, OfBackends, check_filters},
    route::{check_backends, check_headers, check_parents, check_timeouts},
};
use crate::{
    duration::Timespan,
    name::{Name, ServiceGlob, ServiceName},
    object::{Labels, Metadata},
    shape::{Decoder, Int, Path, Text, choice, record},
};

/// A share among the back ends of a rule; relative to the others' sum.
pub type Weight = Int<0, 1_000_000>;

choice! {
    /// The kinds that routes refer to.
    pub enum RefKind {
        /// A Service of the mesh.
        Service = "Service",
    }
}

choice! {
    /// How a path is compared.
    pub enum PathMatchType {
        /// The whole path.
        Exact = "Exact",
        /// Whole segments from the start.
        PathPrefix = "PathPrefix",
        /// A regular expression over the whole path.
        RegularExpression = "RegularExpression",
    }
}

choice! {
    /// How a header, query parameter or cookie is compared.
    pub enum ValueMatchType {
        /// The whole value.
        Exact = "Exact",
        /// A regular expression over the whole value.
        RegularExpression = "RegularExpression",
    }
}

record! {
    /// The service that a route belongs to; of the route's own namespace.
    pub struct ParentRef {
        /// `Service`.
        "kind" kind: RefKind = RefKind::Service,
        /// Its name.
        "name" name: Name,
        /// The port the route is for; all HTTP ports if left out.
        "port" port: Option<Port>,
    }
}

record! {
    /// A path to compare with.
    pub struct PathMatch {
        /// How.
        "type" kind: PathMatchType = PathMatchType::PathPrefix,
        /// With what; starts with `/` unless it is a regular expression.
        "value" value: Text<1024>,
    }
}

record! {
    /// A header to compare with.
    pub struct HeaderMatch {
        /// How.
        "type" kind: ValueMatchType = ValueMatchType::Exact,
        /// The header's name; case does not matter.
        "name" name: Text<256>,
        /// With what.
        "value" value: Text<4096>,
    }
}

record! {
    /// A query parameter to compare with; the first of that name counts.
    pub struct QueryParamMatch {
        /// How.
        "type" kind: ValueMatchType = ValueMatchType::Exact,
        /// The parameter's name.
        "name" name: Text<256>,
        /// With what.
        "value" value: Text<1024>,
    }
}

record! {
    /// A cookie to compare with.
    pub struct CookieMatch {
        /// How.
        "type" kind: ValueMatchType = ValueMatchType::Exact,
        /// The cookie's name.
        "name" name: Text<256>,
        /// With what.
        "value" value: Text<4096>,
    }
}

record! {
    /// What a request must be like; all of it.
    pub struct RouteMatch {
        /// The path; any if left out.
        "path" path: Option<PathMatch>,
        /// The method; any if left out.
        "method" method: Option<Text<32>>,
        /// Headers.
        "headers" headers: Vec<HeaderMatch>,
        /// Query parameters.
        "queryParams" query_params: Vec<QueryParamMatch>,
        /// Cookies. Ours.
        "cookies" cookies: Vec<CookieMatch>,
        /// Who calls, any of these: `shop/web`, `shop/*`; anyone if left out. Ours.
        "sources" sources: Vec<ServiceGlob>,
        /// Labels that the caller's file in `services.d` has, all of these. Ours.
        "sourceLabels" source_labels: Labels,
    }
}

record! {
    /// A service that requests go to.
    pub struct BackendRef {
        /// `Service`.
        "kind" kind: RefKind = RefKind::Service,
        /// Its namespace; the route's if left out.
        "namespace" namespace: Option<Name>,
        /// Its name.
        "name" name: Name,
        /// A subset of its endpoints; all if left out.
        "subset" subset: Option<Name>,
        /// Its port.
        "port" port: Port,
        /// Its share.
        "weight" weight: Weight = Weight::clamped(1),
        /// What is done to requests that go there, and to their answers, after the rule's filters.
        "filters" filters: Vec<RouteFilter>,
    }
}

record! {
    /// How long things may take.
    pub struct BackendRequestTimeouts {
        /// From the request's last byte in to the answer's end, all tries together.
        "request" request: Option<Timespan>,
        /// One try.
        "backendRequest" backend_request: Option<Timespan>,
    }
}

record! {
    /// When a request is tried again.
    pub struct Retry {
        /// Tries after the first.
        "attempts" attempts: Int<0, 10> = Int::clamped(1),
        /// Answers that are tried again, beside what the conditions say; 502, 503 and 504 if neither is given.
        "codes" codes: Vec<Int<400, 599>>,
        /// Failures that are tried again; ConnectFailure, Refused and Reset if left out. Ours.
        "conditions" conditions: Vec<RetryCondition>,
        /// Statuses of gRPC that are tried again although the application answered. Ours.
        "grpcCodes" grpc_codes: Vec<GrpcCode>,
        /// The wait before the first retry; doubled, with jitter, for each further one.
        "backoff" backoff: Timespan = Timespan::from_millis(25),
    }
}

record! {
    /// A rule: the first that matches, by Gateway API's precedence, decides.
    pub struct RouteRule {
        /// For metrics and explain; its index if left out.
        "name" name: Option<Name>,
        /// Any of these; every request if left out.
        "matches" matches: Vec<RouteMatch>,
        /// Where requests go, by weight; nowhere (500) if left out, unless a filter answers.
        "backendRefs" backend_refs: Vec<BackendRef>,
        /// What is done to requests and answers.
        "filters" filters: Vec<RouteFilter>,
        /// How long things may take.
        "timeouts" timeouts: Option<BackendRequestTimeouts>,
        /// When a request is tried again.
        "retry" retry: Option<Retry>,
    }
}

record! {
    /// Where HTTP requests to a service go.
    pub struct HttpRouteSpec {
        /// The services that it is for; at least one.
        "parentRefs" parent_refs: Vec<ParentRef>,
        /// The rules.
        "rules" rules: Vec<RouteRule>,
    }
}

impl HttpRouteSpec {
    /// With every default filled in.
    pub fn effective(&self) -> Self {
        let mut effective = self.clone();
        for rule in &mut effective.rules {
            if rule.matches.is_empty() {
                rule.matches.push(RouteMatch::any());
            }
        }
        effective
    }
}

impl RouteMatch {
    fn any() -> Self {
        let path = PathMatch { kind: PathMatchType::PathPrefix, value: Text::new("/").expect("one byte") };
        Self {
            path: Some(path),
            method: None,
            headers: Vec::new(),
            query_params: Vec::new(),
            cookies: Vec::new(),
            sources: Vec::new(),
            source_labels: Labels::new(),
        }
    }
}

impl BackendRef {
    /// The service, for a route of `namespace`.
    pub fn service(&self, namespace: &Name) -> ServiceName {
        ServiceName::new(self.namespace.as_ref().unwrap_or(namespace).clone(), self.name.clone())
    }
}

impl Rules for HttpRouteSpec {
    fn check(&self, _metadata: Option<&Metadata>, at: &Path<'_>, decoder: &mut Decoder) {
        check_parents(&self.parent_refs, at, decoder);
        let rules_at = Path::Field(at, "rules");
        if self.rules.is_empty() {
            decoder.report(&rules_at, "must have at least one rule");
        }
        for (index, rule) in self.rules.iter().enumerate() {
            check_rule(rule, &Path::Index(&rules_at, index), decoder);
        }
    }
}

fn check_rule(rule: &RouteRule, at: &Path<'_>, decoder: &mut Decoder) {
    let matches_at = Path::Field(at, "matches");
    for (index, one) in rule.matches.iter().enumerate() {
        check_match(one, &Path::Index(&matches_at, index), decoder);
    }
    let backends = !rule.backend_refs.is_empty();
    let one_prefix = one_prefix(&rule.matches);
    check_filters(&rule.filters, Beside::of_rule(backends, one_prefix), &Path::Field(at, "filters"), decoder);
    check_backends(&rule.backend_refs, OfBackends::Http { one_prefix }, at, decoder);
    check_timeouts(rule.timeouts.as_ref(), at, decoder);
}

/// Whether there is one prefix that a filter can replace. No match is the prefix `/`.
fn one_prefix(matches: &[RouteMatch]) -> bool {
    match matches {
        [] => true,
        [one] => one.path.as_ref().is_some_and(|path| path.kind == PathMatchType::PathPrefix),
        _ => false,
    }
}

pub(super) fn check_match(one: &RouteMatch, at: &Path<'_>, decoder: &mut Decoder) {
    if let Some(path) = &one.path {
        let path_at = Path::Field(at, "path");
        let value = path.value.as_str();
        if path.kind != PathMatchType::RegularExpression && !value.starts_with('/') {
            decoder.report(&Path::Field(&path_at, "value"), "must start with '/'");
        }
    }
    if one.method.as_ref().is_some_and(|method| !is_method(method.as_str())) {
        decoder.report(&Path::Field(at, "method"), "must be a method in upper case, such as GET");
    }
    check_headers(&one.headers, at, decoder);
}

/// Whether a request's method can be this: those in use are in upper case.
pub(super) fn is_method(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || b"-_".contains(&byte))
}
