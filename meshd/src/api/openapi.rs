//! Pure. What the API answers, as OpenAPI 3.1: from the kinds' own schemas and one table of the other paths, [`OPERATIONS`].
//! The same table says which paths need no proof of who calls, and how important each is; a test holds it against the
//! router, both ways.

use model::{
    answer::Answer,
    duration::Millis,
    kind::{Kind, Scope},
    name::Name,
    object::MetadataInput,
    read::Consistency,
    resource::Resource,
    shape::Shape,
};
use serde_json::{Map, Value, json};

use super::{certificates::PEM, parameters::FRESHNESS, rollout::WRITE_PARAMETERS};

mod answers;
mod examples;
mod lines;
mod operations;
mod refusals;

use operations::JSON;
pub use operations::{Access, OPERATIONS, Operation, class, is_open};
use refusals::Call;

/// The methods of a path, as `Allow` lists them; `path` as the router has it.
pub fn methods(path: &str) -> String {
    let item = document()["paths"][path].take();
    let mut methods: Vec<_> =
        item.as_object().into_iter().flatten().map(|(method, _)| method.to_ascii_uppercase()).collect();
    if methods.iter().any(|method| method == "GET") {
        methods.push("HEAD".to_owned());
    }
    methods.join(",")
}

/// The paths of a kind's objects: one of them, then lists.
pub fn paths(kind: Kind) -> (String, Vec<String>) {
    let plural = kind.plural();
    match kind.scope() {
        Scope::Namespaced => (
            format!("/v1/namespaces/{{namespace}}/{plural}/{{name}}"),
            vec![format!("/v1/namespaces/{{namespace}}/{plural}"), format!("/v1/{plural}")],
        ),
        Scope::MeshWide => (format!("/v1/{plural}/{{name}}"), vec![format!("/v1/{plural}")]),
    }
}

/// The whole description.
pub fn document() -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        add(&mut paths, operation.path, operation.method, describe(operation));
    }
    for &kind in Kind::ALL {
        kind_paths(kind, &mut paths);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "The mesh",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The control plane of a service mesh for machines.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "tags": tags(),
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "responses": refusals::components(),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "An AccessToken: mesha1.…"},
                "certificate": {"type": "mutualTLS", "description": "An X.509-SVID of a node or a member."},
            },
        },
    })
}

/// What operations are sorted by: the kinds, and the rest by what it is about.
fn tags() -> Vec<Value> {
    let kinds = Kind::ALL.iter().map(|kind| json!({"name": kind, "description": kind.about()}));
    let others = operations::TAGS.iter().map(|(name, about)| json!({"name": name, "description": about}));
    kinds.chain(others).collect()
}

fn add(paths: &mut Map<String, Value>, path: &str, method: &str, operation: Value) {
    let item = paths.entry(path).or_insert_with(|| json!({}));
    item[method] = operation;
}

fn describe(operation: &Operation) -> Value {
    let query = operation.query.iter().map(|name| query(name));
    let (says, schema) = match lines::of(operation.path) {
        Some(line) => ("Lines without an end; the schema is that of each.", line),
        None => ("Done.", answers::of(operation.method, operation.path)),
    };
    let call = Call {
        method: operation.method,
        path: operation.path,
        access: operation.access,
        query: !operation.query.is_empty(),
        body: operation.body.is_some(),
    };
    let mut described = json!({
        "operationId": operation_id(operation.method, operation.path),
        "summary": operation.about,
        "tags": [operation.tag()],
        "parameters": in_path(operation.path).chain(query).collect::<Vec<_>>(),
        "responses": responses(json!({"description": says, "content": {operation.answer: {"schema": schema}}}), operation.codes(), &call),
    });
    if let Some((media, about)) = other_media(operation.path) {
        let text = json!({"type": "string", "description": about});
        described["responses"]["200"]["content"][media] = json!({"schema": text});
    }
    if let Some(media) = operation.body {
        let mut content = json!({media: {"schema": {"type": "object"}}});
        match operation.path {
            "/v1/explain" => content[media] = super::explain::body(),
            "/v1/apply" => {
                content["application/yaml"] =
                    json!({"schema": {"type": "string"}, "example": examples::manifest()});
            }
            _ => {}
        }
        if let Some(example) = examples::body(operation.path) {
            content[media]["example"] = example;
        }
        described["requestBody"] = json!({"required": true, "content": content});
    }
    described["security"] = match operation.access {
        Access::Open => json!([]),
        Access::Token => json!([{"token": []}]),
        Access::Node | Access::Member => json!([{"certificate": []}]),
    };
    described
}

