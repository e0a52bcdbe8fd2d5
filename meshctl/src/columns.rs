//! Pure. What a table shows of each kind.

use model::{
    kind::Kind,
    object::Object,
    resource::{BackendRef, ParentRef, Resource, TargetRef},
};
use serde_json::Value;

use crate::output::{Rows, text};

/// The objects of one kind as a table; the namespace stands first where it differs.
pub(crate) fn rows(kind: Kind, objects: &[Object], all_namespaces: bool) -> Rows {
    let mut header = Vec::new();
    if all_namespaces && kind.namespaced() {
        header.push("namespace");
    }
    header.push("name");
    header.extend(columns(kind));
    header.push("revision");
    let rows = objects.iter().map(|object| row(object, all_namespaces)).collect();
    Rows { header, rows }
}

fn columns(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Namespace => &["description"],
        Kind::Node => &["session", "version", "zone", "services"],
        Kind::Service => &["ports", "ready", "hostname"],
        Kind::Endpoint => &["service", "node", "address", "health"],
        Kind::HTTPRoute | Kind::GRPCRoute | Kind::TCPRoute => &["parents", "rules"],
        Kind::AuthorizationPolicy => &["action", "targets", "rules", "dry run"],
        Kind::PeerAuthentication => &["mode", "targets", "ports"],
        Kind::TrafficPolicy => &["targets", "says"],
        Kind::JoinToken => &["role", "uses left", "expires"],
        Kind::AccessToken => &["roles", "expires"],
        Kind::Role => &["rules"],
        Kind::DiscoverySource => &["type", "state", "services", "endpoints", "error"],
    }
}

fn row(object: &Object, all_namespaces: bool) -> Vec<String> {
    let mut row = Vec::new();
    if all_namespaces {
        row.extend(object.metadata.namespace.iter().map(ToString::to_string));
    }
    row.push(object.metadata.name.to_string());
    row.extend(cells(object));
    row.push(object.metadata.revision.to_string());
    row
}

fn cells(object: &Object) -> Vec<String> {
    let status = object.status.clone().unwrap_or(Value::Null);
    let Ok(resource) = object.resource() else {
        return columns(object.kind).iter().map(|_| "?".to_owned()).collect();
    };
    match resource {
        Resource::Namespace(spec) => {
            vec![spec.description.map_or("-".to_owned(), |text| text.as_str().to_owned())]
        }
        Resource::Node(spec) => vec![
            text(&status, "/session/state"),
            text(&status, "/version"),
            spec.zone.map_or("-".to_owned(), |zone| zone.to_string()),
            list(spec.services),
        ],
        Resource::Service(spec) => {
            let ports = spec.ports.iter().map(|port| format!("{}/{}", port.port, port.protocol));
            let ready =
                format!("{}/{}", text(&status, "/endpoints/ready"), text(&status, "/endpoints/total"));
            vec![list(ports), ready, text(&status, "/hostname")]
        }
        Resource::Endpoint(spec) => vec![
            spec.service.to_string(),
            spec.node.map_or_else(|| spec.source.to_string(), |node| node.to_string()),
            spec.address.to_string(),
            text(&status, "/health"),
        ],
        Resource::HttpRoute(spec) => {
            route(&spec.parent_refs, spec.rules.iter().map(|rule| &rule.backend_refs[..]))
        }
        Resource::GrpcRoute(spec) => {
            route(&spec.parent_refs, spec.rules.iter().map(|rule| &rule.backend_refs[..]))
        }
        Resource::TcpRoute(spec) => {
            route(&spec.parent_refs, spec.rules.iter().map(|rule| &rule.backend_refs[..]))
        }
        Resource::AuthorizationPolicy(spec) => {
            let rehearsed = if spec.dry_run { "yes" } else { "-" };
            let rules = spec.rules.len().to_string();
            vec![spec.action.to_string(), targets(spec.target_refs), rules, rehearsed.to_owned()]
        }
        Resource::PeerAuthentication(spec) => {
            let mode = spec.mode.map_or("-".to_owned(), |mode| mode.to_string());
            let ports = spec.port_modes.iter().map(|own| format!("{}={}", own.port, own.mode));
            vec![mode, targets(spec.target_refs), list(ports)]
        }
        Resource::TrafficPolicy(spec) => {
            let said = object.spec.keys().filter(|key| *key != "targetRefs");
            vec![targets(spec.target_refs), list(said)]
        }
        Resource::JoinToken(spec) => {
            vec![spec.role.to_string(), text(&status, "/usesLeft"), text(&status, "/expiresAt")]
        }
        Resource::AccessToken(spec) => vec![list(spec.roles), text(&status, "/expiresAt")],
        Resource::Role(spec) => vec![spec.rules.len().to_string()],
        Resource::DiscoverySource(spec) => vec![
            spec.r#type.to_string(),
            text(&status, "/state"),
            text(&status, "/services"),
            text(&status, "/endpoints"),
            text(&status, "/error"),
        ],
    }
}

