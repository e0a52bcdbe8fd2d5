//! Pure. The paths of the API that are not about objects of a kind: what each does, who may ask, how important it is. The
//! description is made of it, and the door asks it.

use http::Method;

use super::super::{parameters::FRESHNESS, rollout::WRITE_PARAMETERS};
use crate::load::Class;

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Open,
    /// The bearer of a token, as its roles say.
    Token,
    /// A host's proxy, by its certificate.
    Node,
    /// A member of the control plane, by its certificate.
    Member,
}

/// A path that is not about objects of a kind, with one of its methods.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    /// The method, in lower case.
    pub method: &'static str,
    /// The path, as the router has it.
    pub path: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
    /// Who may ask.
    pub access: Access,
    /// How important it is where not all can be served.
    pub class: Class,
    /// Its query parameters.
    pub query: &'static [&'static str],
    /// The media type of its body, if it takes one.
    pub body: Option<&'static str>,
    /// What success answers.
    pub answer: &'static str,
}

pub(super) const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";
const BYTES: &str = "application/octet-stream";
/// How the paths of one object of a kind end, and no other.
pub(super) const NAMED: &str = "/{name}";

const fn read(path: &'static str, access: Access, class: Class, about: &'static str) -> Operation {
    Operation { method: "get", path, about, access, class, query: &[], body: None, answer: JSON }
}

const fn post(path: &'static str, access: Access, class: Class, about: &'static str) -> Operation {
    Operation { method: "post", path, about, access, class, query: &[], body: Some(JSON), answer: JSON }
}

const fn delete(path: &'static str, access: Access, class: Class, about: &'static str) -> Operation {
    Operation { method: "delete", ..read(path, access, class, about) }
}

/// All paths but those of the kinds.
pub const OPERATIONS: &[Operation] = &[
    read("/healthz", Access::Open, Class::Vital, "Whether the process lives."),
    read(
        "/readyz",
        Access::Open,
        Class::Vital,
        "Whether there is a leader, and this server has caught up with it.",
    ),
    read("/openapi.json", Access::Open, Class::Bulk, "This description."),
    Operation {
        query: WRITE_PARAMETERS,
        ..post(
            "/v1/apply",
            Access::Token,
            Class::Change,
            "Creates or replaces many objects (JSON or YAML), all or nothing.",
        )
    },
    post("/v1/explain", Access::Token, Class::Bulk, "What would become of a call, and why."),
    Operation {
        query: &["kinds", "namespace", "labelSelector", "from"],
        answer: NDJSON,
        ..read(
            "/v1/watch",
            Access::Token,
            Class::Bulk,
            "Follows the changes of objects, revision by revision.",
        )
    },
    Operation {
        query: FRESHNESS,
        ..read(
            "/v1/proxies",
            Access::Token,
            Class::Bulk,
            "The hosts' proxies, with the revision that each runs.",
        )
    },
    Operation {
        query: &["from", "limit"],
        ..read("/v1/audit", Access::Token, Class::Bulk, "What was changed, when and by whom.")
    },
    Operation {
        query: &["kind", "namespace", "name", "from", "to", "continue", "limit", "objects"],
        ..read(
            "/v1/history",
            Access::Token,
            Class::Bulk,
            "The last revisions, newest first, with what each changed.",
        )
    },
    Operation {
        query: &["dryRun"],
        ..post(
            "/v1/rollback",
            Access::Token,
            Class::Change,
            "Lets operators' objects stand as at an earlier revision, in one write.",
        )
    },
    read("/v1/ca/bundle", Access::Open, Class::Vital, "The roots, and what is distrusted."),
    post("/v1/ca/join", Access::Open, Class::Proxy, "A host or server comes in with a join token."),
    post("/v1/ca/requests", Access::Open, Class::Proxy, "A host without a token asks to come back."),
    read("/v1/ca/requests", Access::Token, Class::Change, "The hosts that ask to come back."),
    read(
        "/v1/ca/requests/{id}",
        Access::Open,
        Class::Proxy,
        "How a host's request stands; its certificate, once it is approved.",
    ),
    post(
        "/v1/ca/requests/{id}/approve",
        Access::Token,
        Class::Change,
        "Lets a host come back with its new key.",
    ),
    post("/v1/ca/requests/{id}/deny", Access::Token, Class::Change, "Does not let it."),
    post("/v1/ca/certificates", Access::Node, Class::Vital, "Certificates for a host and its services."),
    post("/v1/ca/intermediate", Access::Member, Class::Vital, "Signs a member's next intermediate."),
    read("/v1/ca", Access::Token, Class::Change, "Roots, intermediates and distrust."),
    post("/v1/ca/distrust", Access::Token, Class::Change, "Refuses certificates before they expire."),
    Operation {
        method: "put",
        ..post("/v1/proxy/registration", Access::Node, Class::Proxy, "A host registers all that it runs.")
    },
    delete("/v1/proxy/registration", Access::Node, Class::Proxy, "A host leaves for now."),
    delete("/v1/proxy/node", Access::Node, Class::Proxy, "A host leaves for good: its Node goes."),
    post("/v1/proxy/keepalive", Access::Node, Class::Vital, "A proxy lives, and runs a revision."),
    Operation {
        query: &["subscribe", "add", "from"],
        answer: NDJSON,
        ..read("/v1/proxy/watch", Access::Node, Class::Proxy, "What one proxy has to know, as it changes.")
    },
    read("/v1/cluster", Access::Token, Class::Change, "The members of the control plane."),
    read(
        "/v1/cluster/checkpoints",
        Access::Member,
        Class::Vital,
        "Sums of this member's state, for other members to compare.",
    ),
    post(
        "/v1/cluster/rollout",
        Access::Member,
        Class::Change,
        "What the proxies run that watch at this member.",
    ),
    delete("/v1/cluster/members/{id}", Access::Token, Class::Change, "Removes a member."),
    post("/v1/cluster/transfer", Access::Token, Class::Change, "Hands leadership over."),
    Operation {
        answer: BYTES,
        ..read("/v1/snapshot", Access::Token, Class::Bulk, "A snapshot of the whole state.")
    },
    Operation {
        query: &["dryRun"],
        body: Some(BYTES),
        ..post(
            "/v1/snapshot",
            Access::Token,
            Class::Bulk,
            "Puts a saved snapshot in force, under another epoch.",
        )
    },
];

