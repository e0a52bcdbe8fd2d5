use model::{kind::Kind, object::Parsed, resource::Resource};
use serde_json::{Value, json};

use super::*;
use crate::{path::normalize, request::Fields};

/// The policies of `default/orders`, a line for each rule: `<action>[?] <policy>: <word>…`, where `?` is a rehearsal and a
/// word is `<` and a caller (`<default/web`, `<default/*`, `<ns:ops`, `<spiffe://…`), `:port`, a METHOD, `/prefix`,
/// `=/exact`, `~regex`, or `x-header=value`. Words of one kind are a list. `nothing` is a policy without rules.
fn policies(lines: &str) -> Vec<Arc<AuthorizationPolicy>> {
    let mut specs: Vec<(String, Value)> = Vec::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (head, words) = line.split_once(':').expect("a colon");
        let (action, name) = head.split_once(' ').expect("an action and a name");
        let spec =
            json!({"action": action.trim_end_matches('?'), "dryRun": action.ends_with('?'), "rules": []});
        if !specs.iter().any(|(known, _)| known == name) {
            specs.push((name.to_owned(), spec));
        }
        let (_, spec) = specs.iter_mut().find(|(known, _)| known == name).expect("just made");
        if words.trim() != "nothing" {
            spec["rules"].as_array_mut().expect("a list").push(rule(words));
        }
    }
    specs.iter().map(|(name, spec)| Arc::new(compiled(name, spec).expect("it compiles"))).collect()
}

fn rule(words: &str) -> Value {
    let (mut from, mut to, mut when) = (Vec::new(), json!({}), Vec::new());
    for word in words.split_whitespace() {
        let (list, value) = match word.split_at(1) {
            ("<", caller) => {
                from.push(source(caller));
                continue;
            }
            (":", port) => ("ports", json!(port.parse::<u16>().expect("a port"))),
            ("=", path) => ("paths", json!({"type": "Exact", "value": path})),
            ("~", path) => ("paths", json!({"type": "RegularExpression", "value": path})),
            ("/", _) => ("paths", json!({"value": word})),
            _ => match word.split_once('=') {
                Some((header, value)) => {
                    when.push(json!({"header": header, "values": [value]}));
                    continue;
                }
                None => ("methods", json!(word)),
            },
        };
        match &mut to[list] {
            Value::Array(list) => list.push(value),
            absent => *absent = json!([value]),
        }
    }
    let mut rule = json!({});
    let parts = [("from", json!(from)), ("to", json!([to])), ("when", json!(when))];
    for (part, value) in parts.into_iter().filter(|(_, value)| *value != json!([]) && *value != json!([{}])) {
        rule[part] = value;
    }
    rule
}

fn source(caller: &str) -> Value {
    match caller.split_once(':') {
        Some(("ns", namespace)) => json!({"namespaces": [namespace]}),
        Some(_) => json!({"principals": [caller]}),
        None => json!({"services": [caller]}),
    }
}

fn compiled(name: &str, spec: &Value) -> Result<AuthorizationPolicy, Vec<model::invalid::FieldError>> {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    let input = json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec});
    let parsed = Parsed::from_input(&input, Some(Kind::AuthorizationPolicy))
        .unwrap_or_else(|invalid| panic!("{invalid}"));
    let Resource::AuthorizationPolicy(spec) = parsed.resource else { panic!("no policy") };
    AuthorizationPolicy::compile(&parsed.object.metadata, &spec)
}

fn set(policies: &[Arc<AuthorizationPolicy>]) -> PolicySet {
    let orders = "default/orders".parse().expect("a service");
    let selecting: Vec<_> = policies.iter().filter(|policy| policy.selects(&orders)).cloned().collect();
    PolicySet::new("mesh.internal".parse().expect("a domain"), PeerModes::default(), &selecting)
}

struct Pairs<'a>(Vec<(&'a str, &'a str)>);

impl Fields for Pairs<'_> {
    fn each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        self.0.as_slice().each(name, each);
    }
}

fn service(caller: &str) -> SpiffeId {
    let name = if caller.contains('/') { caller.to_owned() } else { format!("default/{caller}") };
    let name = name.parse().expect("a service");
    SpiffeId::service(&"mesh.internal".parse().expect("a domain"), &name)
}

