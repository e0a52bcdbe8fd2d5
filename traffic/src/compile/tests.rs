use std::net::IpAddr;

use model::{identity::SpiffeId, kind::Kind, manifest};
use serde_json::json;

use super::*;
use crate::{
    Dice,
    balancer::{Ask, Experience, Known, pick},
    endpoint::{EndpointKey, Health},
    path::{self, Strictness},
    policy::{self, Peer},
    request::{Caller, RequestHead},
    snapshot::Backend,
};

const SHOP: &str = "
kind: Service
metadata: {namespace: default, name: orders}
spec:
  ports: [{name: http, port: 8080, targetPort: 9000, protocol: http}, {name: db, port: 5432, protocol: tcp}]
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}, {name: v3, labels: {version: v3}}]
---
kind: Service
metadata: {namespace: shop, name: web}
spec: {ports: [{port: 80, protocol: http}]}
---
kind: Endpoint
metadata: {namespace: default, name: orders-a, labels: {version: v1}}
spec: {service: orders, node: host-a, address: 10.0.0.1, ports: [{port: 8080, targetPort: 9000}], zone: z1, weight: 3}
---
kind: Endpoint
metadata: {namespace: default, name: orders-b, labels: {version: v2}}
spec: {service: orders, node: host-b, address: 10.0.0.2, inboundPort: 25008, ports: [{port: 8080, targetPort: 9000}, {port: 5432, targetPort: 5432}]}
---
kind: Endpoint
metadata: {namespace: default, name: orders-c, labels: {version: v1}}
spec: {service: orders, address: 10.0.0.3, ports: [{port: 8080, targetPort: 9000}]}
---
kind: Endpoint
metadata: {namespace: shop, name: web-a}
spec: {service: web, node: host-a, address: 10.0.0.1, ports: [{port: 80, targetPort: 80}]}
---
kind: Endpoint
metadata: {namespace: shop, name: lost-a}
spec: {service: lost, node: host-a, address: 10.0.0.1, ports: [{port: 80, targetPort: 80}]}
---
kind: Node
metadata: {name: host-a}
spec: {services: ['default/*']}
";

/// The inputs that manifests make.
fn inputs(manifests: &[&str]) -> Inputs {
    let parsed = manifests.iter().flat_map(|text| manifest::parse(text).expect("a manifest"));
    let objects = parsed.map(|parsed| (parsed.object.key(), Arc::new(parsed.object))).collect();
    let domain = "mesh.internal".parse().expect("a domain");
    Inputs { revision: 7, domain, trust_generation: 3, objects, local: Vec::new(), callers: BTreeMap::new() }
}

fn snapshot(manifests: &[&str]) -> Snapshot {
    compile(None, &inputs(manifests)).expect("it compiles")
}

fn key(kind: Kind, namespace: &str, name: &str) -> Key {
    let parse = |text: &str| text.parse().expect("a name");
    Key { kind, namespace: Some(parse(namespace)), name: parse(name) }
}

fn change(inputs: &mut Inputs, key: &Key, change: impl FnOnce(&mut Object)) {
    let mut object = Object::clone(&inputs.objects[key]);
    change(&mut object);
    inputs.objects.insert(key.clone(), Arc::new(object));
}

fn service(name: &str) -> ServiceName {
    name.parse().expect("a service")
}

#[test]
fn virtual_ips_are_what_the_registry_says_and_a_service_may_have_none() {
    let mut inputs = inputs(&[SHOP]);
    let before = compile(None, &inputs).expect("it compiles");
    assert!(before.destination(&service("default/orders")).expect("it is there").virtual_ips().is_empty());
    let said = json!({"virtualIPs": ["240.0.0.7", "fd6d:6573:6800::7"], "conditions": [], "later": 1});
    change(&mut inputs, &key(Kind::Service, "default", "orders"), |orders| orders.status = Some(said));
    let odd = json!({"virtualIPs": 7});
    change(&mut inputs, &key(Kind::Service, "shop", "web"), |web| web.status = Some(odd));
    let after = compile(Some(&before), &inputs).expect("it compiles");
    let at =
        |ip: &str| after.by_virtual_ip(ip.parse().expect("an address")).map(|found| found.name().to_string());
    assert_eq!(at("240.0.0.7").as_deref(), Some("default/orders"));
    assert_eq!((at("fd6d:6573:6800::7"), at("240.0.0.8")), (at("240.0.0.7"), None));
    let in_it = |namespace: &str| after.has_services_in(&namespace.parse().expect("a name"));
    assert_eq!((in_it("default"), in_it("shop"), in_it("other")), (true, true, false));
    let port =
        after.destination(&service("default/orders")).and_then(|orders| orders.port(80)).expect("for HTTP");
    assert_eq!((port.number(), port.name().map(|name| name.as_str())), (8080, Some("http")));
}

/// The names of a back end's endpoints.
fn names(backend: &Backend) -> String {
    let names: Vec<_> = backend.endpoints().iter().map(|endpoint| endpoint.key.name().as_str()).collect();
    names.join(" ")
}

/// Where `GET <target>` to `default/orders`, port 8080, goes: `<rule>: <back end> [<its endpoints>]`, or why nowhere.
fn go(snapshot: &Snapshot, target: &str, dice: &mut Dice) -> String {
    let path = path::normalize(target, Strictness::Plain).expect("a path");
    let head = RequestHead { method: "GET", path: &path, authority: "orders.default.mesh", fields: &[] };
    let destination = snapshot.by_hostname("orders.default.mesh").expect("it is there");
    let routed =
        destination.port(8080).expect("a port").route(&head, Caller::of(&service("default/web")), dice);
    match routed.backend {
        Ok(backend) => format!("{}: {} [{}]", routed.rule, backend.name, names(backend)),
        Err(unroutable) => format!("{}: {unroutable}", routed.rule),
    }
}

