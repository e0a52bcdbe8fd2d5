//! Pure. What the lines of the watches are: their answers have no end, so that each line is described by itself.

use model::{answer::Answer, kind::Kind, trust::TrustBundle};
use serde_json::{Map, Value, json};

use super::answers::object;

/// By path, what a line of it is called.
const LINES: [(&str, &str); 2] = [("/v1/watch", "WatchLine"), ("/v1/proxy/watch", "ProxyWatchLine")];

/// The schema of a line of that path; `None` if its answer has an end.
pub(super) fn of(path: &str) -> Option<Value> {
    let (_, name) = LINES.iter().find(|(own, _)| *own == path)?;
    Some(json!({"$ref": format!("#/components/schemas/{name}")}))
}

/// The schemas of all lines, by name.
pub(super) fn schemas() -> impl Iterator<Item = (String, Value)> {
    LINES.map(|(_, name)| name.to_owned()).into_iter().zip([of_changes(), of_a_proxy()])
}

/// `GET /v1/watch`.
fn of_changes() -> Value {
    let revision = json!({"type": "integer", "minimum": 0, "description": "That of the change."});
    let last = json!({"type": "boolean", "description": "True on the last line of a revision."});
    let change = |object| json!({"revision": revision, "last": last, "object": object});
    let bookmark = json!({"revision": {"type": "integer", "minimum": 0, "description": "All up to it was told: a place to go on from."}});
    let error = json!({
        "status": {"type": "integer", "description": "403: no right to watch any more. 410: start again without `from`."},
        "oldest": {"type": "integer", "minimum": 0, "description": "The oldest revision to go on from."},
    });
    json!({"description": "A line of the answer.", "oneOf": [
        line("put", "An object is there, is new or is another.", change(object()), &["revision", "object"]),
        line("delete", "An object is gone.", change(object()), &["revision", "object"]),
        line("bookmark", "How far all is told.", bookmark, &["revision"]),
        line("error", "The last line.", error, &["status", "oldest"]),
    ]})
}

/// `GET /v1/proxy/watch`.
fn of_a_proxy() -> Value {
    let revision = json!({"revision": {"type": "integer", "minimum": 0}});
    json!({"description": "A line of the answer.", "oneOf": [
        line("put", "An object that the proxy has to know.", json!({"object": object()}), &["object"]),
        line("delete", "One that it has to forget; its key counts.", json!({"object": key()}), &["object"]),
        line("trust", "Whom to trust, whole.", json!({"trust": TrustBundle::schema()}), &["trust"]),
        line("sync", "The set is whole, as of this revision.", revision, &["revision"]),
        line("error", "The last line: start again without `from`.", json!({"status": {"type": "integer"}}), &["status"]),
    ]})
}

/// A line of a type, with its other fields.
fn line(of: &str, about: &str, fields: Value, required: &[&str]) -> Value {
    let mut properties = Map::from_iter([("type".to_owned(), json!({"const": of}))]);
    if let Value::Object(fields) = fields {
        properties.extend(fields);
    }
    let required = [&["type"], required].concat();
    json!({"type": "object", "description": about, "properties": properties, "required": required})
}

fn key() -> Value {
    let metadata = json!({
        "type": "object",
        "properties": {"namespace": {"type": "string"}, "name": {"type": "string"}},
        "required": ["name"],
    });
    json!({"type": "object", "properties": {"kind": {"enum": Kind::ALL}, "metadata": metadata}, "required": ["kind", "metadata"]})
}
