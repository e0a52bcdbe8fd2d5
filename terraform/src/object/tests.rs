use super::*;
use crate::schema::resources;

fn resource(name: &str) -> ResourceType {
    resources().into_iter().find(|resource| resource.name == name).expect(name)
}

fn value(fields: &[(&str, Value)]) -> Value {
    Value::Object(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
}

fn stored(kind: &str, spec: Json) -> Object {
    let object = json!({"kind": kind, "metadata": {"name": "a", "revision": 7}, "spec": spec});
    serde_json::from_value(object).expect("an object")
}

#[test]
fn what_is_left_out_is_not_sent_and_what_is_empty_is() {
    let role = resource("mesh_role");
    let written = |spec: Value| input(&role, &value(&[("name", Value::text("a")), ("spec", spec)]));
    assert_eq!(written(Value::Null)["spec"], json!({}));
    assert_eq!(written(value(&[("rules", Value::Null)]))["spec"], json!({}));
    assert_eq!(written(value(&[("rules", Value::List(Vec::new()))]))["spec"], json!({"rules": []}));
    assert_eq!(written(Value::unknown())["metadata"], json!({"name": "a"}));
}

#[test]
fn names_are_those_of_the_api_and_numbers_are_numbers() {
    let ports =
        Value::List(vec![value(&[("port", Value::text("80")), ("target_port", Value::Number(8080.into()))])]);
    let service = value(&[
        ("namespace", Value::text("shop")),
        ("name", Value::text("a")),
        ("spec", value(&[("ports", ports)])),
    ]);
    let written = input(&resource("mesh_service"), &service);
    assert_eq!(written["spec"], json!({"ports": [{"port": 80, "targetPort": 8080}]}));
    let object = object(&resource("mesh_service"), &service).expect("an object");
    assert_eq!(object.key().to_string(), "Service shop/a");
    assert_eq!(key(Kind::Service, &service), Some(object.key()));
    assert_eq!(key(Kind::Service, &value(&[("name", Value::text("a"))])), None);
}

#[test]
fn empty_and_left_out_are_one_where_the_api_does_not_tell_them_apart() {
    let namespace = resource("mesh_namespace");
    let shown =
        |before: &[(&str, Value)]| state(&namespace, &value(before), &stored("Namespace", json!({}))).value;
    let spec = value(&[("description", Value::Null)]);
    assert_eq!(shown(&[]).attribute("spec"), &Value::Null);
    assert_eq!(shown(&[("spec", spec.clone())]).attribute("spec"), &spec);
    assert_eq!(shown(&[("labels", value(&[]))]).attribute("labels"), &value(&[]));
    let said = value(&[("description", Value::text("x"))]);
    assert_eq!(shown(&[("spec", said)]).attribute("spec"), &Value::Null, "somebody else emptied it");
}

#[test]
fn a_secret_is_taken_when_it_is_told_and_kept_afterwards() {
    let token = resource("mesh_access_token");
    let mut object = stored("AccessToken", json!({"roles": ["viewer"]}));
    let shown = |object: &Object, before: Value| {
        state(&token, &value(&[("token", before)]), object).value.attribute("token").clone()
    };
    assert_eq!(shown(&object, Value::unknown()), Value::Null, "an answer without it");
    assert_eq!(shown(&object, Value::text("held")), Value::text("held"));
    object.status = Some(json!({"token": "told"}));
    assert_eq!(shown(&object, Value::unknown()), Value::text("told"));
}

#[test]
fn what_a_newer_server_knows_is_named() {
    let spec = json!({"description": 1, "later": {"than": "this"}});
    let state = state(&resource("mesh_namespace"), &Value::Null, &stored("Namespace", spec));
    assert_eq!(state.beyond, ["spec.later", "spec.description"]);
}

#[test]
fn only_what_users_write_makes_a_difference() {
    let (one, mut other) = (stored("Role", json!({"rules": []})), stored("Role", json!({"rules": []})));
    other.metadata.revision = 8;
    other.status = Some(json!({}));
    assert!(same(&one, &other));
    other.metadata.labels.insert("a".parse().expect("a key"), model::shape::Text::new("b").expect("a text"));
    assert!(!same(&one, &other));
}