/// With one route for `default/orders` that has these rules (flow YAML): where `target` goes.
#[track_caller]
fn check(rules: &str, target: &str, want: &str) {
    let route = format!(
        "kind: HTTPRoute\nmetadata: {{namespace: default, name: r}}\nspec: {{parentRefs: [{{name: orders}}], rules: {rules}}}"
    );
    assert_eq!(go(&snapshot(&[SHOP, &route]), target, &mut Dice::seeded(1)), want, "{rules}");
}

#[test]
fn without_a_route_a_service_goes_to_itself() {
    let snapshot = snapshot(&[SHOP]);
    assert_eq!(
        go(&snapshot, "/any", &mut Dice::seeded(1)),
        "default: default/orders:8080 [orders-a orders-b]"
    );
    assert_eq!((snapshot.revision, snapshot.trust_generation), (7, 3));
}

#[test]
fn rules_lead_to_subsets_and_to_other_services() {
    check(
        "[{backendRefs: [{name: orders, port: 8080, subset: v1}]}]",
        "/",
        "default/r/0: default/orders:8080 subset v1 [orders-a]",
    );
    check(
        "[{name: x, backendRefs: [{namespace: shop, name: web, port: 80}]}]",
        "/",
        "default/r/x: shop/web:80 [web-a]",
    );
    let rules = "[{matches: [{path: {value: /api}}], backendRefs: [{name: orders, port: 8080, subset: v2}]}]";
    check(rules, "/api/x", "default/r/0: default/orders:8080 subset v2 [orders-b]");
    check(rules, "/other", "default: no rule of the service's routes matches the request");
}

#[test]
fn back_ends_that_are_not_there_take_their_share() {
    check("[{}]", "/", "default/r/0: the rule has no back end");
    let one = |backend: &str| format!("[{{backendRefs: [{{{backend}}}]}}]");
    check(
        &one("name: gone, port: 80"),
        "/",
        "default/r/0: back end default/gone:80 is not there: no such service",
    );
    check(
        &one("name: orders, port: 81"),
        "/",
        "default/r/0: back end default/orders:81 is not there: the service has no such port",
    );
    let want =
        "default/r/0: back end default/orders:8080 subset v9 is not there: the service has no such subset";
    check(&one("name: orders, port: 8080, subset: v9"), "/", want);
    check(&one("name: orders, port: 8080, subset: v3"), "/", "default/r/0: default/orders:8080 subset v3 []");
}

#[test]
fn weights_split_between_what_is_there_and_what_is_not() {
    let route = "
kind: HTTPRoute
metadata: {namespace: default, name: r}
spec:
  parentRefs: [{name: orders}]
  rules: [{backendRefs: [{name: orders, port: 8080, subset: v1, weight: 3}, {name: gone, port: 80, weight: 1}]}]";
    let (snapshot, mut dice) = (snapshot(&[SHOP, route]), Dice::seeded(9));
    let went = (0..10_000).filter(|_| go(&snapshot, "/", &mut dice).ends_with("[orders-a]")).count();
    assert!((7_350..7_650).contains(&went), "{went}");
}

#[test]
fn a_route_is_for_the_ports_that_it_names() {
    let route = "
kind: HTTPRoute
metadata: {namespace: default, name: r}
spec: {parentRefs: [{name: orders, port: 9999}], rules: [{}]}";
    let snapshot = snapshot(&[SHOP, route]);
    assert_eq!(go(&snapshot, "/", &mut Dice::seeded(1)), "default: default/orders:8080 [orders-a orders-b]");
}

#[test]
fn endpoints_are_what_their_objects_say() {
    let mut inputs = inputs(&[SHOP]);
    change(&mut inputs, &key(Kind::Endpoint, "default", "orders-b"), |object| {
        object.status = Some(json!({"health": "Draining", "stale": true}));
    });
    let snapshot = compile(None, &inputs).expect("it compiles");
    let orders = snapshot.destination(&service("default/orders")).expect("it is there");
    let backend = orders.port(8080).expect("a port").backend();
    let [a, b] = backend.endpoints() else { panic!("{backend:?}") };
    assert_eq!(
        (a.key.address().to_string(), a.weight, a.node.as_ref().map_or("", |node| node.as_str())),
        ("10.0.0.1:15008".to_owned(), 3, "host-a")
    );
    assert_eq!(
        (a.health, a.stale, a.zone.as_ref().map(|zone| zone.as_str())),
        (Health::Healthy, false, Some("z1"))
    );
    assert_eq!(
        (b.key.address().to_string(), b.health, b.stale),
        ("10.0.0.2:25008".to_owned(), Health::Draining, true)
    );
    assert_eq!(a.id.to_string(), "spiffe://mesh.internal/ns/default/svc/orders");
    assert_eq!((&*backend.hostname, &backend.id), ("orders.default.mesh", &a.id));
    assert_eq!(names(orders.port(5432).expect("a port").backend()), "orders-b");
}

#[test]
fn a_pick_comes_out_of_it() {
    struct Unknown;
    impl Experience for Unknown {
        fn of(&mut self, _: &EndpointKey) -> Known {
            Known::default()
        }
        fn ejected(&self, _: &ServiceName) -> usize {
            0
        }
    }
    let snapshot = snapshot(&[SHOP]);
    let web = snapshot.destination(&service("shop/web")).expect("it is there");
    let pool = &web.port(80).expect("a port").backend().pool;
    let picked = pick(pool, &Ask::default(), &mut Unknown, &[], &mut Dice::seeded(1)).expect("one");
    assert_eq!(picked.key.to_string(), "shop/web-a at 10.0.0.1:15008");
}

