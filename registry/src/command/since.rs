//! Pure. Since which version of the commands a change may be written: an older member could not read what it is made of.

use model::{kind::Kind, object::Object};
use serde_json::Value;

use super::Change;
use crate::state::DISCOVERY_SINCE;

/// The version since which back ends of routes have filters. An older member would not tell proxies of the services that
/// their mirrors name, nor judge who may name them.
const BACKEND_FILTERS_SINCE: u32 = 5;

/// The version that introduced a kind: an older member could not read its objects.
fn since(kind: Kind) -> u32 {
    match kind {
        Kind::Namespace
        | Kind::Node
        | Kind::Service
        | Kind::Endpoint
        | Kind::HTTPRoute
        | Kind::JoinToken
        | Kind::AccessToken
        | Kind::Role => 1,
        Kind::GRPCRoute
        | Kind::TCPRoute
        | Kind::AuthorizationPolicy
        | Kind::TrafficPolicy
        | Kind::PeerAuthentication => 2,
        Kind::DiscoverySource => DISCOVERY_SINCE,
    }
}

/// The version that introduced what a change is made of.
pub(super) fn introduced(change: &Change) -> u32 {
    let of_kind = since(change.kind());
    match change {
        Change::Put { object, .. } if has_backend_filters(object) => of_kind.max(BACKEND_FILTERS_SINCE),
        Change::Put { .. } | Change::Delete { .. } => of_kind,
    }
}

/// Whether a back end of a route has filters of its own.
fn has_backend_filters(object: &Object) -> bool {
    let is_route = matches!(object.key().kind, Kind::HTTPRoute | Kind::GRPCRoute);
    let rules = object.spec.get("rules").filter(|_| is_route).and_then(Value::as_array);
    let mut backends = rules.into_iter().flatten().flat_map(|rule| listed(rule, "backendRefs"));
    backends.any(|backend| listed(backend, "filters").next().is_some())
}

fn listed<'a>(of: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    of.get(field).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use model::{name::Name, object::Key};
    use serde_json::json;

    use super::*;
    use crate::command::{Command, Expect, Write};

    #[test]
    fn filters_of_a_back_end_are_for_members_that_know_them() {
        let put = |backend: Value| {
            let name: Name = "a".parse().expect("a name");
            let spec = json!({"rules": [{"backendRefs": [{"name": "a"}]}, {"backendRefs": [backend], "filters": [{}]}]});
            let spec = spec.as_object().expect("an object").clone();
            let object = Object::new(Key::namespaced(Kind::HTTPRoute, name.clone(), name), spec);
            let changes = vec![Change::Put { object, expect: Expect::Any, credential: None }];
            Command::Write(Write { actor: "test".to_owned(), changes }).version()
        };
        assert_eq!(put(json!({"name": "a", "filters": []})), 1);
        assert_eq!(put(json!({"name": "a", "filters": [{"type": "URLRewrite"}]})), BACKEND_FILTERS_SINCE);
    }
}
