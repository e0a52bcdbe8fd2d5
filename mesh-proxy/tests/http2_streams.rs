//! Requests that come in HTTP/2 ride in HTTP/1.1 on streams between two proxies, and are on both ends what they would be without:
//! trailers, two streams at once, ends and the reasons for them.

mod asked;
mod gone;

use std::{
    convert::Infallible,
    future::pending,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::world::{
    client::{Body, full, h2, h2_call},
    *,
};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use traffic::mesh1::ALPN;

const MADE: &str = "mesh_mux_connections_total{direction=\"outbound\"}";
const OPENED: &str = "mesh_mux_streams_total{direction=\"outbound\"}";

fn count(proxy: &Proxy, name: &str) -> u64 {
    let text = proxy.metrics();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("it is counted");
    line.trim().parse().expect("a number")
}

/// A caller's proxy and the proxy of one application.
fn pair(app: SocketAddr) -> (World, Proxy, Proxy, SocketAddr) {
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let callee = world.proxy("host-b", &[], vec![local("orders", 80, "http2", app)]);
    world.publish(&[&caller, &callee]);
    let upstream = caller.upstream("web", "orders", None);
    (world, caller, callee, upstream)
}

/// What an answer's body is made of, or breaks off with.
type Piece = Result<Frame<Bytes>, h2::Error>;
type Pieces = UnsyncBoxBody<Bytes, h2::Error>;

/// An application of HTTP/2 that does what it is given.
async fn application<F>(answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static) -> SocketAddr
where
    F: Future<Output = Response<Pieces>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accepted");
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let answered = answer(request);
                async { Ok::<_, Infallible>(answered.await) }
            });
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.max_header_list_size(64 * 1_024).initial_stream_window_size(64 * 1_024);
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

fn pieces(pieces: Vec<Piece>) -> Pieces {
    StreamBody::new(futures_util::stream::iter(pieces)).boxed_unsync()
}

fn data(bytes: impl Into<Bytes>) -> Frame<Bytes> {
    Frame::data(bytes.into())
}

fn trailers(name: &'static str, value: &str) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert(name, value.parse().expect("a value"));
    Frame::trailers(trailers)
}

/// A body whose pieces are sent by and by.
fn by_and_by() -> (mpsc::Sender<Result<Frame<Bytes>, Infallible>>, Body) {
    let (sender, receiver) = mpsc::channel(1);
    let frames = futures_util::stream::unfold(receiver, |mut receiver: mpsc::Receiver<_>| async move {
        let frame = receiver.recv().await?;
        Some((frame, receiver))
    });
    (sender, StreamBody::new(frames).boxed_unsync())
}

/// What came, as text: fields of the request, its body, its trailers.
async fn seen(request: Request<Incoming>) -> String {
    let (head, body) = request.into_parts();
    let fields =
        head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")));
    let mut lines: Vec<String> =
        fields.filter(|line| !line.starts_with("trace") && !line.starts_with("x-request")).collect();
    lines.sort();
    let body = body.collect().await.expect("whole");
    let trailers = body.trailers().map(|trailers| format!("{trailers:?}")).unwrap_or_default();
    let bytes = String::from_utf8(body.to_bytes().to_vec()).expect("text");
    format!("{:?} {}\n{}\n{bytes}\n{trailers}", head.version, head.uri, lines.join("\n"))
}