/// A call is `<caller>[:port] tcp` or `<caller>[:port] METHOD /path [field: value | …]`, to port 80 if none is named.
/// What comes of it is `let in` or `refused`, the rule, and each remark in brackets.
fn outcome(set: &PolicySet, call: &str) -> String {
    let (line, fields) = call.split_once(" [").unwrap_or((call, "]"));
    let words: Vec<&str> = line.split_whitespace().collect();
    let (caller, port) = words[0].split_once(':').unwrap_or((words[0], "80"));
    let (caller, port) = (service(caller), port.parse().expect("a port"));
    let fields = fields.trim_end_matches(']').split(" | ").filter_map(|field| field.split_once(": "));
    let fields = Pairs(fields.collect());
    let path = words.get(2).map(|path| normalize(path, set.strictness()).expect("a path"));
    let head =
        path.as_ref().map(|path| RequestHead { method: words[1], path, authority: "", fields: &fields });
    let mut remarks = Vec::new();
    let call = Call { port, request: head.as_ref() };
    let decided = match authorize(set, Peer::Verified(&caller), call, &mut remarks) {
        Ok(permit) => format!("let in by {}", permit.rule()),
        Err(denied) => format!("refused by {}", denied.rule()),
    };
    let remarks = remarks.iter().map(|remark| format!(" [{} by {}]", remark.kind.as_str(), remark.rule));
    decided.replace("default/", "") + &remarks.collect::<String>().replace("default/", "")
}

#[track_caller]
fn check(lines: &str, calls: &[(&str, &str)]) {
    let set = set(&policies(lines));
    for (call, want) in calls {
        assert_eq!(outcome(&set, call), *want, "{call}\n{lines}");
    }
}

/// `want` is the caller, or `!` and what the refusal says after its rule.
#[track_caller]
fn check_peer(peer: &str, want: &str) {
    let policies = PolicySet::mesh_peers("mesh.internal".parse().expect("a domain"));
    let id: Option<SpiffeId> = (!peer.is_empty()).then(|| peer.parse().expect("an id"));
    let call = Call { port: 80, request: None };
    let peer_of = id.as_ref().map_or(Peer::Unknown, Peer::Verified);
    let got = match authorize(&policies, peer_of, call, &mut Vec::new()) {
        Ok(permit) => {
            assert_eq!((permit.rule().as_str(), permit.id()), ("mesh-peers", id.as_ref()));
            permit.caller().expect("it has an identity").to_string()
        }
        Err(denied) => format!("!{denied}").replace("rule mesh-peers: ", ""),
    };
    assert_eq!((got.as_str(), admits_any(&policies, peer_of).is_ok()), (want, !want.starts_with('!')));
}

#[test]
fn services_of_the_domain_are_let_in_and_nobody_else() {
    check_peer("spiffe://mesh.internal/ns/shop/svc/web", "shop/web");
    check_peer("", "!the caller has no identity");
    check_peer(
        "spiffe://other/ns/shop/svc/web",
        "!spiffe://other/ns/shop/svc/web is of another trust domain",
    );
    for other in ["/node/host-a", "/meshd/1", "/ns/shop/svc", "/ns/shop/svc/web/extra", ""] {
        let id = format!("spiffe://mesh.internal{other}");
        check_peer(&id, &format!("!{id} is no service"));
    }
}