/// Whom a policy is for.
fn targets(refs: Option<Vec<TargetRef>>) -> String {
    refs.map_or("*".to_owned(), |refs| list(refs.into_iter().map(|target| target.name)))
}

/// Whom a route is for, and the back ends of its rules.
fn route<'a>(parents: &[ParentRef], rules: impl Iterator<Item = &'a [BackendRef]>) -> Vec<String> {
    let names = list(parents.iter().map(|parent| &parent.name));
    vec![names, rules.map(rule).collect::<Vec<_>>().join("; ")]
}

/// A rule's back ends with their weights: `orders:v1=90,orders:v2=10`.
fn rule(backends: &[BackendRef]) -> String {
    let backend = |backend: &BackendRef| {
        let subset = backend.subset.as_ref().map_or(String::new(), |subset| format!(":{subset}"));
        format!("{}{subset}={}", backend.name, backend.weight)
    };
    list(backends.iter().map(backend))
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    if texts.is_empty() { "-".to_owned() } else { texts.join(",") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(object: Value, want: &[&str]) {
        let object: Object = serde_json::from_value(object).expect("an object");
        let rows = rows(object.kind, &[object], true);
        assert_eq!(rows.header.len(), rows.rows[0].len());
        assert_eq!(rows.rows[0], want);
    }

    #[test]
    fn a_table_shows_what_matters_of_a_kind() {
        check(
            json!({"kind": "Service", "metadata": {"namespace": "default", "name": "orders", "revision": 7},
                "spec": {"ports": [{"port": 80, "protocol": "http"}]},
                "status": {"endpoints": {"ready": 1, "total": 2}, "hostname": "orders.default.mesh"}}),
            &["default", "orders", "80/http", "1/2", "orders.default.mesh", "7"],
        );
        check(
            json!({"kind": "HTTPRoute", "metadata": {"namespace": "default", "name": "orders", "revision": 8},
                "spec": {"parentRefs": [{"name": "orders"}], "rules": [{"backendRefs": [
                    {"name": "orders", "subset": "v1", "port": 80, "weight": 90}, {"name": "orders", "subset": "v2", "port": 80, "weight": 10}]}]}}),
            &["default", "orders", "orders", "orders:v1=90,orders:v2=10", "8"],
        );
        check(
            json!({"kind": "AuthorizationPolicy", "metadata": {"namespace": "default", "name": "p", "revision": 9},
                "spec": {"targetRefs": [{"name": "orders"}], "action": "Deny", "dryRun": true, "rules": [{}]}}),
            &["default", "p", "Deny", "orders", "1", "yes", "9"],
        );
        check(
            json!({"kind": "AuthorizationPolicy", "metadata": {"namespace": "mesh-system", "name": "p"}, "spec": {}}),
            &["mesh-system", "p", "Allow", "*", "0", "-", "0"],
        );
        check(
            json!({"kind": "PeerAuthentication", "metadata": {"namespace": "default", "name": "p", "revision": 9},
                "spec": {"mode": "Strict", "portModes": [{"port": 90, "mode": "Permissive"}]}}),
            &["default", "p", "Strict", "*", "90=Permissive", "9"],
        );
        check(
            json!({"kind": "TrafficPolicy", "metadata": {"namespace": "default", "name": "p", "revision": 3},
                "spec": {"targetRefs": [{"name": "orders"}], "timeouts": {}, "limits": {"maxRequests": 7}}}),
            &["default", "p", "orders", "limits,timeouts", "3"],
        );
        check(
            json!({"kind": "Node", "metadata": {"name": "a"}, "spec": {"services": ["default/*"]}}),
            &["a", "-", "-", "-", "default/*", "0"],
        );
    }
}
