//! TrafficPolicies through two proxies: what callers of a service see of its limits, times and retries.

use std::{net::SocketAddr, time::Duration};

use crate::world::{
    client::{Http1, call, full, get, h2, h2_call, post},
    *,
};
use http::Request;
use serde_json::{Value, json};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    time::timeout,
};

fn policy(spec: Value) -> model::object::Object {
    let mut spec = spec;
    spec["targetRefs"] = json!([{"kind": "Service", "name": "orders"}]);
    let metadata = json!({"namespace": "default", "name": "orders"});
    object(json!({"kind": "TrafficPolicy", "metadata": metadata, "spec": spec}))
}

/// A caller's proxy, one with the application, and the listener for it; with a policy.
async fn pair(protocol: &'static str, app: &app::App, spec: Value) -> (World, [Proxy; 2], SocketAddr) {
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let callee = world.proxy("host-b", &[], vec![local("orders", 80, protocol, app.address)]);
    world.routes = vec![policy(spec)];
    world.publish(&[&caller, &callee]);
    let upstream = caller.upstream("web", "orders", None);
    (world, [caller, callee], upstream)
}

/// Waits until a line stands in a proxy's metrics.
async fn counted(proxy: &Proxy, line: &str) {
    until(line, || proxy.metrics().lines().any(|own| own == line).then_some(())).await;
}

const HELD: &[u8] = b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn more_requests_than_the_limit_are_refused_at_once_and_counted() {
    let app = app::http("orders").await;
    let limits = json!({"limits": {"maxRequests": 1}});
    let (mut world, proxies, upstream) = pair("http", &app, limits).await;
    let mut first = Http1::connect(upstream).await;
    first.send(HELD).await;
    until("the first is there", || (app.seen() == 1).then_some(())).await;
    let second = get(upstream, "/").await;
    let why = "mesh: 1 requests are under way to the destination, which is the limit\n";
    assert_eq!((second.status, second.body.as_str()), (503, why));
    counted(&proxies[0], "mesh_limited_total{destination=\"default/orders\",limit=\"requests\"} 1").await;
    // A stream is not a request, and a limit that changes holds at once.
    world.routes = vec![policy(json!({"limits": {"maxRequests": 2}}))];
    world.publish(&[&proxies[0], &proxies[1]]);
    assert_eq!(get(upstream, "/").await.status, 200);
    app.release.notify_one();
    assert_eq!(first.answer().await.status, 200);
    assert_eq!(app.seen(), 2, "what is refused reaches nobody");
}

#[tokio::test]
async fn streams_have_a_limit_of_their_own() {
    let app = app::tcp("hello ").await;
    let (_world, proxies, upstream) = pair("tcp", &app, json!({"limits": {"maxConnections": 1}})).await;
    let mut first = Http1::connect(upstream).await;
    assert_eq!(first.exactly(6).await, b"hello ");
    let mut second = Http1::connect(upstream).await;
    assert_eq!(second.rest().await, b"");
    counted(&proxies[0], "mesh_limited_total{destination=\"default/orders\",limit=\"connections\"} 1").await;
    drop(first);
    let third = async {
        loop {
            let mut third = TcpStream::connect(upstream).await.expect("dialled");
            let mut said = [0; 6];
            // It is refused for as long as the first has not been seen to end.
            if third.read_exact(&mut said).await.is_ok() {
                return said;
            }
        }
    };
    assert_eq!(&timeout(PATIENCE, third).await.expect("in time"), b"hello ");
}

#[tokio::test]
async fn who_waits_for_a_connection_is_bounded_too() {
    let app = app::http("orders").await;
    let (mut world, [caller, mut callee], upstream) =
        pair("http", &app, json!({"limits": {"maxPendingRequests": 1}, "timeouts": {"connect": "500ms"}}))
            .await;
    // It accepts, and never shakes hands.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    callee.address = silent.local_addr().expect("an address");
    world.publish(&[&caller, &callee]);
    let mut first = Http1::connect(upstream).await;
    first.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let _held = silent.accept().await.expect("the first dials");
    let second = get(upstream, "/").await;
    let why = "mesh: 1 requests without a connection are under way to the destination, which is the limit\n";
    assert_eq!((second.status, second.body.as_str()), (503, why));
    counted(&caller, "mesh_limited_total{destination=\"default/orders\",limit=\"pending\"} 1").await;
    let first = first.answer().await;
    assert_eq!(first.status, 503);
    assert!(first.body.contains("not within 500ms"), "{}", first.body);
}

