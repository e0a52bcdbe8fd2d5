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

/// Where a schema says nothing of what is there: `{}`, or an object of whatever fields.
fn unsaid(at: &str, schema: &Value, found: &mut BTreeSet<String>) {
    let Value::Object(fields) = schema else { return };
    let says = fields.keys().any(|key| !["type", "description", "readOnly"].contains(&key.as_str()));
    if !says && (fields.is_empty() || fields.get("type").is_none_or(|of| of == "object")) {
        found.insert(at.to_owned());
    }
    for (name, field) in fields.get("properties").and_then(Value::as_object).into_iter().flatten() {
        unsaid(&format!("{at}.{name}"), field, found);
    }
    for inner in ["items", "additionalProperties"].iter().filter_map(|inner| fields.get(*inner)) {
        unsaid(&format!("{at}[]"), inner, found);
    }
    for either in ["anyOf", "oneOf"].iter().filter_map(|either| fields.get(*either)?.as_array()) {
        either.iter().for_each(|one| unsaid(at, one, found));
    }
}

/// Each answer of success has a schema, down to its last field, but for these.
#[test]
fn every_answer_is_described() {
    let document = document();
    let mut found = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let mut successes = 0;
            for (status, answer) in operation["responses"].as_object().expect("responses") {
                if !status.starts_with('2') {
                    continue;
                }
                for (media, content) in answer["content"].as_object().expect("a success has a body") {
                    assert!(content["schema"].is_object(), "{method} {path} {status} {media}");
                    unsaid(&format!("{method} {path}"), &content["schema"], &mut found);
                    successes += 1;
                }
            }
            assert!(successes > 0, "{method} {path} says nothing of success");
        }
    }
    for (name, schema) in document["components"]["schemas"].as_object().expect("schemas") {
        unsaid(name, schema, &mut found);
    }
    found.retain(|at| {
        !at.ends_with(".status") || Kind::ALL.iter().all(|kind| *at != format!("{kind}.status"))
    });
    let excused = [
        // This description: OpenAPI's own schema says what is in it.
        "get /openapi.json.info",
        "get /openapi.json.paths",
        // As much of a TrafficPolicy's spec as holds there.
        "post /v1/explain.backends[].trafficPolicy.spec",
    ];
    assert_eq!(found, excused.map(str::to_owned).into());
}

#[test]
fn what_is_unsaid_is_seen() {
    let seen = |schema: Value| {
        let mut found = BTreeSet::new();
        unsaid("a", &schema, &mut found);
        found.into_iter().collect::<Vec<_>>()
    };
    let list = |of: Value| json!({"type": "object", "properties": {"list": {"type": "array", "items": of}}});
    assert_eq!(seen(json!({})), ["a"]);
    assert_eq!(seen(list(json!({"type": "object", "description": "Something."}))), ["a.list[]"]);
    assert_eq!(seen(json!({"anyOf": [{"type": "object"}, {"type": "null"}]})), ["a"]);
    assert_eq!(seen(list(json!({"type": "object", "maxProperties": 0}))), Vec::<String>::new());
}

/// A call says how it may fail by status, as it is and who may ask.
#[test]
fn how_a_call_may_fail_is_described() {
    let document = document();
    let failures = |method: &str, path: &str| {
        let responses = document["paths"][path][method]["responses"].as_object().expect("responses");
        let failures = responses.keys().filter(|status| status.starts_with(['4', '5']));
        failures.cloned().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(failures("get", "/healthz"), "400 410 429 503");
    assert_eq!(failures("get", "/v1/cluster"), "400 401 403 410 429 503");
    assert_eq!(failures("get", "/v1/ca/requests/{id}"), "400 404 410 429 503");
    assert_eq!(failures("post", "/v1/ca/join"), "400 403 404 408 409 410 413 415 422 429 503");
    assert_eq!(failures("delete", "/v1/cluster/members/{id}"), "400 401 403 404 409 410 429 503");
    assert_eq!(
        failures("put", "/v1/namespaces/{namespace}/services/{name}"),
        "400 401 403 404 408 409 410 412 413 415 422 429 503"
    );
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