#[test]
fn services_are_found_by_name_host_and_port() {
    let snapshot = snapshot(&[SHOP]);
    for authority in
        ["orders.default.mesh", "Orders.Default.MESH:8080", "orders.default.mesh.", "orders.default.mesh.:1"]
    {
        assert_eq!(snapshot.by_hostname(authority).expect(authority).name(), &service("default/orders"));
    }
    for authority in
        ["", ":", "orders.default", "orders.shop.mesh", "lost.shop.mesh", "x.orders.default.mesh"]
    {
        assert!(snapshot.by_hostname(authority).is_none(), "{authority}");
    }
    let orders = snapshot.destination(&service("default/orders")).expect("it is there");
    let number = |port: Option<&crate::snapshot::Port>| port.map(crate::snapshot::Port::number);
    assert_eq!((number(orders.port(8080)), number(orders.port(5432))), (Some(8080), Some(5432)));
    assert_eq!(
        (number(orders.port(80)), number(orders.port(9000))),
        (Some(8080), None),
        "80 stands for HTTP"
    );
    assert_eq!((number(orders.default_port()), orders.hostname()), (Some(8080), "orders.default.mesh"));
    assert_eq!(snapshot.destinations().count(), 2);
}

#[test]
fn callers_who_name_no_port_get_the_likeliest() {
    for (ports, want) in [
        (
            "{name: a, port: 25, protocol: tcp}, {name: b, port: 80, protocol: tcp}, {name: c, port: 81, protocol: http}",
            80,
        ),
        ("{name: a, port: 25, protocol: tcp}, {name: b, port: 82}, {name: c, port: 81, protocol: grpc}", 81),
        ("{name: a, port: 25, protocol: tcp}, {name: b, port: 82}", 82),
        ("{port: 25, protocol: tcp}", 25),
    ] {
        let service = format!(
            "{{kind: Service, metadata: {{namespace: default, name: s}}, spec: {{ports: [{ports}]}}}}"
        );
        let snapshot = snapshot(&[&service]);
        let port = snapshot.by_hostname("s.default.mesh").expect("it is there").default_port();
        assert_eq!(port.map(crate::snapshot::Port::number), Some(want), "{ports}");
    }
}

#[test]
fn who_is_named_by_a_client_hello_is_meant_at_a_port_for_tls() {
    for (ports, want) in [
        ("{name: a, port: 443, protocol: tcp}, {name: b, port: 80, protocol: http}", None),
        ("{name: a, port: 8443, protocol: tls}, {name: b, port: 443, protocol: tls}", Some(443)),
        (
            "{name: a, port: 80}, {name: b, port: 9443, protocol: tls}, {name: c, port: 8443, protocol: tls}",
            Some(9443),
        ),
    ] {
        let service = format!(
            "{{kind: Service, metadata: {{namespace: default, name: s}}, spec: {{ports: [{ports}]}}}}"
        );
        let snapshot = snapshot(&[&service]);
        let port = snapshot.by_hostname("s.default.mesh").expect("it is there").tls_port();
        assert_eq!(port.map(crate::snapshot::Port::number), want, "{ports}");
    }
}

#[test]
fn what_did_not_change_is_taken_over() {
    let route = "
kind: HTTPRoute
metadata: {namespace: default, name: r}
spec: {parentRefs: [{name: orders}], rules: [{backendRefs: [{namespace: shop, name: web, port: 80}]}]}";
    let third = "{kind: Service, metadata: {namespace: shop, name: third}, spec: {ports: [{port: 80}]}}";
    let mut inputs = inputs(&[SHOP, route, third]);
    let mut before = compile(None, &inputs).expect("it compiles");
    // Which destinations are the same as before, of orders, web, third.
    let mut step = |inputs: &Inputs| {
        let now = compile(Some(&before), inputs).expect("it compiles");
        let same = ["default/orders", "shop/web", "shop/third"].map(|name| {
            let name = service(name);
            now.destination(&name)
                .zip(before.destination(&name))
                .is_some_and(|(now, before)| Arc::ptr_eq(now, before))
        });
        before = now;
        same
    };
    assert_eq!(step(&inputs), [true, true, true], "nothing changed");
    let copies = inputs.objects.iter().map(|(key, object)| (key.clone(), Arc::new(Object::clone(object))));
    inputs.objects = copies.collect::<OrdMap<_, _>>();
    assert_eq!(step(&inputs), [true, true, true], "equal objects are the same");
    let unwell = |object: &mut Object| object.status = Some(json!({"health": "Unhealthy"}));
    change(&mut inputs, &key(Kind::Endpoint, "default", "orders-a"), unwell);
    assert_eq!(step(&inputs), [false, true, true], "an endpoint of orders changed");
    change(&mut inputs, &key(Kind::Endpoint, "shop", "web-a"), unwell);
    assert_eq!(step(&inputs), [false, false, true], "the route of orders names web");
    inputs.objects.remove(&key(Kind::HTTPRoute, "default", "r"));
    assert_eq!(step(&inputs), [false, true, true], "the route of orders is gone");
    inputs.objects.remove(&key(Kind::Service, "shop", "web"));
    assert_eq!(step(&inputs), [true, false, true], "web is gone, and nobody names it");
}

