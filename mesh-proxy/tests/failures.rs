//! What callers see when applications, proxies and identities fail: as little as can be.

use std::time::Duration;

use crate::world::{
    client::{Http1, full, get, h2, h2_call, post},
    *,
};
use http::Request;
use model::trust::Distrusted;
use rustls::pki_types::ServerName;
use serde_json::json;
use svid::{Expect, IdentitySlot};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A caller's proxy, and two proxies with an application each, of the same service.
async fn trio(protocol: &'static str, apps: [&app::App; 2]) -> (World, [Proxy; 3], std::net::SocketAddr) {
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let first = world.proxy("host-b", &[], vec![local("orders", 80, protocol, apps[0].address)]);
    let second = world.proxy("host-c", &[], vec![local("orders", 80, protocol, apps[1].address)]);
    world.publish(&[&caller, &first, &second]);
    let upstream = caller.upstream("web", "orders", None);
    (world, [caller, first, second], upstream)
}

fn route(rule: serde_json::Value) -> model::object::Object {
    let mut rule = rule;
    rule["backendRefs"] = rule.get("backendRefs").cloned().unwrap_or(json!([{"name": "orders", "port": 80}]));
    object(json!({
        "kind": "HTTPRoute", "metadata": {"namespace": "default", "name": "orders"},
        "spec": {"parentRefs": [{"name": "orders"}], "rules": [rule]},
    }))
}

#[tokio::test]
async fn a_dead_application_costs_no_call_not_even_a_post() {
    let (alive, dead) = (app::http("alive").await, app::http("dead").await);
    let (mut world, proxies, upstream) = trio("http", [&alive, &dead]).await;
    // By turns: one that looked slow at first might not be asked again.
    world.routes.push(object(json!({
        "kind": "TrafficPolicy", "metadata": {"namespace": "default", "name": "orders"},
        "spec": {"targetRefs": [{"kind": "Service", "name": "orders"}], "loadBalancer": {"type": "RoundRobin"}},
    })));
    world.publish(&proxies.each_ref());
    assert_eq!(get(upstream, "/").await.status, 200);
    dead.kill().await;
    for n in 0..40 {
        let answer = post(upstream, "/echo", &format!("order {n}")).await;
        assert_eq!((answer.status, answer.body), (200, format!("order {n}")), "call {n}");
    }
    let line = proxies[0].log.line(|line| line["retries"] == 1).await;
    assert_eq!(line["code"], 200, "one call found out: {line}");
}

#[tokio::test]
async fn a_dead_proxy_costs_no_new_call() {
    let (one, two) = (app::http("one").await, app::http("two").await);
    let (world, proxies, upstream) = trio("http", [&one, &two]).await;
    let mut caller = Http1::connect(upstream).await;
    for n in 0..10 {
        caller.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(caller.answer().await.status, 200, "{n}");
    }
    // Nobody listens there any more, and whatever was open is cut.
    let dead = nobody();
    let mut moved = world;
    let [caller_proxy, first, mut second] = proxies;
    second.stop.cancel();
    second.address = dead;
    moved.publish(&[&caller_proxy, &first, &second]);
    for n in 0..40 {
        caller.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
        let answer = caller.answer().await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "hi"), "call {n}");
    }
}

#[tokio::test]
async fn when_nobody_is_left_the_caller_is_told_and_soon_served_again() {
    let (one, two) = (app::http("one").await, app::http("two").await);
    let (mut world, [caller, first, second], upstream) = trio("http", [&one, &two]).await;
    one.kill().await;
    two.kill().await;
    let answer = get(upstream, "/").await;
    assert_eq!(answer.status, 503);
    assert!(
        answer.body.starts_with("mesh: refused unseen: the application was not reached"),
        "{}",
        answer.body
    );
    assert!(!answer.headers.contains_key("x-mesh-unsent"));
    let back = app::http("back").await;
    let third = world.proxy("host-d", &[], vec![local("orders", 80, "http", back.address)]);
    world.publish(&[&caller, &first, &second, &third]);
    assert_eq!(get(upstream, "/").await.body, "back");
}

#[tokio::test]
async fn tcp_takes_another_endpoint_before_a_byte_is_lost() {
    let (alive, dead) = (app::tcp("alive ").await, app::tcp("dead ").await);
    let (_world, proxies, upstream) = trio("tcp", [&alive, &dead]).await;
    dead.kill().await;
    for n in 0..20 {
        let mut connection = Http1::connect(upstream).await;
        assert_eq!(connection.exactly(6).await, b"alive ", "connection {n}");
    }
    let line = proxies[1].log.line(|line| line["direction"] == "inbound").await;
    assert_eq!((&line["source"], &line["destination"]), (&"default/web".into(), &"default/orders".into()));
}

