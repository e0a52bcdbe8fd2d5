use std::collections::BTreeSet;

use super::*;

/// Every `$ref` of a document, and whether it leads somewhere.
fn dangling(document: &Value, part: &Value, found: &mut Vec<String>) {
    match part {
        Value::Object(fields) => {
            if let Some(Value::String(target)) = fields.get("$ref") {
                let pointer = target.strip_prefix('#').expect("a reference within the document");
                if document.pointer(pointer).is_none() {
                    found.push(target.clone());
                }
            }
            fields.values().for_each(|value| dangling(document, value, found));
        }
        Value::Array(elements) => elements.iter().for_each(|value| dangling(document, value, found)),
        _ => {}
    }
}

#[test]
fn the_document_is_whole() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut found = Vec::new();
    dangling(&document, &document, &mut found);
    assert_eq!(found, Vec::<String>::new());
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        assert!(path.starts_with('/'), "{path}");
        for (method, operation) in item.as_object().expect("operations") {
            let id = operation["operationId"].as_str().expect("an id").to_owned();
            assert!(ids.insert(id.clone()), "{id} stands twice");
            assert!(operation["responses"]["default"].is_object(), "{method} {path} has no problem");
            assert!(!operation["summary"].as_str().expect("a sentence").is_empty());
            let params: BTreeSet<_> = operation["parameters"]
                .as_array()
                .expect("parameters")
                .iter()
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| format!("{{{}}}", parameter["name"].as_str().expect("a name")))
                .collect();
            let wanted: BTreeSet<_> =
                path.split('/').filter(|part| part.starts_with('{')).map(str::to_owned).collect();
            assert_eq!(params, wanted, "{method} {path}");
        }
    }
}

#[test]
fn each_kind_has_its_schema_and_its_paths() {
    let document = document();
    for &kind in Kind::ALL {
        let schema = &document["components"]["schemas"][kind.as_str()];
        assert_eq!(schema["properties"]["spec"]["type"], "object", "{kind}");
        let (one, lists) = paths(kind);
        assert!(document["paths"][&one]["get"].is_object() && !lists.is_empty(), "{kind}");
        assert_eq!(document["paths"][&one]["put"].is_object(), kind != Kind::Endpoint, "{kind}");
    }
    assert!(document["components"]["schemas"].get("Gateway").is_none(), "a kind that is not built yet");
}

#[test]
fn only_the_open_paths_are_open() {
    let open: Vec<_> = OPERATIONS
        .iter()
        .filter(|operation| operation.access == Access::Open)
        .map(|operation| operation.path)
        .collect();
    assert_eq!(open, ["/healthz", "/readyz", "/openapi.json", "/v1/ca/bundle", "/v1/ca/join"]);
    assert!(is_open(&Method::GET, "/v1/ca/bundle") && is_open(&Method::HEAD, "/healthz"));
    assert!(!is_open(&Method::POST, "/v1/ca/bundle") && !is_open(&Method::GET, "/v1/ca"));
}
