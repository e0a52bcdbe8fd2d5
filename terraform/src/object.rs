//! Pure. Between Terraform's values and the API's objects. What the user leaves out is left out of the object, and what the
//! object lacks is null: the API keeps `spec` as it was written, so that nothing differs after `apply`.

use std::collections::BTreeMap;

use model::{
    kind::Kind,
    name::Name,
    object::{Key, Object, Parsed},
};
use serde_json::{Map, Value as Json, json};

use crate::{
    schema::{Field, Given, ResourceType, Type},
    value::Value,
    waiting::WAIT,
};

/// Top-level attributes that stand in an object's `spec` or are of Terraform alone; all others are its metadata.
const SPEC: &str = "spec";

/// A state, and what of the object has no place in it.
#[derive(Debug, PartialEq)]
pub(crate) struct State {
    /// The state.
    pub(crate) value: Value,
    /// Paths in the object that this version of the provider does not know.
    pub(crate) beyond: Vec<String>,
}

/// The object that a configuration or plan describes, as the API takes it. What is not known yet is left out.
pub(crate) fn input(resource: &ResourceType, value: &Value) -> Json {
    let mut metadata = Map::new();
    for field in resource.fields.iter().filter(|field| field.in_metadata()) {
        if let Some(written) = json_of(&field.of, value.attribute(&field.name)) {
            metadata.insert(field.wire.clone(), written);
        }
    }
    let spec = resource.fields.iter().find(|field| field.name == SPEC);
    let spec = spec.and_then(|field| json_of(&field.of, value.attribute(SPEC)));
    json!({"kind": resource.kind, "metadata": metadata, SPEC: spec.unwrap_or_else(|| json!({}))})
}

/// The same, decoded; who made the plan saw to it that it can be.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn object(resource: &ResourceType, value: &Value) -> Result<Object, model::invalid::Invalid> {
    Parsed::from_input(&input(resource, value), Some(resource.kind)).map(|parsed| parsed.object)
}

/// The key that names make.
pub(crate) fn key(kind: Kind, value: &Value) -> Option<Key> {
    let name = |attribute: &str| value.attribute(attribute).as_text()?.parse::<Name>().ok();
    let namespace = if kind.namespaced() { Some(name("namespace")?) } else { None };
    Some(Key { kind, namespace, name: name("name")? })
}

/// The state of an object as the API answers it. `before` is the state or plan until now: it says what Terraform alone
/// knows, and whether what is empty is left out.
pub(crate) fn state(resource: &ResourceType, before: &Value, object: &Object) -> State {
    let mut beyond = Vec::new();
    let written = json!({
        "namespace": object.metadata.namespace, "name": object.metadata.name, "labels": object.metadata.labels,
        "annotations": object.metadata.annotations, SPEC: object.spec,
    });
    let fields = resource.fields.iter().map(|field| {
        let prior = before.attribute(&field.name);
        let value = match field.given {
            Given::Secret => secret(object, prior),
            _ if field.name == WAIT => prior.clone(),
            _ => as_before(value_of(&field.of, &written[&field.wire], &field.wire, &mut beyond), prior),
        };
        (field.name.clone(), value)
    });
    let value = Value::Object(fields.collect());
    State { value, beyond }
}

/// Whether two objects say the same, as far as users write it.
pub(crate) fn same(one: &Object, other: &Object) -> bool {
    let (a, b) = (&one.metadata, &other.metadata);
    one.spec == other.spec && a.labels == b.labels && a.annotations == b.annotations
}

/// The token that was just made, or the one that is held.
fn secret(object: &Object, before: &Value) -> Value {
    match object.status.as_ref().and_then(|status| status["token"].as_str()) {
        Some(token) => Value::text(token),
        None if before.known() => before.clone(),
        None => Value::Null,
    }
}

/// Labels, annotations and a spec that are left out come back as empty, and the other way round: for the API that is one.
fn as_before(value: Value, before: &Value) -> Value {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(|value| *value == Value::Null),
        _ => false,
    };
    if !empty(&value) {
        return value;
    }
    if before.known() && empty(before) { before.clone() } else { Value::Null }
}

impl Field {
    fn in_metadata(&self) -> bool {
        ![SPEC, WAIT].contains(&self.name.as_str()) && matches!(self.given, Given::Required | Given::Optional)
    }
}

/// A value as JSON; none where it is left out, or not known yet.
fn json_of(of: &Type, value: &Value) -> Option<Json> {
    Some(match (of, value) {
        (_, Value::Null | Value::Unknown(..)) => return None,
        (Type::Record(fields), Value::Object(values)) => Json::Object(json_of_record(fields, values)),
        (Type::Map(of), Value::Object(values)) => {
            let values =
                values.iter().map(|(key, value)| (key.clone(), json_of(of, value).unwrap_or_default()));
            Json::Object(values.collect())
        }
        (Type::List(of), Value::List(values)) => {
            Json::Array(values.iter().map(|value| json_of(of, value).unwrap_or_default()).collect())
        }
        (Type::Number, Value::Text(digits)) => digits.parse().map_or_else(|_| json!(digits), Json::Number),
        (_, Value::Bool(truth)) => json!(truth),
        (_, Value::Number(number)) => Json::Number(number.clone()),
        (_, Value::Text(text)) => json!(text),
        (_, Value::List(_) | Value::Object(_)) => return None,
    })
}

fn json_of_record(fields: &[Field], values: &BTreeMap<String, Value>) -> Map<String, Json> {
    let written = fields.iter().filter_map(|field| {
        let value = values.get(&field.name)?;
        Some((field.wire.clone(), json_of(&field.of, value)?))
    });
    written.collect()
}

/// JSON as a value of this type. What does not fit, since another version wrote it, goes to `beyond` by its path.
pub(crate) fn value_of(of: &Type, json: &Json, at: &str, beyond: &mut Vec<String>) -> Value {
    match (of, json) {
        (_, Json::Null) => Value::Null,
        (Type::Record(fields), Json::Object(values)) => value_of_record(fields, values, at, beyond),
        (Type::Map(of), Json::Object(values)) => {
            let values = values
                .iter()
                .map(|(key, json)| (key.clone(), value_of(of, json, &format!("{at}.{key}"), beyond)));
            Value::Object(values.collect())
        }
        (Type::List(of), Json::Array(values)) => {
            let values = values.iter().enumerate();
            Value::List(values.map(|(n, json)| value_of(of, json, &format!("{at}[{n}]"), beyond)).collect())
        }
        (Type::Bool, Json::Bool(truth)) => Value::Bool(*truth),
        (Type::Number, Json::Number(number)) => Value::Number(number.clone()),
        (Type::Text, Json::String(text)) => Value::text(text),
        _ => {
            beyond.push(at.to_owned());
            Value::Null
        }
    }
}

fn value_of_record(
    fields: &[Field],
    values: &Map<String, Json>,
    at: &str,
    beyond: &mut Vec<String>,
) -> Value {
    let unknown = values.keys().filter(|key| fields.iter().all(|field| field.wire != **key));
    beyond.extend(unknown.map(|key| format!("{at}.{key}")));
    let known = fields.iter().map(|field| {
        let json = values.get(&field.wire).unwrap_or(&Json::Null);
        (field.name.clone(), value_of(&field.of, json, &format!("{at}.{}", field.wire), beyond))
    });
    Value::Object(known.collect())
}

#[cfg(test)]
mod tests;
