//! HTTP/1.1 through two proxies, byte by byte: what callers and applications may do with a connection, and what they see.

use std::net::SocketAddr;

use crate::world::{
    client::{Http1, call},
    *,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// An application whose side of the wire the test itself is.
struct App(TcpListener);

/// One connection to it.
struct Wire(BufReader<TcpStream>);

impl App {
    async fn connection(&self) -> Wire {
        let (stream, _) = timeout(PATIENCE, self.0.accept()).await.expect("in time").expect("taken");
        Wire(BufReader::new(stream))
    }

    async fn nobody_else(&self) {
        let soon = std::time::Duration::from_millis(50);
        timeout(soon, self.0.accept()).await.expect_err("another connection");
    }
}

impl Wire {
    /// The lines of a head.
    async fn head(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            timeout(PATIENCE, self.0.read_line(&mut line)).await.expect("in time").expect("read");
            match line.strip_suffix("\r\n").expect("a whole line") {
                "" => return lines,
                line => lines.push(line.to_owned()),
            }
        }
    }

    async fn exactly(&mut self, length: usize) -> String {
        let mut bytes = vec![0; length];
        timeout(PATIENCE, self.0.read_exact(&mut bytes)).await.expect("in time").expect("read");
        String::from_utf8(bytes).expect("text")
    }

    async fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).await.expect("written");
    }

    async fn is_over(&mut self) {
        let mut rest = Vec::new();
        // A reset is an end, too.
        let _ = timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("in time");
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}