/// Callers without an identity: what a call to a port comes to, by the modes and the policies.
#[test]
fn who_has_no_identity_is_let_in_where_a_mode_permits_it_and_policies_do() {
    let mode = json!({"kind": "PeerAuthentication", "metadata": {"namespace": "default", "name": "orders"},
        "spec": {"mode": "Strict", "portModes": [{"port": 80, "mode": "Permissive"}, {"port": 81, "mode": "Disabled"}]}});
    let parsed = Parsed::from_input(&mode, None).expect("well-formed");
    let Resource::PeerAuthentication(spec) = parsed.resource else { panic!("{mode}") };
    let mode = PeerAuthentication::compile(&parsed.object.metadata, spec).expect("it has a namespace");
    let modes = PeerModes::new(vec![Arc::new(mode)]);
    let came = |lines: &str, port: u16| {
        let domain = "mesh.internal".parse().expect("a domain");
        let set = PolicySet::new(domain, modes.clone(), &policies(lines));
        match authorize(&set, Peer::Unknown, Call { port, request: None }, &mut Vec::new()) {
            Ok(permit) => {
                assert_eq!((permit.caller(), permit.id()), (None, None));
                format!("let in by {}", permit.rule())
            }
            Err(denied) => format!("refused by {}", denied.rule()),
        }
    };
    for (lines, port, want) in [
        ("", 80, "let in by mesh-peers"),
        ("", 81, "let in by mesh-peers"),
        ("", 82, "refused by default/orders/strict"),
        ("Allow p: <default/web", 80, "refused by only-allowed"),
        ("Allow p: <ns:default", 80, "refused by only-allowed"),
        ("Allow p: :80", 80, "let in by default/p/0"),
        ("Allow p: :80", 82, "refused by default/orders/strict"),
        ("Deny p: <default/web", 80, "let in by mesh-peers"),
        ("Deny p: :80", 80, "refused by default/p/0"),
    ] {
        assert_eq!(came(lines, port), want, "{lines} at {port}");
    }
}

#[test]
fn where_nothing_allows_everybody_is_let_in_but_who_is_denied() {
    check("", &[("web GET /", "let in by mesh-peers"), ("web tcp", "let in by mesh-peers")]);
    check(
        "Deny p: <default/bot",
        &[
            ("web GET /", "let in by mesh-peers"),
            ("bot GET /", "refused by p/0"),
            ("bot tcp", "refused by p/0"),
        ],
    );
    check("Deny p: nothing", &[("web GET /", "let in by mesh-peers")]);
}

#[test]
fn where_one_allows_only_what_is_allowed_is_let_in() {
    let lines = "Allow p: <default/web GET HEAD /api \n Allow p: <ns:ops \n Allow q: <default/jobs POST";
    check(
        lines,
        &[
            ("web GET /api/x", "let in by p/0"),
            ("web HEAD /api", "let in by p/0"),
            ("web POST /api/x", "refused by only-allowed"),
            ("web GET /apix", "refused by only-allowed"),
            ("ops/any DELETE /x", "let in by p/1"),
            ("jobs POST /x", "let in by q/0"),
            ("shop/web GET /api/x", "refused by only-allowed"),
        ],
    );
    check(
        "Allow p: nothing",
        &[("web GET /", "refused by only-allowed"), ("web tcp", "refused by only-allowed")],
    );
}

#[test]
fn what_is_denied_is_refused_whatever_allows_it() {
    check(
        "Allow a: <default/* \n Deny d: /admin \n Deny e: <default/bot",
        &[
            ("web GET /", "let in by a/0"),
            ("web GET /admin/x", "refused by d/0"),
            ("bot GET /admin", "refused by d/0"),
            ("bot GET /", "refused by e/0"),
            ("shop/web GET /", "refused by only-allowed"),
        ],
    );
}

#[test]
fn callers_are_told_by_service_namespace_and_identity() {
    let admin = "spiffe://mesh.internal/ns/default/svc/admin";
    check(
        &format!("Allow p: <shop/web <ops/* <ns:jobs <{admin}"),
        &[
            ("shop/web tcp", "let in by p/0"),
            ("shop/web2 tcp", "refused by only-allowed"),
            ("ops/a tcp", "let in by p/0"),
            ("jobs/b tcp", "let in by p/0"),
            ("admin tcp", "let in by p/0"),
            ("shop/admin tcp", "refused by only-allowed"),
        ],
    );
    // All of one source must hold.
    let rules = json!([{"from": [{"services": ["shop/web", "ops/*"], "namespaces": ["shop"]}]}]);
    let policy = Arc::new(compiled("p", &json!({"rules": rules})).expect("it compiles"));
    let both = set(&[policy]);
    let outcomes = ["shop/web tcp", "ops/web tcp", "shop/other tcp"].map(|call| outcome(&both, call));
    assert_eq!(outcomes, ["let in by p/0", "refused by only-allowed", "refused by only-allowed"]);
}

