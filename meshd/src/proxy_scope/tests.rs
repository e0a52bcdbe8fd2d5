use model::duration::Millis;
use registry::{Change, Command, Entry, Expect, Reply, Write};
use serde_json::json;

use super::*;

/// A mesh that is changed by a small language: `service a`, `endpoint a-1 a`, `route r a b c` (parent, back ends),
/// `node n glob…`, `policy p orders` (target; `*` for all), `conduct c orders` (the same of a TrafficPolicy), `role r`, `namespace n`, and each with `-` before it to remove it.
struct Mesh(State);

impl Mesh {
    fn new(script: &str) -> Self {
        let mut mesh = Self(State::new());
        mesh.run(script);
        mesh
    }

    fn run(&mut self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let change = match line.strip_prefix('-') {
                Some(line) => Change::Delete { key: object(line).key(), expect: Expect::Any },
                None => Change::Put { object: object(line), expect: Expect::Any, credential: None },
            };
            let write = Write { actor: "test".to_owned(), changes: vec![change] };
            let reply = self.0.apply(Entry { at: Millis(1_000), command: Command::Write(write) });
            assert!(matches!(reply, Reply::Written(_)), "{line}: {reply}");
        }
    }
}

fn object(line: &str) -> Object {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (namespace, name) = words[1].split_once('/').unwrap_or(("default", words[1]));
    let name = || name.parse().expect("a name");
    // A removal names only what it removes.
    let second = words.get(2).copied().unwrap_or("any");
    let (kind, spec) = match words[0] {
        "service" => (Kind::Service, json!({"ports": [{"port": 80}]})),
        "endpoint" => (
            Kind::Endpoint,
            json!({"service": second, "source": "discovery/test", "address": "10.0.0.1", "ports": [{"port": 80, "targetPort": 80}],
                   "weight": words.get(3).and_then(|weight| weight.parse::<u32>().ok()).unwrap_or(1)}),
        ),
        "route" => {
            let backends: Vec<_> =
                words.iter().skip(3).map(|name| json!({"name": name, "port": 80})).collect();
            (Kind::HTTPRoute, json!({"parentRefs": [{"name": second}], "rules": [{"backendRefs": backends}]}))
        }
        "node" => (Kind::Node, json!({"services": words.get(2..).unwrap_or_default()})),
        "namespace" => (Kind::Namespace, json!({})),
        "policy" | "conduct" => (
            if words[0] == "policy" { Kind::AuthorizationPolicy } else { Kind::TrafficPolicy },
            match second {
                "*" => json!({}),
                target => json!({"targetRefs": [{"name": target}]}),
            },
        ),
        "role" => (Kind::Role, json!({"rules": []})),
        other => panic!("what is a {other}?"),
    };
    let key = match kind.namespaced() {
        true => Key::namespaced(kind, namespace.parse().expect("a name"), name()),
        false => Key::mesh_wide(kind, name()),
    };
    Object::new(key, spec.as_object().expect("an object").clone())
}

fn subscription(names: &str) -> Subscription {
    let full = names.split_whitespace().map(|name| match name {
        "*" => "*".to_owned(),
        name => format!("default/{name}"),
    });
    Subscription::parse(&full.collect::<Vec<_>>().join(",")).expect("valid")
}

fn scope(mesh: &Mesh, names: &str) -> Scope {
    Scope::new("n".parse().expect("a name"), subscription(names), &mesh.0).expect("small enough")
}

fn print(told: Vec<Told>) -> String {
    let mut words: Vec<String> = told
        .into_iter()
        .map(|told| match told {
            Told::Put(object) => format!("+{}", object.metadata.name),
            Told::Delete(key) => format!("-{}", key.name),
        })
        .collect();
    words.sort();
    words.join(" ")
}

const SHOP: &str = "
    node n
    node other
    role r
    service web
    service orders
    service payments
    service stock
    endpoint web-1 web
    endpoint orders-1 orders
    endpoint payments-1 payments
    endpoint stock-1 stock
    route orders-to orders orders payments
    route payments-to payments stock
";

#[test]
fn a_proxy_is_told_of_all_services_and_of_the_details_that_it_needs() {
    let mesh = Mesh::new(SHOP);
    assert_eq!(print(scope(&mesh, "").everything(&mesh.0)), "+n +orders +payments +stock +web");
    assert_eq!(
        print(scope(&mesh, "orders").everything(&mesh.0)),
        "+n +orders +orders-1 +orders-to +payments +payments-1 +payments-to +stock +web"
    );
    let all = print(scope(&mesh, "*").everything(&mesh.0));
    assert_eq!(
        all,
        "+n +orders +orders-1 +orders-to +payments +payments-1 +payments-to +stock +stock-1 +web +web-1"
    );
}

