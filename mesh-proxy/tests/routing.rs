//! Routes through two proxies: the whole routing suite of `traffic` at once, and what only shows on the wire.

#[path = "../../traffic/tests/routing/suite.rs"]
mod suite;

use std::net::SocketAddr;

use crate::world::{
    client::{Answer, Http1, call, full, get, h2, h2_call, post},
    *,
};
use model::{manifest, object::Object};
use suite::{Case, Exchange, Head, Outcome};

const CASES: [&str; 3] = [
    include_str!("../../traffic/tests/routing/http_matches.txt"),
    include_str!("../../traffic/tests/routing/http_filters.txt"),
    include_str!("../../traffic/tests/routing/grpc.txt"),
];

/// The objects of a manifest; the first is the oldest.
fn objects(text: &str) -> Vec<Object> {
    let parsed = manifest::parse(text).expect("a manifest").into_iter().enumerate();
    let objects = parsed.map(|(age, parsed)| {
        let mut object = parsed.object;
        object.metadata.created_at.0 = age as u64;
        object
    });
    objects.collect()
}

fn service_object(name: &str, protocol: &str) -> Object {
    object(serde_json::json!({
        "kind": "Service", "metadata": {"namespace": "default", "name": name},
        "spec": {"ports": [{"port": 80, "protocol": protocol}]},
    }))
}

/// One exchange over HTTP/1.1, by the Host router.
async fn exchanged(router: SocketAddr, case: &Case, exchange: &Exchange) -> Outcome {
    let Head { method, target, fields } = &exchange.request;
    let mut text = format!("{method} {target} HTTP/1.1\r\nhost: {}.default.mesh\r\nx-echo: 1\r\n", case.name);
    for (name, value) in fields {
        text += &format!("{name}: {value}\r\n");
    }
    let mut connection = Http1::connect(router).await;
    connection.send(format!("{text}\r\n").as_bytes()).await;
    let answer = if method == "HEAD" {
        let (status, headers) = connection.head().await;
        Answer { status, headers, body: String::new() }
    } else {
        connection.answer().await
    };
    let text = |value: &http::HeaderValue| value.to_str().expect("text").to_owned();
    let fields = answer.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    Outcome { seen: echoed(&answer.body), status: answer.status, fields }
}

/// What a back end that echoes says that it saw.
fn echoed(body: &str) -> Option<(String, Head)> {
    let mut lines = body.lines();
    let mut words = lines.next()?.split(' ').map(str::to_owned);
    let name = words.next().filter(|name| name.starts_with('v'))?;
    let fields = lines.filter_map(|line| line.split_once(": "));
    let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Some((name, Head { method: words.next()?, target: words.next()?, fields }))
}

#[tokio::test]
async fn the_routing_suite_holds_through_proxies() {
    let apps = [app::http("v1").await, app::http("v2").await, app::http("v3").await];
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let locals = ["v1", "v2", "v3"].into_iter().zip(&apps);
    let locals = locals.map(|(name, app)| local(name, 80, "http", app.address)).collect();
    let callee = world.proxy("host-b", &[], locals);
    let cases: Vec<Case> = CASES.into_iter().flat_map(suite::parse).collect();
    for case in &cases {
        world.routes.push(service_object(&case.name, &case.protocol));
        world.routes.extend(objects(&case.manifests));
    }
    world.publish(&[&caller, &callee]);
    let router = caller.host_router();
    for case in &cases {
        for exchange in &case.exchanges {
            exchange.check(case, &exchanged(router, case, exchange).await);
        }
    }
}

/// A service `orders` whose requests are copied to `shadow`, both of them real.
async fn mirrored(shadow: SocketAddr, orders: SocketAddr) -> (World, Proxy, Proxy, SocketAddr) {
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let locals = vec![local("orders", 80, "http", orders), local("shadow", 80, "http", shadow)];
    let callee = world.proxy("host-b", &[], locals);
    world.routes = objects(
        "
kind: HTTPRoute
metadata: {namespace: default, name: orders}
spec:
  parentRefs: [{name: orders}]
  rules:
  - filters: [{type: RequestMirror, requestMirror: {backendRef: {name: shadow, port: 80}}}]
    backendRefs: [{name: orders, port: 80}]",
    );
    world.publish(&[&caller, &callee]);
    let upstream = caller.upstream("web", "orders", None);
    (world, caller, callee, upstream)
}

/// Waits until so many copies ended so.
async fn counted(proxy: &Proxy, outcome: &str, count: u64) {
    let line = format!("mesh_mirrored_requests_total{{outcome=\"{outcome}\"}} {count}");
    until(&line, || proxy.metrics().lines().any(|own| own == line).then_some(())).await;
}