#[tokio::test]
async fn retries_are_those_of_the_policy_and_no_more_than_its_limits() {
    let app = app::http("orders").await;
    let retry = json!({"attempts": 3, "conditions": ["ServerError"], "backoff": "1ms"});
    let (mut world, proxies, upstream) = pair("http", &app, json!({"retry": retry})).await;
    assert_eq!((get(upstream, "/status/500").await.status, app.seen()), (500, 4));
    assert_eq!((post(upstream, "/status/500", "x").await.status, app.seen()), (500, 5), "POSTs are not safe");
    world.routes = vec![policy(json!({"retry": retry, "limits": {"maxRetries": 0}}))];
    world.publish(&[&proxies[0], &proxies[1]]);
    assert_eq!((get(upstream, "/status/500").await.status, app.seen()), (500, 6));
    counted(&proxies[0], "mesh_limited_total{destination=\"default/orders\",limit=\"retries\"} 1").await;
    let none =
        json!({"attempts": 3, "conditions": ["ServerError"], "budget": {"percent": 0, "minPerSecond": 0}});
    world.routes = vec![policy(json!({"retry": none}))];
    world.publish(&[&proxies[0], &proxies[1]]);
    assert_eq!((get(upstream, "/status/500").await.status, app.seen()), (500, 7), "the budget is spent");
}

#[tokio::test]
async fn retry_after_is_heeded_or_the_answer_is_passed_on() {
    let app = app::http("orders").await;
    let (_world, proxies, upstream) = pair("http", &app, json!({"retry": {"backoff": "1ms"}})).await;
    let ask = |wait: &'static str| async move {
        let text = format!("GET /status/503 HTTP/1.1\nHost: a\nx-come-again: {wait}\n\n");
        let began = mesh_proxy::clock::now();
        let answer = call(upstream, &text).await;
        (answer, mesh_proxy::clock::now().saturating_duration_since(began))
    };
    let (answer, took) = ask("1").await;
    assert_eq!((answer.status, app.seen()), (503, 2));
    assert!(took >= Duration::from_secs(1), "{took:?}");
    let (answer, _) = ask("3600").await;
    assert_eq!((answer.status, app.seen()), (503, 3), "nobody waits for an hour");
    assert_eq!(answer.headers["retry-after"], "3600");
    drop(proxies);
}

#[tokio::test]
async fn a_status_of_grpc_is_tried_again_where_the_policy_lists_it() {
    let app = app::h2("ledger").await;
    let retry = json!({"attempts": 2, "grpcCodes": ["Unavailable"], "backoff": "1ms"});
    let (_world, _proxies, upstream) = pair("grpc", &app, json!({"retry": retry})).await;
    let mut sender = h2(upstream).await;
    let mut ask = async |status: &str| {
        let request = Request::post("http://orders.default.mesh/ledger.Ledger/Get")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("x-echo", "1")
            .header("x-echo-answer", format!("grpc-status={status}"))
            .body(full(""))
            .expect("a request");
        h2_call(&mut sender, request).await.0.status().as_u16()
    };
    assert_eq!((ask("14").await, app.seen()), (200, 3));
    assert_eq!((ask("5").await, app.seen()), (200, 4));
}