/// What the paths are about that are not about a kind.
pub(super) const TAGS: &[(&str, &str)] = &[
    ("state", "Many objects at once, what changed, and what would."),
    ("ca", "Certificates, and who gets them."),
    ("proxy", "What hosts' proxies say and hear."),
    ("cluster", "The members of the control plane, and what is saved of it."),
    ("server", "One server: whether it is well, and this description."),
];

impl Operation {
    /// The statuses of success.
    pub(super) fn codes(&self) -> &'static [&'static str] {
        match (self.method, self.path) {
            ("post", "/v1/apply") => &["200", "202"],
            ("post", "/v1/ca/requests") => &["200", "201"],
            ("post", "/v1/ca/join") => &["201"],
            _ => &["200"],
        }
    }

    /// Which of [`TAGS`] it is of.
    pub(super) fn tag(&self) -> &'static str {
        match self.path.strip_prefix("/v1/").map(|rest| rest.split('/').next().unwrap_or(rest)) {
            None => "server",
            Some("ca") => "ca",
            Some("proxy" | "proxies") => "proxy",
            Some("cluster" | "snapshot") => "cluster",
            Some(_) => "state",
        }
    }
}

/// Whether anybody may ask; `path` as the router has it.
pub fn is_open(method: &Method, path: &str) -> bool {
    operation(method, path).is_some_and(|operation| operation.access == Access::Open)
}

/// How important it is; `path` as the router has it. A method that is none of the path's is as unimportant as can be.
pub fn class(method: &Method, path: &str) -> Class {
    match operation(method, path) {
        Some(operation) => operation.class,
        // One object of a kind, all of whose methods are writes or reads of it.
        None if path.ends_with(NAMED) => Class::Change,
        None => Class::Bulk,
    }
}

fn operation(method: &Method, path: &str) -> Option<&'static Operation> {
    if path.ends_with(NAMED) {
        return None;
    }
    let asked = if *method == Method::HEAD { &Method::GET } else { method };
    OPERATIONS
        .iter()
        .find(|operation| operation.path == path && operation.method.eq_ignore_ascii_case(asked.as_str()))
}