#[tokio::test]
async fn a_mirror_gets_the_request_and_its_body_and_nobody_waits_for_it() {
    let (orders, shadow) = (app::http("orders").await, app::http("shadow").await);
    let (_world, caller, callee, upstream) = mirrored(shadow.address, orders.address).await;
    // The mirror holds its answer to this one back; the caller has its own long before.
    orders.release.notify_one();
    assert_eq!(get(upstream, "/held").await.body, "orders");
    until("the mirror sees it", || (shadow.seen() == 1).then_some(())).await;
    assert_eq!(post(upstream, "/echo", "hello").await.body, "hello");
    counted(&caller, "sent", 1).await;
    let copy = |line: &serde_json::Value| line["destination"] == "default/shadow" && line["method"] == "POST";
    let line = callee.log.line(copy).await;
    assert_eq!((&line["requestBytes"], &line["path"]), (&5.into(), &"/echo".into()), "{line}");
    shadow.release.notify_one();
    counted(&caller, "sent", 2).await;
    // Beyond what is held nothing is copied.
    let large = "x".repeat(100_000);
    assert_eq!(post(upstream, "/echo", &large).await.body, large);
    counted(&caller, "large", 1).await;
    assert_eq!((orders.seen(), shadow.seen()), (3, 2));
}

#[tokio::test]
async fn a_back_end_s_filters_are_for_all_tries_there_and_for_its_own_mirror() {
    let (sick, well, shadow) = (app::sick("v1").await, app::http("v2").await, app::http("shadow").await);
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let first = world.proxy("host-b", &[], vec![local("orders", 80, "http", sick.address)]);
    let second = world.proxy("host-c", &[], vec![local("orders", 80, "http", well.address)]);
    let aside = ["of-rule", "of-back-end"].map(|name| local(name, 80, "http", shadow.address));
    let aside = world.proxy("host-d", &[], aside.into());
    world.routes = objects(
        "
kind: HTTPRoute
metadata: {namespace: default, name: orders}
spec:
  parentRefs: [{name: orders}]
  rules:
  - retry: {attempts: 3, codes: [500], backoff: 1ms}
    filters: [{type: RequestMirror, requestMirror: {backendRef: {name: of-rule, port: 80}}}]
    backendRefs:
    - name: orders
      port: 80
      filters:
      - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /own}}}
      - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-own, value: '1'}]}}
      - {type: RequestMirror, requestMirror: {backendRef: {name: of-back-end, port: 80}}}",
    );
    world.publish(&[&caller, &first, &second, &aside]);
    let upstream = caller.upstream("web", "orders", None);
    // Whichever is tried first, in a few calls the sick one is.
    for n in 1..=8 {
        let answer = call(upstream, "GET /a HTTP/1.1\nHost: a\nX-Echo: 1\n\n").await;
        let (name, seen) = echoed(&answer.body).expect("an echo");
        assert_eq!((answer.status, name.as_str(), seen.target.as_str()), (200, "v2", "/own/a"), "call {n}");
        assert!(seen.fields.contains(&("x-own".to_owned(), "1".to_owned())), "{seen:?}");
        if sick.seen() > 0 {
            break;
        }
    }
    let tried = first.log.line(|line| line["direction"] == "inbound").await;
    assert_eq!((&tried["path"], &tried["code"]), (&"/own/a".into(), &500.into()), "{tried}");
    for (service, path) in [("default/of-rule", "/a"), ("default/of-back-end", "/own/a")] {
        let copy = aside.log.line(|line| line["destination"] == service).await;
        assert_eq!(copy["path"], path, "{copy}");
    }
}

#[tokio::test]
async fn a_mirror_that_fails_or_is_not_there_shows_nowhere_and_is_not_tried_again() {
    let orders = app::http("orders").await;
    let (_world, caller, callee, upstream) = mirrored(nobody(), orders.address).await;
    for _ in 0..3 {
        assert_eq!(get(upstream, "/").await.status, 200);
    }
    counted(&caller, "failed", 3).await;
    let text = callee.metrics();
    let line =
        "destination=\"default/shadow\",route=\"default\",code=\"503\",protocol=\"http\",mtls=\"true\"} 3";
    assert!(text.lines().any(|own| own.starts_with("mesh_requests_total") && own.ends_with(line)), "{text}");
    let log = caller.log.line(|line| line["direction"] == "outbound").await;
    assert_eq!((&log["code"], &log["retries"]), (&200.into(), &0.into()));
}