#[test]
fn ports_paths_and_headers_are_compared() {
    check(
        "Allow p: :80 =/a ~/b/[0-9]+ /c/ \n Allow p: :81 x-tenant=acme x-tenant=best x-other=1",
        &[
            ("web GET /a", "let in by p/0"),
            ("web GET /a/", "refused by only-allowed"),
            ("web GET /b/12?x=1", "let in by p/0"),
            ("web GET /b/12/x", "refused by only-allowed"),
            ("web GET /c", "let in by p/0"),
            ("web GET /x/../%63//d", "let in by p/0"),
            ("web:81 GET /a", "refused by only-allowed"),
            ("web:81 GET /a [X-Tenant: best]", "let in by p/1"),
            ("web:81 GET /a [X-Tenant: Acme | x-other: 1]", "let in by p/1"),
            ("web:81 GET /a [x-tenant: other]", "refused by only-allowed"),
            ("web [x-tenant: acme]", "refused by only-allowed"),
        ],
    );
}

#[test]
fn of_several_lines_of_a_header_any_denies_and_only_all_together_allow() {
    check(
        "Deny d: x-role=guest",
        &[
            ("web GET / [x-role: guest]", "refused by d/0"),
            ("web GET / [x-role: admin | x-role: guest]", "refused by d/0"),
            ("web GET / [x-role: admin]", "let in by mesh-peers"),
        ],
    );
    check(
        "Allow a: x-role=admin",
        &[
            ("web GET / [x-role: admin]", "let in by a/0"),
            ("web GET / [x-role: admin | x-role: guest]", "refused by only-allowed"),
        ],
    );
}

/// As in Istio: what a stream does not show never lets it in, and never saves it.
#[test]
fn a_stream_is_judged_by_what_it_shows() {
    for word in ["GET", "/api", "x-tenant=acme"] {
        let allow = format!("Allow a: <default/web {word} \n Allow b: <default/jobs :80");
        check(
            &allow,
            &[
                ("web tcp", "refused by only-allowed"),
                ("jobs tcp", "let in by b/0"),
                ("jobs:81 tcp", "refused by only-allowed"),
            ],
        );
        let deny = format!("Deny d: <default/web :80 {word}");
        check(
            &deny,
            &[
                ("web tcp", "refused by d/0"),
                ("web:81 tcp", "let in by mesh-peers"),
                ("jobs tcp", "let in by mesh-peers"),
            ],
        );
    }
}

#[test]
fn an_empty_list_matches_nothing() {
    for part in [
        json!({"from": []}),
        json!({"to": []}),
        json!({"when": []}),
        json!({"from": [{"services": []}]}),
        json!({"from": [{"namespaces": []}]}),
        json!({"from": [{"principals": []}]}),
        json!({"to": [{"ports": []}]}),
        json!({"to": [{"methods": []}]}),
        json!({"to": [{"paths": []}]}),
        json!({"when": [{"header": "x-a", "values": []}]}),
    ] {
        for (action, want) in [("Allow", "refused by only-allowed"), ("Deny", "let in by mesh-peers")] {
            let policy =
                Arc::new(compiled("p", &json!({"action": action, "rules": [part]})).expect("compiles"));
            let set = set(&[policy]);
            for call in ["web GET /", "web tcp"] {
                assert_eq!(outcome(&set, call), want, "{action} {part}: {call}");
            }
        }
    }
}

#[test]
fn what_is_audited_is_noted_and_decides_nothing() {
    check(
        "Audit a: <default/web \n Audit b: /admin \n Audit? c: POST \n Deny d: <default/bot",
        &[
            ("web GET /", "let in by mesh-peers [audited by a/0]"),
            ("web POST /admin", "let in by mesh-peers [audited by b/0] [audited by c/0] [audited by a/0]"),
            ("bot GET /admin", "refused by d/0 [audited by b/0]"),
            ("jobs tcp", "let in by mesh-peers"),
        ],
    );
    let many: String = (0..2 * REMARKS_MAX).map(|n| format!("Audit a{n}: GET\n")).collect();
    assert_eq!(outcome(&set(&policies(&many)), "web GET /").matches("audited").count(), REMARKS_MAX);
}

