//! Pure. What requests are told apart by in Kuma, which is Gateway API's, too.

use serde_json::{Map, Value, json};

use super::super::super::{fields::At, regex::escaped};

/// A match; `None` if it cannot be said, which is told.
pub(super) fn read(at: &At<'_>) -> Option<Map<String, Value>> {
    let mut fields = at.fields()?;
    let mut one = Map::new();
    if let Some(mut path) = fields.take("path").and_then(|at| at.fields()) {
        // Before 2.9 it was called a prefix.
        let kind =
            path.text("type").map(|kind| if kind == "Prefix" { "PathPrefix".to_owned() } else { kind });
        let value = path.text("value");
        path.finish();
        one.insert(
            "path".to_owned(),
            json!({"type": kind.as_deref().unwrap_or("PathPrefix"), "value": value?}),
        );
    }
    if let Some(method) = fields.text("method") {
        one.insert("method".to_owned(), method.to_ascii_uppercase().into());
    }
    for list in ["headers", "queryParams"] {
        let pairs: Option<Vec<_>> =
            fields.take(list).map_or_else(Vec::new, |at| at.list()).iter().map(pair).collect();
        let pairs = pairs?;
        if !pairs.is_empty() {
            one.insert(list.to_owned(), pairs.into());
        }
    }
    fields.finish();
    Some(one)
}

fn pair(at: &At<'_>) -> Option<Value> {
    let mut fields = at.fields()?;
    let kind = fields.text("type").unwrap_or_else(|| "Exact".to_owned());
    let (name, value) = (fields.text("name")?, fields.text("value").unwrap_or_default());
    fields.finish();
    let (kind, value) = match kind.as_str() {
        "Exact" => ("Exact", value),
        "RegularExpression" => ("RegularExpression", value),
        "Present" => ("RegularExpression", ".*".to_owned()),
        "Prefix" => ("RegularExpression", format!("{}.*", escaped(&value))),
        _ => {
            at.lost(
                "no match of ours asks for what is not there",
                "write a match for what shall fit, before it",
            );
            return None;
        }
    };
    Some(json!({"type": kind, "name": name, "value": value}))
}