/// `services` services with ten endpoints each, and a route and a policy for each.
fn many(services: usize) -> Inputs {
    let text: Vec<_> = (0..services)
        .flat_map(|n| {
            let service = format!("{{kind: Service, metadata: {{namespace: default, name: s{n}}}, spec: {{ports: [{{port: 80, protocol: http}}]}}}}");
            let route = format!("{{kind: HTTPRoute, metadata: {{namespace: default, name: s{n}}}, spec: {{parentRefs: [{{name: s{n}}}], rules: [{{backendRefs: [{{name: s{n}, port: 80}}, {{name: s{}, port: 80}}]}}]}}}}", (n + 1) % services);
            let policy = format!("{{kind: AuthorizationPolicy, metadata: {{namespace: default, name: s{n}}}, spec: {{targetRefs: [{{name: s{n}}}], rules: [{{from: [{{services: [default/web]}}]}}]}}}}");
            let endpoint = |of: usize| format!("{{kind: Endpoint, metadata: {{namespace: default, name: s{n}-{of}}}, spec: {{service: s{n}, node: host-{of}, address: 10.0.0.{of}, ports: [{{port: 80, targetPort: 9000}}]}}}}");
            [service, route, policy].into_iter().chain((0..10).map(endpoint)).collect::<Vec<_>>()
        })
        .collect();
    let local = LocalApp {
        service: service("default/s0"),
        port: 80,
        protocol: Protocol::Http,
        target: (std::net::Ipv4Addr::LOCALHOST, 80).into(),
    };
    Inputs { local: vec![local], ..inputs(&[&text.join("\n---\n")]) }
}

#[test]
fn a_change_is_as_much_work_among_many_as_among_few() {
    for services in [3, 60] {
        let mut inputs = many(services);
        let mut before = compile(None, &inputs).expect("it compiles");
        let all = Work {
            read: 13 * services,
            touched: services,
            built: services,
            bound: services,
            looked_through: 13 * services,
        };
        assert_eq!(before.work(), all);
        let mut step = |inputs: &Inputs| {
            let now = compile(Some(&before), inputs).expect("it compiles");
            let work = now.work();
            let whole = compile(None, inputs).expect("it compiles");
            assert_eq!(shown(&now), shown(&whole), "what was shared is what would be made anew");
            let guarded = now.inbound().is_guarded_as(before.inbound());
            before = now;
            (work, guarded)
        };
        assert_eq!(step(&inputs), (Work::default(), true), "nothing changed");
        let unwell = |object: &mut Object| object.status = Some(json!({"health": "Unhealthy"}));
        change(&mut inputs, &key(Kind::Endpoint, "default", "s1-3"), unwell);
        // The route of s0 names s1, too.
        let one = Work { read: 1, touched: 1, built: 1, bound: 2, looked_through: 0 };
        assert_eq!(step(&inputs), (one, true), "an endpoint");
        inputs.objects.remove(&key(Kind::Endpoint, "default", "s2-9"));
        assert_eq!(step(&inputs), (one, true), "an endpoint that goes");
        inputs.objects.remove(&key(Kind::HTTPRoute, "default", "s1"));
        assert_eq!(step(&inputs), (Work { built: 0, bound: 1, ..one }, true), "a route");
        inputs.objects.remove(&key(Kind::Service, "default", "s2"));
        assert_eq!(step(&inputs), (Work { bound: 1, ..one }, true), "a service that nobody names any more");
        inputs.objects.remove(&key(Kind::AuthorizationPolicy, "default", "s1"));
        let looked_through = inputs.objects.len();
        let policy = Work { read: 1, looked_through, ..Work::default() };
        assert_eq!(step(&inputs), (policy, true), "a policy of a service that does not run here");
        inputs.objects.remove(&key(Kind::AuthorizationPolicy, "default", "s0"));
        let policy = Work { looked_through: looked_through - 1, ..policy };
        assert_eq!(step(&inputs), (policy, false), "a policy of one that does");
    }
}

/// What a snapshot has to say, in the order of the services.
fn shown(snapshot: &Snapshot) -> Vec<String> {
    let mut shown: Vec<_> = snapshot
        .destinations()
        .map(|destination| {
            assert!(
                snapshot
                    .by_hostname(destination.hostname())
                    .is_some_and(|found| Arc::ptr_eq(found, destination))
            );
            let found = |ip: &IpAddr| snapshot.by_virtual_ip(*ip).map(|found| found.name());
            let all = destination.virtual_ips().iter().all(|ip| found(ip) == Some(destination.name()));
            assert!(all, "{destination:?}");
            format!("{destination:?}")
        })
        .collect();
    shown.sort();
    let mut namespaces: Vec<_> = snapshot.directory.namespaces().collect();
    namespaces.sort();
    shown.push(format!("{namespaces:?}"));
    let known = ["240.0.0.7", "240.0.0.8"].map(|ip| snapshot.by_virtual_ip(ip.parse().expect("an address")));
    shown.push(format!("{:?}", known.map(|known| known.map(|found| found.name()))));
    shown
}

