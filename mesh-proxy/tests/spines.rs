//! Requests and streams through two proxies: what every protocol looks like on the other side.

use crate::world::{
    client::{Http1, call, full, get, h2, h2_call, post},
    *,
};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::mpsc, time::timeout};

/// A caller's proxy and the proxy of one application, which answers as `orders` at port 80.
async fn pair(protocol: &'static str, app: &app::App) -> (World, Proxy, Proxy, std::net::SocketAddr) {
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let callee = world.proxy("host-b", &[], vec![local("orders", 80, protocol, app.address)]);
    world.publish(&[&caller, &callee]);
    let upstream = caller.upstream("web", "orders", None);
    (world, caller, callee, upstream)
}

#[tokio::test]
async fn http_1_goes_through_and_the_application_hears_who_called() {
    let app = app::http("orders").await;
    let (_world, _caller, _callee, upstream) = pair("http", &app).await;
    let request = "GET /head?a=%7e HTTP/1.1\nHost: shop.example:81\nX-Forwarded-Client-Cert: URI=forged\n\
        X-Mesh-Port: 9\nConnection: x-hop\nX-Hop: 1\nX-Request-Id: r1\n\
        Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n\n";
    let answer = call(upstream, request).await;
    let want = "orders HTTP/1.1 GET /head?a=%7e from 127.0.0.6
host: shop.example:81
traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
x-forwarded-client-cert: URI=spiffe://mesh.internal/ns/default/svc/web
x-request-id: r1
";
    assert_eq!((answer.status, answer.body.as_str()), (200, want));
    assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("x-mesh-")), "{:?}", answer.headers);
}

#[tokio::test]
async fn what_a_request_lacks_for_tracing_is_made_and_both_sides_log_the_same() {
    let app = app::http("orders").await;
    let (_world, caller, callee, upstream) = pair("http", &app).await;
    let answer = get(upstream, "/head").await;
    let field = |name: &str| {
        let line = answer.body.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.expect("it was made").to_owned()
    };
    let (request_id, traceparent) = (field("x-request-id"), field("traceparent"));
    for (log, direction) in [(&caller.log, "outbound"), (&callee.log, "inbound")] {
        let line = log.line(|line| line["requestId"] == request_id).await;
        assert_eq!(line["traceparent"], traceparent);
        let edge = (&line["direction"], &line["source"], &line["destination"], &line["mtls"]);
        assert_eq!(edge, (&direction.into(), &"default/web".into(), &"default/orders".into(), &true.into()));
        assert_eq!(
            (&line["code"], &line["path"], &line["method"]),
            (&200.into(), &"/head".into(), &"GET".into())
        );
    }
    let metric = "mesh_requests_total{direction=\"inbound\",source=\"default/web\",destination=\"default/orders\",route=\"default\",code=\"200\",protocol=\"http\",mtls=\"true\"} 1";
    assert!(callee.metrics().contains(metric), "{}", callee.metrics());
    let metric = "mesh_requests_total{direction=\"outbound\",source=\"default/web\",destination=\"default/orders\",route=\"default\",code=\"200\",protocol=\"http\",mtls=\"true\"} 1";
    assert!(caller.metrics().contains(metric), "{}", caller.metrics());
}

