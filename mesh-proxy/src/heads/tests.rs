use http::Request;
use traffic::policy::{Call, Peer, PolicySet, authorize};

use super::*;

fn head(text: &str) -> request::Parts {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut first = lines.next().expect("a request line").split(' ');
    let builder =
        Request::builder().method(first.next().expect("a method")).uri(first.next().expect("a target"));
    let builder = match first.next() {
        Some("h2") => builder.version(Version::HTTP_2),
        _ => builder,
    };
    let pairs = lines.map(|line| line.split_once(": ").expect("a field"));
    let builder = pairs.fold(builder, |builder, (name, value)| builder.header(name, value));
    builder.body(()).expect("a request").into_parts().0
}

fn shown(head: &request::Parts) -> String {
    let mut fields: Vec<String> = head
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
        .collect();
    fields.sort();
    format!("{:?} {} {}\n{}", head.version, head.method, head.uri, fields.join("\n"))
}

/// Where a request goes whose route changes nothing.
fn to(edits: &Edits) -> ToPeer<'_> {
    ToPeer { path: "/a?b", host: None, hostname: "orders.default.mesh", port: 80, edits }
}

fn permit() -> Permit {
    let policies = PolicySet::mesh_peers("mesh.internal".parse().expect("a domain"));
    let id = "spiffe://mesh.internal/ns/default/svc/web".parse().expect("an id");
    authorize(&policies, Peer::Verified(&id), Call { port: 80, request: None }, &mut Vec::new())
        .expect("let in")
}

#[test]
fn on_the_way_to_a_proxy_a_request_is_http_2_and_cannot_pretend_to_be_one() {
    let text = "GET /x HTTP/1.1
        host: shop.example:81
        connection: keep-alive, x-hop
        x-hop: 1
        keep-alive: 5
        x-mesh-port: 99
        x-mesh-http2: 1
        x-mesh-endpoint: other
        x-forwarded-client-cert: URI=spiffe://me
        x-forwarded-for: 1.2.3.4
        te: trailers
        expect: 100-continue
        cookie: a=1";
    let next = to_peer(head(text), &to(&Edits::default())).expect("sent on");
    let want = "HTTP/2.0 GET http://shop.example:81/a?b
cookie: a=1
te: trailers
x-forwarded-for: 1.2.3.4
x-mesh-port: 80";
    assert_eq!(shown(&next), want);
}

#[test]
fn a_request_without_a_host_is_for_the_destination_and_a_bad_one_is_refused() {
    let next = to_peer(head("GET /"), &to(&Edits::default())).expect("sent on");
    assert_eq!(next.uri, "http://orders.default.mesh/a?b");
    for host in ["a b", "user@host", "a/b", "[::1"] {
        let bad =
            to_peer(head(&format!("GET /\nhost: {host}")), &to(&Edits::default())).expect_err("refused");
        assert_eq!(bad, BadHost(host.to_owned()));
    }
}

#[test]
fn an_upgrade_stays_one_in_http_1() {
    let text = "GET /ws\nhost: a\nconnection: Upgrade\nupgrade: websocket\nsec-websocket-key: k";
    assert!(is_upgrade(&head(text)));
    let next = to_peer(head(text), &to(&Edits::default())).expect("sent on");
    let want = "HTTP/1.1 GET /a?b\nconnection: upgrade\nhost: a\nsec-websocket-key: k\nupgrade: websocket\nx-mesh-port: 80";
    assert_eq!(shown(&next), want);
    assert!(!is_upgrade(&head("GET /\nupgrade: h2c")), "nobody asked for it in Connection");
    let dropped = to_peer(head("GET /\nhost: a\nupgrade: h2c"), &to(&Edits::default())).expect("sent on");
    assert!(!dropped.headers.contains_key("upgrade"));
}

#[test]
fn an_upgrade_to_http_is_none() {
    for to in ["h2c", "H2C", "websocket, h2c", "HTTP/2.0", "TLS/1.3", "websocket,tls/1.0"] {
        let asked = head(&format!(
            "GET /\nhost: a\nconnection: upgrade, http2-settings\nupgrade: {to}\nhttp2-settings: x"
        ));
        assert!(!is_upgrade(&asked), "{to}");
        let next = to_app(asked, "/", &permit(), false).expect("sent on");
        for gone in ["upgrade", "http2-settings", "connection"] {
            assert!(!next.headers.contains_key(gone), "{to}: {gone}");
        }
    }
    assert!(is_upgrade(&head("GET /\nhost: a\nconnection: upgrade\nupgrade: SPDY/3.1")));
    for body in ["content-length: 5", "transfer-encoding: chunked"] {
        assert!(!is_upgrade(&head(&format!("POST /\nconnection: upgrade\nupgrade: echo\n{body}"))), "{body}");
    }
    assert!(is_upgrade(&head("POST /\nconnection: upgrade\nupgrade: echo\ncontent-length: 0")));
}

#[test]
fn the_application_hears_who_called_from_us_alone() {
    let text = "GET http://shop/x h2
        x-forwarded-client-cert: URI=spiffe://forged
        x-forwarded-for: 1.2.3.4
        forwarded: for=x
        x-mesh-port: 80
        x-mesh-http2: 1
        x-request-id: 7
        cookie: a=1
        cookie: b=2";
    let next = to_app(head(text), "/x", &permit(), false).expect("sent on");
    let want = "HTTP/1.1 GET /x
cookie: a=1; b=2
host: shop
x-forwarded-client-cert: URI=spiffe://mesh.internal/ns/default/svc/web
x-request-id: 7";
    assert_eq!(shown(&next), want);
    let next = to_app(head(text), "/x", &permit(), true).expect("sent on");
    assert_eq!((next.version, next.uri.to_string().as_str()), (Version::HTTP_2, "http://shop/x"));
    assert_eq!(next.headers.get_all("cookie").iter().count(), 2);
}

#[test]
fn proxies_read_what_proxies_say() {
    let text = "GET /\nx-mesh-port: 80\nx-mesh-endpoint: orders-a-8080\nx-mesh-http2: 1\nx-mesh-deadline: 70";
    let want = Labels {
        port: Some(80),
        endpoint: Some(HeaderValue::from_static("orders-a-8080")),
        spoke_http2: true,
        deadline: Some(Duration::from_millis(70)),
    };
    assert_eq!(labels(&head(text).headers), want);
    assert_eq!(labels(&head("GET /\nx-mesh-port: x").headers), Labels::default());
    let mut fields = HeaderMap::new();
    mark_unsent(&mut fields, "refused\r\nby ö");
    assert_eq!(unsent(&fields).as_deref(), Some("refusedby "));
}

#[test]
fn answers_lose_what_is_for_one_hop() {
    let mut answer_head = http::Response::builder()
        .header("connection", "close")
        .header("transfer-encoding", "chunked")
        .header("x-mesh-unsent", "forged")
        .header("server", "x")
        .body(())
        .expect("an answer")
        .into_parts()
        .0;
    answer(&mut answer_head, Leg::AnswerOut);
    assert_eq!(answer_head.headers.keys().collect::<Vec<_>>(), ["server"]);
}
