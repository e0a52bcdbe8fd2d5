//! The routing suite, by the decisions alone. Its cases follow what Gateway API's conformance suite asks of HTTPRoute and
//! GRPCRoute; `mesh-proxy/tests/routing.rs` runs them through proxies.

#[path = "routing/suite.rs"]
mod suite;

use std::{collections::BTreeMap, sync::Arc};

use model::{manifest, object::Object};
use suite::{Case, Exchange, Head, Outcome};
use traffic::{
    Dice,
    compile::{Inputs, compile},
    path::{self, Strictness},
    request::{Caller, Fields, RequestHead},
    route::{FieldsMut, Unroutable},
    snapshot::Snapshot,
};

/// The back ends of all cases.
const BACKENDS: [&str; 3] = ["v1", "v2", "v3"];

struct Pairs<'a>(&'a [(String, String)]);

impl Fields for Pairs<'_> {
    fn each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        let named = self.0.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
        named.for_each(|(_, value)| each(value.as_bytes()));
    }
}

fn snapshot(case: &Case) -> Snapshot {
    let service = |name: &str, protocol: &str| {
        format!(
            "kind: Service\nmetadata: {{namespace: default, name: {name}}}\nspec: {{ports: [{{port: 80, protocol: {protocol}}}]}}\n"
        )
    };
    let mut texts = vec![case.manifests.clone(), service(&case.name, &case.protocol)];
    texts.extend(BACKENDS.iter().map(|name| service(name, &case.protocol)));
    let parsed = texts
        .iter()
        .flat_map(|text| manifest::parse(text).unwrap_or_else(|error| panic!("{}: {error}", case.name)));
    let objects = parsed.enumerate().map(|(age, parsed)| {
        let mut object: Object = parsed.object;
        // Routes are as old as they stand: the first is the oldest.
        object.metadata.created_at.0 = age as u64;
        (object.key(), Arc::new(object))
    });
    let domain = "mesh.internal".parse().expect("a domain");
    let inputs = Inputs {
        revision: 1,
        domain,
        trust_generation: 1,
        objects: objects.collect(),
        local: Vec::new(),
        callers: BTreeMap::new(),
    };
    compile(None, &inputs).unwrap_or_else(|nack| panic!("{}: {nack}", case.name))
}

/// What becomes of a request, where the back end answers 200 with what it is asked for.
fn carried(case: &Case, snapshot: &Snapshot, exchange: &Exchange) -> Outcome {
    let authority = format!("{}.default.mesh", case.name);
    let Head { method, target, fields } = &exchange.request;
    let path = path::normalize(target, Strictness::Plain).expect("a path");
    let pairs = Pairs(fields);
    let head = RequestHead { method, path: &path, authority: &authority, fields: &pairs };
    let port = snapshot.by_hostname(&authority).and_then(|destination| destination.port(80)).expect("a port");
    let source = "default/web".parse().expect("a name");
    let routed = port.route(&head, Caller::of(&source), &mut Dice::seeded(1));
    if let Some(reply) = routed.filters.reply(&head) {
        return Outcome { seen: None, status: reply.status, fields: reply.fields };
    }
    let backend = match routed.backend {
        Ok(backend) => backend,
        Err(Unroutable::NoRule) => return Outcome { status: 404, ..Outcome::default() },
        Err(_) => return Outcome { status: 500, ..Outcome::default() },
    };
    let mut seen = fields.clone();
    routed.filters.on_request().apply(&mut seen);
    seen.set("host", routed.filters.host().unwrap_or(&authority));
    let asked = fields.iter().find(|(name, _)| name == "x-echo-answer").map_or("", |(_, value)| value);
    let mut answer: Vec<_> =
        suite::echoed(asked).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    routed.filters.on_answer(&head).apply(&mut answer);
    let target = routed.filters.path(&path).into_owned();
    let name = backend.name.service.name.to_string();
    let head = Head { method: method.clone(), target, fields: seen };
    Outcome { seen: Some((name, head)), status: 200, fields: answer }
}

#[track_caller]
fn check(text: &str) {
    for case in suite::parse(text) {
        let snapshot = snapshot(&case);
        for exchange in &case.exchanges {
            exchange.check(&case, &carried(&case, &snapshot, exchange));
        }
    }
}

#[test]
fn http_routes_match_as_gateway_api_says() {
    check(include_str!("routing/http_matches.txt"));
}

#[test]
fn http_filters_do_as_gateway_api_says() {
    check(include_str!("routing/http_filters.txt"));
}

#[test]
fn grpc_routes_do_as_gateway_api_says() {
    check(include_str!("routing/grpc.txt"));
}
