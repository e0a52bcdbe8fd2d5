//! Pure. What calls answer that are not a kind's: by method and path, the schema. What has a type of its own says it itself
//! ([`Answer`]); what is put together where it is answered stands here.

use model::{
    answer::Answer,
    ca::{Certificates, JoinAnswer},
    kind::Kind,
    proxy::{KeptAlive, Registered},
    rejoin::{RejoinRequests, RejoinStatus},
    trust::{Distrusted, TrustBundle},
};
use serde_json::{Map, Value, json};

use crate::{
    api::{rollout::Said, snapshot::Restored},
    divergence::Checkpoints,
    join::ServerJoinAnswer,
    peer::IntermediateAnswer,
};

/// The schema of the answer of an operation; `{}` where it has none, which a test does not let pass.
pub(super) fn of(method: &str, path: &str) -> Value {
    match (method, path) {
        ("get", "/healthz") => record(&[("status", text()), ("disk", one_of(&["ok", "full"]))], &[]),
        ("get", "/readyz") => record(&[("status", text()), ("leader", whole()), ("revision", whole())], &[]),
        ("post", "/v1/apply") => apply(),
        ("post", "/v1/explain") => explanation(),
        ("get", "/v1/proxies") => items(proxy(), &[]),
        ("get", "/v1/audit") => items(audited(), &[("continue", text())]),
        ("get", "/v1/history") => items(revision(), &[("oldest", whole()), ("continue", text())]),
        ("post", "/v1/rollback") => rollback(),
        ("get", "/openapi.json") => {
            record(&[("openapi", text()), ("info", any_object()), ("paths", any_object())], &[])
        }
        ("get", "/v1/ca/bundle") => TrustBundle::schema(),
        ("post", "/v1/ca/join") => json!({"oneOf": [JoinAnswer::schema(), ServerJoinAnswer::schema()]}),
        ("post", "/v1/ca/certificates") => Certificates::schema(),
        ("post", "/v1/ca/intermediate") => IntermediateAnswer::schema(),
        ("get", "/v1/ca") => authority(),
        ("post", "/v1/ca/distrust") => {
            record(&[("generation", maybe(whole())), ("distrusted", maybe(Distrusted::schema()))], &[])
        }
        ("get", "/v1/ca/requests") => RejoinRequests::schema(),
        ("post", "/v1/ca/requests") | ("get", "/v1/ca/requests/{id}") => RejoinStatus::schema(),
        ("post", "/v1/ca/requests/{id}/approve" | "/v1/ca/requests/{id}/deny") => RejoinStatus::schema(),
        ("put", "/v1/proxy/registration") => Registered::schema(),
        ("post", "/v1/proxy/keepalive") => KeptAlive::schema(),
        // A host that left has nothing to be told.
        ("delete", "/v1/proxy/registration" | "/v1/proxy/node") => {
            json!({"type": "object", "maxProperties": 0})
        }
        ("get", "/v1/cluster") => cluster(),
        ("delete", "/v1/cluster/members/{id}") => record(&[("id", whole()), ("removed", flag())], &[]),
        ("post", "/v1/cluster/transfer") => record(&[("leader", maybe(whole()))], &[]),
        ("get", "/v1/cluster/checkpoints") => Checkpoints::schema(),
        ("post", "/v1/cluster/rollout") => Said::schema(),
        ("get", "/v1/snapshot") => json!({"type": "string", "format": "binary"}),
        ("post", "/v1/snapshot") => Restored::schema(),
        _ => json!({}),
    }
}

/// An object of whatever kind.
pub(super) fn object() -> Value {
    let kinds = Kind::ALL.iter().map(|kind| json!({"$ref": format!("#/components/schemas/{kind}")}));
    json!({"required": ["kind"], "oneOf": kinds.collect::<Vec<_>>()})
}

fn apply() -> Value {
    let outcome = one_of(&["created", "configured", "unchanged"]);
    let result =
        record(&[("kind", kind()), ("name", text()), ("outcome", outcome)], &[("namespace", text())]);
    let rollout = record(
        &[
            ("revision", whole()),
            ("concerned", whole()),
            ("acked", whole()),
            ("nacked", list(record(&[("node", text()), ("reason", text())], &[]))),
            ("lagging", list(text())),
        ],
        &[],
    );
    record(
        &[
            ("items", list(object())),
            ("results", list(result)),
            ("metadata", record(&[("revision", whole())], &[])),
        ],
        &[("status", record(&[("rollout", rollout)], &[]))],
    )
}

fn explanation() -> Value {
    let source = record(&[("service", text()), ("node", maybe(text())), ("zone", maybe(text()))], &[]);
    let port = record(&[("number", whole()), ("name", maybe(text())), ("protocol", text())], &[]);
    let asked = record(&[("method", text()), ("path", text()), ("authority", text())], &[]);
    let passed_over = record(&[("rule", text()), ("lacks", text())], &[]);
    let route = record(
        &[
            ("rule", maybe(text())),
            ("because", list(text())),
            ("passedOver", list(passed_over)),
            ("filters", list(text())),
        ],
        &[("path", text()), ("authority", text())],
    );
    let answer = record(&[("status", whole())], &[("location", text())]);
    record(
        &[
            ("revision", whole()),
            ("changed", flag()),
            ("from", source),
            ("to", text()),
            ("port", port),
            ("backends", list(back_end())),
            ("notes", list(text())),
        ],
        &[("request", asked), ("route", route), ("answer", answer), ("refused", text())],
    )
}

