//! Pure. Which filters a back end may have of its own. They are those that change what goes there and what comes back, or
//! copy it; what answers, or fails, without a back end is the rule's.

use super::{
    FilterType, RouteFilter,
    rules::{Beside, check_filters},
};
use crate::shape::{Decoder, Path};

/// By the kind of route, what its back ends may have of their own.
#[derive(Clone, Copy)]
pub(in crate::resource) enum OfBackends {
    /// Of an HTTPRoute.
    Http {
        /// As [`Beside`] has it.
        one_prefix: bool,
    },
    /// Of a GRPCRoute, whose calls have no path to rewrite.
    Grpc,
    /// Of a TCPRoute: nothing.
    Bytes,
}

const HTTP: &[FilterType] = &[
    FilterType::RequestHeaderModifier,
    FilterType::ResponseHeaderModifier,
    FilterType::UrlRewrite,
    FilterType::RequestMirror,
];
const GRPC: &[FilterType] =
    &[FilterType::RequestHeaderModifier, FilterType::ResponseHeaderModifier, FilterType::RequestMirror];

impl OfBackends {
    /// Reports what is wrong with the filters of the back end at `at`.
    pub(in crate::resource) fn check(self, filters: &[RouteFilter], at: &Path<'_>, decoder: &mut Decoder) {
        let at = Path::Field(at, "filters");
        let (known, one_prefix) = match self {
            Self::Http { one_prefix } => (HTTP, one_prefix),
            Self::Grpc => (GRPC, false),
            Self::Bytes => {
                if !filters.is_empty() {
                    decoder
                        .report(&at, "must be left out in a TCPRoute: a stream has nothing that they change");
                }
                return;
            }
        };
        for (index, filter) in filters.iter().enumerate().filter(|(_, own)| !known.contains(&own.kind)) {
            let filter_at = Path::Index(&at, index);
            let names = known.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ");
            decoder.report(
                &Path::Field(&filter_at, "type"),
                format_args!(
                    "must be one of {names} in a back end; is {}{}",
                    filter.kind,
                    why_not(filter.kind)
                ),
            );
        }
        check_filters(filters, Beside::of_backend(one_prefix), &at, decoder);
    }
}

fn why_not(kind: FilterType) -> &'static str {
    match kind {
        FilterType::RequestRedirect | FilterType::DirectResponse => {
            ", with which no back end is called: it stands in a rule of its own"
        }
        FilterType::Cors | FilterType::FaultInjection => {
            ", which may answer before a back end is called: it stands in the rule's filters"
        }
        FilterType::UrlRewrite => ", and a call of gRPC has no path but its method",
        FilterType::RequestHeaderModifier
        | FilterType::ResponseHeaderModifier
        | FilterType::RequestMirror => "",
    }
}

#[cfg(test)]
mod tests {
    use crate::{kind::Kind, resource::route::testing::check};

    const EDIT: &str = "{type: RequestHeaderModifier, requestHeaderModifier: {remove: [x-a]}}";
    const ANSWER: &str = "{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [x-a]}}";
    const MIRROR: &str = "{type: RequestMirror, requestMirror: {backendRef: {name: b, port: 1}}}";
    const HOST: &str = "{type: URLRewrite, urlRewrite: {hostname: a.example}}";
    const PREFIX: &str =
        "{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}}}";

    #[track_caller]
    fn of_one(kind: Kind, rule: &str, filters: &[&str], want: &[&str]) {
        let filters = filters.join(", ");
        let spec = format!(
            "{{parentRefs: [{{name: a}}], rules: [{{{rule}backendRefs: [{{name: a, port: 1, filters: [{filters}]}}]}}]}}"
        );
        let want: Vec<_> =
            want.iter().map(|want| format!("spec.rules[0].backendRefs[0].filters{want}")).collect();
        check(kind, &spec, &want.iter().map(String::as_str).collect::<Vec<_>>());
    }

    #[test]
    fn a_back_end_changes_and_copies_what_goes_there() {
        of_one(Kind::HTTPRoute, "", &[EDIT, ANSWER, HOST, MIRROR, MIRROR], &[]);
        of_one(Kind::GRPCRoute, "", &[EDIT, ANSWER, MIRROR], &[]);
        of_one(Kind::HTTPRoute, "", &[EDIT, EDIT], &["[1].type: must be there once: a back end has one"]);
        of_one(Kind::HTTPRoute, "matches: [{path: {value: /a}}], ", &[PREFIX], &[]);
        of_one(
            Kind::HTTPRoute,
            "matches: [{path: {type: Exact, value: /a}}], ",
            &[PREFIX],
            &["[0].urlRewrite.path.type: must be ReplaceFullPath unless"],
        );
    }

    #[test]
    fn what_answers_without_a_back_end_is_the_rule_s() {
        let http = "must be one of RequestHeaderModifier, ResponseHeaderModifier, URLRewrite, RequestMirror in a back end; is ";
        for (filter, why) in [
            (
                "{type: RequestRedirect, requestRedirect: {port: 1}}",
                "RequestRedirect, with which no back end",
            ),
            ("{type: DirectResponse, directResponse: {}}", "DirectResponse, with which no back end"),
            ("{type: CORS, cors: {}}", "CORS, which may answer before"),
            (
                "{type: FaultInjection, faultInjection: {abort: {status: 500}}}",
                "FaultInjection, which may answer",
            ),
        ] {
            of_one(Kind::HTTPRoute, "", &[EDIT, filter], &[&format!("[1].type: {http}{why}")]);
        }
        of_one(
            Kind::GRPCRoute,
            "",
            &[HOST],
            &[
                "[0].type: must be one of RequestHeaderModifier, ResponseHeaderModifier, RequestMirror in a back end; is URLRewrite, and a call",
            ],
        );
        of_one(
            Kind::HTTPRoute,
            "",
            &["{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: 'a b', value: x}]}}"],
            &["[0].requestHeaderModifier.set[0].name: must be a header's name"],
        );
    }

    #[test]
    fn who_gets_copies_is_named_by_its_path() {
        use crate::object::Parsed;
        let input = serde_json::json!({"metadata": {"namespace": "default", "name": "r"}, "spec": {
            "parentRefs": [{"name": "a"}],
            "rules": [{"backendRefs": [{"name": "a", "port": 1, "filters": [
                {"type": "RequestMirror", "requestMirror": {"backendRef": {"namespace": "shop", "name": "b", "port": 2}}},
            ]}]}],
        }});
        let parsed = Parsed::from_input(&input, Some(Kind::HTTPRoute)).expect("a route");
        let refs = parsed.resource.route().expect("a route");
        let named: Vec<_> =
            refs.backends.iter().map(|(at, one)| format!("{at} {}:{}", one.name, one.port)).collect();
        assert_eq!(
            named,
            [
                "spec.rules[0].backendRefs[0].filters[0].requestMirror.backendRef b:2",
                "spec.rules[0].backendRefs[0] a:1",
            ]
        );
    }
}