#[tokio::test]
async fn a_request_of_http_2_rides_and_comes_as_it_was_sent() {
    let app = application(|request| async {
        let text = seen(request).await;
        let length = text.len().to_string();
        let mut answer = Response::new(pieces(vec![Ok(data(text)), Ok(trailers("x-ended", "well"))]));
        answer.headers_mut().insert("content-length", length.parse().expect("a value"));
        answer.headers_mut().insert("x-mesh-content-length", "1".parse().expect("a value"));
        answer
    })
    .await;
    let (_world, caller, callee, upstream) = pair(app);
    let mut sender = h2(upstream).await;
    let (sends, body) = by_and_by();
    let request = Request::post("http://shop/a?b")
        .header("content-length", "4")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("x-mesh-content-length", "99")
        .header("te", "trailers")
        .body(body)
        .expect("a request");
    let sent = tokio::spawn(async move {
        for piece in [data("bo"), data("dy"), trailers("x-sum", "7")] {
            sends.send(Ok(piece)).await.expect("room");
        }
    });
    let (head, text, ended) = h2_call(&mut sender, request).await;
    sent.await.expect("sent");
    let want = "HTTP/2.0 http://shop/a?b
content-length: 4
cookie: a=1
cookie: b=2
te: trailers
x-forwarded-client-cert: URI=spiffe://mesh.internal/ns/default/svc/web
body
{\"x-sum\": \"7\"}";
    assert_eq!(std::str::from_utf8(&text).expect("text"), want);
    assert_eq!(ended.expect("trailers")["x-ended"], "well");
    let mut names: Vec<&str> = head.headers().keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "date"], "nothing of the way is left");
    assert_eq!(head.headers()["content-length"], text.len().to_string());
    assert_eq!((count(&caller, MADE), count(&caller, OPENED)), (1, 1));
    let line = callee.log.line(|line| line["direction"] == "inbound").await;
    assert_eq!((&line["protocol"], &line["requestBytes"]), (&"http2".into(), &4.into()), "{line}");
}

#[tokio::test]
async fn one_stream_carries_one_request_after_the_other_whatever_it_came_in() {
    let app = application(|request| async move {
        let bodiless = request.method() == http::Method::HEAD;
        request.into_body().collect().await.expect("whole");
        let mut answer = Response::new(pieces(if bodiless { Vec::new() } else { vec![Ok(data("fine"))] }));
        answer.headers_mut().insert("content-length", "4".parse().expect("a value"));
        answer
    })
    .await;
    let (_world, caller, _callee, upstream) = pair(app);
    let mut sender = h2(upstream).await;
    for method in ["GET", "HEAD", "POST", "GET"] {
        let body = if method == "POST" { "body" } else { "" };
        let request =
            Request::builder().method(method).uri("http://shop/").body(full(body)).expect("a request");
        let (head, body, ended) = h2_call(&mut sender, request).await;
        let want = if method == "HEAD" { "" } else { "fine" };
        assert_eq!(
            (&body[..], &head.headers()["content-length"]),
            (want.as_bytes(), &"4".parse().expect("a value"))
        );
        assert_eq!((head.status().as_u16(), ended), (200, None), "{method}");
        assert_eq!(client::get(upstream, "/").await.body, "fine", "in HTTP/1.1, to an application of HTTP/2");
    }
    assert_eq!((count(&caller, MADE), count(&caller, OPENED)), (1, 1));
}

#[tokio::test]
async fn a_request_goes_on_while_nobody_reads_its_answer() {
    const BYTES: usize = 6_000_000;
    let came = Arc::<AtomicUsize>::default();
    let counts = came.clone();
    let app = application(move |request| {
        let counts = counts.clone();
        tokio::spawn(async move {
            let mut body = request.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                counts.fetch_add(frame.data_ref().map_or(0, Bytes::len), Ordering::SeqCst);
            }
        });
        let endless = futures_util::stream::repeat_with(|| Ok(data(vec![7; 16 * 1_024])));
        async { Response::new(StreamBody::new(endless).boxed_unsync()) }
    })
    .await;
    let (_world, _caller, _callee, upstream) = pair(app);
    let mut sender = h2(upstream).await;
    let (sends, body) = by_and_by();
    let request = Request::post("http://shop/").body(body).expect("a request");
    let _unread = timeout(PATIENCE, sender.send_request(request)).await.expect("in time").expect("an answer");
    for _ in 0..BYTES / 60_000 {
        let sent = timeout(PATIENCE, sends.send(Ok(data(vec![9; 60_000])))).await;
        sent.expect("it goes on").expect("it is taken");
    }
    drop(sends);
    until("all of it", || (came.load(Ordering::SeqCst) == BYTES).then_some(())).await;
}

