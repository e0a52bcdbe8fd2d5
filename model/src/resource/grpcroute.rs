//! Pure. GRPCRoute: where gRPC calls to a service go, in Gateway API's terms.

use super::{
    BackendRef, BackendRequestTimeouts, FilterType, HeaderMatch, ParentRef, Retry, RouteFilter, Rules,
    ValueMatchType,
    filter::{Beside, OfBackends, check_filters},
    route::{check_backends, check_headers, check_parents, check_timeouts},
};
use crate::{
    name::{Name, ServiceGlob},
    object::{Labels, Metadata},
    shape::{Decoder, Path, Text, record},
};

record! {
    /// A gRPC service, method or both.
    pub struct GrpcMethodMatch {
        /// How they are compared.
        "type" kind: ValueMatchType = ValueMatchType::Exact,
        /// The service with its package, such as `ledger.v1.Ledger`; any if left out.
        "service" service: Option<Text<1024>>,
        /// The method; any if left out.
        "method" method: Option<Text<1024>>,
    }
}

record! {
    /// What a call must be like; all of it.
    pub struct GrpcRouteMatch {
        /// Service and method; any if left out.
        "method" method: Option<GrpcMethodMatch>,
        /// Headers, which gRPC calls metadata.
        "headers" headers: Vec<HeaderMatch>,
        /// Who calls, any of these: `shop/web`, `shop/*`; anyone if left out. Ours.
        "sources" sources: Vec<ServiceGlob>,
        /// Labels that the caller's file in `services.d` has, all of these. Ours.
        "sourceLabels" source_labels: Labels,
    }
}

record! {
    /// A rule: the first that matches, by Gateway API's precedence, decides.
    pub struct GrpcRouteRule {
        /// For metrics and explain; its index if left out.
        "name" name: Option<Name>,
        /// Any of these; every call if left out.
        "matches" matches: Vec<GrpcRouteMatch>,
        /// Where calls go, by weight; nowhere (500) if left out.
        "backendRefs" backend_refs: Vec<BackendRef>,
        /// Header modifiers, mirrors and faults.
        "filters" filters: Vec<RouteFilter>,
        /// How long things may take. Ours, as in HTTPRoute.
        "timeouts" timeouts: Option<BackendRequestTimeouts>,
        /// When a call is tried again. Ours, as in HTTPRoute.
        "retry" retry: Option<Retry>,
    }
}

record! {
    /// Where gRPC calls to a service go.
    pub struct GrpcRouteSpec {
        /// The services that it is for; at least one.
        "parentRefs" parent_refs: Vec<ParentRef>,
        /// The rules.
        "rules" rules: Vec<GrpcRouteRule>,
    }
}

/// What Gateway API knows of filters for gRPC, and ours.
const FILTERS: [FilterType; 4] = [
    FilterType::RequestHeaderModifier,
    FilterType::ResponseHeaderModifier,
    FilterType::RequestMirror,
    FilterType::FaultInjection,
];

impl Rules for GrpcRouteSpec {
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

fn check_rule(rule: &GrpcRouteRule, at: &Path<'_>, decoder: &mut Decoder) {
    let matches_at = Path::Field(at, "matches");
    for (index, one) in rule.matches.iter().enumerate() {
        let match_at = Path::Index(&matches_at, index);
        if let Some(method) = &one.method {
            check_method(method, &Path::Field(&match_at, "method"), decoder);
        }
        check_headers(&one.headers, &match_at, decoder);
    }
    let filters_at = Path::Field(at, "filters");
    for (index, filter) in rule.filters.iter().enumerate().filter(|(_, own)| !FILTERS.contains(&own.kind)) {
        let filter_at = Path::Index(&filters_at, index);
        let known = FILTERS.map(FilterType::as_str).join(", ");
        decoder.report(
            &Path::Field(&filter_at, "type"),
            format_args!("must be one of {known} in a GRPCRoute; is {}", filter.kind),
        );
    }
    let beside = Beside::of_rule(!rule.backend_refs.is_empty(), false);
    check_filters(&rule.filters, beside, &filters_at, decoder);
    check_backends(&rule.backend_refs, OfBackends::Grpc, at, decoder);
    check_timeouts(rule.timeouts.as_ref(), at, decoder);
}

/// Names as Protobuf has them: a package's parts are joined by dots.
fn check_method(one: &GrpcMethodMatch, at: &Path<'_>, decoder: &mut Decoder) {
    if one.service.is_none() && one.method.is_none() {
        decoder.report(at, "must have service or method");
    }
    if one.kind == ValueMatchType::RegularExpression {
        return;
    }
    let word = |text: &str| {
        let mut bytes = text.bytes();
        bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if one.service.as_ref().is_some_and(|service| !service.as_str().split('.').all(word)) {
        decoder.report(&Path::Field(at, "service"), "must be a service such as ledger.v1.Ledger");
    }
    if one.method.as_ref().is_some_and(|method| !word(method.as_str())) {
        decoder.report(&Path::Field(at, "method"), "must be a method such as Post");
    }
}

#[cfg(test)]
mod tests {
    use super::super::route::testing::check;
    use crate::kind::Kind;

    #[test]
    fn every_wrong_field_is_named() {
        check(
            Kind::GRPCRoute,
            "{parentRefs: [{name: a}], rules: [{matches: [{method: {service: a.b_c.D, method: Post}}]}]}",
            &[],
        );
        check(
            Kind::GRPCRoute,
            "{parentRefs: [], rules: [{matches: [{method: {}}, {method: {service: /a, method: 'b c'}}, {headers: [{name: 'a b', value: x}]}]}]}",
            &[
                "spec.parentRefs: must name at least one Service",
                "spec.rules[0].matches[0].method: must have service or method",
                "spec.rules[0].matches[1].method.service: must be a service such as",
                "spec.rules[0].matches[1].method.method: must be a method such as",
                "spec.rules[0].matches[2].headers[0].name: must be a header's name",
            ],
        );
        check(
            Kind::GRPCRoute,
            "{parentRefs: [{name: a}], rules: [{backendRefs: [{name: a, port: 1, weight: 0}], filters: [{type: URLRewrite, urlRewrite: {hostname: a}}], timeouts: {request: 1s, backendRequest: 2s}}]}",
            &[
                "spec.rules[0].filters[0].type: must be one of RequestHeaderModifier, ResponseHeaderModifier, RequestMirror, FaultInjection in a GRPCRoute; is URLRewrite",
                "spec.rules[0].backendRefs: must have one back end with a weight above 0",
                "spec.rules[0].timeouts.backendRequest: must be at most timeouts.request, 1s",
            ],
        );
    }
}