/// Objects that come, change and go in any order leave what is made of the last ones alone.
#[test]
fn whatever_came_before_a_snapshot_is_what_its_objects_make_it() {
    let more = "
{kind: HTTPRoute, metadata: {namespace: shop, name: both}, spec: {parentRefs: [{name: web}], rules: [{backendRefs: [{namespace: default, name: orders, port: 8080, subset: v1}]}]}}
---
{kind: HTTPRoute, metadata: {namespace: default, name: r}, spec: {parentRefs: [{name: orders}], rules: [{backendRefs: [{namespace: shop, name: web, port: 80}]}]}}
---
{kind: PeerAuthentication, metadata: {namespace: shop, name: all}, spec: {mode: Disabled}}
---
{kind: PeerAuthentication, metadata: {namespace: default, name: orders}, spec: {targetRefs: [{name: orders}], mode: Permissive}}
---
{kind: TrafficPolicy, metadata: {namespace: mesh-system, name: mesh}, spec: {loadBalancer: {type: RoundRobin}}}
---
{kind: TrafficPolicy, metadata: {namespace: default, name: orders}, spec: {targetRefs: [{name: orders}], loadBalancer: {zones: {}}}}
---
{kind: AuthorizationPolicy, metadata: {namespace: shop, name: web}, spec: {targetRefs: [{name: web}], rules: [{}]}}
";
    let all = inputs(&[SHOP, more]);
    let keys: Vec<_> = all.objects.keys().cloned().collect();
    let (mut now, mut dice) = (Inputs { objects: OrdMap::new(), ..all.clone() }, Dice::seeded(5));
    let mut before = compile(None, &now).expect("it compiles");
    for _ in 0..300 {
        for _ in 0..1 + dice.below(3) {
            let key = &keys[dice.below(keys.len() as u64) as usize];
            let mut object = Object::clone(&all.objects[key]);
            match dice.below(3) {
                0 => drop(now.objects.remove(key)),
                1 => drop(now.objects.insert(key.clone(), Arc::new(object))),
                _ => {
                    match object.kind {
                        Kind::Endpoint => object.status = Some(json!({"health": "Draining"})),
                        Kind::Service => {
                            let last = if object.metadata.name.as_str() == "web" { 7 } else { 8 };
                            object.status = Some(json!({"virtualIPs": [format!("240.0.0.{last}")]}));
                        }
                        _ => object.metadata.created_at.0 += 1,
                    }
                    now.objects.insert(key.clone(), Arc::new(object));
                }
            }
        }
        let after = compile(Some(&before), &now).expect("it compiles");
        assert_eq!(shown(&after), shown(&compile(None, &now).expect("it compiles")));
        before = after;
    }
}

#[test]
fn a_route_follows_a_service_that_comes_and_goes() {
    let route = "
kind: HTTPRoute
metadata: {namespace: default, name: r}
spec: {parentRefs: [{name: orders}], rules: [{backendRefs: [{namespace: shop, name: later, port: 80}]}]}";
    let later = "{kind: Service, metadata: {namespace: shop, name: later}, spec: {ports: [{port: 80}]}}";
    let without = compile(None, &inputs(&[SHOP, route])).expect("it compiles");
    let with = compile(Some(&without), &inputs(&[SHOP, route, later])).expect("it compiles");
    let again = compile(Some(&with), &inputs(&[SHOP, route])).expect("it compiles");
    let gone = "default/r/0: back end shop/later:80 is not there: no such service";
    let outcomes = [&without, &with, &again].map(|snapshot| go(snapshot, "/", &mut Dice::seeded(1)));
    assert_eq!(outcomes, [gone, "default/r/0: shop/later:80 []", gone]);
}

#[test]
fn what_cannot_be_compiled_is_named() {
    let mut inputs = inputs(&[SHOP]);
    let orders = key(Kind::Service, "default", "orders");
    change(&mut inputs, &orders, |object| {
        object.spec.insert("ports".to_owned(), json!([{"port": 0}]));
    });
    let nack = compile(None, &inputs).expect_err("it does not compile");
    assert_eq!((nack.key.clone(), nack.reason.contains("spec.ports[0].port")), (orders, true), "{nack}");
    assert!(nack.to_string().starts_with("Service default/orders: "), "{nack}");
}

#[test]
fn another_trust_domain_takes_nothing_over() {
    let mut inputs = inputs(&[SHOP]);
    let before = compile(None, &inputs).expect("it compiles");
    inputs.domain = "other".parse().expect("a domain");
    let now = compile(Some(&before), &inputs).expect("it compiles");
    let web = now.destination(&service("shop/web")).expect("it is there");
    let backend = web.port(80).expect("a port").backend();
    assert_eq!(backend.endpoints()[0].id.to_string(), "spiffe://other/ns/shop/svc/web");
}

#[test]
fn own_services_are_found_by_server_name() {
    let mut inputs = inputs(&[]);
    let app = |name: &str, port, target: &str| LocalApp {
        service: service(name),
        port,
        protocol: Protocol::Http,
        target: target.parse().expect("an address"),
    };
    inputs.local = vec![
        app("default/orders", 80, "127.0.0.1:8080"),
        app("default/orders", 80, "127.0.0.1:8081"),
        app("default/orders", 81, "127.0.0.1:8082"),
        app("shop/web", 80, "127.0.0.1:9000"),
    ];
    let snapshot = compile(None, &inputs).expect("it compiles");
    let orders = snapshot.inbound().by_server_name("orders.default.mesh").expect("it is here");
    assert_eq!(
        (&orders.name, orders.app(80).expect("a port").targets.len()),
        (&service("default/orders"), 2)
    );
    assert_eq!(orders.app(81).expect("a port").targets[0].port(), 8082);
    assert!(orders.app(82).is_none() && snapshot.inbound().by_server_name("other.default.mesh").is_none());
    let web = snapshot.inbound().service(&service("shop/web")).expect("it is here");
    assert_eq!(
        (web.id.to_string().as_str(), snapshot.inbound().services().count()),
        ("spiffe://mesh.internal/ns/shop/svc/web", 2)
    );
    let call = policy::Call { port: 80, request: None };
    let ask = |peer| policy::authorize(&web.policies, peer, call, &mut Vec::new());
    assert!(ask(Peer::Unknown).is_err());
    let permit = ask(Peer::Verified(&orders.id)).expect("a mesh service");
    assert_eq!((permit.caller(), permit.rule().as_str()), (Some(&orders.name), "mesh-peers"));
}