fn back_end() -> Value {
    let endpoint = record(
        &[
            ("name", text()),
            ("zone", maybe(text())),
            ("address", text()),
            ("weight", whole()),
            ("health", text()),
            ("stale", flag()),
            ("percent", number()),
        ],
        &[("node", text()), ("because", text())],
    );
    let verdict = record(
        &[
            ("allowed", flag()),
            ("rule", maybe(text())),
            ("mode", text()),
            ("modeRule", text()),
            ("audited", list(text())),
            ("wouldDeny", list(text())),
            ("wouldAllow", list(text())),
        ],
        &[("reason", text())],
    );
    let policy = record(&[("name", text()), ("spec", any_object())], &[]);
    record(
        &[("name", text()), ("weight", whole()), ("percent", number())],
        &[
            ("refused", text()),
            ("filters", list(text())),
            ("path", text()),
            ("authority", text()),
            ("mtls", flag()),
            ("trafficPolicy", maybe(policy)),
            ("timeout", text()),
            ("tryTimeout", text()),
            ("retries", whole()),
            ("endpoints", list(endpoint)),
            ("endpointsTotal", whole()),
            ("verdict", verdict),
        ],
    )
}

fn proxy() -> Value {
    let nack = record(&[("revision", whole()), ("reason", text())], &[]);
    let left_alone = record(&[("service", text()), ("endpoint", text()), ("reason", text())], &[]);
    record(
        &[
            ("node", text()),
            ("session", one_of(&["Live", "Stale", "None"])),
            ("version", text()),
            ("revision", whole()),
            ("services", list(text())),
            ("addresses", list(text())),
        ],
        &[("nack", nack), ("leftAlone", list(left_alone))],
    )
}

fn audited() -> Value {
    record(
        &[
            ("index", whole()),
            ("revision", whole()),
            ("at", text()),
            ("actor", text()),
            ("action", text()),
            ("target", text()),
            ("outcome", text()),
        ],
        &[],
    )
}

fn revision() -> Value {
    let change = record(
        &[
            ("kind", kind()),
            ("name", text()),
            ("change", one_of(&["created", "replaced", "deleted"])),
            ("actor", maybe(text())),
        ],
        &[("namespace", text()), ("before", maybe(object())), ("after", maybe(object()))],
    );
    record(&[("revision", whole()), ("at", text()), ("changes", list(change))], &[])
}

fn rollback() -> Value {
    let change =
        record(&[("kind", kind()), ("namespace", maybe(text())), ("name", text()), ("change", text())], &[]);
    record(&[("target", whole()), ("revision", whole()), ("changes", list(change))], &[])
}

fn authority() -> Value {
    let certificate = |more: (&str, Value)| {
        let times = [("fingerprint", text()), ("notBefore", text()), ("notAfter", text())];
        record(&[&times[..], &[more, ("state", one_of(&["Active", "Distrusted"]))]].concat(), &[])
    };
    record(
        &[
            ("trustDomain", text()),
            ("generation", whole()),
            ("roots", list(certificate(("subject", text())))),
            ("intermediates", list(certificate(("member", whole())))),
            ("distrusted", Distrusted::schema()),
        ],
        &[],
    )
}

fn cluster() -> Value {
    let member = record(
        &[
            ("id", whole()),
            ("name", text()),
            ("api", text()),
            ("raft", text()),
            ("role", one_of(&["voter", "learner"])),
            ("leader", flag()),
            ("applied", maybe(whole())),
            ("lag", maybe(whole())),
            ("lastContact", maybe(text())),
            ("version", text()),
            ("commandVersion", whole()),
            ("reachable", flag()),
            ("disk", maybe(text())),
            ("divergedAt", maybe(whole())),
        ],
        &[],
    );
    record(
        &[
            ("epoch", maybe(text())),
            ("leader", maybe(whole())),
            ("term", whole()),
            ("revision", whole()),
            ("members", list(member)),
        ],
        &[],
    )
}

/// A list as the API has them, with what else its metadata says.
fn items(of: Value, more: &[(&str, Value)]) -> Value {
    let metadata = [&[("revision", whole())], more].concat();
    record(&[("items", list(of)), ("metadata", record(&metadata, &[]))], &[])
}

/// An object with these fields, and maybe with those.
fn record(fields: &[(&str, Value)], optional: &[(&str, Value)]) -> Value {
    let of = |(name, schema): &(&str, Value)| ((*name).to_owned(), schema.clone());
    let properties: Map<_, _> = fields.iter().chain(optional).map(of).collect();
    let required: Vec<_> = fields.iter().map(|(name, _)| name).collect();
    json!({"type": "object", "properties": properties, "required": required})
}

fn text() -> Value {
    json!({"type": "string"})
}

fn whole() -> Value {
    json!({"type": "integer", "minimum": 0})
}

fn number() -> Value {
    json!({"type": "number"})
}

fn flag() -> Value {
    json!({"type": "boolean"})
}

fn kind() -> Value {
    json!({"enum": Kind::ALL})
}

fn any_object() -> Value {
    json!({"type": "object"})
}

fn list(of: Value) -> Value {
    json!({"type": "array", "items": of})
}

fn one_of(words: &[&str]) -> Value {
    json!({"enum": words})
}

fn maybe(of: Value) -> Value {
    json!({"anyOf": [of, {"type": "null"}]})
}