#[tokio::test]
async fn bodies_go_both_ways_small_large_and_chunked() {
    let app = app::http("orders").await;
    let (_world, _caller, _callee, upstream) = pair("http", &app).await;
    assert_eq!(post(upstream, "/echo", "hello").await.body, "hello");
    let large = "x".repeat(3_000_000);
    assert_eq!(post(upstream, "/echo", &large).await.body, large);
    let chunked = "POST /echo HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n3\nabc\n2\nde\n0\n\n";
    assert_eq!(call(upstream, chunked).await.body, "abcde");
    let mut connection = Http1::connect(upstream).await;
    for n in 0..3 {
        connection
            .send(format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n{n}").as_bytes())
            .await;
        assert_eq!(connection.answer().await.body, n.to_string(), "on a kept connection");
    }
}

#[tokio::test]
async fn http_2_callers_reach_http_1_and_http_2_applications() {
    for (protocol, want) in
        [("http", "HTTP/1.1 GET /head from"), ("http2", "HTTP/2.0 GET http://shop/head from")]
    {
        let app = if protocol == "http" { app::http("orders").await } else { app::h2("orders").await };
        let (_world, _caller, _callee, upstream) = pair(protocol, &app).await;
        let mut sender = h2(upstream).await;
        let request = Request::get("http://shop/head").body(full("")).expect("a request");
        let (head, body, _) = h2_call(&mut sender, request).await;
        let body = String::from_utf8(body.to_vec()).expect("text");
        assert_eq!(head.status(), 200);
        assert!(body.starts_with(&format!("orders {want}")), "{body}");
    }
}

#[tokio::test]
async fn grpc_keeps_its_trailers_and_its_status_is_counted() {
    let app = app::h2("ledger").await;
    let (_world, caller, _callee, upstream) = pair("grpc", &app).await;
    let mut sender = h2(upstream).await;
    let request = Request::post("http://ledger/grpc")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(full("\0\0\0\0\u{2}hi"))
        .expect("a request");
    let (head, body, trailers) = h2_call(&mut sender, request).await;
    assert_eq!((head.status().as_u16(), &body[..]), (200, &b"\0\0\0\0\x02hi"[..]));
    assert_eq!(trailers.expect("trailers")["grpc-status"], "5");
    let line = caller.log.line(|line| line["protocol"] == "grpc").await;
    assert_eq!(line["grpcStatus"], 5);
    assert!(
        caller.metrics().contains("protocol=\"grpc\",mtls=\"true\",grpc_status=\"5\"} 1"),
        "{}",
        caller.metrics()
    );
}

#[tokio::test]
async fn streams_of_http_2_flow_both_ways_at_once() {
    let app = app::h2("orders").await;
    let (_world, _caller, _callee, upstream) = pair("http2", &app).await;
    let mut sender = h2(upstream).await;
    let (pieces, receiver) = mpsc::channel::<Result<Frame<Bytes>, std::convert::Infallible>>(1);
    let body = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let frame = receiver.recv().await?;
        Some((frame, receiver))
    });
    let request =
        Request::post("http://shop/stream").body(StreamBody::new(body).boxed_unsync()).expect("a request");
    let answer = timeout(PATIENCE, sender.send_request(request)).await.expect("in time").expect("an answer");
    let mut body = answer.into_body();
    for piece in ["one", "two", "three"] {
        pieces.send(Ok(Frame::data(Bytes::from_static(piece.as_bytes())))).await.expect("room");
        let frame = timeout(PATIENCE, body.frame()).await.expect("in time").expect("a frame").expect("whole");
        assert_eq!(frame.into_data().expect("data"), piece, "each piece comes back before the next is sent");
    }
    drop(pieces);
    let frame = timeout(PATIENCE, body.frame()).await.expect("in time").expect("a frame").expect("whole");
    assert_eq!(frame.into_trailers().expect("trailers")["x-ended"], "yes");
}

