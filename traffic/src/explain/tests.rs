use std::collections::BTreeMap;

use model::{explain::BackEnd, manifest};
use serde_json::{Value, json};

use super::*;
use crate::request::Caller;

const SHOP: &str = "
kind: Service
metadata: {namespace: default, name: orders}
spec:
  ports: [{name: http, port: 80, protocol: http}, {name: db, port: 5432, protocol: tcp}, {name: rpc, port: 90, protocol: grpc}]
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
{kind: Endpoint, metadata: {namespace: default, name: orders-a, labels: {version: v1}}, spec: {service: orders, node: host-a, zone: z1, address: 10.0.0.1, ports: [{port: 80, targetPort: 80}, {port: 5432, targetPort: 5432}, {port: 90, targetPort: 90}]}}
---
{kind: Endpoint, metadata: {namespace: default, name: orders-b, labels: {version: v2}}, spec: {service: orders, node: host-b, zone: z2, address: 10.0.0.2, weight: 3, ports: [{port: 80, targetPort: 80}]}}
";
const ROUTE: &str = "
kind: HTTPRoute
metadata: {namespace: default, name: r}
spec:
  parentRefs: [{name: orders, port: 80}]
  rules:
  - name: exact
    matches: [{path: {type: Exact, value: /api/x}, headers: [{name: X-User, value: '7'}]}]
    backendRefs: [{name: orders, subset: v2, port: 80}]
  - name: api
    matches: [{path: {type: PathPrefix, value: /api}}]
    backendRefs: [{name: orders, subset: v1, port: 80, weight: 9}, {name: orders, subset: v9, port: 80, weight: 1}]
    filters:
    - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}
  - name: puts
    matches: [{path: {type: PathPrefix, value: /v1}, method: GET}, {path: {type: RegularExpression, value: '/v[0-9]+'}, method: PUT}]
    backendRefs: [{name: orders, port: 80}]
  - name: moved
    matches: [{path: {type: PathPrefix, value: /old}, sources: ['shop/*']}, {path: {type: PathPrefix, value: /gone}}]
    filters: [{type: RequestRedirect, requestRedirect: {statusCode: 308, path: {type: ReplaceFullPath, replaceFullPath: /new}}}]
";

fn inputs(manifests: &[&str]) -> Inputs {
    let parsed = manifests.iter().flat_map(|text| manifest::parse(text).expect("a manifest"));
    let objects = parsed.map(|parsed| (parsed.object.key(), Arc::new(parsed.object))).collect();
    let domain = "mesh.internal".parse().expect("a domain");
    Inputs { revision: 7, domain, trust_generation: 3, objects, local: Vec::new(), callers: BTreeMap::new() }
}

fn question(more: Value) -> Question {
    let mut value = json!({"from": "default/web", "to": "default/orders"});
    value.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("fields"));
    Question::read(&value).expect("a question")
}

fn explained(manifests: &[&str], more: Value) -> Explanation {
    let (inputs, question) = (inputs(manifests), question(more));
    let explanation = explain(inputs.clone(), &question).expect("an explanation");
    as_a_proxy_does(&inputs, &question, &explanation);
    explanation
}

/// The rule is the one that the snapshot gives whoever asks it as a proxy does.
fn as_a_proxy_does(inputs: &Inputs, question: &Question, explanation: &Explanation) {
    let snapshot = compile(None, inputs).expect("it compiles");
    let port = snapshot.destination(&question.to).and_then(|to| to.port(explanation.port.number));
    let (port, mut dice) = (port.expect("it is there"), crate::Dice::seeded(9));
    let Some(request) = &explanation.request else {
        let rule = explanation.route.as_ref().and_then(|route| route.rule.clone());
        return assert_eq!(rule.as_deref(), Some(port.stream(&mut dice).rule.as_str()));
    };
    let Ok(path) = normalize(&request.path, Strictness::Plain) else { return };
    let lines: Vec<_> = question.header_lines().collect();
    let fields = Pairs(&lines);
    let (method, authority) = (request.method.as_str(), request.authority.as_str());
    let head = RequestHead { method, path: &path, authority, fields: &fields };
    let routed = port.route(&head, Caller::of(&question.from), &mut dice);
    let rule = explanation.route.as_ref().and_then(|route| route.rule.as_deref());
    assert_eq!(rule.unwrap_or("default"), routed.rule.as_str());
    assert_eq!(explanation.answer.is_some(), routed.filters.reply(&head).is_some());
}

struct Pairs<'a>(&'a [(&'a str, &'a str)]);

impl crate::request::Fields for Pairs<'_> {
    fn each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        self.0.each(name, each);
    }
}

