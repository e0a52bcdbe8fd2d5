//! What comes after an answer's head: statuses in trailers by which an endpoint is judged, and nothing at all, which is
//! waited for only so long.

use std::{net::SocketAddr, time::Duration};

use crate::world::{
    client::{Http1, full, get, h2, h2_call},
    *,
};
use http::Request;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

fn policy(spec: Value) -> model::object::Object {
    let mut spec = spec;
    spec["targetRefs"] = json!([{"kind": "Service", "name": "orders"}]);
    let metadata = json!({"namespace": "default", "name": "orders"});
    object(json!({"kind": "TrafficPolicy", "metadata": metadata, "spec": spec}))
}

/// A caller's proxy, one with each of the applications, and the listener for them; with a policy.
async fn mesh(protocol: &'static str, apps: &[&app::App], spec: Value) -> (World, Vec<Proxy>, SocketAddr) {
    let mut world = World::new();
    let mut proxies = vec![world.proxy("host-a", &["web"], Vec::new())];
    for (app, host) in apps.iter().zip(["host-b", "host-c"]) {
        proxies.push(world.proxy(host, &[], vec![local("orders", 80, protocol, app.address)]));
    }
    world.routes = vec![policy(spec)];
    world.publish(&proxies.iter().collect::<Vec<_>>());
    let upstream = proxies[0].upstream("web", "orders", None);
    (world, proxies, upstream)
}

/// The status of a call of gRPC in which the application `one` ends with `status`, and `two` well.
async fn grpc(upstream: SocketAddr, status: &'static str) -> String {
    let request = Request::post("http://orders/grpc")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("x-one", status)
        .header("x-two", "0")
        .body(full("a message"))
        .expect("a request");
    let (head, body, trailers) = h2_call(&mut h2(upstream).await, request).await;
    assert_eq!((head.status().as_u16(), &body[..]), (200, &b"a message"[..]));
    trailers.expect("trailers")["grpc-status"].to_str().expect("digits").to_owned()
}

#[tokio::test]
async fn an_endpoint_whose_trailers_say_that_it_fails_is_left_alone() {
    for (status, field, cause, is_failure) in [
        ("14", "consecutiveGatewayErrors", "gateway_errors", true),
        ("13", "consecutiveErrors", "errors", true),
        ("5", "consecutiveErrors", "errors", false),
    ] {
        let (one, two) = (app::h2("one").await, app::h2("two").await);
        let outliers =
            json!({"consecutiveErrors": 0, field: 3, "baseEjectionTime": "1m", "maxEjectionPercent": 50});
        let spec = json!({"outlierDetection": outliers, "loadBalancer": {"type": "RoundRobin"}});
        let (_world, proxies, upstream) = mesh("grpc", &[&one, &two], spec).await;
        for _ in 0..20 {
            grpc(upstream, status).await;
        }
        assert_eq!(one.seen(), if is_failure { 3 } else { 10 }, "status {status}");
        let ejections = proxies[0].shared.lore.ejections();
        let count = ejections.values().sum::<u64>();
        assert_eq!(count, u64::from(is_failure), "{cause}: {ejections:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_ends_well_comes_back_by_its_trailers() {
    let (one, two) = (app::h2("one").await, app::h2("two").await);
    let outliers = json!({"consecutiveErrors": 2, "baseEjectionTime": "200ms", "maxEjectionTime": "200ms"});
    let spec = json!({"outlierDetection": outliers, "loadBalancer": {"type": "RoundRobin"}});
    let (_world, proxies, upstream) = mesh("grpc", &[&one, &two], spec).await;
    let lore = &proxies[0].shared.lore;
    for _ in 0..8 {
        grpc(upstream, "14").await;
    }
    assert_eq!(lore.all_left_alone().len(), 1);
    until("its time is over", || (lore.all_left_alone()[0].1.left == Some(Duration::ZERO)).then_some(()))
        .await;
    for _ in 0..8 {
        grpc(upstream, "0").await;
    }
    assert!(lore.all_left_alone().is_empty(), "it is back");
}

#[tokio::test]
async fn a_request_that_nothing_moves_on_is_given_up_and_one_that_moves_is_not() {
    let app = app::http("orders").await;
    let spec = json!({"timeouts": {"idle": "400ms"}, "retry": {"attempts": 0}});
    let (_world, proxies, upstream) = mesh("http", &[&app], spec).await;
    // No head comes.
    let answer = get(upstream, "/held").await;
    assert_eq!((answer.status, answer.body.as_str()), (504, "mesh: nothing moved on it for 400ms\n"));
    // Both ways little by little, for longer than the limit; then nothing more.
    let mut trickle = Http1::connect(upstream).await;
    trickle.send(b"POST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let mut headed = false;
    for _ in 0..12 {
        trickle.send(b"1\r\nx\r\n").await;
        if !std::mem::replace(&mut headed, true) {
            assert_eq!(trickle.head().await.0, 200);
        }
        assert_eq!(trickle.exactly(6).await, b"1\r\nx\r\n");
        // Pace: a request that carries little.
        tokio::time::sleep(Duration::from_millis(80)).await;
    }
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, trickle.0.read_to_end(&mut rest)).await.expect("in time");
    assert!(rest.is_empty(), "no end of the body: {} {ended:?}", rest.escape_ascii());
    let line = proxies[0].log.line(|line| line["path"] == "/stream").await;
    assert_eq!(line["reason"], "the answer broke off: nothing moved on it for 400ms", "{line}");
    // A body that comes slowly, to an application that answers when it has all of it.
    let mut upload = Http1::connect(upstream).await;
    upload.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n").await;
    for _ in 0..10 {
        // Pace: an upload that carries little.
        tokio::time::sleep(Duration::from_millis(80)).await;
        upload.send(b"y").await;
    }
    assert_eq!(upload.answer().await.body, "yyyyyyyyyy");
}
