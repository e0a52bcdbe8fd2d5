//! Pure. A JSON schema's bounds in words, for the descriptions of attributes.

use serde_json::Value as Json;

/// What may stand there; empty where the type says it all.
pub(crate) fn bounds(schema: &Json) -> String {
    match schema["type"].as_str() {
        Some("array") => bounds(&schema["items"]),
        Some("object") if schema["additionalProperties"].is_object() => {
            bounds(&schema["additionalProperties"])
        }
        Some("integer") => match (&schema["minimum"], &schema["maximum"]) {
            (Json::Number(least), Json::Number(most)) => format!("A whole number from {least} to {most}."),
            _ => "A whole number.".to_owned(),
        },
        Some("string") => text(schema),
        _ => String::new(),
    }
}

fn text(schema: &Json) -> String {
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<_> = words.iter().filter_map(Json::as_str).map(|word| format!("`{word}`")).collect();
        return format!("One of {}.", words.join(", "));
    }
    if let Some(example) = schema["examples"][0].as_str() {
        return format!("Such as `{example}`.");
    }
    match &schema["maxLength"] {
        Json::Number(most) => format!("At most {most} bytes."),
        _ => String::new(),
    }
}