#[test]
fn callers_are_told_apart_by_the_labels_of_their_own_files() {
    let mut inputs = inputs(&[
        "{kind: Service, metadata: {namespace: default, name: orders}, spec: {ports: [{port: 80, protocol: http}]}}",
        "{kind: HTTPRoute, metadata: {namespace: default, name: orders}, spec: {parentRefs: [{name: orders}], rules: [{name: new, matches: [{sourceLabels: {version: v2, tier: front}}], backendRefs: [{name: orders, port: 80}]}, {name: all, backendRefs: [{name: orders, port: 80}]}]}}",
    ]);
    let labels = |text: &str| serde_json::from_str(text).expect("labels");
    inputs.callers = BTreeMap::from([
        (service("default/web"), labels(r#"{"version": "v2", "tier": "front", "team": "shop"}"#)),
        (service("default/jobs"), labels(r#"{"version": "v2"}"#)),
    ]);
    let snapshot = compile(None, &inputs).expect("it compiles");
    let orders = snapshot.destination(&service("default/orders")).expect("it is here");
    let path = path::normalize("/", Strictness::Plain).expect("a path");
    let head = RequestHead { method: "GET", path: &path, authority: "orders", fields: &[("a", "b")] };
    for (caller, want) in [("default/web", "new"), ("default/jobs", "all"), ("default/other", "all")] {
        let caller = service(caller);
        let port = orders.port(80).expect("a port");
        let routed = port.route(&head, snapshot.caller(&caller), &mut Dice::seeded(1));
        assert_eq!(routed.rule.as_str(), format!("default/orders/{want}"), "{caller}");
    }
}

#[test]
fn endpoints_without_a_proxy_are_called_in_plaintext_and_only_while_there_is_none_with_one() {
    let service_and = |more: &str| {
        let own = "{kind: Service, metadata: {namespace: default, name: old}, spec: {ports: [{port: 80}]}}";
        let endpoint = |name: &str, more: &str| {
            format!(
                "{{kind: Endpoint, metadata: {{namespace: default, name: {name}}}, spec: {{service: old, address: 10.0.0.9, ports: [{{port: 80, targetPort: 8080}}], {more}}}}}"
            )
        };
        let without = endpoint("old-1", "source: discovery/file");
        let snapshot = match more {
            "with" => snapshot(&[own, &without, &endpoint("old-2", "node: host-a")]),
            mode => snapshot(&[own, &without, mode]),
        };
        let old = snapshot.destination(&service("default/old")).expect("it is there").clone();
        let backend = old.port(80).expect("a port").backend().clone();
        let at = |endpoint: &Arc<crate::endpoint::Endpoint>| match endpoint.has_proxy() {
            true => endpoint.key.address().to_string(),
            false => endpoint.app(80).expect("it listens").to_string(),
        };
        (backend.plain, backend.endpoints().iter().map(at).collect::<Vec<_>>())
    };
    let mode = |mode: &str| {
        format!(
            "{{kind: PeerAuthentication, metadata: {{namespace: default, name: m}}, spec: {{mode: {mode}}}}}"
        )
    };
    let app = vec!["10.0.0.9:8080".to_owned()];
    assert_eq!(service_and("{kind: Namespace, metadata: {name: other}}"), (true, app.clone()));
    assert_eq!(service_and(&mode("Permissive")), (true, app));
    assert_eq!(service_and(&mode("Strict")), (true, vec![]), "somebody says that calls are mTLS");
    assert_eq!(service_and("with"), (false, vec!["10.0.0.9:15008".to_owned()]));
}

#[test]
fn what_a_source_says_of_tls_holds_where_there_is_no_proxy_and_callers_bring_none_of_their_own() {
    let app = |protocol: &str, more: &str| {
        let own = format!(
            "{{kind: Service, metadata: {{namespace: default, name: old}}, spec: {{ports: [{{port: 80, protocol: {protocol}}}]}}}}"
        );
        let endpoint = format!(
            "{{kind: Endpoint, metadata: {{namespace: default, name: old-1}}, spec: {{service: old, address: 10.0.0.9, ports: [{{port: 80, targetPort: 8080}}], tls: {{hostname: old.example, caFile: /ca.pem}}, {more}}}}}"
        );
        let open =
            "{kind: PeerAuthentication, metadata: {namespace: default, name: m}, spec: {mode: Disabled}}";
        let snapshot = snapshot(&[&own, &endpoint, open]);
        let old = snapshot.destination(&service("default/old")).expect("it is there").clone();
        let backend = old.port(80).expect("a port").backend().clone();
        let app = backend.app(&backend.endpoints()[0]).expect("it listens");
        assert_eq!(backend.tls(&backend.endpoints()[0]), app.tls);
        (app.to_string(), app.tls.as_ref().and_then(|tls| tls.ca_file.clone()))
    };
    let ca = || Some("/ca.pem".to_owned());
    for protocol in ["http", "grpc", "tcp", "auto"] {
        let want = ("10.0.0.9:8080 as old.example".to_owned(), ca());
        assert_eq!(app(protocol, "source: discovery/file"), want, "{protocol}");
    }
    assert_eq!(app("tls", "source: discovery/file"), ("10.0.0.9:8080".to_owned(), None));
    assert_eq!(app("http", "node: host-a"), ("10.0.0.9:8080".to_owned(), None), "it has a proxy");
}

#[test]
fn a_port_s_mode_reaches_the_own_services_that_it_is_for() {
    let mut inputs = inputs(&[
        "{kind: PeerAuthentication, metadata: {namespace: default, name: orders}, spec: {targetRefs: [{name: orders}], mode: Permissive}}",
    ]);
    for (name, target) in [("default/orders", "127.0.0.1:8080"), ("default/web", "127.0.0.2:8080")] {
        let (service, target) = (service(name), target.parse().expect("an address"));
        inputs.local.push(LocalApp { service, port: 80, protocol: Protocol::Http, target });
    }
    let snapshot = compile(None, &inputs).expect("it compiles");
    let asked = |at: &str| {
        let (own, app, target) = snapshot.inbound().by_address(at.parse().expect("an address"))?;
        let call = policy::Call { port: app.port, request: None };
        let let_in = policy::authorize(&own.policies, Peer::Unknown, call, &mut Vec::new()).is_ok();
        Some(format!("{} at {target}: {let_in}", own.name))
    };
    assert_eq!(asked("127.0.0.1:8080").as_deref(), Some("default/orders at 127.0.0.1:8080: true"));
    assert_eq!(asked("127.0.0.2:8080").as_deref(), Some("default/web at 127.0.0.2:8080: false"));
    assert_eq!(asked("10.0.0.5:8080").as_deref(), Some("default/orders at 127.0.0.1:8080: true"));
    assert_eq!(asked("10.0.0.5:80"), None);
}

#[test]
fn own_services_are_guarded_by_the_policies_that_select_them() {
    let policy = |namespace: &str, name: &str, spec: &str| {
        format!(
            "{{kind: AuthorizationPolicy, metadata: {{namespace: {namespace}, name: {name}}}, spec: {spec}}}"
        )
    };
    let mut inputs = inputs(&[
        &policy(
            "default",
            "orders",
            "{targetRefs: [{name: orders}], rules: [{from: [{namespaces: [shop]}]}]}",
        ),
        &policy("mesh-system", "no-bots", "{action: Deny, rules: [{from: [{services: [default/bot]}]}]}"),
        &policy("shop", "other", "{action: Deny, rules: [{}]}"),
    ]);
    for name in ["default/orders", "default/web"] {
        let (service, target) = (service(name), "127.0.0.1:1".parse().expect("an address"));
        inputs.local.push(LocalApp { service, port: 80, protocol: Protocol::Http, target });
    }
    let rule = |snapshot: &Snapshot, own: &str, caller: &str| {
        let own = snapshot.inbound().service(&service(own)).expect("it is here");
        let id = SpiffeId::service(&snapshot.domain, &service(caller));
        let call = policy::Call { port: 80, request: None };
        match policy::authorize(&own.policies, Peer::Verified(&id), call, &mut Vec::new()) {
            Ok(permit) => permit.rule().to_string(),
            Err(denied) => format!("!{}", denied.rule()),
        }
    };
    let first = compile(None, &inputs).expect("it compiles");
    assert_eq!(rule(&first, "default/orders", "shop/web"), "default/orders/0");
    assert_eq!(rule(&first, "default/orders", "default/web"), "!only-allowed");
    assert_eq!(rule(&first, "default/web", "default/jobs"), "mesh-peers");
    assert_eq!(rule(&first, "default/web", "default/bot"), "!mesh-system/no-bots/0");
    change(&mut inputs, &key(Kind::AuthorizationPolicy, "default", "orders"), |object| {
        object.spec.insert("action".to_owned(), json!("Deny"));
    });
    let second = compile(Some(&first), &inputs).expect("it compiles");
    assert_eq!(rule(&second, "default/orders", "shop/web"), "!default/orders/0");
    assert_eq!(rule(&second, "default/orders", "default/web"), "mesh-peers");
    let policies = |snapshot: &Snapshot, own: &str| {
        Arc::clone(&snapshot.inbound().service(&service(own)).expect("it is here").policies)
    };
    let same = |own| Arc::ptr_eq(&policies(&first, own), &policies(&second, own));
    assert_eq!(
        (same("default/orders"), same("default/web")),
        (false, true),
        "what did not change is taken over"
    );
}

#[test]
fn nothing_is_known_before_the_first_revision() {
    let empty = Snapshot::empty("mesh.internal".parse().expect("a domain"));
    assert_eq!((empty.revision, empty.destinations().count(), empty.inbound().services().count()), (0, 0, 0));
    assert!(empty.by_hostname("orders.default.mesh").is_none());
}

#[test]
fn of_several_routes_for_streams_the_oldest_counts() {
    let route = |name: &str, subset: &str| {
        format!(
            "kind: TCPRoute\nmetadata: {{namespace: default, name: {name}}}\nspec: {{parentRefs: [{{name: orders}}], rules: [{{backendRefs: [{{name: orders, port: 5432, subset: {subset}}}]}}]}}"
        )
    };
    let mut inputs = inputs(&[SHOP, &route("a", "v1"), &route("b", "v2")]);
    change(&mut inputs, &key(Kind::TCPRoute, "default", "a"), |route| route.metadata.created_at.0 = 9);
    let snapshot = compile(None, &inputs).expect("it compiles");
    let destination = snapshot.destination(&service("default/orders")).expect("it is there");
    let routed = destination.port(5432).expect("a port").stream(&mut Dice::seeded(1));
    assert_eq!(
        (routed.rule.as_str(), names(routed.backend.expect("a back end"))),
        ("default/b/0", "orders-b".to_owned())
    );
    // Requests do not see them.
    assert_eq!(go(&snapshot, "/", &mut Dice::seeded(1)), "default: default/orders:8080 [orders-a orders-b]");
}

#[test]
fn a_call_is_treated_by_its_rule_then_by_the_policy_of_its_back_end_then_as_usual() {
    let policy = |namespace: &str, name: &str, spec: &str| {
        format!("kind: TrafficPolicy\nmetadata: {{namespace: {namespace}, name: {name}}}\nspec: {spec}")
    };
    let orders =
        "{targetRefs: [{name: orders}], timeouts: {request: 15s}, retry: {attempts: 4, perTryTimeout: 2s}}";
    let rules = "[
      {matches: [{path: {value: /own}}], timeouts: {request: 1s}, retry: {attempts: 2}, backendRefs: [{name: orders, port: 8080}]},
      {matches: [{path: {value: /endless}}], timeouts: {request: 0s}, backendRefs: [{name: orders, port: 8080}]},
      {matches: [{path: {value: /web}}], backendRefs: [{namespace: shop, name: web, port: 80}]},
      {backendRefs: [{name: orders, port: 8080, subset: v1}]}]";
    let route = format!(
        "kind: HTTPRoute\nmetadata: {{namespace: default, name: r}}\nspec: {{parentRefs: [{{name: orders}}], rules: {rules}}}"
    );
    let mesh = policy("mesh-system", "mesh", "{timeouts: {request: 60s}, limits: {maxRequests: 7}}");
    let mut inputs = inputs(&[SHOP, &route, &policy("default", "orders", orders), &mesh]);
    let treated = |snapshot: &Snapshot, target: &str| {
        let path = path::normalize(target, Strictness::Plain).expect("a path");
        let head = RequestHead { method: "GET", path: &path, authority: "orders.default.mesh", fields: &[] };
        let port = snapshot.destination(&service("default/orders")).expect("it is there").port(8080);
        let routed =
            port.expect("a port").route(&head, Caller::of(&service("default/web")), &mut Dice::seeded(1));
        let seconds = |span: Option<std::time::Duration>| span.map_or(0, |span| span.as_secs());
        let limit = routed.backend.expect("a back end").conduct.limits.requests;
        let timeouts = (seconds(routed.timeouts.request), seconds(routed.timeouts.backend_request));
        (timeouts, routed.retry.attempts, limit)
    };
    let before = compile(None, &inputs).expect("it compiles");
    assert_eq!(treated(&before, "/"), ((15, 2), 4, 16_384), "the policy that names the service, alone");
    assert_eq!(treated(&before, "/own"), ((1, 2), 2, 16_384), "each field of the rule for itself");
    assert_eq!(treated(&before, "/endless"), ((0, 2), 4, 16_384), "zero is no limit");
    assert_eq!(treated(&before, "/web"), ((60, 0), 1, 7), "the back end's policy, not the route's parent's");
    inputs.objects.remove(&key(Kind::TrafficPolicy, "default", "orders"));
    let after = compile(Some(&before), &inputs).expect("it compiles");
    assert_eq!(treated(&after, "/"), ((60, 0), 1, 7), "what is left is for the mesh");
    inputs.objects.remove(&key(Kind::TrafficPolicy, "mesh-system", "mesh"));
    let bare = compile(Some(&after), &inputs).expect("it compiles");
    assert_eq!(treated(&bare, "/"), ((0, 0), 1, 16_384), "as usual");
    let same = |name: &str, one: &Snapshot, other: &Snapshot| {
        let of = |snapshot: &Snapshot| Arc::clone(snapshot.destination(&service(name)).expect("it is there"));
        Arc::ptr_eq(&of(one), &of(other))
    };
    assert!(
        same("shop/web", &before, &after) && !same("shop/web", &after, &bare),
        "as little as changed is made anew"
    );
}

#[test]
fn calls_stay_in_the_zone_of_this_host_s_node() {
    struct Unknown;
    impl Experience for Unknown {
        fn of(&mut self, _: &EndpointKey) -> Known {
            Known::default()
        }
        fn ejected(&self, _: &ServiceName) -> usize {
            0
        }
    }
    let policy =
        "kind: TrafficPolicy\nmetadata: {namespace: default, name: p}\nspec: {loadBalancer: {zones: {}}}";
    let mut inputs = inputs(&[SHOP, policy]);
    let picked = |snapshot: &Snapshot| {
        let orders = snapshot.destination(&service("default/orders")).expect("it is there");
        let pool = &orders.port(8080).expect("a port").backend().pool;
        let mut dice = Dice::seeded(1);
        let mut names: Vec<String> = Vec::new();
        for _ in 0..200 {
            let picked = pick(pool, &Ask::default(), &mut Unknown, &[], &mut dice).expect("one");
            names.push(picked.key.name().to_string());
        }
        names.sort();
        names.dedup();
        names.join(" ")
    };
    let anywhere = compile(None, &inputs).expect("it compiles");
    assert_eq!(picked(&anywhere), "orders-a orders-b", "this host stands nowhere");
    let node = Key::mesh_wide(Kind::Node, "host-a".parse().expect("a name"));
    change(&mut inputs, &node, |node| drop(node.spec.insert("zone".to_owned(), json!("z1"))));
    let near = compile(Some(&anywhere), &inputs).expect("it compiles");
    assert_eq!(picked(&near), "orders-a");
    assert_eq!(near.place.as_ref().map(|place| place.node.as_str()), Some("host-a"));
}