#[tokio::test]
async fn times_are_the_policy_s_unless_the_route_says_else() {
    let app = app::http("orders").await;
    let timeouts = json!({"timeouts": {"request": "100ms"}, "retry": {"attempts": 0}});
    let (mut world, proxies, upstream) = pair("http", &app, timeouts).await;
    assert_eq!(get(upstream, "/held").await.status, 504);
    let rule = json!({"backendRefs": [{"name": "orders", "port": 80}], "timeouts": {"request": "0s"}});
    world.routes.push(object(json!({
        "kind": "HTTPRoute", "metadata": {"namespace": "default", "name": "r"},
        "spec": {"parentRefs": [{"name": "orders"}], "rules": [rule]},
    })));
    world.publish(&[&proxies[0], &proxies[1]]);
    let mut held = Http1::connect(upstream).await;
    held.send(HELD).await;
    let early = timeout(Duration::from_millis(300), held.0.read_u8()).await;
    assert!(early.is_err(), "no limit: {early:?}");
    app.release.notify_waiters();
    app.release.notify_one();
    assert_eq!(held.answer().await.status, 200);
}

#[tokio::test]
async fn a_stream_that_carries_nothing_is_closed_and_one_that_does_is_not() {
    let app = app::tcp("hello ").await;
    let (_world, proxies, upstream) = pair("tcp", &app, json!({"timeouts": {"idle": "400ms"}})).await;
    let (mut busy, mut quiet) = (Http1::connect(upstream).await, Http1::connect(upstream).await);
    assert_eq!(quiet.exactly(6).await, b"hello ");
    assert_eq!(busy.exactly(6).await, b"hello ");
    for _ in 0..12 {
        busy.send(b"x").await;
        assert_eq!(busy.exactly(1).await, b"x");
        // Pace: a stream that carries little.
        tokio::time::sleep(Duration::from_millis(80)).await;
    }
    assert_eq!(quiet.broken().await, b"");
    let line = proxies[0].log.line(|line| line["reason"] != "").await;
    assert_eq!(line["reason"], "nothing moved on it for 400ms");
    busy.send(b"y").await;
    assert_eq!(busy.exactly(1).await, b"y");
}

/// A caller's proxy and two with an application each, of the same service, with a policy.
async fn trio(apps: [&app::App; 2], spec: Value) -> (World, [Proxy; 3], SocketAddr) {
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let first = world.proxy("host-b", &[], vec![local("orders", 80, "http", apps[0].address)]);
    let second = world.proxy("host-c", &[], vec![local("orders", 80, "http", apps[1].address)]);
    world.routes = vec![policy(spec)];
    world.publish(&[&caller, &first, &second]);
    let upstream = caller.upstream("web", "orders", None);
    (world, [caller, first, second], upstream)
}

#[tokio::test]
async fn a_cookie_of_the_mesh_brings_a_caller_back_while_its_endpoint_is_there() {
    let (one, two) = (app::http("one").await, app::http("two").await);
    let affinity = json!({"loadBalancer": {"affinity": {"cookie": "mesh-orders", "ttl": "1h"}}});
    let (mut world, [caller, first, second], upstream) = trio([&one, &two], affinity).await;
    let answer = get(upstream, "/").await;
    let cookie = answer.headers["set-cookie"].to_str().expect("text").to_owned();
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600"), "{cookie}");
    let own = cookie.split(';').next().expect("a pair");
    let text = format!("GET / HTTP/1.1\nHost: a\ncookie: x=1; {own}\n\n");
    for n in 0..30 {
        let again = call(upstream, &text).await;
        assert_eq!((&again.body, again.headers.get("set-cookie")), (&answer.body, None), "call {n}");
    }
    // Its endpoint is unwell by its own host's checks: another takes over, and is kept from then on.
    let (name, stays) = if answer.body == "one" { ("b", "two") } else { ("c", "one") };
    let gone = if name == "b" { one.address } else { two.address };
    world.health.insert(format!("orders-host-{name}-{}", gone.port()), "Unhealthy");
    world.publish(&[&caller, &first, &second]);
    let moved = call(upstream, &text).await;
    assert_eq!(moved.body, stays);
    assert!(moved.headers["set-cookie"].to_str().expect("text").starts_with("mesh-orders="));
}