#[test]
#[should_panic(expected = "left == right")]
fn another_rule_than_a_proxy_takes_is_noticed() {
    let (inputs, question) = (inputs(&[SHOP, ROUTE]), question(json!({"path": "/gone"})));
    let mut explanation = explain(inputs.clone(), &question).expect("an explanation");
    // Planted.
    explanation.route.as_mut().expect("a route").rule = Some("default/r/api".to_owned());
    as_a_proxy_does(&inputs, &question, &explanation);
}

/// `<rule> (<why>)`, and where it goes: back ends with their percent, an answer, or why nowhere.
fn words(explanation: &Explanation) -> String {
    let route = explanation.route.as_ref();
    let rule = route.map_or("-".to_owned(), |route| {
        format!("{} ({})", route.rule.as_deref().unwrap_or("none"), route.because.join("; "))
    });
    let back_end = |one: &BackEnd| match &one.refused {
        Some(why) => format!("{} {}% {why}", one.name, one.percent),
        None => format!("{} {}%", one.name, one.percent),
    };
    let mut to: Vec<_> = explanation.backends.iter().map(back_end).collect();
    to.extend(
        explanation
            .answer
            .as_ref()
            .map(|answer| format!("{} {}", answer.status, answer.location.as_deref().unwrap_or_default())),
    );
    to.extend(explanation.refused.clone());
    format!("{rule} -> {}", to.join(", "))
}

#[track_caller]
fn check(more: Value, want: &str) {
    assert_eq!(words(&explained(&[SHOP, ROUTE], more.clone())), want, "{more}");
}

#[test]
fn the_rule_is_named_with_what_it_asks_for() {
    check(
        json!({"path": "/api/./x", "headers": {"x-user": "7"}}),
        "default/r/exact (path /api/x; header x-user 7) -> default/orders:80 subset v2 100%",
    );
    let api =
        "default/orders:80 subset v1 90%, default/orders:80 subset v9 10% the service has no such subset";
    check(json!({"path": "/api/x"}), &format!("default/r/api (path below /api) -> {api}"));
    check(
        json!({"path": "/v2", "method": "PUT"}),
        "default/r/puts (path like /v[0-9]+; method PUT) -> default/orders:80 100%",
    );
    check(
        json!({"path": "/gone/x"}),
        "default/r/moved (path below /gone) -> 308 http://orders.default.mesh/new",
    );
    check(json!({"path": "/old"}), "none () -> no rule of the service's routes matches the request");
    check(json!({"path": "/a%00"}), "- -> the path has an escaped NUL");
    check(json!({"port": 5432}), "default () -> default/orders:5432 100%");
    check(
        json!({"port": 90, "path": "/shop.Orders/Get"}),
        "default (no route is for the port) -> default/orders:90 100%",
    );
}

#[test]
fn rules_that_were_passed_over_say_what_the_call_lacks() {
    let explanation = explained(&[SHOP, ROUTE], json!({"path": "/api/x", "headers": {"x-user": "8"}}));
    let route = explanation.route.expect("a route");
    let passed: Vec<_> = route.passed_over.iter().map(|one| format!("{}: {}", one.rule, one.lacks)).collect();
    // Longer prefixes are tried first, and of equal ones those that ask for more.
    assert_eq!(
        passed,
        [
            "default/r/exact: header x-user 7",
            "default/r/moved: path below /gone",
            "default/r/moved: path below /old"
        ]
    );
    assert_eq!((route.path.as_deref(), route.authority), (Some("/x"), None));
    assert_eq!(route.filters, ["rewrites the path or the host"]);
}

#[test]
fn what_is_done_for_one_back_end_alone_is_told_there() {
    let route = "
kind: HTTPRoute
metadata: {namespace: default, name: own}
spec:
  parentRefs: [{name: orders, port: 80}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /api}}]
    filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-a, value: '1'}]}}
    - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}
    backendRefs:
    - {name: orders, subset: v1, port: 80}
    - name: orders
      subset: v2
      port: 80
      filters:
      - {type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: x-b, value: '2'}]}}
      - {type: URLRewrite, urlRewrite: {hostname: v2.example, path: {type: ReplaceFullPath, replaceFullPath: /v2}}}
      - {type: RequestMirror, requestMirror: {backendRef: {name: orders, port: 80}, percent: 5}}
";
    let readers = "
kind: AuthorizationPolicy
metadata: {namespace: default, name: readers}
spec:
  targetRefs: [{name: orders}]
  action: Allow
  rules: [{name: v2, to: [{paths: [{type: Exact, value: /v2}]}]}]