#[test]
fn what_is_rehearsed_is_told_and_refuses_nothing() {
    check(
        "Deny? d: /admin",
        &[
            ("web GET /admin", "let in by mesh-peers [would-deny by d/0]"),
            ("web GET /", "let in by mesh-peers"),
            ("web tcp", "let in by mesh-peers [would-deny by d/0]"),
        ],
    );
    check(
        "Allow? a: <default/web",
        &[
            ("web GET /", "let in by mesh-peers"),
            ("bot GET /", "let in by mesh-peers [would-deny by only-allowed]"),
        ],
    );
    check(
        "Allow a: <default/web \n Allow? b: <default/jobs \n Deny? d: DELETE",
        &[
            ("web GET /", "let in by a/0"),
            ("web DELETE /", "let in by a/0 [would-deny by d/0]"),
            ("jobs GET /", "refused by only-allowed [would-allow by b/0]"),
            ("bot GET /", "refused by only-allowed"),
        ],
    );
}

#[test]
fn only_what_decides_by_path_asks_for_strict_paths() {
    for (lines, want) in [
        ("Allow a: GET", Strictness::Plain),
        ("Allow? a: /api", Strictness::Plain),
        ("Audit a: /api", Strictness::Plain),
        ("Allow a: /api", Strictness::Strict),
        ("Deny a: ~/.*", Strictness::Strict),
    ] {
        assert_eq!(set(&policies(lines)).strictness(), want, "{lines}");
    }
}

#[test]
fn policies_reach_their_namespace_and_those_of_the_mesh_all_of_it() {
    let reach = |name: &str, targets: Value| {
        let policy = compiled(name, &json!({"targetRefs": targets})).expect("it compiles");
        let services = ["default/orders", "default/web", "shop/orders", "mesh-system/orders"];
        let selected = services.into_iter().filter(|name| policy.selects(&name.parse().expect("a service")));
        selected.collect::<Vec<_>>().join(" ")
    };
    let orders = json!([{"name": "orders"}]);
    assert_eq!(reach("default/p", Value::Null), "default/orders default/web");
    assert_eq!(reach("default/p", orders.clone()), "default/orders");
    assert_eq!(reach("shop/p", orders.clone()), "shop/orders");
    assert_eq!(reach("mesh-system/p", orders), "mesh-system/orders");
    let all = "default/orders default/web shop/orders mesh-system/orders";
    assert_eq!(reach("mesh-system/p", Value::Null), all);
}

/// Whether anything that `caller` could ask for is let in.
#[track_caller]
fn check_any(lines: &str, caller: &str, want: bool) {
    let any = admits_any(&set(&policies(lines)), Peer::Verified(&service(caller)));
    assert_eq!(any.is_ok(), want, "{lines}: {any:?}");
}

#[test]
fn a_peer_is_shut_out_only_where_nothing_is_left_to_it() {
    check_any("", "web", true);
    check_any("Deny d: <default/web", "web", false);
    check_any("Deny d: <default/web GET", "web", true);
    check_any("Deny d: <default/web :80", "web", true);
    check_any("Deny d: <default/web x-a=1", "web", true);
    check_any("Deny? d: <default/web", "web", true);
    check_any("Allow a: <default/jobs", "web", false);
    check_any("Allow a: <default/web POST /x x-a=1", "web", true);
    check_any("Allow a: nothing", "web", false);
}

#[test]
fn what_cannot_be_compiled_is_named() {
    let rules = json!([{"to": [{"paths": [{"type": "RegularExpression", "value": "("}, {"value": "/a;b"}, {"value": "/a/../b"}]}]}]);
    let errors = compiled("p", &json!({"rules": rules})).expect_err("wrong paths");
    let told: Vec<_> = errors.iter().map(|error| format!("{}: {}", error.path, error.message)).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    for (index, start) in
        ["must be a regular expression", "must be a path: ", "must be a path without"].iter().enumerate()
    {
        let want = format!("spec.rules[0].to[0].paths[{index}].value: {start}");
        assert!(told[index].starts_with(&want), "{told:?}");
    }
}