#[tokio::test]
async fn streams_are_split_by_weight_for_each_connection() {
    let (old, new, other) = (app::tcp("old").await, app::tcp("new").await, app::tcp("any").await);
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let locals = vec![
        local("db", 5432, "tcp", other.address),
        local("db-old", 5432, "tcp", old.address),
        local("db-new", 5432, "tcp", new.address),
    ];
    let callee = world.proxy("host-b", &[], locals);
    world.publish(&[&caller, &callee]);
    let upstream = caller.upstream("web", "db", None);
    assert_eq!(Http1::connect(upstream).await.exactly(3).await, b"any", "no route: the service itself");
    world.routes = objects(
        "
kind: TCPRoute
metadata: {namespace: default, name: db}
spec:
  parentRefs: [{name: db, port: 5432}]
  rules:
  - name: split
    backendRefs: [{name: db-old, port: 5432, weight: 1}, {name: db-new, port: 5432, weight: 1}]",
    );
    world.publish(&[&caller, &callee]);
    let mut seen = std::collections::BTreeSet::new();
    // 64 throws of a coin are all alike once in 2^63.
    for _ in 0..64 {
        seen.insert(Http1::connect(upstream).await.exactly(3).await);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [b"new", b"old"]);
    assert_eq!((other.seen(), old.seen() + new.seen()), (1, 64));
    let line = caller.log.line(|line| line["route"] == "default/db/split").await;
    assert!(
        ["default/db-old", "default/db-new"].contains(&line["destination"].as_str().expect("text")),
        "{line}"
    );
    world.routes = objects(
        "
kind: TCPRoute
metadata: {namespace: default, name: db}
spec:
  parentRefs: [{name: db}]
  rules: [{backendRefs: [{name: gone, port: 5432}]}]",
    );
    world.publish(&[&caller, &callee]);
    assert_eq!(Http1::connect(upstream).await.rest().await, b"", "nobody is there: the stream ends");
}

#[tokio::test]
async fn faults_on_purpose_hit_whom_they_are_for_and_end() {
    let orders = app::http("orders").await;
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let callee = world.proxy("host-b", &[], vec![local("orders", 80, "http", orders.address)]);
    let fault = |until: &str| {
        objects(&format!(
            "
kind: HTTPRoute
metadata: {{namespace: default, name: orders}}
spec:
  parentRefs: [{{name: orders}}]
  rules:
  - name: faulty
    matches: [{{headers: [{{name: x-test, value: fault}}]}}]
    filters: [{{type: FaultInjection, faultInjection: {{delay: {{duration: 50ms}}, abort: {{status: 503}}, until: '{until}'}}}}]
    backendRefs: [{{name: orders, port: 80}}]
  - backendRefs: [{{name: orders, port: 80}}]"
        ))
    };
    world.routes = fault("2199-01-01T00:00:00Z");
    world.publish(&[&caller, &callee]);
    let upstream = caller.upstream("web", "orders", None);
    let test = "GET / HTTP/1.1\nHost: a\nX-Test: fault\n\n";
    let answer = call(upstream, test).await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "mesh: a fault on purpose, by the route\n"));
    let line = caller.log.line(|line| line["route"] == "default/orders/faulty").await;
    assert!(line["durationMs"].as_f64().expect("a number") >= 50.0, "{line}");
    assert_eq!(get(upstream, "/").await.body, "orders", "whoever does not ask for it is spared");
    world.routes = fault("2001-01-01T00:00:00Z");
    world.publish(&[&caller, &callee]);
    assert_eq!(call(upstream, test).await.body, "orders", "its time is over");
}

#[tokio::test]
async fn a_grpc_caller_s_deadline_is_kept_and_told_and_the_route_s_is_shorter() {
    let ledger = app::h2("ledger").await;
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let callee = world.proxy("host-b", &[], vec![local("ledger", 80, "grpc", ledger.address)]);
    world.publish(&[&caller, &callee]);
    let upstream = caller.upstream("web", "ledger", None);
    let ask = async |path: &str, timeout: &str| {
        let request = http::Request::post(format!("http://ledger{path}"))
            .header("content-type", "application/grpc")
            .header("grpc-timeout", timeout)
            .body(full(""))
            .expect("a request");
        let (head, body, _) = h2_call(&mut h2(upstream).await, request).await;
        let body = String::from_utf8_lossy(&body).into_owned();
        let told = body.lines().find_map(|line| line.strip_prefix("grpc-timeout: ").map(str::to_owned));
        let status =
            head.headers().get("grpc-status").map(|status| status.to_str().expect("digits").to_owned());
        (head.status().as_u16(), status, told)
    };
    assert_eq!(ask("/head", "10S").await, (200, None, Some("10000000u".to_owned())));
    // The application holds this one for good: nobody waits for it longer than the caller does, who reads DEADLINE_EXCEEDED.
    assert_eq!(ask("/held", "50m").await, (200, Some("4".to_owned()), None));
    let line = caller.log.line(|line| line["path"] == "/held").await;
    assert_eq!((&line["code"], &line["grpcStatus"]), (&200.into(), &4.into()), "{line}");
    world.routes = objects(
        "
kind: GRPCRoute
metadata: {namespace: default, name: ledger}
spec:
  parentRefs: [{name: ledger}]
  rules: [{backendRefs: [{name: ledger, port: 80}], timeouts: {request: 5s}}]",
    );
    world.publish(&[&caller, &callee]);
    assert_eq!(ask("/head", "10S").await, (200, None, Some("5000000u".to_owned())));
    assert_eq!(ask("/head", "1S").await, (200, None, Some("1000000u".to_owned())));
}