";
    let explanation = explained(&[SHOP, route, readers], json!({"path": "/api/x"}));
    let [v1, v2] = explanation.backends.as_slice() else { panic!("{:?}", explanation.backends) };
    let route = explanation.route.as_ref().expect("a route");
    assert_eq!(route.filters, ["request headers: x-a is set to 1", "rewrites the path or the host"]);
    assert_eq!(
        (route.path.as_deref(), &v1.path, &v1.authority, v1.filters.len()),
        (Some("/x"), &None, &None, 0)
    );
    assert_eq!(
        v2.filters,
        ["request headers: x-a is set to 1, x-b gets 2", "copies of 5 of 100 to default/orders:80"]
    );
    assert_eq!((v2.path.as_deref(), v2.authority.as_deref()), (Some("/v2"), Some("v2.example")));
    // Each is judged by the called side as it comes there.
    let allowed = |one: &BackEnd| one.reached.as_ref().expect("it is there").verdict.allowed;
    assert_eq!((allowed(v1), allowed(v2)), (false, true));
}

#[test]
fn tcp_and_grpc_routes_are_told_too() {
    let routes = "
{kind: TCPRoute, metadata: {namespace: default, name: t}, spec: {parentRefs: [{name: orders, port: 5432}], rules: [{name: all, backendRefs: [{name: orders, port: 5432}]}]}}
---
{kind: GRPCRoute, metadata: {namespace: default, name: g}, spec: {parentRefs: [{name: orders, port: 90}], rules: [{name: get, matches: [{method: {service: shop.Orders, method: Get}}], backendRefs: [{name: orders, port: 90}]}]}}
";
    let stream = explained(&[SHOP, routes], json!({"port": 5432, "path": "/x"}));
    assert_eq!(words(&stream), "default/t/all () -> default/orders:5432 100%");
    assert_eq!(stream.notes, ["the port speaks tcp: method, path and headers are seen by nobody"]);
    let call = explained(&[SHOP, routes], json!({"port": 90, "path": "/shop.Orders/Get"}));
    assert_eq!(call.request.as_ref().map(|request| request.method.as_str()), Some("POST"));
    assert_eq!(
        words(&call),
        "default/g/get (gRPC service shop.Orders, method Get) -> default/orders:90 100%"
    );
}

/// Each endpoint of the first back end: its name, its share, and why it gets none.
fn endpoints_of(explanation: &Explanation) -> Vec<String> {
    let reached = explanation.backends[0].reached.as_ref().expect("it is there");
    let words = |one: &model::explain::Endpoint| {
        format!("{} {:.0} {}", one.name, one.percent, one.because.as_deref().unwrap_or("-"))
    };
    reached.endpoints.iter().map(words).collect()
}

#[test]
fn endpoints_have_their_share_or_the_reason_why_they_have_none() {
    let in_turn = "{kind: TrafficPolicy, metadata: {namespace: default, name: turns}, spec: {targetRefs: [{name: orders}], loadBalancer: {type: RoundRobin}}}";
    let shares = explained(&[SHOP, in_turn], json!({}));
    assert_eq!(endpoints_of(&shares), ["orders-b 75 -", "orders-a 25 -"]);
    let policy = shares.backends[0].reached.as_ref().and_then(|reached| reached.traffic_policy.clone());
    let policy = policy.expect("one counts");
    assert_eq!(
        (policy.name.as_str(), &policy.spec["loadBalancer"]),
        ("default/turns", &json!({"type": "RoundRobin"}))
    );
    let near = "
{kind: TrafficPolicy, metadata: {namespace: mesh-system, name: near}, spec: {loadBalancer: {zones: {}}}}
---
{kind: Node, metadata: {name: host-w}, spec: {zone: z1}}
";
    let zones = explained(&[SHOP, near], json!({}));
    assert_eq!(
        endpoints_of(&zones),
        ["orders-a 100 -", "orders-b 0 it stands in another zone than the caller"]
    );
    assert_eq!(zones.from.zone.map(|zone| zone.to_string()).as_deref(), Some("z1"));
    let mut unwell = inputs(&[SHOP]);
    let b = unwell.objects.keys().find(|key| key.name.as_str() == "orders-b").cloned().expect("it is there");
    let b = unwell.objects.get_mut(&b).expect("it is there");
    Arc::make_mut(b).status = Some(json!({"health": "Draining", "stale": false}));
    let unwell = explain(unwell, &question(json!({}))).expect("an explanation");
    assert_eq!(endpoints_of(&unwell), ["orders-a 100 -", "orders-b 0 it is draining"]);
}

