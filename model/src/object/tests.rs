use serde_json::json;

use super::*;

fn errors(value: Value) -> Vec<String> {
    let errors = Parsed::from_input(&value, None).map_or_else(|invalid| invalid.errors, |_| Vec::new());
    errors.into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect()
}

#[test]
fn the_spec_comes_back_as_it_was_written_and_defaults_stand_apart() {
    let input = json!({"kind": "Service", "metadata": {"namespace": "default", "name": "orders"}, "spec": {"ports": [{"port": 80}]}});
    let parsed = Parsed::from_input(&input, None).expect("valid");
    assert_eq!(Value::Object(parsed.object.spec.clone()), input["spec"]);
    assert_eq!(
        parsed.resource.effective(),
        json!({"ports": [{"port": 80, "targetPort": 80, "protocol": "auto"}]})
    );
    assert_eq!(parsed.object.key().path(), "/v1/namespaces/default/services/orders");
}

#[test]
fn all_wrong_fields_of_an_object_are_named() {
    let input = json!({
        "apiVersion": "mesh/v2", "kind": "HTTPRoute", "metadata": {"name": "Orders", "uid": 3}, "extra": 1,
        "spec": {"rules": [{"backendRefs": [{"name": "orders", "port": 80}, {"name": "orders", "port": 80, "weight": -1}]}]}
    });
    let want = [
        "extra: unknown field; known are apiVersion, kind, metadata, spec, status",
        "apiVersion: must be mesh/v1, is \"mesh/v2\"",
        "metadata.uid: unknown field; known are namespace, name, labels, annotations, revision, createdAt, updatedAt",
        "metadata.name: must be lower-case letters, digits and '-', starting and ending with a letter or digit: 'Orders' is not",
        "spec.rules[0].backendRefs[1].weight: must be a whole number from 0 to 1000000, is -1",
    ];
    assert_eq!(errors(input), want);
}

#[test]
fn kinds_stand_where_they_belong() {
    assert_eq!(
        errors(json!({"kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"port": 1}]}})),
        ["metadata.namespace: is required: Service lives in a namespace"]
    );
    assert_eq!(
        errors(json!({"kind": "Node", "metadata": {"name": "a", "namespace": "b"}})),
        ["metadata.namespace: must be left out: Node is mesh-wide"]
    );
    let other = Parsed::from_input(&json!({"kind": "Node", "metadata": {"name": "a"}}), Some(Kind::Role))
        .expect_err("another kind");
    assert_eq!(other.to_string(), "kind: must be Role, as in the path; is Node");
}

#[test]
fn status_and_bookkeeping_of_an_answer_can_be_sent_back() {
    let input = json!({"kind": "Namespace", "metadata": {"name": "a", "revision": 7, "createdAt": "2026-11-23T04:00:00Z"}, "spec": {}, "status": {"anything": [1]}});
    assert!(Parsed::from_input(&input, None).expect("valid").object.status.is_none());
}

#[test]
fn stored_objects_of_another_version_are_read() {
    let stored = json!({
        "kind": "Node", "metadata": {"name": "a", "uid": 7}, "spec": {"services": ["default/*"], "gpu": true}, "generation": 4
    });
    let object: Object = serde_json::from_value(stored).expect("read leniently");
    let Resource::Node(node) = object.resource().expect("read leniently") else { panic!("not a node") };
    assert!(node.grants(&"default/orders".parse().expect("a name")));
}
