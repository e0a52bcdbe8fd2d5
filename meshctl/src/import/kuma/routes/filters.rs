//! Pure. What a rule of Kuma does to requests and answers.

use model::name::ServiceName;
use serde_json::{Map, Value, json};

use super::super::{
    super::{
        fields::{At, Fields},
        plan::Plan,
    },
    Place,
};

/// The filters of a rule.
pub(super) fn read(fields: &mut Fields<'_>, own: &ServiceName, place: &Place, plan: &Plan) -> Vec<Value> {
    let list = fields.take("filters").map_or_else(Vec::new, |at| at.list());
    let mut found: Vec<Value> = Vec::new();
    for at in list {
        let Some(filter) = filter(&at, own, place, plan) else { continue };
        if found.iter().any(|before| before["type"] == filter["type"] && filter["type"] != "RequestMirror") {
            at.lost("a rule has one filter of a type", "write both into one");
        } else {
            found.push(filter);
        }
    }
    found
}

fn filter(at: &At<'_>, own: &ServiceName, place: &Place, plan: &Plan) -> Option<Value> {
    let mut fields = at.fields()?;
    let kind = fields.text("type")?;
    let field = match kind.as_str() {
        "RequestHeaderModifier" => "requestHeaderModifier",
        "ResponseHeaderModifier" => "responseHeaderModifier",
        "RequestRedirect" => "requestRedirect",
        "URLRewrite" => "urlRewrite",
        "RequestMirror" => "requestMirror",
        _ => {
            at.lost("no filter of ours is that", "see docs/guide/routing.md");
            return None;
        }
    };
    let said = fields.take(field).and_then(|at| at.fields());
    fields.finish();
    let said = said?;
    let inner = match field {
        "requestRedirect" => redirect(said)?,
        "urlRewrite" => rewrite(said)?,
        "requestMirror" => mirror(said, own, place, plan)?,
        _ => modifier(said),
    };
    Some(json!({"type": kind, field: inner}))
}

fn modifier(mut fields: Fields<'_>) -> Value {
    let mut changes = Map::new();
    for list in ["set", "add"] {
        let pairs = fields.take(list).map_or_else(Vec::new, |at| at.list());
        let pairs: Vec<_> = pairs.iter().filter_map(pair).collect();
        if !pairs.is_empty() {
            changes.insert(list.to_owned(), pairs.into());
        }
    }
    let remove = fields.take("remove").map_or_else(Vec::new, |at| at.texts());
    if !remove.is_empty() {
        changes.insert("remove".to_owned(), remove.into());
    }
    fields.finish();
    Value::Object(changes)
}

fn pair(at: &At<'_>) -> Option<Value> {
    let mut fields = at.fields()?;
    let (name, value) = (fields.text("name"), fields.text("value"));
    fields.finish();
    Some(json!({"name": name?, "value": value?}))
}

fn path(at: &At<'_>) -> Option<Value> {
    let mut fields = at.fields()?;
    let kind = fields.text("type")?;
    let [whole, prefix] = ["replaceFullPath", "replacePrefixMatch"].map(|name| fields.take_given(name));
    fields.finish();
    let (field, text) =
        if kind == "ReplaceFullPath" { ("replaceFullPath", whole) } else { ("replacePrefixMatch", prefix) };
    Some(json!({"type": kind, field: text?.text()?}))
}

fn redirect(mut fields: Fields<'_>) -> Option<Value> {
    let mut to = Map::new();
    for name in ["scheme", "hostname"] {
        if let Some(text) = fields.text(name) {
            to.insert(name.to_owned(), text.into());
        }
    }
    for (name, (least, most)) in [("port", (1, 65_535)), ("statusCode", (301, 308))] {
        if let Some(number) = fields.take(name).and_then(|at| at.whole(least, most)) {
            to.insert(name.to_owned(), number.into());
        }
    }
    if let Some(path) = fields.take("path").and_then(|at| self::path(&at)) {
        to.insert("path".to_owned(), path);
    }
    fields.finish();
    Some(Value::Object(to))
}

fn rewrite(mut fields: Fields<'_>) -> Option<Value> {
    let mut to = Map::new();
    if let Some(host) = fields.text("hostname") {
        to.insert("hostname".to_owned(), host.into());
    }
    fields.lost("hostToBackendHostname", "the host stays what the caller said", "set hostname");
    if let Some(path) = fields.take("path").and_then(|at| self::path(&at)) {
        to.insert("path".to_owned(), path);
    }
    fields.finish();
    (!to.is_empty()).then_some(Value::Object(to))
}

fn mirror(mut fields: Fields<'_>, own: &ServiceName, place: &Place, plan: &Plan) -> Option<Value> {
    let share = fields.take("percentage");
    let backend = fields.take("backendRef");
    fields.finish();
    let backend = backend?;
    let mut backend = super::backend(&backend, own, place, plan)?;
    if let Value::Object(backend) = &mut backend {
        backend.remove("weight");
    }
    let mut mirror = Map::from_iter([("backendRef".to_owned(), backend)]);
    if let Some((name, value)) = share.and_then(|at| super::faults::share(&at)) {
        mirror.insert(name.to_owned(), value);
    }
    Some(Value::Object(mirror))
}