#[tokio::test]
async fn answers_are_tried_again_as_the_route_says_and_only_where_it_is_safe() {
    let (one, two) = (app::http("one").await, app::http("two").await);
    let (mut world, [caller, first, second], upstream) = trio("http", [&one, &two]).await;
    let seen = || one.seen() + two.seen();
    assert_eq!((get(upstream, "/status/503").await.status, seen()), (503, 2), "once more by default");
    assert_eq!(
        (post(upstream, "/status/503", "x").await.status, seen()),
        (503, 3),
        "a POST may have been done"
    );
    assert_eq!((get(upstream, "/status/500").await.status, seen()), (500, 4), "500 is an answer");
    world.routes = vec![route(json!({"retry": {"attempts": 3, "codes": [500], "backoff": "1ms"}}))];
    world.publish(&[&caller, &first, &second]);
    assert_eq!((get(upstream, "/status/500").await.status, seen()), (500, 8));
    let line = caller.log.line(|line| line["retries"] == 3).await;
    assert_eq!(line["route"], "default/orders/0");
}

#[tokio::test]
async fn what_takes_too_long_is_answered_504() {
    let (one, two) = (app::http("one").await, app::http("two").await);
    let (mut world, [caller, first, second], upstream) = trio("http", [&one, &two]).await;
    let timeouts = json!({"request": "300ms", "backendRequest": "50ms"});
    world.routes = vec![route(json!({"timeouts": timeouts, "retry": {"attempts": 1, "backoff": "1ms"}}))];
    world.publish(&[&caller, &first, &second]);
    assert_eq!(get(upstream, "/held").await.status, 504);
    assert_eq!(one.seen() + two.seen(), 2, "one try more, as GET may be done twice");
    assert_eq!(post(upstream, "/held", "x").await.status, 504);
    assert_eq!(one.seen() + two.seen(), 3);
    let mut connection = Http1::connect(upstream).await;
    connection.send(b"GET /drip HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(connection.head().await.0, 200);
    let body = timeout(PATIENCE, async {
        let mut bytes = Vec::new();
        drop(connection.0.read_to_end(&mut bytes).await);
        bytes
    });
    assert!(
        !body.await.expect("it is cut off").ends_with(b"0\r\n\r\n"),
        "an answer that is cut off has no end"
    );
    let line = caller.log.line(|line| line["path"] == "/drip").await;
    assert!(line["reason"].as_str().expect("text").contains("time is over"), "{line}");
}

#[tokio::test]
async fn weights_and_subsets_are_kept_and_a_change_holds_at_once() {
    let (one, two) = (app::http("one").await, app::http("two").await);
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let first = world.proxy("host-b", &[], vec![local("orders", 80, "http", one.address)]);
    let v2 = Local { version: "v2", ..local("orders", 80, "http", two.address) };
    let second = world.proxy("host-c", &[], vec![v2]);
    let split = |v1: u32, v2: u32| {
        let backend =
            |subset: &str, weight| json!({"name": "orders", "subset": subset, "port": 80, "weight": weight});
        vec![route(json!({"name": "split", "backendRefs": [backend("v1", v1), backend("v2", v2)]}))]
    };
    let upstream = caller.upstream("web", "orders", Some(80));
    for (weights, want) in [((1, 0), (40, 0)), ((0, 1), (0, 40))] {
        world.routes = split(weights.0, weights.1);
        world.publish(&[&caller, &first, &second]);
        let before = (one.seen(), two.seen());
        for _ in 0..40 {
            assert_eq!(get(upstream, "/").await.status, 200);
        }
        assert_eq!((one.seen() - before.0, two.seen() - before.1), want);
    }
    world.routes = split(1, 1);
    world.publish(&[&caller, &first, &second]);
    let before = one.seen();
    for _ in 0..200 {
        assert_eq!(get(upstream, "/").await.status, 200);
    }
    assert!((60..=140).contains(&(one.seen() - before)), "{} of 200", one.seen() - before);
    assert!(caller.metrics().contains("route=\"default/orders/split\""));
}

#[tokio::test]
async fn two_instances_of_a_service_on_one_host_are_told_apart() {
    let (one, two) = (app::http("one").await, app::http("two").await);
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let v2 = Local { version: "v2", ..local("orders", 80, "http", two.address) };
    let callee = world.proxy("host-b", &[], vec![local("orders", 80, "http", one.address), v2]);
    world.routes = vec![route(json!({"backendRefs": [{"name": "orders", "subset": "v2", "port": 80}]}))];
    world.publish(&[&caller, &callee]);
    let upstream = caller.upstream("web", "orders", None);
    for _ in 0..20 {
        assert_eq!(get(upstream, "/").await.body, "two");
    }
}

#[tokio::test]
async fn draining_lets_what_is_under_way_end_and_loses_no_new_call() {
    let (one, two) = (app::h2("one").await, app::h2("two").await);
    let (mut world, [caller, first, second], upstream) = trio("http2", [&one, &two]).await;
    let mut sender = h2(upstream).await;
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut sender = sender.clone();
        held.push(tokio::spawn(async move {
            let request = Request::get("http://shop/held").body(full("")).expect("a request");
            h2_call(&mut sender, request).await
        }));
    }
    until("all are under way", || (one.seen() + two.seen() == 8).then_some(())).await;
    assert!(two.seen() > 0, "both serve");
    // Its connections end gracefully before anybody was told: GOAWAY must cost nobody a call.
    second.shared.draining.cancel();
    for n in 0..20 {
        let request = Request::post("http://shop/echo").body(full("x")).expect("a request");
        let (head, body, _) = h2_call(&mut sender, request).await;
        assert_eq!((head.status().as_u16(), &body[..]), (200, &b"x"[..]), "call {n}");
    }
    let name = format!("orders-host-c-{}", two.address.port());
    world.health.insert(name, "Draining");
    world.publish(&[&caller, &first, &second]);
    let before = two.seen();
    for n in 0..20 {
        let request = Request::post("http://shop/echo").body(full("x")).expect("a request");
        assert_eq!(h2_call(&mut sender, request).await.0.status(), 200, "call {n}");
    }
    assert_eq!(two.seen(), before, "a draining endpoint gets no new calls");
    one.release.notify_waiters();
    two.release.notify_waiters();
    for call in held {
        assert_eq!(call.await.expect("it ran").0.status(), 200, "what was under way ended well");
    }
    until("nothing is under way", || (second.shared.in_flight() == 0).then_some(())).await;
}