/// In what else a path answers, if it is asked for by `Accept`, and what that is.
fn other_media(path: &str) -> Option<(&'static str, &'static str)> {
    match path {
        "/v1/watch" => Some(("text/event-stream", "The same lines, each the data of an event.")),
        "/v1/ca/bundle" => Some((PEM, "The roots alone.")),
        _ => None,
    }
}

fn kind_paths(kind: Kind, paths: &mut Map<String, Value>) {
    let (one, lists) = self::paths(kind);
    let object = json!({"$ref": format!("#/components/schemas/{kind}")});
    let named = |verb: &str, path: &str, summary: String, query: &[&str], codes: &[&str], schema: &Value| {
        let body = matches!(verb, "put" | "patch");
        let method = if verb == "list" { "get" } else { verb };
        let call = Call { method, path, access: Access::Token, query: true, body };
        json!({
            "operationId": format!("{verb}{}{kind}", if path.contains("{namespace}") && !path.contains("{name}") { "Namespaced" } else { "" }),
            "summary": summary,
            "tags": [kind],
            "parameters": in_path_of(kind, path).chain(query.iter().map(|name| self::query(name))).collect::<Vec<_>>(),
            "responses": responses(json!({"description": "Done.", "content": {JSON: {"schema": schema}}}), codes, &call),
        })
    };
    let list = json!({"$ref": format!("#/components/schemas/{kind}List")});
    for path in &lists {
        let mut query = [&["labelSelector", "limit", "continue", "from", "wait"][..], FRESHNESS].concat();
        if kind.namespaced() && !path.contains("{namespace}") {
            query.push("namespace");
        }
        add(
            paths,
            path,
            "get",
            named(
                "list",
                path,
                format!("Lists objects of kind {kind}; with `from`, once one of them changed after it."),
                &query,
                &["200", "304"],
                &list,
            ),
        );
    }
    add(paths, &one, "get", named("get", &one, kind.about().to_owned(), FRESHNESS, &["200"], &object));
    if kind == Kind::Endpoint {
        return;
    }
    let body = |media: &str| json!({"required": true, "content": {media: {"schema": object, "example": examples::of(kind)}}});
    let mut put = named(
        "put",
        &one,
        format!("Creates or replaces a {kind}."),
        WRITE_PARAMETERS,
        &["200", "201", "202"],
        &object,
    );
    put["requestBody"] = body(JSON);
    for code in ["200", "201"] {
        put["responses"][code]["links"] = links(kind);
    }
    add(paths, &one, "put", put);
    let mut patch = named(
        "patch",
        &one,
        format!("Changes a {kind} by a merge patch."),
        WRITE_PARAMETERS,
        &["200", "202"],
        &object,
    );
    patch["requestBody"] = json!({"required": true, "content": {"application/merge-patch+json": {"schema": {"type": "object"}, "example": examples::patch()}}});
    add(paths, &one, "patch", patch);
    let delete =
        named("delete", &one, format!("Removes a {kind}."), WRITE_PARAMETERS, &["200", "202"], &object);
    add(paths, &one, "delete", delete);
}

fn responses(success: Value, codes: &[&str], call: &Call) -> Value {
    let mut responses = Map::new();
    for code in codes {
        let answer = match *code {
            "304" => json!({"description": "Nothing changed until the end of the wait."}),
            _ => success.clone(),
        };
        responses.insert((*code).to_owned(), answer);
    }
    responses.extend(call.refusals());
    Value::Object(responses)
}

