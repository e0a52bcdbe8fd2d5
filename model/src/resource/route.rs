//! Pure. What routes of all kinds have in common: the services that they are for, what they name as back ends, and the
//! rules for that.

use super::{
    BackendRef, BackendRequestTimeouts, HeaderMatch, ParentRef, Resource, RouteFilter,
    filter::{OfBackends, check_name},
};
use crate::{
    name::{Name, ServiceName},
    shape::{Decoder, Path},
};

/// Whom a route speaks of.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteRefs<'a> {
    /// The services that it is for.
    pub parents: &'a [ParentRef],
    /// All that it names as back ends, mirrors among them, each with its path (`spec.rules[0].backendRefs[1]`).
    pub backends: Vec<(String, BackendRef)>,
}

impl Resource {
    /// Whom it speaks of, if it is a route.
    pub fn route(&self) -> Option<RouteRefs<'_>> {
        match self {
            Self::HttpRoute(spec) => {
                let rules = spec.rules.iter().map(|rule| (&rule.backend_refs[..], &rule.filters[..]));
                Some(RouteRefs::new(&spec.parent_refs, rules))
            }
            Self::GrpcRoute(spec) => {
                let rules = spec.rules.iter().map(|rule| (&rule.backend_refs[..], &rule.filters[..]));
                Some(RouteRefs::new(&spec.parent_refs, rules))
            }
            Self::TcpRoute(spec) => {
                let rules = spec.rules.iter().map(|rule| (&rule.backend_refs[..], &[][..]));
                Some(RouteRefs::new(&spec.parent_refs, rules))
            }
            _ => None,
        }
    }
}

impl<'a> RouteRefs<'a> {
    fn new<'r>(
        parents: &'a [ParentRef],
        rules: impl Iterator<Item = (&'r [BackendRef], &'r [RouteFilter])>,
    ) -> Self {
        let backends = rules.enumerate().flat_map(|(index, (backends, filters))| {
            let at = format!("spec.rules[{index}]");
            let mut named = Vec::new();
            for (index, backend) in backends.iter().enumerate() {
                let at = format!("{at}.backendRefs[{index}]");
                named.extend(mirrors(&backend.filters, &at));
                named.push((at, backend.clone()));
            }
            named.extend(mirrors(filters, &at));
            named
        });
        Self { parents, backends: backends.collect() }
    }

    /// The services that it is for, as a route of `namespace`.
    pub fn parent_services(&self, namespace: &Name) -> impl Iterator<Item = ServiceName> {
        self.parents.iter().map(|parent| ServiceName::new(namespace.clone(), parent.name.clone()))
    }

    /// Every service that it may send requests to, or copies of them, as a route of `namespace`.
    pub fn backend_services(&self, namespace: &Name) -> impl Iterator<Item = ServiceName> {
        self.backends.iter().map(|(_, backend)| backend.service(namespace))
    }
}

/// Who gets copies by the filters of the rule or back end at `at`.
fn mirrors(filters: &[RouteFilter], at: &str) -> impl Iterator<Item = (String, BackendRef)> {
    filters.iter().enumerate().filter_map(move |(index, filter)| {
        let mirror = filter.request_mirror.as_ref()?;
        Some((format!("{at}.filters[{index}].requestMirror.backendRef"), mirror.backend_ref.backend()))
    })
}

/// A route is for someone.
pub(super) fn check_parents(parents: &[ParentRef], at: &Path<'_>, decoder: &mut Decoder) {
    if parents.is_empty() {
        decoder.report(&Path::Field(at, "parentRefs"), "must name at least one Service");
    }
}

/// Somebody gets what a rule takes, and what is done for one back end alone can be.
pub(super) fn check_backends(
    backends: &[BackendRef],
    filters: OfBackends,
    at: &Path<'_>,
    decoder: &mut Decoder,
) {
    let backends_at = Path::Field(at, "backendRefs");
    for (index, backend) in backends.iter().enumerate() {
        filters.check(&backend.filters, &Path::Index(&backends_at, index), decoder);
    }
    let weights: u64 = backends.iter().map(|backend| backend.weight.value()).sum();
    if !backends.is_empty() && weights == 0 {
        decoder.report(&backends_at, "must have one back end with a weight above 0");
    }
}

/// A try takes no longer than all of them may.
pub(super) fn check_timeouts(
    timeouts: Option<&BackendRequestTimeouts>,
    at: &Path<'_>,
    decoder: &mut Decoder,
) {
    let spans = timeouts.and_then(|timeouts| timeouts.request.zip(timeouts.backend_request));
    if let Some((request, backend)) = spans
        && backend > request
        && !request.duration().is_zero()
    {
        let timeouts_at = Path::Field(at, "timeouts");
        decoder.report(
            &Path::Field(&timeouts_at, "backendRequest"),
            format_args!("must be at most timeouts.request, {request}"),
        );
    }
}

/// Headers to compare with have names; `at` is where the match stands.
pub(super) fn check_headers(headers: &[HeaderMatch], at: &Path<'_>, decoder: &mut Decoder) {
    let headers_at = Path::Field(at, "headers");
    for (index, header) in headers.iter().enumerate() {
        let header_at = Path::Index(&headers_at, index);
        check_name(header.name.as_str(), &Path::Field(&header_at, "name"), decoder);
    }
}

#[cfg(test)]
pub(super) mod testing {
    use serde_json::{Value, json};

    use crate::{kind::Kind, object::Parsed};

    /// A spec (YAML in flow form) and what is wrong with it: `path: message`, each by its start.
    #[track_caller]
    pub(in crate::resource) fn check(kind: Kind, spec: &str, want: &[&str]) {
        let spec: Value = serde_saphyr::from_str(spec).expect("YAML");
        let input = json!({"metadata": {"namespace": "default", "name": "r"}, "spec": spec});
        let got: Vec<_> = match Parsed::from_input(&input, Some(kind)) {
            Ok(_) => Vec::new(),
            Err(invalid) => {
                invalid.errors.iter().map(|error| format!("{}: {}", error.path, error.message)).collect()
            }
        };
        assert_eq!(got.len(), want.len(), "{got:#?}");
        for (got, want) in got.iter().zip(want) {
            assert!(got.starts_with(want), "{got}\nis not\n{want}");
        }
    }
}