/// From SHOP, subscribed to `names`: what is told after `script`.
#[track_caller]
fn check(names: &str, script: &str, want: &str) {
    let mut mesh = Mesh::new(SHOP);
    let (mut live, from) = (scope(&mesh, names), mesh.0.revision());
    mesh.run(script);
    let resumed = scope(&mesh, names).since(&subscription(names), from, &mesh.0).expect("kept");
    assert_eq!(print(resumed), want, "resumed after {script}");
    assert_eq!(print(live.advance(from, &mesh.0).expect("kept")), want, "live after {script}");
    let now = mesh.0.revision();
    assert_eq!(print(live.advance(now, &mesh.0).expect("kept")), "", "nothing twice");
    assert_eq!(live.reached, scope(&mesh, names).reached);
}

#[test]
fn only_what_is_in_scope_is_told() {
    check("orders", "endpoint web-2 web", "");
    check("orders", "endpoint orders-2 orders", "+orders-2");
    check("orders", "endpoint payments-2 payments", "+payments-2");
    check("orders", "endpoint stock-2 stock", "");
    check("orders", "service late", "+late");
    check("orders", "node late \n role late", "");
    check("*", "endpoint web-2 web", "+web-2");
    check("*", "-endpoint web-1", "-web-1");
}

#[test]
fn changes_are_told_once_as_they_ended() {
    check(
        "orders",
        "endpoint orders-2 orders \n endpoint orders-2 orders 5 \n endpoint orders-2 orders 7",
        "+orders-2",
    );
    check("orders", "endpoint orders-2 orders \n -endpoint orders-2", "");
    check("orders", "-endpoint orders-1 \n endpoint orders-1 orders 3", "+orders-1");
    check("orders", "-endpoint orders-1", "-orders-1");
    check("orders", "endpoint orders-1 web", "-orders-1");
    check("web", "endpoint orders-1 web", "+orders-1");
}

#[test]
fn routes_open_and_close_the_way_to_other_services() {
    check("orders", "route orders-to orders orders", "+orders-to -payments-1 -payments-to");
    check("orders", "-route orders-to", "-orders-to -payments-1 -payments-to");
    check("orders", "route more orders stock", "+more +stock-1");
    check("orders", "route more orders stock \n endpoint stock-2 stock", "+more +stock-1 +stock-2");
    check("orders", "route more orders stock \n -route more", "");
    check("orders", "route orders-to web stock", "-orders-to -payments-1 -payments-to");
    check(
        "orders",
        "route orders-to orders orders \n -endpoint payments-1",
        "+orders-to -payments-1 -payments-to",
    );
    check("orders payments", "-route orders-to", "-orders-to");
}

#[test]
fn policies_are_told_for_what_the_host_may_run() {
    check("", "node n default/web default/w* \n policy p web \n policy q orders", "+n +p");
    check("orders", "policy p orders", "");
    check(
        "",
        "node n default/web \n policy p * \n policy mesh-system/all * \n policy mesh-system/own web",
        "+all +n +p",
    );
    check("", "policy p * \n policy mesh-system/all *", "+all");
    check("", "node n */*\n policy p orders \n -policy p", "+n");
    check("*", "policy p web", "");
    let mut mesh = Mesh::new(SHOP);
    mesh.run("namespace shop \n policy p web \n policy q * \n policy shop/r * \n policy mesh-system/all *");
    let step = |mesh: &mut Mesh, script: &str| {
        let (mut live, from) = (scope(mesh, ""), mesh.0.revision());
        mesh.run(script);
        let resumed = scope(mesh, "").since(&subscription(""), from, &mesh.0).expect("kept");
        let told = print(live.advance(from, &mesh.0).expect("kept"));
        assert_eq!(print(resumed), told, "resumed after {script}");
        assert_eq!(live.topics(), scope(mesh, "").topics(), "after {script}");
        told
    };
    assert_eq!(step(&mut mesh, "node n default/web"), "+n +p +q");
    assert_eq!(print(scope(&mesh, "").everything(&mesh.0)), "+all +n +orders +p +payments +q +stock +web");
    assert_eq!(step(&mut mesh, "node n shop/* default/orders"), "+n +r -p");
    assert_eq!(step(&mut mesh, "policy p orders"), "+p");
    assert_eq!(step(&mut mesh, "policy p web"), "-p");
    assert_eq!(step(&mut mesh, "node n s*/x"), "+n -q");
    assert_eq!(step(&mut mesh, "-node n"), "-n -r");
}

