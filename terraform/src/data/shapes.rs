//! Pure. What the API answers where no kind of object is declared, as JSON schemas.

use serde_json::{Value as Json, json};

fn text(about: &str) -> Json {
    json!({"type": "string", "description": about})
}

fn number(about: &str) -> Json {
    json!({"type": "number", "description": about})
}

fn truth(about: &str) -> Json {
    json!({"type": "boolean", "description": about})
}

fn texts(about: &str) -> Json {
    json!({"type": "array", "items": {"type": "string"}, "description": about})
}

fn records(about: &str, properties: &Json) -> Json {
    let items = json!({"type": "object", "properties": properties});
    json!({"type": "array", "items": items, "description": about})
}

/// `GET /v1/ca/bundle`.
pub(super) fn ca_bundle() -> Json {
    json!({"type": "object", "properties": {
        "trustDomain": text("The domain that the roots vouch for."),
        "generation": number("Raised by each change of trust."),
        "roots": texts("The root certificates, each a PEM text; more than one while roots rotate."),
        "pem": text("All of them in one PEM text, for programs that read a file."),
    }})
}

/// `GET /v1/cluster`.
pub(super) fn cluster() -> Json {
    json!({"type": "object", "properties": {
        "epoch": text("The cluster's history."),
        "revision": number("The revision of the server that answered."),
        "members": records("The servers.", &json!({
            "name": text("Its name."),
            "api": text("Where its API is, `HOST:PORT`."),
            "raft": text("Where the other servers reach it."),
            "role": text("`voter` or `learner`."),
            "leader": truth("Whether it leads."),
            "version": text("The version of its program."),
            "reachable": truth("Whether it answered the one that was asked."),
        })),
    }})
}

/// `GET /v1/proxies`.
pub(super) fn proxies() -> Json {
    let nack = json!({"type": "object", "description": "What it could not take, if anything.", "properties": {
        "revision": number("The revision."),
        "reason": text("Why not."),
    }});
    json!({"type": "object", "properties": {
        "proxies": records("One for each host that was made known.", &json!({
            "node": text("The host."),
            "session": text("`Live`, `Stale` or `None`."),
            "version": text("The version of its program."),
            "revision": number("The revision that it runs."),
            "nack": nack,
            "services": texts("The services whose endpoints it serves, `namespace/name`."),
            "addresses": texts("Where it is dialled."),
        })),
    }})
}