#[test]
fn admission_refuses_what_would_never_match_and_what_is_too_much() {
    let told = |rules: Value| {
        let spec = json!({"rules": rules});
        let input = json!({"metadata": {"namespace": "default", "name": "p"}, "spec": spec});
        let parsed = Parsed::from_input(&input, Some(Kind::AuthorizationPolicy)).expect("well-formed");
        let Resource::AuthorizationPolicy(spec) = parsed.resource else { panic!("no policy") };
        check_spec(&spec)
    };
    assert_eq!(told(json!([{"when": [{"header": "x-a", "values": ["1"]}]}])), Vec::<String>::new());
    assert_eq!(
        told(json!([{"when": [{"claim": "role", "values": ["admin"]}]}])),
        [
            "spec.rules[0].when[0].claim: claims are not verified yet, so that no condition on one could hold: use header"
        ]
    );
    let paths = vec![json!({"value": "/"}); 1_025];
    assert_eq!(
        told(json!([{"to": [{"paths": paths}]}])),
        ["spec.rules: must have at most 1024 paths in all, has 1025"]
    );
}

fn check_spec(spec: &model::resource::AuthorizationPolicySpec) -> Vec<String> {
    super::check(spec).into_iter().map(|error| format!("{}: {}", error.path, error.message)).collect()
}

/// A claim that another version's admission took: it can never open a way.
#[test]
fn a_claim_denies_and_never_allows() {
    let rules = json!([{"when": [{"claim": "role", "values": ["admin"]}]}]);
    for (action, want) in [("Allow", "refused by only-allowed"), ("Deny", "refused by p/0")] {
        let policy = compiled("p", &json!({"action": action, "rules": rules})).expect("it compiles");
        assert_eq!(outcome(&set(&[Arc::new(policy)]), "web GET /"), want, "{action}");
    }
}

/// As many rules of `set` that allow are compared with a call of `default/web`: a request for a path, or a stream.
fn compared(set: &PolicySet, target: Option<&str>) -> usize {
    let (caller, id) = ("default/web".parse().expect("a service"), service("web"));
    let path = target.map(|target| normalize(target, set.strictness()).expect("a path"));
    let head = path.as_ref().map(|path| RequestHead { method: "GET", path, authority: "", fields: &[] });
    let known = Some((&caller, &id));
    set.allow
        .about(Asked { caller: known, port: Some(80), request: head.as_ref(), doubt: Doubt::Fails })
        .count()
}

/// What is compared does not grow with what is said of others.
#[test]
fn rules_for_other_callers_are_not_looked_at() {
    let many: String = (0..1_000).map(|n| format!("Allow p: <default/other{n} <ns:ops{n}\n")).collect();
    let set = set(&policies(&format!("{many} Allow q: <default/web")));
    assert_eq!(outcome(&set, "web tcp"), "let in by q/0");
    assert_eq!((compared(&set, None), compared(&set, Some("/"))), (1, 1));
}

/// Nor with what is said of other paths, whole ones or prefixes; regular expressions are compared with every request.
#[test]
fn rules_for_other_paths_are_not_looked_at() {
    let rules = |count: usize| {
        let many = (0..count)
            .map(|n| format!("Allow p{n}: /a{n}/b\nAllow e{n}: <default/web =/a{n}/b/c\nAllow o{n}: <ns:default /a{n} =/x{n}\n"));
        let last = "Allow all: <default/web GET\nAllow like: ~/a0/.*\n";
        set(&policies(&(many.collect::<String>() + last)))
    };
    for (set, streams) in [(rules(2), 10), (rules(500), 2_002)] {
        assert_eq!(compared(&set, Some("/a1/b/c")), 5, "p1, e1, o1, all, like");
        assert_eq!(compared(&set, Some("/other")), 2, "all, like");
        assert_eq!(compared(&set, None), streams, "what shows no path may be for any");
        assert_eq!(outcome(&set, "web POST /a1/b/c"), "let in by p1/0");
        assert_eq!(outcome(&set, "web POST /x1"), "let in by o1/0");
        assert_eq!(outcome(&set, "ops/any POST /x1"), "refused by only-allowed");
        assert_eq!(outcome(&set, "web POST /a0/other"), "let in by o0/0");
        assert_eq!(outcome(&set, "ops/any POST /a0/other"), "let in by like/0");
    }
}