#[tokio::test]
async fn a_request_goes_on_when_its_answer_is_over() {
    let (tells, mut told) = mpsc::channel(1);
    let app = application(move |request| {
        let tells = tells.clone();
        tokio::spawn(async move {
            let body = request.into_body().collect().await.map(|body| body.to_bytes().len());
            tells.send(body.map_err(|error| error.to_string())).await.expect("heard");
        });
        async { Response::new(pieces(vec![Ok(data("early"))])) }
    })
    .await;
    let (_world, caller, callee, upstream) = pair(app);
    let mut sender = h2(upstream).await;
    let (sends, body) = by_and_by();
    sends.send(Ok(data("first"))).await.expect("room");
    let request = Request::post("http://shop/").body(body).expect("a request");
    let (_, text, _) = h2_call(&mut sender, request).await;
    assert_eq!(&text[..], b"early");
    for _ in 0..20 {
        sends.send(Ok(data(vec![1; 50_000]))).await.expect("it is taken");
    }
    drop(sends);
    let came = timeout(PATIENCE, told.recv()).await.expect("in time").expect("told");
    assert_eq!(came, Ok(5 + 20 * 50_000));
    until("all is over", || (caller.shared.in_flight() + callee.shared.in_flight() == 0).then_some(())).await;
}

#[tokio::test]
async fn why_an_answer_was_ended_is_told() {
    let read = Arc::<Notify>::default();
    let then = read.clone();
    let app = application(move |_| {
        let then = then.clone();
        let half = futures_util::stream::once(async { Ok(data("half")) });
        let calm = futures_util::stream::once(async move {
            then.notified().await;
            Err(h2::Error::from(h2::Reason::ENHANCE_YOUR_CALM))
        });
        async { Response::new(StreamBody::new(futures_util::StreamExt::chain(half, calm)).boxed_unsync()) }
    })
    .await;
    let (_world, caller, callee, upstream) = pair(app);
    let mut sender = h2(upstream).await;
    let request = Request::get("http://shop/").body(full("")).expect("a request");
    let answer = timeout(PATIENCE, sender.send_request(request)).await.expect("in time").expect("an answer");
    let mut body = answer.into_body();
    let half = timeout(PATIENCE, body.frame()).await.expect("in time").expect("a frame").expect("whole");
    assert_eq!(half.into_data().expect("data"), "half");
    read.notify_one();
    let error = timeout(PATIENCE, body.collect()).await.expect("in time").expect_err("half of it");
    let reason =
        std::error::Error::source(&error).and_then(|inner| inner.downcast_ref::<h2::Error>()?.reason());
    assert_eq!(reason, Some(h2::Reason::ENHANCE_YOUR_CALM), "{error:?}");
    for proxy in [&caller, &callee] {
        let line = proxy.log.line(|line| line["reason"] != "").await;
        assert!(line["reason"].as_str().expect("text").starts_with("the answer broke off: "), "{line}");
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_both_streams_of_its_call() {
    let (tells, mut told) = mpsc::channel(1);
    let app = application(move |request| {
        let tells = tells.clone();
        tokio::spawn(async move {
            let ended = request.into_body().collect().await.map(drop);
            let reason = ended.expect_err("half of it");
            let reason =
                std::error::Error::source(&reason).and_then(|inner| inner.downcast_ref::<h2::Error>());
            tells.send(reason.and_then(h2::Error::reason)).await.expect("heard");
        });
        let silent = futures_util::stream::once(pending::<Piece>());
        async { Response::new(StreamBody::new(silent).boxed_unsync()) }
    })
    .await;
    let (_world, caller, callee, upstream) = pair(app);
    let mut sender = h2(upstream).await;
    let (sends, body) = by_and_by();
    let request = Request::post("http://shop/").body(body).expect("a request");
    let answer = timeout(PATIENCE, sender.send_request(request)).await.expect("in time").expect("an answer");
    sends.send(Ok(data("half"))).await.expect("room");
    drop((answer, sender, sends));
    let reason = timeout(PATIENCE, told.recv()).await.expect("in time").expect("told");
    assert_eq!(reason, Some(h2::Reason::CANCEL));
    until("all is over", || (caller.shared.in_flight() + callee.shared.in_flight() == 0).then_some(())).await;
}

#[tokio::test]
async fn what_does_not_fit_a_head_of_http_1_goes_over_http_2() {
    let app =
        application(|request| async { Response::new(pieces(vec![Ok(data(seen(request).await))])) }).await;
    let (_world, caller, _callee, upstream) = pair(app);
    let mut sender = h2(upstream).await;
    let many = (0..200).fold(Request::get("http://shop/"), |request, n| request.header(format!("x-{n}"), n));
    let long = Request::get("http://shop/").header("x-long", "x".repeat(63_000));
    for (request, want) in [(many, "\nx-199: 199\n"), (long, "xxxx")] {
        let (head, body, _) = h2_call(&mut sender, request.body(full("")).expect("a request")).await;
        let text = String::from_utf8(body.to_vec()).expect("text");
        assert!(head.status() == 200 && text.contains(want), "{head:?}");
    }
    assert_eq!(count(&caller, OPENED), 0);
}

/// A proxy of an earlier version: it speaks `mesh/1`, and says nothing of HTTP/2 there.
async fn earlier(world: &World) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let identities = svid::Identities::new();
    let own = world.authority.svid(&id("orders").to_string(), "host-b", std::time::Duration::from_secs(600));
    identities.put(&service("orders"), own);
    let trust = svid::TrustStore::new(world.authority.trust(model::trust::Distrusted::default()));
    let clock = mesh_proxy::clock::tls();
    let config = svid::server_config(identities, trust, svid::Accept::Services, &[ALPN, b"h2"], clock);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accepted");
            let mut stream = acceptor.accept(stream).await.expect("a handshake");
            tokio::spawn(async move {
                if stream.get_ref().1.alpn_protocol() == Some(ALPN) {
                    use tokio::io::{AsyncReadExt, AsyncWriteExt};
                    // HELLO with three numbers, as it was before there were flags.
                    let hello =
                        [&[0, 0, 12, 0, 0, 0, 0, 0][..], &[0, 0, 1, 0], &[0, 1, 0, 0], &[0, 16, 0, 0]];
                    stream.write_all(&hello.concat()).await.expect("written");
                    drop(stream.read_to_end(&mut Vec::new()).await);
                } else {
                    let answer = |_| async { Ok::<_, Infallible>(Response::new(full("over HTTP/2"))) };
                    let builder = http2::Builder::new(TokioExecutor::new());
                    drop(builder.serve_connection(TokioIo::new(stream), service_fn(answer)).await);
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn proxies_that_do_not_take_it_on_streams_get_http_2() {
    let mut world = World::new();
    let caller = world.proxy("host-a", &["web"], Vec::new());
    let address = earlier(&world).await;
    world.routes = vec![
        object(serde_json::json!({
            "kind": "Service", "metadata": {"namespace": "default", "name": "orders"},
            "spec": {"ports": [{"name": "p80", "port": 80, "protocol": "http2"}]},
        })),
        object(serde_json::json!({
            "kind": "Endpoint", "metadata": {"namespace": "default", "name": "orders-1"},
            "spec": {"service": "orders", "node": "host-b", "address": address.ip(),
                "inboundPort": address.port(), "ports": [{"port": 80, "targetPort": 80}]},
            "status": {"health": "Healthy", "stale": false},
        })),
    ];
    world.publish(&[&caller]);
    let mut sender = h2(caller.upstream("web", "orders", None)).await;
    for _ in 0..3 {
        let request = Request::get("http://shop/").body(full("")).expect("a request");
        let (head, body, _) = h2_call(&mut sender, request).await;
        assert_eq!((head.status().as_u16(), &body[..]), (200, &b"over HTTP/2"[..]));
    }
    assert_eq!(count(&caller, MADE), 1);
}