#[tokio::test]
async fn requests_that_carry_the_same_go_to_the_same() {
    let (one, two) = (app::http("one").await, app::http("two").await);
    for kind in ["RingHash", "Maglev"] {
        let hash_on = json!([{"type": "Header", "name": "x-user"}]);
        let spec = json!({"loadBalancer": {"type": kind, "hashOn": hash_on}});
        let (_world, _proxies, upstream) = trio([&one, &two], spec).await;
        let of = async |user: usize| {
            call(upstream, &format!("GET / HTTP/1.1\nHost: a\nx-user: u{user}\n\n")).await.body
        };
        let mut counts = [0, 0];
        for user in 0..20 {
            let first = of(user).await;
            counts[usize::from(first == "two")] += 1;
            assert_eq!((of(user).await, of(user).await), (first.clone(), first), "{kind}");
        }
        assert!(counts.iter().all(|&count| count >= 3), "{kind}: {counts:?}");
    }
}

#[tokio::test]
async fn endpoints_take_turns() {
    let (one, two) = (app::http("one").await, app::http("two").await);
    let spec = json!({"loadBalancer": {"type": "RoundRobin"}});
    let (_world, _proxies, upstream) = trio([&one, &two], spec).await;
    for _ in 0..20 {
        assert_eq!(get(upstream, "/").await.status, 200);
    }
    assert_eq!((one.seen(), two.seen()), (10, 10));
}

/// Which endpoint's application answered, and with what.
async fn answered(upstream: SocketAddr, path: &str) -> (String, u16) {
    let answer = get(upstream, path).await;
    (answer.body, answer.status)
}

#[tokio::test]
async fn an_endpoint_that_answers_badly_is_left_alone_and_comes_back_by_one_good_call() {
    let (good, bad) = (app::http("good").await, app::sick("bad").await);
    let outliers = json!({"consecutiveErrors": 3, "baseEjectionTime": "1s", "maxEjectionTime": "1s"});
    let spec = json!({"outlierDetection": outliers, "loadBalancer": {"type": "RoundRobin"}});
    let (_world, [caller, ..], upstream) = trio([&good, &bad], spec).await;
    let mut failures = 0;
    for _ in 0..20 {
        failures += usize::from(answered(upstream, "/").await.1 == 500);
    }
    assert_eq!(failures, 3, "then it is left alone");
    assert_eq!(bad.seen(), 3);
    let left = caller.shared.lore.all_left_alone();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!((left[0].1.reason.as_str(), left[0].1.times), ("3 failures in a row", 1));
    // It is asked again, by one call at a time, and comes back when one is well.
    until("it is asked again", || {
        (caller.shared.lore.all_left_alone()[0].1.left == Some(Duration::ZERO)).then_some(())
    })
    .await;
    let mut again = 0;
    for _ in 0..10 {
        again += usize::from(answered(upstream, "/").await.1 == 500);
    }
    assert_eq!((again, bad.seen()), (1, 4), "one call finds out");
    bad.heal();
    until("its time is over", || {
        (caller.shared.lore.all_left_alone()[0].1.left == Some(Duration::ZERO)).then_some(())
    })
    .await;
    for _ in 0..10 {
        assert_eq!(answered(upstream, "/").await.1, 200);
    }
    assert!(caller.shared.lore.all_left_alone().is_empty(), "it is back");
    assert!(bad.seen() > 7, "and gets its share: {}", bad.seen());
    let ejections = caller.shared.lore.ejections();
    let count = |cause| ejections.get(&(service("orders"), cause)).copied();
    assert_eq!((count("errors"), count("probe")), (Some(1), Some(1)));
}

#[tokio::test]
async fn no_more_endpoints_are_ejected_than_may_be() {
    let (one, two) = (app::sick("one").await, app::sick("two").await);
    let outliers = json!({"consecutiveErrors": 2, "baseEjectionTime": "1m", "maxEjectionPercent": 50});
    let (_world, [caller, ..], upstream) = trio([&one, &two], json!({"outlierDetection": outliers})).await;
    for _ in 0..40 {
        assert_eq!(answered(upstream, "/").await.1, 500);
    }
    assert_eq!(caller.shared.lore.all_left_alone().len(), 1);
}