#[tokio::test]
async fn unknown_destinations_wait_for_their_subscription_and_say_so() {
    let app = app::http("orders").await;
    let mut world = World::new();
    let mut caller = world.proxy("host-a", &["web"], Vec::new());
    let callee = world.proxy("host-b", &[], vec![local("orders", 80, "http", app.address)]);
    let upstream = caller.upstream("web", "orders", None);
    let call = tokio::spawn(get(upstream, "/"));
    let wanted = timeout(PATIENCE, caller.wanted.recv()).await.expect("in time").expect("asked for");
    assert_eq!(wanted, service("orders"));
    world.publish(&[&caller, &callee]);
    assert_eq!(call.await.expect("it ran").status, 200);
}

/// A TLS client of our own making, against a proxy's listener for proxies.
/// A connection to a proxy's door for other proxies, by hand.
async fn knock(
    world: &World,
    to: std::net::SocketAddr,
    caller: Option<svid::Svid>,
    name: &str,
    alpn: &'static [u8],
) -> Result<TlsStream<TcpStream>, std::io::Error> {
    let trust = svid::TrustStore::new(world.authority.trust(Distrusted::default()));
    let clock = mesh_proxy::clock::tls();
    let identity = caller.map(IdentitySlot::new);
    let config = svid::client_config(identity, trust, Expect::Id(id("orders")), &[alpn], clock);
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let tcp = TcpStream::connect(to).await?;
    TlsConnector::from(std::sync::Arc::new(config)).connect(name, tcp).await
}

async fn dial(
    world: &World,
    to: std::net::SocketAddr,
    caller: Option<svid::Svid>,
    name: &str,
) -> Result<(), std::io::Error> {
    let mut stream = knock(world, to, caller, name, b"h2").await?;
    // TLS 1.3: a refusal of our certificate arrives after our side has finished.
    let mut first = [0; 1];
    timeout(PATIENCE, stream.read_exact(&mut first)).await.expect("in time").map(drop)
}

#[tokio::test]
async fn the_callee_gives_up_when_its_caller_does() {
    let app = app::http("orders").await;
    let mut world = World::new();
    let callee = world.proxy("host-b", &[], vec![local("orders", 80, "http", app.address)]);
    world.publish(&[&callee]);
    let web = world.authority.svid(&id("web").to_string(), "host-a", Duration::from_secs(3_600));
    let stream = knock(&world, callee.address, Some(web), "orders.default.mesh", b"http/1.1").await;
    let mut stream = stream.expect("a service comes in");
    let request =
        b"GET /held HTTP/1.1\r\nHost: orders.default.mesh\r\nx-mesh-port: 80\r\nx-mesh-deadline: 50\r\n\r\n";
    stream.write_all(request).await.expect("taken");
    let mut answer = [0; 12];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await.expect("in time").expect("read");
    assert_eq!((&answer, app.seen()), (b"HTTP/1.1 504", 1));
    let line = callee.log.line(|line| line["code"] == 504).await;
    assert_eq!(line["reason"], "no answer in time");
}