/// The same of a kind's paths, where it is known what the names are.
fn in_path_of(kind: Kind, path: &str) -> impl Iterator<Item = Value> + '_ {
    let example = examples::of(kind);
    in_path(path).map(move |mut parameter| {
        let field = parameter["name"].as_str().unwrap_or_default().to_owned();
        parameter["schema"] = <Name as Shape>::schema();
        parameter["example"] = example["metadata"][field].clone();
        parameter
    })
}

/// What can be done with an object once it was written.
fn links(kind: Kind) -> Value {
    let names = if kind.namespaced() { &["namespace", "name"][..] } else { &["name"] };
    let parameters: Map<_, _> =
        names.iter().map(|name| ((*name).to_owned(), format!("$request.path.{name}").into())).collect();
    let links = ["get", "patch", "delete"].map(|verb| {
        (verb.to_owned(), json!({"operationId": format!("{verb}{kind}"), "parameters": parameters}))
    });
    Value::Object(links.into_iter().collect())
}

fn in_path(path: &str) -> impl Iterator<Item = Value> + '_ {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names.map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
}

fn query(name: &str) -> Value {
    let schema = match name {
        "limit" => json!({"type": "integer", "minimum": 1}),
        "from" | "to" | "minRevision" => json!({"type": "integer", "minimum": 0}),
        "quorum" => json!({"type": "integer", "minimum": 1, "maximum": 100}),
        "dryRun" | "objects" => json!({"type": "boolean"}),
        "consistency" => {
            json!({"type": "string", "enum": Consistency::ALL.iter().map(|one| one.as_str()).collect::<Vec<_>>()})
        }
        _ => json!({"type": "string"}),
    };
    json!({"name": name, "in": "query", "schema": schema})
}

/// `getHealthz`, `putV1ProxyRegistration`.
fn operation_id(method: &str, path: &str) -> String {
    let parts = path.split(['/', '.', '{', '}']).filter(|part| !part.is_empty());
    parts.fold(method.to_owned(), |id, part| {
        let (first, rest) = part.split_at(1);
        id + &first.to_ascii_uppercase() + rest
    })
}

fn schemas() -> Value {
    let mut schemas = Map::new();
    for &kind in Kind::ALL {
        schemas.insert(kind.to_string(), object_schema(kind));
        let items = json!({"type": "array", "items": {"$ref": format!("#/components/schemas/{kind}")}});
        let metadata = json!({
            "type": "object",
            "properties": {"revision": {"type": "integer"}, "continue": {"type": "string"}},
        });
        let list = json!({"type": "object", "properties": {"items": items, "metadata": metadata}, "required": ["items", "metadata"]});
        schemas.insert(format!("{kind}List"), list);
    }
    schemas.insert("Metadata".to_owned(), metadata());
    let errors = json!({
        "type": "array",
        "items": {"type": "object", "properties": {"path": {"type": "string"}, "message": {"type": "string"}}, "required": ["path", "message"]},
    });
    let problem = json!({
        "type": "object",
        "properties": {
            "type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"},
            "detail": {"type": "string"}, "errors": errors,
        },
        "required": ["type", "title", "status"],
    });
    schemas.insert("Problem".to_owned(), problem);
    schemas.extend(lines::schemas());
    Value::Object(schemas)
}

/// As it is written, and what only the mesh says in it.
fn metadata() -> Value {
    let mut metadata = <MetadataInput as Shape>::schema();
    let (number, time) = (u64::schema(), <Millis as Shape>::schema());
    for (field, schema) in [("revision", &number), ("createdAt", &time), ("updatedAt", &time)] {
        let said = &mut metadata["properties"][field];
        let about = said["description"].take();
        *said = schema.clone();
        said["description"] = about;
        said["readOnly"] = true.into();
    }
    metadata
}

fn object_schema(kind: Kind) -> Value {
    json!({
        "type": "object",
        "description": kind.about(),
        "properties": {
            "apiVersion": {"const": model::object::API_VERSION},
            "kind": {"const": kind},
            "metadata": {"$ref": "#/components/schemas/Metadata"},
            "spec": Resource::schema(kind),
            "status": {"type": "object", "description": "What the mesh says of it; ignored in input.", "readOnly": true},
        },
        "required": ["metadata"],
    })
}

#[cfg(test)]
mod tests;
