//! Pure. An example of each kind, and of what the other paths take. A test sends each of them to a real server.

use model::kind::Kind;
use serde_json::{Value, json};

/// What changes an object of any kind.
pub(super) fn patch() -> Value {
    json!({"metadata": {"labels": {"team": "shop"}}})
}

/// What a path that is not about a kind takes; `None` where nobody but a program of ours makes it up.
pub(super) fn body(path: &str) -> Option<Value> {
    match path {
        "/v1/apply" => Some(json!({"items": [of(Kind::Namespace), of(Kind::Service), of(Kind::HTTPRoute)]})),
        "/v1/rollback" => Some(json!({"revision": 1})),
        _ => None,
    }
}

/// The same in YAML, where that is taken, too.
pub(super) fn manifest() -> &'static str {
    "kind: Service\nmetadata: {namespace: default, name: orders}\nspec:\n  ports:\n  - {port: 80, targetPort: 8080, protocol: http}\n"
}

/// An object of a kind as an operator writes it.
pub(super) fn of(kind: Kind) -> Value {
    let targets = json!([{"kind": "Service", "name": "orders"}]);
    let backends = json!([{"name": "orders", "port": 80}]);
    let routed = |rule: Value| json!({"parentRefs": [{"name": "orders"}], "rules": [rule]});
    let spec = match kind {
        Kind::Namespace => json!({"description": "The shop."}),
        Kind::Node => json!({"zone": "a", "services": ["default/orders", "shop/*"]}),
        Kind::Service => json!({
            "ports": [{"port": 80, "targetPort": 8_080, "protocol": "http"}],
            "subsets": [{"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}],
        }),
        Kind::Endpoint => json!({
            "service": "orders", "node": "host-a", "source": "registration", "address": "10.0.0.5",
            "ports": [{"port": 80, "targetPort": 8_080}],
        }),
        Kind::HTTPRoute => routed(json!({
            "matches": [{"path": {"type": "PathPrefix", "value": "/api"}, "method": "GET"}],
            "backendRefs": [
                {"name": "orders", "subset": "v1", "port": 80, "weight": 90},
                {"name": "orders", "subset": "v2", "port": 80, "weight": 10},
            ],
            "timeouts": {"request": "10s"},
            "retry": {"attempts": 2, "codes": [503]},
        })),
        Kind::GRPCRoute => routed(json!({
            "matches": [{"method": {"service": "shop.Orders", "method": "Get"}}],
            "backendRefs": backends,
        })),
        Kind::TCPRoute => routed(json!({"backendRefs": backends})),
        Kind::AuthorizationPolicy => json!({
            "targetRefs": targets,
            "action": "Allow",
            "rules": [{"name": "web-reads", "from": [{"services": ["default/web"]}], "to": [{"methods": ["GET"]}]}],
        }),
        Kind::PeerAuthentication => json!({"targetRefs": targets, "mode": "Strict"}),
        Kind::TrafficPolicy => json!({
            "targetRefs": targets,
            "loadBalancer": {"type": "LeastRequest"},
            "timeouts": {"request": "15s"},
        }),
        Kind::JoinToken => json!({"role": "host", "uses": 1, "ttl": "1h", "services": ["default/orders"]}),
        Kind::AccessToken => json!({"roles": ["viewer"], "ttl": "24h"}),
        Kind::Role => json!({
            "rules": [{"kinds": ["Service", "HTTPRoute"], "verbs": ["get", "list", "write"], "namespaces": ["default"]}],
        }),
        Kind::DiscoverySource => {
            json!({"type": "File", "file": {"path": "/etc/mesh/discovery/old-hosts.yaml"}})
        }
    };
    let mut metadata = json!({"name": name(kind)});
    if kind.namespaced() {
        metadata["namespace"] = "default".into();
    }
    json!({"kind": kind, "metadata": metadata, "spec": spec})
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Namespace => "shop",
        Kind::Node => "host-a",
        Kind::Endpoint => "orders-host-a-8080",
        Kind::JoinToken => "shop-hosts",
        Kind::AccessToken => "ci",
        Kind::Role => "shop-operator",
        Kind::DiscoverySource => "old-hosts",
        _ => "orders",
    }
}