#[tokio::test]
async fn nobody_comes_in_without_an_identity_of_a_service() {
    let app = app::http("orders").await;
    let mut world = World::new();
    let callee = world.proxy("host-b", &[], vec![local("orders", 80, "http", app.address)]);
    world.publish(&[&callee]);
    let hour = Duration::from_secs(3_600);
    let web = world.authority.svid(&id("web").to_string(), "host-a", hour);
    dial(&world, callee.address, Some(web), "orders.default.mesh").await.expect("a service comes in");
    let web = world.authority.svid(&id("web").to_string(), "host-a", hour);
    dial(&world, callee.address, Some(web), "payments.default.mesh").await.expect_err("no such service here");
    dial(&world, callee.address, None, "orders.default.mesh").await.expect_err("no certificate");
    let node = world.authority.svid("spiffe://mesh.internal/node/host-a", "host-a", hour);
    dial(&world, callee.address, Some(node), "orders.default.mesh").await.expect_err("a node is no service");
    let stranger = Authority::new().svid(&id("web").to_string(), "host-a", hour);
    dial(&world, callee.address, Some(stranger), "orders.default.mesh").await.expect_err("another root");
    assert_eq!(app.seen(), 0);
}

#[tokio::test]
async fn a_callee_that_is_somebody_else_is_not_spoken_to() {
    let app = app::http("orders").await;
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let callee = world.proxy("host-b", &[], vec![local("orders", 80, "http", app.address)]);
    // It holds another service's identity in the place of this one's.
    let other = world.authority.svid(&id("payments").to_string(), "host-b", Duration::from_secs(3_600));
    callee.shared.identities.put(&service("orders"), other);
    world.publish(&[&caller, &callee]);
    let answer = get(caller.upstream("web", "orders", None), "/").await;
    assert_eq!(answer.status, 503);
    let want = "spiffe://mesh.internal/ns/default/svc/payments answered where spiffe://mesh.internal/ns/default/svc/orders was expected";
    assert!(answer.body.contains(want), "{}", answer.body);
    assert_eq!(app.seen(), 0);
}

#[tokio::test]
async fn distrust_cuts_live_connections_and_new_ones() {
    let app = app::http("orders").await;
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let callee = world.proxy("host-b", &[], vec![local("orders", 80, "http", app.address)]);
    world.publish(&[&caller, &callee]);
    let upstream = caller.upstream("web", "orders", None);
    let mut held = Http1::connect(upstream).await;
    held.send(b"POST /held HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    until("it is under way", || (app.seen() == 1).then_some(())).await;
    let far = mesh_proxy::clock::unix().as_secs() + 1_000;
    let distrusted = Distrusted { ids: [(id("web"), far)].into(), ..Distrusted::default() };
    callee.believe(world.authority.trust(distrusted));
    assert_eq!(held.answer().await.status, 502, "what was under way is cut off");
    let answer = get(upstream, "/").await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(app.seen(), 1);
}

#[tokio::test]
async fn a_renewed_identity_takes_over_before_the_old_one_ends() {
    let app = app::http("orders").await;
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let callee = world.proxy("host-b", &[], vec![local("orders", 80, "http", app.address)]);
    let short = world.authority.svid(&id("web").to_string(), "host-a", Duration::from_secs(2));
    let end = short.not_after.as_secs();
    caller.shared.identities.put(&service("web"), short);
    world.publish(&[&caller, &callee]);
    let mut connection = Http1::connect(caller.upstream("web", "orders", None)).await;
    let mut calls = 0;
    // The last call begins when the old one has ended for sure.
    let mut over = false;
    while !over {
        over = mesh_proxy::clock::unix().as_secs() > end + 1;
        connection.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
        let answer = connection.answer().await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "hi"), "call {calls}");
        if calls == 0 {
            let fresh = world.authority.svid(&id("web").to_string(), "host-a", Duration::from_secs(3_600));
            caller.shared.identities.put(&service("web"), fresh);
        }
        calls += 1;
        // Pace: calls go on over the old identity's end.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(calls > 1, "the first call was the last");
}

#[tokio::test]
async fn an_identity_that_has_ended_calls_nobody() {
    let app = app::http("orders").await;
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let callee = world.proxy("host-b", &[], vec![local("orders", 80, "http", app.address)]);
    let ended = world.authority.svid(&id("web").to_string(), "host-a", Duration::ZERO);
    caller.shared.identities.put(&service("web"), ended);
    world.publish(&[&caller, &callee]);
    until("a second has passed", || {
        let last = caller.shared.identities.slot(&service("web"))?.load().not_after.as_secs();
        (mesh_proxy::clock::unix().as_secs() > last).then_some(())
    })
    .await;
    let answer = get(caller.upstream("web", "orders", None), "/").await;
    assert_eq!((answer.status, app.seen()), (503, 0), "{}", answer.body);
}