async fn pair() -> (World, [Proxy; 2], SocketAddr, App) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let callee = world.proxy("host-b", &[], vec![local("orders", 80, "http", address)]);
    world.publish(&[&caller, &callee]);
    let upstream = caller.upstream("web", "orders", None);
    (world, [caller, callee], upstream, App(listener))
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn requests_one_behind_the_other_are_answered_in_their_order_on_one_connection() {
    let (_world, _proxies, upstream, app) = pair().await;
    let mut caller = Http1::connect(upstream).await;
    let three: String =
        (0..3).map(|n| format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n{n}")).collect();
    caller.send(three.as_bytes()).await;
    let mut wire = app.connection().await;
    for n in 0..3 {
        assert_eq!(wire.head().await[0], format!("POST /{n} HTTP/1.1"));
        assert_eq!(wire.exactly(1).await, n.to_string());
        wire.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{n}")).await;
        assert_eq!(caller.answer().await.body, n.to_string());
    }
    app.nobody_else().await;
}

#[tokio::test]
async fn answers_without_a_body_have_none_and_the_connection_goes_on() {
    let (_world, _proxies, upstream, app) = pair().await;
    let mut caller = Http1::connect(upstream).await;
    caller.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut wire = app.connection().await;
    for (method, sent, length) in [
        ("HEAD", "200 OK\r\nContent-Length: 10", Some("10")),
        ("HEAD", "404 Not Found\r\nTransfer-Encoding: chunked", None),
        ("GET", "304 Not Modified\r\nContent-Length: 10", Some("10")),
        ("GET", "204 No Content\r\nContent-Length: 10", None),
        ("GET", "200 OK\r\nContent-Length: 0", Some("0")),
    ] {
        if length != Some("10") || method == "GET" {
            caller.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
        }
        assert_eq!(wire.head().await[0], format!("{method} / HTTP/1.1"));
        wire.send(&format!("HTTP/1.1 {sent}\r\n\r\n")).await;
        let (status, headers) = caller.head().await;
        assert_eq!(status.to_string(), sent[..3], "{sent}");
        let said = headers.get("content-length").map(|length| length.to_str().expect("text"));
        assert_eq!(said, length, "{method}: {sent}");
        assert!(!headers.contains_key("transfer-encoding"), "{sent}");
    }
    app.nobody_else().await;
}

#[tokio::test]
async fn a_caller_that_waits_to_be_asked_for_its_body_is_asked_or_answered() {
    let (_world, _proxies, upstream, app) = pair().await;
    let mut caller = Http1::connect(upstream).await;
    caller.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(caller.head().await.0, 100);
    caller.send(b"hello").await;
    let mut wire = app.connection().await;
    let head = wire.head().await;
    assert!(!head.iter().any(|line| line.starts_with("expect")), "{head:?}");
    assert_eq!(wire.exactly(5).await, "hello");
    wire.send(OK).await;
    assert_eq!(caller.answer().await.body, "ok");
    // Refused before anybody wants the body: nobody asks for it, and what follows is not looked at.
    caller.send(b"POST /%00 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    let answer = caller.answer().await;
    assert_eq!(answer.status, 400);
    caller.send(GET).await;
    assert_eq!(caller.rest().await, b"");
}

#[tokio::test]
async fn old_callers_are_served_as_they_expect() {
    let (_world, _proxies, upstream, app) = pair().await;
    let mut caller = Http1::connect(upstream).await;
    caller.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    let mut wire = app.connection().await;
    let head = wire.head().await;
    assert_eq!(
        (head[0].as_str(), head.contains(&"host: orders.default.mesh".to_owned())),
        ("GET / HTTP/1.1", true),
        "{head:?}"
    );
    wire.send(OK).await;
    assert_eq!(caller.answer().await.headers["connection"], "keep-alive");
    caller.send(b"GET / HTTP/1.0\r\n\r\n").await;
    wire.head().await;
    wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n").await;
    let (status, headers) = caller.head().await;
    assert!(
        status == 200 && !headers.contains_key("transfer-encoding") && headers["connection"] == "close",
        "{headers:?}"
    );
    assert_eq!(caller.rest().await, b"abc", "what they cannot read in chunks ends with the connection");
    let mut wanting = Http1::connect(upstream).await;
    wanting.send(b"GET / HTTP/1.0\r\n\r\n").await;
    wire.head().await;
    wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n").await;
    wanting.head().await;
    wire.send("nonsense").await;
    assert_eq!(wanting.broken().await, b"ab", "a part does not look like the whole");
}

#[tokio::test]
async fn trailers_go_on_but_those_that_pretend_to_be_the_head_s() {
    let (_world, _proxies, upstream, app) = pair().await;
    let mut caller = Http1::connect(upstream).await;
    let trailers = "X-Sum: 7\r\nX-Forwarded-Client-Cert: URI=forged\r\nContent-Length: 9\r\n\r\n";
    caller.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let mut wire = app.connection().await;
    let head = wire.head().await;
    assert!(head.contains(&"transfer-encoding: chunked".to_owned()), "{head:?}");
    caller.send(format!("2;x=y\r\nhi\r\n0\r\n{trailers}").as_bytes()).await;
    assert_eq!(wire.exactly(7).await, "2\r\nhi\r\n");
    assert_eq!(wire.head().await, ["0", "x-sum: 7"]);
    wire.send(&format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n{trailers}"))
        .await;
    let answer = caller.head().await;
    assert_eq!(answer.1["transfer-encoding"], "chunked");
    assert_eq!(caller.exactly(7).await, b"2\r\nok\r\n");
    assert_eq!(caller.exactly(13).await, b"0\r\nx-sum: 7\r\n");
}

#[tokio::test]
async fn an_application_that_says_something_first_or_too_early_is_understood() {
    let (_world, _proxies, upstream, app) = pair().await;
    let mut caller = Http1::connect(upstream).await;
    caller.send(GET).await;
    let mut wire = app.connection().await;
    wire.head().await;
    wire.send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n").await;
    wire.send(OK).await;
    assert_eq!(caller.answer().await.body, "ok");
    // It answers what it has not read, and closes: the caller hears the answer.
    caller.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nx").await;
    wire.head().await;
    wire.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    assert_eq!(caller.answer().await.status, 413);
    caller.send(&vec![b'x'; 1_000]).await;
    assert_eq!(caller.rest().await, b"", "half a body was read: nothing can follow");
    drop(wire);
    call_again(upstream, &app).await;
}

/// Another call goes through.
async fn call_again(upstream: SocketAddr, app: &App) {
    let calling = tokio::spawn(async move { call(upstream, "GET / HTTP/1.1\nHost: a\n\n").await });
    let mut wire = app.connection().await;
    wire.head().await;
    wire.send(OK).await;
    assert_eq!(calling.await.expect("it ran").body, "ok");
}

#[tokio::test]
async fn an_application_that_closes_between_two_calls_costs_none() {
    let (_world, _proxies, upstream, app) = pair().await;
    let mut caller = Http1::connect(upstream).await;
    for n in 0..5 {
        caller.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
        let mut wire = app.connection().await;
        wire.head().await;
        assert_eq!(wire.exactly(2).await, "hi");
        let close = if n % 2 == 0 { "Connection: close\r\n" } else { "" };
        wire.send(&format!("HTTP/1.1 200 OK\r\n{close}Content-Length: 2\r\n\r\nok")).await;
        wire.0.get_mut().shutdown().await.expect("closed");
        assert_eq!(caller.answer().await.body, "ok", "call {n}");
        wire.is_over().await;
    }
}

#[tokio::test]
async fn an_answer_that_could_be_read_in_two_ways_is_a_bad_gateway() {
    let (_world, _proxies, upstream, app) = pair().await;
    for bad in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        "HTTP/1.1 200 OK\r\nX: 1\r\n folded\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "nonsense",
    ] {
        let calling = tokio::spawn(call(upstream, "POST / HTTP/1.1\nHost: a\nContent-Length: 0\n\n"));
        let mut wire = app.connection().await;
        wire.head().await;
        wire.send(bad).await;
        wire.0.get_mut().shutdown().await.expect("closed");
        assert_eq!(calling.await.expect("it ran").status, 502, "{bad:?}");
        wire.is_over().await;
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_or_is_malformed_never_looks_whole_to_the_application() {
    let (_world, [caller_proxy, _], upstream, app) = pair().await;
    let start = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n";
    let mut malformed = Http1::connect(upstream).await;
    malformed.send(start.as_bytes()).await;
    let mut wire = app.connection().await;
    wire.head().await;
    assert_eq!(wire.exactly(7).await, "2\r\nhi\r\n");
    malformed.send(b"x\r\n").await;
    assert_eq!(malformed.answer().await.status, 400);
    assert_eq!(malformed.rest().await, b"");
    wire.is_over().await;
    let mut gone = Http1::connect(upstream).await;
    gone.send(start.as_bytes()).await;
    let mut wire = app.connection().await;
    wire.head().await;
    assert_eq!(wire.exactly(7).await, "2\r\nhi\r\n");
    drop(gone);
    wire.is_over().await;
    until("nothing is under way", || (caller_proxy.shared.in_flight() == 0).then_some(())).await;
}

#[tokio::test]
async fn what_comes_with_the_head_of_an_upgrade_is_the_other_protocol_s() {
    let (_world, _proxies, upstream, app) = pair().await;
    let mut caller = Http1::connect(upstream).await;
    caller.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nearly").await;
    let mut wire = app.connection().await;
    let head = wire.head().await;
    assert!(
        head.contains(&"upgrade: echo".to_owned()) && head.contains(&"connection: upgrade".to_owned()),
        "{head:?}"
    );
    wire.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nfirst").await;
    let (status, headers) = caller.head().await;
    assert!(status == 101 && !headers.contains_key("content-length"), "{headers:?}");
    assert_eq!(caller.exactly(5).await, b"first");
    assert_eq!(wire.exactly(5).await, "early");
}

#[tokio::test]
async fn a_proxy_that_goes_away_closes_what_is_idle_and_lets_the_rest_end() {
    let (_world, [caller_proxy, _], upstream, app) = pair().await;
    let (mut idle, mut busy) = (Http1::connect(upstream).await, Http1::connect(upstream).await);
    idle.send(GET).await;
    let mut wire = app.connection().await;
    wire.head().await;
    wire.send(OK).await;
    assert_eq!(idle.answer().await.body, "ok");
    busy.send(GET).await;
    wire.head().await;
    caller_proxy.shared.draining.cancel();
    caller_proxy.shared.closing.cancel();
    assert_eq!(idle.rest().await, b"");
    wire.send(OK).await;
    let answer = busy.answer().await;
    assert_eq!(
        (answer.body.as_str(), &answer.headers["connection"]),
        ("ok", &"close".parse().expect("a value"))
    );
    assert_eq!(busy.rest().await, b"");
}

/// Whose caller may be about to ask is not closed before it did: a successor takes new connections, but not this one.
#[tokio::test]
async fn a_proxy_that_hands_over_answers_once_more_on_what_is_idle() {
    let (_world, [caller_proxy, _], upstream, app) = pair().await;
    let (mut idle, mut left) = (Http1::connect(upstream).await, Http1::connect(upstream).await);
    let mut wire = None;
    for caller in [&mut idle, &mut left] {
        caller.send(GET).await;
        let wire = match &mut wire {
            Some(wire) => wire,
            none => none.insert(app.connection().await),
        };
        wire.head().await;
        wire.send(OK).await;
        assert_eq!(caller.answer().await.body, "ok");
    }
    caller_proxy.shared.draining.cancel();
    idle.send(GET).await;
    let mut wire = wire.expect("one was made");
    wire.head().await;
    wire.send(OK).await;
    let answer = idle.answer().await;
    assert_eq!(
        (answer.body.as_str(), &answer.headers["connection"]),
        ("ok", &"close".parse().expect("a value"))
    );
    assert_eq!(idle.rest().await, b"");
    caller_proxy.shared.closing.cancel();
    assert_eq!(left.rest().await, b"");
}