#[tokio::test]
async fn websocket_upgrades_and_carries_messages() {
    let app = app::http("orders").await;
    let (_world, caller, callee, upstream) = pair("http", &app).await;
    let mut connection = Http1::connect(upstream).await;
    connection
        .send(b"GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        .await;
    let (status, headers) = connection.head().await;
    assert_eq!((status, &headers["upgrade"]), (101, &"echo".parse().expect("a value")));
    for message in [&b"hello"[..], b"again"] {
        connection.send(message).await;
        assert_eq!(connection.exactly(message.len()).await, message);
    }
    connection.0.get_mut().shutdown().await.expect("half closed");
    assert_eq!(connection.rest().await, b"");
    for log in [&caller.log, &callee.log] {
        let line = log.line(|line| line["code"] == 101).await;
        assert_eq!((&line["requestBytes"], &line["responseBytes"]), (&10.into(), &10.into()), "{line}");
    }
}

#[tokio::test]
async fn an_upgrade_that_the_application_refuses_is_an_answer() {
    let app = app::http("orders").await;
    let (_world, _caller, _callee, upstream) = pair("http", &app).await;
    let request = "GET /status/403 HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: echo\n\n";
    assert_eq!(call(upstream, request).await.status, 403);
}

#[tokio::test]
async fn tcp_servers_may_speak_first_and_sides_end_one_by_one() {
    let app = app::tcp("welcome ").await;
    let (_world, caller, callee, upstream) = pair("tcp", &app).await;
    let mut connection = Http1::connect(upstream).await;
    assert_eq!(connection.exactly(8).await, b"welcome ");
    connection.send(b"ping").await;
    assert_eq!(connection.exactly(4).await, b"ping");
    connection.0.get_mut().shutdown().await.expect("half closed");
    assert_eq!(connection.rest().await, b"bye", "the server's last word came after ours");
    for (log, metrics) in [(&caller.log, &caller), (&callee.log, &callee)] {
        let line = log.line(|line| line["protocol"] == "tcp").await;
        assert_eq!((&line["requestBytes"], &line["responseBytes"]), (&4.into(), &15.into()), "{line}");
        let text = metrics.metrics();
        assert!(
            text.contains("mesh_tcp_connections_total{") && text.contains("mesh_tcp_bytes_total{"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn auto_tells_http_from_bytes() {
    let app = app::http("orders").await;
    let (_world, caller, _callee, upstream) = pair("auto", &app).await;
    assert!(get(upstream, "/head").await.body.starts_with("orders HTTP/1.1"));
    assert_eq!(caller.log.line(|line| line["direction"] == "outbound").await["protocol"], "http");
    let h2_app = app::h2("orders").await;
    let (_world, _caller, _callee, upstream) = pair("auto", &h2_app).await;
    let mut sender = h2(upstream).await;
    let request = Request::get("http://shop/head").body(full("")).expect("a request");
    let (_, body, _) = h2_call(&mut sender, request).await;
    assert!(body.starts_with(b"orders HTTP/2.0"), "what speaks HTTP/2 is spoken to likewise");
    let tcp = app::tcp("hello").await;
    let (_world, _caller, _callee, upstream) = pair("auto", &tcp).await;
    let mut silent = Http1::connect(upstream).await;
    assert_eq!(silent.exactly(5).await, b"hello", "a server that speaks first");
}

#[tokio::test]
async fn the_host_router_routes_by_host_absolute_form_and_connect() {
    let (orders, db) = (app::http("orders").await, app::tcp("db ").await);
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let locals = vec![local("orders", 80, "http", orders.address), local("db", 5432, "tcp", db.address)];
    let callee = world.proxy("host-b", &[], locals);
    world.publish(&[&caller, &callee]);
    let router = caller.host_router();
    let answer = call(router, "GET / HTTP/1.1\nHost: orders.default.mesh\n\n").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "orders"));
    let by_port = format!("GET / HTTP/1.1\nHost: orders.default.mesh:{}\n\n", router.port());
    assert_eq!(
        call(router, &by_port).await.body,
        "orders",
        "the listener's own port is none of the service's"
    );
    assert_eq!(call(router, "GET http://orders.default.mesh/ HTTP/1.1\nHost: x\n\n").await.body, "orders");
    for (host, status, says) in [
        ("example.com", 404, "'example.com' is no service of the mesh"),
        ("nobody.default.mesh", 404, "there is no service default/nobody"),
        ("orders.default.mesh:81", 404, "service default/orders has no port 81"),
    ] {
        let answer = call(router, &format!("GET / HTTP/1.1\nHost: {host}\n\n")).await;
        assert_eq!(answer.status, status);
        assert!(answer.body.contains(says), "{}", answer.body);
    }
    let mut tunnel = Http1::connect(router).await;
    tunnel.send(b"CONNECT db.default.mesh:5432 HTTP/1.1\r\nHost: db.default.mesh:5432\r\n\r\n").await;
    assert_eq!(tunnel.head().await.0, 200);
    assert_eq!(tunnel.exactly(3).await, b"db ");
    tunnel.send(b"x").await;
    assert_eq!(tunnel.exactly(1).await, b"x");
}

#[tokio::test]
async fn a_host_router_that_cannot_tell_who_calls_says_which_setting_is_missing() {
    let app = app::http("orders").await;
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web", "shop"], Vec::new());
    let callee = world.proxy("host-b", &[], vec![local("orders", 80, "http", app.address)]);
    world.publish(&[&caller, &callee]);
    let answer = call(caller.host_router(), "GET / HTTP/1.1\nHost: orders.default.mesh\n\n").await;
    assert_eq!(answer.status, 403);
    assert!(answer.body.contains("host_router_identity"), "{}", answer.body);
}

#[tokio::test]
async fn malformed_requests_and_huge_heads_are_errors_to_their_sender_alone() {
    let app = app::http("orders").await;
    let (_world, _caller, _callee, upstream) = pair("http", &app).await;
    let mut good = Http1::connect(upstream).await;
    for (bad, status) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n".to_owned(), 400),
        ("\u{1}\u{2}\r\n\r\n".to_owned(), 400),
        ("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET /a HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(), 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(80_000)), 431),
    ] {
        let mut connection = Http1::connect(upstream).await;
        connection.send(bad.as_bytes()).await;
        assert_eq!(connection.head().await.0, status, "{:.60}", bad);
    }
    good.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(good.answer().await.status, 200);
    assert_eq!(app.seen(), 1);
}

#[tokio::test]
async fn a_caller_that_sends_slowly_and_one_that_goes_away_hold_up_nobody() {
    let app = app::http("orders").await;
    let (_world, caller, _callee, upstream) = pair("http", &app).await;
    let mut slow = Http1::connect(upstream).await;
    slow.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab").await;
    let mut gone = Http1::connect(upstream).await;
    gone.send(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until("the application sees it", || (app.seen() >= 2).then_some(())).await;
    drop(gone);
    assert_eq!(get(upstream, "/").await.status, 200);
    slow.send(b"cd").await;
    assert_eq!(slow.answer().await.body, "abcd");
    let line = caller.log.line(|line| line["path"] == "/held").await;
    assert_eq!((&line["code"], &line["reason"]), (&0.into(), &"the caller went away".into()));
    until("nothing is under way", || (caller.shared.in_flight() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_dead_connection_of_a_client_is_only_its_own() {
    let app = app::http("orders").await;
    let (_world, _caller, callee, upstream) = pair("http", &app).await;
    let mut tls_garbage = TcpStream::connect(callee.address).await.expect("connected");
    tls_garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("written");
    assert_eq!(get(upstream, "/").await.status, 200);
}