/// The verdict on a call: `yes` or `no`, the rule, and what is remarked.
#[track_caller]
fn judged(policies: &str, more: Value, want: &str) {
    let explanation = explained(&[SHOP, ROUTE, policies], more.clone());
    let verdict = explanation.backends[0].reached.as_ref().expect("it is there").verdict.clone();
    let mut got = format!(
        "{} {}",
        if verdict.allowed { "yes" } else { "no" },
        verdict.rule.or(verdict.reason).unwrap_or_default()
    );
    for (word, rules) in [
        ("audited", verdict.audited),
        ("would-deny", verdict.would_deny),
        ("would-allow", verdict.would_allow),
    ] {
        rules.iter().for_each(|rule| got += &format!(", {word} {rule}"));
    }
    assert_eq!(format!("{got}, {}", verdict.mode), want, "{more}");
}

#[test]
fn the_called_side_decides_on_what_comes_to_it() {
    let policies = "
{kind: AuthorizationPolicy, metadata: {namespace: default, name: web}, spec: {targetRefs: [{name: orders}], rules: [{name: read, from: [{services: [default/web]}], to: [{methods: [GET]}]}]}}
---
{kind: AuthorizationPolicy, metadata: {namespace: default, name: closed}, spec: {action: Deny, rules: [{name: admin, to: [{paths: [{type: PathPrefix, value: /admin}]}]}]}}
---
{kind: AuthorizationPolicy, metadata: {namespace: default, name: note}, spec: {action: Audit, rules: [{name: x, to: [{paths: [{type: Exact, value: /x}]}]}]}}
---
{kind: AuthorizationPolicy, metadata: {namespace: default, name: later}, spec: {action: Deny, dryRun: true, rules: [{name: all}]}}
---
{kind: PeerAuthentication, metadata: {namespace: default, name: open}, spec: {mode: Permissive}}
";
    // The route takes `/api` off: that is what policies look at.
    judged(
        policies,
        json!({"path": "/api/x"}),
        "yes default/web/read, audited default/note/x, would-deny default/later/all, Permissive",
    );
    judged(policies, json!({"path": "/api/admin"}), "no default/closed/admin, Permissive");
    judged(
        policies,
        json!({"path": "/api/x", "method": "PUT"}),
        "no only-allowed, audited default/note/x, Permissive",
    );
    judged(
        policies,
        json!({"path": "/api/x", "from": "default/bot"}),
        "no only-allowed, audited default/note/x, Permissive",
    );
    judged(
        policies,
        json!({"path": "/api/a;b"}),
        "no the path has '%2F', '%5C' or ';', on which applications differ, and a policy decides by path, Permissive",
    );
    judged("", json!({"path": "/api/x"}), "yes mesh-peers, Strict");
}

#[test]
fn a_call_past_the_proxy_is_noted() {
    let open =
        "{kind: PeerAuthentication, metadata: {namespace: default, name: open}, spec: {mode: Disabled}}";
    let explanation = explained(&[SHOP, open], json!({}));
    let reached = explanation.backends[0].reached.as_ref().expect("it is there");
    assert!(!reached.mtls && reached.verdict.allowed, "{reached:?}");
    assert_eq!(reached.verdict.mode_rule, "default/open/disabled");
    assert!(explanation.notes[0].starts_with("default/orders:80 is called in plaintext"), "{explanation:?}");
}

#[test]
fn endpoints_without_a_proxy_are_told_as_such() {
    let old = "
{kind: Service, metadata: {namespace: default, name: old}, spec: {ports: [{port: 80, protocol: http}]}}
---
{kind: Endpoint, metadata: {namespace: default, name: old-1}, spec: {service: old, source: discovery/file, address: 10.0.0.9, ports: [{port: 80, targetPort: 8080}]}}
";
    let explanation = explained(&[SHOP, old], json!({"to": "default/old", "port": 80}));
    let reached = explanation.backends[0].reached.as_ref().expect("it is there");
    assert_eq!((reached.mtls, reached.verdict.allowed), (false, true));
    let endpoint = &reached.endpoints[0];
    assert_eq!((endpoint.node.as_ref(), endpoint.address.as_str()), (None, "10.0.0.9:8080"));
    let note = &explanation.notes[0];
    assert!(note.contains("in plaintext: its endpoints come from a discovery source"), "{note}");
    let old = old.replace("source: discovery/file,", "source: discovery/file, tls: {hostname: old.example},");
    let explanation = explained(&[SHOP, &old], json!({"to": "default/old", "port": 80}));
    let note = &explanation.notes[0];
    assert!(note.contains("over TLS, by which it does not know its callers: its endpoints come"), "{note}");
}

#[test]
fn what_is_not_there_is_said() {
    let unexplained =
        |more| explain(inputs(&[SHOP]), &question(more)).expect_err("nothing to explain").to_string();
    assert_eq!(unexplained(json!({"to": "default/lost"})), "there is no Service default/lost");
    assert_eq!(
        unexplained(json!({"port": 81})),
        "Service default/orders has no such port; it has 80, 5432, 90"
    );
}
