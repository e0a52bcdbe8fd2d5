use super::*;

fn registration(endpoint: Value) -> Result<Register, ApiError> {
    let registration = json!({
        "version": "0.1.0",
        "addresses": ["10.0.0.5"],
        "services": [{"service": "default/orders", "ports": [{"port": 80, "targetPort": 8080, "later": 1}]}],
        "endpoints": [endpoint],
    });
    let registration = serde_json::from_value(registration).expect("well formed");
    checked("host-a".parse().expect("a name"), registration)
}

fn orders() -> Value {
    json!({
        "kind": "Endpoint",
        "metadata": {"namespace": "default", "name": "orders-host-a", "labels": {"version": "v2"},
                     "annotations": {"not": "kept"}},
        "spec": {"service": "orders", "node": "host-a", "address": "10.0.0.5",
                 "ports": [{"port": 80, "targetPort": 8080}]},
        "status": {"health": "Draining", "stale": true, "invented": 1},
    })
}

/// The endpoint with one field changed.
#[track_caller]
fn check(pointer: &str, value: Value, path: &str, message: &str) {
    let mut endpoint = orders();
    *endpoint.pointer_mut(pointer).expect("the field is there") = value;
    let problem = registration(endpoint).expect_err("wrong").problem();
    assert_eq!(problem.errors.len(), 1, "{problem}");
    assert_eq!(problem.errors[0].path, path);
    assert!(problem.errors[0].message.contains(message), "{problem}");
}

#[test]
fn an_endpoint_keeps_its_labels_and_health_and_nothing_else_of_its_status() {
    let register = registration(orders()).expect("right");
    let [endpoint] = &register.endpoints[..] else { panic!("one endpoint") };
    assert_eq!(endpoint.status, Some(json!({"health": "Draining"})));
    assert_eq!(endpoint.metadata.labels.len(), 1);
    assert!(endpoint.metadata.annotations.is_empty());
    assert_eq!(register.services[0].ports[0].number(), 80);
}

#[test]
fn an_endpoint_is_the_caller_s_own() {
    check(
        "/spec/node",
        json!("host-b"),
        "endpoints[0].spec.node",
        "must be host-a, whose certificate this is",
    );
    check("/spec/node", Value::Null, "endpoints[0].spec.node", "must be host-a");
    check("/kind", json!("Service"), "endpoints[0].kind", "must be Endpoint");
    check(
        "/spec/service",
        json!("web"),
        "endpoints[0].spec.service",
        "must be among the registration's services",
    );
    check(
        "/metadata/namespace",
        json!("shop"),
        "endpoints[0].spec.service",
        "must be among the registration's",
    );
    check("/status/health", json!("Fine"), "endpoints[0].status.health", "");
}

#[test]
fn limits_are_told_all_at_once() {
    let registration = Registration {
        version: "v".repeat(TEXT_BYTES_MAX + 1),
        addresses: vec![String::new(); ADDRESSES_MAX + 1],
        services: Vec::new(),
        endpoints: Vec::new(),
    };
    let problem = checked("host-a".parse().expect("a name"), registration).expect_err("too much").problem();
    let paths: Vec<&str> = problem.errors.iter().map(|error| error.path.as_str()).collect();
    assert_eq!(paths, ["version", "addresses"]);
}