#[test]
fn traffic_policies_are_told_for_what_is_called_and_for_what_may_run() {
    check("orders", "conduct c orders \n conduct d web", "+c");
    check("orders", "conduct c payments", "+c");
    check("orders", "conduct c stock", "");
    check("orders", "namespace shop \n conduct c * \n conduct shop/d * \n conduct mesh-system/e *", "+c +e");
    check("", "conduct c * \n conduct mesh-system/e *", "+e");
    check("", "node n default/web \n conduct c web \n conduct d orders", "+c +n");
    check("*", "conduct c web \n -conduct c \n conduct d stock", "+d");
    let mut mesh = Mesh::new(SHOP);
    mesh.run("conduct c orders \n conduct d stock \n conduct e *");
    let step = |mesh: &mut Mesh, script: &str| {
        let (mut live, from) = (scope(mesh, "orders"), mesh.0.revision());
        mesh.run(script);
        let resumed = scope(mesh, "orders").since(&subscription("orders"), from, &mesh.0).expect("kept");
        let told = print(live.advance(from, &mesh.0).expect("kept"));
        assert_eq!(print(resumed), told, "resumed after {script}");
        assert_eq!(live.topics(), scope(mesh, "orders").topics(), "after {script}");
        told
    };
    assert_eq!(step(&mut mesh, "route more orders stock"), "+d +more +stock-1");
    assert_eq!(step(&mut mesh, "-route more"), "-d -more -stock-1");
    assert_eq!(step(&mut mesh, "conduct c web"), "-c");
    let from = mesh.0.revision();
    let added = scope(&mesh, "orders stock").since(&subscription("orders"), from, &mesh.0).expect("kept");
    assert_eq!(print(added), "+d +stock-1");
    let all = scope(&mesh, "*").since(&subscription("orders"), from, &mesh.0).expect("kept");
    assert_eq!(print(all), "+c +d +stock-1 +web-1");
}

#[test]
fn a_destination_that_is_added_is_told_whole() {
    let mut mesh = Mesh::new(SHOP);
    let from = mesh.0.revision();
    mesh.run("endpoint web-2 web \n endpoint orders-2 orders");
    let both = scope(&mesh, "web orders");
    let before = subscription("web orders").without(&subscription("orders"));
    assert_eq!(before, subscription("web"));
    assert_eq!(
        print(both.since(&before, from, &mesh.0).expect("kept")),
        "+orders-1 +orders-2 +orders-to +payments-1 +payments-to +web-2"
    );
    let all = scope(&mesh, "*").since(&subscription("web"), mesh.0.revision(), &mesh.0).expect("kept");
    assert_eq!(print(all), "+orders-1 +orders-2 +orders-to +payments-1 +payments-to +stock-1");
}

#[test]
fn a_place_that_is_no_longer_kept_is_refused() {
    let mut mesh = Mesh(State::with_history(2));
    mesh.run(SHOP);
    let mut live = scope(&mesh, "orders");
    assert!(live.advance(1, &mesh.0).is_err());
    assert!(live.since(&subscription("orders"), 1, &mesh.0).is_err());
    assert!(live.advance(mesh.0.revision(), &mesh.0).is_ok());
}

#[test]
fn subscriptions_say_what_is_wrong_with_them() {
    assert_eq!(Subscription::parse(""), Ok(Subscription::Services(BTreeSet::new())));
    assert_eq!(Subscription::parse("a/b,*"), Ok(Subscription::All));
    let wrong = Subscription::parse("orders").expect_err("no namespace").to_string();
    assert!(wrong.starts_with("'orders': must be <namespace>/<name>"), "{wrong}");
    let many: Vec<String> = (0..=SUBSCRIPTIONS_MAX).map(|n| format!("a/b{n}")).collect();
    assert_eq!(Subscription::parse(&many.join(",")), Err(SubscriptionError::Names(SUBSCRIPTIONS_MAX + 1)));
}

#[test]
fn a_large_mesh_refuses_the_wildcard() {
    let endpoints: Vec<String> =
        (0..=WILDCARD_ENDPOINTS_MAX).map(|n| format!("endpoint e-{n} web")).collect();
    let mesh = Mesh::new(&format!("node n \n service web \n {}", endpoints.join("\n")));
    let refused = Scope::new("n".parse().expect("a name"), Subscription::All, &mesh.0).expect_err("too many");
    assert_eq!(refused, SubscriptionError::Wildcard(WILDCARD_ENDPOINTS_MAX + 1));
}
