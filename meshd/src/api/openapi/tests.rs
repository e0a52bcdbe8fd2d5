use std::collections::BTreeSet;

use http::Method;

use super::{operations::NAMED, *};
use crate::load::Class;

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
        .map(|operation| format!("{} {}", operation.method, operation.path))
        .collect();
    let want = [
        "get /healthz",
        "get /readyz",
        "get /openapi.json",
        "get /v1/ca/bundle",
        "post /v1/ca/join",
        "post /v1/ca/requests",
        "get /v1/ca/requests/{id}",
    ];
    assert_eq!(open, want);
    assert!(
        !is_open(&Method::GET, "/v1/ca/requests") && !is_open(&Method::POST, "/v1/ca/requests/{id}/approve")
    );
    assert!(is_open(&Method::GET, "/v1/ca/bundle") && is_open(&Method::HEAD, "/healthz"));
    assert!(!is_open(&Method::POST, "/v1/ca/bundle") && !is_open(&Method::GET, "/v1/ca"));
}

/// What machines ask each other for has no schema yet, and neither have this document, and what a snapshot is.
#[test]
fn what_operators_are_answered_is_described() {
    let document = document();
    let undescribed = OPERATIONS.iter().filter(|operation| {
        let content = &document["paths"][operation.path][operation.method]["responses"]["200"]["content"];
        content[operation.answer]["schema"] == json!({})
            && !matches!(operation.access, Access::Node | Access::Member)
    });
    let undescribed: Vec<_> = undescribed.map(|operation| (operation.method, operation.path)).collect();
    let want = [
        ("get", "/openapi.json"),
        ("post", "/v1/ca/join"),
        ("get", "/v1/snapshot"),
        ("post", "/v1/snapshot"),
    ];
    assert_eq!(undescribed, want);
}

/// What an operation is sorted by is said once, for all.
#[test]
fn every_tag_is_said() {
    let document = document();
    let said: BTreeSet<_> = document["tags"]
        .as_array()
        .expect("tags")
        .iter()
        .map(|tag| tag["name"].as_str().expect("a name"))
        .collect();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let tag = operation["tags"][0].as_str().unwrap_or_else(|| panic!("{method} {path} has no tag"));
            assert!(said.contains(tag), "{method} {path}: {tag}");
        }
    }
}

/// A new path has to name its class in the table; what a kind's paths have goes by their form.
#[test]
fn every_path_has_its_class() {
    let (get, put) = (&Method::GET, &Method::PUT);
    for operation in OPERATIONS {
        let method: Method = operation.method.to_ascii_uppercase().parse().expect("a method");
        assert_eq!(class(&method, operation.path), operation.class, "{method} {}", operation.path);
        assert!(!operation.path.ends_with(NAMED), "{} looks as if it were a kind's", operation.path);
    }
    for &kind in Kind::ALL {
        let (one, lists) = paths(kind);
        assert_eq!((class(get, &one), class(put, &one)), (Class::Change, Class::Change), "{kind}");
        assert!(lists.iter().all(|list| class(get, list) == Class::Bulk), "{kind}");
    }
    let of = |wanted| {
        let paths = OPERATIONS.iter().filter(move |operation| operation.class == wanted);
        paths.map(|operation| format!("{} {}", operation.method, operation.path)).collect::<Vec<_>>()
    };
    let vital = [
        "get /healthz",
        "get /readyz",
        "get /v1/ca/bundle",
        "post /v1/ca/certificates",
        "post /v1/ca/intermediate",
        "post /v1/proxy/keepalive",
        "get /v1/cluster/checkpoints",
    ];
    assert_eq!(of(Class::Vital), vital);
    let proxy = [
        "post /v1/ca/join",
        "post /v1/ca/requests",
        "get /v1/ca/requests/{id}",
        "put /v1/proxy/registration",
        "delete /v1/proxy/registration",
        "delete /v1/proxy/node",
        "get /v1/proxy/watch",
    ];
    assert_eq!(of(Class::Proxy), proxy);
    assert_eq!(class(&Method::HEAD, "/readyz"), Class::Vital);
    assert_eq!(class(put, "/healthz"), Class::Bulk, "no method of that path");
}