#[tokio::test]
async fn callers_check_what_they_use_and_leave_alone_what_is_unwell() {
    let (good, bad) = (app::http("good").await, app::sick("bad").await);
    let check = json!({"http": {"path": "/checked"}, "interval": "100ms", "unhealthyThreshold": 1, "healthyThreshold": 1});
    // In turn: by latency the better one may get each of a few calls that come one after the other.
    let spec =
        json!({"healthCheck": check, "retry": {"attempts": 0}, "loadBalancer": {"type": "RoundRobin"}});
    let (_world, [caller, ..], upstream) = trio([&good, &bad], spec).await;
    assert!(caller.shared.lore.all_left_alone().is_empty(), "nobody calls it yet");
    answered(upstream, "/").await;
    let left = until("a check has failed", || caller.shared.lore.all_left_alone().pop()).await;
    assert_eq!(left.1.reason, "its check: answered 500 Internal Server Error");
    for _ in 0..20 {
        assert_eq!(answered(upstream, "/").await, ("good".to_owned(), 200));
    }
    bad.heal();
    until("it is well again", || caller.shared.lore.all_left_alone().is_empty().then_some(())).await;
    let mut seen = vec![answered(upstream, "/").await.0, answered(upstream, "/").await.0];
    seen.sort();
    assert_eq!(seen, ["bad", "good"], "it gets calls again");
}

#[tokio::test]
async fn what_comes_too_often_is_told_when_to_come_again() {
    let app = app::http("orders").await;
    let limits = json!([
        {"name": "api", "matches": [{"path": {"value": "/api"}}], "by": [{"type": "Header", "name": "x-tenant"}], "requests": 2, "per": "1h"},
    ]);
    let (_world, [_caller, callee], upstream) = pair("http", &app, json!({"rateLimits": limits})).await;
    let ask = async |tenant: &str| {
        call(upstream, &format!("GET /api/x HTTP/1.1\nHost: a\nx-tenant: {tenant}\n\n")).await
    };
    let first = ask("a").await;
    assert_eq!(first.status, 200);
    assert_eq!(first.headers["ratelimit-policy"], "\"api\";q=2;w=3600");
    assert_eq!(first.headers["ratelimit"], "\"api\";r=1;t=1800");
    assert_eq!(ask("a").await.status, 200);
    let refused = ask("a").await;
    assert_eq!((refused.status, refused.headers["retry-after"].as_bytes()), (429, &b"1800"[..]));
    assert_eq!(refused.headers["ratelimit"], "\"api\";r=0;t=1800");
    assert!(refused.body.contains("default/orders/api"), "{}", refused.body);
    assert_eq!(ask("b").await.status, 200, "each tenant has its own");
    let other = get(upstream, "/").await;
    assert_eq!((other.status, other.headers.get("ratelimit")), (200, None), "it is about /api alone");
    assert_eq!(app.seen(), 4, "what is refused reaches nobody");
    counted(
        &callee,
        "mesh_rate_limited_total{destination=\"default/orders\",limit=\"default/orders/api\"} 1",
    )
    .await;
    let line = callee.log.line(|line| line["code"] == 429).await;
    assert_eq!(line["source"], "default/web");
}

#[tokio::test]
async fn who_speaks_grpc_is_told_so_in_grpc() {
    let app = app::h2("ledger").await;
    let limits = json!([{"by": [{"type": "Source"}], "requests": 1, "per": "1h"}]);
    let (_world, _proxies, upstream) = pair("grpc", &app, json!({"rateLimits": limits})).await;
    let mut sender = h2(upstream).await;
    let mut ask = async || {
        let request = Request::post("http://orders.default.mesh/ledger.Ledger/Get")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("x-echo", "1")
            .body(full(""))
            .expect("a request");
        h2_call(&mut sender, request).await.0
    };
    assert_eq!(ask().await.headers().get("grpc-status"), None);
    let refused = ask().await;
    assert_eq!((refused.status().as_u16(), refused.headers()["grpc-status"].as_bytes()), (200, &b"8"[..]));
    assert_eq!(refused.headers()["retry-after"], "3600");
    assert_eq!(app.seen(), 1);
}
